"""What does not add up: worked out anew from every reading of a period, each time it is asked for."""

from fractions import Fraction
from typing import NamedTuple


class Reading(NamedTuple):
    """What one event says. Of equal times the greater source counts as later, then the greater id."""

    time_us: int
    source: str
    id: str
    value: int | str  # nano; of a unique count, the value as a text that no other value has
    limit: int  # of different values in the cell and period


def aggregate_of(kind: str, readings: list[Reading]) -> int:
    """Nano-units that they come to."""
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
