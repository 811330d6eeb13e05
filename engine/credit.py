"""Credit lots, and who pays for what: allocation as a function of amounts and lots (laws C1 to C4).

Nothing here is stored but the lots themselves; what is burnt, expired, remaining and owed is derived.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from msgspec import Struct

LOT_KINDS: Final = frozenset({"paid", "promo", "commit", "refund"})
NEVER: Final = 1 << 62  # sorts behind every expiry


class Lot(Struct, frozen=True):
    """One credit grant. Half-open validity [effective, expires) by the event's own time."""

    lot: str
    kind: str
    granted: int  # pico
    priority: int  # smaller pays first
    effective_us: int
    expires_us: int | None
    scope: tuple[str, ...]  # price names it may pay; empty: all

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Law C2: priority, earliest expiry, earliest effective, id."""
        return (self.priority, NEVER if self.expires_us is None else self.expires_us, self.effective_us, self.lot)

    def covers(self, segment_start: int) -> bool:
        """Segments never straddle a lot's boundary, so the start decides."""
        return self.effective_us <= segment_start and (self.expires_us is None or segment_start < self.expires_us)

    def expired(self, woken_us: int) -> bool:
        return self.expires_us is not None and self.expires_us <= woken_us


class Allocation:
    """Who paid for what, up to a log time."""

    def __init__(self) -> None:
        self.remaining: dict[str, int] = {}  # lot -> pico neither burnt nor expired
        self.expired: dict[str, int] = {}  # lot -> pico
        self.burnt: dict[tuple[str, int], int] = {}  # (lot, usage period start) -> pico
        self.debt: dict[int, int] = {}  # usage period start -> pico
        self.balance = 0  # what still counts, minus all debt
        self._open_debts: list[list[int]] = []  # [usage period, pico], oldest first

    def _burn(self, lot: Lot, period: int, wanted: int) -> int:
        paid = min(wanted, self.remaining[lot.lot])
        if paid:
            self.remaining[lot.lot] -= paid
            self.burnt[lot.lot, period] = self.burnt.get((lot.lot, period), 0) + paid
        return paid

    def _settle_debts(self, lot: Lot) -> None:
        while self._open_debts and self.remaining[lot.lot]:
            debt = self._open_debts[0]
            debt[1] -= self._burn(lot, debt[0], debt[1])
            if not debt[1]:
                self._open_debts.pop(0)


def allocate(
    amounts: Iterable[tuple[int, int, Mapping[str, int]]], lots: Mapping[str, Lot], woken_us: int
) -> Allocation:
    """Pay (segment start, usage period, pico per price), given in time order, from the lots.

    A lot pays debt only when it is `paid`, in the order in which lots become effective, and once log time has
    reached that instant; it pays usage whenever it covers the segment."""
    result = Allocation()
    ordered = sorted(lots.values(), key=lambda lot: lot.order)
    result.remaining = {lot.lot: lot.granted for lot in ordered}
    settlers = sorted(
        (lot for lot in ordered if lot.kind == "paid" and lot.effective_us <= woken_us),
        key=lambda lot: (lot.effective_us, lot.order),
    )
    settled = 0
    for start, period, by_price in amounts:
        while settled < len(settlers) and settlers[settled].effective_us <= start:
            result._settle_debts(settlers[settled])
            settled += 1
        covering = [lot for lot in ordered if lot.covers(start)]
        _pay_segment(result, period, by_price, covering)
    for lot in settlers[settled:]:
        result._settle_debts(lot)
    for period, pico in result._open_debts:
        result.debt[period] = result.debt.get(period, 0) + pico
    for lot in ordered:
        if lot.expired(woken_us):
            result.expired[lot.lot] = result.remaining[lot.lot]
            result.remaining[lot.lot] = 0
    counting = sum(result.remaining[lot.lot] for lot in ordered if lot.effective_us <= woken_us)
    result.balance = counting - sum(result.debt.values())
    return result


def _pay_segment(result: Allocation, period: int, by_price: Mapping[str, int], covering: list[Lot]) -> None:
    unpaid = 0
    for payers, pico in _classes(by_price, covering):
        for lot in payers:
            if not pico:
                break
            pico -= result._burn(lot, period, pico)
        unpaid += pico
    if unpaid:
        result._open_debts.append([period, unpaid])


def _classes(by_price: Mapping[str, int], covering: list[Lot]) -> list[tuple[list[Lot], int]]:
    """(the lots that may pay, the pico that they may pay), fewest lots first."""
    if not any(lot.scope for lot in covering):
        return [(covering, sum(by_price.values()))]
    classes: dict[tuple[str, ...], tuple[list[Lot], int]] = {}
    for name, pico in by_price.items():
        payers = [lot for lot in covering if not lot.scope or name in lot.scope]
        key = tuple(sorted(lot.lot for lot in payers))
        classes[key] = (payers, classes[key][1] + pico if key in classes else pico)
    return [classes[key] for key in sorted(classes, key=lambda key: (len(key), key))]
