"""What an account comes to, at the dearest, when everything that is held of it is used (README, "Admitted").

A `Ledger` sums up the open holds of one account by segment and scope, so that nothing here grows with their number.
Mostly all of them lie in the newest segment: then what was paid before it is kept, and only that segment is weighed
anew. Both ways give the same figures: `tests/engine/test_outlook.py` compares them.
"""

from collections.abc import Collection, Iterable, Mapping
from fractions import Fraction
from math import ceil
from typing import NamedTuple

from msgspec import Struct

from engine.account import Account
from engine.catalog import Plan, PriceBook
from engine.charges import Row, Running, by_price, foreseen, segments
from engine.closing import Adjusted, Amounts, with_adjustments
from engine.contract import Contract
from engine.credit import Lot, allocate
from engine.holds import Bound
from engine.limits import ROOT, Cap
from engine.money import NANO
from engine.prices.price import Price
from engine.quantity_grants import QuantityGrant, Service, granted_in
from engine.reach import dominates, undominated
from engine.waivers import left_of, most_left

Signature = tuple[tuple[str, ...], tuple[str, ...]]  # prices reached, prices held


class Pile(Struct):
    """What holds of one signature keep, in one segment and scope."""

    quantity: int = 0  # nano-units
    events: int = 0  # that may come of them, as asked


Piles = dict[Signature, Pile]


class Outlook(Struct, frozen=True):
    """Pico. Where held usage may fall under prices that it is not held on, each of them rounds by itself: `debt` has
    room for that, as it decides; the other figures leave it out, as they are shown."""

    balance: int
    debt: int
    total: int  # of all amounts
    spend: Mapping[int, int]  # calendar month start -> amounts
    rounding: Mapping[int, int]  # calendar month start -> what rounding may add to them
    due: Mapping[int, int]  # calendar month start -> what no lot pays of them, with room for rounding


class Asked(Struct, frozen=True):
    """What a request would add to the holds of a segment: its bounds, and how many events may come of them."""

    segment: int
    bounds: tuple[Bound, ...]
    events: int


class _Ground(Struct, frozen=True):
    """What lies before the segment of this moment, paid for."""

    start: int
    period: int
    month: int
    rows: list[tuple[int, Row]]
    running: dict[str, Running]  # of the period
    amounts: list[tuple[int, int, dict[str, int]]]
    live: int  # pico that lots still have, of those that count now
    debt: int
    total: int
    spend: dict[int, int]
    due: dict[int, int]
    scoped: bool  # some lot that counts here may pay only some prices
    rated: int  # events, when this was derived
    adjusted: Adjusted  # what was posted for closed periods
    firm: bool  # this segment had usage already: usage before it would make new rows
    fluid: bool  # what is used in this segment moves the terms of what lies before it
    plan: Plan  # in force in this segment
    payers: list[tuple[str, ...]]  # `payers_of` it


class _Summed(NamedTuple):
    """What is used in the segment of this moment."""

    ground: _Ground
    row: Row | None  # that it was summed up from
    rated: int  # events by then
    used: Mapping[str, int]  # nano-units per price
    charged: dict[str, int]  # pico
    owed: int  # pico, of all prices
    seen: Outlook  # with nothing held


