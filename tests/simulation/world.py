"""One simulated deployment: the production shards, heartbeats and controllers over simulated ports, on virtual time.

Every call of a port passes its process's gate before and after its effect. There the simulator delays it by a seeded
moment, kills the process (nothing it calls has an effect any more, and its tasks are broken off), or stops it for a
while and lets it go on: a zombie, if a successor has been found meanwhile.
"""

import asyncio
import hashlib
import hmac
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from random import Random
from typing import Any, Final

import asyncpg
import msgspec
from msgspec import Struct

from actors import commit as commit_module
from actors import controller as controller_module
from actors import shard as shard_module
from actors import slices as slices_module
from actors import takeover as takeover_module
from actors.controller import Controller
from actors.lease import Heartbeat, Lease
from actors.outbox import Outbox, OutboxSettings
from actors.owned import Stage
from actors.ports import AlertRow, Attempt, Checkpoint, LogUnavailable, Outgoing, StoreUnavailable
from actors.postgres import translated
from actors.sealing import Sealing
from actors.shard import Shard
from config.settings import KafkaSettings, LeaseSettings, ShardSettings
from engine import admission as admission_module
from engine import dedup as dedup_module
from engine import partition as partition_module
from engine.admission import Desk
from engine.catalog import Catalogue
from engine.contract import Contract
from engine.events import UsageEvent, parse_control, parse_usage
from engine.metering import Metering
from engine.outcomes import RatedEvent, rated_lines
from tests.simulation.catalogues import compiled
from tests.simulation.chaos import Strike
from tests.simulation.invariants import AtCommit, Bounds, overflows
from tests.simulation.sim_log import SimBroker, SimLog
from tests.simulation.sim_receivers import ReceiverFaults, SimReceivers
from tests.simulation.sim_runs import SimDisk, SimLocalRuns
from tests.simulation.sim_store import SimDatabase, SimMembership, SimPartitionRow, SimRoster, SimStore
from tests.simulation.traffic import CONTROL_KEY, POISON, POISON_LATE
from tests.simulation.virtual_loop import VirtualLoop

WALL_START_US: Final = 1_750_000_000_000_000
RESTART_MAX_S: Final = 1.0
VIOLATIONS_MAX: Final = 50
SENDS_MAX: Final = 6
LENT_MAX_S: Final = 4.0
LENT_LOOK_S: Final = 0.02
_mac_once: Final = lru_cache(maxsize=10_000)(hmac.digest)
_read_once: Final = lru_cache(maxsize=10_000)(parse_control)
_read_usage_once: Final = lru_cache(maxsize=10_000)(parse_usage)
SQL_ERRORS: Final = {"serialization": asyncpg.SerializationError, "deadlock": asyncpg.DeadlockDetectedError}
NO_FAULTS: Final = ReceiverFaults(latency_s=0.01, timeout_s=0.5, retry_after_max_s=1.0)


class Plan(Struct):
    """What a seed has drawn for its world."""

    shards: int
    controllers: int
    partitions: int
    hosts: int
    pace: float  # wall seconds per second
    skew_max_us: int  # how far a host's wall clock may be off
    delay_share: float  # of the steps that take time
    delay_max_s: float
    slice_events: int
    fetch_records: int
    fetch_wait_s: float
    checkpoint_s: float
    dirty_max: int
    held_max: int  # alerts in memory
    attempts_max: int  # to tell an alert, by one owner
    calm_start: bool  # faults begin when every partition has an owner
    receiver: ReceiverFaults
    catalogue: int = 0  # of tests/simulation/catalogues.py
    seals: bool = False  # whether the memory of rated events is sealed, of which some seeds know nothing


class WorldClock:
    """The clock of broker, database and receiver."""

    def __init__(self, loop: VirtualLoop, pace: float) -> None:
        self._loop = loop
        self._start_s, self._start_us = loop.now_s, WALL_START_US
        self.pace = pace

    def wall_us(self) -> int:
        return self._start_us + round((self._loop.now_s - self._start_s) * self.pace * 1_000_000)

    def slow_down(self) -> None:
        """From now on it goes as fast as processes wait: what accrues each minute does not come as fast as commits do."""
        self._start_us, self._start_s, self.pace = self.wall_us(), self._loop.now_s, 1.0

    def boot_s(self) -> float:
        return self._loop.now_s

    async def sleep(self, seconds: float) -> None:
        await self._loop.sleep(seconds)


