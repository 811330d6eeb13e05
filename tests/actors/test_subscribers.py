"""Who has which plan, from a real database with snapshots that the engine wrote."""

from collections.abc import AsyncIterator

import pytest

from actors.checkpoints import Checkpoints
from actors.ports import AccountRow
from actors.subscribers import NAMES_KEPT, Subscribers, by_plan
from engine.account import Account
from engine.catalog import PriceBook
from engine.snapshot import encode_account
from tests.contracts.benches import RealBench, owned_bench
from tests.contracts.checkpoints import PARTITION, cut


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with owned_bench(database) as opened:
        yield opened


def on(plan: str, name: str) -> AccountRow:
    blob = encode_account(Account(name, plan, "USD", "UTC", 1, 0, PriceBook()))
    return AccountRow(account=name, blob=blob, wake_us=None, balance=0, spend=0, currency="USD")


async def test_accounts_are_counted_by_plan_and_the_first_are_named(bench: RealBench) -> None:
    checkpoints = await bench.started(Checkpoints(bench.dsn, bench.schema))
    assert await by_plan(checkpoints) == {}
    assert await checkpoints.latest_catalogue_version() is None
    store = await bench.store()
    many = [f"acc-{number:02}" for number in range(NAMES_KEPT + 2)]
    await store.commit(
        cut(await store.claim(PARTITION, "a"), accounts=[on("growth", name) for name in many] + [on("starter", "x")])
    )
    await store.claim(PARTITION + 1, "a")
    await store.publish_catalogue(4, b"{}")
    assert await by_plan(checkpoints) == {
        "growth": Subscribers(NAMES_KEPT + 2, many[:NAMES_KEPT]),
        "starter": Subscribers(1, ["x"]),
    }
    assert await checkpoints.latest_catalogue_version() == 4
