"""Shadows in a real database: begun and ended once each, followed by one at a time, and kept as they were told."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from actors.drafts import Drafts
from actors.dryrun import Customer, Takings, Turn
from actors.ports import Fenced
from actors.shadow_store import (
    PART_BYTES,
    SHADOWS_MAX,
    TROUBLE_MAX,
    Active,
    NoShadow,
    PlanTakings,
    ShadowClaim,
    ShadowPartition,
    ShadowRuns,
    Shadows,
    TooManyShadows,
)
from tests.contracts.benches import RealBench, real_bench

BIG = 123_456_789_012_345_678_901_234  # beyond 64 bits
TURN = Turn("rated", "dead_lettered.no_price", 3, 12, 'no price for "x"')


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with real_bench(database) as opened:
        yield opened


@pytest.fixture
async def drafts(bench: RealBench) -> Drafts:
    return await bench.started(Drafts(bench.dsn, bench.schema))


@pytest.fixture
async def shadows(bench: RealBench) -> Shadows:
    return await bench.started(Shadows(bench.dsn, bench.schema))


async def begun(drafts: Drafts, shadows: Shadows) -> Active:
    """A draft and its shadow."""
    draft = await drafts.add(b"{}", 0, "ann")
    await shadows.begin(draft.draft, "bob")
    return (await shadows.active())[-1]


async def followed(shadows: Shadows, shadow: Active, partition: int, base: Path) -> ShadowClaim:
    """A partition that has its first checkpoint."""
    claim = await shadows.claim(shadow, partition, "shadow-0.1")
    assert claim == ShadowClaim(shadow.draft, shadow.life, partition, 1, None, None, None)
    await shadows.put_base(claim, base, 5, 700, 400)
    return claim


def acme(before: int, after: int) -> Customer:
    return Customer("acme", "starter", "USD", Takings(before, after, 2, 1))


async def test_what_is_told_stands_and_is_found_again(drafts: Drafts, shadows: Shadows, tmp_path: Path) -> None:
    shadow = await begun(drafts, shadows)
    assert shadow == Active(shadow.draft, 1, b"{}")
    base, again = tmp_path / "base", tmp_path / "again"
    whole = bytes(range(256)) * (PART_BYTES // 256) * 2 + b"end"
    base.write_bytes(whole)
    claim = await followed(shadows, shadow, 0, base)
    await shadows.advance(claim, 9, 800, [TURN], [acme(BIG, -BIG), Customer("zen", "pro", "EUR", Takings(1, 1, 1, 1))])
    other = await followed(shadows, shadow, 3, base)
    await shadows.advance(other, 5, 900, [], [Customer("bee", "starter", "USD", Takings(1, 3, 1, 1))])
    await shadows.tell_trouble(other, "x" * 1_000)
    found = await shadows.found(shadow.draft, None, 10)
    assert (found.draft, found.started_by, found.stopped_by, found.stopped_us) == (shadow.draft, "bob", None, None)
    assert found.partitions == [
        ShadowPartition(0, 5, 700, 9, 800, [TURN], ""),
        ShadowPartition(3, 5, 700, 5, 900, [], "x" * TROUBLE_MAX),
    ]
    assert found.plans == [
        PlanTakings("pro", "EUR", 1, Takings(1, 1, 1, 1)),
        PlanTakings("starter", "USD", 2, Takings(BIG + 1, 3 - BIG, 3, 2)),
    ]
    assert [each.account for each in found.customers] == ["acme", "bee", "zen"], "the largest differences first"
    assert (await shadows.found(shadow.draft, "zen", 10)).customers == found.customers[2:]
    assert len((await shadows.found(shadow.draft, None, 1)).customers) == 1
    await shadows.advance(claim, 12, 850, [], [acme(5, 6)])
    assert (await shadows.found(shadow.draft, "acme", 1)).customers == [acme(5, 6)]
    # Whoever follows next has the same file, and knows how far the one before it was.
    heir = await shadows.claim(shadow, 0, "shadow-0.2")
    assert heir == ShadowClaim(shadow.draft, 1, 0, 2, 5, 700, 12)
    await shadows.get_base(heir, again)
    assert again.read_bytes() == whole


async def test_who_was_replaced_writes_nothing(drafts: Drafts, shadows: Shadows, tmp_path: Path) -> None:
    shadow = await begun(drafts, shadows)
    base = tmp_path / "base"
    base.write_bytes(b"base")
    old = await shadows.claim(shadow, 0, "a")
    assert old is not None
    new = await shadows.claim(shadow, 0, "b")
    assert new is not None
    with pytest.raises(Fenced, match=f"shadow of draft {shadow.draft}, partition 0: no longer at epoch 1"):
        await shadows.put_base(old, base, 5, 700, 400)
    await shadows.put_base(new, base, 5, 700, 400)
    with pytest.raises(Fenced):
        await shadows.put_base(new, base, 6, 700, 400)  # it has one
    with pytest.raises(Fenced):
        await shadows.advance(old, 9, 800, [], [acme(1, 2)])
    await shadows.tell_trouble(old, "nobody hears it")
    await shadows.advance(new, 9, 800, [], [])
    with pytest.raises(Fenced):
        await shadows.advance(new, 8, 800, [], [])  # nothing is taken back
    (place,) = (await shadows.found(shadow.draft, None, 1)).partitions
    assert (place.next_offset, place.trouble) == (9, "")


async def test_it_is_begun_and_ended_once_and_begun_anew(drafts: Drafts, shadows: Shadows, tmp_path: Path) -> None:
    shadow = await begun(drafts, shadows)
    base = tmp_path / "base"
    base.write_bytes(b"base")
    claim = await followed(shadows, shadow, 0, base)
    await shadows.advance(claim, 9, 800, [], [acme(1, 2)])
    with pytest.raises(ShadowRuns):
        await shadows.begin(shadow.draft, "eve")
    await shadows.end(shadow.draft, "cat")
    with pytest.raises(NoShadow):
        await shadows.end(shadow.draft, "cat")
    found = await shadows.found(shadow.draft, None, 1)
    assert (found.stopped_by, found.customers) == ("cat", [acme(1, 2)])
    assert found.stopped_us is not None and found.stopped_us >= found.started_us
    assert await shadows.active() == [] and await shadows.claim(shadow, 0, "a") is None
    await shadows.begin(shadow.draft, "dan")
    (anew,) = await shadows.active()
    assert anew == replace(shadow, life=2)
    found = await shadows.found(shadow.draft, None, 1)
    assert (found.started_by, found.stopped_by, found.partitions, found.customers) == ("dan", None, [], [])
    assert await shadows.claim(shadow, 0, "a") is None, "of the life before"
    with pytest.raises(Fenced):
        await shadows.advance(claim, 10, 800, [], [])


async def test_so_many_are_followed_at_once(drafts: Drafts, shadows: Shadows) -> None:
    first = await begun(drafts, shadows)
    for _ in range(SHADOWS_MAX - 1):
        await begun(drafts, shadows)
    with pytest.raises(TooManyShadows):
        await begun(drafts, shadows)
    await shadows.end(first.draft, "cat")
    await begun(drafts, shadows)
    with pytest.raises(NoShadow):
        await shadows.found(9_999, None, 1)
