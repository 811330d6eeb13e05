"""A margin actor between topics, a store and a clock that the test holds."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from random import Random

import msgspec
import pytest

from actors.cost import MEND_S
from actors.margin_actor import WAIT_US, MarginActor
from actors.margin_store import MarginCheckpoint, MarginClaim
from actors.ports import CommitUnknown, Fenced, LogUnavailable, Record, StoreUnavailable
from config.settings import KafkaSettings
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine
from engine.cost.margin import RUN_KEPT_US, Key, Margin, MarginFold
from engine.placement import partition_for
from tests.engine.cost.test_margin import CLOSE_US, H, cost, drawn, rated

KAFKA = KafkaSettings(partitions=2)
HOME = {account: partition_for(account.encode(), 2) for account in ("", "a", "b", "acme")}


class Kept(msgspec.Struct):
    """A record as Kafka hands it out."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Topics:
    """Two partitions of `rated`, two of `costs`."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[Kept]] = {
            (topic, number): [] for topic in (KAFKA.topic_rated, KAFKA.topic_costs) for number in (0, 1)
        }
        self.away = False
        self.costs = 0

    def put(self, line: bytes | RequestLine, append_us: int) -> None:
        if isinstance(line, bytes):
            account = msgspec.json.decode(line)["account"]
            where, value = (KAFKA.topic_rated, HOME[account]), line + b"\n"
        else:
            self.costs += 1
            where, value = (KAFKA.topic_costs, self.costs % 2), msgspec.json.encode(line)
        kept = self.records[where]
        kept.append(Kept(len(kept), append_us // 1_000, None, value))

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        if self.away:
            raise LogUnavailable("away")
        return 0, len(self.records[topic, partition])

    async def bounds_of(self, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        return {each: await self.bounds(topic, each) for each in partitions}

    async def partitions(self, topic: str) -> int:
        return 2

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        kept = self.records[topic, partition]
        return next((record.offset for record in kept if record.timestamp >= append_ms), len(kept))

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None:
        return self.records[topic, partition][offset]

    async def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        for partition, (offset, end) in places.items():
            for record in self.records[topic, partition][offset:end]:
                yield partition, record


class Stored:
    """Checkpoints in memory, fenced as the real ones are."""

    def __init__(self) -> None:
        self.at: dict[int, MarginCheckpoint] = {}
        self.epochs: dict[int, int] = {}
        self.table: dict[Key, tuple[int, Margin]] = {}
        self.trouble: list[Exception] = []
        self.costs_us = 0
        self.commits = 0

    async def claim(self, partition: int, owner: str) -> MarginClaim:
        self.epochs[partition] = self.epochs.get(partition, 0) + 1
        last = self.at.get(partition)
        if last is None:
            return MarginClaim(self.epochs[partition], 0, 0, (), 0)
        return MarginClaim(self.epochs[partition], last.ckpt_seq, last.rated_offset, last.costs_offsets, last.closed_us)

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Margin]]:
        return [
            (key, sums)
            for key, (home, sums) in self.table.items()
            if home == partition and key.hour_us >= from_us - (RUN_KEPT_US if key.run else 0)
        ]

    async def costs_closed_us(self) -> int:
        return self.costs_us

    async def commit(self, checkpoints: Sequence[MarginCheckpoint]) -> None:
        trouble = self.trouble.pop() if self.trouble else None
        if isinstance(trouble, StoreUnavailable):
            raise trouble
        for checkpoint in checkpoints:
            last = self.at.get(checkpoint.partition)
            if (checkpoint.epoch, checkpoint.ckpt_seq) != (
                self.epochs[checkpoint.partition],
                1 if last is None else last.ckpt_seq + 1,
            ):
                raise Fenced(f"margin of partition {checkpoint.partition}: another owner")
        for checkpoint in checkpoints:
            self._write(checkpoint)
        if trouble is not None:
            raise trouble

    def _write(self, checkpoint: MarginCheckpoint) -> None:
        self.at[checkpoint.partition] = checkpoint
        self.commits += 1
        for row in checkpoint.rows:
            self.table[row.key] = (checkpoint.partition, row.sums)
        for key, (home, _) in list(self.table.items()):
            if key.run and home == checkpoint.partition and key.hour_us < checkpoint.runs_from_us:
                del self.table[key]

    def found(self) -> dict[Key, Margin]:
        return {key: sums for key, (_, sums) in self.table.items() if sums != Margin()}


class Time:
    def __init__(self, now_us: int) -> None:
        self.now_us = now_us

    def wall_us(self) -> int:
        return self.now_us

    def boot_s(self) -> float:
        return self.now_us / 1_000_000

    async def sleep(self, seconds: float) -> None:
        self.now_us += round(seconds * 1_000_000)


class Rig:
    def __init__(self) -> None:
        self.topics, self.store, self.clock = Topics(), Stored(), Time(H + 10)
        self.actor = self.made()

    def made(self, partitions: Sequence[int] = (0, 1)) -> MarginActor:
        return MarginActor(
            "a",
            partitions,
            clock=self.clock,
            reader=self.topics,
            store=self.store,
            kafka=KAFKA,
            close_us=CLOSE_US,
            runs_kept_us=RUN_KEPT_US,
            interval_s=1.0,
        )

    def put(self, *lines: bytes | RequestLine) -> None:
        for line in lines:
            self.topics.put(line, self.clock.now_us)


async def turn(actor: MarginActor) -> None:
    await actor.turn()


def whole(lines: Sequence[bytes | RequestLine]) -> dict[Key, Margin]:
    fold = MarginFold(CLOSE_US)
    for line in lines:
        if isinstance(line, bytes):
            fold.apply_rated(HOME[msgspec.json.decode(line)["account"]], line, H + 10)
        else:
            fold.apply_cost(line)
    return {change.key: change.sums for change in fold.changes() if change.sums != Margin()}


async def test_a_charge_and_its_cost_meet_and_are_kept_by_hour() -> None:
    rig = Rig()
    rig.put(rated(0, "a", 5))
    await turn(rig.actor)
    assert [(key.feature, sums.cost) for key, sums in rig.store.found().items()] == [("", None)]
    rig.put(cost("a", 2))
    await turn(rig.actor)
    assert rig.store.found() == {Key(H, "acme", "m", "chat", "growth", "USD"): Margin(5, 2, 1)}
    commits = rig.store.commits
    await turn(rig.actor)
    assert rig.store.commits == commits, "nothing has come"
    (view,) = [view for view in rig.actor.views() if view.requests]
    assert (view.partition, view.rated_offset, view.epoch) == (HOME["acme"], 1, 1)


@pytest.mark.parametrize("seed", range(30))
async def test_any_crash_any_owner_and_any_trouble_ends_at_the_same_rows(seed: int) -> None:
    random, rig = Random(seed), Rig()
    lines = drawn(random)
    for line in lines:
        rig.put(line)
        rig.clock.now_us += 1
        if random.random() < 0.2:
            troubles: list[list[Exception]] = [[], [], [StoreUnavailable("away")], [CommitUnknown("who knows", 0)]]
            rig.store.trouble = random.choice(troubles)
            rig.topics.away = random.random() < 0.1
            await turn(rig.actor)
            rig.topics.away = False
        if random.random() < 0.1:
            rig.actor = rig.made()
    rig.store.trouble = []
    for _ in range(3):
        await turn(rig.actor)
    assert rig.store.found() == whole(lines)


async def test_who_could_not_read_what_was_told_begins_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a cost that was told before its charge came would stay without one, beside the charge."""
    rig = Rig()
    rig.put(cost("a", 2))
    await turn(rig.actor)
    rig.put(rated(0, "a", 5))
    heir, rows = rig.made(), rig.store.rows

    async def away(partition: int, from_us: int) -> list[tuple[Key, Margin]]:
        raise StoreUnavailable("away")

    monkeypatch.setattr(rig.store, "rows", away)
    await turn(heir)
    assert heir.views() == []
    monkeypatch.setattr(rig.store, "rows", rows)
    await turn(heir)
    assert rig.store.found() == {Key(H, "acme", "m", "chat", "growth", "USD"): Margin(5, 2, 1)}


