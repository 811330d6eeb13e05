"""What does not add up: worked out anew from every reading of a period, each time it is asked for."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any, NamedTuple

from loadtest.oracle.records import DeadLetterError


class Reading(NamedTuple):
    """What one event says. Of equal times the greater source counts as later, then the greater id."""

    time_us: int
    source: str
    id: str
    value: int | str  # nano; of a unique count, the value as a text that no other value has
    limit: int  # of different values in the cell and period
    points: int = 0  # of those that would be the answer next, how many are kept


class Known(NamedTuple):
    """Of a max, min or latest in a segment: the readings that can be told apart, the first one first, and the others."""

    first: tuple[Reading, ...] = ()
    others: tuple[Reading, ...] = ()
    best: Reading | None = None  # of the others, since there have been any
    points: int = 0  # how many are kept behind the first one


def comes_first(kind: str) -> Callable[[Reading], Any]:
    """What is greater of the reading that comes before another."""
    if kind == "latest":
        return lambda reading: reading[:4]
    return lambda reading: reading.value if kind == "max" else -int(reading.value)


def known_after(kind: str, known: Known, reading: Reading, is_back: bool) -> Known:
    """With the reading, or without it. Raises DeadLetterError where what comes first is no longer known."""
    rank, points = comes_first(kind), max(known.points, reading.points)
    first, others = list(known.first), list(known.others)
    if is_back:
        among = first if any(rank(each) == rank(reading) for each in first) else others
        among.remove(next(each for each in among if rank(each) == rank(reading)))
        if others and not first:
            raise DeadLetterError("not_cancellable")
    elif known.best is not None and rank(reading) < rank(known.best):
        others.append(reading)
    else:
        first = sorted([*first, reading], key=rank, reverse=True)
        first, others = first[: points + 1], others + first[points + 1 :]
    if not first:
        return Known()
    best = max(others + ([known.best] if known.best else []), key=rank) if others else None
    return Known(tuple(first), tuple(others), best, points)


def aggregate_of(kind: str, readings: list[Reading]) -> int:
    """Nano-units that they come to."""
    if not readings:
        return 0
    if kind == "unique_count":
        return len({reading.value for reading in readings}) * 10**9
    numbers = [int(reading.value) for reading in readings]
    if kind == "average":
        return round(Fraction(sum(numbers), len(numbers)))
    if kind == "latest":
        return int(max(readings).value)
    return max(numbers) if kind == "max" else min(numbers)


def added(kind: str, by_segment: dict[int, list[Reading]]) -> dict[int, int]:
    """What each segment adds to those before it: never less than nothing, as what a later one takes back is taken from
    the latest before it."""
    starts = sorted(by_segment)
    through = [
        aggregate_of(kind, [reading for start in starts[: place + 1] for reading in by_segment[start]])
        for place in range(len(starts))
    ]
    found, before = {}, 0
    for place, start in enumerate(starts):
        lasting = min(through[place:])
        found[start], before = lasting - before, lasting
    return found