class Ledger:
    """The open holds of one account, summed up. The account and the catalogue are looked at anew with `face`."""

    def __init__(self, *, listed: bool = False) -> None:
        """`listed`: see `by_list`."""
        self._listed = listed
        self.piles: dict[int, dict[str, Piles]] = {}  # segment start -> scope -> what is held in it and below
        self.withheld: dict[int, Piles] = {}  # segment start -> what slices of other owners keep, on every path
        self._lots: dict[str, Lot] | None = None
        self._grants: dict[str, QuantityGrant] = {}
        self._contract: Contract | None = None
        self._publications = 0
        self._here = (0, 0)
        self._month = 0
        self._months: dict[int, tuple[int, int]] = {}
        self._ground: _Ground | None = None
        self._summed: _Summed | None = None

    def face(self, account: Account, book: PriceBook, now_us: int) -> bool:
        """Turn to the account as it is now. True: boundaries have moved, and all piles must be put anew."""
        self._account = account
        self._book = book
        self._now_us = now_us
        moved = False
        contract, grants = account.contract, account.quantity_grants
        kept = account.lots is self._lots and contract is self._contract and grants is self._grants
        if not kept or book.publications != self._publications:
            same = self._lots == account.lots and contract.is_like(self._contract) and grants == self._grants
            moved = not same or book.publications != self._publications
            self._lots, self._contract, self._publications = account.lots, contract, book.publications
            self._grants = grants
            if moved:
                self._here = (0, 0)
                self._ground = None
        start, end = self._here
        if not start <= now_us < end:
            self._here = account.segment_around(now_us)
            self._months = {}
            self._month = self._calendar(self._here[0])[1]
            self._ground = None
        return moved

    @property
    def by_list(self) -> "Ledger":
        """The same holds, at prices before discounts: what caps on these ask. Made anew for each answer."""
        other = Ledger(listed=True)
        other.piles, other.withheld = self.piles, self.withheld
        other.face(self._account, self._book, self._now_us)
        return other

    @property
    def segment(self) -> int:
        """Start of the segment of this moment."""
        return self._here[0]

    @property
    def ends(self) -> int:
        """When it ends."""
        return self._here[1]

    @property
    def keeps(self) -> bool:
        """Whether anything is held or withheld."""
        return bool(self.piles or self.withheld)

    @property
    def plan(self) -> Plan | None:
        """The account's, as it is in force at this moment."""
        return self._sold(self._here[0])

    @property
    def month(self) -> int:
        """Start of the calendar month of this moment."""
        return self._month

    def put(self, segment: int, scopes: Iterable[str], bound: Bound, quantity: int, events: int) -> None:
        """Add to the piles (or take off, if negative) what a hold keeps by one of its bounds."""
        signature = (bound.reached, bound.held)
        by_scope = self.piles.setdefault(segment, {})
        for scope in scopes:
            piles = by_scope.setdefault(scope, {})
            pile = piles.get(signature)
            if pile is None:
                pile = piles[signature] = Pile()
            pile.quantity += quantity
            pile.events += events
            if not pile.quantity and not pile.events:
                del piles[signature]
                if not piles:
                    del by_scope[scope]
        if not by_scope:
            del self.piles[segment]

    def withhold(self, slices: Iterable[tuple[int, Mapping[str, int]]]) -> None:
        """What other owners may have approved: (since when, nano-units per price). Any segment from then to now may
        hold it, so each does."""
        self.withheld = {}
        for since_us, quantities in slices:
            start = self._here[0]
            while True:
                plan = self._plan(start)
                for name, quantity in quantities.items():
                    price = plan.prices.get(name)
                    if price is not None:
                        below = tuple(sorted(other.name for other in plan.prices.values() if dominates(price, other)))
                        piles = self.withheld.setdefault(start, {})
                        pile = piles.setdefault(((name, *below), (name,)), Pile())
                        pile.quantity += quantity
                if start <= since_us:
                    break
                start, _ = self._account.segment_around(start - 1)

    def _serves(self, segment: int) -> bool:
        """Whether grants may serve anything in the segment's period: in which terms a price then is depends on how much they
        take, also of what lies where they do not serve."""
        period = self._calendar(segment)[0]
        return any(self._account.period_of(each.effective_us) == period for each in self._grants.values())

    # --------------------------------------------------------------------------------------------------- the wallet

    def look(self, *, held: bool = True, withheld: bool = True, asked: Asked | None = None) -> Outlook:
        """What the account comes to, with or without what is held, what is withheld, and what is asked for."""
        ground = self._firm_ground(asked)
        if ground is not None and not ground.fluid and not (withheld and self.withheld):
            return self._look_here(ground, held, asked)
        return self._look_everywhere(held, withheld, asked)

    def _firm_ground(self, asked: Asked | None) -> _Ground | None:
        """What lies before this segment, if nothing is held but in this one, and nothing lies behind it."""
        account, start, ground = self._account, self._here[0], self._ground
        if account.waivers:
            return None  # what is used here is not all owed
        if self.piles and (len(self.piles) > 1 or start not in self.piles):
            return None
        if asked is not None and asked.segment != start:
            return None
        posted = account.adjusted
        if ground is not None and ground.rated == account.rated and ground.adjusted is posted:
            return ground
        if any(instant >= start for instant, _ in posted):
            return None  # they are paid behind what is used here
        if self._serves(start) or self._plan(start).shares:
            return None  # what is used here is not all priced, or moves what others have of an allowance
        table = account.table
        same = ground is not None and ground.firm and ground.adjusted is posted and len(table) == len(ground.rows) + 1
        if same and ground is not None and all(table.get(segment) is row for segment, row in ground.rows):
            return ground
        if any(segment > start for segment in table):
            return None
        self._ground = self._derive_ground(start)
        return self._ground

    def _derive_ground(self, start: int) -> _Ground:
        account = self._account
        earlier = {segment: row for segment, row in account.table.items() if segment != start}
        amounts = []
        spend: dict[int, int] = {}
        running: dict[tuple[int, str], Running] = {}
        service = Service(self._grants.values()) if self._grants else None
        for segment, period, owed, running in segments(earlier, account.period_of, self._price_at, service):  # noqa: B007
            amounts.append((segment, period, owed))
            _, month = self._calendar(segment)
            spend[month] = spend.get(month, 0) + sum(owed.values())
        amounts = with_adjustments(amounts, account.adjusted)
        allocation = allocate(amounts, account.lots, self._now_us)
        debt = sum(allocation.debt.values())
        here, month = self._calendar(start)
        within = {name: run for (in_period, name), run in running.items() if in_period == here}
        return _Ground(
            start,
            here,
            month,
            list(earlier.items()),
            within,
            amounts,
            allocation.balance + debt,
            debt,
            sum(spend.values()),
            spend,
            self._due(amounts, allocation.unpaid),
            any(lot.scope for lot in account.lots.values() if lot.covers(start)),
            account.rated,
            account.adjusted,
            start in account.table,
            any(len(self._price_at(start, name).terms) > 1 for name in within if name in self._plan(start).prices),
            self._plan(start),
            payers_of(account, start),
        )

    def _look_here(self, ground: _Ground, held: bool, asked: Asked | None) -> Outlook:
        summed = self._used_here(ground)
        if asked is None and not (held and self.piles):
            return summed.seen
        piles = self._piles_in(ground.start, held, False, asked)
        quantities, rounding = self._held_in(piles, ground.plan, ground.payers)
        used, charged = summed.used, summed.charged
        amounts = {name: self._owed_here(ground, name, used.get(name, 0), more) for name, more in quantities.items()}
        owed = summed.owed
        for name, pico in amounts.items():
            owed += pico - charged.get(name, 0)
        return self._seen_here(ground, owed, {**charged, **amounts} if ground.scoped else {}, rounding)

    def _seen_here(self, ground: _Ground, owed: int, amounts: dict[str, int], rounding: dict[str, int]) -> Outlook:
        """If this segment comes to so many pico. `amounts`: by price, which is looked at only where some lots may pay
        only some of them."""
        month = ground.month
        more = sum(rounding.values())
        spend = {**ground.spend, month: ground.spend.get(month, 0) + owed}
        total = ground.total + owed
        if ground.scoped:
            paid = [(ground.start, ground.period, amounts)]
            return self._paid([*ground.amounts, *paid], {ground.start: rounding}, total, spend, {month: more})
        unpaid = owed - ground.live
        beyond = max(0, unpaid + more)
        due = {**ground.due, month: ground.due.get(month, 0) + beyond}
        return Outlook(-unpaid - ground.debt, ground.debt + beyond, total, spend, {month: more}, due)

    def _owed_here(self, ground: _Ground, name: str, used: int, more: int) -> int:
        """Pico for what is used of a price in this segment, if up to so much more is."""
        price, run = ground.plan.prices[name], ground.running.get(name)
        return price.most_owed(used, used + more) if run is None else run.peek(price, used + more)

    def _used_here(self, ground: _Ground) -> _Summed:
        """What is used in this segment, and comes to. Summed up once between two events."""
        row, summed = self._account.table.get(ground.start), self._summed
        if (
            summed is None
            or summed.ground is not ground
            or summed.row is not row
            or summed.rated != self._account.rated
        ):
            used = by_price(row or {})
            charged = {name: self._owed_here(ground, name, units, 0) for name, units in used.items()}
            owed = sum(charged.values())
            seen = self._seen_here(ground, owed, charged.copy(), {})
            self._summed = summed = _Summed(ground, row, self._account.rated, used, charged, owed, seen)
        return summed

    def _look_everywhere(self, held: bool, withheld: bool, asked: Asked | None) -> Outlook:
        account = self._account
        places = {asked.segment} if asked else set()
        places |= self.piles.keys() if held else set()
        places |= self.withheld.keys() if withheld else set()
        kept, roundings = {}, {}
        for segment in places:
            piles = self._piles_in(segment, held, withheld, asked)
            kept[segment], roundings[segment] = self._held_in(piles, self._plan(segment), payers_of(account, segment))
        grants = self._grants.values()
        amounts = foreseen(account.table, kept, account.period_of, self._price_at, grants)
        left, rounded = self._left(amounts, roundings, kept) if account.waivers else (amounts, roundings)
        paid_for = with_adjustments(left, account.adjusted)
        spend: dict[int, int] = {}
        extra: dict[int, int] = {}
        for segment, _, owed in amounts:
            _, month = self._calendar(segment)
            spend[month] = spend.get(month, 0) + sum(owed.values())
            extra[month] = extra.get(month, 0) + sum(roundings.get(segment, {}).values())
        return self._paid(paid_for, rounded, sum(spend.values()), spend, extra)

    def _left(
        self, amounts: Amounts, roundings: Mapping[int, Mapping[str, int]], held: Collection[int]
    ) -> tuple[Amounts, Mapping[int, Mapping[str, int]]]:
        """What of amounts is owed at most, and what rounding may add to that, where caps waive the rest and something may be
        `held` in these segments. Only what is used by now uses a cap up: of prices that no more usage can make cheaper, and
        in months before which nothing is held, as that may move what tiers the month's units lie in."""
        account = self._account

        def month_of(start: int) -> int:
            return self._calendar(start)[1]

        if not held:
            return left_of(amounts, account.waivers, month_of), {}
        sure: dict[int, dict[str, int]] = {}
        service = Service(self._grants.values()) if self._grants else None
        first = month_of(min(held))
        for start, _, charged, _ in segments(account.table, account.period_of, self._price_at, service):
            if month_of(start) <= first:
                sure[start] = {name: pico for name, pico in charged.items() if self._price_at(start, name).only_rises}
        lots = sorted(account.lots.values(), key=lambda lot: lot.lot)

        def payers_of(start: int, name: str) -> tuple[str, ...]:
            return tuple(lot.lot for lot in lots if lot.covers(start) and (not lot.scope or name in lot.scope))

        left = most_left(amounts, account.waivers, month_of, sure, payers_of)
        if not any(roundings.values()):
            return left, {}
        rounded = []
        for start, period, parts in amounts:
            more = roundings.get(start, {})
            rounded.append((start, period, {name: parts.get(name, 0) + more.get(name, 0) for name in {*parts, *more}}))
        most = most_left(rounded, account.waivers, month_of, sure, payers_of)
        return left, {
            start: {name: pico - less.get(name, 0) for name, pico in parts.items()}
            for (start, _, parts), (_, _, less) in zip(most, left, strict=True)
        }

    def _paid(
        self,
        amounts: list[tuple[int, int, dict[str, int]]],
        roundings: Mapping[int, Mapping[str, int]],
        total: int,
        spend: Mapping[int, int],
        extra: Mapping[int, int],
    ) -> Outlook:
        paid = allocate(amounts, self._account.lots, self._now_us)
        balance = paid.balance
        if any(roundings.values()):
            for segment, _, owed in amounts:
                for name, pico in roundings.get(segment, {}).items():
                    owed[name] = owed.get(name, 0) + pico
            paid = allocate(amounts, self._account.lots, self._now_us)
        due = self._due(amounts, paid.unpaid)
        return Outlook(balance, sum(paid.debt.values()), total, spend, extra, due)

    def _due(self, amounts: Amounts, unpaid: Mapping[tuple[int, int], int]) -> dict[int, int]:
        """Calendar month start -> pico that no lot pays of what its own segments come to."""
        found: dict[int, int] = {}
        for segment, period, _ in amounts:
            own, month = self._calendar(segment)
            if period == own and (segment, period) in unpaid:
                found[month] = found.get(month, 0) + unpaid[segment, period]
        return found

    def _piles_in(
        self, segment: int, held: bool, withheld: bool, asked: Asked | None, scope: str = ROOT
    ) -> list[tuple[Signature, int, int]]:
        """(signature, nano-units, events) of what is kept in a segment by a scope and all below it; of slices, 0 events,
        as nobody knows."""
        found: list[tuple[Signature, int, int]] = []
        if held and segment in self.piles:
            found += [(key, pile.quantity, pile.events) for key, pile in self.piles[segment].get(scope, {}).items()]
        if withheld and segment in self.withheld:
            found += [(key, pile.quantity, 0) for key, pile in self.withheld[segment].items()]
        if asked is not None and asked.segment == segment:
            found += [((bound.reached, bound.held), bound.quantity, asked.events) for bound in asked.bounds]
        return found

    def _held_in(
        self, piles: list[tuple[Signature, int, int]], plan: Plan, payers: list[tuple[str, ...]]
    ) -> tuple[dict[str, int], dict[str, int]]:
        """Nano-units per price, and the pico per price that usage of other prices than the held ones may add, as each
        price rounds by itself."""
        quantities: dict[str, int] = {}
        rounding: dict[str, int] = {}
        prices = plan.prices
        for (reached, held), quantity, _ in piles:
            wide = len(reached) > len(held)
            if wide and (payers or self._listed):
                held = held_by_payers(plan, reached, payers)  # before discounts another may be the dearest
            for name in held:
                if name in prices:
                    quantities[name] = quantities.get(name, 0) + quantity
            if wide:
                for name in reached:
                    if name in prices and prices[name].rounds:
                        rounding[name] = 1
        return quantities, rounding

    # ----------------------------------------------------------------------------------------------- caps of a scope

    def scope_charges(self, scope: str, month: int | None, *, withheld: bool, asked: Asked | None) -> tuple[int, int]:
        """The most that what is held in a scope and below can be charged in a calendar month (None: in any), whatever else
        the account uses in between: pico, and what rounding each charge may add to it."""
        exact, rounding = 0, 0
        everywhere = self.piles.keys() | (self.withheld.keys() if withheld else set())
        everywhere |= {asked.segment} if asked else set()
        wanted: dict[tuple[int, str], dict[int, tuple[int, int]]] = {}  # (period, price) -> by a segment of its version
        for segment in everywhere:
            period, in_month = self._calendar(segment)
            if month is not None and in_month != month:
                continue
            prices = self._plan(segment).prices
            for (reached, held), quantity, events in self._piles_in(segment, True, withheld, asked, scope):
                pieces = events or -(-quantity // NANO)  # of slices: as if each unit came by itself
                for name in held:
                    if name in prices:
                        by_segment = wanted.setdefault((period, name), {})
                        before = by_segment.get(segment, (0, 0))
                        by_segment[segment] = (before[0] + quantity, before[1] + pieces)
                rough = sum(prices[name].rounds for name in reached if name in prices)
                rounding += max(1, events) * rough
        for (period, name), by_segment in wanted.items():
            exact += self._dearest_charges(period, name, by_segment)
        return exact, rounding

    def scope_quantity(self, cap: Cap, *, withheld: bool, asked: Asked | None, held: bool = True) -> int:
        """The most of what a cap counts, in nano-units, that is held in its scope and below."""
        places = set(self.piles) if held else set()
        places |= self.withheld.keys() if withheld else set()
        places |= {asked.segment} if asked else set()
        total = 0
        for segment in places:
            prices = self._plan(segment).prices
            for (reached, _), quantity, _ in self._piles_in(segment, held, withheld, asked, cap.scope):
                if any(name in prices and cap.takes(name, prices[name].meter) for name in reached):
                    total += quantity
        return total

    def _dearest_charges(self, period: int, name: str, wanted: Mapping[int, tuple[int, int]]) -> int:
        """Pico for the nano-units, and pieces, wanted per segment. What others use meanwhile, held or not, now or later,
        may move these charges up to any tier above what is used by now, so the dearest units there are what counts."""
        used = sum(
            by_price(row).get(name, 0)
            for segment, row in self._account.table.items()
            if self._calendar(segment)[0] == period
        )
        used = max(0, used - granted_in(self._grants.values(), name, period, self._account.period_of))
        alike: list[tuple[Price, int, int]] = []
        exact = Fraction(0)
        for segment, (quantity, pieces) in wanted.items():
            price, *later = self._versions_from(segment, name)
            if not all(each.is_like(price) for each in later):
                # A charge under one version also moves what is charged under a later one, by its range of rates at most,
                # and into any of its tiers.
                moved = sum((each.steepest - each.cheapest_rate for each in later), start=Fraction(0))
                due = sum((each.most_due(0) for each in later), start=price.most_due(0))
                exact += quantity * (price.steepest + moved) + due * pieces
                continue
            for place, (known, units, parts) in enumerate(alike):
                if known.is_like(price):
                    alike[place] = (price, units + quantity, parts + pieces)
                    break
            else:
                alike.append((price, quantity, pieces))
        for price, quantity, pieces in alike:
            exact += price.most_own(used, quantity, pieces)
        return ceil(exact)

    def _versions_from(self, segment: int, name: str) -> list[Price]:
        """The price in force in a segment, and those published for the rest of its period."""
        account = self._account
        _, ends = account.period_around(segment)
        found = [self._price_at(segment, name)]
        within = {each for by in (self._book, account.contract) for each in by.starts_within(segment, ends - 1)}
        for starts in sorted(within):
            plan = self._sold(starts)
            if plan is not None and name in plan.prices:
                found.append(plan.prices[name])
        return found

    # ------------------------------------------------------------------------------------------------------ look-ups

    def _calendar(self, segment: int) -> tuple[int, int]:
        """Starts of the period and of the calendar month of a segment."""
        found = self._months.get(segment)
        if found is None:
            found = self._months[segment] = (self._account.period_of(segment), self._account.month_of(segment))
        return found

    def _sold(self, instant: int) -> Plan | None:
        """The account's plan as it is in force then."""
        plan = self._account.contract.plan_at(self._book, instant)
        return plan.listed if plan is not None and self._listed else plan

    def _plan(self, segment: int) -> Plan:
        plan = self._sold(segment)
        assert plan is not None
        return plan

    def _price_at(self, segment: int, name: str) -> Price:
        return self._plan(segment).prices[name]


def payers_of(account: Account, segment: int) -> list[tuple[str, ...]]:
    """Of each lot and quantity grant that pays or serves only some prices in a segment: which."""
    period = account.period_of(segment)
    grants = account.quantity_grants.values()
    lots = [lot.scope for lot in account.lots.values() if lot.scope and lot.covers(segment)]
    return lots + [(each.price,) for each in grants if each.covers(segment, period)]


def held_by_payers(plan: Plan, reached: tuple[str, ...], payers: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """The prices to hold on where some lots may pay, or quantity grants serve, only some prices: a dear price stands for a
    cheap one only if the same do for both."""
    groups: dict[tuple[int, ...], list[Price]] = {}
    for name in reached:
        if name in plan.prices:
            of = tuple(number for number, scope in enumerate(payers) if name in scope)
            groups.setdefault(of, []).append(plan.prices[name])
    return tuple(sorted(name for prices in groups.values() for name in undominated(prices)))