class ProcessClock:
    """The clock of one process: its host's wall clock may be off, its boot clock started at another time."""

    def __init__(self, loop: VirtualLoop, process: "Process", boot_offset_s: float) -> None:
        self._loop = loop
        self._process = process
        self._boot_offset_s = boot_offset_s

    def wall_us(self) -> int:
        process = self._process
        return process.world.clock.wall_us() + process.world.skew_us(process.host)

    def boot_s(self) -> float:
        return self._loop.now_s + self._boot_offset_s

    async def sleep(self, seconds: float) -> None:
        await self._loop.sleep(seconds)
        await self._process.gate(_site_of_sleep(seconds))


def _site_of_sleep(seconds: float) -> str:
    """Letting others run in the middle of a cut is a step of its own."""
    if seconds > 0:
        return "sleep"
    task = asyncio.current_task()
    return "encode" if task is not None and task.get_name().endswith("Shard._checkpoint") else "yield"


class Process:
    """One life of a simulated process."""

    def __init__(self, world: "World", name: str, slot: "ShardSlot | ControllerSlot") -> None:
        self.world = world
        self.name = name
        self.slot = slot
        self.host = slot.host
        self.lock_path = f"{name}.lock"
        self.alive = True
        self.resumed: asyncio.Event | None = None  # set when a pause ends
        self.clock = ProcessClock(world.loop, self, len(world.processes) * 100.0)
        self._tasks: list[asyncio.Task[None]] = []
        world.processes.append(self)

    def spawn(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """A task of this process; what breaks it is a finding."""
        task = asyncio.get_running_loop().create_task(work, name=f"{self.name}:{getattr(work, '__qualname__', '')}")
        task.add_done_callback(self._ended)
        self._tasks.append(task)
        if len(self._tasks) > 200:
            self._tasks = [each for each in self._tasks if not each.done()]
        return task

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None and self.alive:
            self.world.violated(f"{task.get_name()} broke: {type(error).__name__}: {error}")

    async def gate(self, site: str) -> None:
        """A step: may take time, and is where faults strike."""
        if not self.alive:
            raise asyncio.CancelledError
        world = self.world
        if not world.healing and (delay_s := world.delay_s()):
            await world.loop.sleep(delay_s)
        if self.resumed is not None or not self.alive:
            await self._running()
        world.step(self, site)
        if self.resumed is not None or not self.alive:
            await self._running()

    async def _running(self) -> None:
        while self.resumed is not None:
            await self.resumed.wait()
        if not self.alive:
            raise asyncio.CancelledError

    def pause(self, seconds: float) -> None:
        """Stop, as a virtual machine that is moved does; go on after that time."""
        if self.resumed is None:
            self.resumed = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, self.resume)

    def resume(self) -> None:
        if self.resumed is not None:
            self.resumed.set()
            self.resumed = None

    def kill(self) -> None:
        """End at once: no effect follows."""
        self.alive = False
        self.resume()
        for task in self._tasks:
            task.cancel()

    def tasks(self) -> list["asyncio.Task[None]"]:
        """What is under way in it."""
        return [task for task in self._tasks if not task.done()]

    def proven(self, host: str, lock_path: str) -> bool:
        """The port `Deaths`: locks can be tried on the own host only."""
        return host == self.host and any(
            other.lock_path == lock_path and not other.alive for other in self.world.processes
        )


class WatchedStore(SimStore):
    """Tells the world of every commit that takes effect."""

    def __init__(self, world: "World", process: Process) -> None:
        super().__init__(world.database, process.gate)
        self._world = world

    def _write(self, row: SimPartitionRow, cut: Checkpoint) -> None:
        self._world.committed(row, cut)
        super()._write(row, cut)


