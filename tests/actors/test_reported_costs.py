"""Reported costs beside computed ones, in a real Postgres."""

from collections.abc import AsyncIterator

import pytest
from msgspec.structs import replace

from actors.migrations import migrate
from actors.reported_costs import Gap, ReportedCost, ReportedCosts
from engine.cost.gpu_rates import HOUR_US
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn

SCHEMA = "reported_costs"
DAY_US = 20_000 * 24 * HOUR_US
COST = ReportedCost("gateway", "req-1", "openai", "gpt-4o", DAY_US + 5, "USD", 125, 130)


@pytest.fixture
async def reported(database: str) -> AsyncIterator[ReportedCosts]:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    made = ReportedCosts(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await made.start()
    yield made
    await made.stop()


async def test_gaps_are_of_what_is_known_of_both_and_what_is_recorded_again_replaces(reported: ReportedCosts) -> None:
    costs = [
        COST,
        replace(COST, id="req-2", reported=125),
        replace(COST, id="req-3", reported=None),
        replace(COST, id="req-4", computed=None, reported=9),
        replace(COST, id="req-5", time_us=DAY_US + 24 * HOUR_US),
        replace(COST, source="other", currency="EUR", reported=100),
    ]
    assert await reported.record([*costs, COST]) == 6
    found = await reported.gaps(DAY_US, DAY_US + 48 * HOUR_US, 9)
    euro, today, tomorrow = sorted(found, key=lambda gap: (gap.day_us, gap.currency))
    assert today == Gap("openai", "gpt-4o", "USD", DAY_US, 4, 1, 1, 375, 264, 5, 1)
    assert (euro.currency, euro.gap) == ("EUR", -25)
    assert (tomorrow.day_us, tomorrow.requests) == (DAY_US + 24 * HOUR_US, 1)
    await reported.record([replace(COST, computed=130)])
    (again,) = [gap for gap in await reported.gaps(DAY_US, DAY_US + HOUR_US, 9) if gap.currency == "USD"]
    assert (again.requests, again.gap, again.differing) == (4, 0, 0)
    assert len(await reported.gaps(DAY_US, DAY_US + 48 * HOUR_US, 1)) == 1
