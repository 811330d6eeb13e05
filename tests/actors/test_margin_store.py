"""Checkpoints of the margin in a real Postgres."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from actors import margin_store
from actors.margin_store import BucketSum, MarginCheckpoint, MarginClaim, MarginStatus, MarginStore
from actors.migrations import migrate
from actors.ports import Fenced
from actors.records import Records
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import RUN_KEPT_US, By, Key, Margin, RowChange
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn

SCHEMA = "margin_store"
ACME = Key(5 * HOUR_US, "acme", "m", "chat", "growth", "USD")
ZEN = Key(5 * HOUR_US, "zen", "m", "", "growth", "USD")
LATER = Key(6 * HOUR_US, "acme", "m", "chat", "", "USD")
BIG = 123_456_789_012_345_678_901_234  # beyond 64 bits


@pytest.fixture
async def store(database: str) -> AsyncIterator[MarginStore]:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    made = MarginStore(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await made.start()
    yield made
    await made.stop()


def checkpoint(
    claim: MarginClaim, partition: int, rows: dict[Key, Margin], seq: int = 1, runs_from_us: int = 0
) -> MarginCheckpoint:
    changes = [RowChange(key, sums) for key, sums in rows.items()]
    return MarginCheckpoint(partition, claim.epoch, claim.ckpt_seq + seq, 7, (3, 4), HOUR_US, 5, runs_from_us, changes)


async def test_a_checkpoint_is_found_again_by_the_next_owner(store: MarginStore) -> None:
    first = await store.claim(1, "a")
    assert first == MarginClaim(1, 0, 0, (), 0)
    rows = {ACME: Margin(BIG, -BIG, 1, 2, 3, 4, foreign_cost=5), ZEN: Margin(7, requests=1), LATER: Margin(1)}
    await store.commit([checkpoint(first, 1, rows)])
    second = await store.claim(1, "b")
    assert second == MarginClaim(2, 1, 7, (3, 4), HOUR_US)
    assert dict(await store.rows(1, 0)) == rows
    assert await store.rows(1, 6 * HOUR_US) == [(LATER, Margin(1))]
    assert MarginStatus(1, 2, 1, 7, (3, 4), HOUR_US, "b") in await store.statuses()
    await store.commit([checkpoint(second, 1, {ZEN: Margin()})])
    assert dict(await store.rows(1, 0))[ZEN] == Margin()
    await store.commit([checkpoint(second, 1, {ACME: Margin(), LATER: Margin()}, seq=2)])


async def test_rows_of_runs_are_kept_beside_the_others(store: MarginStore) -> None:
    claim = await store.claim(5, "a")
    long_ago, late = 5 * HOUR_US + RUN_KEPT_US, 900_000 * HOUR_US
    of_run, other = replace(ACME, run="talk-1"), replace(ACME, run="talk-2", hour_us=late)
    rows = {
        ACME: Margin(5, 3, 1),
        of_run: Margin(5, 3, 1, charges=1, costs=2, foreign_cost=6),
        other: Margin(2, requests=1),
    }
    await store.commit([checkpoint(claim, 5, rows)])
    assert dict(await store.rows(5, 0)) == rows
    assert dict(await store.rows(5, long_ago)) == {of_run: rows[of_run], other: rows[other]}
    assert await store.rows(5, long_ago + HOUR_US) == [(other, rows[other])]
    await store.commit([checkpoint(claim, 5, {of_run: Margin(0, 3, 1, charges=2, costs=2)}, seq=2)])
    sums = await store.sums(late, late + HOUR_US, [By.ACCOUNT, By.RUN])
    assert sums == [(Key(0, "acme", "", "", "", "USD", "", "talk-2"), Margin(2, requests=1))]


async def test_rows_of_runs_are_dropped_when_they_are_old_enough_some_at_a_time(
    store: MarginStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(margin_store, "DROPPED_MAX", 2)
    ours, theirs = await store.claim(6, "a"), await store.claim(7, "a")
    old = {replace(ACME, run=f"talk-{number}"): Margin(5, 3, 1) for number in range(5)}
    kept = {ACME: Margin(25, 15, 5), replace(LATER, run="talk-0"): Margin(1)}
    await store.commit([checkpoint(ours, 6, old | kept)])
    await store.commit([checkpoint(theirs, 7, old)])
    left = []
    for seq in (2, 3, 4):
        await store.commit([checkpoint(ours, 6, {}, seq, runs_from_us=6 * HOUR_US)])
        left.append(len(await store.rows(6, 0)))
    assert left == [5, 3, 2]
    assert dict(await store.rows(6, 0)) == kept, "what an hour came to in all is kept, and so are later hours"
    assert dict(await store.rows(7, 0)) == old, "another partition's are its owner's to drop"


async def test_who_was_replaced_writes_nothing(store: MarginStore) -> None:
    old = await store.claim(3, "a")
    new = await store.claim(3, "b")
    with pytest.raises(Fenced, match="margin of partition 3: no longer at epoch 1"):
        await store.commit([checkpoint(old, 3, {ACME: Margin(10)})])
    assert await store.rows(3, 0) == []
    await store.commit([checkpoint(new, 3, {})])
    with pytest.raises(Fenced):
        await store.commit([checkpoint(new, 3, {})])  # the same checkpoint a second time


async def test_sums_are_told_apart_by_what_is_asked(store: MarginStore, database: str) -> None:
    two, three = await store.claim(12, "a"), await store.claim(13, "a")
    key = Key(900 * HOUR_US, "acme", "m", "chat", "growth", "USD")
    zen = Key(901 * HOUR_US, "zen", "m", "", "growth", "USD")
    await store.commit([checkpoint(two, 12, {key: Margin(10, 4, 1)})])
    await store.commit([checkpoint(three, 13, {zen: Margin(BIG, 1, 1, 1)})])
    whole = await store.sums(900 * HOUR_US, 902 * HOUR_US, ())
    assert whole == [(Key(0, "", "", "", "", "USD"), Margin(BIG + 10, 5, 2, 1))]
    apart = await store.sums(900 * HOUR_US, 902 * HOUR_US, [each for each in By if each not in (By.REQUEST, By.RUN)])
    assert [each for each, _ in apart] == [key, zen]
    assert await store.sums(901 * HOUR_US, 902 * HOUR_US, [By.PLAN]) == [
        (Key(0, "", "", "", "growth", "USD"), Margin(BIG, 1, 1, 1))
    ]
    assert len(await store.sums(900 * HOUR_US, 902 * HOUR_US, [By.HOUR], limit=1)) == 1
    # 37 days and 12 hours are 900 hours.
    (day,) = await store.sums(900 * HOUR_US, 902 * HOUR_US, (), by_day=True)
    assert day == (Key(37 * 24 * HOUR_US, "", "", "", "", "USD"), Margin(BIG + 10, 5, 2, 1))
    records = Records(engine_dsn(database), SCHEMA, 4)
    await records.start()
    try:
        found = await records.margins(900 * HOUR_US, 902 * HOUR_US, [By.ACCOUNT], "zen", 10)
        assert found == [(Key(0, "zen", "", "", "", "USD"), Margin(BIG, 1, 1, 1))]
        assert await records.gpu_buckets(0, 902 * HOUR_US) == []
    finally:
        await records.stop()
    assert BucketSum("direct", "USD", 1, 0).amount == 1


async def test_nothing_of_cost_has_closed_where_nobody_attributes_any(store: MarginStore) -> None:
    assert await store.costs_closed_us() == 0
