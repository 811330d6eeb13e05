"""The only file that makes Ray actors: names, options, restarts, look-up. The classes it wraps know nothing of Ray.

Ray restarts the controller, and the controller makes dead shards anew: Ray would do that at the very moment of a death, and
a process that starts would take the CPU from the shard that is taking over, for seconds on a small machine. The controller
lives on Ray's head node: another node's death, which Ray is slow to believe, then leaves it alone; and without its head,
Ray restarts nothing anyway.
All state lives in the actors' default concurrency group: others would be other threads. Calls are never retried by
Ray; each has its own deadline. Actors are detached and named, so that a driver that returns finds them again.
"""

import asyncio
import logging
import os
import resource
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util import list_named_actors

from actors.assembly import ControllerProcess, CostProcess, ShadowProcess, ShardProcess
from actors.clock import SystemClock
from actors.margin_actor import MarginView
from actors.outbox import OutboxCounts
from actors.shard import PartitionView
from config.settings import Settings

_log = logging.getLogger(__name__)

_Status = TypeVar("_Status", "ShardStatus", "TurnsStatus")

START_TIMEOUT_S: Final = 60.0
DRAIN_TIMEOUT_S: Final = 10.0  # a last checkpoint takes a second or two; whoever is not done by then is ended
RESIGN_TIMEOUT_S: Final = 3.0
STATUS_TIMEOUT_S: Final = 2.0
TURNS_CPUS: Final = 0.25  # nobody waits for what goes on by turns
SHARD_CPUS: Final = 0.5  # on two cores, two shards leave room for the broker and the database
CONTROLLER: Final = "controller"
HEAD: Final = "node:__internal_head__"  # Ray's name for what only the head node has
REVIVE_LOOK_S: Final = 0.25  # between two looks for shards that are gone; a look is one question to Ray
COST, SHADOW = "cost", "shadow"
TURNS: Final[dict[str, type[CostProcess] | type[ShadowProcess]]] = {COST: CostProcess, SHADOW: ShadowProcess}
REVIVE_AFTER_S: Final = 3.0  # by then a live shard has taken over; a shard that was the only one is made at once


