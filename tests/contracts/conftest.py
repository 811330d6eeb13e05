"""The database that the suites of store and membership run on: once simulated, once real."""

from collections.abc import AsyncIterator

import pytest

from tests.contracts.benches import Bench, real_bench, sim_bench


@pytest.fixture(params=["simulated", pytest.param("real", marks=pytest.mark.servers)])
def dsn(request: pytest.FixtureRequest) -> str | None:
    """Of a real database, or None."""
    return None if request.param == "simulated" else str(request.getfixturevalue("database"))


@pytest.fixture
async def bench(dsn: str | None) -> AsyncIterator[Bench]:
    """A fresh database for the test."""
    async with sim_bench() if dsn is None else real_bench(dsn) as opened:
        yield opened
