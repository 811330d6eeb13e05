"""What the calendar months of an account come to on each basis that a cap on money may have (README, "Caps and rules").

What is charged is known anyway. The rest is worked out when a cap asks for it.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from engine.catalog import PriceBook
from engine.charges import Table, segments
from engine.closing import Amounts
from engine.contract import Contract
from engine.prices.price import Price
from engine.quantity_grants import QuantityGrant, Service

CHARGED: Final = "charged"  # behind the discount, before credit
LIST: Final = "list"  # before the discount
DUE: Final = "due"  # behind credit: what becomes debt
BASES: Final = (CHARGED, LIST, DUE)  # what a cap on money may count


class Bases:
    """Of one table, under what was sold."""

    __slots__ = ("_book", "_contract", "_grants", "_month_of", "_table")

    def __init__(
        self,
        table: Table,
        contract: Contract,
        book: PriceBook,
        grants: Iterable[QuantityGrant],
        month_of: Callable[[int], int],
    ) -> None:
        self._table = table
        self._contract = contract
        self._book = book
        self._grants = grants
        self._month_of = month_of

    def listed(self) -> dict[int, int]:
        """Pico before discounts, by the month's start."""
        sold = self._contract.prices_at(self._book)

        def price_at(time_us: int, name: str) -> Price:
            return sold(time_us, name).listed

        service, found = Service(self._grants), dict[int, int]()
        for start, _, by_price, _ in segments(self._table, self._contract.period_of, price_at, service):
            month = self._month_of(start)
            found[month] = found.get(month, 0) + sum(by_price.values())
        return found

    def due(self, amounts: Amounts, unpaid: Mapping[tuple[int, int], int]) -> dict[int, int]:
        """Pico that no lot paid of what the months' own segments came to, by the month's start. `unpaid`: as of an
        `Allocation` of the amounts."""
        found: dict[int, int] = {}
        for start, period, _ in amounts:
            if period == self._contract.period_of(start):
                month = self._month_of(start)
                found[month] = found.get(month, 0) + unpaid.get((start, period), 0)
        return found
