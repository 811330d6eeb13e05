"""A cost actor between a topic, a store and a clock that the test holds."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from random import Random

import pytest

from actors import cost
from actors.cost import CostActor, CostCheckpoints
from actors.cost_store import CostCheckpoint, CostClaim
from actors.ports import CommitUnknown, LogDamaged, LogUnavailable, Record, StoreRefused, StoreUnavailable
from engine.cost.attribution import Horizons
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine, WindowLine
from engine.cost.rollup import Key, Sums
from engine.cost.served import Served
from engine.cost.window import Bucket
from tests.actors.cost_rig import KAFKA, Stored, Topics
from tests.engine.cost.histories import (
    HORIZONS,
    KEY,
    PARTITION,
    START_US,
    Arrival,
    S,
    history,
    rates_record,
    served_record,
)


class Clock:
    """Moves when somebody sleeps; `stop_after` sleeps that are none of yielding end the actor."""

    def __init__(self, now_us: int) -> None:
        self.now_us = now_us
        self.actor: CostActor | None = None
        self.turns = 1

    def wall_us(self) -> int:
        return self.now_us

    def boot_s(self) -> float:
        return self.now_us / 1e6

    async def sleep(self, seconds: float) -> None:
        if seconds:
            self.now_us += int(seconds * 1e6)
            self.turns -= 1
            if self.turns <= 0:
                assert self.actor is not None
                self.actor.stop()


def actor(
    topics: Topics, store: CostCheckpoints, clock: Clock, turns: int = 1, owner: str = "a", *others: int
) -> CostActor:
    made = CostActor(
        owner,
        [PARTITION, *others],
        clock=clock,
        reader=topics,
        appender=topics,
        store=store,
        control_key=KEY,
        kafka=KAFKA,
        horizons=HORIZONS,
        changes_kept_us=24 * HOUR_US,
        interval_s=1.0,
    )
    clock.actor, clock.turns = made, turns
    return made


def topics_of(seed: int, requests: int = 40) -> tuple[Topics, list[Arrival]]:
    topics = Topics()
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(), START_US)
    return topics, history(Random(seed), requests)


LAST_US = START_US + 200 * S
# Far enough that all has settled by then.
SETTLED_US = LAST_US + 2 * HORIZONS.settle_us


async def undisturbed(arrivals: list[Arrival]) -> Stored:
    topics, store = Topics(), Stored()
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(), START_US)
    topics.arrive(arrivals, LAST_US)
    await actor(topics, store, Clock(SETTLED_US)).run()
    return store


async def test_what_has_come_is_told_and_committed() -> None:
    topics, arrivals = topics_of(1)
    topics.arrive(arrivals, LAST_US)
    store = Stored()
    await actor(topics, store, Clock(SETTLED_US)).run()
    assert store.next_offset == len(topics.records[KAFKA.topic_served, PARTITION])
    assert store.table and not any(sums.unknown for sums in store.table.values())
    assert store.changes == {key: sums.amount for key, sums in store.table.items()}
    windows = [line for line in topics.lines if isinstance(line, WindowLine)]
    requests = [line for line in topics.lines if isinstance(line, RequestLine)]
    assert {line.replica for line in windows} == {"both", "part-a", "part-b"}
    assert store.last is not None
    assert store.last.changes_from_us == store.last.closed_us - 24 * HOUR_US > 0
    assert requests and all((line.epoch, line.seq, line.currency) == (1, 1, "USD") for line in requests)
    assert any(key.bucket is Bucket.UNATTRIBUTED and sums.amount for key, sums in store.table.items()), (
        "samples are read"
    )


async def test_nothing_new_makes_no_checkpoint() -> None:
    topics = Topics()
    store = Stored()
    await actor(topics, store, Clock(SETTLED_US), turns=5).run()
    assert store.commits == 0


async def test_hours_close_where_nothing_comes_any_more() -> None:
    """A partition that has rates, and no replica: the margin of all the others would wait for it, a day each hour."""
    topics, store = topics_of(1)[0], Stored()
    await actor(topics, store, Clock(START_US + S)).run()
    assert store.last is not None and store.commits == 1
    begun_us = store.last.closed_us
    await actor(topics, store, Clock(START_US + 20 * HOUR_US), turns=5, owner="b").run()
    assert store.last.closed_us == begun_us + 19 * HOUR_US, "five minutes behind: no clock differs by more"
    assert store.commits == 2
    await actor(topics, store, Clock(START_US + 21 * HOUR_US), turns=95, owner="c").run()
    assert store.commits == 2 + 4, "every half a minute it says that all has settled"
    assert store.last.settled_us == START_US + 21 * HOUR_US + 90 * S - HORIZONS.settle_us


@pytest.mark.parametrize("seed", range(4))
async def test_a_crash_and_a_new_owner_change_no_row(seed: int) -> None:
    topics, arrivals = topics_of(seed)
    store = Stored()
    half = len(arrivals) // 2
    topics.arrive(arrivals[:half], LAST_US)
    await actor(topics, store, Clock(LAST_US + 60 * S), turns=3).run()
    topics.arrive(arrivals[half:], LAST_US)
    await actor(topics, store, Clock(SETTLED_US), owner="b").run()
    alone = await undisturbed(arrivals)
    assert {key: sums for key, sums in store.table.items() if sums != Sums()} == alone.table
    assert {key: change for key, change in store.changes.items() if change} == {
        key: change for key, change in alone.changes.items() if change
    }


async def test_a_new_owner_knows_what_had_settled_before_it() -> None:
    """What changes there is a correction, also in its first checkpoint."""
    topics, arrivals = topics_of(2)
    topics.arrive(arrivals[1:], LAST_US)
    store = Stored()
    await actor(topics, store, Clock(SETTLED_US)).run()
    assert store.last is not None
    before = store.last
    topics.arrive(arrivals[:1], LAST_US)
    await actor(topics, store, Clock(SETTLED_US), owner="b").run()
    assert store.last is not before
    assert store.last.settled_before_us == before.settled_us > 0


async def test_a_new_owner_that_finds_all_as_it_was_tells_nothing() -> None:
    topics, arrivals = topics_of(2)
    topics.arrive(arrivals, LAST_US)
    store = Stored()
    clock = Clock(SETTLED_US)
    await actor(topics, store, clock).run()
    before = dict(store.table), dict(store.changes)
    clock.now_us = SETTLED_US
    await actor(topics, store, clock, owner="b").run()
    assert (store.table, store.changes) == before


async def test_an_owner_that_was_replaced_stops() -> None:
    topics, arrivals = topics_of(3)
    topics.arrive(arrivals[:10], LAST_US)
    store = Stored()
    old = actor(topics, store, Clock(LAST_US), turns=2)
    await old.turn()
    await store.claim(PARTITION, "b")
    topics.arrive(arrivals[10:], LAST_US)
    before = dict(store.table)
    await old.run()
    assert old.fenced
    assert store.table == before


async def test_what_is_away_is_waited_for_and_nothing_is_told_twice() -> None:
    topics, arrivals = topics_of(4)
    topics.arrive(arrivals, LAST_US)
    store = Stored()
    store.trouble = [StoreUnavailable("away"), StoreUnavailable("away")]
    await actor(topics, store, Clock(SETTLED_US), turns=5).run()
    alone = await undisturbed(arrivals)
    assert {key: sums.requests for key, sums in store.table.items()} == {
        key: sums.requests for key, sums in alone.table.items()
    }
    assert store.changes == {key: sums.amount for key, sums in store.table.items()}
    topics.away = True
    clock = Clock(SETTLED_US)
    made = actor(topics, store, clock, turns=3, owner="b")
    await made.run()
    assert not made.fenced


async def test_a_commit_of_which_nobody_knows_is_settled_by_claiming_again() -> None:
    topics, arrivals = topics_of(5)
    topics.arrive(arrivals, LAST_US)
    store = Stored()
    store.trouble = [CommitUnknown("the connection broke")]  # it was written
    await actor(topics, store, Clock(SETTLED_US), turns=3).run()
    assert store.epoch == 2
    assert store.changes == {key: sums.amount for key, sums in store.table.items()}


async def test_what_is_set_aside_is_kept_once_with_its_reason() -> None:
    topics, _ = topics_of(6, 0)
    topics.put(KAFKA.topic_served, PARTITION, b"both", b"{", START_US)
    store = Stored()
    await actor(topics, store, Clock(LAST_US)).run()
    await actor(topics, store, Clock(LAST_US + S), owner="b").run()
    assert store.letters == ["malformed"]


async def test_a_topic_that_was_replaced_halts_the_partition() -> None:
    topics, arrivals = topics_of(7)
    topics.arrive(arrivals, LAST_US)
    store = Stored()
    await actor(topics, store, Clock(SETTLED_US)).run()
    topics.records[KAFKA.topic_served, PARTITION][-1].value = b"{}"
    made = actor(topics, store, Clock(SETTLED_US), owner="b")
    await made.run()
    (view,) = made.views()
    assert "is not the one that the checkpoint saw" in view.halted
    del topics.records[KAFKA.topic_served, PARTITION][-1]
    made = actor(topics, store, Clock(SETTLED_US), owner="c")
    await made.run()
    (view,) = made.views()
    assert "the checkpoint ends at" in view.halted


async def test_a_topic_that_is_cut_while_it_is_read_halts_the_partition() -> None:
    """It would grow again, and be read on from the middle."""
    topics, arrivals = topics_of(7)
    topics.arrive(arrivals, LAST_US)
    made = actor(topics, Stored(), Clock(SETTLED_US))
    await made.turn()
    (view,) = made.views()
    assert view.caught_up and not view.halted
    del topics.records[KAFKA.topic_served, PARTITION][-1]
    await made.turn()
    (view,) = made.views()
    assert "it was cut" in view.halted


BAD = PARTITION + 1


class TwoPartitions(Topics):
    """The log of one of them may be damaged."""

    def __init__(self, *, damaged: bool) -> None:
        super().__init__()
        self.records[KAFKA.topic_served, BAD] = []
        self.damaged = damaged

    async def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        if self.damaged and topic == KAFKA.topic_served and BAD in places:
            raise LogDamaged("an offset is outside the log", BAD)
        async for each in super().read_together(topic, places):
            yield each


class TwoStored:
    """One refuses every row."""

    def __init__(self) -> None:
        self.of = {PARTITION: Stored(), BAD: Stored()}

    async def claim(self, partition: int, owner: str) -> CostClaim:
        return await self.of[partition].claim(partition, owner)

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Sums]]:
        return await self.of[partition].rows(partition, from_us)

    async def commit(self, checkpoints: Sequence[CostCheckpoint]) -> None:
        if any(checkpoint.partition == BAD and checkpoint.letters for checkpoint in checkpoints):
            raise StoreRefused("a letter that no table holds")
        for checkpoint in checkpoints:
            await self.of[checkpoint.partition].commit([checkpoint])


@pytest.mark.parametrize("damaged", [True, False])
async def test_a_partition_that_cannot_go_on_holds_up_no_other(*, damaged: bool) -> None:
    """They are read together and written together; what is wrong with one halts that one."""
    topics, store = TwoPartitions(damaged=damaged), TwoStored()
    _, arrivals = topics_of(9)
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(), START_US)
    topics.put(KAFKA.topic_served, BAD, b"both", b"{", START_US)
    topics.arrive(arrivals, LAST_US)
    made = actor(topics, store, Clock(SETTLED_US), 3, "a", BAD)
    await made.run()
    assert store.of[PARTITION].next_offset == len(topics.records[KAFKA.topic_served, PARTITION])
    assert store.of[PARTITION].table
    assert [(view.partition, bool(view.halted)) for view in made.views()] == [(PARTITION, False), (BAD, True)]
    assert store.of[BAD].commits == 0


async def test_a_request_is_told_a_second_after_it_ended() -> None:
    topics, arrivals = topics_of(8, 0)
    topics.arrive(arrivals, START_US)
    ended_us = START_US + 60 * S
    key = Served("now", "part-a", "llama", ended_us - 2 * S, ended_us - S, ended_us, 100, output=50, account="acme")
    sent = served_record(key)
    topics.put(KAFKA.topic_served, PARTITION, sent.key, sent.value, ended_us)
    store, clock = Stored(), Clock(ended_us)
    await actor(topics, store, clock).run()
    (line,) = [line for line in topics.lines if isinstance(line, RequestLine)]
    assert (line.request, line.account, line.settled, line.method) == ("now", "acme", False, "profiled")
    assert line.amount is not None and line.amount > "0"


async def test_samples_that_could_not_be_found_again_are_looked_for_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples came before it was known who held their GPU, and the log was away when they were wanted again."""
    topics, arrivals = topics_of(9)
    alone = await undisturbed(arrivals)
    topics.arrive([arrival for arrival in arrivals if arrival.sample], LAST_US)
    store = Stored()
    clock = Clock(SETTLED_US)
    made = actor(topics, store, clock, turns=9)
    await made.turn()
    topics.arrive([arrival for arrival in arrivals if not arrival.sample], LAST_US)
    with monkeypatch.context() as patch:
        patch.setattr(topics, "offset_from", away)
        await made.turn()
    await made.turn()
    assert busy(store) and busy(store) == busy(alone)


