"""Hours of the day and days of the week as a dimension: what they are called at the time at which an event is rated, and
while a session goes through them (R2, R4).

The wall clock of the zone decides. Where it is set back, an hour is told twice, and both are the same to it.
"""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec import Struct

from engine.meters.dimensions import Dimension
from engine.periods import EPOCH, MICROSECOND, zone_of

_MINUTE_US: Final = 60_000_000
_DAY_US: Final = 24 * 60 * _MINUTE_US

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_UNSEEN: Final = "\x00"  # no field of an event is read by such a path: what stands there is put there


class Stretch(Struct, frozen=True):
    """[from, to) of a day, in minutes since midnight by the wall clock; past midnight where `to` is not behind `from`."""

    name: str
    from_min: int
    to_min: int
    days: frozenset[int]  # on which it begins; Monday is 0

    def holds(self, weekday: int, minute: int) -> bool:
        if self.from_min < self.to_min:
            return weekday in self.days and self.from_min <= minute < self.to_min
        return (weekday in self.days and minute >= self.from_min) or (
            (weekday - 1) % 7 in self.days and minute < self.to_min
        )


class Hours(Struct, frozen=True):
    """Of a dimension: the first stretch that an instant lies in gives it its name, else it is `otherwise`."""

    dimension: str
    zone: str
    stretches: tuple[Stretch, ...]
    otherwise: str

    @property
    def field(self) -> str:
        """The path under which meters find what the hours are called."""
        return _UNSEEN + self.dimension

    def name_at(self, time_us: int) -> str:
        local = _local(self.zone, time_us)
        minute = local.hour * 60 + local.minute
        return next((each.name for each in self.stretches if each.holds(local.weekday(), minute)), self.otherwise)

    def changes(self, from_us: int, to_us: int) -> set[int]:
        """Instants of [from, to), shorter than two days, behind which it may be called otherwise than before."""
        minutes = {0, *(minute for each in self.stretches for minute in (each.from_min, each.to_min))}
        found: set[int] = set()
        for start, end in _evenly(self.zone, from_us, to_us):
            found.add(start)  # the clock may be set there
            told_us = start + _ahead_us(self.zone, start)
            for minute in minutes:
                found.update(range(start + (minute * _MINUTE_US - told_us) % _DAY_US, end, _DAY_US))
        return found

    @property
    def names(self) -> frozenset[str]:
        """All that it may be."""
        return frozenset({each.name for each in self.stretches} | {self.otherwise})

    def as_read(self) -> Dimension:
        """The dimension, of the field where the name of the hour stands."""
        return Dimension(
            self.dimension, self.field, values={each: each for each in self.names}, otherwise=self.otherwise
        )


class Called(NamedTuple):
    """A stretch of time, and what each of several `Hours` calls it."""

    from_us: int
    to_us: int
    names: tuple[str, ...]


def called(hours: tuple[Hours, ...], from_us: int, to_us: int) -> Iterator[Called]:
    """All of [from, to), in order; two that follow one another may be called the same."""
    for day in range(from_us // _DAY_US, -(-to_us // _DAY_US)):
        for start, end, names in _in_day(hours, day):
            low, high = max(start, from_us), min(end, to_us)
            if low < high:
                yield Called(low, high, names)


@lru_cache(maxsize=4096)
def _in_day(hours: tuple[Hours, ...], day: int) -> tuple[Called, ...]:
    """A day of UTC, counted from 1970, in which each is called otherwise than the one before it."""
    low, high = day * _DAY_US, (day + 1) * _DAY_US
    starts = sorted({instant for each in hours for instant in each.changes(low, high)})
    found: list[Called] = []
    for start in starts:
        names = tuple(each.name_at(start) for each in hours)
        if not found or found[-1].names != names:
            found.append(Called(start, high, names))
    ends = [*(each.from_us for each in found[1:]), high]
    return tuple(each._replace(to_us=end) for each, end in zip(found, ends, strict=True))


def _local(zone: str, time_us: int) -> datetime:
    return (EPOCH + timedelta(microseconds=time_us)).astimezone(zone_of(zone))


def _ahead_us(zone: str, time_us: int) -> int:
    """How far the wall clock is ahead of UTC."""
    ahead = _local(zone, time_us).utcoffset()
    assert ahead is not None
    return ahead // MICROSECOND


def _evenly(zone: str, from_us: int, to_us: int) -> Iterator[tuple[int, int]]:
    """[from, to) cut where the clock is set, which it is once in two days at most."""
    ahead_us = _ahead_us(zone, from_us)
    if _ahead_us(zone, to_us - 1) == ahead_us:
        yield from_us, to_us
        return
    low, high = from_us, to_us - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _ahead_us(zone, middle) == ahead_us else (low, middle)
    yield from_us, high
    yield high, to_us
