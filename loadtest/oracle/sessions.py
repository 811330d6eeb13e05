"""Sessions of meters of time: how far one goes, worked out from all of its events each time it is asked for."""

import hashlib
from bisect import bisect_right
from collections.abc import Collection
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from typing import NamedTuple

from loadtest.oracle.records import SECOND_US

SESSIONS_MAX = 10_000
MINUTE_US = 60 * SECOND_US
EMPTY = (0, 0)


class Heard(NamedTuple):
    """What an event says of a session."""

    meter: str
    session: str
    state: str
    cell: tuple[str, ...]
    weight: int  # nano


@dataclass
class Session:
    cell: tuple[str, ...]
    weight: int
    scope: str
    scopes: tuple[str, ...]  # those that were declared when it was heard of first
    events: list[tuple[int, str]] = field(default_factory=list)  # (time, state)
    charged: tuple[int, int] = EMPTY  # what was entered
    entered: dict[int, int] = field(default_factory=dict)  # by segment, nano

    @property
    def seen(self) -> int:
        return max(time_us for time_us, _ in self.events)

    def goes(self, accrued_us: int, timeout_us: int) -> tuple[tuple[int, int], bool]:
        """From when to when it goes, and whether it goes on."""
        begun = [time_us for time_us, state in self.events if state != "stop"]
        stops = [time_us for time_us, state in self.events if state == "stop"]
        is_open = bool(begun) and not stops and accrued_us <= self.seen + timeout_us
        end = max(stops) if stops else max(self.seen, accrued_us) if is_open else self.seen
        return ((min(begun), end) if begun and end > min(begun) else EMPTY), is_open


def last_minute(account: str, time_us: int) -> int:
    """The last instant at which the open sessions of an account come to more."""
    second = int(hashlib.sha256(account.encode()).hexdigest()[:16], 16) % 60
    return time_us - (time_us - second * SECOND_US) % MINUTE_US


def in_segments(extent: tuple[int, int], weight: int, boundaries: Collection[int]) -> dict[int, tuple[int, int]]:
    """Segment -> the last microsecond in it, and nano-units: seconds times weight, rounded once."""
    begin, end = extent
    found = {}
    ordered = sorted(boundaries)
    cuts = [begin, *(each for each in ordered if begin < each < end), end]
    for low, high in pairwise(cuts):
        if low < high:
            segment = ordered[bisect_right(ordered, low) - 1]
            found[segment] = high - 1, round(Fraction((high - low) * weight, SECOND_US))
    return found
