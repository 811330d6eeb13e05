"""Published versions on a real database, as a process sees them that owns no partition."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.catalogues import PostgresCatalogues
from actors.ports import CatalogueTaken
from tests.contracts.benches import RealBench, real_bench


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with real_bench(database) as opened:
        yield opened


@pytest.fixture
async def catalogues(bench: RealBench) -> PostgresCatalogues:
    return await bench.started(PostgresCatalogues(bench.dsn, bench.schema))


async def test_versions_are_added_and_never_changed(bench: RealBench, catalogues: PostgresCatalogues) -> None:
    assert await catalogues.latest_catalogue_version() is None
    await catalogues.publish_catalogue(1, b"{}")
    await catalogues.publish_catalogue(1, b"{}")
    with pytest.raises(CatalogueTaken, match="version 1"):
        await catalogues.publish_catalogue(1, b"{ }")
    assert (await catalogues.latest_catalogue_version(), await catalogues.catalogue(1)) == (1, b"{}")
    assert await catalogues.catalogue(2) is None
    store = await bench.store()
    assert await store.catalogue(1) == b"{}", "a shard loads what was published here"


async def test_of_two_who_publish_at_once_one_is_told(bench: RealBench, catalogues: PostgresCatalogues) -> None:
    other = await bench.started(PostgresCatalogues(bench.dsn, bench.schema))
    outcomes = await asyncio.gather(
        catalogues.publish_catalogue(1, b"a"), other.publish_catalogue(1, b"b"), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["CatalogueTaken", "NoneType"]
