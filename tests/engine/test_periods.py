"""Months of a zone, with an anchor day, across changes of the clock."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.periods import EPOCH, MICROSECOND, UnknownZone, day_around, hour_around, month_around, week_around, zone_of

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


@given(st.sampled_from(ZONES), st.sampled_from([hour_around, day_around, week_around]), INSTANTS)
def test_hours_days_and_weeks_tile_time(zone: str, around: Callable[[str, int], tuple[int, int]], time_us: int) -> None:
    start, end = around(zone, time_us)
    assert start <= time_us < end
    assert around(zone, start) == (start, end)
    assert around(zone, end)[0] == end
    assert around(zone, start - 1)[1] == start


@given(st.sampled_from(ZONES), INSTANTS)
def test_a_day_starts_on_its_first_instant_and_a_week_on_a_monday(zone: str, time_us: int) -> None:
    for around in (day_around, week_around):
        start, _ = around(zone, time_us)
        begun = (EPOCH + timedelta(microseconds=start)).astimezone(zone_of(zone))
        before = (EPOCH + timedelta(microseconds=start - 1)).astimezone(zone_of(zone))
        assert before.date() < begun.date()
    skipped = begun.date() - before.date() > timedelta(days=1)
    assert skipped or begun.weekday() == 0


@pytest.mark.parametrize(
    ("around", "zone", "time", "start", "end"),
    [
        (day_around, "UTC", "2026-03-10T12:00+00:00", "2026-03-10T00:00+00:00", "2026-03-11T00:00+00:00"),
        (day_around, "Europe/Berlin", "2026-03-29T00:59+00:00", "2026-03-28T23:00+00:00", "2026-03-29T22:00+00:00"),
        (day_around, "Europe/Berlin", "2026-10-25T22:59+00:00", "2026-10-24T22:00+00:00", "2026-10-25T23:00+00:00"),
        (day_around, "Pacific/Apia", "2011-12-30T10:00+00:00", "2011-12-30T10:00+00:00", "2011-12-31T10:00+00:00"),
        (day_around, "America/Sao_Paulo", "2018-11-04T03:00+00:00", "2018-11-04T03:00+00:00", "2018-11-05T02:00+00:00"),
        (week_around, "UTC", "2026-03-15T23:59+00:00", "2026-03-09T00:00+00:00", "2026-03-16T00:00+00:00"),
        (week_around, "Europe/Berlin", "2026-03-29T12:00+00:00", "2026-03-22T23:00+00:00", "2026-03-29T22:00+00:00"),
        (hour_around, "UTC", "2026-03-10T12:59:59.999999+00:00", "2026-03-10T12:00+00:00", "2026-03-10T13:00+00:00"),
        (hour_around, "Asia/Kathmandu", "2026-03-10T12:10+00:00", "2026-03-10T11:15+00:00", "2026-03-10T12:15+00:00"),
        (hour_around, "Europe/Berlin", "2026-10-25T01:30+00:00", "2026-10-25T01:00+00:00", "2026-10-25T02:00+00:00"),
    ],
)
def test_days_weeks_and_hours(
    around: Callable[[str, int], tuple[int, int]], zone: str, time: str, start: str, end: str
) -> None:
    assert around(zone, us(time)) == (us(start), us(end))