def busy(store: Stored) -> dict[Key, Sums]:
    """What samples alone can tell."""
    return {key: sums for key, sums in store.table.items() if key.bucket is Bucket.UNATTRIBUTED and sums.amount}


async def away(*_: object) -> int:
    raise LogUnavailable("away")


async def test_what_is_behind_reads_samples_as_far_as_it_has_read_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many samples to a request: a new owner that catches up settles no window, and closes no hour, before they are in."""
    monkeypatch.setattr(cost, "READ_MAX", 3)
    topics, arrivals = topics_of(10, 4)
    alone = await undisturbed(arrivals)
    for arrival in sorted(arrivals, key=lambda arrival: arrival.at_us):
        topics.arrive([arrival], arrival.at_us + S)
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(), START_US + 3_600 * S + HORIZONS.close_us)
    store = Stored()
    await actor(topics, store, Clock(SETTLED_US), turns=60).run()
    assert store.last is not None and store.last.closed_us == START_US + 3_600 * S
    assert busy(store) and busy(store) == busy(alone)


async def test_what_comes_behind_an_hours_closing_does_not_change_it_in_whatever_turn_it_is_read() -> None:
    """Other rates, appended when the hour was closed by the record before them."""
    topics, arrivals = topics_of(11)
    topics.arrive(arrivals, LAST_US)
    store = Stored()
    closes_us = START_US + 3_600 * S + HORIZONS.close_us
    await actor(topics, store, Clock(closes_us - S)).run()
    before = {key: sums for key, sums in store.table.items() if key.hour_us == START_US}
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(), closes_us)
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(2, "99"), closes_us)
    await actor(topics, store, Clock(closes_us), turns=5, owner="b").run()
    assert {key: sums for key, sums in store.table.items() if key.hour_us == START_US} == before
    assert any(key.hour_us > START_US and sums.amount for key, sums in store.table.items())


class Counted(Topics):
    """Nobody reads without end."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0

    async def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        self.reads += 1
        assert self.reads < 100, "it reads the same again and again"
        async for each in super().read_together(topic, places):
            yield each


async def test_hours_that_close_sooner_than_they_did_close_with_what_a_new_owner_publishes_first() -> None:
    """`cost.close_s` was lowered: by the records that the checkpoint knew, hours would close that were open for it."""
    topics, store = Counted(), Stored()
    _, arrivals = topics_of(12)
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(), START_US)
    topics.arrive(arrivals, LAST_US)
    later_us = START_US + 7_200 * S
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(), later_us)
    await actor(topics, store, Clock(later_us)).run()
    assert store.last is not None and store.last.closed_us < START_US
    before = {key: sums for key, sums in store.table.items() if key.hour_us == START_US}
    topics.put(KAFKA.topic_served, PARTITION, b"both", rates_record(2, "99"), later_us)
    heir = actor(topics, store, Clock(later_us), turns=5, owner="b")
    heir._horizons = Horizons(close_us=HORIZONS.settle_us)
    await heir.run()
    assert store.last.closed_us == START_US + 3_600 * S
    assert {key: sums for key, sums in store.table.items() if key.hour_us == START_US} == before
    assert any(key.hour_us > START_US and sums.amount for key, sums in store.table.items()), "and it went on"
