"""A cut is what changed since the last one, as it stood at one offset, however long its encoding takes."""

from typing import Any

import msgspec
import pytest

from tests.engine.bench import DOLLAR, Bench, Store, random_bench, versions


@pytest.fixture
def bench() -> Bench:
    bench = Bench(*versions())
    assert bench.open() == "applied"
    return bench


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_cut_encoded_slowly_equals_one_encoded_at_once(seed: int) -> None:
    """Copy on write: what is applied after the cut's offset does not enter it."""
    bench, log = random_bench(seed, 150)
    twin = bench.replay()
    at_once, slowly = Store(), Store()
    at_once.checkpoint(twin)
    cut = bench.partition.begin_cut()
    pending = len(log.accounts)
    while not cut.encode(1 if pending % 2 else 0):
        pending -= 1
        for _ in range(15):
            log.step()
        bench.partition.freeze_idle(0, 2)
    bench.partition.end_cut()
    slowly.take(cut)
    assert slowly.blob == at_once.blob
    assert slowly.accounts == at_once.accounts
    assert (slowly.dedup, slowly.commands) == (at_once.dedup, at_once.commands)
    assert (slowly.alerts, slowly.dead_letters) == (at_once.alerts, at_once.dead_letters)

    def order(row: Any) -> list[str]:
        return [str(field) for field in msgspec.structs.astuple(row)]

    assert sorted(slowly.postings, key=order) == sorted(at_once.postings, key=order)
    # And the next cut takes it from there.
    slowly.checkpoint(bench.partition)
    assert slowly.load_into(bench.fresh()).state_bytes() == bench.replay().state_bytes()


def test_a_cut_holds_what_changed_since_the_last_one(bench: Bench) -> None:
    bench.open("other")
    first = Store()
    first.checkpoint(bench.partition)
    assert set(first.accounts) == {"acme", "other"}
    assert bench.partition.dirty_accounts == 0
    bench.use(2)
    bench.use(-1)
    assert bench.partition.dirty_accounts == 1
    second = Store()
    second.checkpoint(bench.partition)
    assert set(second.accounts) == {"acme"}
    assert (second.accounts["acme"].balance, second.accounts["acme"].spend) == (-2 * DOLLAR, 2 * DOLLAR)
    assert [len(segment.entries) for segment in second.dedup] == [20]
    assert [row.reason for row in second.dead_letters] == ["bad_quantity"]
    assert second.commands == []
