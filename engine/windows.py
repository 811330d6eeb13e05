"""The windows that a cap counts in: calendar ones, one that the first usage opens, rolling (README, "Windows"). And the
buckets of log time that a spike is looked for in, which only rules count in.

What a cap has counted is one small table, place -> amount: a place is the start of a calendar window, of the window that
usage opened, or of one of the buckets that a rolling window is made of. It never grows beyond what can still matter.
"""

from collections.abc import Callable, Mapping
from typing import Final

from msgspec import Struct

from engine.periods import HOUR_US, day_around, hour_around, month_around, week_around

FIRST_USE: Final = "first_use"
ROLLING: Final = "rolling"
BUCKET: Final = "bucket"  # of log time, of a length
REQUEST: Final = "request"  # no stretch of time at all
AVERAGED: Final = 24  # buckets before one that are its average
BUCKETS: Final = 60  # of a rolling window
GRACE_US: Final = 24 * 3_600_000_000  # how long after its end a calendar window still counts late usage
LENGTH_STEP_US: Final = 60_000_000  # so that a bucket is a whole number of seconds
LENGTH_MAX_US: Final = 30 * 86_400_000_000
BUCKET_MAX_US: Final = 86_400_000_000

Counts = dict[int, int]  # place -> amount

_CALENDAR: Final[Mapping[str, Callable[[str, int], tuple[int, int]]]] = {
    "month": lambda zone, time_us: month_around(zone, 1, time_us),
    "week": week_around,
    "day": day_around,
    "hour": hour_around,
}


class Window(Struct, frozen=True):
    """`kind` is one of the calendar's, FIRST_USE, ROLLING or BUCKET, which have a length, or REQUEST, in which nothing is
    counted."""

    kind: str = "month"
    length_us: int = 0

    @property
    def valid(self) -> bool:
        """Whether there is such a window."""
        if self.kind in _CALENDAR or self.kind == REQUEST:
            return self.length_us == 0
        longest = BUCKET_MAX_US if self.kind == BUCKET else LENGTH_MAX_US
        fits = LENGTH_STEP_US <= self.length_us <= longest and self.length_us % LENGTH_STEP_US == 0
        return self.kind in (FIRST_USE, ROLLING, BUCKET) and fits

    @property
    def falls(self) -> bool:
        """Whether what it has counted sinks by itself as time passes."""
        return self.kind in (FIRST_USE, ROLLING, BUCKET)

    @property
    def by_log_time(self) -> bool:
        """Whether an event counts when it arrives, whatever its own time."""
        return self.kind == BUCKET

    @property
    def _bucket_us(self) -> int:
        return self.length_us // BUCKETS

    # ------------------------------------------------------------------------------------------------------ counting

    def place(self, zone: str, counts: Counts, time_us: int) -> int | None:
        """Where usage of this instant counts; None: nowhere."""
        if self.kind == ROLLING:
            return time_us - time_us % self._bucket_us
        if self.kind == BUCKET:
            return time_us - time_us % self.length_us
        if self.kind != FIRST_USE:
            return _CALENDAR[self.kind](zone, time_us)[0]
        for opened in counts:
            if time_us < opened - self.length_us:
                return None  # a window of its own would have been over before this one
            if time_us < opened + self.length_us:
                return opened
        return time_us

    def count(self, zone: str, counts: Counts, time_us: int, amount: int, log_time_us: int) -> Counts:
        """The table with this amount of this instant. What can matter no more is left out when a place is new."""
        time_us = log_time_us if self.by_log_time else time_us
        place = self.place(zone, counts, time_us)
        if place is None or (amount < 0 and (time_us < place or place not in counts)):
            return counts  # what is taken back was not counted there
        if self.is_gone(zone, place, log_time_us):
            return counts
        if place in counts:
            return {**counts, place: counts[place] + amount}
        kept: Counts = {}
        if self.kind != FIRST_USE:
            kept = {earlier: n for earlier, n in counts.items() if not self.is_gone(zone, earlier, log_time_us)}
        return {**kept, place: amount}

    def is_gone(self, zone: str, place: int, now_us: int) -> bool:
        """Whether what is counted there matters no more, and nothing is counted there any more."""
        if self.kind == ROLLING:
            return place + self._bucket_us <= now_us - self.length_us
        if self.kind == FIRST_USE:
            return False
        if self.kind == BUCKET:
            return place + (AVERAGED + 2) * self.length_us <= now_us
        # A clock that is set by half an hour makes an hour whose start was no full one by the clock of before.
        ends_us = place + HOUR_US if self.kind == "hour" else _CALENDAR[self.kind](zone, place)[1]
        return ends_us + GRACE_US <= now_us

    # ------------------------------------------------------------------------------------------------------- reading

    def counted(self, zone: str, counts: Counts, now_us: int) -> int:
        """What the window of this moment has counted."""
        if self.kind == ROLLING:
            return sum(amount for place, amount in counts.items() if not self.is_gone(zone, place, now_us))
        if self.kind == FIRST_USE:
            return sum(amount for place, amount in counts.items() if now_us < place + self.length_us)
        if self.kind == BUCKET:
            return counts.get(now_us - now_us % self.length_us, 0)
        return counts.get(_CALENDAR[self.kind](zone, now_us)[0], 0)

    def named(self, zone: str, counts: Counts, now_us: int) -> list[tuple[str, int]]:
        """(name, amount) of each window that rules look at, in order of the name."""
        if self.falls:
            return [(self.kind, self.counted(zone, counts, now_us))]
        places = sorted(place for place in counts if not self.is_gone(zone, place, now_us))
        return [(f"{self.kind}:{place}", counts[place]) for place in places]

    def before(self, counts: Counts, bucket: int) -> int:
        """What the AVERAGED buckets before the one that starts there have counted, all together."""
        return sum(counts.get(bucket - step * self.length_us, 0) for step in range(1, AVERAGED + 1))

    def ends_us(self, zone: str, counts: Counts, now_us: int) -> int | None:
        """When the window of this moment ends, or begins to sink; None: nothing is counted in it."""
        if self.kind == BUCKET:
            return now_us - now_us % self.length_us + self.length_us
        if self.kind not in (FIRST_USE, ROLLING):
            return _CALENDAR[self.kind](zone, now_us)[1]
        ends = [instant for place in counts if (instant := self._sinks_us(place)) > now_us]
        return min(ends, default=None)

    def fits_us(self, zone: str, counts: Counts, now_us: int, excess: int) -> int | None:
        """When so much of what is counted will have gone; None: not by the passing of time alone."""
        if self.kind != ROLLING or excess <= 0:
            return self.ends_us(zone, counts, now_us)
        for place in sorted(counts):
            if self._sinks_us(place) > now_us:
                excess -= counts[place]
                if excess <= 0:
                    return self._sinks_us(place)
        return None

    def _sinks_us(self, place: int) -> int:
        return place + self.length_us + (self._bucket_us if self.kind == ROLLING else 0)


MONTH: Final = Window()


def is_named_gone(zone: str, name: str, log_time_us: int) -> bool:
    """Whether nothing can ever be counted again in the window of this name."""
    kind, _, place = name.partition(":")
    return bool(place) and kind in _CALENDAR and Window(kind).is_gone(zone, int(place), log_time_us)
