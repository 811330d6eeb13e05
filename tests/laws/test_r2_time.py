"""Law R2: an event is rated in the period and version in force at its own time; intervals are half-open."""

from datetime import datetime

import pytest

from engine.catalog import (
    CatalogueDocument,
    MeterDefinition,
    PlanDefinition,
    PriceBook,
    PriceDefinition,
    compile_catalogue,
)
from engine.periods import EPOCH, MICROSECOND, month_around


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


def starts(zone: str, anchor_day: int, first: str, count: int) -> list[str]:
    """The starts of successive periods, as UTC text."""
    found = []
    instant, _ = month_around(zone, anchor_day, us(first))
    for _ in range(count):
        found.append((EPOCH + instant * MICROSECOND).strftime("%Y-%m-%dT%H:%M"))
        _, instant = month_around(zone, anchor_day, instant)
    return found


def test_an_anchor_of_31_comes_back_after_a_short_month() -> None:
    """The day is min(anchor, length of the month), always from the original anchor."""
    assert starts("UTC", 31, "2024-01-31T00:00:00+00:00", 5) == [
        "2024-01-31T00:00",
        "2024-02-29T00:00",
        "2024-03-31T00:00",
        "2024-04-30T00:00",
        "2024-05-31T00:00",
    ]


def test_a_midnight_in_a_gap_moves_forward() -> None:
    """Where the clock jumps over midnight, the period starts at the first instant that exists: Beirut, 31 March 2024."""
    assert starts("Asia/Beirut", 31, "2024-03-31T12:00:00+00:00", 2) == ["2024-03-30T22:00", "2024-04-29T21:00"]
    assert starts("America/Sao_Paulo", 4, "2018-11-04T12:00:00+00:00", 1) == ["2018-11-04T03:00"]


def test_a_day_that_never_was_starts_where_the_clock_jumped() -> None:
    """Samoa went from 29 to 31 December 2011 in one step; a period anchored on the 30th starts at that step."""
    assert starts("Pacific/Apia", 30, "2011-12-30T11:00:00+00:00", 1) == ["2011-12-30T10:00"]


def test_a_midnight_that_comes_twice_counts_the_first_time() -> None:
    """In an overlap the first of the two midnights starts the period: Havana, 3 November 2024."""
    assert starts("America/Havana", 3, "2024-11-03T12:00:00+00:00", 1) == ["2024-11-03T04:00"]


def test_a_period_follows_its_zone_through_the_year() -> None:
    """Local midnight, not a fixed offset, bounds a month: Berlin's March 2026 has an hour less."""
    start, end = month_around("Europe/Berlin", 1, us("2026-03-15T00:00:00+00:00"))
    assert (start, end) == (us("2026-03-01T00:00:00+01:00"), us("2026-04-01T00:00:00+02:00"))
    assert end - start == (31 * 24 - 1) * 3_600_000_000


@pytest.mark.parametrize(("offset_us", "month"), [(-1, "2026-10"), (0, "2026-11")])
def test_the_instant_of_a_boundary_belongs_to_what_starts_there(offset_us: int, month: str) -> None:
    """Periods are half-open: [start, end)."""
    start, _ = month_around("UTC", 1, us("2026-11-01T00:00:00+00:00") + offset_us)
    assert start == us(f"{month}-01T00:00:00+00:00")


def test_a_price_change_at_t_leaves_what_happened_before_t_alone() -> None:
    """An event is rated in the version at its own time, however late it comes: T − 1 ms is old, T is new."""
    book = PriceBook()
    change = us("2026-11-15T00:00:00+00:00")
    meters = {"calls": MeterDefinition("call", "count")}
    for version, amount in ((1, "1"), (2, "2")):
        plans = {"p": PlanDefinition("USD", {"calls": PriceDefinition("calls", "per_unit", amount=amount)})}
        book.publish(change, compile_catalogue(version, CatalogueDocument(meters, plans)))
    in_force = [found.version for instant in (change - 1_000, change) if (found := book.at(instant))]
    assert in_force == [1, 2]
