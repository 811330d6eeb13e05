"""Hours of the day and days of the week as a dimension: what they are called at the time at which an event is rated (R2, R4).

The wall clock of the zone decides. Where it is set back, an hour is told twice, and both are the same to it.
"""

from datetime import timedelta
from typing import Final

from msgspec import Struct

from engine.meters.dimensions import Dimension
from engine.periods import EPOCH, zone_of

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
        local = (EPOCH + timedelta(microseconds=time_us)).astimezone(zone_of(self.zone))
        minute = local.hour * 60 + local.minute
        return next((each.name for each in self.stretches if each.holds(local.weekday(), minute)), self.otherwise)

    @property
    def names(self) -> frozenset[str]:
        """All that it may be."""
        return frozenset({each.name for each in self.stretches} | {self.otherwise})

    def as_read(self) -> Dimension:
        """The dimension, of the field where the name of the hour stands."""
        return Dimension(
            self.dimension, self.field, values={each: each for each in self.names}, otherwise=self.otherwise
        )
