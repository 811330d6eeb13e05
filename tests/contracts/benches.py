"""Where the contract suites of store and membership run: a simulated database, and a real one with the engine's role."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

from actors.membership import PostgresDirectory, PostgresMembership, PostgresRoster
from actors.migrations import migrate
from actors.ports import Directory, Membership, Roster, Store
from actors.postgres import PostgresStore
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn
from tests.simulation.hand_clock import HandClock
from tests.simulation.sim_store import SimDatabase, SimDirectory, SimMembership, SimRoster, SimStore


class Startable(Protocol):
    async def start(self) -> None: ...

    async def stop(self) -> None: ...


Part = TypeVar("Part", bound=Startable)


class Bench(Protocol):
    """One database, and as many processes on it as a test wants."""

    async def store(self) -> Store: ...

    async def membership(self, lease_s: float) -> Membership: ...

    async def roster(self) -> Roster: ...

    async def directory(self) -> Directory: ...

    async def pass_time(self, seconds: float) -> None: ...


class _Started:
    """Stops what it has started."""

    def __init__(self) -> None:
        self._parts: list[Startable] = []

    async def started(self, part: Part) -> Part:
        await part.start()
        self._parts.append(part)
        return part

    async def stop(self) -> None:
        for part in self._parts:
            await part.stop()


class SimBench(_Started):
    def __init__(self) -> None:
        super().__init__()
        self._clock = HandClock()
        self.database = SimDatabase(self._clock)

    async def store(self) -> Store:
        return await self.started(SimStore(self.database))

    async def membership(self, lease_s: float) -> Membership:
        return await self.started(SimMembership(self.database, lease_s))

    async def roster(self) -> Roster:
        return await self.started(SimRoster(self.database))

    async def directory(self) -> Directory:
        return await self.started(SimDirectory(self.database))

    async def pass_time(self, seconds: float) -> None:
        await self._clock.advance(seconds)


class RealBench(_Started):
    def __init__(self, dsn: str, schema: str) -> None:
        super().__init__()
        self.owner_dsn = dsn
        self.dsn = engine_dsn(dsn)
        self.schema = schema

    async def store(self) -> PostgresStore:
        return await self.started(PostgresStore(self.dsn, self.schema, lease_s=0.5, hurry_s=30.0))

    async def membership(self, lease_s: float) -> PostgresMembership:
        return await self.started(PostgresMembership(self.dsn, self.schema, lease_s))

    async def roster(self) -> PostgresRoster:
        return await self.started(PostgresRoster(self.dsn, self.schema))

    async def directory(self) -> PostgresDirectory:
        return await self.started(PostgresDirectory(self.dsn, self.schema))

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


@asynccontextmanager
async def real_bench(dsn: str) -> AsyncIterator[RealBench]:
    """A schema of its own in that database."""
    schema = f"test_{secrets.token_hex(4)}"
    await migrate(dsn, schema, ENGINE_PASSWORD)
    bench = RealBench(dsn, schema)
    try:
        yield bench
    finally:
        await bench.stop()


@asynccontextmanager
async def owned_bench(dsn: str, partitions: int = 8) -> AsyncIterator[RealBench]:
    """The same, with every partition assigned to the incarnation "a", which may claim them."""
    async with real_bench(dsn) as bench:
        roster = await bench.roster()
        term = await roster.take_office("controller", 60.0)
        assert term is not None
        await roster.assign(term, dict.fromkeys(range(partitions), "a"))
        yield bench


@asynccontextmanager
async def sim_bench() -> AsyncIterator[SimBench]:
    """A database in memory."""
    bench = SimBench()
    try:
        yield bench
    finally:
        await bench.stop()
