"""What the hours of the day are called, by the wall clock of a zone."""

import pytest

from engine.meters.hours import Hours, Stretch
from tests.engine.bench import us

WEEKDAYS = frozenset(range(5))
TARIFF = Hours(
    "tariff",
    "Europe/Berlin",
    (Stretch("peak", 8 * 60, 20 * 60, WEEKDAYS), Stretch("night", 22 * 60, 6 * 60 + 30, frozenset({4, 6}))),
    "rest",
)


@pytest.mark.parametrize(
    ("time", "name"),
    [
        ("2026-03-10T07:59:59.999999+01:00", "rest"),
        ("2026-03-10T08:00:00+01:00", "peak"),
        ("2026-03-10T19:59:59.999999+01:00", "peak"),
        ("2026-03-10T20:00:00+01:00", "rest"),
        ("2026-03-14T12:00:00+01:00", "rest"),  # a Saturday
        ("2026-03-13T22:00:00+01:00", "night"),  # a Friday, until Saturday's half past six
        ("2026-03-14T06:29:59+01:00", "night"),
        ("2026-03-14T06:30:00+01:00", "rest"),
        ("2026-03-14T23:00:00+01:00", "rest"),
        ("2026-03-16T00:00:00+01:00", "night"),  # Sunday's, on Monday
        ("2026-03-17T00:00:00+01:00", "rest"),
    ],
)
def test_the_first_stretch_that_an_instant_lies_in_names_it(time: str, name: str) -> None:
    assert TARIFF.name_at(us(time)) == name


def test_the_wall_clock_decides_whatever_is_done_to_it() -> None:
    """Summer moves eight o'clock; the hour that comes twice is the same hour twice."""
    assert TARIFF.name_at(us("2026-03-30T06:00:00+00:00")) == "peak"
    assert TARIFF.name_at(us("2026-03-27T06:00:00+00:00")) == "rest"
    twice = Hours("h", "Europe/Berlin", (Stretch("two", 2 * 60, 3 * 60, frozenset(range(7))),), "other")
    found = [twice.name_at(us(f"2026-10-25T{hour:02}:30:00+00:00")) for hour in (23 - 24 + 24, 0, 1, 2)]
    assert found == ["other", "two", "two", "other"]


def test_a_stretch_may_be_a_whole_day() -> None:
    day = Hours("h", "UTC", (Stretch("sunday", 0, 24 * 60, frozenset({6})),), "other")
    found = [
        day.name_at(us(f"2026-03-{date}+00:00"))
        for date in ("14T23:59:59", "15T00:00:00", "15T23:59:59", "16T00:00:00")
    ]
    assert found == ["other", "sunday", "sunday", "other"]
    assert day.names == {"sunday", "other"}
