"""What is done to a running deployment: one small class per kind. All of these are kills, by SIGKILL.

A fault finds its victim when it strikes, among what lives then; `mend` brings back what nobody else would.
"""

import asyncio
from abc import ABC, abstractmethod
from random import Random
from typing import ClassVar

import psutil

from config.stack.ray_local import RayNode
from loadtest.chaos.stage import Stage, StageFailed

GONE_WITHIN_S = 10.0  # workers notice within about a second that their raylet is dead


class Kill(ABC):
    """One process, or several at once, to be killed."""

    kind: ClassVar[str]  # as it is counted in the report, and chosen by `--kind`

    def __init__(self, stage: Stage, source: Random) -> None:
        self._stage = stage
        self._source = source

    @abstractmethod
    async def strike(self) -> str:
        """Do it; who was hit, for the terminal."""

    async def mend(self) -> None:  # noqa: B027  # most kinds need no mending
        """Bring back what does not come back by itself; called once, right after `strike`. The controller, Ray, Serve or
        the server itself makes most of them anew."""

    def _any(self, found: list[psutil.Process]) -> psutil.Process:
        if not found:
            raise StageFailed(f"there is no {self.kind} to be killed")
        return self._source.choice(sorted(found, key=lambda process: process.pid))


class KillShard(Kill):
    """A shard that owns partitions; a live one takes over, and the controller has a spare made."""

    kind = "shard"

    async def strike(self) -> str:
        owners = await self._stage.owners()
        if not owners:
            raise StageFailed("there is no shard to be killed")
        victim = self._source.choice(sorted(owners, key=lambda status: status.shard))
        self._stage.shard(victim).kill()
        return f"{victim.shard} (pid {victim.pid}), owner of {len(victim.partitions)} partitions"


class KillAllShards(Kill):
    """Every shard at once: nobody is left to take over before Ray has made new ones."""

    kind = "all shards"

    async def strike(self) -> str:
        victims = [self._stage.shard(status) for status in await self._stage.cluster.statuses()]
        for victim in victims:
            victim.kill()
        return f"all {len(victims)} shards"


class KillController(Kill):
    kind = "controller"

    async def strike(self) -> str:
        victim = self._any(self._stage.controllers())
        victim.kill()
        return f"the controller (pid {victim.pid})"


class KillReplica(Kill):
    """One replica of the API; the others go on."""

    kind = "replica"

    async def strike(self) -> str:
        victim = self._any(self._stage.replicas())
        victim.kill()
        return f"a replica of the API (pid {victim.pid})"


class KillRaylet(Kill):
    """A node of Ray that is not the head, with whatever runs on it. It is replaced by a new one."""

    kind = "raylet"

    def __init__(self, stage: Stage, source: Random) -> None:
        super().__init__(stage, source)
        self._node: RayNode | None = None

    async def strike(self) -> str:
        self._node = self._source.choice(self._stage.nodes)
        victim = self._stage.raylet(self._node)
        workers = victim.children(recursive=True)
        victim.kill()
        # They live on for a moment. One that stays longer is a zombie, whom the fence keeps from doing harm.
        await asyncio.to_thread(psutil.wait_procs, workers, GONE_WITHIN_S)
        return f"raylet of {self._node.name} (pid {victim.pid}), with {len(workers)} processes"

    async def mend(self) -> None:
        assert self._node is not None
        await self._stage.replace_node(self._node)


class KillDriver(Kill):
    """The process that deployed everything; started again, it finds everything."""

    kind = "driver"

    async def strike(self) -> str:
        victim = self._stage.deployer()
        victim.kill()
        return f"the driver (pid {victim.pid})"

    async def mend(self) -> None:
        await self._stage.start_deployer()


class KillBackend(Kill):
    """One session of the engine in Postgres. The server ends all others too, and recovers."""

    kind = "postgres backend"

    async def strike(self) -> str:
        victim = self._any(await self._stage.backends())
        victim.kill()
        return f"a backend (pid {victim.pid})"


class KillPostmaster(Kill):
    """Postgres itself. Its backends may still commit for a moment; `postmaster.pid` stays where it is."""

    kind = "postmaster"

    async def strike(self) -> str:
        victim = self._stage.postmaster()
        victim.kill()
        return f"the postmaster (pid {victim.pid})"

    async def mend(self) -> None:
        await self._stage.restart_postgres()


class KillBroker(Kill):
    kind = "broker"

    async def strike(self) -> str:
        victim = self._stage.broker()
        victim.kill()
        return f"the broker (pid {victim.pid})"

    async def mend(self) -> None:
        await self._stage.restart_broker()
