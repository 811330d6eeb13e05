"""Leases and claims that meet at the same moment: either the claim sees the longer lease, or the renewal the lost partition."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from actors.membership import PostgresMembership, PostgresRoster
from actors.ports import StoreUnavailable
from actors.queries import QUERIES
from tests.contracts.benches import RealBench, real_bench

LEASE_S = 5.0


@pytest.fixture
def owner_dsn(database: str) -> str:
    return database


@pytest.fixture
async def bench(owner_dsn: str) -> AsyncIterator[RealBench]:
    async with real_bench(owner_dsn) as opened:
        yield opened


async def test_a_renewal_held_off_by_a_claim_sees_what_was_taken_away(bench: RealBench) -> None:
    membership = await bench.membership(LEASE_S)
    roster = await bench.roster()
    await membership.register("a", "shard", "host", "/run/a.lock", 1)
    term = await roster.take_office("controller", 60.0)
    assert term is not None
    await roster.assign(term, {0: "a", 1: "a"})
    claimer = await asyncpg.connect(bench.dsn, server_settings={"search_path": bench.schema})
    try:
        async with claimer.transaction():
            (row,) = await claimer.fetch(QUERIES["speaking_members"], ["a"])
            assert row["lease_left_s"] > 0
            renewal = asyncio.create_task(membership.renew("a"))
            await until_waiting(claimer)
            await roster.assign(term, {0: "b"})
    finally:
        await claimer.close()
    assert (await renewal).partitions == {1}


async def until_waiting(connection: asyncpg.Connection) -> None:
    waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    async with asyncio.timeout(20):
        while not await connection.fetch(waiting):
            await asyncio.sleep(0.01)


async def test_without_a_server_nothing_is_known() -> None:
    nowhere = "postgresql://nobody:none@127.0.0.1:1/none"
    for part in (PostgresMembership(nowhere, lease_s=LEASE_S), PostgresRoster(nowhere)):
        with pytest.raises(StoreUnavailable):
            await part.start()
        await part.stop()
