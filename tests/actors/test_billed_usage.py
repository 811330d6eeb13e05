"""A provider's bill in a real Postgres, beside what cost actors wrote there."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from actors.billed_usage import BilledUsages, Imported, TooMuchBilled
from actors.cost_store import CostStore
from actors.migrations import migrate
from engine.cost.billed import ListPrice, RecordType
from engine.cost.gpu_rates import HOUR_US
from engine.cost.rollup import Key, RowChange, Sums
from engine.cost.window import Bucket
from engine.money import PICO
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn
from tests.actors.test_cost_store import checkpoint
from tests.engine.cost.test_billed import ONE, PRICE, USAGE, H

SCHEMA = "billed_usage"


@pytest.fixture
async def costs(database: str) -> AsyncIterator[CostStore]:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    made = CostStore(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def billed(database: str, costs: CostStore) -> AsyncIterator[BilledUsages]:
    made = BilledUsages(engine_dsn(database), SCHEMA, 1.2, 5.0, costs)
    await made.start()
    yield made
    await made.stop()


async def test_a_bill_is_taken_in_once_and_held_against_our_costs(billed: BilledUsages, costs: CostStore) -> None:
    claim = await costs.claim(0, "a")
    shares = {
        Key(H, "r", "atlas", Bucket.DIRECT, "acme", "chat"): 4 * PICO,
        Key(H, "r", "atlas", Bucket.HARD_IDLE): 2 * PICO,
        Key(H, "r", "atlas", Bucket.OVERHEAD): 9 * PICO,  # no provider of GPUs bills it
    }
    await costs.commit(
        [checkpoint(claim, 0, *(RowChange(key, Sums(amount), amount) for key, amount in shares.items()))]
    )
    many_digits = replace(USAGE, record="r-9", begin_us=H + HOUR_US, end_us=H + 2 * HOUR_US, quantity=ONE + 1)
    assert await billed.take_in([USAGE, many_digits], [PRICE]) == Imported(2, 0, [], 1)
    assert await billed.take_in([USAGE, USAGE], []) == Imported(0, 1, [], 0)
    assert await billed.take_in([replace(USAGE, quantity=1)], []) == Imported(0, 0, ["r-1"], 0)
    found = await billed.reconciled(H, H + HOUR_US, "USD", {"large": "atlas"})
    assert [(each.endpoint, each.billed, each.ours, each.delta) for each in found.hours] == [
        ("large", 7 * PICO, 6 * PICO, PICO)
    ]
    # Not named, endpoint and model are strangers; both are shown.
    apart = await billed.reconciled(H, H + HOUR_US, "USD", {})
    assert [(each.endpoint, each.billed, each.ours) for each in apart.hours] == [
        ("atlas", 0, 6 * PICO),
        ("large", 7 * PICO, 0),
    ]
    # What comes to be corrected and the price that ends are seen at the next look.
    corrections = [
        replace(USAGE, record="r-2", quantity=-100 * ONE, type=RecordType.RETRACTION),
        replace(USAGE, record="r-3", quantity=50 * ONE, type=RecordType.RESTATEMENT),
    ]
    until = replace(PRICE, until_us=H + 9 * HOUR_US)
    later = ListPrice(PRICE.sku, PRICE.unit, "USD", H + 9 * HOUR_US, None, 9 * ONE)
    assert await billed.take_in(corrections, [until, later]) == Imported(2, 0, [], 2)
    (hour,) = (await billed.reconciled(H, H + HOUR_US, "USD", {"large": "atlas"})).hours
    assert (hour.billed, hour.corrected, hour.delta) == (35 * PICO // 10, -35 * PICO // 10, -25 * PICO // 10)
    (hour,) = (await billed.reconciled(H + HOUR_US, H + 2 * HOUR_US, "USD", {"large": "atlas"})).hours
    assert hour.billed == 7 * PICO // 100, "18 digits are kept, and rounded once"


async def test_of_too_many_records_none_are_read(billed: BilledUsages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.billed_usage.RECORDS_MAX", 0)
    await billed.take_in([USAGE], [])
    with pytest.raises(TooMuchBilled):
        await billed.reconciled(H, H + HOUR_US, "USD", {})


async def test_our_costs_in_another_currency_are_not_known_in_that_of_the_bill(
    billed: BilledUsages, costs: CostStore
) -> None:
    """They are not 0: all of the bill would be a difference."""
    claim = await costs.claim(1, "a")
    key = Key(H + 7 * HOUR_US, "r", "atlas", Bucket.DIRECT, "acme", "chat")
    await costs.commit([checkpoint(claim, 1, RowChange(key, Sums(4 * PICO), 4 * PICO))])
    stretch = {"begin_us": H + 7 * HOUR_US, "end_us": H + 8 * HOUR_US}
    usage = replace(USAGE, record="r-eur", sku="SERVING_EU", **stretch)
    await billed.take_in([usage], [replace(PRICE, sku="SERVING_EU", currency="EUR")])
    found = await billed.reconciled(H + 7 * HOUR_US, H + 8 * HOUR_US, "EUR", {"large": "atlas"})
    assert [(each.endpoint, each.billed, each.ours, each.delta) for each in found.hours] == [
        ("large", 7 * PICO, None, None)
    ]
    assert found.faults == ["model atlas: our rates are in USD and not in EUR"]