async def test_who_is_replaced_is_refused_and_stops() -> None:
    rig = Rig()
    rig.put(rated(0, "a", 5))
    await turn(rig.actor)
    second = rig.made()
    await turn(second)
    rig.put(cost("a", 2))
    await rig.actor.run()
    assert rig.actor.fenced and not second.fenced
    await turn(second)
    assert [sums.cost for sums in rig.store.found().values()] == [2]


async def test_two_actors_share_the_accounts() -> None:
    rig, random = Rig(), Random(7)
    lines = drawn(random)
    rig.put(*lines)
    for partition in (0, 1):
        await turn(rig.made([partition]))
    assert rig.store.found() == whole(lines)


async def test_hours_close_once_every_cost_of_them_is_told_and_then_stay() -> None:
    rig = Rig()
    rig.put(rated(0, "a", 5), cost("a", 2))
    await turn(rig.actor)
    rig.clock.now_us += 8 * HOUR_US
    await turn(rig.actor)
    assert all(part.closed_us < H for part in rig.store.at.values()), "cost actors have not come so far"
    rig.store.costs_us = H + HOUR_US
    await turn(rig.actor)
    assert {part.closed_us for part in rig.store.at.values()} == {H + HOUR_US}
    assert sum(view.requests for view in rig.actor.views()) == 0, "memory holds what is open"
    # A correction of it counts in the hour in which it comes, also for the next owner.
    rig.put(rated(7, "a", -5, correction="cancel"))
    for actor in (rig.actor, rig.made()):
        await turn(actor)
        sums = {key.hour_us: found for key, found in rig.store.found().items()}
        assert (sums[H].revenue, sums[H + 8 * HOUR_US].revenue) == (5, -5)


