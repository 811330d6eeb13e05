"""What a quantity owes under a price: per unit and graduated tiers (laws R1, M2).

`Price.numerator(q) / Price.denominator` is the exact amount A(q) in pico; rounding is left to the one place that
rounds (`engine/charges.py`).
"""

from fractions import Fraction
from math import lcm

from msgspec import Struct

from engine.money import NANO


class Tier(Struct, frozen=True, gc=False):
    """Units in (start, end] cost `rate / Price.denominator` pico per nano-unit."""

    start: int  # nano-units
    end: int | None  # nano-units; None for the last tier
    rate: int
    unit_pico: int | None  # pico per whole unit where that is a whole number: no division on the fast path


class Price(Struct, frozen=True):
    """A compiled price of one plan."""

    name: str
    meter: str
    where: dict[str, str]
    tiers: tuple[Tier, ...]
    denominator: int

    def numerator(self, quantity: int) -> int:
        """denominator × A(quantity), exact; quantity in nano-units, not negative."""
        total = 0
        for tier in self.tiers:
            if quantity <= tier.start:
                break
            reached = quantity if tier.end is None else min(quantity, tier.end)
            total += (reached - tier.start) * tier.rate
        return total

    @property
    def rates(self) -> tuple[tuple[Tier, ...], int]:
        """What it costs, as something that can be compared and looked up: of two prices with the same, one will do."""
        return self.tiers, self.denominator

    @property
    def dearest_rate(self) -> Fraction:
        """The most that a nano-unit can cost, in pico, whatever is used."""
        return Fraction(max(tier.rate for tier in self.tiers), self.denominator)

    @property
    def cheapest_rate(self) -> Fraction:
        """The least that a nano-unit can cost, in pico, whatever is used."""
        return Fraction(min(tier.rate for tier in self.tiers), self.denominator)

    def dearest_span(self, low: int, high: int, quantity: int) -> int:
        """denominator × the most that `quantity` can cost on top of a use from low to high, one behind the other.

        What it costs is a piecewise linear function of the use before it, which turns where either end of the span
        meets the edge of a tier: the dearest lies at such a turn, or at low or high."""
        turns = {low, high}
        for tier in self.tiers[:-1]:
            assert tier.end is not None
            turns.update(turn for turn in (tier.end, tier.end - quantity) if low < turn < high)
        return max(self.numerator(turn + quantity) - self.numerator(turn) for turn in turns)

    def dearest_pick(self, low: int, high: int, quantity: int) -> int:
        """denominator × the cost of the dearest `quantity` of the units in (low, high], which may lie apart."""
        spans = []
        for tier in self.tiers:
            inside = (high if tier.end is None else min(high, tier.end)) - max(low, tier.start)
            if inside > 0:
                spans.append((tier.rate, inside))
        total, wanted = 0, quantity
        for rate, inside in sorted(spans, reverse=True):
            picked = min(wanted, inside)
            total += picked * rate
            wanted -= picked
        return total

    def tier_at(self, quantity: int) -> Tier:
        """The tier in which the next unit falls when `quantity` is already used."""
        for tier in self.tiers:
            if tier.end is None or quantity < tier.end:
                return tier
        raise AssertionError(f"price {self.name}: the last tier must be open")

    def lines(self, before: int, after: int) -> tuple[tuple[int, int], ...]:
        """(tier number from 1, nano-units) of the units in (before, after]: law A2."""
        found = []
        for number, tier in enumerate(self.tiers, start=1):
            low = max(before, tier.start)
            high = after if tier.end is None else min(after, tier.end)
            if low < high:
                found.append((number, high - low))
        return tuple(found)


def compile_price(name: str, meter: str, where: dict[str, str], tiers: list[tuple[int | None, int, int]]) -> Price:
    """A price from (up_to in nano-units or None, amount in pico, per in nano-units) in rising order."""
    rates = [Fraction(amount, per) for _, amount, per in tiers]
    denominator = lcm(*(rate.denominator for rate in rates))
    compiled = []
    start = 0
    for (up_to, _, _), rate in zip(tiers, rates, strict=True):
        unit = rate * NANO
        compiled.append(Tier(start, up_to, int(rate * denominator), int(unit) if unit.denominator == 1 else None))
        start = up_to if up_to is not None else start
    return Price(name, meter, where, tuple(compiled), denominator)
