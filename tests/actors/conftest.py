"""The stage on which shards are tested without any server."""

from collections.abc import AsyncIterator

import pytest

from tests.actors.shard_rig import Rig


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    """Two partitions, a broker, a database; everything that runs on it is broken off at the end."""
    made = Rig()
    yield made
    await made.close()
