"""COMMIT as the proxy sees it, on the wire and before a real Postgres."""

import asyncio
import struct
from collections.abc import AsyncIterator

import asyncpg
import pytest

from loadtest.chaos.commits import CommitFault, FrontendMessages, PostgresProxy, is_commit

SESSION = "tallygate commit"


def message(tag: bytes, body: bytes) -> bytes:
    return tag + struct.pack("!I", len(body) + 4) + body


def startup(session: str) -> bytes:
    body = struct.pack("!HH", 3, 0) + b"user\0me\0application_name\0" + session.encode() + b"\0\0"
    return struct.pack("!I", len(body) + 4) + body


def test_messages_are_found_however_they_are_cut_up() -> None:
    whole = [startup(SESSION), message(b"Q", b"BEGIN;\0"), message(b"Q", b"COMMIT;\0"), message(b"X", b"")]
    stream = b"".join(whole)
    for size in (1, 3, 7, len(stream)):
        messages = FrontendMessages()
        found = [each for start in range(0, len(stream), size) for each in messages.feed(stream[start : start + size])]
        assert found == whole
        assert messages.session == SESSION


def test_a_request_for_tls_comes_before_the_start() -> None:
    tls = struct.pack("!II", 8, 80877103)
    messages = FrontendMessages()
    assert messages.feed(tls + startup("other")) == [tls, startup("other")]
    assert messages.session == "other"


@pytest.mark.parametrize(
    ("sent", "commits"),
    [
        (message(b"Q", b"COMMIT;\0"), True),
        (message(b"Q", b" commit \0"), True),
        (message(b"P", b"stmt\0COMMIT\0\0\0"), True),
        (message(b"Q", b"SELECT 'COMMIT'\0"), False),
        (message(b"Q", b"ROLLBACK;\0"), False),
        (message(b"B", b"COMMIT\0"), False),
    ],
)
def test_a_commit_is_told_from_what_only_mentions_one(sent: bytes, commits: bool) -> None:
    assert is_commit(sent) is commits


@pytest.fixture
async def proxy(database: str) -> AsyncIterator[PostgresProxy]:
    made = PostgresProxy(database)
    await made.start()
    connection = await asyncpg.connect(database)
    await connection.execute("CREATE TABLE IF NOT EXISTS made (fault text)")
    yield made
    await connection.execute("DROP TABLE made")
    await connection.close()
    await made.stop()


async def committed(proxy: PostgresProxy, value: str, session: str = SESSION) -> None:
    """One row in one transaction, by way of the proxy."""
    connection = await asyncpg.connect(proxy.dsn, server_settings={"application_name": session}, command_timeout=2)
    try:
        await connection.execute("BEGIN")
        await connection.execute("INSERT INTO made VALUES ($1)", value)
        await connection.execute("COMMIT")
    finally:
        connection.terminate()


async def rows(database: str) -> list[str]:
    connection = await asyncpg.connect(database)
    try:
        return [row["fault"] for row in await connection.fetch("SELECT fault FROM made")]
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("fault", "took_effect"),
    [
        (CommitFault.BEFORE, False),
        (CommitFault.AFTER, True),
        (CommitFault.SILENT, True),
        (CommitFault.LATE, True),
    ],
)
async def test_a_struck_commit_does_what_the_server_says_of_it(
    proxy: PostgresProxy, database: str, fault: CommitFault, took_effect: bool
) -> None:
    strike = proxy.strike(fault)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await committed(proxy, fault.value)
    if fault is CommitFault.LATE:
        assert await rows(database) == []
        strike.delivered.set()
    async with asyncio.timeout(10):
        assert await strike.outcome is took_effect
    assert await rows(database) == [fault.value] * took_effect
    await committed(proxy, "next")
    assert "next" in await rows(database)


async def test_a_commit_held_back_is_answered_once_it_is_delivered(proxy: PostgresProxy, database: str) -> None:
    strike = proxy.strike(CommitFault.HELD)
    committing = asyncio.create_task(committed(proxy, "held"))
    await strike.seen
    assert await rows(database) == []
    strike.delivered.set()
    await committing
    assert await strike.outcome
    assert await rows(database) == ["held"]


async def test_a_commit_that_finds_its_session_ended_took_no_effect(proxy: PostgresProxy, database: str) -> None:
    strike = proxy.strike(CommitFault.LATE)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await committed(proxy, "late")
    connection = await asyncpg.connect(database)
    await connection.execute(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = $1", SESSION
    )
    await connection.close()
    strike.delivered.set()
    async with asyncio.timeout(10):
        assert not await strike.outcome
    assert await rows(database) == []


async def test_other_sessions_are_left_alone(proxy: PostgresProxy, database: str) -> None:
    strike = proxy.strike(CommitFault.BEFORE)
    await committed(proxy, "other", session="tallygate membership")
    assert await rows(database) == ["other"]
    assert not strike.seen.done()
