"""What one account is sold: its plan, and the prices that were agreed for it alone (README, "Agreed prices").

The only place that knows which price is in force for an account at an instant: rating, checks, caps and views ask here.
"""

from bisect import bisect_right
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Final

import msgspec
from msgspec import Struct

from engine.catalog import BadCatalogue, Catalogue, CatalogueFault, Plan, PriceBook, PriceDefinition, agreed_price
from engine.prices.price import Price

AGREED_MAX: Final = 1_000  # agreements of one account: each is a boundary that derivation looks at
ELSEWHERE: Final = ("meter", "where")  # what an agreement does not say: it stays the plan's

_terms_decoder: Final = msgspec.json.Decoder(PriceDefinition)


class Agreement(Struct, frozen=True):
    """From an instant on, an account pays another price than its plan has under this name."""

    from_us: int
    plan: str  # whose price it is
    price: str
    terms: str | None = None  # the price as JSON, with its meter; None: the plan's own again
    adds_up: bool = True  # what its meter counts does


@lru_cache(maxsize=4096)
def compiled(name: str, terms: str, from_us: int, adds_up: bool) -> Price:
    """A price that was agreed, of its terms as JSON. Raises BadCatalogue."""
    return agreed_price(name, _terms_decoder.decode(terms), from_us, adds_up=adds_up)


def read_terms(stated: dict[str, Any], meter: str) -> PriceDefinition:
    """What stands in a command as a price: all that a catalogue says of one but its meter and cells. Raises
    BadCatalogue."""
    for key in ELSEWHERE:
        if key in stated:
            raise BadCatalogue([CatalogueFault(("terms", key), "stays the plan's: remove it")])
    try:
        return msgspec.convert({**stated, "meter": meter}, PriceDefinition)
    except msgspec.ValidationError as error:
        raise BadCatalogue([CatalogueFault(("terms",), str(error))]) from None


class Contract:
    """Immutable. `agreed` is in order of instant, then price."""

    def __init__(self, plan: str, agreed: Iterable[Agreement] = ()) -> None:
        self.plan = plan
        self.agreed = tuple(sorted(agreed, key=lambda each: (each.from_us, each.price, each.plan)))
        self._prices = [
            None if each.terms is None else compiled(each.price, each.terms, each.from_us, each.adds_up)
            for each in self.agreed
        ]
        self._starts = sorted({each.from_us for each in self.agreed})
        self._stated: dict[tuple[int, int], Plan] = {}  # by version, and how many starts are past
        self._in_force: dict[tuple[int, ...], Plan | None] = {}

    def with_agreed(self, agreement: Agreement) -> "Contract":
        """The contract with this in place of what was agreed of the same price for the same instant."""
        place = agreement.from_us, agreement.plan, agreement.price
        kept = [each for each in self.agreed if (each.from_us, each.plan, each.price) != place]
        return Contract(self.plan, [*kept, agreement])

    def around(self, time_us: int) -> tuple[int | None, int | None]:
        """The nearest instants at or before, and after, at which something agreed begins."""
        index = bisect_right(self._starts, time_us)
        return (
            self._starts[index - 1] if index else None,
            self._starts[index] if index < len(self._starts) else None,
        )

    def starts_within(self, after_us: int, until_us: int) -> list[int]:
        """The instants behind one, up to and with another, at which something agreed begins."""
        return self._starts[bisect_right(self._starts, after_us) : bisect_right(self._starts, until_us)]

    def stated_at(self, book: PriceBook, time_us: int) -> Plan | None:
        """The plan as it is published and agreed for an instant, whatever was so when its period began."""
        catalogue = book.at(time_us)
        return None if catalogue is None else self.stated_in(catalogue, time_us)

    def stated_in(self, catalogue: Catalogue, time_us: int) -> Plan | None:
        """The same by this version, which is in force at the instant."""
        plan = catalogue.plans.get(self.plan)
        if plan is None or not self._starts or time_us < self._starts[0]:
            return plan
        key = catalogue.version, bisect_right(self._starts, time_us)
        known = self._stated.get(key)
        if known is None:
            latest: dict[str, Price | None] = {}
            for each, price in zip(self.agreed, self._prices, strict=True):
                if each.from_us <= time_us and each.plan == self.plan:
                    latest[each.price] = price
            agreed = {
                name: price
                for name, price in latest.items()
                if price is not None and name in plan.prices and plan.prices[name].counts_like(price)
            }
            known = self._stated[key] = plan.replacing(agreed) if agreed else plan
        return known

    def plan_at(self, book: PriceBook, time_us: int, period_us: int) -> Plan | None:
        """The plan as it is in force at an instant of a period that starts at `period_us`: a price that is no sum of its
        units neither begins nor ends inside a period. None: it is not sold."""
        if not self._starts:
            return book.plan_at(self.plan, time_us, period_us)
        key = (*book.places(period_us, time_us), *(bisect_right(self._starts, each) for each in (period_us, time_us)))
        if key not in self._in_force:
            within = {*book.starts_within(period_us, time_us), *self.starts_within(period_us, time_us)}
            stated = [self.stated_at(book, instant) for instant in (period_us, *sorted(within))]
            *earlier, last = stated
            sold = [plan.prices for plan in earlier if plan is not None]
            self._in_force[key] = None if last is None else last.following(sold)
        return self._in_force[key]

    def begins(self, book: PriceBook, agreement: Agreement, period_us: int) -> bool:
        """Whether what was agreed takes effect at its instant, which lies in this period, and not only with the next."""
        plan = self.stated_at(book, agreement.from_us)
        if agreement.from_us == period_us or plan is None or agreement.price not in plan.prices:
            return True
        before = self.plan_at(book, agreement.from_us - 1, period_us)
        held = None if before is None else before.prices.get(agreement.price)
        return held is None or (held.marginal and plan.prices[agreement.price].marginal)
