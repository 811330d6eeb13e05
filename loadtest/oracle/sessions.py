"""Sessions of meters of time: what one comes to, worked out from all of its events each time it is asked for."""

import hashlib
from bisect import bisect_right
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from loadtest.oracle.records import SECOND_US

SESSIONS_MAX = 10_000
POINTS_MAX = 1_000
MINUTE_US = 60 * SECOND_US


class Heard(NamedTuple):
    """What an event says of a session."""

    meter: str
    session: str
    state: str  # or "level"
    cell: tuple[str, ...]
    weight: int  # nano


class Told(NamedTuple):
    """One event of a session."""

    time_us: int
    source: str
    id: str
    state: str
    weight: int


class Stretch(NamedTuple):
    begin: int
    end: int
    weight: int


@dataclass
class Session:
    cell: tuple[str, ...]
    scope: str
    scopes: tuple[str, ...]  # those that were declared when it was heard of first
    events: list[Told] = field(default_factory=list)
    oldest: Told | None = None  # of those whose place among the others is known
    charged: list[Stretch] = field(default_factory=list)  # what was entered
    entered: dict[tuple[int, tuple[str, ...]], int] = field(default_factory=dict)  # by segment and cell, nano

    @property
    def has_levels(self) -> bool:
        return self.events[0].state == "level"

    @property
    def seen(self) -> int:
        return max(event.time_us for event in self.events)

    def goes(self, accrued_us: int, timeout_us: int) -> tuple[list[Stretch], bool]:
        """What it comes to, and whether it goes on."""
        if self.has_levels:
            ordered = sorted(self.events)
            is_open = ordered[-1].weight > 0
            ends = [event.time_us for event in ordered[1:]] + [max(self.seen, accrued_us) if is_open else self.seen]
            stretches = [Stretch(event.time_us, end, event.weight) for event, end in zip(ordered, ends, strict=True)]
            return [each for each in stretches if each.begin < each.end], is_open
        begun = [event.time_us for event in self.events if event.state != "stop"]
        stops = [event.time_us for event in self.events if event.state == "stop"]
        is_open = bool(begun) and not stops and accrued_us <= self.seen + timeout_us
        end = max(stops) if stops else max(self.seen, accrued_us) if is_open else self.seen
        return ([Stretch(min(begun), end, self.events[0].weight)] if begun and end > min(begun) else []), is_open

    def oldest_known(self, since_us: int) -> Told | None:
        """The oldest level whose place is known, when those before an instant are none that another can come before."""
        ordered = sorted(self.events)
        kept = [event for event in ordered if event.time_us >= since_us]
        kept = [event for event in ordered if event.time_us < since_us][-1:] + kept
        return kept[-POINTS_MAX] if len(kept) > POINTS_MAX else self.oldest


def last_minute(account: str, time_us: int) -> int:
    """The last instant at which the open sessions of an account come to more."""
    second = int(hashlib.sha256(account.encode()).hexdigest()[:16], 16) % 60
    return time_us - (time_us - second * SECOND_US) % MINUTE_US


Cell = tuple[str, ...]
CellsBetween = Callable[[int, int], list[tuple[int, int, Cell]]]  # those that a session goes through


def in_segments(
    stretches: Collection[Stretch], boundaries: Collection[int], cells_between: CellsBetween
) -> dict[tuple[int, Cell], tuple[int, int]]:
    """(segment, cell) -> the last microsecond in it, and nano-units: each stretch's seconds times weight, rounded once."""
    found: dict[tuple[int, Cell], tuple[int, int]] = {}
    ordered = sorted(boundaries)
    for begin, end, weight in stretches:
        times: dict[tuple[int, Cell], tuple[int, int]] = {}
        cuts = [begin, *(each for each in ordered if begin < each < end), end]
        for low, high in pairwise(cuts):
            segment = ordered[bisect_right(ordered, low) - 1]
            for start, until, cell in cells_between(low, high):
                _, time_us = times.get((segment, cell), (0, 0))
                times[segment, cell] = until - 1, time_us + until - start
        for place, (last, time_us) in times.items():
            _, before = found.get(place, (0, 0))
            found[place] = last, before + round(Fraction(time_us * weight, SECOND_US))
    return found
