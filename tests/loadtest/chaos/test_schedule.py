"""The order of the kills follows from the seed, and holds every kind."""

from collections import Counter

from loadtest.chaos.schedule import SHARES, plan


def test_the_same_seed_gives_the_same_order() -> None:
    assert plan(50, 7) == plan(50, 7)
    assert plan(50, 7) != plan(50, 8)


def test_a_run_holds_every_kind_as_soon_as_there_is_room() -> None:
    for kills in (len(SHARES), 20, 100):
        counts = Counter(plan(kills, 1))
        assert counts.total() == kills
        assert set(counts) == set(SHARES)
    assert len(plan(3, 1)) == 3


def test_kinds_can_be_chosen() -> None:
    assert {kill.kind for kill in plan(5, 1, ("raylet", "driver"))} == {"raylet", "driver"}


def test_the_kinds_are_mixed_by_their_shares() -> None:
    counts = Counter(plan(10_000, 1))
    total = sum(SHARES.values())
    for kind, share in SHARES.items():
        assert abs(counts[kind] / 10_000 - share / total) < 0.03