async def test_a_cost_actor_that_has_stopped_keeps_hours_open_for_a_day() -> None:
    rig = Rig()
    rig.put(rated(0, "a", 5))
    rig.clock.now_us += WAIT_US + CLOSE_US + 2 * HOUR_US
    await turn(rig.actor)
    await turn(rig.actor)
    assert sum(view.requests for view in rig.actor.views()) == 0


async def test_a_log_that_is_shorter_than_the_checkpoint_halts_it() -> None:
    rig = Rig()
    rig.put(rated(0, "a", 5))
    await turn(rig.actor)
    rig.topics.records[KAFKA.topic_rated, HOME["acme"]].clear()
    second = rig.made()
    await turn(second)
    assert "ends at 0, the checkpoint at 1" in second.halted
    rig.put(rated(0, "a", 5))
    await turn(second)
    assert second.halted, "what only a person can mend is not tried again at once"
    await rig.clock.sleep(MEND_S)
    await turn(second)
    assert second.halted == ""


async def test_costs_that_are_fewer_than_the_checkpoint_knew_halt_it() -> None:
    """Else they would be taken back, though whoever told them does not tell them again."""
    rig = Rig()
    rig.put(rated(0, "a", 5), cost("a", 2))
    await turn(rig.actor)
    before = rig.store.found()
    (told,) = [where for where, kept in rig.topics.records.items() if kept and where[0] == KAFKA.topic_costs]
    rig.topics.records[told].clear()
    second = rig.made()
    await turn(second)
    assert "ends at 0, the checkpoint at 1" in second.halted
    assert rig.store.found() == before


@pytest.mark.parametrize("topic", [KAFKA.topic_rated, KAFKA.topic_costs])
async def test_a_log_that_is_cut_while_it_is_read_halts_it(topic: str) -> None:
    """It would grow again, and be read on from the middle."""
    rig = Rig()
    rig.put(rated(0, "a", 5), cost("a", 2))
    await turn(rig.actor)
    (cut,) = [where for where, kept in rig.topics.records.items() if kept and where[0] == topic]
    rig.topics.records[cut].clear()
    await turn(rig.actor)
    assert f"{topic} partition {cut[1]}: it ends at 0, and was read to 1" in rig.actor.halted


async def test_a_line_of_costs_that_is_none_halts_it() -> None:
    rig = Rig()
    rig.topics.records[KAFKA.topic_costs, 0].append(Kept(0, 0, None, b"{}"))
    await turn(rig.actor)
    assert "a line of costs" in rig.actor.halted


class Closing(Topics):
    """How many reads have been begun and not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.reading = 0

    async def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        self.reading += 1
        try:
            async for each in super().read_together(topic, places):
                yield each
        finally:
            self.reading -= 1


async def test_a_read_that_breaks_off_is_closed_before_anybody_else_reads() -> None:
    """There is one consumer for all, and whoever reads has it to himself."""
    rig, topics = Rig(), Closing()
    rig.topics = topics
    actor = rig.made()
    topics.records[KAFKA.topic_costs, 0] += [Kept(0, 0, None, b"{}"), Kept(1, 0, None, b"{}")]
    await turn(actor)
    assert "a line of costs" in actor.halted
    assert topics.reading == 0


async def test_it_ends_when_it_is_asked_to() -> None:
    rig = Rig()
    rig.put(rated(0, "a", 5))
    rig.actor.stop()
    await rig.actor.run()
    assert rig.store.commits == 0


async def test_rows_of_runs_go_when_they_have_been_kept_for_long_enough() -> None:
    rig = Rig()
    rig.put(cost("a", 30, account="acme", run="talk-1"))
    await turn(rig.actor)
    (of_run,) = [key for key in rig.store.found() if key.run]
    rig.clock.now_us += RUN_KEPT_US + CLOSE_US + HOUR_US
    rig.store.costs_us = rig.clock.now_us
    await turn(rig.actor)
    assert rig.store.at[HOME["acme"]].runs_from_us == of_run.hour_us and of_run in rig.store.table
    rig.clock.now_us += HOUR_US
    rig.store.costs_us = rig.clock.now_us
    await turn(rig.actor)
    assert [key.run for key in rig.store.table] == [""]
