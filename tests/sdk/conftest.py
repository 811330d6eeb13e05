from collections.abc import Iterator

import pytest

from tests.sdk.serving import Served, served


@pytest.fixture
def at() -> Iterator[Served]:
    """The service, on fakes, behind a real socket."""
    with served() as running:
        yield running
