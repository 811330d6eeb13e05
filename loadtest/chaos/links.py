"""Two shards as plain processes, each on a way of its own to Postgres and to Kafka, under a load that goes on meanwhile.

What is done to one shard's way does not touch the other shard, the controller, the driver, or whoever checks afterwards.
"""

import asyncio
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count, takewhile
from pathlib import Path
from tempfile import mkdtemp
from typing import Final, Protocol

import orjson
from msgspec import Struct
from pydantic import SecretStr

from actors.assembly import database_dsn
from actors.clock import SystemClock
from actors.deployment import until
from actors.ports import StoreUnavailable
from actors.postgres import PartitionStatus
from actors.publication import publish
from config.catalogue import load_file
from config.settings import Settings
from config.stack.kafka import Listener
from config.stack.supervisor import Say, silent
from loadtest.chaos.acknowledged import Acknowledged
from loadtest.chaos.audit import Audit, judge
from loadtest.chaos.commits import PostgresProxy
from loadtest.chaos.judgement import Judged, judge_run
from loadtest.chaos.proxy import Proxy
from loadtest.chaos.traffic import append_commands
from loadtest.deployment import CATALOGUE_FILE, CUSTOMERS, SETUP_US, Deployment, deployment
from loadtest.drive import Driver
from loadtest.process_child import LEFT_BY_ITSELF
from loadtest.processes import Process, ProcessFailed
from loadtest.workload import Workload

SHARDS: Final = 2
EVENTS_PER_S: Final = 250
ROUND_S: Final = 20.0  # of load; each round's customers run dry in it, so that alerts are told until the end
STATEMENT_TIMEOUT_MS: Final = (
    2_000  # a client that hears nothing gives up a second after that; ten would only be longer
)
REBALANCE_AFTER_S: Final = (
    1.0  # a shard that has joined gets its part soon: so partitions move, too, between the faults
)
WAIT_S: Final = 120.0  # for whatever a run waits for; a healthy one needs a few seconds


class Way(Protocol):
    """How one shard reaches its servers."""

    def through(self, settings: Settings) -> Settings:
        """The settings of a shard that goes this way."""
        ...


class Link(Struct, frozen=True):
    """A way through proxies."""

    postgres: PostgresProxy
    kafka: Proxy

    async def start(self) -> None:
        await self.postgres.start()
        await self.kafka.start()

    async def stop(self) -> None:
        await self.kafka.stop()
        await self.postgres.stop()

    def through(self, settings: Settings) -> Settings:
        return reaching(settings, self.postgres.dsn, f"127.0.0.1:{self.kafka.port}")


def reaching(settings: Settings, dsn: str, bootstrap: str) -> Settings:
    """The settings, with these servers."""
    postgres = settings.postgres.model_copy(
        update={"dsn": SecretStr(dsn), "statement_timeout_ms": STATEMENT_TIMEOUT_MS}
    )
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap})
    return settings.model_copy(update={"postgres": postgres, "kafka": kafka})


