"""Billing periods and calendar months of a zone."""

import importlib.resources
from bisect import bisect_right
from calendar import monthrange
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo

from loadtest.oracle.records import EPOCH, SECOND_US, WALL_EPOCH

DAY_US = 86_400 * SECOND_US
YEAR_US = 31_556_952 * SECOND_US  # on average


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The zones of the pinned `tzdata` package; the host's own files are never read."""
    return frozenset(importlib.resources.files("tzdata").joinpath("zones").read_text().split())


@lru_cache(maxsize=1000)
def zone_of(name: str) -> ZoneInfo:
    with importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def local_time(zone: str, time_us: int) -> datetime:
    """The wall clock of the zone, without a zone attached, so that it compares as a wall clock."""
    return (EPOCH + timedelta(microseconds=time_us)).astimezone(zone_of(zone)).replace(tzinfo=None)


@lru_cache(maxsize=100_000)
def period_start_us(zone: str, anchor: int, year: int, month: int) -> int:
    """The first instant at or after local midnight of the anchor day of that month."""
    return day_start_us(zone, date(year, month, min(anchor, monthrange(year, month)[1])))


@lru_cache(maxsize=100_000)
def day_start_us(zone: str, day: date) -> int:
    """The first instant at or after local midnight."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC).replace(tzinfo=None)
    instants = []
    for fold in (0, 1):
        offset = midnight.replace(tzinfo=zone_of(zone), fold=fold).utcoffset()
        assert offset is not None
        instants.append((midnight - offset - WALL_EPOCH) // timedelta(microseconds=1))
    first, second = instants
    if local_time(zone, first) == midnight:
        return first  # fold 0 is the earlier of two
    # In a gap the two readings enclose the jump: find the first instant whose wall clock is past midnight.
    low, high = min(first, second), max(first, second)
    while low < high:
        middle = (low + high) // 2
        if local_time(zone, middle) >= midnight:
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=100_000)
def period_starts(zone: str, anchor: int, year: int) -> list[int]:
    """The starts of the year, and of two months before and two after it: its first and last days may be meant of
    another, by the zone or by `YEAR_US`, and each period has an end."""
    months = range(year * 12 - 2, year * 12 + 14)
    return [period_start_us(zone, anchor, month // 12, month % 12 + 1) for month in months]


@lru_cache(maxsize=100_000)
def period_around(zone: str, anchor: int, time_us: int) -> tuple[int, int]:
    """The period that an instant lies in: the latest start that is not after it, and the start of the one behind it."""
    starts = period_starts(zone, anchor, 1970 + time_us // YEAR_US)
    behind = bisect_right(starts, time_us)
    return starts[behind - 1], starts[behind]


def period_end(zone: str, anchor: int, time_us: int) -> int:
    """The start of the period behind that of an instant."""
    return period_around(zone, anchor, time_us)[1]


def period_of(zone: str, anchor: int, time_us: int) -> int:
    """The start of the period that an instant lies in."""
    return period_around(zone, anchor, time_us)[0]
