"""Whole checkpoints from a real database: of one moment, whatever is committed meanwhile, and never written."""

from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import pytest
from msgspec.structs import replace

from actors import checkpoints as module
from actors.checkpoints import Checkpoints, Posted, StoredCheckpoint
from actors.ports import Claim, Head, LastRecord, StoreRefused, StoreUnavailable, record_digest
from actors.postgres import PostgresStore
from tests.contracts.benches import RealBench, owned_bench
from tests.contracts.checkpoints import PARTITION, account, alert, command, cut, dead_letter, posting, segment


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with owned_bench(database) as opened:
        yield opened


@pytest.fixture
async def store(bench: RealBench) -> PostgresStore:
    return await bench.store()


@pytest.fixture
async def claim(store: PostgresStore) -> Claim:
    return await store.claim(PARTITION, "a")


@pytest.fixture
async def checkpoints(bench: RealBench) -> Checkpoints:
    return await bench.started(Checkpoints(bench.dsn, bench.schema))


async def test_all_of_a_checkpoint_is_read_in_pieces(
    store: PostgresStore, claim: Claim, checkpoints: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PIECE_ROWS", 2)
    rows = [account(f"cus_{number}", balance=-(10**20)) for number in range(5)]
    await store.publish_catalogue(1, b"{}")
    await store.commit(
        cut(
            claim,
            accounts=rows,
            dedup=[segment(2, 20), segment(3, 30, 31)],
            commands=[
                command(5, "k5", 500),
                command(6, "k6", 600),
                replace(command(7, "k7", 700), kind="set_plan"),
                replace(command(8, "k8", 800), kind="set_plan", answer="bad_start"),
            ],
            postings=[posting(-1), posting(-2), posting(7, "lot-2")],
            alerts=[alert("alert_b", 2), alert("alert_a", 1)],
            dead_letters=[dead_letter(7), dead_letter(8, "engine_error")],
        )
    )

    async def work(stored: StoredCheckpoint) -> None:
        last = LastRecord(9, 1_750_000_000_001, record_digest(b"key", b"value"))
        assert stored.head == Head(PARTITION, claim.epoch, 1, 10, last, b"partition state 1")
        pieces = [piece async for piece in stored.accounts()]
        assert [len(piece) for piece in pieces] == [2, 2, 1]
        assert [row for piece in pieces for row in piece] == rows
        assert [found async for found in stored.dedup()] == [segment(2, 20), segment(3, 30, 31)]
        assert [row.offset for piece in [p async for p in stored.remembered_commands(600)] for row in piece] == [
            6,
            7,
            8,
        ]
        assert [row.offset for row in await stored.commands(5)] == [5, 6, 7, 8]
        assert await stored.engine_errors() == [8]
        assert await stored.postings() == [
            Posted("acme", "lot-1", "paid", "burn", 1, 2, -3, 1, 1),
            Posted("acme", "lot-2", "paid", "burn", 1, 2, 7, 1, 1),
        ]
        assert await stored.plan_changes() == [("acme", 700)]
        assert [row.alert_id for row in await stored.alerts()] == ["alert_a", "alert_b"]
        assert [(row.offset, row.reason) for row in await stored.dead_letters()] == [
            (7, "malformed"),
            (8, "engine_error"),
        ]
        assert await stored.catalogue(1) == b"{}"
        assert await stored.catalogue(2) is None

    await checkpoints.read(PARTITION, work)
    assert await checkpoints.partitions() == [PARTITION]
    assert await checkpoints.catalogue(1) == b"{}"


async def test_what_is_committed_meanwhile_is_not_seen(
    store: PostgresStore, claim: Claim, checkpoints: Checkpoints
) -> None:
    await store.commit(cut(claim, accounts=[account("acme", b"one")]))

    async def work(stored: StoredCheckpoint) -> tuple[int, list[bytes]]:
        await store.commit(
            cut(
                claim,
                claim.ckpt_seq + 2,
                accounts=[account("acme", b"two"), account("b")],
                dead_letters=[dead_letter(7)],
            )
        )
        assert await stored.dead_letters() == []
        return stored.head.next_offset, [row.blob async for rows in stored.accounts() for row in rows]

    assert await checkpoints.read(PARTITION, work) == (10, [b"one"])

    async def after(stored: StoredCheckpoint) -> int:
        return stored.head.next_offset

    assert await checkpoints.read(PARTITION, after) == 20


async def test_nothing_can_be_written(claim: Claim, checkpoints: Checkpoints) -> None:
    async def work(stored: StoredCheckpoint) -> None:
        await stored._connection.execute("UPDATE partition SET next_offset = 0")

    with pytest.raises((StoreRefused, StoreUnavailable), match="read-only"):
        await checkpoints.read(PARTITION, work)


async def test_a_partition_that_was_never_claimed_is_a_key_error(checkpoints: Checkpoints) -> None:
    async def work(_: StoredCheckpoint) -> None: ...

    with pytest.raises(KeyError):
        await checkpoints.read(PARTITION, work)


async def test_a_lost_session_is_opened_anew(bench: RealBench, claim: Claim, checkpoints: Checkpoints) -> None:
    admin = await asyncpg.connect(bench.owner_dsn)
    try:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'tallygate checkpoints'"
        )
    finally:
        await admin.close()
    with suppress(StoreUnavailable):  # unless the client has noticed by then
        await checkpoints.partitions()
    assert await checkpoints.partitions() == [PARTITION]
