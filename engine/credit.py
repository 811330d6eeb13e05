"""Credit lots, and who pays for what: allocation as a function of amounts and lots (laws C1 to C4).

Nothing here is stored but the lots themselves; what is burnt, refunded, voided, expired, remaining and owed is derived.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from engine.period_lines import kind_and_price

LOT_KINDS: Final = frozenset({"paid", "promo", "commit", "refund"})
POSTING_KINDS: Final = ("grant", "burn", "refund", "void", "expire", "carry", "debt", "due")
NEVER: Final = 1 << 62  # sorts behind every expiry
Place = tuple[str, str, int | None]  # of the ledger: lot, kind of posting, usage period
UNBOUNDED: Final = 1 << 200  # beyond any amount or quantity that M1 admits
CARRIED: Final = "~carried"  # behind a lot's id: that of the lot which has its rest
DAY_US: Final = 86_400_000_000
LOT_CHANGES_MAX: Final = 100  # of one lot: each is a boundary, and so a segment of its own


class LotChange(Struct, frozen=True):
    """What was done to a lot at an instant that lies behind all usage rated until then.

    `void` takes the amount away (None: all that remains, and the lot is over): first what remains, then what was burnt,
    which becomes debt. `refund` gives back what was burnt."""

    at_us: int
    kind: Literal["void", "refund"]
    amount: int | None  # pico


class Carry(Struct, frozen=True):
    """What makes a lot of another's rest: `percent` of what remains of it at its expiry, at most `cap`."""

    source: str  # the lot that it comes from
    percent: int
    cap: int | None  # pico; None: without limit

    def of(self, rest: int) -> int:
        """Pico, rounded down: never more than the percentage."""
        carried = rest * self.percent // 100
        return carried if self.cap is None else min(carried, self.cap)


class Lot(Struct, frozen=True):
    """One credit grant. Half-open validity [effective, expires) by the event's own time."""

    lot: str
    kind: str
    granted: int  # pico; 0 for a lot that is carried: what it has is derived
    priority: int  # smaller pays first
    effective_us: int
    expires_us: int | None
    scope: tuple[str, ...]  # price names it may pay; empty: all
    pays_debt: bool | None = None  # None: as its kind does
    changes: tuple[LotChange, ...] = ()  # in order of time
    carry: Carry | None = None  # it is what another lot left when it expired, at the instant at which this one begins

    @property
    def order(self) -> tuple[int, int, int, str]:
        """Law C2: priority, earliest expiry, earliest effective, id."""
        return (self.priority, NEVER if self.expires_us is None else self.expires_us, self.effective_us, self.lot)

    @property
    def settles(self) -> bool:
        """Law C4: whether it pays debt when it becomes effective."""
        return self.kind == "paid" if self.pays_debt is None else self.pays_debt

    @property
    def ends_us(self) -> int | None:
        """From when on it pays for nothing: its expiry, or when its rest was voided."""
        if not self.changes:
            return self.expires_us
        voided = [change.at_us for change in self.changes if change.amount is None]
        return min([*voided, *([] if self.expires_us is None else [self.expires_us])], default=None)

    @property
    def boundaries(self) -> list[int]:
        """Where a segment of usage ends: what is paid by this lot before such an instant is not as behind it."""
        instants = [self.effective_us] if self.expires_us is None else [self.effective_us, self.expires_us]
        return [*instants, *(change.at_us for change in self.changes)] if self.changes else instants

    def covers(self, segment_start: int) -> bool:
        """Segments never straddle a lot's boundary, so the start decides."""
        ends_us = self.ends_us
        return self.effective_us <= segment_start and (ends_us is None or segment_start < ends_us)

    def may_pay(self, name: str) -> bool:
        """Whether it pays for this, by the name under which it is posted: usage of a price in its scope, and what a period
        owes besides, if it pays debt."""
        kind, price = kind_and_price(name)
        return (kind is None or self.settles) and (not self.scope or price in self.scope)

    def is_void(self, instant_us: int) -> bool:
        """Whether all that remained of it was voided by then."""
        return any(change.amount is None and change.at_us <= instant_us for change in self.changes)

    def expired(self, woken_us: int) -> bool:
        return self.expires_us is not None and self.expires_us <= woken_us


