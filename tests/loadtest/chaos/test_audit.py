"""The history that Postgres writes of its own, and what is found in it."""

from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest

from loadtest.chaos.audit import Audit, PartitionUpdate, judge
from tests.contracts.benches import RealBench, real_bench
from tests.contracts.checkpoints import PARTITION, cut

COMMIT = PartitionUpdate(0, 2, 2, 5, 6, 100, 110, "b", 42, 42)


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with real_bench(database) as opened:
        yield opened


async def test_what_took_effect_is_on_record_and_a_foreign_commit_stands_out(bench: RealBench, database: str) -> None:
    audit = Audit(database, bench.schema)
    await audit.install()
    roster = await bench.roster()
    term = await roster.take_office("controller", 60.0)
    assert term is not None
    await roster.assign(term, {PARTITION: "a"})
    store = await bench.store()
    claim = await store.claim(PARTITION, "a")
    await store.commit(cut(claim))
    history = judge(await audit.updates())
    assert (history.claims, history.commits, history.stale, history.sentences) == (1, 1, 0, [])
    assert history.owners == {PARTITION: ["a"]}

    stranger = await asyncpg.connect(database)
    taking = f"UPDATE {bench.schema}.partition SET ckpt_seq = ckpt_seq + 1 WHERE partition = {PARTITION}"
    transaction = stranger.transaction()
    await transaction.start()
    await stranger.execute(taking)
    await transaction.rollback()
    assert judge(await audit.updates()).commits == 1, "what was rolled back is no history"
    await stranger.execute(taking)
    await stranger.close()
    history = judge(await audit.updates())
    assert (history.commits, history.stale) == (2, 1)
    assert "committed by session" in history.sentences[0]


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"pid": 7}, "committed by session 7, the owner's is 42"),
        ({"seq": 7}, "the checkpoint before it was 5"),
        ({"seq": 5}, "the checkpoint before it was 5"),
        ({"next_offset": 99}, "went back from offset 100 to 99"),
        ({"epoch": 1}, "the epoch went down from 2"),
    ],
)
def test_what_may_not_be_is_a_sentence(changed: dict[str, int], sentence: str) -> None:
    assert judge([COMMIT]).sentences == []
    history = judge([msgspec.structs.replace(COMMIT, **changed)])
    assert len(history.sentences) == 1
    assert sentence in history.sentences[0]


def test_owners_are_told_in_turn() -> None:
    turns = [("a", 1), ("a", 1), (None, 2), ("b", 3), ("a", 4)]
    updates = [PartitionUpdate(0, epoch, epoch, 1, 1, 9, 9, owner, 1, 1) for owner, epoch in turns]
    assert judge(updates).owners == {0: ["a", "b", "a"]}
