"""Lots, and who pays for what."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Lot:
    lot: str
    kind: str
    granted: int
    priority: int
    effective: int
    expires: int | None
    scope: frozenset[str]

    def valid(self, instant: int) -> bool:
        return self.effective <= instant and (self.expires is None or instant < self.expires)

    def may_pay(self, price: str) -> bool:
        return not self.scope or price in self.scope

    def order(self) -> tuple[int, bool, int, int, str]:
        return (self.priority, self.expires is None, self.expires or 0, self.effective, self.lot)


Amounts = dict[int, dict[str, int]]  # segment start -> price -> pico


def allocate(amounts: Amounts, lots: list[Lot], woken: int) -> tuple[dict[str, int], dict[int, int]]:
    """(what is burnt per lot, the debt per segment). `lots` come in the order in which they pay."""
    left = {lot.lot: lot.granted for lot in lots}
    debts: dict[int, int] = {}

    def pay(lot: Lot, due: int) -> int:
        paid = min(left[lot.lot], due)
        left[lot.lot] -= paid
        return due - paid

    settling = [lot for lot in lots if lot.kind == "paid" and lot.effective <= woken]
    for instant in sorted({*amounts, *(lot.effective for lot in settling)}):
        for lot in settling:
            if lot.effective == instant:
                for segment in sorted(debts):
                    debts[segment] = pay(lot, debts[segment])
        if instant not in amounts:
            continue
        classes: dict[tuple[str, ...], int] = {}
        valid = [lot for lot in lots if lot.valid(instant)]
        for price, amount in amounts[instant].items():
            payers = tuple(lot.lot for lot in valid if lot.may_pay(price))
            classes[payers] = classes.get(payers, 0) + amount
        for payers in sorted(classes, key=lambda payers: (len(payers), sorted(payers))):
            due = classes[payers]
            for lot in valid:
                if lot.lot in payers:
                    due = pay(lot, due)
            if due:
                debts[instant] = debts.get(instant, 0) + due
    return {lot.lot: lot.granted - left[lot.lot] for lot in lots}, debts