def carried(lot: Lot, carry: Carry, days: int) -> Lot:
    """The lot that will have what this one leaves when it expires."""
    assert lot.expires_us is not None
    return replace(
        lot,
        lot=lot.lot + CARRIED,
        granted=0,
        effective_us=lot.expires_us,
        expires_us=lot.expires_us + days * DAY_US,
        carry=carry,
    )


def posting_order(place: Place) -> tuple[int, str, int]:
    """The order in which changes of (lot, kind, usage period) are posted."""
    lot, kind, period = place
    return (POSTING_KINDS.index(kind), lot, period or 0)


_CARRIED, _BEGUN, _CHANGED = range(3)


class _Step(NamedTuple):
    """What befalls a lot between two segments: it gets another's rest, begins to pay debt, or is changed."""

    at_us: int
    rank: int  # of what happens at one instant: _CARRIED, then _BEGUN, then _CHANGED
    order: tuple[int, int, int, str]
    number: int  # among the changes of its lot
    lot: Lot
    change: LotChange | None


class Allocation:
    """Who paid for what, up to a log time.

    Per lot: granted + refunded = remaining + burnt + expired + carried + voided."""

    def __init__(self) -> None:
        self.granted: dict[str, int] = {}  # lot -> pico
        self.remaining: dict[str, int] = {}  # lot -> pico neither burnt nor expired nor voided
        self.expired: dict[str, int] = {}  # lot -> pico
        self.carried: dict[str, int] = {}  # lot -> pico that another lot got when it expired
        self.voided: dict[str, int] = {}  # lot -> pico
        self.burnt: dict[tuple[str, int], int] = {}  # (lot, usage period start) -> pico
        self.refunded: dict[tuple[str, int], int] = {}  # (lot, usage period start) -> pico of what was burnt
        self.debt: dict[int, int] = {}  # usage period start -> pico
        # (segment start, usage period start) -> pico that no lot paid there; a lot that settles debt later changes nothing
        self.unpaid: dict[tuple[int, int], int] = {}
        self.balance = 0  # what still counts, minus all debt
        self._settled_us = 0  # the last instant at which something befell a lot between segments
        self._lots: list[Lot] = []  # in their order
        self._to_come: set[str] = set()  # lots of which nothing is in the balance yet
        self._woken_us = 0

    def next_payer(self, start: int) -> tuple[str, int] | None:
        """Who pays for what more is charged in a segment that no other with usage follows, and for how much: (lot, pico);
        lot "" is debt. All of it is burnt, or owed, in the segment's period, and lowers the balance; nothing else changes.
        None: it is not as simple as that."""
        if self._settled_us > start:
            return None
        covering = [lot for lot in self._lots if lot.covers(start)]
        for lot in covering:
            if lot.scope or lot.expired(self._woken_us) or lot.lot in self._to_come:
                return None
        for lot in covering:
            if self.remaining[lot.lot]:
                return lot.lot, self.remaining[lot.lot]
        return "", UNBOUNDED

    def postings(self, billed_us: int = 0) -> dict[Place, int]:
        """All of it as the ledger sums it up: (lot, kind, usage period or None) -> pico; lot "" for debt, which is due of
        periods that begin before `billed_us`."""
        found: dict[Place, int] = {}
        for kind, by_lot in (("grant", self.granted), ("void", self.voided)):
            found |= {(lot, kind, None): pico for lot, pico in by_lot.items()}
        for kind, by_lot in (("expire", self.expired), ("carry", self.carried)):
            found |= {(lot, kind, None): pico for lot, pico in by_lot.items()}
        for kind, by_period in (("burn", self.burnt), ("refund", self.refunded)):
            found |= {(lot, kind, period): pico for (lot, period), pico in by_period.items()}
        found |= {("", "due" if period < billed_us else "debt", period): pico for period, pico in self.debt.items()}
        return found

    def unreturned(self, lot: str) -> int:
        """What a lot has burnt and not got back: pico."""
        burnt = sum(pico for (name, _), pico in self.burnt.items() if name == lot)
        return burnt - sum(pico for (name, _), pico in self.refunded.items() if name == lot)

    def _burn(self, lot: Lot, period: int, wanted: int) -> int:
        paid = min(wanted, self.remaining[lot.lot])
        if paid:
            self.remaining[lot.lot] -= paid
            self.burnt[lot.lot, period] = self.burnt.get((lot.lot, period), 0) + paid
        return paid

    def _owe(self, period: int, pico: int) -> None:
        """Below 0: less is owed. What would be owed by us stays as a debt below 0."""
        self.debt[period] = self.debt.get(period, 0) + pico
        if not self.debt[period]:
            del self.debt[period]

    def _settle_debts(self, lot: Lot) -> None:
        for period in [period for period in sorted(self.debt) if self.debt[period] > 0]:
            self.debt[period] -= self._burn(lot, period, self.debt[period])
            if self.debt[period]:
                break
            del self.debt[period]

    def _give_back(self, start: int, period: int, price: str, pico: int, ordered: list[Lot]) -> None:
        """What was paid too much for a period that is closed: what it still owes goes first, then what lots burnt for it
        comes back, in the reverse of the order in which they pay, those that may pay the price before others."""
        owed = min(pico, max(0, self.debt.get(period, 0)))
        self._owe(period, -owed)
        pico -= owed
        back = [lot for lot in reversed(ordered) if not lot.is_void(start)]
        for lot in sorted(back, key=lambda lot: not lot.may_pay(price)):
            place = (lot.lot, period)
            part = min(pico, self.burnt.get(place, 0) - self.refunded.get(place, 0))
            if part:
                self.refunded[place] = self.refunded.get(place, 0) + part
                self.remaining[lot.lot] += part
                pico -= part
                if lot.settles and lot.covers(start):
                    self._settle_debts(lot)
        self._owe(period, -pico)

    def _reverse(self, lot: Lot, wanted: int) -> list[tuple[int, int]]:
        """Take back what the lot has burnt, that of the newest usage period first: (usage period, pico)."""
        found = []
        for name, period in sorted(self.burnt, reverse=True):
            if name == lot.lot and wanted:
                earlier = self.refunded.get((name, period), 0)
                part = min(wanted, self.burnt[name, period] - earlier)
                if part:
                    self.refunded[name, period] = earlier + part
                    found.append((period, part))
                    wanted -= part
        return found

    def _take(self, step: _Step) -> None:
        lot, change = step.lot, step.change
        if step.rank == _CARRIED:
            assert lot.carry is not None
            source = lot.carry.source
            carried = lot.carry.of(self.remaining[source])
            self.remaining[source] -= carried
            self.carried[source] = self.granted[lot.lot] = self.remaining[lot.lot] = carried
        elif change is None:
            self._settle_debts(lot)
        elif change.kind == "void":
            rest = self.remaining[lot.lot]
            from_rest = rest if change.amount is None else min(rest, change.amount)
            reversed_ = self._reverse(lot, 0 if change.amount is None else change.amount - from_rest)
            for period, pico in reversed_:
                self._owe(period, pico)
            self.remaining[lot.lot] = rest - from_rest
            self.voided[lot.lot] = self.voided.get(lot.lot, 0) + from_rest + sum(pico for _, pico in reversed_)
        else:
            assert change.amount is not None
            self.remaining[lot.lot] += sum(pico for _, pico in self._reverse(lot, change.amount))
            if lot.settles:
                self._settle_debts(lot)


