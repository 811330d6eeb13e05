"""Drafts in a real database: kept, decided once, and published only as what they are."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from actors.catalogues import PostgresCatalogues
from actors.drafts import DraftDecided, Drafts, DraftUnknown
from actors.ports import CatalogueTaken, StoreRefused
from tests.contracts.benches import RealBench, real_bench


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with real_bench(database) as opened:
        yield opened


@pytest.fixture
async def drafts(bench: RealBench) -> Drafts:
    return await bench.started(Drafts(bench.dsn, bench.schema))


@pytest.fixture
async def catalogues(bench: RealBench) -> PostgresCatalogues:
    return await bench.started(PostgresCatalogues(bench.dsn, bench.schema))


async def test_a_draft_is_no_version_until_it_is_approved(drafts: Drafts, catalogues: PostgresCatalogues) -> None:
    draft = await drafts.add(b"{}", 0, "ann")
    assert (draft.state, draft.created_by, draft.body, draft.version) == ("draft", "ann", b"{}", None)
    assert await catalogues.latest_catalogue_version() is None
    approved = await drafts.approve(draft.draft, "bob", 1, 0)
    assert (approved.state, approved.decided_by, approved.version, approved.effective_us) == ("approved", "bob", 1, 0)
    assert approved.decided_us is not None
    assert approved.decided_us >= approved.created_us > 1_700_000_000_000_000
    assert await catalogues.catalogue(1) == b"{}"
    assert await drafts.get(draft.draft) == approved


async def test_a_draft_is_decided_once(drafts: Drafts, catalogues: PostgresCatalogues) -> None:
    thrown, taken = await drafts.add(b"1", 0, "ann"), await drafts.add(b"2", 0, "ann")
    assert (await drafts.discard(thrown.draft, "bob")).state == "discarded"
    await drafts.approve(taken.draft, "bob", 1, 0)
    for draft in (thrown, taken):
        with pytest.raises(DraftDecided):
            await drafts.approve(draft.draft, "eve", 2, 9)
        with pytest.raises(DraftDecided):
            await drafts.discard(draft.draft, "eve")
    assert (await drafts.get(thrown.draft)).decided_by == "bob"
    assert await catalogues.latest_catalogue_version() == 1


async def test_where_the_version_exists_the_draft_stays_one(drafts: Drafts, catalogues: PostgresCatalogues) -> None:
    draft = await drafts.add(b"mine", 0, "ann")
    await catalogues.publish_catalogue(1, b"theirs")
    with pytest.raises(CatalogueTaken, match="version 1 exists"):
        await drafts.approve(draft.draft, "bob", 1, 0)
    assert (await drafts.get(draft.draft)).state == "draft"
    assert await catalogues.catalogue(1) == b"theirs"


async def test_of_two_who_decide_at_once_one_is_told(bench: RealBench, drafts: Drafts) -> None:
    other = await bench.started(Drafts(bench.dsn, bench.schema))
    draft = await drafts.add(b"{}", 0, "ann")
    outcomes = await asyncio.gather(
        drafts.approve(draft.draft, "bob", 1, 0), other.discard(draft.draft, "eve"), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Draft", "DraftDecided"]


async def test_drafts_are_listed_newest_first_without_bodies(drafts: Drafts) -> None:
    made = [(await drafts.add(b"%d" % number, number, "ann")).draft for number in range(4)]
    assert [draft.draft for draft in await drafts.newest(3, 2**63 - 1)] == made[:0:-1]
    (oldest,) = await drafts.newest(3, made[1])
    assert (oldest.draft, oldest.body, oldest.based_on) == (made[0], None, 0)


async def test_a_draft_that_is_not_there(drafts: Drafts) -> None:
    with pytest.raises(DraftUnknown):
        await drafts.get(7)
    with pytest.raises(DraftUnknown):
        await drafts.approve(7, "bob", 1, 0)
    with pytest.raises(DraftUnknown):
        await drafts.discard(7, "bob")


async def test_not_even_the_engine_s_role_may_change_what_a_draft_says(bench: RealBench, drafts: Drafts) -> None:
    await drafts.add(b"{}", 0, "ann")

    async def forge(connection: object) -> None:
        await connection.execute("UPDATE catalogue_draft SET body = 'other'")  # type: ignore[attr-defined]

    with pytest.raises(StoreRefused, match="permission denied"):
        await drafts._session.transaction(forge)
