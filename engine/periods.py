"""Months of a zone: billing periods with an anchor day, and calendar months (law R2). Beside them weeks, days and hours.

All instants are integer microseconds since 1970 UTC; intervals are half-open [start, end).
"""

from bisect import bisect_right
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
CALENDAR_US: Final = 1 << 55  # how far from 1970 months are looked up, to the year 3111: the calendar ends in 9999
STRETCH_US: Final = 14 * 86_400 * 1_000_000  # shorter than any month: at most one begins within it
MICROSECOND: Final = timedelta(microseconds=1)
HOUR_US: Final = 3_600_000_000
_DAY_STRETCH_US: Final = 14 * HOUR_US  # shorter than any day
_WEEK_STRETCH_US: Final = 4 * 24 * HOUR_US  # shorter than any week
_QUARTER_US: Final = HOUR_US // 4  # clocks are set at its multiples


class UnknownZone(ValueError):
    """No such IANA time zone in the pinned tzdata."""


@lru_cache(maxsize=1024)
def zone_of(name: str) -> ZoneInfo:
    """The zone's rules from the pinned `tzdata`: replay must not depend on the host's. Raises UnknownZone."""
    parts = name.split("/")
    if not all(part and part.replace("_", "").replace("-", "").replace("+", "").isalnum() for part in parts):
        raise UnknownZone(name)
    file = resources.files("tzdata").joinpath("zoneinfo", *parts)
    try:
        with file.open("rb") as source:
            return ZoneInfo.from_file(source, key=name)
    except (OSError, ValueError) as error:
        raise UnknownZone(name) from error


def _microseconds(instant: datetime) -> int:
    return (instant - EPOCH) // MICROSECOND


def _first_instant(year: int, month: int, day: int, zone: ZoneInfo) -> int:
    """When the local day begins: the first of two midnights in an overlap; in a gap, the instant after it."""
    midnight = datetime(year, month, day, tzinfo=zone)  # fold=0
    instant = midnight.astimezone(UTC)
    if instant.astimezone(zone).replace(tzinfo=None) == midnight.replace(tzinfo=None):
        return _microseconds(instant)
    # Midnight does not exist: the day begins where the clock jumps, at or up to a day before the skipped midnight.
    low, high = instant - timedelta(hours=24), instant
    target = midnight.date()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        if middle.astimezone(zone).date() >= target:
            high = middle
        else:
            low = middle
    return _microseconds(high.replace(microsecond=0))


@lru_cache(maxsize=65536)
def _start_in(zone_name: str, anchor_day: int, year: int, month: int) -> int:
    return _first_instant(year, month, min(anchor_day, monthrange(year, month)[1]), zone_of(zone_name))


def _shift(year: int, month: int, by: int) -> tuple[int, int]:
    index = year * 12 + month - 1 + by
    return index // 12, index % 12 + 1


@lru_cache(maxsize=65536)
def _starts_around(zone_name: str, anchor_day: int, stretch: int) -> tuple[int, int, int]:
    """The start of the month in which a stretch of time begins, and of the two after it."""
    time_us = stretch * STRETCH_US
    local = (EPOCH + timedelta(microseconds=time_us)).astimezone(zone_of(zone_name))
    year, month = local.year, local.month
    if time_us < _start_in(zone_name, anchor_day, year, month):
        year, month = _shift(year, month, -1)
    first, second, third = (_start_in(zone_name, anchor_day, *_shift(year, month, by)) for by in range(3))
    return first, second, third


def month_around(zone_name: str, anchor_day: int, time_us: int) -> tuple[int, int]:
    """[start, end) of the month that contains the instant; the calendar month when anchor_day is 1."""
    first, second, third = _starts_around(zone_name, anchor_day, time_us // STRETCH_US)
    return (first, second) if time_us < second else (second, third)


@lru_cache(maxsize=65536)
def _day_in(zone_name: str, day: date) -> int:
    return _first_instant(day.year, day.month, day.day, zone_of(zone_name))


@lru_cache(maxsize=65536)
def _days_around(zone_name: str, days: int, time_us: int) -> tuple[int, int, int]:
    """The start of the day, or of the week of 7 days from Monday on, of an instant, and of the two after it."""
    local = (EPOCH + timedelta(microseconds=time_us)).astimezone(zone_of(zone_name)).date()
    first = local - timedelta(days=local.weekday() if days == 7 else 0)
    # A day that the clock skips is none, and one that it enters twice begins once: so the starts decide, not the names.
    starts = sorted({_day_in(zone_name, first + timedelta(days=days * step)) for step in range(-1, 5)})
    here = bisect_right(starts, time_us) - 1
    return starts[here], starts[here + 1], starts[here + 2]


def day_around(zone_name: str, time_us: int) -> tuple[int, int]:
    """[start, end) of the calendar day that contains the instant."""
    first, second, third = _days_around(zone_name, 1, time_us - time_us % _DAY_STRETCH_US)
    return (first, second) if time_us < second else (second, third)


def week_around(zone_name: str, time_us: int) -> tuple[int, int]:
    """[start, end) of the calendar week, from Monday on, that contains the instant."""
    first, second, third = _days_around(zone_name, 7, time_us - time_us % _WEEK_STRETCH_US)
    return (first, second) if time_us < second else (second, third)


@lru_cache(maxsize=65536)
def _offset_us(zone_name: str, quarter: int) -> int:
    local = (EPOCH + timedelta(microseconds=quarter * _QUARTER_US)).astimezone(zone_of(zone_name))
    return (local.utcoffset() or timedelta()) // MICROSECOND


def hour_around(zone_name: str, time_us: int) -> tuple[int, int]:
    """[start, end) of the hour that contains the instant: hours begin where the zone's clock shows a full one."""
    past = (time_us + _offset_us(zone_name, time_us // _QUARTER_US)) % HOUR_US
    return time_us - past, time_us - past + HOUR_US