def allocate(
    amounts: Iterable[tuple[int, int, Mapping[str, int]]], lots: Mapping[str, Lot], woken_us: int
) -> Allocation:
    """Pay (segment start, usage period, pico per price), given in time order, from the lots.

    A lot pays usage whenever it covers the segment. It pays debt only if it `settles`: in the order in which lots
    become effective, and once log time has reached that instant."""
    result = Allocation()
    result._lots = ordered = sorted(lots.values(), key=lambda lot: lot.order)
    result._woken_us = woken_us
    result.granted = {lot.lot: lot.granted for lot in ordered}
    result.remaining = dict(result.granted)
    steps = _steps(ordered, woken_us)
    taken = 0
    for start, period, by_price in amounts:
        while taken < len(steps) and steps[taken].at_us <= start:
            result._take(steps[taken])
            taken += 1
        covering = [lot for lot in ordered if lot.covers(start)]
        if by_price and min(by_price.values()) < 0:  # what late usage or a manual line gives back
            owed = {name: pico for name, pico in by_price.items() if pico > 0}
            _pay_segment(result, start, period, owed, covering)
            for name, pico in sorted(by_price.items()):
                if pico < 0:
                    result._give_back(start, period, name, -pico, ordered)
        else:
            _pay_segment(result, start, period, by_price, covering)
    for step in steps[taken:]:
        if step.rank != _CARRIED or step.at_us <= woken_us:
            result._take(step)
            result._settled_us = step.at_us
    for lot in ordered:
        if lot.expired(woken_us):
            result.expired[lot.lot] = result.remaining[lot.lot]
            result.remaining[lot.lot] = 0
    # What was carried counts if what it was left by did: usage ahead of log time moves it, and no balance rises by usage.
    begins_us = {lot.lot: lots[lot.carry.source if lot.carry else lot.lot].effective_us for lot in ordered}
    result._to_come = {name for name, instant in begins_us.items() if instant > woken_us}
    counting = sum(pico for name, pico in result.remaining.items() if name not in result._to_come)
    result.balance = counting - sum(result.debt.values())
    return result


