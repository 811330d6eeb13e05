"""The app on fakes, and callers of it."""

from collections.abc import AsyncIterator

import pytest

from actors.keys import KeyScope
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage
from tests.actors.web.house import House
from tests.contracts.benches import real_bench


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
def client(stage: Stage) -> Client:
    """May everything, for every account."""
    return Client(stage.app, stage.keys.add(*KeyScope))


@pytest.fixture
def bound(stage: Stage) -> Client:
    """May everything, for the account acme."""
    return Client(stage.app, stage.keys.add(*KeyScope, account="acme"))


@pytest.fixture
async def house(database: str) -> AsyncIterator[House]:
    """The app on a real database and a real fold."""
    async with real_bench(database) as bench:
        made = House(bench)
        await made.open()
        yield made


@pytest.fixture
async def sandbox(database: str) -> AsyncIterator[House]:
    """The same, with a clock that an administrator may move."""
    async with real_bench(database) as bench:
        made = House(bench, sandbox=True)
        await made.open()
        yield made
