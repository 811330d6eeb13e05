"""What does not add up: max, min, latest, average and unique count (law R3), and how it is taken back (law D3).

An account keeps one small aggregate per (segment, price, cell). Aggregates merge, in any order and grouping, to the same
one; so what a period comes to does not depend on the order of arrival. An event that is counted is an aggregate, too.
"""

from base64 import b64decode, b64encode
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, Final, Literal

import msgspec
import xxhash
from msgspec import Struct

from engine.meters.fields import Key
from engine.money import NANO, round_half_even

Kind = Literal["max", "min", "latest", "average", "unique_count"]
KINDS: Final[tuple[Kind, ...]] = ("max", "min", "latest", "average", "unique_count")
RISING: Final = frozenset({"max", "unique_count"})  # one event more never makes less of it
RANKED: Final = frozenset({"max", "min", "latest"})  # one of the readings is the answer
MARK_BYTES: Final = 12  # of the hash by which a counted value is known again
UNIQUE_MAX: Final = 1_000  # different values in a cell and period, if the meter does not say
UNIQUE_LIMIT: Final = 10_000  # and what it may say
POINTS: Final = 8  # readings that are kept behind the answer, if the meter does not say
POINTS_MAX: Final = 1_000  # and what it may say

Rank = tuple[int] | tuple[int, str, str, int]  # the greatest comes first; its last part is the value, of a min below 0


class TooManyValues(ValueError):
    """A unique count would hold more different values than its meter allows."""


class Forgotten(ValueError):
    """What would be the answer is not known any more."""


class NotCounted(ValueError):
    """What is to be taken back was never counted."""


class Ranked(Struct, frozen=True):
    """Of max, min and latest. `known`: the readings that come first, in order, at least one. Of the `others` nothing is
    known but that none of them comes before the `bar`."""

    kind: Literal["max", "min", "latest"]
    known: tuple[Rank, ...]
    points: int  # how many are kept behind the first
    others: int = 0
    bar: Rank | None = None

    def merge(self, other: "Ranked") -> "Ranked":
        points = max(self.points, other.points)
        ranks = sorted(self.known + other.known, reverse=True)
        bars = [bar for bar in (self.bar, other.bar, *ranks[points + 1 : points + 2]) if bar is not None]
        if not bars:
            return Ranked(self.kind, tuple(ranks), points)
        bar = max(bars)
        known = tuple(rank for rank in ranks[: points + 1] if rank >= bar)  # behind it another may come before
        return Ranked(self.kind, known, points, self.others + other.others + len(ranks) - len(known), bar)

    def without(self, one: "Ranked") -> "Ranked | None":
        (rank,) = one.known
        if rank in self.known:
            place = self.known.index(rank)
            known = self.known[:place] + self.known[place + 1 :]
            if not known and self.others:
                raise Forgotten
            return Ranked(self.kind, known, self.points, self.others, self.bar) if known else None
        if self.bar is None or rank > self.bar:
            raise NotCounted
        left = self.others - 1
        return Ranked(self.kind, self.known, self.points, left, self.bar if left else None)

    @property
    def quantity(self) -> int:
        value = self.known[0][-1]
        return -value if self.kind == "min" else value


class Average(Struct, frozen=True):
    total: int  # nano-units
    events: int

    def merge(self, other: "Average") -> "Average":
        return Average(self.total + other.total, self.events + other.events)

    def without(self, one: "Average") -> "Average | None":
        left = Average(self.total - one.total, self.events - one.events)
        if left.total < 0 or (left.total and not left.events):
            raise NotCounted
        return left if left.events else None

    @property
    def quantity(self) -> int:
        return round_half_even(self.total, self.events)


class Unique(Struct, frozen=True):
    events: dict[bytes, int]  # by the mark of their value; never changed
    limit: int

    def merge(self, other: "Unique") -> "Unique":
        counted = dict(self.events)
        for mark, events in other.events.items():
            counted[mark] = counted.get(mark, 0) + events
        return Unique(counted, max(self.limit, other.limit))

    def without(self, one: "Unique") -> "Unique | None":
        ((mark, _),) = one.events.items()
        if mark not in self.events:
            raise NotCounted
        counted = {**self.events, mark: self.events[mark] - 1}
        if not counted[mark]:
            del counted[mark]
        return Unique(counted, self.limit) if counted else None

    @property
    def quantity(self) -> int:
        return len(self.events) * NANO


Aggregate = Ranked | Average | Unique


def mark_of(key: Key) -> bytes:
    """By which a counted value is known again. A text and a number that looks like it are two values."""
    return xxhash.xxh3_128_digest(msgspec.json.encode(key))[:MARK_BYTES]


def kept(aggregate: Aggregate) -> list[str]:
    """As it is stored: its kind, then what it holds, numbers as text. The same aggregate always the same."""
    match aggregate:
        case Ranked(kind, known, points, others, bar):
            ranks = known if bar is None else (*known, bar)
            return [kind, str(points), str(others), *(str(part) for rank in ranks for part in rank)]
        case Average(total, events):
            return ["average", str(total), str(events)]
        case Unique(events, limit):
            marks = sorted(events)
            again = (f"{place}:{events[mark]}" for place, mark in enumerate(marks) if events[mark] > 1)
            return ["unique_count", b64encode(b"".join(marks)).decode(), str(limit), " ".join(again)]


def read_kept(parts: list[str]) -> Aggregate:
    """What `kept` has stored."""
    match parts:
        case [("max" | "min") as kind, points, others, first, *more]:
            return _ranked(kind, points, others, [(int(value),) for value in (first, *more)])
        case ["latest", points, others, *stored] if stored and len(stored) % 4 == 0:
            ranks: list[Rank] = [
                (int(stored[at]), stored[at + 1], stored[at + 2], int(stored[at + 3]))
                for at in range(0, len(stored), 4)
            ]
            return _ranked("latest", points, others, ranks)
        case ["average", total, events]:
            return Average(int(total), int(events))
        case ["unique_count", stored_marks, limit, again]:
            joined = b64decode(stored_marks)
            marks = [joined[at : at + MARK_BYTES] for at in range(0, len(joined), MARK_BYTES)]
            counted = dict.fromkeys(marks, 1)
            for each in again.split():
                place, _, events = each.partition(":")
                counted[marks[int(place)]] = int(events)
            return Unique(counted, int(limit))
    raise ValueError(f"{parts[:1]} is no aggregate")


def _ranked(kind: Literal["max", "min", "latest"], points: str, others: str, ranks: Sequence[Rank]) -> Ranked:
    """The last of the ranks is the bar, if there are others."""
    bar = ranks[-1] if int(others) else None
    return Ranked(kind, tuple(ranks if bar is None else ranks[:-1]), int(points), int(others), bar)


def merged(parts: Iterable[Aggregate]) -> list[Aggregate]:
    """What it comes to through each of them: of one kind, at least one."""
    return list(accumulate(parts, lambda one, other: one.merge(other)))


def without(whole: Aggregate | None, one: Aggregate) -> Aggregate | None:
    """The aggregate with one event less; None: nothing is left. Raises Forgotten and NotCounted."""
    if whole is None or type(whole) is not type(one):
        raise NotCounted
    less: Callable[[Any], Aggregate | None] = whole.without
    return less(one)


def spread(through: Sequence[int]) -> list[int]:
    """What each segment adds, of the nano-units that it comes to through each: never below 0, and in all the last.

    What a later segment takes back, by a lower average say, is taken from the latest of those before it."""
    reached = list(accumulate(reversed(through), min))[::-1]
    return [after - before for after, before in zip(reached, [0, *reached], strict=False)]
