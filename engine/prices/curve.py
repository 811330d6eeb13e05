"""What a quantity owes, as a function: stretches in which each begun `size` costs the same (laws R1, M2).

A curve starts at nothing for nothing, and never falls. Per unit is a size of one nano-unit; a package, any other. What
is due on entering a stretch (a tier's fee, a step) is in its `base`. Modifiers (law R5) make curves of curves.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from math import gcd, lcm
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from engine.money import round_half_even

# Numbers of tiers that no tier of a price has:
INCLUDED: Final = 0  # of units that an included quantity takes
BEYOND: Final = -1  # of units that a maximum gives away


class Rung(Struct, frozen=True):
    """A tier as published: `amount` for `per` nano-units of it up to `up_to`, and `fee` on entering it; pico."""

    up_to: int | None  # nano-units; None for the last
    amount: int
    per: int
    fee: int = 0
    begun: bool = False  # each begun `per` owes all of `amount`
    number: int = 0  # of the tier, from 1


class Stretch(Struct, frozen=True, gc=False):
    """Units in (start, end]. Money is a whole number of parts of a pico; the curve's denominator says how small."""

    start: int  # nano-units
    end: int | None  # nano-units; None for the last
    base: int  # what is owed just behind the start, before any unit of this stretch
    rate: int  # for each begun `size`
    size: int  # nano-units
    tier: int  # its number, from 1; or INCLUDED, or BEYOND

    def owed(self, quantity: int) -> int:
        """For a quantity inside."""
        return self.base - self.rate * ((self.start - quantity) // self.size)


class Curve:
    """See the module's docstring."""

    def __init__(self, stretches: Iterable[Stretch], denominator: int) -> None:
        self.stretches = tuple(stretches)
        self.denominator = denominator
        self._ends = tuple(stretch.end for stretch in self.stretches if stretch.end is not None)

    @property
    def included(self) -> int:
        """Nano-units that owe nothing because they are included."""
        first = self.stretches[0]
        return first.end if first.tier == INCLUDED and first.end is not None else 0

    def numerator(self, quantity: int) -> int:
        """denominator × A(quantity), exact; nano-units, not negative."""
        if quantity <= 0:
            return 0
        return self.stretches[bisect_left(self._ends, quantity)].owed(quantity)

    def owed(self, quantity: int) -> int:
        """A(quantity) in pico, rounded once."""
        return round_half_even(self.numerator(quantity), self.denominator)

    def next_at(self, quantity: int) -> Stretch:
        """The stretch in which the next unit falls when `quantity` is already used."""
        return self.stretches[bisect_right(self._ends, quantity)]

    def parts(self, before: int, after: int) -> tuple[tuple[int, int], ...]:
        """(tier number, nano-units) of the units in (before, after]: law A2."""
        found: list[tuple[int, int]] = []
        for stretch in self.stretches:
            low = max(before, stretch.start)
            high = after if stretch.end is None else min(after, stretch.end)
            if low < high and found and found[-1][0] == stretch.tier:
                found[-1] = (stretch.tier, found[-1][1] + high - low)
            elif low < high:
                found.append((stretch.tier, high - low))
        return tuple(found)

    # -------------------------------------------------------------------------------------------------------- bounds

    @property
    def rates(self) -> Iterator[Fraction]:
        """Pico per nano-unit of each stretch; of packages, as an average."""
        return (Fraction(stretch.rate, stretch.size * self.denominator) for stretch in self.stretches)

    def entry(self, place: int) -> int:
        """denominator × what is due on entering a stretch."""
        stretch = self.stretches[place]
        return stretch.base - (self.stretches[place - 1].owed(stretch.start) if place else 0)

    @cached_property
    def entries(self) -> tuple[int, ...]:
        """What is due on entering each stretch."""
        return tuple(self.entry(place) for place in range(len(self.stretches)))

    @cached_property
    def is_smooth(self) -> bool:
        """Whether nothing is due at once for a unit, but by its own rate."""
        return not any(self.entries) and all(stretch.size == 1 or not stretch.rate for stretch in self.stretches)

    def dearest_span(self, low: int, high: int, quantity: int) -> int:
        """denominator × the most that `quantity` can owe on top of a use from low to high, one behind the other.

        That is a function of the use before it, linear or in even jumps between the instants at which one end of the
        span meets the edge of a stretch; inside, it is dearest at such an edge, or at the first or last jump. (Two
        stretches of packages, of unlike sizes, would have more turns. No model makes them.)"""
        marks = {low, high}
        for end in self._ends:
            for mark in (end, end + 1, end - quantity, end + 1 - quantity):
                if low < mark < high:
                    marks.add(mark)
        edges = sorted(marks)
        for first, last in pairwise(edges):
            for stretch in self.stretches:
                if stretch.size > 1:
                    for jump in (stretch.start, stretch.start + 1 - quantity):
                        marks.add(min(last, first + (jump - first) % stretch.size))
                        marks.add(max(first, last - (last - jump) % stretch.size))
        return max(self.numerator(mark + quantity) - self.numerator(mark) for mark in marks)

    def dearest_pick(self, low: int, quantity: int, pieces: int) -> int:
        """denominator × the most that `quantity`, in at most so many pieces, can owe anywhere behind `low`."""
        if quantity <= 0:
            return 0
        pieces = min(pieces, quantity)
        total, spans = 0, []
        for stretch, entry in zip(self.stretches, self.entries, strict=True):
            if stretch.end is not None and stretch.end <= low:
                continue
            if stretch.start >= low:
                total += entry
            if stretch.size > 1:
                total += stretch.rate * (pieces + (quantity - pieces) // stretch.size)
            else:
                inside = quantity if stretch.end is None else stretch.end - max(low, stretch.start)
                spans.append((stretch.rate, inside))
        wanted = quantity
        for rate, inside in sorted(spans, reverse=True):
            picked = min(wanted, inside)
            total += picked * rate
            wanted -= picked
        last = self.stretches[-1]
        return total if last.rate else min(total, last.base - self.numerator(low))

    # ----------------------------------------------------------------------------------------------------- modifiers

    def behind(self, included: int, tier: int = INCLUDED) -> "Curve":
        """The first `included` nano-units owe nothing, in a tier of this number; the count begins behind them."""
        if not included:
            return self
        first = Stretch(0, included, 0, 0, 1, tier)
        moved = (
            Stretch(
                each.start + included,
                None if each.end is None else each.end + included,
                each.base,
                each.rate,
                each.size,
                each.tier,
            )
            for each in self.stretches
        )
        return Curve([first, *moved], self.denominator)

    def until(self, end: int | None) -> "Curve":
        """As if nothing were owed for what lies behind `end`."""
        return self if end is None else self._level(end, self.numerator(end))

    def capped(self, maximum: int) -> "Curve":
        """At most so many pico."""
        level = maximum * self.denominator
        for place, each in enumerate(self.stretches):
            if each.base > level:
                # Entering it already owes more; what lies before it does not.
                return self._level(each.start, level) if place else Curve([_flat(0, level)], self.denominator)
            last = each.start + (level - each.base) // each.rate * each.size if each.rate else None
            if last is not None and (each.end is None or last < each.end):
                return self._level(last, level)
        return self

    def _level(self, end: int, level: int) -> "Curve":
        """This curve up to `end`, and `level` behind it."""
        kept = []
        for each in self.stretches:
            if each.start >= end:
                break
            if each.end is None or each.end > end:
                each = Stretch(each.start, end, each.base, each.rate, each.size, each.tier)
            kept.append(each)
        return Curve([*kept, _flat(end, level)], self.denominator)

    def beyond(self, level: int, factor: Fraction) -> "Curve":
        """What is owed above so many pico counts by the factor, and what is owed up to them as it stands.

        The size (a nano-unit, a package) that crosses the level is a stretch of its own, so that nothing but its own rate is
        ever due for it."""
        if factor == 1:
            return self
        edge, denominator = level * self.denominator, self.denominator * factor.denominator

        def owed(numerator: int) -> int:
            above = max(0, numerator - edge)
            return (numerator - above) * factor.denominator + above * factor.numerator

        found: list[Stretch] = []
        for each in self.stretches:
            cuts = [each.start]
            if each.rate and each.base < edge:
                below = each.start + (edge - each.base) // each.rate * each.size
                cuts += [below, below + each.size]
            starts = sorted({cut for cut in cuts if each.end is None or cut < each.end})
            for start, end in zip(starts, [*starts[1:], each.end], strict=True):
                base = each.base + each.rate * ((start - each.start) // each.size)
                rate = owed(base + each.rate) - owed(base)
                found.append(Stretch(start, end, owed(base), rate, each.size, each.tier))
        return _reduced(found, denominator)

    def scaled(self, factor: Fraction) -> "Curve":
        """Everything times a factor that is not negative."""
        if factor == 1:
            return self
        stretches = (
            replace(each, base=each.base * factor.numerator, rate=each.rate * factor.numerator)
            for each in self.stretches
        )
        return _reduced(stretches, self.denominator * factor.denominator)


def _reduced(stretches: Iterable[Stretch], denominator: int) -> Curve:
    """Of the same money in the largest parts of a pico that it is a whole number of."""
    stretches = tuple(stretches)
    shared = gcd(denominator, *(number for each in stretches for number in (each.base, each.rate)))
    return Curve(
        (replace(each, base=each.base // shared, rate=each.rate // shared) for each in stretches),
        denominator // shared,
    )


def _flat(start: int, level: int) -> Stretch:
    return Stretch(start, None, level, 0, 1, BEYOND)


def curve_of(rungs: Iterable[Rung]) -> Curve:
    """The curve of tiers in rising order, each unit in its own tier; the last one is open."""
    rungs = tuple(rungs)
    rates = [Fraction(rung.amount, 1 if rung.begun else rung.per) for rung in rungs]
    denominator = lcm(*(rate.denominator for rate in rates))
    stretches: list[Stretch] = []
    start, owed = 0, 0
    for rung, rate in zip(rungs, rates, strict=True):
        size = rung.per if rung.begun else 1
        base = owed + rung.fee * denominator
        stretch = Stretch(start, rung.up_to, base, int(rate * denominator), size, rung.number)
        stretches.append(stretch)
        if rung.up_to is not None:
            start, owed = rung.up_to, stretch.owed(rung.up_to)
    return Curve(stretches, denominator)
