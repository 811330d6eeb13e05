"""A cost actor between a topic, a store and a clock that the test holds."""

from collections.abc import AsyncGenerator, Sequence
from random import Random

import msgspec
import pytest

from actors.cost import CostActor
from actors.cost_store import CostCheckpoint, CostClaim
from actors.ports import CommitUnknown, Fenced, LogUnavailable, Outgoing, Record, StoreUnavailable
from config.settings import KafkaSettings
from engine.cost.lines import RequestLine, WindowLine, parse_line
from engine.cost.rollup import Key, Sums
from engine.cost.served import Served
from engine.cost.window import Bucket
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

KAFKA = KafkaSettings()


class Kept(msgspec.Struct):
    """A record as Kafka hands it out."""

    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class Topics:
    """Both topics that are read, and the one that is written."""

    def __init__(self) -> None:
        self.records: dict[tuple[str, int], list[Kept]] = {
            (KAFKA.topic_served, PARTITION): [],
            (KAFKA.topic_gpu_telemetry, 0): [],
            (KAFKA.topic_gpu_telemetry, 1): [],
        }
        self.lines: list[RequestLine | WindowLine] = []
        self.away = False

    def put(self, topic: str, partition: int, key: bytes | None, value: bytes | None, append_us: int) -> None:
        kept = self.records[topic, partition]
        kept.append(Kept(len(kept), append_us // 1_000, key, value))

    def arrive(self, arrivals: Sequence[Arrival], append_us: int) -> None:
        for number, arrival in enumerate(arrivals):
            where = (KAFKA.topic_gpu_telemetry, number % 2) if arrival.sample else (KAFKA.topic_served, PARTITION)
            self.put(*where, arrival.key, arrival.value, append_us)

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        if self.away:
            raise LogUnavailable("away")
        return 0, len(self.records[topic, partition])

    async def partitions(self, topic: str) -> int:
        return sum(name == topic for name, _ in self.records)

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        kept = self.records[topic, partition]
        return next((record.offset for record in kept if record.timestamp >= append_ms), len(kept))

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None:
        kept = self.records[topic, partition]
        return kept[offset] if offset < len(kept) else None

    async def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]:
        for record in self.records[topic, partition][offset:end]:
            yield record

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        for record in records:
            assert record.topic == "costs"
            self.lines += [parse_line(line) for line in (record.value or b"").splitlines()]
        return [0] * len(records)


class Stored:
    """Checkpoints in memory, fenced as the real ones are."""

    def __init__(self) -> None:
        self.epoch = self.ckpt_seq = self.next_offset = 0
        self.last: CostCheckpoint | None = None
        self.table: dict[Key, Sums] = {}
        self.changes: dict[Key, int] = {}
        self.letters: list[str] = []
        self.trouble: list[Exception] = []
        self.commits = 0

    async def claim(self, partition: int, owner: str) -> CostClaim:
        self.epoch += 1
        if self.last is None:
            return CostClaim(self.epoch, 0, 0, None, None)
        return CostClaim(self.epoch, self.ckpt_seq, self.next_offset, self.last.last, self.last.blob)

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Sums]]:
        return [(key, sums) for key, sums in self.table.items() if key.hour_us >= from_us]

    async def commit(self, checkpoint: CostCheckpoint) -> None:
        trouble = self.trouble.pop() if self.trouble else None
        if isinstance(trouble, StoreUnavailable):
            raise trouble
        if (checkpoint.epoch, checkpoint.ckpt_seq) != (self.epoch, self.ckpt_seq + 1):
            raise Fenced("another owner")
        self.ckpt_seq, self.next_offset, self.last = checkpoint.ckpt_seq, checkpoint.next_offset, checkpoint
        self.commits += 1
        for row in checkpoint.rows:
            self.table[row.key] = row.sums
            self.changes[row.key] = self.changes.get(row.key, 0) + row.change
        self.letters += [letter.reason for letter in checkpoint.letters]
        if trouble is not None:
            raise trouble


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


def actor(topics: Topics, store: Stored, clock: Clock, turns: int = 1, owner: str = "a") -> CostActor:
    made = CostActor(
        owner,
        [PARTITION],
        clock=clock,
        reader=topics,
        appender=topics,
        store=store,
        control_key=KEY,
        kafka=KAFKA,
        horizons=HORIZONS,
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
    assert requests and all((line.epoch, line.seq, line.currency) == (1, 1, "USD") for line in requests)
    assert any(key.bucket is Bucket.UNATTRIBUTED and sums.amount for key, sums in store.table.items()), (
        "samples are read"
    )


async def test_nothing_new_makes_no_checkpoint() -> None:
    topics = Topics()
    store = Stored()
    await actor(topics, store, Clock(SETTLED_US), turns=5).run()
    assert store.commits == 0


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
    await old._turn(PARTITION)
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