def _steps(ordered: list[Lot], woken_us: int) -> list[_Step]:
    """In order of time. What gives waits for log time; what takes away does not."""
    steps = []
    for lot in ordered:
        if lot.carry is not None:
            steps.append(_Step(lot.effective_us, _CARRIED, lot.order, 0, lot, None))
        if lot.settles and lot.effective_us <= woken_us:
            steps.append(_Step(lot.effective_us, _BEGUN, lot.order, 0, lot, None))
        for number, change in enumerate(lot.changes):
            if change.kind == "void" or change.at_us <= woken_us:
                steps.append(_Step(change.at_us, _CHANGED, lot.order, number, lot, change))
    return sorted(steps)


def _pay_segment(result: Allocation, start: int, period: int, by_price: Mapping[str, int], covering: list[Lot]) -> None:
    unpaid = 0
    for payers, pico in _classes(by_price, covering):
        for lot in payers:
            if not pico:
                break
            pico -= result._burn(lot, period, pico)
        unpaid += pico
    if unpaid:
        result.unpaid[start, period] = unpaid
        result._owe(period, unpaid)


def _classes(by_price: Mapping[str, int], covering: list[Lot]) -> list[tuple[list[Lot], int]]:
    """(the lots that may pay, the pico that they may pay), fewest lots first."""
    if not any(lot.scope for lot in covering) and all(kind_and_price(name)[0] is None for name in by_price):
        return [(covering, sum(by_price.values()))]
    classes: dict[tuple[str, ...], tuple[list[Lot], int]] = {}
    for name, pico in by_price.items():
        payers = [lot for lot in covering if lot.may_pay(name)]
        key = tuple(sorted(lot.lot for lot in payers))
        classes[key] = (payers, classes[key][1] + pico if key in classes else pico)
    return [classes[key] for key in sorted(classes, key=lambda key: (len(key), key))]
