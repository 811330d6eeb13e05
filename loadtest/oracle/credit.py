"""Lots, and who pays for what."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Change:
    at: int
    kind: str  # void, refund
    amount: int | None  # None: all that is left, and the lot is over


@dataclass(frozen=True)
class Carry:
    source: str  # the lot whose rest it is
    percent: int
    cap: int | None


@dataclass(frozen=True)
class Lot:
    lot: str
    kind: str
    granted: int
    priority: int
    effective: int
    expires: int | None
    scope: frozenset[str]
    pays_debt: bool | None = None
    changes: tuple[Change, ...] = ()
    carry: Carry | None = None  # it has what another left at this one's beginning

    def valid(self, instant: int) -> bool:
        return self.effective <= instant and (self.expires is None or instant < self.expires)

    def voided(self, instant: int) -> bool:
        return any(change.amount is None and change.at <= instant for change in self.changes)

    def over(self, instant: int) -> bool:
        """Whether it pays for nothing from then on."""
        return self.voided(instant) or (self.expires is not None and self.expires <= instant)

    def settles(self) -> bool:
        return self.kind == "paid" if self.pays_debt is None else self.pays_debt

    def may_pay(self, price: str) -> bool:
        """The price's usage; or, behind a NUL, what a period owes for it besides: only who pays debt pays that."""
        kind, _, name = price.rpartition("\0")
        return (not self.scope or name in self.scope) and (not kind or self.settles())

    def boundaries(self) -> list[int]:
        instants = [self.effective, *(change.at for change in self.changes)]
        return instants if self.expires is None else [*instants, self.expires]

    def order(self) -> tuple[int, bool, int, int, str]:
        return (self.priority, self.expires is None, self.expires or 0, self.effective, self.lot)


Amounts = dict[int, dict[str, int]]  # segment start -> price -> pico
Adjusted = dict[
    tuple[int, int, int], dict[str, int]
]  # (segment of posting, closed period's start and end) -> price -> pico


@dataclass
class Paid:
    """Where the money is; per lot, granted + given back = left + burnt + voided + carried (what is left when it expires,
    expires)."""

    granted: dict[str, int]
    left: dict[str, int]
    burns: dict[str, dict[int, int]]  # lot -> segment -> pico
    backs: dict[str, dict[int, int]] = field(default_factory=dict)  # lot -> segment -> pico of it that came back
    voids: dict[str, int] = field(default_factory=dict)
    carried: dict[str, int] = field(default_factory=dict)
    debts: dict[int, int] = field(default_factory=dict)  # segment -> pico
    unpaid: dict[int, int] = field(default_factory=dict)  # segment -> pico of its own that no lot paid there
    owed_back: dict[tuple[int, int], int] = field(default_factory=dict)  # [start, end) of a period -> pico

    @property
    def debt(self) -> int:
        """Below 0: the customer is owed."""
        return sum(self.debts.values()) - sum(self.owed_back.values())

    def owed_before(self, instant: int) -> int:
        """Of the debt, what is of usage before an instant at which a period begins."""
        back = sum(pico for (start, _), pico in self.owed_back.items() if start < instant)
        return sum(pico for segment, pico in self.debts.items() if segment < instant) - back

    def burnt(self, lot: str) -> int:
        return sum(self.burns[lot].values())

    def back(self, lot: str) -> int:
        return sum(self.backs.get(lot, {}).values())

    def pay(self, lot: str, segment: int, due: int) -> int:
        """What is still due."""
        paid = min(self.left[lot], due)
        self.left[lot] -= paid
        self.burns[lot][segment] = self.burns[lot].get(segment, 0) + paid
        return due - paid

    def owe(self, segment: int, due: int) -> None:
        """Debt of a segment: what its customer is owed for the same period is set off first."""
        for (start, end), back in self.owed_back.items():
            if start <= segment < end:
                self.owed_back[start, end] = max(0, back - due)
                due = max(0, due - back)
        self.debts[segment] = self.debts.get(segment, 0) + due

    def settle(self, lot: str) -> None:
        for segment in sorted(self.debts):
            self.debts[segment] = self.pay(lot, segment, self.debts[segment])

    def take_back(self, lot: str, wanted: int) -> dict[int, int]:
        """Of what the lot has burnt, the newest first: segment -> pico."""
        backs, taken = self.backs.setdefault(lot, {}), {}
        for segment in sorted(self.burns[lot], reverse=True):
            taken[segment] = min(wanted, self.burns[lot][segment] - backs.get(segment, 0))
            backs[segment] = backs.get(segment, 0) + taken[segment]
            wanted -= taken[segment]
        return taken

    def carry(self, lot: Lot, carry: Carry) -> None:
        part = self.left[carry.source] * carry.percent // 100
        if carry.cap is not None:
            part = min(part, carry.cap)
        self.left[carry.source] -= part
        self.carried[carry.source] = part
        self.granted[lot.lot] = self.left[lot.lot] = part

    def give_back(self, lots: list[Lot], instant: int, start: int, end: int, price: str, due: int) -> None:
        """Of what was paid or is owed for the usage of [start, end): debts first, then what lots burnt, last payer first,
        who may pay the price before others."""
        for segment in sorted(self.debts):
            if start <= segment < end:
                less = min(due, self.debts[segment])
                self.debts[segment] -= less
                due -= less
        payers = [lot for lot in reversed(lots) if not lot.voided(instant)]
        for lot in [*(lot for lot in payers if lot.may_pay(price)), *(lot for lot in payers if not lot.may_pay(price))]:
            backs, back = self.backs.setdefault(lot.lot, {}), 0
            for segment in sorted(self.burns[lot.lot]):
                if start <= segment < end:
                    part = min(due, self.burns[lot.lot][segment] - backs.get(segment, 0))
                    backs[segment] = backs.get(segment, 0) + part
                    back += part
                    due -= part
            self.left[lot.lot] += back
            if back and lot.settles() and lot.valid(instant):
                self.settle(lot.lot)
        self.owed_back[start, end] = self.owed_back.get((start, end), 0) + due

    def change(self, lot: Lot, change: Change) -> None:
        name, left = lot.lot, self.left[lot.lot]
        if change.kind == "refund":
            self.left[name] += sum(self.take_back(name, change.amount or 0).values())
            if lot.settles():
                self.settle(name)
            return
        gone = left if change.amount is None else min(left, change.amount)
        self.left[name] -= gone
        if change.amount is not None:
            for segment, pico in self.take_back(name, change.amount - gone).items():
                self.owe(segment, pico)
                gone += pico
        self.voids[name] = self.voids.get(name, 0) + gone


