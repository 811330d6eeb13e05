"""The app on fakes, and callers of it."""

import pytest

from actors.keys import KeyScope
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage


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
