"""What does not add up: max, min, latest, average and unique count (law R3).

An account keeps one small aggregate per (segment, price, cell). Aggregates merge, in any order and grouping, to the same
one; so what a period comes to does not depend on the order of arrival. An event that is counted is an aggregate, too.
"""

from base64 import b64decode, b64encode
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import Final, Literal

import msgspec
import xxhash
from msgspec import Struct

from engine.meters.fields import Key
from engine.money import NANO, round_half_even

Kind = Literal["max", "min", "latest", "average", "unique_count"]
KINDS: Final[tuple[Kind, ...]] = ("max", "min", "latest", "average", "unique_count")
RISING: Final = frozenset({"max", "unique_count"})  # one event more never makes less of it
MARK_BYTES: Final = 12  # of the hash by which a counted value is known again
UNIQUE_MAX: Final = 1_000  # different values in a cell and period, if the meter does not say
UNIQUE_LIMIT: Final = 10_000  # and what it may say


class TooManyValues(ValueError):
    """A unique count would hold more different values than its meter allows."""


class Most(Struct, frozen=True):
    value: int  # nano-units

    def merge(self, other: "Most") -> "Most":
        return self if self.value >= other.value else other

    @property
    def quantity(self) -> int:
        return self.value


class Least(Struct, frozen=True):
    value: int  # nano-units

    def merge(self, other: "Least") -> "Least":
        return self if self.value <= other.value else other

    @property
    def quantity(self) -> int:
        return self.value


class Latest(Struct, frozen=True, order=True):
    """Of equal times the greater source counts, then the greater id."""

    time_us: int
    source: str
    id: str
    value: int  # nano-units

    def merge(self, other: "Latest") -> "Latest":
        return max(self, other)

    @property
    def quantity(self) -> int:
        return self.value


class Average(Struct, frozen=True):
    total: int  # nano-units
    events: int

    def merge(self, other: "Average") -> "Average":
        return Average(self.total + other.total, self.events + other.events)

    @property
    def quantity(self) -> int:
        return round_half_even(self.total, self.events)


class Unique(Struct, frozen=True):
    marks: frozenset[bytes]
    limit: int

    def merge(self, other: "Unique") -> "Unique":
        return Unique(self.marks | other.marks, max(self.limit, other.limit))

    @property
    def quantity(self) -> int:
        return len(self.marks) * NANO


Aggregate = Most | Least | Latest | Average | Unique


def mark_of(key: Key) -> bytes:
    """By which a counted value is known again. A text and a number that looks like it are two values."""
    return xxhash.xxh3_128_digest(msgspec.json.encode(key))[:MARK_BYTES]


def kept(aggregate: Aggregate) -> list[str]:
    """As it is stored: its kind, then what it holds, numbers as text. The same aggregate always the same."""
    match aggregate:
        case Most(value):
            return ["max", str(value)]
        case Least(value):
            return ["min", str(value)]
        case Latest(time_us, source, event_id, value):
            return ["latest", str(time_us), source, event_id, str(value)]
        case Average(total, events):
            return ["average", str(total), str(events)]
        case Unique(marks, limit):
            return ["unique_count", b64encode(b"".join(sorted(marks))).decode(), str(limit)]


def read_kept(parts: list[str]) -> Aggregate:
    """What `kept` has stored."""
    match parts:
        case ["max", value]:
            return Most(int(value))
        case ["min", value]:
            return Least(int(value))
        case ["latest", time_us, source, event_id, value]:
            return Latest(int(time_us), source, event_id, int(value))
        case ["average", total, events]:
            return Average(int(total), int(events))
        case ["unique_count", stored, limit]:
            marks = b64decode(stored)
            places = range(0, len(marks), MARK_BYTES)
            return Unique(frozenset(marks[place : place + MARK_BYTES] for place in places), int(limit))
    raise ValueError(f"{parts[:1]} is no aggregate")


def merged(parts: Iterable[Aggregate]) -> list[Aggregate]:
    """What it comes to through each of them: of one kind, at least one."""
    return list(accumulate(parts, lambda one, other: one.merge(other)))


def spread(through: Sequence[int]) -> list[int]:
    """What each segment adds, of the nano-units that it comes to through each: never below 0, and in all the last.

    What a later segment takes back, by a lower average say, is taken from the latest of those before it."""
    reached = list(accumulate(reversed(through), min))[::-1]
    return [after - before for after, before in zip(reached, [0, *reached], strict=False)]
