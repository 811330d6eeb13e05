"""What follows from an account's table and lots: spend, what each price owes, and, when asked for, who pays."""

from collections.abc import Mapping

from engine.bases import CHARGED, LIST, Bases
from engine.charges import Running
from engine.closing import Amounts
from engine.credit import Allocation, Lot, allocate
from engine.quantity_grants import Served


class Derived:
    """All money of an account, derived from its table, lots and woken instant. Who pays is worked out when asked for."""

    def __init__(
        self,
        spend: dict[int, int],
        running: dict[tuple[int, str], Running],
        amounts: Amounts,
        lots: dict[str, Lot],
        woken_us: int,
        served: Served,
        taken: dict[str, int],
        bases: Bases,
        waived: dict[int, int] | None = None,
    ) -> None:
        self.spend = spend  # calendar month start -> pico
        self.running = running  # (period start, price) -> what it owes
        self.served = served  # what quantity grants took
        self.taken = taken  # quantity grant -> nano-units of that
        self.waived = waived or {}  # segment start -> pico of its spend that is not owed
        self._allocated = amounts, lots, woken_us
        self._bases = bases
        self._listed: dict[int, int] | None = None
        self._allocation: Allocation | None = None

    @property
    def allocation(self) -> Allocation:
        if self._allocation is None:
            self._allocation = allocate(*self._allocated)
        return self._allocation

    def on(self, basis: str) -> Mapping[int, int]:
        """Pico by calendar month's start: what is charged, or what caps of another basis count."""
        if basis == CHARGED:
            return self.spend
        if basis == LIST:
            if self._listed is None:
                self._listed = self._bases.listed()
            return self._listed
        return self._bases.due(self._allocated[0], self.allocation.unpaid)

    def paid(self, start: int, period: int) -> tuple[dict[str, int], dict[str, int], int] | None:
        """Of a segment with usage, or with what was posted in it for a period: pico per price; pico per lot, and
        pico of debt, that its charges add to what lots have burnt and not got back, and to debt, on top of all usage up to
        it. Debts of it that a lot settled later count as that lot's; what is neither paid nor owed was refunded.

        Over all of them these sums are what is burnt and owed. None: nothing was used there."""
        amounts, lots, woken_us = self._allocated
        index = next((number for number, entry in enumerate(amounts) if entry[:2] == (start, period)), None)
        if index is None:
            return None
        before, after = (allocate(amounts[:end], lots, woken_us) for end in (index, index + 1))
        by_lot: dict[str, int] = {}
        for sign, allocation in ((-1, before), (1, after)):
            for lot in lots:
                by_lot[lot] = by_lot.get(lot, 0) + sign * allocation.unreturned(lot)
        debt = sum(after.debt.values()) - sum(before.debt.values())
        return amounts[index][2], {lot: pico for lot, pico in by_lot.items() if pico}, debt
