"""Months of a zone: billing periods with an anchor day, and calendar months (law R2).

All instants are integer microseconds since 1970 UTC; intervals are half-open [start, end).
"""

from calendar import monthrange
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from importlib import resources
from typing import Final
from zoneinfo import ZoneInfo

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
STRETCH_US: Final = 14 * 86_400 * 1_000_000  # shorter than any month: at most one begins within it
MICROSECOND: Final = timedelta(microseconds=1)


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
