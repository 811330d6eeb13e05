"""The only file that makes Ray actors: names, options, restarts, look-up. The classes it wraps know nothing of Ray.

All state lives in the actors' default concurrency group: others would be other threads. Calls are never retried by
Ray; each has its own deadline. Actors are detached and named, so that a driver that returns finds them again.
"""

import asyncio
import logging
import os
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.assembly import ControllerProcess, ShardProcess
from actors.outbox import OutboxCounts
from actors.shard import PartitionView
from config.settings import Settings

_log = logging.getLogger(__name__)

START_TIMEOUT_S: Final = 60.0
CALL_TIMEOUT_S: Final = 30.0
STATUS_TIMEOUT_S: Final = 2.0
SHARD_CPUS: Final = 0.5  # on two cores, two shards leave room for the broker and the database
CONTROLLER: Final = "controller"


class _ShardActor:
    """A shard in a Ray worker. Ends with its shard's loop, and is restarted by Ray as a new incarnation, a spare."""

    async def __init__(  # type: ignore[misc]  # Ray awaits the constructor of an async actor
        self, shard: str, settings: dict[str, Any], lock_dir: str
    ) -> None:
        _log_to_stderr()
        # Joining belongs to the constructor: it is all that Ray runs again at a restart.
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
    async def __init__(self, settings: dict[str, Any]) -> None:  # type: ignore[misc]  # Ray awaits it
        _log_to_stderr()
        self._process = ControllerProcess(f"{CONTROLLER}.{os.getpid()}", Settings.model_validate(settings))
        await self._process.start()

    async def ping(self) -> None:
        """Answers once the controller runs."""

    async def drain(self) -> None:
        await self._process.stop()


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


class Cluster:
    """The actors of one deployment, as their driver sees them. Ray is initialised by the caller."""

    def __init__(self, settings: Settings, lock_dir: Path, namespace: str = "tallygate") -> None:
        self._settings = settings
        self._lock_dir = lock_dir
        self._namespace = namespace
        self._shards = [f"shard-{number}" for number in range(settings.shard.shards)]

    async def start(self) -> None:
        """Make what is missing, and wait until every actor answers. Actors that are there already are kept."""
        settings = self._settings.reveal()
        ray.remote(_ControllerActor).options(**self._options(CONTROLLER, num_cpus=0)).remote(settings)
        for shard in self._shards:
            options = self._options(shard, num_cpus=SHARD_CPUS)
            ray.remote(_ShardActor).options(**options).remote(shard, settings, str(self._lock_dir))
        await asyncio.gather(
            self._call(CONTROLLER, "ping", START_TIMEOUT_S),
            *(self._call(shard, "status", START_TIMEOUT_S) for shard in self._shards),
        )

    def _options(self, name: str, num_cpus: float) -> dict[str, Any]:
        return {
            "name": name,
            "namespace": self._namespace,
            "lifetime": "detached",
            "get_if_exists": True,
            "max_restarts": -1,
            "max_task_retries": 0,
            "num_cpus": num_cpus,
            # Ray would fill one node first: its loss would then leave nobody to take over.
            "scheduling_strategy": "SPREAD",
            "enable_task_events": False,
        }

    async def _call(self, name: str, method: str, timeout_s: float) -> Any:
        # Looked up anew each time: a handle to an actor that was made again answers ActorDiedError for ever.
        handle: ActorHandle[Any] = ray.get_actor(name, self._namespace)
        return await asyncio.wait_for(getattr(handle, method).remote(), timeout_s)

    async def statuses(self) -> list[ShardStatus]:
        """Of every shard that answers in time; one that is dead or restarting is left out."""
        answers = await asyncio.gather(
            *(self._call(shard, "status", STATUS_TIMEOUT_S) for shard in self._shards), return_exceptions=True
        )
        broken = [
            answer for answer in answers if not isinstance(answer, ShardStatus | RayError | TimeoutError | ValueError)
        ]
        if broken:
            raise broken[0]
        return [answer for answer in answers if isinstance(answer, ShardStatus)]

    async def stop(self) -> None:
        """Drain every shard, then the controller, then end the actors."""
        for names in (self._shards, [CONTROLLER]):
            answers = await asyncio.gather(
                *(self._call(name, "drain", CALL_TIMEOUT_S) for name in names), return_exceptions=True
            )
            for name, answer in zip(names, answers, strict=True):
                if isinstance(answer, BaseException):
                    _log.warning("%s did not drain in order: %s", name, answer)
        for name in [*self._shards, CONTROLLER]:
            try:
                ray.kill(ray.get_actor(name, self._namespace))
            except ValueError:
                _log.info("%s was gone already", name)
