"""What is owed, as a function of quantities: law R1's A, per segment of event time (README, "What is owed").

An account's usage is one table, segment start -> {(price, cell): quantity}. Amounts are never stored: they are
derived here, so that they cannot drift from the quantities, nor depend on the order of arrival.
"""

from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction

from engine.meters import Cell
from engine.money import round_half_even
from engine.prices import Price

Row = dict[tuple[str, Cell], int]  # (price name, cell) -> nano-units
Table = dict[int, Row]  # by segment start, microseconds
PriceAt = Callable[[int, str], Price]  # (event time, price name) -> the price in force


class Running:
    """What one price owes in one period, while its segments are walked in time order."""

    __slots__ = ("_carried", "_price", "_since", "amount", "quantity")

    def __init__(self, price: Price) -> None:
        self.quantity = 0  # nano-units so far
        self.amount = 0  # pico so far, rounded once on the exact cumulative amount
        self._price = price
        self._carried = Fraction(0)  # exact pico owed when this version of the price came into force
        self._since = 0  # nano-units used by then

    def _exact(self) -> tuple[int, int]:
        numerator = self._price.numerator(self.quantity)
        if self._since:
            numerator -= self._price.numerator(self._since)
        if not self._carried:
            return numerator, self._price.denominator
        exact = self._carried + Fraction(numerator, self._price.denominator)
        return exact.numerator, exact.denominator

    @property
    def whole(self) -> bool:
        """Whether the exact amount is a whole number of pico, so that whole charges can simply be added."""
        numerator, denominator = self._exact()
        return numerator % denominator == 0

    def add(self, price: Price, quantity: int) -> int:
        """Use `quantity` more under the version `price`; the pico that this adds."""
        if price is not self._price:
            self._carried = Fraction(*self._exact())
            self._since = self.quantity
            self._price = price
        self.quantity += quantity
        before = self.amount
        self.amount = round_half_even(*self._exact())
        return self.amount - before


def by_price(row: Row) -> dict[str, int]:
    """A segment's quantity per price: the sum over the cells that the price matches."""
    totals: dict[str, int] = {}
    for (name, _), quantity in row.items():
        totals[name] = totals.get(name, 0) + quantity
    return totals


def segments(
    table: Mapping[int, Row], period_of: Callable[[int], int], price_at: PriceAt
) -> Iterator[tuple[int, int, dict[str, int], dict[tuple[int, str], Running]]]:
    """(segment start, its period's start, pico per price, what runs) in time order."""
    running: dict[tuple[int, str], Running] = {}
    for start in sorted(table):
        period = period_of(start)
        amounts = {}
        for name, quantity in sorted(by_price(table[start]).items()):
            price = price_at(start, name)
            run = running.get((period, name))
            if run is None:
                run = running[period, name] = Running(price)
            amounts[name] = run.add(price, quantity)
        yield start, period, amounts, running