def counted(lots: list[Lot], instant: int) -> list[Lot]:
    """Those of which what is left is in the balance. What is carried is there as soon as it is left, if the lot that left it
    has begun."""
    begins = {lot.lot: lot.effective for lot in lots}
    return [
        lot
        for lot in lots
        if lot.valid(instant) or (lot.carry is not None and begins[lot.carry.source] <= instant < lot.effective)
    ]


def allocate(amounts: Amounts, adjusted: Adjusted, lots: list[Lot], woken: int) -> Paid:
    """`lots` come in the order in which they pay."""
    granted = {lot.lot: lot.granted for lot in lots}
    paid = Paid(granted, dict(granted), {lot.lot: {} for lot in lots})
    reached = max([woken, *amounts])
    carried = [(lot, lot.carry) for lot in lots if lot.carry and lot.effective <= reached]
    settling = [lot for lot in lots if lot.settles() and lot.effective <= woken]
    changes = [(lot, change) for lot in lots for change in lot.changes if change.kind == "void" or change.at <= woken]
    instants = {*amounts, *(lot.effective for lot in settling), *(change.at for _, change in changes)}
    instants |= {lot.effective for lot, _ in carried}
    for instant in sorted({*instants, *(posted for posted, _, _ in adjusted)}):
        for lot, carry in carried:
            if lot.effective == instant:
                paid.carry(lot, carry)
        for lot in settling:
            if lot.effective == instant:
                paid.settle(lot.lot)
        for lot, change in changes:
            if change.at == instant:
                paid.change(lot, change)
        valid = [lot for lot in lots if lot.valid(instant) and not lot.over(instant)]
        # What was posted here for the segment's own period is one sum with its usage; then others, the newest first.
        own = amounts.get(instant, {})
        for (posted, start, end), prices in sorted(adjusted.items(), key=lambda item: -item[0][1]):
            if posted == instant and instant < end:
                own = own | {price: own.get(price, 0) + pico for price, pico in prices.items()}
                paid.unpaid[instant] = bill(paid, lots, valid, instant, (start, end), instant, own)
                own = {}
        if own:
            paid.unpaid[instant] = charge(paid, valid, instant, own)
        for (posted, start, end), prices in sorted(adjusted.items(), key=lambda item: -item[0][1]):
            if posted == instant and instant >= end:
                bill(paid, lots, valid, instant, (start, end), start, prices)
    return paid


def bill(
    paid: Paid,
    lots: list[Lot],
    valid: list[Lot],
    instant: int,
    period: tuple[int, int],
    segment: int,
    prices: dict[str, int],
) -> int:
    """Amounts of both signs: those above 0 are paid as usage of the segment, then those below go back. What nobody paid."""
    unpaid = charge(paid, valid, segment, {price: pico for price, pico in prices.items() if pico > 0})
    for price, pico in sorted(prices.items()):
        if pico < 0:
            paid.give_back(lots, instant, *period, price, -pico)
    return unpaid


def charge(paid: Paid, valid: list[Lot], segment: int, prices: dict[str, int]) -> int:
    """The valid lots pay, each class of prices from those that may; the rest is debt of the segment: how much."""
    unpaid = 0
    classes: dict[tuple[str, ...], int] = {}
    for price, amount in prices.items():
        payers = tuple(lot.lot for lot in valid if lot.may_pay(price))
        classes[payers] = classes.get(payers, 0) + amount
    for payers in sorted(classes, key=lambda payers: (len(payers), sorted(payers))):
        due = classes[payers]
        for lot in valid:
            if lot.lot in payers:
                due = paid.pay(lot.lot, segment, due)
        paid.owe(segment, due)
        unpaid += due
    return unpaid