class LateLog(SimLog):
    """A log whose appends may fail, and appear all the same when nobody expects them any more."""

    def __init__(self, world: "World", process: Process) -> None:
        super().__init__(world.broker, world.clock, process.gate)
        self.late_s: list[float] = []
        self._world = world
        self._name = process.name

    async def append(self, records: Sequence[Outgoing]) -> list[int]:
        if not self.late_s:
            return await super().append(records)
        seconds = self.late_s.pop()
        asyncio.get_running_loop().call_later(seconds, self._appear, list(records))
        raise LogUnavailable("simulated: the broker takes its time")

    def _appear(self, records: list[Outgoing]) -> None:
        for record in records:
            self._write(record)

    def _write(self, record: Outgoing) -> int:
        if record.topic == "rated" and record.partition is not None and self._is_overtaken(record, record.partition):
            self._world.fired["zombie_lines", ""] += 1
            record = msgspec.structs.replace(record, value=_nonsense(record.value))
        return super()._write(record)

    def _is_overtaken(self, block: Outgoing, partition: int) -> bool:
        """Whether another owner has claimed what these lines are about, and will write them anew."""
        row = self._world.database.partition(partition)
        first = int((block.key or b"").split(b":")[2].split(b"-")[0])
        return row.owner not in (None, self._name) and first >= row.claimed_offset


def _nonsense(lines: bytes | None) -> bytes:
    """What a fenced owner writes may be anything: readers must not take it for what counts."""
    return (lines or b"").replace(b'"amount":"', b'"amount":"9')


class PostingReceivers:
    """The port `Receivers` of one process: what it posts is under way even when it dies meanwhile."""

    def __init__(self, process: Process, receivers: SimReceivers) -> None:
        self._process = process
        self._receivers = receivers

    async def post(self, alert: AlertRow) -> Attempt:
        await self._process.gate("post.before")
        attempt = await self._receivers.post(alert)
        await self._process.gate("post.after")
        return attempt


class ShardSlot:
    """A place where a shard runs: one process after the other."""

    def __init__(self, world: "World", name: str, host: str) -> None:
        self.name = name
        self._world = world
        self.host = host
        self._lives = 0
        self._disk = SimDisk(Random(name))
        self.process: Process | None = None
        self.shard: Shard | None = None
        self._membership: SimMembership | None = None
        self._heartbeat: Heartbeat | None = None
        self.stopping = False

    def begin(self) -> None:
        """Start a new life."""
        world = self._world
        self._lives += 1
        process = self.process = Process(world, f"{self.name}.{self._lives}", self)
        self.store = WatchedStore(world, process)
        luck = Random(self._lives)
        self.store.flaky = lambda: not world.healing and luck.random() < 0.2
        self.log = LateLog(world, process)
        self._membership = SimMembership(world.database, world.leases.lease_s, process.gate)
        self.lease = Lease(process.clock)
        self._heartbeat = Heartbeat(self._membership, process.clock, self.lease, process.name, world.leases)
        self.stopping = False
        self.shard = Shard(
            process.name,
            clock=process.clock,
            log=self.log,
            store=self.store,
            lease=self.lease,
            deaths=process,
            outbox=self._outbox,
            control_key=CONTROL_KEY,
            kafka=world.kafka,
            settings=world.shard_settings,
            leases=world.leases,
            local=SimLocalRuns(self._disk, process.gate),
            spawn=process.spawn,
        )
        process.spawn(self._live(process, self.shard, self._heartbeat, self._membership))

    def _outbox(self, shard: Shard) -> Outbox:
        assert self.process is not None
        return Outbox(
            self.process.clock,
            PostingReceivers(self.process, self._world.receivers),
            self.store,
            OutboxSettings(
                attempts_max=self._world.plan.attempts_max,
                concurrent_max=3,
                pending_max=8,
                held_max=self._world.plan.held_max,
                back_off_s=0.05,
                back_off_factor=2.0,
                back_off_max_s=0.5,
            ),
            permitted=shard.may_speak,
            spawn=self.process.spawn,
            random=Random(self._lives),
        )

    async def _live(self, process: Process, shard: Shard, heartbeat: Heartbeat, membership: SimMembership) -> None:
        """As `ShardProcess.start` does it. Whatever ends this life, a new process follows."""
        try:
            await self.log.start()
            await self.store.start()
            await membership.start()
            await membership.register(process.name, self.name, process.host, process.lock_path, 1)
            self.lease.beat()
            process.spawn(heartbeat.run())
            await shard.run()
        except (StoreUnavailable, LogUnavailable):
            self._world.fired["start_failed", ""] += 1
        if not self.stopping:
            self._world.fired["life_ended", ""] += 1
            self.end()

    def end(self) -> None:
        """Kill it; a new life begins after a while."""
        if self.process is not None and self.process.alive:
            self.process.kill()
            self._world.later(self.begin)

    async def stop(self) -> None:
        """Hand over and leave, in order."""
        process, shard, heartbeat, membership = self.process, self.shard, self._heartbeat, self._membership
        assert process is not None and shard is not None and heartbeat is not None and membership is not None
        self.stopping = True
        await shard.stop()
        heartbeat.stop()
        try:
            await membership.leave(process.name)
        except StoreUnavailable:
            self._world.fired["leave_failed", ""] += 1
        await self.log.stop()
        await self.store.stop()


