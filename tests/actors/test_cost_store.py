"""Checkpoints of cost attribution in a real Postgres."""

from collections.abc import AsyncIterator

import msgspec
import pytest

from actors import cost_store
from actors.cost_store import CostCheckpoint, CostClaim, CostLetter, CostStatus, CostStore
from actors.migrations import migrate
from actors.ports import Fenced, LastRecord
from engine.cost.gpu_rates import HOUR_US
from engine.cost.rollup import Key, RowChange, Sums
from engine.cost.window import Bucket
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn

SCHEMA = "cost_store"
ACME = Key(5 * HOUR_US, "r", "m", Bucket.DIRECT, "acme", "chat")
NOBODY = Key(5 * HOUR_US, "r", "m", Bucket.DIRECT)
IDLE = Key(6 * HOUR_US, "r", "m", Bucket.HARD_IDLE)


@pytest.fixture
async def store(database: str) -> AsyncIterator[CostStore]:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    made = CostStore(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await made.start()
    yield made
    await made.stop()


def checkpoint(
    claim: CostClaim, partition: int, *rows: RowChange, seq: int = 1, changes_from_us: int = 0
) -> CostCheckpoint:
    return CostCheckpoint(
        partition=partition,
        epoch=claim.epoch,
        ckpt_seq=claim.ckpt_seq + seq,
        next_offset=7,
        last=LastRecord(6, 123, b"d" * 16),
        blob=b"blob",
        settled_us=6 * HOUR_US,
        closed_us=HOUR_US,
        settled_before_us=6 * HOUR_US,
        changes_from_us=changes_from_us,
        currency="USD",
        rows=rows,
        letters=[CostLetter(5, "malformed", "a NUL \x00", b"k", None)],
    )


async def test_a_checkpoint_is_found_again_by_the_next_owner(store: CostStore) -> None:
    first = await store.claim(1, "a")
    assert first == CostClaim(1, 0, 0, None, None)
    big = 123_456_789_012_345_678_901_234  # beyond 64 bits
    rows = [
        RowChange(ACME, Sums(big, 1, 2, 3, 4, 5), big),
        RowChange(NOBODY, Sums(-1), -1),
        RowChange(IDLE, Sums(7), 7),
    ]
    await store.commit([checkpoint(first, 1, *rows)])
    second = await store.claim(1, "b")
    assert second == CostClaim(2, 1, 7, LastRecord(6, 123, b"d" * 16), b"blob", 6 * HOUR_US)
    assert sorted(await store.rows(1, 0), key=str) == sorted([(row.key, row.sums) for row in rows], key=str)
    assert await store.rows(1, 6 * HOUR_US) == [(IDLE, Sums(7))]
    assert await store.rows(2, 0) == []
    assert CostStatus(1, 2, 1, 7, 6 * HOUR_US, HOUR_US, "b") in await store.statuses()
    ((partition, letter),) = await store.dead_letters(1)
    assert (partition, letter.offset, letter.reason) == (1, 5, "malformed")


async def test_differences_sum_to_the_row(store: CostStore) -> None:
    claim = await store.claim(2, "a")
    await store.commit([checkpoint(claim, 2, RowChange(ACME, Sums(10), 10))])
    await store.commit([checkpoint(claim, 2, RowChange(ACME, Sums(4), -6), seq=2)])
    assert await store.change_sums(2) == {ACME: 4}
    assert await store.rows(2, 0) == [(ACME, Sums(4))]


async def test_differences_are_dropped_when_they_are_old_enough_some_at_a_time(
    store: CostStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cost_store, "DROPPED_MAX", 2)
    ours, theirs = await store.claim(7, "a"), await store.claim(8, "a")
    old = [RowChange(msgspec.structs.replace(ACME, account=f"c-{number}"), Sums(5), 5) for number in range(5)]
    await store.commit([checkpoint(ours, 7, *old, RowChange(IDLE, Sums(7), 7))])
    await store.commit([checkpoint(theirs, 8, *old)])
    left = []
    for seq in (2, 3, 4, 5):
        await store.commit([checkpoint(ours, 7, seq=seq, changes_from_us=IDLE.hour_us)])
        left.append(len(await store.change_sums(7)))
    assert left == [4, 2, 1, 1]
    assert await store.change_sums(7) == {IDLE: 7}
    assert len(await store.rows(7, 0)) == 6, "what they came to is kept"
    assert len(await store.change_sums(8)) == 5, "another partition's are its owner's to drop"


async def test_who_was_replaced_writes_nothing(store: CostStore) -> None:
    old = await store.claim(3, "a")
    new = await store.claim(3, "b")
    with pytest.raises(Fenced, match="epoch 1"):
        await store.commit([checkpoint(old, 3, RowChange(ACME, Sums(10), 10))])
    assert await store.rows(3, 0) == []
    await store.commit([checkpoint(new, 3, RowChange(ACME, Sums(10), 10))])
    with pytest.raises(Fenced):  # the same one again
        await store.commit([checkpoint(new, 3, RowChange(ACME, Sums(20), 10))])
    assert await store.rows(3, 0) == [(ACME, Sums(10))]


async def test_checkpoints_of_several_partitions_are_written_together_or_not_at_all(store: CostStore) -> None:
    one, other = await store.claim(5, "a"), await store.claim(6, "a")
    cuts = [checkpoint(one, 5, RowChange(ACME, Sums(1), 1)), checkpoint(other, 6, RowChange(ACME, Sums(2), 2))]
    await store.commit(cuts)
    assert [await store.rows(number, 0) for number in (5, 6)] == [[(ACME, Sums(1))], [(ACME, Sums(2))]]
    await store.claim(6, "b")
    later = [checkpoint(one, 5, RowChange(ACME, Sums(9), 8), seq=2), checkpoint(other, 6, seq=2)]
    with pytest.raises(Fenced, match="partition 6"):
        await store.commit(later)
    assert await store.rows(5, 0) == [(ACME, Sums(1))]
    await store.commit(later[:1])


async def test_sums_are_by_what_is_asked_for(store: CostStore) -> None:
    claim = await store.claim(4, "a")
    far = 100 * HOUR_US
    acme, zen = (msgspec.structs.replace(ACME, hour_us=far, account=account) for account in ("acme", "zen"))
    idle = msgspec.structs.replace(IDLE, hour_us=far + HOUR_US)
    rows = (RowChange(acme, Sums(10, 0, 1, 2, 3, 4), 10), RowChange(zen, Sums(5, 1), 5), RowChange(idle, Sums(7), 7))
    await store.commit([checkpoint(claim, 4, *rows)])
    by_account = await store.sums(far, far + 2 * HOUR_US, by=["account"])
    assert [(found.account, found.bucket, found.amount, found.unknown, found.requests) for found in by_account] == [
        ("", "hard_idle", 7, 0, 0),
        ("acme", "direct", 10, 0, 1),
        ("zen", "direct", 5, 1, 0),
    ]
    by_hour = await store.sums(far, far + HOUR_US, by=["hour", "model"])
    assert [(found.hour_us, found.model, found.amount) for found in by_hour] == [(far, "m", 15)]
