"""Caps that count for themselves: what each has counted, and what its windows hold at a moment."""

from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction

from loadtest.oracle.periods import DAY_US, day_start_us, local_time, period_of
from loadtest.oracle.records import SECOND_US

MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
CALENDAR = ("month", "week", "day", "hour")
BUCKETS = 24  # that a spike is compared with
LENGTH_MAX_US = 30 * DAY_US


@dataclass
class Cap:
    """At most `amount` of money, or of the units of a meter or price. `counted`: start of a window, or of a sixtieth of a
    rolling one -> amount."""

    amount: int
    scope: str
    window: str
    length: int
    meter: str | None
    price: str | None
    since: int  # offset from which on it counts
    basis: str = "charged"  # or list: before discounts; or due: what no lot pays
    waives: bool = False  # what is spent beyond it is not owed
    counted: dict[int, int] = field(default_factory=dict)

    @property
    def kind(self) -> tuple[str, str, int, str | None, str | None, str]:
        """What must be the same for the count to go on when the cap is set again."""
        return (self.scope, self.window, self.length, self.meter, self.price, self.basis)

    @property
    def is_plain(self) -> bool:
        """A month's spend, which is known without counting."""
        return self.window == "month" and self.meter is None and self.price is None

    @property
    def counts(self) -> bool:
        """For itself; one on each single request never does."""
        return not self.is_plain and self.window != "request"

    @property
    def is_sound(self) -> bool:
        if self.meter is not None and self.price is not None:
            return False
        if self.window in CALENDAR or self.window == "request":
            return self.length == 0
        whole = self.length % MINUTE_US == 0 and MINUTE_US <= self.length <= LENGTH_MAX_US
        if self.window == "bucket":
            return whole and self.length <= DAY_US
        return self.window in ("rolling", "first_use") and whole

    def count(self, zone: str, instant: int, amount: int, log_us: int) -> bool:
        """Usage of this instant, read at this log time. Whether a new place was begun: then what is over is forgotten."""
        place = self._place(zone, log_us if self.window == "bucket" else instant)
        if place is None or self._is_over(zone, place, log_us):
            return False
        if amount < 0 and (place not in self.counted or instant < place):
            return False  # what is taken back was not counted there
        if place in self.counted:
            self.counted[place] += amount
            return False
        self.counted = {old: n for old, n in self.counted.items() if not self._is_over(zone, old, log_us)}
        if self.window == "first_use":
            self.counted = {}
        self.counted[place] = amount
        return True

    def _place(self, zone: str, instant: int) -> int | None:
        if self.window == "rolling":
            sixtieth = self.length // 60
            return instant // sixtieth * sixtieth
        if self.window == "bucket":
            return instant // self.length * self.length
        if self.window == "first_use":
            for opened in self.counted:
                if instant < opened + self.length:
                    return opened if instant >= opened - self.length else None
            return instant
        return window_start(self.window, zone, instant)

    def _is_over(self, zone: str, place: int, log_us: int) -> bool:
        """Nothing is counted there any more."""
        if self.window == "rolling":
            return self._sinks(place) <= log_us
        if self.window == "bucket":
            return place + (BUCKETS + 2) * self.length <= log_us
        return self.window in CALENDAR and window_end(self.window, zone, place) + DAY_US <= log_us

    def _sinks(self, place: int) -> int:
        """When what was counted there counts no more."""
        return place + self.length + (self.length // 60 if self.window == "rolling" else 0)

    def windows(self, zone: str, now: int) -> dict[str, int]:
        """Name -> amount of each window that rules look at."""
        if self.window in CALENDAR:
            return {
                f"{self.window}:{place}": self.counted[place]
                for place in sorted(self.counted)
                if not self._is_over(zone, place, now)
            }
        return {self.window: sum(amount for place, amount in self.counted.items() if now < self._sinks(place))}

    def in_bucket(self, start: int) -> int:
        return self.counted.get(start, 0)

    def average(self, start: int) -> Fraction:
        """Of the buckets before the one that starts there."""
        before = (self.in_bucket(start - number * self.length) for number in range(1, BUCKETS + 1))
        return Fraction(sum(before), BUCKETS)

    def sinks_next(self, now: int) -> int | None:
        """When a rule must look again although nothing happens."""
        if self.window in CALENDAR:
            return None
        if self.window == "bucket":
            return (now // self.length + 1) * self.length
        return min((self._sinks(place) for place in self.counted if self._sinks(place) > now), default=None)


def is_over(zone: str, window: str, log_us: int) -> bool:
    """Whether nothing is counted in the window of this name any more."""
    kind, _, start = window.partition(":")
    return bool(start) and kind in CALENDAR and window_end(kind, zone, int(start)) + DAY_US <= log_us


def window_start(window: str, zone: str, instant: int) -> int:
    """The start of the calendar window that an instant lies in."""
    if window == "month":
        return period_of(zone, 1, instant)
    clock = local_time(zone, instant)
    if window == "hour":
        return instant - (clock.minute * 60 + clock.second) * SECOND_US - clock.microsecond
    return max(start for start in _starts_near(window, zone, instant) if start <= instant)


def window_end(window: str, zone: str, start: int) -> int:
    """The start of the next one."""
    if window == "hour":
        return start + HOUR_US
    if window == "month":
        return period_of(zone, 1, start + 32 * DAY_US)  # every month is over by then, and the next one is not
    return min(next_start for next_start in _starts_near(window, zone, start) if next_start > start)


def _starts_near(window: str, zone: str, instant: int) -> list[int]:
    today = local_time(zone, instant).date()
    days = [today + timedelta(days=step) for step in range(-9, 10)]
    return [day_start_us(zone, day) for day in days if window == "day" or day.weekday() == 0]
