"""The audit trail on a real database, as the engine's role: rows are added and read, and nothing else is possible."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from actors.audit import Audit, AuditEntry
from actors.ports import StoreUnavailable
from actors.records import BadCursor
from tests.contracts.benches import RealBench, real_bench


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with real_bench(database) as opened:
        yield opened


@pytest.fixture
async def audit(bench: RealBench) -> Audit:
    return await bench.started(Audit(bench.dsn, bench.schema))


def entry(number: int = 1, account: str | None = "acme", act: str = "key.create") -> AuditEntry:
    return AuditEntry("key:abc", act, "asked", account, f"s{number}", "why", f"r{number}", b'{"a": 1}', None)


async def test_a_row_is_read_back_as_it_was_written(audit: Audit) -> None:
    await audit.record(entry())
    ((row,), cursor) = await audit.page(10)
    assert (row.entry, cursor) == (entry(), None)
    assert row.at_us > 1_700_000_000_000_000


async def test_pages_are_newest_first_complete_and_narrowed(audit: Audit) -> None:
    wanted = [entry(1), entry(2, "globex"), entry(3), entry(4, None, "catalogue.publish"), entry(5)]
    for each in wanted:
        await audit.record(each)
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        rows, cursor = await audit.page(2, cursor)
        seen += [row.entry.subject for row in rows]
    assert (seen, cursor) == (["s5", "s4", "s3", "s2", "s1"], None)
    for narrowed, subjects in (
        (audit.page(9, account="acme"), ["s5", "s3", "s1"]),
        (audit.page(9, act="catalogue.publish"), ["s4"]),
        (audit.page(9, request_id="r2"), ["s2"]),
    ):
        assert [row.entry.subject for row in (await narrowed)[0]] == subjects
    with pytest.raises(BadCursor):
        await audit.page(2, "x")


@pytest.mark.parametrize("statement", ["UPDATE audit SET reason = ''", "DELETE FROM audit", "TRUNCATE audit"])
async def test_no_row_is_ever_changed_or_taken_away(bench: RealBench, audit: Audit, statement: str) -> None:
    await audit.record(entry())
    connection = await asyncpg.connect(bench.dsn, server_settings={"search_path": bench.schema})
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()
    assert len((await audit.page(10))[0]) == 1


async def test_writers_at_once_lose_no_row(bench: RealBench, audit: Audit) -> None:
    other = await bench.started(Audit(bench.dsn, bench.schema))
    await asyncio.gather(*(each.record(entry(number)) for number in range(20) for each in (audit, other)))
    assert len((await audit.page(200))[0]) == 40


async def test_without_a_database_nothing_is_claimed(audit: Audit) -> None:
    await audit.stop()
    with pytest.raises(StoreUnavailable):
        await audit.record(entry())
