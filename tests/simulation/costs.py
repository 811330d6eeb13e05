"""Cost actors in the simulator: the production class between simulated topics and checkpoints, on virtual time.

It dies, hangs until another has long taken its place, loses answers and repeats, at any step. When all is healed and has
settled, what it told is what one actor tells of the same records that nothing ever happened to, to the last byte.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Mapping, Sequence
from random import Random
from typing import Final, TypeVar
from unittest import mock

import msgspec
from msgspec import Struct

from actors import cost as cost_module
from actors.cost import CostActor
from actors.cost_store import CostCheckpoint, CostClaim
from actors.ports import CommitUnknown, Fenced, Outgoing, Record
from engine.cost.attribution import Horizons
from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine, WindowLine
from engine.cost.rollup import Key, Sums
from engine.cost.served import GpuPart, ReplicaUp
from engine.money import parse_amount
from tests.actors.cost_rig import KAFKA, Stored, Topics
from tests.engine.cost.histories import KEY, PARTITION, START_US, history, rates_record, served_record
from tests.simulation.lives import CHAOS_S, INTERVAL_S, Life, World, beside_one_alone
from tests.simulation.simulate import Outcome
from tests.simulation.virtual_loop import VirtualLoop

HORIZONS: Final = Horizons(settle_us=60_000_000, close_us=600_000_000)
LATE_S: Final = (0, 2, 2, 2, 40, 300, 2_000, 5_000)  # at most so much behind its time a record comes
READ_MAX: Final = 7  # records of a turn, so that catching up takes some
STORE_CALLS: Final = ("claim", "rows", "commit")
LOG_CALLS: Final = ("bounds", "offset_from", "read_one", "read", "append")

Result = TypeVar("Result")


class Arriving(Struct, frozen=True):
    """A record that a producer writes `at_s` after the start."""

    at_s: float
    topic: str
    partition: int
    key: bytes
    value: bytes


class Reading:
    """Both ways to the log, of one process."""

    def __init__(self, life: Life, topics: Topics) -> None:
        self._life = life
        self._topics = topics

    async def _through(self, site: str, work: Callable[[], Awaitable[Result]]) -> Result:
        await self._life.gate(f"{site}.before")
        result = await work()
        await self._life.gate(f"{site}.after")
        return result

    async def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return await self._through("bounds", lambda: self._topics.bounds(topic, partition))

    async def bounds_of(self, topic: str, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        return await self._through("bounds", lambda: self._topics.bounds_of(topic, partitions))

    async def partitions(self, topic: str) -> int:
        return await self._topics.partitions(topic)

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        return await self._through("offset_from", lambda: self._topics.offset_from(topic, partition, append_ms))

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None:
        return await self._through("read_one", lambda: self._topics.read_one(topic, partition, offset))

    async def read_together(
        self, topic: str, places: Mapping[int, tuple[int, int]]
    ) -> AsyncGenerator[tuple[int, Record], None]:
        await self._life.gate("read.before")
        for partition, (offset, end) in places.items():
            for record in self._topics.records[topic, partition][offset:end]:
                yield partition, record
                if self._life.world.random.random() < 0.1:
                    await self._life.gate("read.after")

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        return await self._through("append", lambda: self._topics.append(records))


class Storing:
    """The way to the checkpoints, of one process."""

    def __init__(self, life: Life, world: "CostWorld") -> None:
        self._life = life
        self._world = world

    async def _unlocked(self) -> None:
        while self._world.in_doubt:  # a transaction that nobody heard of again holds the partition's row
            await asyncio.sleep(0.05)

    async def claim(self, partition: int, owner: str) -> CostClaim:
        await self._life.gate("claim.before")
        await self._unlocked()
        claim = await self._world.stored.claim(partition, owner)
        await self._life.gate("claim.after")
        return claim

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Sums]]:
        await self._life.gate("rows.before")
        rows = await self._world.stored.rows(partition, from_us)
        await self._life.gate("rows.after")
        return rows

    async def commit(self, checkpoints: Sequence[CostCheckpoint]) -> None:
        (checkpoint,) = checkpoints  # the world has one partition
        await self._life.gate("commit.before")
        await self._unlocked()
        fault = self._world.commit_fault()
        if fault == "unknown_late":
            self._world.commit_late(checkpoint)
        elif fault != "unknown_not_done":
            await self._world.commit(checkpoint)
        if fault is not None:
            raise CommitUnknown(f"simulated: {fault}")
        await self._life.gate("commit.after")


class CostWorld(World):
    """Everything of one run. The same records come at the same moments, whatever happens to those who read them."""

    START_US = START_US
    SETTLE_US = HORIZONS.settle_us
    LOG_CALLS = LOG_CALLS
    STORE_CALLS = STORE_CALLS

    def __init__(self, seed: int, loop: VirtualLoop, *, faults: bool) -> None:
        super().__init__("cost", seed, loop, faults=faults)
        self.topics = Topics()
        self.stored = Stored()
        self.in_doubt = False
        drawing = Random(f"costs {seed}")
        self._pace = drawing.choice([60.0, 60.0, 400.0, 1_500.0])
        self.arriving = list(_arriving(drawing, self._pace))

    def process(self, life: Life) -> CostActor:
        return CostActor(
            life.name,
            [PARTITION],
            clock=life,
            reader=Reading(life, self.topics),
            appender=Reading(life, self.topics),
            store=Storing(life, self),
            control_key=KEY,
            kafka=KAFKA,
            horizons=HORIZONS,
            changes_kept_us=24 * HOUR_US,
            interval_s=INTERVAL_S,
        )

    @property
    def _closed_us(self) -> int:
        return 0 if self.stored.last is None else self.stored.last.closed_us

    async def commit(self, checkpoint: CostCheckpoint) -> None:
        before = self.stored.next_offset
        await self.stored.commit([checkpoint])
        if checkpoint.next_offset < before:
            self.violated(f"a commit goes back from offset {before} to {checkpoint.next_offset}")
        for row in checkpoint.rows:
            if self.stored.changes[row.key] != self.stored.table[row.key].amount:
                self.violated(
                    f"{row.key}: the differences come to {self.stored.changes[row.key]}, the row says {row.sums}"
                )

    def commit_late(self, checkpoint: CostCheckpoint) -> None:
        """Nobody knows of it for a while, and then it has happened, unless its owner was followed before."""
        self.in_doubt = True
        asyncio.get_running_loop().call_later(self.random.uniform(0.05, 0.5), self._appear, checkpoint)

    def _appear(self, checkpoint: CostCheckpoint) -> None:
        self.in_doubt = False
        try:
            next(iter(self.commit(checkpoint).__await__()), None)
        except Fenced:
            self.fired["late_and_fenced", "commit"] += 1

    def arrive(self, each: Arriving) -> None:
        self.topics.put(each.topic, each.partition, each.key, each.value, self.wall_us())

    def came_about(self) -> dict[str, int]:
        """What proves nothing if it never does."""
        letters = Counter(self.stored.letters)
        return {
            "cost owners followed": self.stored.epoch - 1,
            "cost owners fenced": sum(life.actor.fenced for life in self.lives),
            "cost lines replaced": len(self.topics.lines) - len(_counting(self.topics.lines)),
            "costs in closed hours": letters["too_late"],
            "hours closed": sum(key.hour_us < self._closed_us for key in self.stored.table),
        }

    def told(self) -> dict[str, dict[str, str]]:
        return _told(self)

    def unbalanced(self) -> Iterator[str]:
        return _unbalanced(self)

    def counted(self) -> tuple[int, int]:
        return self.stored.commits, len(self.topics.lines)

    def judge_rest(self) -> None:
        if not self.newest.alive:
            self.violated(f"{self.newest.name} has not come back")
            return
        for view in self.newest.actor.views():
            if view.halted or not view.caught_up:
                self.violated(f"{self.newest.name} is not at rest: {view}")
        end = len(self.topics.records[KAFKA.topic_served, PARTITION])
        if self.stored.next_offset != end:
            self.violated(f"committed to {self.stored.next_offset}, the topic ends at {end}")


def _arriving(random: Random, pace: float) -> Iterator[Arriving]:
    """Two topics' records: some late, some beyond their hour, some twice, some that cannot be read, rates that change. In
    the end all GPUs are let go."""
    ups = _ended(START_US + round(CHAOS_S * pace) * 1_000_000)
    writes = [(0.0, KAFKA.topic_served, b"both", rates_record())]
    writes += [(CHAOS_S, KAFKA.topic_served, up.key, up.value) for up in map(served_record, ups)]
    if random.random() < 0.4:
        writes.append((random.uniform(0.0, CHAOS_S), KAFKA.topic_served, b"both", rates_record(2, "2.71")))
    broken = random.randrange(3)
    writes += [(random.uniform(0.0, CHAOS_S), KAFKA.topic_served, b"both", b"{") for _ in range(broken)]
    for arrival in history(random, random.randrange(4, 40)):
        late_s = random.uniform(0.0, random.choice(LATE_S))
        at_s = min(((arrival.at_us - START_US) / 1e6 + late_s) / pace, random.uniform(0.9, 1.0) * CHAOS_S)
        topic = KAFKA.topic_gpu_telemetry if arrival.sample else KAFKA.topic_served
        times = [at_s, at_s + random.uniform(0.0, 0.3)]  # a producer that hears nothing writes again
        writes += [(each, topic, arrival.key, arrival.value) for each in times[: random.choice([1, 1, 1, 1, 2])]]
    for at_s, topic, key, value in sorted(writes, key=lambda write: write[0]):
        partition = PARTITION if topic == KAFKA.topic_served else key[-1] % 2
        yield Arriving(at_s, topic, partition, key, value)


def _ended(down_us: int) -> Iterator[ReplicaUp]:
    """The replicas of `history`, none of which holds a GPU for ever: what it said of that may come too late."""
    two = (GpuPart("GPU-1", "h100"), GpuPart("GPU-2", "h100"))
    for name, model, gpus, up_us in (
        ("both", "llama", two, START_US + 3),
        ("part-a", "llama", (GpuPart("GPU-3", "a100", 0, 3, 7),), START_US),
        ("part-b", "odd", (GpuPart("GPU-3", "a100", 3, 7, 7),), START_US),
    ):
        yield ReplicaUp(name, model, gpus, up_us, up_us + 20_000_000, down_us, seq=9)


Line = RequestLine | WindowLine


def _counting(lines: Sequence[Line]) -> dict[str, Line]:
    """What readers of the topic `costs` go by: of each execution and hour, and of each window, the line of the highest
    (epoch, seq)."""
    found: dict[str, Line] = {}
    for line in lines:
        of = (
            f"window {line.window_us}"
            if isinstance(line, WindowLine)
            else f"{line.request}/{line.attempt} in {line.hour_us}"
        )
        known = found.get(name := f"{line.replica} {of}")
        if known is None or (known.epoch, known.seq) <= (line.epoch, line.seq):
            found[name] = line
    return found


def _told(world: CostWorld) -> dict[str, dict[str, str]]:
    """What a run came to: rows, the sums of their differences, the lines that count (without what only their owner can
    know), what was set aside."""
    stored = world.stored
    lines = {}
    for name, line in _counting(world.topics.lines).items():
        if isinstance(line, WindowLine) and line.cost == "0":
            continue  # it had cost something, or nothing was ever told of it
        fields = msgspec.structs.asdict(line)
        lines[name] = repr({field: value for field, value in fields.items() if field not in ("epoch", "seq", "change")})
    return {
        "row": {repr(key): repr(sums) for key, sums in stored.table.items() if sums != Sums()},
        "difference of row": {repr(key): str(pico) for key, pico in stored.changes.items() if pico},
        "line": lines,
        "record set aside": {f"number {number}": reason for number, reason in enumerate(stored.letters)},
    }


def _unbalanced(world: CostWorld) -> Iterator[str]:
    """A window's buckets are its cost, and the windows of a replica come to its rows, bucket by bucket."""
    owed: Counter[tuple[str, str]] = Counter()
    for line in _counting(world.topics.lines).values():
        if isinstance(line, WindowLine) and line.cost is not None:
            parts = {bucket.value: parse_amount(amount) for bucket, amount in line.buckets.items()}
            if sum(parts.values()) != parse_amount(line.cost):
                yield f"window {line.window_us} of {line.replica} cost {line.cost}, and its buckets come to {parts}"
            owed.update({(line.replica, bucket): pico for bucket, pico in parts.items()})
    rows: Counter[tuple[str, str]] = Counter()
    for key, sums in world.stored.table.items():
        rows[key.replica, key.bucket.value] += sums.amount
    for place in sorted(owed.keys() | rows.keys()):
        if owed[place] != rows[place]:
            yield f"{place}: windows come to {owed[place]} pico, rows to {rows[place]}"


def simulate_costs(seed: int) -> Outcome:
    """Run a seed with faults and without, and hold the one against the other."""
    return beside_one_alone(
        seed,
        "--costs",
        lambda loop, faults: CostWorld(seed, loop, faults=faults),
        lambda: [mock.patch.object(cost_module, "READ_MAX", READ_MAX)],
    )
