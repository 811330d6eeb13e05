"""What holds from one event to the next, a volume's gigabytes say: its levels, how far they are charged (README, "Sessions").

What it comes to is a function of the set of its points: no order of arrival, and no repetition, makes another of it.
"""

from bisect import bisect_left, insort
from operator import attrgetter
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from engine.catalog import TOO_OLD_US

POINTS_MAX: Final = 1_000  # of one gauge that are kept; one that is older than all of them is set aside

_TIME_OF: Final = attrgetter("time_us")


class TooManyPoints(ValueError):
    """A level is told behind so many newer ones that its place among them is not known any more."""


class Step(NamedTuple):
    """Each second of [from, to) counts this many nano-units."""

    from_us: int
    to_us: int
    weight: int


class Point(NamedTuple):
    """From when a level holds. Of equal times the greater source's holds, then the greater id's."""

    time_us: int
    source: str
    id: str
    level: int  # nano-units


class Gauge(Struct, frozen=True):
    """What is known of one. `end_us`: how far the table has it."""

    cell: tuple[str, ...]
    scope: str
    since: int  # offset of its first event: scopes that were declared by then count it
    points: tuple[Point, ...]  # in order, at least one
    end_us: int = 0
    is_cut: bool = False  # whether older points than these were dropped

    @property
    def seen_us(self) -> int:
        """From when its newest level holds."""
        return self.points[-1].time_us

    @property
    def is_open(self) -> bool:
        """Whether it comes to more as log time passes."""
        return self.points[-1].level > 0

    def with_point(self, point: Point) -> "Gauge":
        """The same with one more, as far as it was charged before. Raises TooManyPoints."""
        if self.is_cut and point < self.points[0]:
            raise TooManyPoints(f"its level is older than the last {POINTS_MAX}, which are all that are kept")
        points = list(self.points)
        insort(points, point)
        return replace(self, points=tuple(points))

    def at(self, accrued_us: int, timeout_us: int) -> "Gauge":
        """How it stands at an instant at which what is open accrues, charged as far as it goes: no silence ends a level."""
        return replace(self, end_us=max(self.seen_us, accrued_us) if self.is_open else self.seen_us)

    def steps(self, from_us: int) -> list[Step]:
        """What the table has of it, from the level on that held before an instant."""
        first = max(bisect_left(self.points, from_us, key=_TIME_OF) - 1, 0)
        ends = [*(point.time_us for point in self.points[first + 1 :]), self.end_us]
        return [
            Step(point.time_us, end_us, point.level) for point, end_us in zip(self.points[first:], ends, strict=True)
        ]

    def is_gone(self, log_time_us: int) -> bool:
        """Whether its level is 0 and no event can come any more that changes what it was."""
        return not self.is_open and self.seen_us < log_time_us - TOO_OLD_US

    def kept(self, log_time_us: int) -> "Gauge":
        """Without the points that no event can come before any more, and those that are too many."""
        first = max(bisect_left(self.points, log_time_us - TOO_OLD_US, key=_TIME_OF) - 1, len(self.points) - POINTS_MAX)
        return self if first <= 0 else replace(self, points=self.points[first:], is_cut=True)
