"""A compiled price: what the rest of the engine asks of it, whatever its model.

What a quantity owes may depend on the whole quantity of the period (volume): then a price has *terms*, a curve for each
range of that quantity. All others have one curve. Rounding is left to the one place that rounds (`engine/charges.py`).
"""

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Literal

from msgspec import Struct

from engine.prices.curve import Curve
from engine.prices.per_event import PerEvent
from engine.prices.shared import SHARED, Shared

Terms = tuple[int | None, Curve]  # up to which quantity of the period, and what then holds for all of it


class Floor(Struct, frozen=True):
    """What a month owes at least for a price, behind its discount; what is missing is a line at the period's end."""

    kind: Literal["minimum", "commitment"]
    amount: int  # pico


class Short(Struct, frozen=True):
    """A price in a period that is a part of a month: of what is not as published, what it is."""

    included: int | None  # nano-units
    commitment: int | None  # pico behind which usage counts by the overage factor; 0: nobody is bound to it
    terms: tuple[Terms, ...]


InPart = Callable[
    [Fraction, Fraction], Short | None
]  # how much of a month, and for how much of it the account is bound


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
        self.in_part: InPart | None = None  # what becomes of it in a part of a month; None: it stays as it is
        self.short: Short | None = None  # what it is in such a period; None: it is as published
        self.floor: Floor | None = None  # what a whole month owes at least
        self.prorates = True  # a short period owes less of that
        self.has_overage = False  # beyond its commitment it costs other than up to it
        self.per_event = per_event  # its quantity is the sum of these fees, not of what the meter says
        self.estimate = estimate  # nano-units of an event that does not say its own
        self.shared: Shared | None = None  # the tiers that its units fill together with those of other prices
        self._alone = tuple(terms)  # its terms if it shared nothing
        self.undiscounted: Price | None = None  # the same before discount and overage, if it has any
        self.terms = tuple(terms)  # two prices with the very same are of one version
        self.curves = tuple(curve for _, curve in terms)
        self.ends = tuple(end for end, _ in terms if end is not None)  # nano-units; of all terms but the last
        self.rounds = any(curve.denominator != 1 for curve in self.curves)  # whether it may owe part of a pico
        # Whether a charge is what each unit costs by the rate of the tier that explains it.
        smooth = len(self.curves) == 1 and self.curves[0].is_smooth
        self.is_even = smooth and len({each.tier for each in terms[0][1].stretches}) == len(terms[0][1].stretches)
        rates = [rate for curve in self.curves for rate in curve.rates]
        self.steepest = max(rates)  # the most that a nano-unit can cost by its own rate, in pico; packages: on average
        free = not any(curve.stretches[-1].base or curve.stretches[-1].rate for curve in self.curves)
        # The most and the least that a nano-unit can cost, in pico, whatever is used; None: what comes at once has no rate.
        self.dearest_rate: Fraction | None = self.steepest if smooth or free else None
        steps = len(self.curves) > 1 or any(each.size > 1 for each in self.curves[0].stretches)
        self.cheapest_rate = Fraction(0) if steps else min(rates)

    @property
    def is_published(self) -> bool:
        """Whether it stands in the catalogue as it is: neither agreed with one account, nor that of a short period."""
        return self.agreed_us is None and self.short is None

    @property
    def only_rises(self) -> bool:
        """Whether what is used owes no less, whatever more is used."""
        return len(self.terms) == 1 and (self.shared is None or self.shared.free > 0)

    @property
    def listed(self) -> "Price":
        """The same before discount and overage."""
        return self if self.undiscounted is None else self.undiscounted.placed(self.where)

    def placed(self, where: Mapping[str, str]) -> "Price":
        """The same for these cells."""
        return self if self.where == where else self._like(where, self.terms, self.shared)

    def for_part(self, part: Fraction, bound: Fraction, made: list[tuple["Price", "Price"]]) -> "Price":
        """The same in a period that is a `part` of a month, for `bound` of which the account is there: it may include less,
        and a commitment be met sooner. `made`: as of `Plan.for_part`."""
        if self.in_part is None and self.shared is None:
            return self
        for whole, short in made:
            if whole.terms is self.terms and whole.shared == self.shared:
                return short.placed(self.where)
        found = None if self.in_part is None else self.in_part(part, bound)
        shared = None if self.shared is None else self.shared.for_part(part)
        price = self if shared == self.shared else self.sharing(shared)
        if found is not None:
            price = self._like(self.where, found.terms, self.shared)
            price.short = found
            if self.undiscounted is not None:
                price.undiscounted = self.undiscounted.for_part(part, bound, made)
        made.append((self, price))
        return price

    def sharing(self, shared: Shared | None) -> "Price":
        """The same that shares other tiers, or none. What is shared neither begins nor ends inside a period."""
        terms: Sequence[Terms] = self._alone
        if shared is not None and shared.free:
            terms = [(end, curve.behind(shared.free, SHARED)) for end, curve in terms]
        price = self._like(self.where, terms, shared)
        price.marginal, price._alone = False, self._alone
        if self.undiscounted is not None:
            price.undiscounted = self.undiscounted.sharing(shared)
        return price

    def _like(self, where: Mapping[str, str], terms: Sequence[Terms], shared: Shared | None) -> "Price":
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
        price.agreed_us, price.shared = self.agreed_us, shared
        if shared is not None:
            price._alone = self._alone
            price.is_even = True  # nothing is due on entering what is shared
        price.in_part, price.short = self.in_part, self.short
        price.floor, price.prorates, price.has_overage = self.floor, self.prorates, self.has_overage
        price.undiscounted = self.undiscounted
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
        if not self.ends:
            return self.curves[0].owed(high)
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
