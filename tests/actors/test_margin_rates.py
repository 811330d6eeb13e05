"""Rates between currencies in a real Postgres."""

from collections.abc import AsyncIterator

import pytest

from actors.margin_rates import PostgresRates
from actors.migrations import migrate
from engine.cost.exchange import KEPT_DAYS, NoRate, Rate
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn

SCHEMA = "margin_rates"
EURO = Rate(20_000, "USD", "EUR", 920_000_000_001)


@pytest.fixture
async def rates(database: str) -> AsyncIterator[PostgresRates]:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    made = PostgresRates(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await made.start()
    yield made
    await made.stop()


async def test_a_rate_is_recorded_replaced_and_removed(rates: PostgresRates) -> None:
    yen = Rate(20_001, "USD", "JPY", 151 * 10**12)
    for rate in (Rate(20_000, "USD", "EUR", 7), EURO, yen):
        await rates.put(rate)
    found = await rates.recorded(20_000, 20_001, None)
    assert [each.rate for each in found] == [yen, EURO]
    assert [each.rate for each in await rates.recorded(20_000, 20_001, "EUR")] == [EURO]
    assert [each.rate for each in await rates.recorded(0, 30_000, None, limit=1)] == [yen]
    assert await rates.remove(20_001, "USD", "JPY")
    assert not await rates.remove(20_001, "USD", "JPY")


async def test_whoever_converts_has_the_rates_of_a_week_before_too(rates: PostgresRates) -> None:
    await rates.put(EURO)
    last = EURO.day + KEPT_DAYS
    assert (await rates.into("EUR", last, last)).of(last, "USD", "EUR") == EURO
    with pytest.raises(NoRate):
        (await rates.into("EUR", last + 1, last + 1)).of(last + 1, "USD", "EUR")
    with pytest.raises(NoRate):
        (await rates.into("JPY", last, last)).of(last, "USD", "EUR")
