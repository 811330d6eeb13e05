"""What the hours of the day are called, by the wall clock of a zone."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.meters.hours import Hours, Stretch, called
from tests.engine.bench import DAY, HOUR, MINUTE, us

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


ZONES = ("UTC", "Europe/Berlin", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia")


@given(
    st.lists(st.tuples(st.sampled_from(ZONES), st.integers(0, 1439), st.integers(1, 1440)), min_size=1, max_size=2),
    st.sampled_from(["2026-03-28T20:00:00", "2026-10-24T20:00:00", "2026-04-04T01:00:00", "2026-03-07T03:17:00"]),
    st.integers(0, 2 * DAY),
    st.integers(1, 2 * DAY),
)
def test_a_stretch_of_time_is_called_what_each_of_its_instants_is(
    declared: list[tuple[str, int, int]], base: str, after: int, length: int
) -> None:
    """Also where the clock is set: no instant is left out, and none is called by another's name."""
    hours = tuple(
        Hours(f"h{place}", zone, (Stretch("in", begin, end, WEEKDAYS),), "out")
        for place, (zone, begin, end) in enumerate(declared)
    )
    low = us(base + "+00:00") + after
    found = list(called(hours, low, low + length))
    assert (found[0].from_us, found[-1].to_us) == (low, low + length)
    assert all(one.to_us == other.from_us for one, other in itertools.pairwise(found))
    for start, end, names in found:
        for at in (start, end - 1, *range(start, end, 7 * MINUTE)):
            assert names == tuple(each.name_at(at) for each in hours)


def test_nothing_of_no_length_is_called_anything() -> None:
    assert list(called((TARIFF,), HOUR, HOUR)) == []
