"""A compiled price: what the rest of the engine asks of it, whatever its model.

What a quantity owes may depend on the whole quantity of the period (volume): then a price has *terms*, a curve for each
range of that quantity. All others have one curve. Rounding is left to the one place that rounds (`engine/charges.py`).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

from engine.money import round_half_even
from engine.prices.curve import Curve
from engine.prices.per_event import PerEvent

Terms = tuple[int | None, Curve]  # up to which quantity of the period, and what then holds for all of it


class Price:
    """A price of one plan. `marginal`: another version may follow inside a period, as each unit stands by itself."""

    def __init__(
        self,
        name: str,
        meter: str,
        where: Mapping[str, str],
        terms: Sequence[Terms],
        *,
        marginal: bool = True,
        version: int = 0,
        per_event: PerEvent | None = None,
        estimate: int | None = None,
    ) -> None:
        self.name = name
        self.meter = meter
        self.where = where
        self.marginal = marginal
        self.version = version  # of the catalogue
        self.agreed_us: int | None = None  # from when on it is an account's own, and of no catalogue
        self.included = 0  # nano-units, of those that a short period has less of
        self.terms_for: Callable[[int], Sequence[Terms]] | None = None  # with another included quantity
        self.is_short = False  # it is one of a short period: its included quantity is not the published one
        self.minimum: int | None = None  # pico that a whole period owes at least
        self.prorates = True  # a short period owes less of that
        self.per_event = per_event  # its quantity is the sum of these fees, not of what the meter says
        self.estimate = estimate  # nano-units of an event that does not say its own
        self.terms = tuple(terms)  # two prices with the very same are of one version
        self.curves = tuple(curve for _, curve in terms)
        self.ends = tuple(end for end, _ in terms if end is not None)  # nano-units; of all terms but the last
        self.rounds = any(curve.denominator != 1 for curve in self.curves)  # whether it may owe part of a pico
        # Whether a charge is what each unit costs by the rate of the tier that explains it.
        self.is_even = len(self.curves) == 1 and self.curves[0].is_smooth
        rates = [rate for curve in self.curves for rate in curve.rates]
        self.steepest = max(rates)  # the most that a nano-unit can cost by its own rate, in pico; packages: on average
        free = not any(curve.stretches[-1].base or curve.stretches[-1].rate for curve in self.curves)
        # The most and the least that a nano-unit can cost, in pico, whatever is used; None: what comes at once has no rate.
        self.dearest_rate: Fraction | None = self.steepest if self.is_even or free else None
        steps = len(self.curves) > 1 or any(each.size > 1 for each in self.curves[0].stretches)
        self.cheapest_rate = Fraction(0) if steps else min(rates)

    @property
    def is_published(self) -> bool:
        """Whether it stands in the catalogue as it is: neither agreed with one account, nor that of a short period."""
        return self.agreed_us is None and not self.is_short

    def placed(self, where: Mapping[str, str]) -> "Price":
        """The same for these cells."""
        return self if self.where == where else self._like(where, self.terms)

    def for_part(self, part: Fraction, made: list[tuple["Price", "Price"]]) -> "Price":
        """The same in a period that is a part of a whole one: it includes less, fixed to nine digits, half-even. `made`:
        as of `Plan.for_part`."""
        if self.terms_for is None:
            return self
        for whole, short in made:
            if whole.terms is self.terms:
                return short.placed(self.where)
        exact = self.included * part
        included = round_half_even(exact.numerator, exact.denominator)
        price = self._like(self.where, self.terms_for(included))
        price.included, price.is_short = included, True
        made.append((self, price))
        return price

    def _like(self, where: Mapping[str, str], terms: Sequence[Terms]) -> "Price":
        price = Price(
            self.name,
            self.meter,
            where,
            terms,
            marginal=self.marginal,
            version=self.version,
            per_event=self.per_event,
            estimate=self.estimate,
        )
        price.agreed_us = self.agreed_us
        price.included, price.terms_for, price.is_short = self.included, self.terms_for, self.is_short
        price.minimum, price.prorates = self.minimum, self.prorates
        return price

    def counts_like(self, other: "Price") -> bool:
        """Whether the other's quantities can go on from this one's: both count the same, units or fees of events."""
        return self.meter == other.meter and (self.per_event is None) == (other.per_event is None)

    def curve_at(self, quantity: int) -> Curve:
        """What holds where a period comes to so many nano-units."""
        return self.curves[bisect_left(self.ends, quantity)] if self.ends else self.curves[0]

    def end_at(self, quantity: int) -> int | None:
        """Up to which quantity of the period that goes on."""
        place = bisect_left(self.ends, quantity)
        return self.ends[place] if place < len(self.ends) else None

    def exact(self, quantity: int) -> Fraction:
        """A(quantity): pico that a period owes for it, before rounding."""
        curve = self.curve_at(quantity)
        return Fraction(curve.numerator(quantity), curve.denominator)

    def owed(self, quantity: int) -> int:
        """A(quantity): pico that a period owes for it, rounded once."""
        return self.curve_at(quantity).owed(quantity)

    def is_like(self, other: "Price") -> bool:
        """Whether the other costs the same."""

        def told(price: Price) -> object:
            return price.ends, [(curve.stretches, curve.denominator) for curve in price.curves]

        return self is other or told(self) == told(other)

    # -------------------------------------------------------------------------------------------------------- bounds

    def curves_between(self, low: int, high: int) -> tuple[Curve, ...]:
        """What may hold where a period comes to something from low to high."""
        return self.curves[bisect_left(self.ends, low) : bisect_left(self.ends, high) + 1]

    def most_owed(self, low: int, high: int) -> int:
        """The most that a period can owe, in pico, if it comes to something from low to high: L4's maximum over s."""
        return max(curve.owed(high) for curve in self.curves_between(low, high))

    def most_own(self, used: int, quantity: int, pieces: int) -> Fraction:
        """The most, in pico, that `quantity` can be charged as its own (law R9) in so many pieces, if `used` is used by
        now, and others may use more before, between and behind them."""
        if len(self.curves) == 1:
            curve = self.curves[0]
            return Fraction(curve.dearest_pick(used, quantity, pieces), curve.denominator)
        return quantity * self.steepest + self.most_due(used)

    def most_due(self, used: int) -> Fraction:
        """The most, in pico, that can still fall due on entering a tier, of all tiers together."""
        dues = []
        for curve in self.curves:
            entries = zip(curve.stretches, curve.entries, strict=True)
            due = sum(entry for stretch, entry in entries if stretch.start >= used)
            dues.append(Fraction(due, curve.denominator))
        return max(dues)