class _ShardActor:
    """A shard in a Ray worker. Ends with its shard's loop, and is made anew as another incarnation, a spare."""

    async def __init__(  # type: ignore[misc]  # Ray awaits the constructor of an async actor
        self, shard: str, settings: dict[str, Any], lock_dir: str
    ) -> None:
        _log_to_stderr()
        # Joining belongs to the constructor: whoever finds the actor finds a shard that has joined.
        self._process = ShardProcess(shard, Settings.model_validate(settings), Path(lock_dir))
        await self._process.start()
        self._watch = asyncio.create_task(self._end_with_the_loop())

    async def _end_with_the_loop(self) -> None:
        try:
            await self._process.wait()
        except Exception:
            _log.exception("shard %s broke", self._process.incarnation.name)
        # Declared dead, or broken: this life is over, and only a new process may go on.
        os._exit(1)

    async def status(self) -> "ShardStatus":
        incarnation = self._process.incarnation
        usage = resource.getrusage(resource.RUSAGE_SELF)
        return ShardStatus(
            incarnation.shard,
            incarnation.name,
            incarnation.pid,
            _rss_mib(),
            usage.ru_utime + usage.ru_stime,
            self._process.shard.partitions(),
            self._process.shard.alerts(),
        )

    async def drain(self) -> None:
        """Hand over and leave; the actor may be ended afterwards."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._process.stop()


class _ControllerActor:
    async def __init__(self, settings: dict[str, Any], lock_dir: str, namespace: str) -> None:  # type: ignore[misc]
        _log_to_stderr()
        made = Settings.model_validate(settings)
        self._process = ControllerProcess(f"{CONTROLLER}.{os.getpid()}", made)
        await self._process.start()
        self._reviving = asyncio.create_task(self._revive(made.shard.shards, settings, lock_dir, namespace))
        self._watch = asyncio.create_task(self._end_with_the_loops())

    async def _end_with_the_loops(self) -> None:
        try:
            await asyncio.gather(self._process.wait(), self._reviving)
        except Exception:
            _log.exception("the controller broke")
        # Alive, it would place nothing and make nothing anew, and Ray would see no reason to make it anew.
        os._exit(1)

    async def _revive(self, shards: int, settings: dict[str, Any], lock_dir: str, namespace: str) -> None:
        clock = SystemClock()
        missed_s: dict[str, float] = {}  # shards that are gone, and since when
        while True:
            await clock.sleep(REVIVE_LOOK_S)
            try:
                there = set(await asyncio.to_thread(_actors_of, namespace))
                gone = [shard for shard in shard_names(shards) if shard not in there]
                now_s = clock.boot_s()
                missed_s = {shard: missed_s.get(shard, now_s) for shard in gone}
                wait_s = REVIVE_AFTER_S if len(gone) < shards else 0.0
                for shard in gone:
                    if now_s - missed_s[shard] >= wait_s:
                        _log.info("shard %s is made anew", shard)
                        await asyncio.to_thread(_make_shard, shard, settings, lock_dir, namespace)
            except RayError as error:
                _log.warning("it could not be seen which shards are gone: %s", error)

    async def ping(self) -> None:
        """Answers once the controller runs."""

    async def drain(self) -> None:
        """Place nothing and make nothing any more."""
        for task in (self._watch, self._reviving):
            task.cancel()
        await asyncio.gather(self._watch, self._reviving, return_exceptions=True)
        await self._process.stop()


class _TurnsActor:
    """What goes on by turns, in a Ray worker. When it ends, Ray makes it anew, and the new one claims its partitions."""

    async def __init__(  # type: ignore[misc]
        self, kind: str, number: int, of: int, settings: dict[str, Any]
    ) -> None:
        _log_to_stderr()
        self._name = turns_names(kind, of)[number]
        made = Settings.model_validate(settings)
        self._process = TURNS[kind](number, of, f"{self._name}.{os.getpid()}", made)
        await self._process.start()
        self._watch = asyncio.create_task(self._end_with_the_loop())

    async def _end_with_the_loop(self) -> None:
        try:
            await self._process.wait()
        except Exception:
            _log.exception("%s broke", self._name)
        os._exit(1)

    async def status(self) -> "TurnsStatus":
        return TurnsStatus(self._name, os.getpid(), *self._process.views())

    async def drain(self) -> None:
        """End the turn under way; the actor may be ended afterwards."""
        self._watch.cancel()
        await asyncio.gather(self._watch, return_exceptions=True)
        await self._process.stop()


@dataclass(frozen=True, slots=True)
class TurnsStatus:
    """What an actor that goes on by turns says of itself."""

    name: str
    pid: int
    partitions: list[Any]  # CostView or ShadowView, by its kind
    margins: list[MarginView] = field(default_factory=list)  # of a cost actor


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """What a shard says of itself."""

    shard: str
    incarnation: str
    pid: int
    rss_mib: float
    cpu_s: float
    partitions: list[PartitionView]
    alerts: OutboxCounts


def _log_to_stderr() -> None:
    """Ray keeps each worker's stderr in a file of its own."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")


def _rss_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def shard_names(shards: int) -> list[str]:
    return [f"shard-{number}" for number in range(shards)]


def turns_names(kind: str, actors: int) -> list[str]:
    return [f"{kind}-{number}" for number in range(actors)]


def _actors_of(namespace: str) -> list[str]:
    """The names of the actors that live, start or are restarted there. Blocks."""
    found: list[dict[str, str]] = list_named_actors(all_namespaces=True)
    return [actor["name"] for actor in found if actor["namespace"] == namespace]


def _make_shard(shard: str, settings: dict[str, Any], lock_dir: str, namespace: str) -> None:
    """The actor, unless there is one of that name. Blocks."""
    # SPREAD: Ray would fill one node first, and its loss would then leave nobody to take over.
    options = _options(shard, namespace, num_cpus=SHARD_CPUS, max_restarts=0) | {"scheduling_strategy": "SPREAD"}
    ray.remote(_ShardActor).options(**options).remote(shard, settings, lock_dir)


