"""Leases and claims that meet at the same moment: either the claim sees the longer lease, or the renewal the lost partition."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from actors.membership import LeaseEnds, PostgresMembership, PostgresRoster
from actors.ports import StoreUnavailable
from actors.queries import QUERIES
from tests.contracts.benches import RealBench, real_bench
from tests.simulation.hand_clock import HandClock

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


async def test_after_a_clock_that_was_set_back_no_more_is_left_of_a_lease_than_it_is_long(bench: RealBench) -> None:
    """For a successor, which waits it out, as for the controller, which declares a death behind it."""
    clock = HandClock()
    membership = await bench.membership(LEASE_S)
    roster = await bench.started(PostgresRoster(bench.dsn, bench.schema, clock=clock))
    await membership.register("a", "shard", "host", "/run/a.lock", 1)
    connection = await asyncpg.connect(bench.owner_dsn, server_settings={"search_path": bench.schema})
    try:
        await connection.execute("UPDATE member SET lease_until = lease_until + interval '1 hour'")
        (row,) = await connection.fetch(QUERIES["speaking_members"], ["a"])
    finally:
        await connection.close()
    assert row["lease_left_s"] == LEASE_S
    assert (await roster.members())[0].lease_left_s == LEASE_S
    await clock.advance(LEASE_S + 1)
    assert (await roster.members())[0].lease_left_s == -1
    await membership.renew("a")
    assert 0 < (await roster.members())[0].lease_left_s <= LEASE_S


# ----------------------------------------------------------------------------------- a clock that is set, look by look


def test_a_clock_that_is_set_forward_ends_no_lease_before_it_could_be_renewed(caplog: pytest.LogCaptureFixture) -> None:
    ends = LeaseEnds()
    ends.look(10.0, 10.1, 1_000.0)
    assert ends.left_s("a", 1.0, 1.2, 10.1) == 1.0
    ends.look(10.5, 10.6, 1_060.5)
    assert "set forward by 59.9 s or more" in caplog.text
    assert ends.left_s("a", -59.5, 1.2, 10.6) == pytest.approx(1.1)
    ends.look(11.0, 11.1, 1_061.0)
    assert ends.left_s("a", 1.1, 1.2, 11.1) == 1.1, "it has renewed"
    assert ends.left_s("b", -60.0, 1.2, 11.1) == pytest.approx(0.6)
    ends.look(12.5, 12.6, 1_062.5)
    assert ends.left_s("b", -61.5, 1.2, 12.6) == pytest.approx(-0.9), "it has not, and had the time"
    assert ends.left_s("a", 0.2, 1.2, 12.6) == 0.2


def test_an_answer_long_under_way_is_no_clock_that_was_set(caplog: pytest.LogCaptureFixture) -> None:
    ends = LeaseEnds()
    ends.look(10.0, 11.0, 1_000.0)  # read when we were at 10 already, or at 11 only
    ends.look(11.0, 12.0, 1_002.0)
    assert ends.left_s("a", -0.6, 1.2, 12.0) == -0.6
    assert caplog.text == ""


def test_a_lease_that_ends_too_far_ahead_counts_from_when_that_was_first_seen() -> None:
    ends = LeaseEnds()
    assert ends.left_s("a", 3_600.0, 1.2, 10.0) == 1.2
    assert ends.left_s("a", 3_599.5, 1.2, 10.5) == pytest.approx(0.7)
    assert ends.left_s("a", 3_598.0, 1.2, 12.0) == pytest.approx(-0.8)
    assert ends.left_s("a", 1.1, 1.2, 12.5) == 1.1, "renewed"
    assert ends.left_s("a", 3_600.0, 1.2, 20.0) == 1.2, "and seen anew"
    ends.keep(())
    assert ends.left_s("a", 3_600.0, 1.2, 30.0) == 1.2
    assert ends.left_s("old", 3_600.0, None, 30.0) == 3_600.0, "of an earlier release its length is not known"


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