class Shards:
    """The run. Shard n goes by way n; one that left because it was declared dead is followed by a new one."""

    def __init__(self, at: Deployment, audit: Audit, ways: Sequence[Way], folder: Path) -> None:
        self.at = at
        self._ways = ways
        self.shards: list[Process] = []
        self.left = 0  # shards that were declared dead, and ended by themselves
        # A run with dropped packets finds the folder of the last one, whose journal is never written over.
        journal = Path(mkdtemp(prefix="acknowledged-", dir=folder))
        self.acknowledged = Acknowledged(journal, at.settings.kafka.partitions)
        self.customers = self._round(1).customers  # who are there from the start
        self._audit = audit
        self._folder = folder
        self._controller: Process | None = None
        self._enough = False

    async def start(self) -> None:
        """Shards and controller; returns when both shards own partitions and the accounts are open."""
        self.shards += [self._shard(number) for number in range(SHARDS)]
        self._controller = Process("controller", "controller", self.at.settings, self._folder)
        for shard in self.shards:
            await shard.joined()
        await until(self._balanced, "both shards to own partitions", WAIT_S)
        await self._publish()
        await self._open_accounts(self._round(1))
        await until(self.at.rated_to_the_end, "the accounts to be opened", WAIT_S)

    async def _publish(self) -> None:
        at = self.at
        await publish(
            load_file(CATALOGUE_FILE),
            store=at.store,
            log=at.log,
            clock=SystemClock(),
            topic=at.settings.kafka.topic_usage,
            control_key=at.settings.control_key_bytes(),
        )

    async def _open_accounts(self, workload: Workload) -> None:
        """In the log, and in the journal of what it has acknowledged: usage that is sent from then on lies behind them."""
        at, clock = self.at, SystemClock()
        commands = workload.setup(clock.wall_us() + SETUP_US)
        await append_commands(at.log, clock, at.settings, commands, self.acknowledged)

    def _shard(self, number: int) -> Process:
        settings = self._ways[number].through(self.at.settings)
        return Process("shard", f"shard-{number}", settings, self._folder)

    async def _balanced(self) -> bool:
        owners = await self.at.owners()
        everyone = {shard.incarnation for shard in self.shards}
        return len(owners) == self.at.settings.kafka.partitions and set(owners.values()) == everyone

    def close(self) -> None:
        """However the run has gone, nothing is left."""
        self.acknowledged.close()
        for process in (*self.shards, self._controller):
            if process is not None:
                if process.process.poll() is None:
                    process.signal(signal.SIGCONT)
                process.close()

    # -------------------------------------------------------------------------------------------------------- the load

    def _round(self, number: int) -> Workload:
        return Workload(
            number,
            int(EVENTS_PER_S * ROUND_S),
            CUSTOMERS,
            None,
            ROUND_S,
            catalogue=orjson.loads(self.at.catalogue),
            partitions=self.at.settings.kafka.partitions,
            prefix=f"cus_{number}",
        )

    async def _drive(self) -> None:
        """Round after round, the last one as far as it is wanted."""
        topic, control_key = self.at.settings.kafka.topic_usage, self.at.settings.control_key_bytes()
        driver = Driver(self.at.log, SystemClock(), topic, control_key, self.acknowledged.write)
        for number in count(1):
            workload = self._round(number)
            if number > 1:
                await self._open_accounts(workload)
            await driver.run(takewhile(lambda _: not self._enough, workload))
            if self._enough:
                return

    @asynccontextmanager
    async def load(self) -> AsyncIterator[None]:
        """For as long as the block runs; behind it everything is rated and told."""
        driving = asyncio.create_task(self._drive())
        try:
            yield
            self._enough = True
            await driving
            await until(self.at.rated_to_the_end, "everything to be rated and told", WAIT_S)
        finally:
            driving.cancel()
            await asyncio.gather(driving, return_exceptions=True)

    # ---------------------------------------------------------------------------------------------------------- owners

    async def statuses(self) -> list[PartitionStatus] | None:
        """Every partition as the database has it; None while the database does not say."""
        try:
            return await self.at.store.partitions()
        except StoreUnavailable:
            return None

    async def partitions_of(self, number: int) -> list[int]:
        """What shard n owns, as the database has it."""
        incarnation = self.shards[number].incarnation
        return sorted(partition for partition, owner in (await self.at.owners()).items() if owner == incarnation)

    async def busy(self) -> int:
        """A shard that owns partitions: the one that owns most."""
        owned = [len(await self.partitions_of(number)) for number in range(SHARDS)]
        return max(range(SHARDS), key=lambda number: owned[number])

    async def taken_over(self, number: int) -> None:
        """Return when others own all that shard n owned."""

        async def gone() -> bool:
            owners = set((await self.at.owners()).values())
            return self.shards[number].incarnation not in owners and None not in owners

        await until(gone, f"the partitions of {self.shards[number].incarnation} to be taken over", WAIT_S)

    async def replaced(self, number: int) -> None:
        """Return when shard n, declared dead, has left by itself, and a new one has joined in its place."""
        status = await self.shards[number].ended()
        if status != LEFT_BY_ITSELF:
            raise ProcessFailed(f"{self.shards[number].incarnation} ended with {status} and should have left by itself")
        self.left += 1
        self.shards[number].close()
        self.shards[number] = self._shard(number)
        await self.shards[number].joined()

    async def healed(self) -> None:
        """Return when every shard lives and every partition is owned, and committed to, by one of them."""
        before: dict[int, int] = {}

        async def goes_on() -> bool:
            for number, shard in enumerate(self.shards):
                if shard.process.poll() is not None:
                    await self.replaced(number)
            living = {shard.incarnation for shard in self.shards}
            statuses = await self.statuses()
            if statuses is None:
                return False
            for status in statuses:
                before.setdefault(status.partition, status.ckpt_seq)
            return all(status.owner in living and status.ckpt_seq > before[status.partition] for status in statuses)

        await until(goes_on, "every partition to have a checkpoint again", WAIT_S)

    async def end(self) -> None:
        """In order: everything is handed over, and nobody owns anything then."""
        await asyncio.gather(*(shard.end() for shard in self.shards))
        assert self._controller is not None
        await self._controller.end()

    async def judged(self, struck: int, say: Say = silent) -> Judged:
        """Behind `end`: what the verifier makes of what is left, and Postgres of what was done to the partitions. `struck`
        counts the faults."""
        at = self.at
        judged = await judge_run(at.settings, {1: at.catalogue}, self.acknowledged, at.receiver, struck, say)
        judged.history = judge(await self._audit.updates())
        judged.wrong += judged.history.sentences
        if judged.history.commits != judged.verdict.checkpoints:
            judged.wrong.append(
                f"Postgres has written down {judged.history.commits} checkpoints, the partitions count "
                f"{judged.verdict.checkpoints}"
            )
        return judged


class LinkedShards(Shards):
    """Shards whose ways are proxies of this process."""

    def __init__(self, at: Deployment, audit: Audit, links: Sequence[Link], folder: Path) -> None:
        super().__init__(at, audit, links, folder)
        self.links = links


@asynccontextmanager
async def audited_deployment(database: str, bootstrap: str) -> AsyncIterator[tuple[Deployment, Audit]]:
    """A deployment on whose partitions Postgres itself keeps a history. `database` is the owner's dsn."""
    async with deployment(database, bootstrap) as at:
        lease = at.settings.lease.model_copy(update={"rebalance_after_s": REBALANCE_AFTER_S})
        at.settings = at.settings.model_copy(update={"lease": lease})
        audit = Audit(database, at.settings.postgres.schema_name)
        await audit.install()
        yield at, audit


@asynccontextmanager
async def linked_shards(
    database: str, bootstrap: str, listeners: Sequence[Listener], folder: Path
) -> AsyncIterator[LinkedShards]:
    """On running servers. `database` is the owner's dsn; each of the `listeners` belongs to one shard's proxy."""
    async with audited_deployment(database, bootstrap) as (at, audit), AsyncExitStack() as stack:
        links = [
            Link(
                PostgresProxy(database_dsn(at.settings), seed=number),
                Proxy((listener.host, listener.port), listener.advertised_port, seed=number),
            )
            for number, listener in enumerate(listeners[:SHARDS])
        ]
        for link in links:
            await link.start()
            stack.push_async_callback(link.stop)
        run = LinkedShards(at, audit, links, folder)
        stack.callback(run.close)
        await run.start()
        yield run