def _options(name: str, namespace: str, *, num_cpus: float, max_restarts: int) -> dict[str, Any]:
    return {
        "name": name,
        "namespace": namespace,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": max_restarts,
        "max_task_retries": 0,
        "num_cpus": num_cpus,
        "enable_task_events": False,
    }


class Cluster:
    """The actors of one deployment, as their driver sees them. Ray is initialised by the caller."""

    def __init__(self, settings: Settings, lock_dir: Path, namespace: str = "tallygate") -> None:
        self._settings = settings
        self._lock_dir = lock_dir
        self._namespace = namespace
        self._shards = shard_names(settings.shard.shards)
        self._turns = {
            COST: turns_names(COST, settings.cost.actors),
            SHADOW: turns_names(SHADOW, settings.shadow.actors),
        }

    async def start(self) -> None:
        """Make what is missing, and wait until every actor answers. Actors that are there already are kept."""
        settings = self._settings.reveal()
        lock_dir = str(self._lock_dir)
        for shard in self._shards:
            _make_shard(shard, settings, lock_dir, self._namespace)
        options = _options(CONTROLLER, self._namespace, num_cpus=0, max_restarts=-1) | {"resources": {HEAD: 0.001}}
        ray.remote(_ControllerActor).options(**options).remote(settings, lock_dir, self._namespace)
        for kind, names in self._turns.items():
            for number, name in enumerate(names):
                options = _options(name, self._namespace, num_cpus=TURNS_CPUS, max_restarts=-1)
                ray.remote(_TurnsActor).options(**options).remote(kind, number, len(names), settings)
        await asyncio.gather(
            self._call(CONTROLLER, "ping", START_TIMEOUT_S),
            *(self._call(name, "status", START_TIMEOUT_S) for name in self._all()),
        )

    async def _call(self, name: str, method: str, timeout_s: float) -> Any:
        # Looked up anew each time: a handle to an actor that was made again answers ActorDiedError for ever.
        handle: ActorHandle[Any] = ray.get_actor(name, self._namespace)
        return await asyncio.wait_for(getattr(handle, method).remote(), timeout_s)

    def _all(self) -> list[str]:
        """Of all but the controller."""
        return [*self._shards, *self._turns[COST], *self._turns[SHADOW]]

    async def statuses(self) -> list[ShardStatus]:
        """Of every shard that answers in time; one that is dead or restarting is left out."""
        return await self._statuses(self._shards, ShardStatus)

    async def cost_statuses(self) -> list[TurnsStatus]:
        """Of every cost actor that answers in time."""
        return await self._statuses(self._turns[COST], TurnsStatus)

    async def shadow_statuses(self) -> list[TurnsStatus]:
        """Of every shadow actor that answers in time."""
        return await self._statuses(self._turns[SHADOW], TurnsStatus)

    async def _statuses(self, names: Sequence[str], of: type[_Status]) -> list[_Status]:
        answers = await asyncio.gather(
            *(self._call(name, "status", STATUS_TIMEOUT_S) for name in names), return_exceptions=True
        )
        broken = [answer for answer in answers if not isinstance(answer, of | RayError | TimeoutError | ValueError)]
        if broken:
            raise broken[0]
        return [answer for answer in answers if isinstance(answer, of)]

    async def stop(self) -> None:
        """Drain the controller, so that nothing moves and nobody is made anew; then every shard; then end the actors,
        drained or not. What is not handed over in time is replayed by the next owner."""
        for names, timeout_s in (
            ([CONTROLLER], RESIGN_TIMEOUT_S),
            (self._all(), DRAIN_TIMEOUT_S),
        ):
            answers = await asyncio.gather(
                *(self._call(name, "drain", timeout_s) for name in names), return_exceptions=True
            )
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, BaseException):
                    _log.warning("%s did not drain in order: %s", name, answer or f"no answer within {timeout_s:.0f} s")
        for name in [CONTROLLER, *self._all()]:
            try:
                ray.kill(ray.get_actor(name, self._namespace))
            except ValueError:
                _log.info("%s was gone already", name)
