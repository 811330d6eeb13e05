"""Shards on ways of their own to the session's servers."""

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from config.stack.kafka import Listener
from loadtest.chaos.links import LinkedShards, linked_shards


@pytest.fixture
async def linked(
    database: str, kafka: str, kafka_listeners: tuple[Listener, ...], tmp_path: Path
) -> AsyncIterator[LinkedShards]:
    """Two shards that own partitions, accounts opened, no load yet."""
    if os.environ.get("KAFKA_BOOTSTRAP_SERVERS"):
        pytest.skip("KAFKA_BOOTSTRAP_SERVERS is set: that broker advertises no proxy of ours, so nothing can be cut")
    async with linked_shards(database, kafka, kafka_listeners, tmp_path) as run:
        yield run
