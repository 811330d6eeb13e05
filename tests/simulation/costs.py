"""Cost actors in the simulator: the production class between simulated topics and checkpoints, on virtual time.

It dies, hangs until another has long taken its place, loses answers and repeats, at any step. When all is healed and has
settled, what it told is what one actor tells of the same records that nothing ever happened to, to the last byte.
"""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from random import Random
from typing import Final, TypeVar
from unittest import mock

import msgspec
from msgspec import Struct

from actors import cost as cost_module
from actors.cost import CostActor
from actors.cost_store import CostCheckpoint, CostClaim
from actors.ports import CommitUnknown, Fenced, LogUnavailable, Outgoing, Record, StoreUnavailable
from engine.cost.attribution import Horizons
from engine.cost.lines import RequestLine, WindowLine
from engine.cost.rollup import Key, Sums
from engine.cost.served import GpuPart, ReplicaUp
from engine.money import parse_amount
from tests.actors.cost_rig import KAFKA, Stored, Topics
from tests.engine.cost.histories import KEY, PARTITION, START_US, history, rates_record, served_record
from tests.simulation.simulate import Outcome, no_collections
from tests.simulation.virtual_loop import NobodyWaits, TimeStandsStill, VirtualLoop, run_virtually

HORIZONS: Final = Horizons(settle_us=60_000_000, close_us=600_000_000)
CHAOS_S: Final = 4.0  # of virtual time
REST_S: Final = 4.0  # in which all that is left is read and written
INTERVAL_S: Final = 0.2
RESTART_MAX_S: Final = 0.6
LATE_S: Final = (0, 2, 2, 2, 40, 300, 2_000, 5_000)  # at most so much behind its time a record comes
READ_MAX: Final = 7  # records of a turn, so that catching up takes some
STORE_CALLS: Final = ("claim", "rows", "commit")
LOG_CALLS: Final = ("bounds", "offset_from", "read_one", "read", "append")
COMMIT_FAULTS: Final = ("unknown_done", "unknown_not_done", "unknown_late")

Result = TypeVar("Result")


class Arriving(Struct, frozen=True):
    """A record that a producer writes `at_s` after the start."""

    at_s: float
    topic: str
    partition: int
    key: bytes
    value: bytes