class ControllerSlot:
    """A place where a controller runs."""

    def __init__(self, world: "World", name: str, host: str) -> None:
        self.name = name
        self.host = host
        self._world = world
        self._lives = 0
        self.process: Process | None = None
        self.controller: Controller | None = None

    def begin(self) -> None:
        world = self._world
        self._lives += 1
        process = self.process = Process(world, f"{self.name}.{self._lives}", self)
        controller = self.controller = Controller(
            process.name,
            partitions=world.plan.partitions,
            members_min=world.plan.shards,
            roster=SimRoster(world.database, process.gate),
            deaths=process,
            clock=process.clock,
            settings=world.leases,
        )
        process.spawn(controller.run())

    def end(self) -> None:
        if self.process is not None and self.process.alive:
            self.process.kill()
            self._world.later(self.begin)


class World:
    """Everything of one run. `violations` says, a sentence each, what may never happen and did."""

    def __init__(self, plan: Plan, random: Random, loop: VirtualLoop) -> None:
        self.plan = plan
        self.violations: list[str] = []
        self.fired: Counter[tuple[str, str]] = Counter()  # (fault, site) -> how often
        self.looked: Counter[str] = Counter()  # an invariant's name -> how often it was looked at
        self.reached: Counter[str] = Counter()  # of tests/simulation/reached.py
        self.steps = 0
        self.steps_to_rest: int | None = None  # how many there were when all had come to rest
        self.crash_at: int | None = None  # the step at which whoever takes it dies
        self.crashed_at = ""  # the site of that step
        self.commits = 0
        self.reclaimed: set[str] = set()  # holds that an owner took for expired
        self.healing = False
        self.processes: list[Process] = []
        self.clock = WorldClock(loop, plan.pace)
        self.broker = SimBroker(self.clock, plan.partitions)
        self.database = SimDatabase(self.clock)
        self.receivers = SimReceivers(self.clock, Random(random.random()), plan.receiver)
        self.kafka = KafkaSettings(partitions=plan.partitions).model_copy(
            update={"fetch_records_max": plan.fetch_records}
        )
        self.leases = LeaseSettings(controller_lease_s=1.0, rebalance_after_s=0.5)
        self.shard_settings = ShardSettings().model_copy(
            update={
                "shards": plan.shards,
                "checkpoint_interval_s": plan.checkpoint_s,
                "checkpoint_dirty_max": plan.dirty_max,
                "rating_slice_events": plan.slice_events,
                "rating_slice_ms": 0.0,  # no time passes while a slice is folded
                "hold_ttl_max_s": 1.0 * plan.pace,
                "report_delay_s": 0.4 * plan.pace,
            }
        )
        self.loop = loop
        self._random = random
        self._skews: dict[str, int] = {}
        self._jumps: dict[str, int] = {}  # host -> by how much its wall clock has jumped, until it is set right
        self._armed: dict[str, list[Strike]] = {}
        self._trace: list[float | str | bytes] = []
        self._at_commit = AtCommit()
        self._bounds = Bounds(sends=SENDS_MAX + 4, questions=64, alerts=plan.held_max)
        self.shards = [ShardSlot(self, f"shard-{number}", self._host(number)) for number in range(plan.shards)]
        self.controllers = [
            ControllerSlot(self, f"controller-{number}", self._host(number)) for number in range(plan.controllers)
        ]

    def _host(self, number: int) -> str:
        return f"host-{number % self.plan.hosts}"

    def skew_us(self, host: str) -> int:
        if host not in self._skews:
            self._skews[host] = self._random.randint(-self.plan.skew_max_us, self.plan.skew_max_us)
        return self._skews[host] + self._jumps.get(host, 0)

    def violated(self, sentence: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(f"at {self.loop.now_s - 1000:.3f} s: {sentence}")

    def breached(self, name: str, sentence: str) -> None:
        """An invariant (tests/simulation/invariants.py) does not hold."""
        self.violated(f"[{name}] {sentence}")

    def look(self, name: str, sentences: Iterable[str]) -> None:
        """Look at an invariant: each sentence is a breach."""
        self.looked[name] += 1
        for sentence in sentences:
            self.breached(name, sentence)

    def later(self, begin: Callable[[], None]) -> None:
        self.loop.call_later(0.1 if self.healing else self._random.uniform(0.05, RESTART_MAX_S), begin)

    # ------------------------------------------------------------------------------------------------------- steps

    def delay_s(self) -> float:
        """How long this step takes; mostly nothing."""
        if self._random.random() >= self.plan.delay_share:
            return 0.0
        return self._random.random() ** 3 * self.plan.delay_max_s

    def step(self, process: Process, site: str) -> None:
        """A process passes a site: it goes into the trace, and an armed fault strikes."""
        self.steps += 1
        self._trace += (self.loop.now_s, process.name, site)
        if site == "fetch.before" and isinstance(process.slot, ShardSlot):
            self._look_at_shard(process.slot)
        if self.steps == self.crash_at and self.steps_to_rest is None:
            self.crashed_at = site
            process.slot.end()
            raise asyncio.CancelledError
        waiting = self._armed.get(site)
        if waiting and not self.healing:
            strike = waiting.pop(0)
            if not waiting:
                del self._armed[site]
            self._strike(strike, process)

    def trace_digest(self) -> str:
        """The same for two runs exactly when every process took the same steps at the same moments."""
        return hashlib.sha256(msgspec.msgpack.encode(self._trace)).hexdigest()

    def note(self, fact: bytes) -> None:
        """Make a fact part of the trace."""
        self._trace.append(fact)

    # ------------------------------------------------------------------------------------------------------ faults

    def arm(self, strike: Strike) -> None:
        """It is time for this fault."""
        if self.healing:
            return
        if strike.kind == "stale_image" and not self.database.replica:
            self.database.stop_following()  # for good: the longer it is behind, the worse its images
        if strike.site:
            self._armed.setdefault(strike.site, []).append(strike)
        else:
            self._strike_world(strike)

    def _strike(self, strike: Strike, process: Process) -> None:
        kind, site, slot = strike.kind, strike.site, process.slot
        self.fired[kind, site] += 1
        if kind == "kill":
            slot.end()
            raise asyncio.CancelledError
        if kind == "pause":
            process.pause(strike.seconds)
        elif kind in SQL_ERRORS:
            raise translated(SQL_ERRORS[kind](f"simulated: {kind} at {site}"))
        elif kind in ("refuse", "lose_answer"):
            raise StoreUnavailable(f"simulated: {kind} at {site}")
        elif kind == "log_away":
            raise LogUnavailable(f"simulated: away at {site}")
        else:
            assert isinstance(slot, ShardSlot), f"only shards pass {site}"
            self._strike_shard(strike, slot)

    def _strike_shard(self, strike: Strike, slot: ShardSlot) -> None:
        kind, log, store = strike.kind, slot.log, slot.store
        if kind == "append_late":
            log.late_s.append(max(0.05, strike.seconds))
        elif kind.startswith("append_"):
            log.append_faults.append({"append_none": 0, "append_some": 1, "append_all": 1_000_000}[kind])
        elif kind == "stale_image":
            store.stale_loads += 1
        elif kind == "fetch_again":
            log.fetch_back.append(self._random.randint(1, 20))
        elif kind == "fetch_lags":
            log.lags = True
            self.loop.call_later(strike.seconds, log.catch_up)
        else:
            store.late_s = max(0.05, strike.seconds)
            store.commit_faults.append(kind)  # type: ignore[arg-type]

    def _strike_world(self, strike: Strike) -> None:
        self.fired[strike.kind, ""] += 1
        match strike.kind:
            case "broker_down":
                self.broker.down = True
                self.loop.call_later(strike.seconds, self._end_outage)
            case "database_down":
                self.database.down = True
                self.loop.call_later(strike.seconds, self._end_outage)
            case "receiver_away":
                self.receivers.away = True
                self.loop.call_later(2 * strike.seconds, self._end_outage)
            case "disk_full":
                self.database.full = True
                self.loop.call_later(strike.seconds, self._end_outage)
            case "failover":
                self.database.cut_connections()
                self.database.read_only = True  # until the clients have found the new primary
                self.loop.call_later(strike.seconds, self._end_outage)
            case "move":
                self._move(strike.seconds)
            case "lend":
                self._lend()
            case "stop":
                slot = self._owner()
                if slot.process is not None and slot.process.alive and not slot.stopping:
                    slot.process.spawn(self._stop_and_restart(slot))
            case "kill_owner":
                self._owner().end()
            case "kill_all":
                for shard in self.shards:
                    shard.end()
            case "host_jump":
                host = self._random.choice(self.shards).host
                self._jumps[host] = self._random.choice([-400_000_000, self._random.randint(-20_000_000, 20_000_000)])
            case "clock_jump":
                self.broker.append_time_jump_ms = self._random.randint(-20_000, 250_000)
            case "log_truncated" | "log_replaced" | "log_expired":
                self._damage_log(strike.kind, strike.seconds)
            case "gap":
                self.broker.skip_offsets(self._random.randrange(self.plan.partitions), self._random.randint(1, 3))

    def _damage_log(self, kind: str, seconds: float) -> None:
        """Below a checkpoint, so that whoever takes over sees it. Mostly somebody must, at once."""
        number = self._random.randrange(self.plan.partitions)
        row, held = self.database.partition(number), self.broker.topic("usage", number)
        if held.damage is not None or row.last is None or (kind == "log_expired" and held.end <= row.next_offset):
            self.fired[kind, ""] -= 1
            return
        if kind == "log_expired":
            self.broker.damage_head(number, self._random.randint(row.next_offset + 1, held.end))
        else:
            lost_from = self._random.randint(max(held.first, row.last.offset - 5), row.last.offset)
            self.broker.damage(number, lost_from, replaced=kind == "log_replaced")
        for slot in self.shards:
            if slot.process is not None and slot.process.name == row.owner and self._random.random() < 0.8:
                slot.end()
        self.loop.call_later(0.5 + 2 * seconds, self._mend_log, number, kind)

    def _mend_log(self, number: int, kind: str) -> None:
        for slot in self.shards:
            for view in slot.shard.partitions() if slot.shard is not None and not self.healing else ():
                if view.partition == number and view.stage == Stage.HALTED and view.halt_reason:
                    self.fired["halted", kind] += 1
        self.broker.mend(number)

    def _owner(self) -> ShardSlot:
        """A shard that speaks for a partition, if there is one."""
        owners = [slot for slot in self.shards if self.speaking(slot)]
        return self._random.choice(owners or self.shards)

    def _end_outage(self) -> None:
        self.broker.down = self.receivers.away = False
        self.database.down = self.database.full = False
        if self.database.read_only:
            self.database.read_only = False
            self.database.cut_connections()

    def _move(self, pause_s: float) -> None:
        """An operator gives a partition to another living member, perhaps because its owner hangs."""
        slot = self._owner()
        mine = self.speaking(slot)
        others = [name for name, row in self.database.members.items() if not row.dead]
        others = [name for name in others if slot.process is None or name != slot.process.name]
        if mine and others and slot.process is not None:
            self.database.assignment[self._random.choice(mine)] = self._random.choice(others)
            if self._random.random() < 0.5:
                slot.process.pause(pause_s)

    def _lend(self) -> None:
        """A partition goes to another while its owner hangs, and is assigned back once that one speaks for it, which is when
        the owner goes on: its lease has lapsed, and nobody has declared it dead yet."""
        slot, borrowers = self._owner(), [each for each in self.shards if self._is_up(each)]
        mine, borrowers = self.speaking(slot), [each for each in borrowers if each is not slot]
        if not (mine and borrowers and self._is_up(slot)):
            self.fired["lend", ""] -= 1
            return
        assert slot.process is not None
        partition, borrower = self._random.choice(mine), self._random.choice(borrowers)
        assert borrower.process is not None
        self.database.assignment[partition] = borrower.process.name
        slot.process.pause(LENT_MAX_S)
        self.loop.call_later(LENT_LOOK_S, self._return, partition, slot.process, borrower)

    def _return(self, partition: int, owner: Process, borrower: "ShardSlot") -> None:
        """Look whether it is time."""
        if owner.resumed is None or not owner.alive or self.healing:
            return
        if partition not in self.speaking(borrower):
            self.loop.call_later(LENT_LOOK_S, self._return, partition, owner, borrower)
            return
        self.fired["lent_back", ""] += 1
        self.database.assignment[partition] = owner.name
        owner.resume()

    @staticmethod
    def _is_up(slot: "ShardSlot") -> bool:
        process = slot.process
        return process is not None and process.alive and process.resumed is None and not slot.stopping

    async def _stop_and_restart(self, slot: ShardSlot) -> None:
        await slot.stop()
        slot.end()

    def heal(self) -> None:
        """From now on nothing fails, and everybody lives."""
        self.healing = True
        self._armed = {}
        self._end_outage()
        self.broker.append_time_jump_ms = 0
        self._jumps = {}
        for number in range(self.plan.partitions):
            self.broker.mend(number)
        self.receivers.faults = NO_FAULTS
        for process in self.processes:
            process.resume()
        for slot in self.shards:
            slot.log.append_faults.clear()
            slot.log.late_s.clear()
            slot.log.fetch_back.clear()
            slot.log.catch_up()
            slot.store.commit_faults.clear()
            slot.store.stale_loads = 0

    # ------------------------------------------------------------------------------------------------- invariants

    def committed(self, row: SimPartitionRow, cut: Checkpoint) -> None:
        """A commit is about to take effect."""
        self.commits += 1
        for name in AtCommit.NAMES:
            self.looked[name] += 1
        for name, sentence in self._at_commit.breaches(row, cut, self.broker.topic("usage", cut.partition)):
            self.breached(name, sentence)
        self.note(f"{cut.partition} {cut.epoch} {cut.ckpt_seq} to {cut.next_offset}\n".encode() + cut.blob)

    def speaking(self, slot: ShardSlot) -> list[int]:
        """The partitions that this shard would speak for at this moment."""
        shard, process = slot.shard, slot.process
        if shard is None or process is None or not process.alive or not slot.lease.valid():
            return []
        lease = slot.lease
        return [
            number
            for number, owned in shard._owned.items()
            if owned.stage is Stage.READY and not lease.lost(number, owned.claimed_s)
        ]

    def _look_at_shard(self, mine: ShardSlot) -> None:
        assert mine.shard is not None, "it fetches"
        self.look("queues", overflows(mine.shard, self._bounds))
        spoken = self.speaking(mine)
        self.look("speakers", self._others_that_speak(mine, spoken) if spoken else ())

    def _others_that_speak(self, mine: ShardSlot, spoken: list[int]) -> Iterator[str]:
        for slot in self.shards:
            if slot is not mine:
                for partition in self.speaking(slot):
                    if partition in spoken:
                        yield f"partition {partition}: {mine.name} and {slot.name} both speak for it"


_METER: Final = Metering.meter
_LINES: Final = rated_lines


def _meter_that_breaks(catalogue: Catalogue, contract: Contract, event: UsageEvent, time_us: int) -> Any:
    if event.id.encode().startswith(POISON):
        raise ZeroDivisionError("simulated: a record that breaks the engine")
    return _METER(catalogue, contract, event, time_us)


def _lines_that_break(event: RatedEvent, partition: int, epoch: int, first: int = 0) -> list[bytes]:
    if event.id.encode().startswith(POISON_LATE):
        raise ZeroDivisionError("simulated: a record that breaks the engine when it has changed the account")
    return _LINES(event, partition, epoch, first)


Patch = tuple[object, str, object]  # whose attribute, its name, what stands there meanwhile


@contextmanager
def _patched(patches: Sequence[Patch]) -> Iterator[None]:
    """As `mock.patch.object` does it, which takes a millisecond and more for all that a seed patches."""
    kept = [vars(owner)[name] for owner, name, _ in patches]
    for owner, name, value in patches:
        setattr(owner, name, value)
    try:
        yield
    finally:
        for (owner, name, _), value in zip(patches, kept, strict=True):
            setattr(owner, name, value)


def _no_lines(_event: RatedEvent, _partition: int, _epoch: int, _first: int = 0) -> list[bytes]:
    return []


def mended_engine() -> AbstractContextManager[None]:
    """The engine after its faults were found: what broke it before must be skipped all the same. Its lines are read by
    nobody: those that were written are held against the oracle."""
    return _patched([(Metering, "meter", staticmethod(_METER)), (partition_module, "rated_lines", _no_lines)])


def _reclaim_and_tell(reclaimed: set[str]) -> Callable[[Desk, int, int], int]:
    reclaim_as_ever = Desk.reclaim

    def reclaim(desk: Desk, log_time_us: int, now_us: int) -> int:
        open_before = list(desk._open.values())
        count = reclaim_as_ever(desk, log_time_us, now_us)
        if count:
            reclaimed.update(found.hold.id for found in open_before if found.hold.number not in desk._open)
        return count

    return reclaim


def short_limits(world: World) -> AbstractContextManager[None]:
    """The shard's own limits, so small that a few hundred events reach them; some records break the engine; which holds are
    reclaimed is told to the world; and what is a pure function of bytes, and slow, is worked out once for all processes: a
    catalogue's tables, a MAC, a command."""
    plan = world.plan
    gap_us = round(100_000 * plan.pace)
    patches: list[Patch] = [
        (dedup_module, "RUN_MIN", 4),
        (dedup_module, "_CAPACITIES", (256,)),
        (takeover_module, "load_catalogue", compiled),
        (hmac, "digest", _mac_once),
        (partition_module, "parse_control", _read_once),
        (partition_module, "parse_usage", _read_usage_once),
        (commit_module, "ENCODE_ACCOUNTS", 1),
        (controller_module, "PROBE_EVERY_S", 0.2),
        (shard_module, "FETCH_WAIT_S", plan.fetch_wait_s),
        (shard_module, "LINES_WAIT_S", 0.1 if plan.slice_events == 1 else 0.0),
        (shard_module, "BLOCK_LINES_MAX", 5),
        (shard_module, "SENDS_MAX", SENDS_MAX),
        (shard_module, "FREEZE_IDLE_US", 200_000),
        (shard_module, "FREEZE_MAX", 3),
        (Desk, "reclaim", _reclaim_and_tell(world.reclaimed)),
        (admission_module, "VALID_GAP_US", gap_us),
        (slices_module, "VALID_GAP_US", gap_us),
        (slices_module, "CLOCK_MARGIN_S", plan.skew_max_us / 1e6 + 2.0 * plan.pace),
        (shard_module, "WISHES_EVERY_S", 0.2),
        (shard_module, "MEND_S", 0.5),
        (Metering, "meter", staticmethod(_meter_that_breaks)),
        (partition_module, "rated_lines", _lines_that_break),
        (admission_module, "GIVE_BACK_US", round(500_000 * plan.pace)),
    ]
    if not plan.seals:
        patches.append((Sealing, "mind", lambda *_: None))
    return _patched(patches)
