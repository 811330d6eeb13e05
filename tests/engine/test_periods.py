"""Months of a zone, with an anchor day, across changes of the clock."""

from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.periods import EPOCH, MICROSECOND, UnknownZone, month_around, zone_of

ZONES = ["UTC", "Europe/Berlin", "America/Sao_Paulo", "America/Havana", "Asia/Beirut", "Pacific/Apia", "Asia/Kathmandu"]
INSTANTS = st.integers(631_152_000 * 10**6, 2_208_988_800 * 10**6)  # 1990 to 2040


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


@given(st.sampled_from(ZONES), st.integers(1, 31), INSTANTS)
def test_periods_tile_time(zone: str, anchor_day: int, time_us: int) -> None:
    start, end = month_around(zone, anchor_day, time_us)
    assert start <= time_us < end
    assert month_around(zone, anchor_day, start) == (start, end)
    assert month_around(zone, anchor_day, end)[0] == end
    assert month_around(zone, anchor_day, start - 1)[1] == start


@given(st.sampled_from(ZONES), st.integers(1, 31), INSTANTS)
def test_a_period_starts_on_the_first_instant_of_its_day(zone: str, anchor_day: int, time_us: int) -> None:
    start, _ = month_around(zone, anchor_day, time_us)
    begun = (EPOCH + timedelta(microseconds=start)).astimezone(zone_of(zone))
    before = (EPOCH + timedelta(microseconds=start - 1)).astimezone(zone_of(zone))
    assert before.date() < begun.date()
    last_day = (begun.date().replace(day=28) + timedelta(days=4)).replace(day=1) - timedelta(days=1)
    skipped = begun.date() - before.date() > timedelta(days=1)  # Samoa had no 30 December 2011
    assert skipped or begun.day == min(anchor_day, last_day.day)


@pytest.mark.parametrize(
    ("zone", "anchor_day", "time", "start", "end"),
    [
        ("UTC", 1, "2026-11-22T10:00:00+00:00", "2026-11-01T00:00:00+00:00", "2026-12-01T00:00:00+00:00"),
        ("UTC", 15, "2026-01-14T23:59:59.999999+00:00", "2025-12-15T00:00:00+00:00", "2026-01-15T00:00:00+00:00"),
        ("Europe/Berlin", 1, "2026-03-31T22:00:00+00:00", "2026-03-31T22:00:00+00:00", "2026-04-30T22:00:00+00:00"),
        ("Pacific/Apia", 30, "2011-12-30T10:00:00+00:00", "2011-12-30T10:00:00+00:00", "2012-01-29T10:00:00+00:00"),
    ],
)
def test_months(zone: str, anchor_day: int, time: str, start: str, end: str) -> None:
    assert month_around(zone, anchor_day, us(time)) == (us(start), us(end))


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Mars/Olympus",
        "../etc/passwd",
        "/etc/localtime",
        "Europe",
        "zone1970.tab",
        "leapseconds",
        "Europe/",
        "a\x00b",
    ],
)
def test_a_zone_that_tzdata_does_not_know_is_refused(name: str) -> None:
    with pytest.raises(UnknownZone):
        zone_of(name)
