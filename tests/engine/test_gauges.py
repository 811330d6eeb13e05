"""Levels: which holds when, what is kept of them, what an accrual and a late one make of a gauge."""

import pytest

from engine import gauges
from engine.catalog import TOO_OLD_US
from engine.gauges import Gauge, Point, TooManyPoints
from engine.money import NANO
from tests.engine.bench import START


def gauge(*points: tuple[int, int], accrued: int = START) -> Gauge:
    """Of levels told at times relative to now, charged as far as they go."""
    (first, *more) = [Point(START + at, "s", str(number), level * NANO) for number, (at, level) in enumerate(points)]
    kept = Gauge((), "", 1, (first,))
    for point in more:
        kept = kept.with_point(point)
    return kept.at(accrued, 0)


def steps(kept: Gauge, since: int = -(10**9)) -> list[tuple[int, int, int]]:
    return [(begin - START, end - START, weight // NANO) for begin, end, weight in kept.steps(START + since)]


def test_a_level_holds_until_the_next_one_whatever_order_they_are_told_in() -> None:
    expected = [(-90, -60, 2), (-60, -30, 0), (-30, 0, 5)]
    assert steps(gauge((-90, 2), (-60, 0), (-30, 5))) == expected
    assert steps(gauge((-30, 5), (-90, 2), (-60, 0))) == expected


def test_the_newest_level_goes_to_the_accrual_and_no_less_far_than_its_own_time() -> None:
    assert steps(gauge((-90, 2), accrued=START + 7)) == [(-90, 7, 2)]
    assert steps(gauge((-90, 2), (20, 3), accrued=START + 7)) == [(-90, 20, 2), (20, 20, 3)]


def test_one_at_nothing_goes_no_further_and_ends() -> None:
    kept = gauge((-90, 2), (-60, 0))
    assert not kept.is_open and kept.end_us == START - 60
    assert not kept.is_gone(START - 60 + TOO_OLD_US) and kept.is_gone(START - 59 + TOO_OLD_US)
    assert not gauge((-90, 2)).is_gone(START + 2 * TOO_OLD_US), "what holds something comes to more for ever"


def test_of_equal_times_the_greater_identity_holds() -> None:
    kept = Gauge((), "", 1, (Point(START, "b", "1", 1),))
    for source, event_id, level in (("a", "9", 2), ("b", "2", 3), ("b", "0", 4)):
        kept = kept.with_point(Point(START, source, event_id, level))
    assert [point.level for point in kept.points] == [2, 4, 1, 3]


def test_only_what_may_have_changed_is_looked_at() -> None:
    """From the level on that held before an instant."""
    kept = gauge((-90, 2), (-60, 0), (-30, 5))
    assert steps(kept, -60) == [(-90, -60, 2), (-60, -30, 0), (-30, 0, 5)]
    assert steps(kept, -59) == [(-60, -30, 0), (-30, 0, 5)]
    assert steps(kept, 10) == [(-30, 0, 5)]


def test_levels_that_none_can_come_before_are_dropped_but_for_the_one_that_holds() -> None:
    kept = gauge((-90, 2), (-60, 1), (-30, 5))
    assert kept.kept(START - 60 + TOO_OLD_US) is kept
    cut = kept.kept(START - 59 + TOO_OLD_US)
    assert cut.is_cut and steps(cut) == [(-60, -30, 1), (-30, 0, 5)]


def test_so_many_levels_are_kept_and_an_older_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gauges, "POINTS_MAX", 2)
    kept = gauge((-90, 2), (-60, 1), (-30, 5)).kept(START)
    assert steps(kept) == [(-60, -30, 1), (-30, 0, 5)]
    with pytest.raises(TooManyPoints, match="older than the last 2"):
        kept.with_point(Point(START - 61, "s", "late", NANO))
    assert len(kept.with_point(Point(START - 59, "s", "late", NANO)).points) == 3