class Life:
    """One life of the actor's process."""

    def __init__(self, world: "CostWorld", name: str) -> None:
        self.name = name
        self.alive = True
        self.world = world
        self._resumed: asyncio.Event | None = None  # set when a pause ends
        self.actor = CostActor(
            name,
            [PARTITION],
            clock=self,
            reader=Reading(self, world.topics),
            appender=Reading(self, world.topics),
            store=Storing(self, world),
            control_key=KEY,
            kafka=KAFKA,
            horizons=HORIZONS,
            interval_s=INTERVAL_S,
        )
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def _run(self) -> None:
        await self.actor.run()
        self.alive = False
        if not self.world.over and self.world.newest is self:
            self.world.later()  # Ray makes an actor that has ended anew

    def wall_us(self) -> int:
        return self.world.wall_us()

    def boot_s(self) -> float:
        return self.world.loop.now_s

    async def sleep(self, seconds: float) -> None:
        await self.world.loop.sleep(seconds)
        await self.gate("sleep")

    async def gate(self, site: str) -> None:
        """A step: may take time, and is where faults strike."""
        self._need_life()
        world = self.world
        if world.slow():
            await world.loop.sleep(world.random.random() ** 3 * INTERVAL_S)
        await self._running()
        world.pass_by(self, site)
        await self._running()

    async def _running(self) -> None:
        while self._resumed is not None:
            await self._resumed.wait()
        self._need_life()

    def _need_life(self) -> None:
        if not self.alive:
            raise asyncio.CancelledError

    def pause(self, seconds: float) -> None:
        if self._resumed is None:
            self._resumed = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, self.resume)

    def resume(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def kill(self) -> None:
        """No effect follows."""
        self.alive = False
        self.resume()
        self._task.cancel()

    async def ended(self) -> None:
        """Wait for its end; what broke it is a finding."""
        (error,) = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(error, Exception):
            self.world.violated(f"{self.name} broke: {type(error).__name__}: {error}")


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

    async def partitions(self, topic: str) -> int:
        return await self._topics.partitions(topic)

    async def offset_from(self, topic: str, partition: int, append_ms: int) -> int:
        return await self._through("offset_from", lambda: self._topics.offset_from(topic, partition, append_ms))

    async def read_one(self, topic: str, partition: int, offset: int) -> Record | None:
        return await self._through("read_one", lambda: self._topics.read_one(topic, partition, offset))

    async def read(self, topic: str, partition: int, offset: int, end: int) -> AsyncGenerator[Record, None]:
        await self._life.gate("read.before")
        for record in self._topics.records[topic, partition][offset:end]:
            yield record
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

    async def commit(self, checkpoint: CostCheckpoint) -> None:
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


class CostWorld:
    """Everything of one run. The same records come at the same moments, whatever happens to those who read them."""

    def __init__(self, seed: int, loop: VirtualLoop, *, faults: bool) -> None:
        self.loop = loop
        self.random = Random(f"cost faults {seed}")
        self.topics = Topics()
        self.stored = Stored()
        self.violations: list[str] = []
        self.fired: Counter[tuple[str, str]] = Counter()
        self.steps = 0
        self.trace: list[tuple[float, str, str]] = []
        self.over = False
        self.in_doubt = False
        self.lives: list[Life] = []
        self._faults = faults
        self._strike_share = self.random.choice([0.01, 0.03, 0.1])
        self._slow_share = self.random.choice([0.0, 0.1, 0.3])
        drawing = Random(f"costs {seed}")
        self._pace = drawing.choice([60.0, 60.0, 400.0, 1_500.0])  # seconds of wall time per second that processes wait
        self._ahead_us = 0
        self._start_s = loop.now_s
        self.arriving = list(_arriving(drawing, self._pace))

    @property
    def _closed_us(self) -> int:
        return 0 if self.stored.last is None else self.stored.last.closed_us

    @property
    def newest(self) -> Life:
        return self.lives[-1]

    def wall_us(self) -> int:
        return START_US + self._ahead_us + round((self.loop.now_s - self._start_s) * self._pace * 1_000_000)

    def violated(self, sentence: str) -> None:
        self.violations.append(f"at {self.loop.now_s - self._start_s:.3f} s: {sentence}")

    # ------------------------------------------------------------------------------------------------------- faults

    def slow(self) -> bool:
        return self._faults and self.random.random() < self._slow_share

    def pass_by(self, life: Life, site: str) -> None:
        """A life passes a site; a fault may strike it there."""
        self.steps += 1
        self.trace.append((self.loop.now_s, life.name, site))
        if not self._faults or self.random.random() >= self._strike_share:
            return
        call = site.partition(".")[0]
        kinds = ["kill", "pause", "pause"]
        if call in LOG_CALLS or (
            call in STORE_CALLS and site != "commit.after"
        ):  # of a commit, a lost answer is unknown
            kinds += ["away", "away"]
        kind = self.random.choice(kinds)
        self.fired[kind, site] += 1
        if kind == "kill":
            life.kill()
            if self.newest is life:
                self.later()
            raise asyncio.CancelledError
        if kind == "pause":
            life.pause(self.random.uniform(0.1, 2.5))
            if self.newest is life and self.random.random() < 0.7:  # it is taken for dead: a zombie, when it goes on
                self.later()
            return
        raise (StoreUnavailable if call in STORE_CALLS else LogUnavailable)(f"simulated: away at {site}")

    def commit_fault(self) -> str | None:
        if not self._faults or self.random.random() >= 2 * self._strike_share:
            return None
        fault = self.random.choice(COMMIT_FAULTS)
        self.fired[fault, "commit"] += 1
        return fault

    async def commit(self, checkpoint: CostCheckpoint) -> None:
        before = self.stored.next_offset
        await self.stored.commit(checkpoint)
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

    def later(self) -> None:
        """A new life begins after a while."""
        self.loop.call_later(self.random.uniform(0.02, RESTART_MAX_S), self.begin)

    def begin(self) -> None:
        if not self.over:
            self.lives.append(Life(self, f"cost.{len(self.lives)}"))

    # --------------------------------------------------------------------------------------------------------- a run

    async def run(self) -> None:
        """Chaos, then healing, then all settles; then everybody stops."""
        for record in self.arriving:
            self.loop.call_at(self._start_s + record.at_s, self._arrive, record)
        self.begin()
        await asyncio.sleep(CHAOS_S)
        self._faults = False
        for life in self.lives:
            life.resume()
        await asyncio.sleep(1.0)
        self._ahead_us += 2 * HORIZONS.settle_us
        await asyncio.sleep(REST_S)
        self._judge_rest()
        self.over = True
        for life in self.lives:
            life.actor.stop()
            await life.ended()

    def _arrive(self, record: Arriving) -> None:
        self.topics.put(record.topic, record.partition, record.key, record.value, self.wall_us())

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

    def _judge_rest(self) -> None:
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


def _unlike(found: CostWorld, alone: CostWorld) -> Iterator[str]:
    parts = _told(found)
    for part, expected in _told(alone).items():
        for name in sorted(expected.keys() | parts[part].keys()):
            if expected.get(name) != parts[part].get(name):
                yield f"{part} {name}: {expected.get(name)} without faults, found {parts[part].get(name)}"


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
    with no_collections():
        found, alone = _play(seed, faults=True), _play(seed, faults=False)
    violations = [*found.violations, *(f"without faults, {sentence}" for sentence in alone.violations)]
    if not violations:
        violations = [*_unlike(found, alone), *_unbalanced(found)]
    return Outcome(
        seed=seed,
        violations=violations,
        trace=hashlib.sha256(repr(found.trace).encode()).hexdigest(),
        fired=found.fired,
        looked=Counter(),
        reached=Counter({name: count for name, count in found.came_about().items() if count}),
        steps=found.steps,
        commits=found.stored.commits,
        rated=len(found.topics.lines),
        virtual_s=CHAOS_S + REST_S,
        approved=0,
        denied=Counter(),
        world="--costs",
    )


def _play(seed: int, *, faults: bool) -> CostWorld:
    loop = VirtualLoop()
    world = CostWorld(seed, loop, faults=faults)
    logging.disable(logging.CRITICAL)  # warnings about faults that are meant to be
    try:
        with mock.patch.object(cost_module, "READ_MAX", READ_MAX):
            run_virtually(loop, world.run())
    except (NobodyWaits, TimeStandsStill) as error:
        world.violated(f"{type(error).__name__}: {error}")
    finally:
        logging.disable(logging.NOTSET)
    world.violations += loop.broken
    return world
