"""One account's whole state, and everything that may happen to it. Start reading the engine here.

Stored: usage as a table of quantities, lots, caps, rules and how they stand. All money is derived from these
(`engine/charges.py`, `engine/credit.py`), so two orders of arrival cannot end in two balances.

Most events change nothing but a quantity, so an account keeps *one guard* (`engine/guard.py`): how far it is linear. An
event within the guard is added and done; any other takes the full path, which derives everything anew. Both give the
same lines, postings and state: `tests/engine/test_account.py` compares them.

A refused or failed call changes nothing: each method computes first and assigns at the end.
"""

from collections.abc import Collection, Mapping, Sequence
from heapq import heappop, heappush
from typing import Final, NamedTuple

from msgspec.structs import replace

from engine.alerts import Crossing, Rule, Standing, step
from engine.bases import Bases
from engine.catalog import CLOSE_AFTER_US, PriceBook
from engine.charges import Running, Table, moved, repriced, segments
from engine.closing import Adjusted, Amounts, Closing, apart, cells, posted, whole, with_adjustments
from engine.contract import Contract
from engine.corrections import Parked
from engine.credit import UNBOUNDED, Lot, LotChange, Place, posting_order
from engine.derived import Derived
from engine.guard import Guard, Payment, Tallied
from engine.holds import Drawn, Hold
from engine.in_advance import LOOK_AHEAD_US, owed_in_advance
from engine.in_advance import wakes_us as wakes_ahead_us
from engine.leases import LeaseBook
from engine.limits import ROOT, Cap, RateLimit, Scope, Slice, own_count
from engine.manual_lines import ManualLine
from engine.measures import Moment, View, counts_of, readings, rooms, unit_of, wakes_us
from engine.meters import Cell
from engine.outcomes import Line, PostingRow, Settled
from engine.period_lines import FEE, SEAT, Due, PeriodTerms, kind_and_price, lines_between, period_terms, posted_name
from engine.periods import month_around
from engine.prices.price import Price
from engine.quantity_grants import GRANTED, QuantityGrant, Served, Service
from engine.readings import Aggregates, Reading, observed
from engine.recurring import Recurring, due, is_of
from engine.recurring import wakes_us as grants_us
from engine.routes import Usage
from engine.sessions import Sessions
from engine.streams import Streams
from engine.top_up import NONE, TopUp, request, request_id
from engine.units import Unit
from engine.waivers import Waivers, left_of, waived, waived_line, waiver_at, waiving
from engine.windows import Counts, is_named_gone

CELLS_MAX: Final = 10_000  # distinct (segment, price, cell) of one account; each costs about 100 bytes

_NEVER_STOOD: Final = Standing()

Postings = dict[Place, int]  # pico


class TooManyCells(ValueError):
    """A dimension with unbounded values would grow the account without limit."""


class NotThere(ValueError):
    """The table has less than is to be taken back: it was never put there."""


class Settlement(NamedTuple):
    """What a checkpoint writes of an account beside its state."""

    postings: list[PostingRow]
    balance: int  # pico
    spend: int  # pico, of the newest calendar month with usage


class Change(NamedTuple):
    """What is added to the table at an instant; to take an event back, its quantities below 0."""

    time_us: int
    usages: list[Usage]
    scopes: tuple[str, ...]  # declared ones below the root that it counts in
    before: int | None = None  # only caps that count since before this offset count it; None: all do
    readings: Sequence[Reading] = ()
    is_back: bool = False  # whether the readings are taken back


class Billed(NamedTuple):
    """What a period owes besides its usage, as far as it was not posted before."""

    terms: PeriodTerms
    time_us: int  # of its lines
    lines: tuple[Line, ...]


class _Walked(NamedTuple):
    """What segments of whole periods come to."""

    spend: dict[int, int]  # calendar month start -> pico
    running: dict[tuple[int, str], Running]  # (period start, price) -> what it owes
    amounts: Amounts
    served: Served
    taken: dict[str, int]  # quantity grant -> nano-units


class _Books(NamedTuple):
    """What an account has used, while changes are tried."""

    table: Table
    aggregates: Aggregates
    late: Table
    adjusted: Adjusted
    derived: Derived


class Account:
    """See the module's docstring. `woken_us` is the log time up to which lots have begun and expired."""

    # There may be a million, and past thirty attributes each would have a dict of its own.
    __slots__ = (
        "_book",
        "_closed",
        "_closing",
        "_derived",
        "_draw_ends",
        "_guard",
        "_posted",
        "_terms",
        "_terms_wake",
        "account",
        "adjusted",
        "aggregates",
        "anchor_day",
        "billed_us",
        "caps",
        "contract",
        "currency",
        "draws",
        "late",
        "leases",
        "lines",
        "lots",
        "newest_event_us",
        "overdraft",
        "parked",
        "postpaid",
        "quantity_grants",
        "rate_limits",
        "rated",
        "recurring",
        "rules",
        "scopes",
        "sequence",
        "sessions",
        "slices",
        "standings",
        "streams",
        "table",
        "tallies",
        "top_up",
        "waivers",
        "woken_us",
        "zone",
    )

    def __init__(
        self,
        account: str,
        plan: str,
        currency: str,
        zone: str,
        anchor_day: int,
        woken_us: int,
        book: PriceBook,
        opened_us: int | None = None,
    ) -> None:
        """`opened_us`: absent, it is opened at the log time `woken_us`."""
        self.account = account
        self.contract = Contract(zone, anchor_day, plan, opened_us=woken_us if opened_us is None else opened_us)
        self.currency = currency
        self.zone = zone
        self.anchor_day = anchor_day
        self.woken_us = woken_us
        self.newest_event_us = 0
        self.rated = 0  # events
        self.sequence = 0  # alerts told
        self.table: Table = {}
        self.aggregates: Aggregates = {}  # what does not add up; what it comes to stands in the table as well
        self.lots: dict[str, Lot] = {}
        self.caps: dict[str, Cap] = {}
        self.rules: dict[str, Rule] = {}
        self.standings: dict[tuple[str, str], Standing] = {}
        self.tallies: dict[str, Counts] = {}  # by cap, of those that count for themselves
        self.scopes: dict[str, Scope] = {ROOT: Scope()}
        self.overdraft: int | None = 0  # pico that checks may take the balance below zero; None: without limit
        self.rate_limits: dict[str, RateLimit] = {}
        self.slices: dict[int, Slice] = {}  # by epoch
        self.draws: dict[str, Drawn] = {}  # by hold id
        self.leases = LeaseBook()
        self.parked: dict[bytes, Parked] = {}  # corrections, by the mark of the revision that each waits for
        self.late: Table = {}  # usage of closed periods, beside what `table` has of them
        self.adjusted: Adjusted = {}  # what that changed, and manual lines
        self.lines: dict[str, ManualLine] = {}  # by id
        self.sessions = Sessions(account)
        self.recurring: dict[str, Recurring] = {}
        self.quantity_grants: dict[str, QuantityGrant] = {}
        self.streams = Streams(account)
        self.top_up = NONE
        self.waivers: Waivers = ()
        self.postpaid = False  # the debt of closed periods is due: it stands on a statement
        self.billed_us = 0  # that of periods which begin before this instant
        self._book = book
        self._closing = Closing(self.period_around, self._close_after_us)
        # What lies before an instant comes to: it stands.
        self._closed: tuple[int, _Walked] = 0, _Walked({}, {}, [], {}, {})
        self._terms: dict[int, PeriodTerms | None] = {}  # by the period's start; asked for whenever something changes
        self._guard: Guard | None = None
        self._terms_wake: tuple[int | None] | None = None  # of `wake_us`, until the full path is taken
        self._derived: Derived | None = None
        self._draw_ends: list[tuple[int, str]] = []  # a heap of (until, hold id): when draws are forgotten
        self._posted: Postings = {}  # what the ledger holds

    # ------------------------------------------------------------------------------------------------- questions

    @property
    def plan(self) -> str:
        """The plan that it is sold, as of the last waking."""
        return self.contract.plan_name_at(self.woken_us)

    def period_around(self, time_us: int) -> tuple[int, int]:
        """[start, end) of the billing period of an instant."""
        return self.contract.period_around(time_us)

    def period_of(self, time_us: int) -> int:
        """Start of the billing period of an instant."""
        return self.contract.period_around(time_us)[0]

    def open_from(self, log_time_us: int) -> int:
        """Start of the oldest billing period that is open at this log time."""
        return self._closing.open_from(log_time_us)

    def closed_period(self, time_us: int, log_time_us: int) -> int | None:
        """Start of the billing period of an instant, if it is closed at this log time."""
        return None if time_us >= self._closing.open_from(log_time_us) else self.period_of(time_us)

    @property
    def unit(self) -> Unit | None:
        """What its credits are worth, if it is not billed in a currency."""
        latest = self._book.last
        return None if latest is None else latest.units.get(self.currency)

    @property
    def due(self) -> dict[int, int]:
        """Pico by the start of the billing period: debt that stands on a statement, and is not paid yet."""
        debt = sorted(self.derive().allocation.debt.items())
        return {period: pico for period, pico in debt if period < self.billed_us}

    def _close_after_us(self, end_us: int) -> int:
        """How long a period stays open that ends then: as its plan says, in the version in force at its end."""
        catalogue = self._book.at(end_us)
        plan = None if catalogue is None else catalogue.plans.get(self.contract.plan_name_at(end_us - 1))
        return CLOSE_AFTER_US if plan is None else plan.close_after_us

    @property
    def fades(self) -> bool:
        """Whether something may become due by the passing of time after an event: what caps have counted and what closed
        periods need goes, and credit may be asked for."""
        return bool(self.tallies or self.aggregates or self.top_up.terms)

    @property
    def has_usage(self) -> bool:
        """Whether any event was rated that a meter counts: then `newest_event_us` says something."""
        return bool(self.table or self.adjusted)

    @property
    def _behind_us(self) -> int:
        """The first instant behind all usage."""
        return self.newest_event_us + 1 if self.has_usage else 0

    def has_lot(self, lot: str) -> bool:
        """Whether the id is taken: by a lot, or by what may become one."""
        if lot in self.lots or is_of(lot, self.recurring):
            return True
        return self.top_up.asked is not None and lot == request_id(self.account, self.top_up.ordinal)

    def month_of(self, time_us: int) -> int:
        """Start of the calendar month of an instant, in the account's zone."""
        same = self.anchor_day == 1 and not self.contract.phases
        return self.period_of(time_us) if same else month_around(self.zone, 1, time_us)[0]

    def segment_around(self, time_us: int) -> tuple[int, int]:
        """[start, end) of the segment of an instant, with the lots as they are."""
        return self._segment_around(time_us, self.lots)

    def _segment_around(self, time_us: int, lots: dict[str, Lot]) -> tuple[int, int]:
        """[start, end) of the segment of an instant: no period, month, lot, version or agreement begins inside."""
        start, end = self.period_around(time_us)
        month_start, month_end = month_around(self.zone, 1, time_us)
        boundaries = [month_start, month_end]
        priced = (*self._book.around(time_us), *self.contract.around(time_us))
        boundaries += [instant for instant in priced if instant is not None]
        for lot in lots.values():
            boundaries += lot.boundaries
        for grant in self.quantity_grants.values():
            boundaries += grant.boundaries
        for boundary in boundaries:
            if boundary <= time_us:
                start = max(start, boundary)
            else:
                end = min(end, boundary)
        return start, end

    def derive(self) -> Derived:
        """All money; not to be changed. Derived once between two changes."""
        if self._derived is None:
            self._derived = self._derive(self.table, self.adjusted, self.lots, self.woken_us)
        return self._derived

    def wake_us(self) -> int | None:
        """When log time reaches this instant, `wake` wants calling."""
        pending = [ends_us for each in self.slices.values() if (ends_us := each.ends_us) is not None]
        pending += [parked.until_us for parked in self.parked.values()]
        known = (self.sessions.wake_us(), self.streams.wake_us(), self.leases.wake_us(), self._wake_of_terms_us())
        pending += [each for each in known if each is not None]
        return min(pending, default=None)

    def _wake_of_terms_us(self) -> int | None:
        """Likewise, for what events within the guard leave as it is."""
        if self.tallies:
            return self._find_wake_of_terms_us()
        if self._terms_wake is None:
            self._terms_wake = (self._find_wake_of_terms_us(),)
        return self._terms_wake[0]

    def _find_wake_of_terms_us(self) -> int | None:
        woken_us = self.woken_us
        pending = [instant for lot in self.lots.values() for instant in lot.boundaries if instant > woken_us]
        pending += [phase.from_us for phase in self.contract.phases if phase.from_us > woken_us]
        if (bills_us := self._bills_us()) is not None:
            pending.append(bills_us)
        if self._book.has_advance and (ahead_us := wakes_ahead_us(self.contract, self._book, woken_us)) is not None:
            pending.append(ahead_us)
        if self.postpaid:
            pending.append(next(self._closing.closings(woken_us))[0])
        if self.aggregates:
            pending.append(self._closing.gone_us(min(self.aggregates)))
        now = Moment(self.caps, self.tallies, self.lots, self.zone, woken_us)
        for name, rule in self.rules.items():
            pending += wakes_us(name, rule, now, self.standings)
        pending += grants_us(self.recurring, self.contract, self._behind_us)
        top_up_us = self.top_up.wakes_us(woken_us)
        if top_up_us is not None:
            pending.append(top_up_us)
        return min(pending, default=None)

    def _bills_us(self) -> int | None:
        """When the next period closes that may owe more than its usage, or is so far that it is looked for anew then."""
        if self._book.bills or self.contract.bills:
            last_us = max(self._book.last_start, self.contract.last_start, self.contract.opened_us)
            for closes_us, start in self._closing.closings(self.woken_us):
                if self.period_terms(start) is not None:
                    return closes_us
                if start >= last_us:
                    break
                if start > self.woken_us + LOOK_AHEAD_US:
                    return closes_us
        return None

    def period_terms(self, start: int) -> PeriodTerms | None:
        """What binds it in its period that starts then, besides what usage costs."""
        if start not in self._terms:
            self._terms[start] = period_terms(self.contract, self._book, start)
        return self._terms[start]

    def owed_besides(self, start: int) -> Mapping[Due, int]:
        """Pico that the period which starts then owes besides its usage, if it closes with what is used by now."""
        return self._owed_besides(start, self.derive().running)

    # ----------------------------------------------------------------------------------------------------- events

    def rate(
        self,
        time_us: int,
        usages: list[Usage],
        scopes: tuple[str, ...] = (),
        log_time_us: int | None = None,
        readings: Sequence[Reading] = (),
    ) -> tuple[tuple[Line, ...], list[Crossing]]:
        """Charge one event: its lines, those of `usages` first, and the rules it changed. Raises TooManyCells, and
        TooManyValues.

        `scopes` are the declared ones below the root that it lies in. Absent log time: as of the last waking."""
        now_us = self.woken_us if log_time_us is None else log_time_us
        if not readings:
            if not usages:  # no meter counts it
                self.rated += 1
                return (), []
            guard = self._guard
            if guard is None:
                guard = self._guard = self._guarded(time_us, now_us)
            if guard is not None and guard.start <= time_us < guard.end and now_us < guard.closes_us:
                lines = guard.rate(time_us, usages, scopes, now_us)
                if lines is not None:
                    self.table.setdefault(guard.start, guard.row)
                    if time_us > self.newest_event_us:
                        self.newest_event_us = time_us
                    self.rated += 1
                    self._derived = None
                    return lines, []
        (lines,), crossings = self.change([Change(time_us, usages, scopes, None, readings)], now_us)
        return lines, crossings

    @property
    def unguarded(self) -> bool:
        """Whether the last call derived everything anew."""
        return self._guard is None

    def _tally(self, tallies: dict[str, Counts], change: Change, charge: int, log_time_us: int) -> dict[str, Counts]:
        """What every cap has counted with the change."""
        changed = dict(tallies)
        for name, counts in tallies.items():
            cap = self.caps[name]
            if change.before is not None and (cap.since >= change.before or cap.window.by_log_time):
                continue
            amount = cap.counted(change.usages, change.scopes, charge)
            if amount is not None:
                changed[name] = cap.window.count(self.zone, counts, change.time_us, amount, log_time_us)
        return changed

    def change(self, changes: Sequence[Change], now_us: int) -> tuple[list[tuple[Line, ...]], list[Crossing]]:
        """Make these changes at this log time, all or none: the lines of each, and the rules that all of them changed.

        Raises TooManyCells, TooManyValues, Forgotten, NotCounted and NotThere."""
        books = _Books(self.table, self.aggregates, self.late, self.adjusted, self.derive())
        spends, tallies = self._scope_spends(), self.tallies
        charged: list[tuple[Line, ...]] = []
        used = [self.newest_event_us]
        for change in changes:
            if not change.usages and not change.readings:  # no meter counts it
                charged.append(())
                continue
            closed = self.closed_period(change.time_us, now_us)
            books, lines, moves = self._changed(books, change, closed, now_us)
            charged.append(lines)
            if closed is not None:
                used.append(now_us)  # as if it were usage of the moment: no lot that is granted later pays for it
                continue
            used.append(change.time_us)
            charges = [line.amount - line.repricing for line in lines if line.due is None]
            month, total = self.month_of(change.time_us), sum(charges)
            for scope in change.scopes:
                spends[scope] = {**spends[scope], month: spends[scope].get(month, 0) + total}
            counted = change._replace(usages=[*change.usages, *moves]) if moves else change
            tallies = self._tally(tallies, counted, total, now_us)
        standings, crossings = self._stand(
            self.rules,
            View(Moment(self.caps, tallies, self.lots, self.zone, now_us), books.derived, spends, self._committed),
            forget=any(tallies[name].keys() != counts.keys() for name, counts in self.tallies.items()),
        )
        top_up, requests = self._topped_up(self.top_up, books.derived, now_us)

        for change in changes:
            for scope in change.scopes:
                self.scopes[scope].spend = spends[scope]
        if crossings and tallies:
            self.woken_us = max(self.woken_us, now_us)  # what sinks from here on wakes; no lot begins or ends before
        self.tallies = tallies
        self.table, self.aggregates, self.late, self.adjusted, self._derived = books
        self.newest_event_us = max(used)
        self.rated += 1
        self.standings = standings
        self.top_up = top_up
        self._guard, self._terms_wake = None, None
        return charged, crossings + requests

    def _changed(
        self, books: _Books, change: Change, closed: int | None, now_us: int
    ) -> tuple[_Books, tuple[Line, ...], list[Usage]]:
        """The books with the change, its lines, and by how much it moves what does not add up. Usage of the period
        `closed` makes a difference to the whole of it, which is posted now."""
        table, aggregates, late, adjusted, derived = books
        if closed is None:
            rows = earlier = table
            before = derived.running
        else:
            rows = earlier = whole(table, late, lambda start: self.period_of(start) == closed)
            before = self._walk(rows, fixed=derived.served).running
        moves: list[Usage] = []
        if change.readings:
            start, period = self._segment_around(change.time_us, self.lots)[0], self.period_of(change.time_us)
            rows, aggregates, moves = observed(
                rows,
                aggregates,
                start,
                change.readings,
                lambda each: self.period_of(each) == period,
                is_back=change.is_back,
            )
        rows = self._counted(rows, change)
        if closed is None:
            table = rows
        else:
            others = {start: row for start, row in late.items() if start not in rows}
            late = others | apart(rows, table)
        if cells(table, late) > CELLS_MAX:
            raise TooManyCells(f"account {self.account} would hold more than {CELLS_MAX} cells")
        if closed is None:
            derived = self._derive(table, adjusted, self.lots, self.woken_us)
        after = derived.running if closed is None else self._walk(rows, fixed=derived.served).running
        period = self.period_of(change.time_us)
        counted = [
            (self._price_at(change.time_us, each.name), cell, units) for each, cell, units in (*change.usages, *moves)
        ]
        lines = tuple(self._line(change.time_us, *each, before, after) for each in counted)
        if any(price.shared is not None for price, _, _ in counted):
            names = {price.name for price, _, _ in counted}
            for (of, name), run in sorted(after.items()):
                was = before.get((of, name))
                if of == period and name not in names and was is not None and moved(was, run):
                    lines += (self._line(change.time_us, run.price, (), 0, before, after),)
        waiver = waiver_at(self.waivers, change.time_us if closed is None else closed)
        if closed is None:
            more = sum(derived.waived.values()) - sum(books.derived.waived.values())
            if more and waiver is not None:
                lines += (waived_line(waiver, more),)
        else:
            lines += lines_between(self._owed_besides(closed, before), self._owed_besides(closed, after))
            place = self._segment_around(now_us, self.lots)[0], closed
            for line in lines:
                adjusted = posted(adjusted, place, {posted_name(line): line.amount})
            if waiver is not None:
                less, gone = (self._waived_of(closed, table | rows_of, derived.served) for rows_of in (earlier, rows))
                back = {name: less.get(name, 0) - gone.get(name, 0) for name in sorted(less | gone)}
                back = {name: pico for name, pico in back.items() if pico}
                if back:
                    adjusted = posted(adjusted, place, back)
                    lines += (waived_line(waiver, -sum(back.values())),)
            derived = self._derive(table, adjusted, self.lots, self.woken_us)
        return _Books(table, aggregates, late, adjusted, derived), lines, moves

    def _waived_of(self, period: int, table: Table, fixed: Served) -> dict[str, int]:
        """Pico per price that is waived of a closed period that is as the table has it."""
        gross = self._walk(table, fixed=fixed).amounts
        found: dict[str, int] = {}
        left = left_of(gross, self.waivers, self.month_of)
        for (_, of, charged), (_, _, parts) in zip(gross, left, strict=True):
            for name, pico in charged.items() if of == period else ():
                found[name] = found.get(name, 0) + pico - parts[name]
        return found

    def _owed_besides(self, start: int, running: Mapping[tuple[int, str], Running]) -> Mapping[Due, int]:
        """The same, with what prices run up to."""
        terms = self.period_terms(start)
        if terms is None:
            return {}
        return terms.owed(lambda price: _owed_by(running, start, price))

    def _counted(self, table: Table, change: Change) -> Table:
        """The table with what adds up. Raises NotThere."""
        start, _ = self._segment_around(change.time_us, self.lots)
        row = dict(table.get(start, {}))
        for price, cell, quantity in change.usages:
            row[price.name, cell] = row.get((price.name, cell), 0) + quantity
            if row[price.name, cell] < 0:
                raise NotThere(f"account {self.account} has less of price {price.name} there than is to be taken back")
        return {**table, start: row}

    def park(self, mark: bytes, parked: Parked) -> None:
        """Keep a correction until the revision with this mark is rated."""
        assert mark not in self.parked
        self.parked[mark] = parked

    def unpark(self, instant_us: int) -> list[Parked]:
        """Give up the corrections that wait no more at this log time: those, in order of their marks."""
        over = [mark for mark, parked in sorted(self.parked.items()) if parked.until_us <= instant_us]
        return [self.parked.pop(mark) for mark in over]

    def _line(
        self,
        time_us: int,
        price: Price,
        cell: Cell,
        quantity: int,
        earlier: Mapping[tuple[int, str], Running],
        running: Mapping[tuple[int, str], Running],
    ) -> Line:
        """What one price charges, where prices ran so `earlier` and do so now: own and re-pricing apart (law R9). Units are
        added, or, below 0, taken out again; none, where others have moved its units in the tiers that they share."""
        place = self.period_of(time_us), price.name
        run, was = running[place], earlier.get(place) or Running(price)
        used, more_served = was.priced, run.served - was.served
        if price.shared is not None:
            parts = (*moved(was, run), (GRANTED, more_served)) if more_served else moved(was, run)
        else:
            low, high = sorted((used, run.priced))
            parts = price.curve_at(high).parts(low, high)
            if more_served:
                parts = (*parts, (GRANTED, abs(more_served)))
            if quantity < 0 or (not quantity and run.priced < used):
                parts = tuple((tier, -units) for tier, units in parts)
        is_plain = price.is_even and price.is_published and not more_served
        agreed_us = price.agreed_us
        version = None if agreed_us is not None or price.version == self._version_at(time_us) else price.version
        return Line(
            price.name,
            cell,
            quantity,
            run.amount - was.amount,
            parts,
            repriced(price, was, run),
            None if price.shared is not None or (is_plain and version is None) else used,
            version,
            agreed_us,
            price.short,
        )

    def wake(self, instant_us: int) -> list[Crossing]:
        """Log time has reached a lot's boundary, a closed slice's end, or the instant from which no event of a period can
        come any more: what it changed."""
        for epoch in [epoch for epoch, each in self.slices.items() if (each.ends_us or instant_us + 1) <= instant_us]:
            del self.slices[epoch]
        for start in [start for start in self.aggregates if self._closing.gone_us(start) <= instant_us]:
            del self.aggregates[start]
        if (self.streams.wake_us() or instant_us + 1) <= instant_us:
            self.streams.drop(instant_us)
        self.leases.forget(instant_us)
        return self._become(woken_us=instant_us)

    def bill(self, instant_us: int) -> tuple[list[Billed], list[Crossing]]:
        """Log time has reached an instant. What periods that close then owe besides their usage is posted, and what those
        that are open owe in advance: the lines of each, and the rules that they changed. For lots it is usage of the
        instant."""
        if not (self._book.bills or self.contract.bills):
            return [], []
        found = []
        for closes_us, start in self._closing.closings(instant_us - 1):
            if closes_us > instant_us:
                break
            terms, lines = self.period_terms(start), lines_between({}, self.owed_besides(start))
            if terms is not None and lines:
                found.append(Billed(terms, terms.end - 1, lines))
        return self._post([*found, *self._ahead(instant_us)], instant_us)

    def bill_ahead(self, now_us: int) -> tuple[list[Billed], list[Crossing]]:
        """What open periods owe in advance, behind a command: what was not posted before, as of `bill`."""
        return self._post(self._ahead(now_us), now_us)

    def _ahead(self, now_us: int) -> list[Billed]:
        found: list[Billed] = []
        start = self.open_from(now_us)
        while self._book.has_advance and start <= now_us:
            before: dict[Due, int] = {}
            for place, charges in self.adjusted.items():
                for name, pico in charges.items() if place[1] == start else ():
                    kind, of = kind_and_price(name)
                    if kind in (FEE, SEAT):
                        due = Due(kind, of, None, None)
                        before[due] = before.get(due, 0) + pico
            terms = self.period_terms(start)
            lines = lines_between(before, owed_in_advance(terms, self.contract, self._book, start, now_us))
            if terms is not None and lines:
                found.append(Billed(terms, terms.from_us, lines))
            _, start = self.period_around(start)
        return found

    def _post(self, billed: list[Billed], instant_us: int) -> tuple[list[Billed], list[Crossing]]:
        if not billed:
            return [], []
        adjusted, segment = self.adjusted, self._segment_around(instant_us, self.lots)[0]
        for terms, _, lines in billed:
            adjusted = posted(adjusted, (segment, terms.start), {posted_name(line): line.amount for line in lines})
        crossings = self._become(adjusted=adjusted, woken_us=instant_us)
        self.newest_event_us = max(self.newest_event_us, instant_us)
        return billed, crossings

    def reprice(self) -> None:
        """A catalogue version was published: the newest segment may now end earlier."""
        self._guard, self._terms_wake = None, None
        self._derived = None
        self._terms = {}
        self._closing.look_again()

    def look_on(self, log_time_us: int) -> None:
        """It was not woken for what it waits for from now on: that lies ahead. No lot has begun or ended since it was."""
        self.woken_us = max(self.woken_us, log_time_us)
        self._derived, self._terms_wake = None, None

    # ------------------------------------------------------------------------------------------------------ holds

    def draw(self, hold: Hold, used: Mapping[str, int], *, final: bool, log_time_us: int) -> Settled:
        """An event that names the hold used this much, in nano-units per price: what it means to hold and slice."""
        self._forget_draws(log_time_us)
        slice_ = self.slices.get(hold.epoch)
        closed = slice_ is not None and slice_.closed_us is not None
        before = self.draws.get(hold.id)
        drawn = before.quantities if before else [0] * len(hold.bounds)
        done = before is not None and before.done
        over = any(not any(price in bound.reached for bound in hold.bounds) for price, units in used.items() if units)
        after = []
        for bound, already in zip(hold.bounds, drawn, strict=False):
            units = sum(used.get(price, 0) for price in bound.reached)
            left = 0 if done else max(0, bound.quantity - already)
            over = over or units > left
            after.append(already + units)
            if closed and slice_ is not None and hold.report_until_us >= (slice_.closed_us or 0):
                _take_off(slice_, bound.held, left if final else min(left, units))
        if slice_ is not None and not slice_.quantities:
            del self.slices[hold.epoch]
        # A token of before an extension ends earlier than what is remembered.
        until_us = max(hold.report_until_us, before.until_us if before else 0)
        if log_time_us <= until_us and (before is not None or closed or not final):
            if before is None or until_us != before.until_us:
                heappush(self._draw_ends, (until_us, hold.id))
            self.draws[hold.id] = Drawn(until_us, after, done or final)
        if log_time_us > hold.expires_us:
            return Settled.LATE
        return Settled.OVER_HOLD if over else Settled.WITHIN

    def _forget_draws(self, log_time_us: int) -> None:
        if len(self._draw_ends) < len(self.draws):  # just thawed
            self._draw_ends = sorted((drawn.until_us, hold_id) for hold_id, drawn in self.draws.items())
        while self._draw_ends and self._draw_ends[0][0] < log_time_us:
            until_us, hold_id = heappop(self._draw_ends)
            if hold_id in self.draws and self.draws[hold_id].until_us == until_us:
                del self.draws[hold_id]

    def set_slice(self, epoch: int, quantities: dict[str, int], linger_us: int) -> None:
        """The owner of the epoch may have this much in open holds from now on."""
        if quantities:
            self.slices[epoch] = Slice(quantities, linger_us)
        else:
            self.slices.pop(epoch, None)

    def close_slices(self, epoch: int, log_time_us: int) -> None:
        """The partition has an owner of this epoch: what earlier ones held is theirs until it can no longer be reported."""
        for earlier, each in self.slices.items():
            if earlier < epoch and each.closed_us is None:
                each.closed_us = log_time_us

    # --------------------------------------------------------------------------------------------------- commands

    def grant(self, lots: Sequence[Lot], woken_us: int) -> list[Crossing]:
        """Add lots whose boundaries lie behind all usage rated so far (README, "Credit")."""
        for lot in lots:
            assert lot.lot not in self.lots
            assert lot.effective_us > self.newest_event_us or not self.has_usage
        return self._become(lots=self.lots | {lot.lot: lot for lot in lots}, woken_us=woken_us)

    def change_lot(self, lot: str, change: LotChange, woken_us: int) -> list[Crossing]:
        """Void or refund of a lot, at an instant behind all usage rated so far (README, "Credit")."""
        assert change.at_us > self.newest_event_us or not self.has_usage
        changed = replace(self.lots[lot], changes=(*self.lots[lot].changes, change))
        return self._become(lots={**self.lots, lot: changed}, woken_us=woken_us)

    def add_lines(self, lines: Mapping[str, ManualLine], woken_us: int) -> list[Crossing]:
        """Post lines at this log time; for lots they are usage of the instant."""
        assert not lines.keys() & self.lines.keys()
        adjusted = self.adjusted
        for line in lines.values():
            adjusted = posted(adjusted, (line.segment_us, line.period_us), {line.price: line.amount})
        crossings = self._become(adjusted=adjusted, woken_us=woken_us)
        self.lines |= lines
        self.newest_event_us = max(self.newest_event_us, woken_us)
        return crossings

    def set_cap(self, cap: Cap, woken_us: int) -> list[Crossing]:
        """Set or replace a cap. Of one that counts the same as before, the count goes on."""
        before = self.caps.get(cap.cap)
        cap, counted = self._counting_on(cap)
        tallies = {name: counts for name, counts in self.tallies.items() if name != cap.cap}
        if counted is not None:
            tallies[cap.cap] = counted
        waivers = self._waiving(cap.cap, cap.amount if cap.waives else None, woken_us)
        anew = before is not None and not before.counts_alike(cap)
        released = [name for name, rule in self.rules.items() if anew and counts_of(name, rule) == cap.cap]
        caps = {**self.caps, cap.cap: cap}
        return self._become(caps=caps, tallies=tallies, woken_us=woken_us, released=released, waivers=waivers)

    def _waiving(self, cap: str, amount: int | None, woken_us: int) -> Waivers:
        """With what a cap waives from now on: of all periods that are open. None: nothing."""
        before = self.caps.get(cap)
        if amount is None and (before is None or not before.waives):
            return self.waivers
        return waiving(self.waivers, self._closing.open_from(woken_us), cap, amount)

    def set_scope(self, scope: str, standing: str, woken_us: int, offset: int) -> list[Crossing]:
        """Declare a scope, or change its standing, by the record at this offset."""
        crossings = self._become(woken_us=woken_us)
        if scope in self.scopes:
            self.scopes[scope].standing = standing
        else:
            self.scopes[scope] = Scope(standing, since=offset)
        return crossings

    def set_allowed(self, scope: str, field: str, values: tuple[str, ...] | None, woken_us: int) -> list[Crossing]:
        """Admit only these values of a field of events in a scope and below; None: any."""
        crossings = self._become(woken_us=woken_us)
        allowed = {name: each for name, each in self.scopes[scope].allowed.items() if name != field}
        self.scopes[scope].allowed = allowed if values is None else {**allowed, field: values}
        return crossings

    def set_overdraft(self, amount: int | None, woken_us: int) -> list[Crossing]:
        """Set how far checks may take the balance below zero; None: without limit."""
        crossings = self._become(woken_us=woken_us)
        self.overdraft = amount
        return crossings

    def set_billing(self, postpaid: bool, credit_limit: int | None, woken_us: int) -> list[Crossing]:
        """Bill it before or behind what it uses; the limit is its overdraft."""
        self.postpaid, self.overdraft = postpaid, credit_limit
        return self._become(woken_us=woken_us)

    def set_rate_limit(self, limit: RateLimit, woken_us: int) -> list[Crossing]:
        """Set or replace a limit; one of 0 a minute is gone."""
        crossings = self._become(woken_us=woken_us)
        if limit.per_minute:
            self.rate_limits[limit.limit] = limit
        else:
            self.rate_limits.pop(limit.limit, None)
        return crossings

    def would_reprice(self, contract: Contract) -> bool:
        """Whether what was rated by now would come to another amount, or fall into other tiers, under this contract."""
        started = {start: row for start, row in self.table.items() if start >= self._closing.since_us}

        def shown(sold: Contract) -> dict[tuple[int, str], object]:
            running = self._walk(started, sold).running.items()
            return {place: (run.amount, run.parts()) for place, run in running}

        return shown(self.contract) != shown(contract)

    def set_contract(self, contract: Contract, woken_us: int) -> list[Crossing]:
        """What is sold from some instant on, behind all usage rated so far, of which it re-prices nothing."""
        added = set(contract.agreed) - set(self.contract.agreed) | set(contract.phases) - set(self.contract.phases)
        assert not self.has_usage or all(each.from_us > self.newest_event_us for each in added)
        self.contract = contract
        self._terms = {}
        self._closing.look_again()
        return self._become(woken_us=woken_us)

    def set_rule(self, name: str, rule: Rule | None, woken_us: int, count: Cap | None = None) -> list[Crossing]:
        """Set or replace a rule, with what it counts itself; None: it is gone. Its ordinals go on."""
        before, mine = self.rules.get(name), own_count(name)
        rules = {each: kept for each, kept in self.rules.items() if each != name}
        caps = {each: kept for each, kept in self.caps.items() if each != mine}
        tallies = {each: kept for each, kept in self.tallies.items() if each != mine}
        same = before is not None and rule is not None and before.measure == rule.measure
        if count is not None:
            same = same and mine in self.caps and self.caps[mine].counts_alike(count)
            caps[mine], counted = self._counting_on(count)
            if counted is not None:
                tallies[mine] = counted
        if rule is not None:
            rules[name] = rule
        released = () if same or before is None else (name,)
        return self._become(caps=caps, rules=rules, tallies=tallies, woken_us=woken_us, released=released)

    def set_recurring(self, name: str, recurring: Recurring | None, woken_us: int) -> list[Crossing]:
        """Set or replace a recurring grant; None: it is gone."""
        kept = {each: stays for each, stays in self.recurring.items() if each != name}
        return self._become(recurring=kept if recurring is None else kept | {name: recurring}, woken_us=woken_us)

    def set_quantity_grant(self, grant: QuantityGrant, woken_us: int) -> list[Crossing]:
        """Add one, or change it, behind all usage rated so far."""
        changed_us = grant.effective_us if grant.voided_us is None else grant.voided_us
        assert changed_us > self.newest_event_us or not self.has_usage
        self.quantity_grants = {**self.quantity_grants, grant.grant: grant}
        return self._become(woken_us=woken_us)

    def set_top_up(self, top_up: TopUp, woken_us: int, paid: Lot | None = None) -> list[Crossing]:
        """Other terms, or an answer to the open request, and the lot that was paid for."""
        assert paid is None or paid.effective_us > self.newest_event_us or not self.has_usage
        lots = self.lots if paid is None else {**self.lots, paid.lot: paid}
        return self._become(lots=lots, top_up=top_up, woken_us=woken_us)

    def _counting_on(self, cap: Cap) -> tuple[Cap, Counts | None]:
        """The cap, and what it has counted if it counts for itself: on from one of its name that counts the same."""
        before = self.caps.get(cap.cap)
        if before is not None and before.counts_alike(cap):
            return replace(cap, since=before.since), self.tallies.get(cap.cap)
        return cap, {} if cap.tallied else None

    def remove_cap(self, cap: str, woken_us: int) -> list[Crossing]:
        """Forget a cap that no rule looks at."""
        caps = {name: each for name, each in self.caps.items() if name != cap}
        tallies = {name: counts for name, counts in self.tallies.items() if name != cap}
        waivers = self._waiving(cap, None, woken_us)
        return self._become(caps=caps, tallies=tallies, woken_us=woken_us, waivers=waivers)

    def _become(
        self,
        *,
        woken_us: int,
        lots: dict[str, Lot] | None = None,
        caps: dict[str, Cap] | None = None,
        rules: dict[str, Rule] | None = None,
        tallies: dict[str, Counts] | None = None,
        adjusted: Adjusted | None = None,
        top_up: TopUp | None = None,
        recurring: dict[str, Recurring] | None = None,
        released: Collection[str] = (),
        waivers: Waivers | None = None,
    ) -> list[Crossing]:
        """`released`: rules that looked at something else until now."""
        adjusted = self.adjusted if adjusted is None else adjusted
        lots = self.lots if lots is None else lots
        recurring = self.recurring if recurring is None else recurring
        if recurring:
            recurring, lots = due(recurring, self.contract, lots, woken_us, self._behind_us)
        caps = self.caps if caps is None else caps
        rules = self.rules if rules is None else rules
        tallies = self.tallies if tallies is None else tallies
        waivers = self.waivers if waivers is None else waivers
        derived = self._derive(self.table, adjusted, lots, woken_us, waivers)
        view = View(Moment(caps, tallies, lots, self.zone, woken_us), derived, self._scope_spends(), self._committed)
        standings, crossings = self._stand(rules, view, released=released)
        top_up, requests = self._topped_up(self.top_up if top_up is None else top_up, derived, woken_us)

        self._derived = derived
        self.tallies, self.adjusted = tallies, adjusted
        self.lots, self.caps, self.rules, self.woken_us = lots, caps, rules, woken_us
        self.billed_us = self._closing.oldest_open(woken_us)[0] if self.postpaid else 0
        self.standings = standings
        self.top_up, self.recurring, self.waivers = top_up, recurring, waivers
        self._guard, self._terms_wake = None, None
        return crossings + requests

    # ------------------------------------------------------------------------------------------------- derivation

    def _price_at(self, time_us: int, name: str) -> Price:
        price = self._sold_at(time_us, name)
        assert price is not None
        return price

    def _sold_at(self, time_us: int, name: str) -> Price | None:
        plan = self.contract.plan_at(self._book, time_us)
        return plan.prices.get(name) if plan is not None else None

    def _version_at(self, time_us: int) -> int:
        catalogue = self._book.at(time_us)
        assert catalogue is not None
        return catalogue.version

    def _derive(
        self, table: Table, adjusted: Adjusted, lots: dict[str, Lot], woken_us: int, waivers: Waivers | None = None
    ) -> Derived:
        since = self._closing.since_us
        if self._closed[0] != since:
            self._closed = (
                since,
                self._walk({start: row for start, row in table.items() if start < since}),
            )
        closed = self._closed[1]
        walked = self._walk({start: row for start, row in table.items() if start >= since})
        spend = dict(closed.spend)
        for month, pico in walked.spend.items():
            spend[month] = spend.get(month, 0) + pico
        charged = [*closed.amounts, *walked.amounts]
        left = left_of(charged, self.waivers if waivers is None else waivers, self.month_of)
        amounts = with_adjustments(left, adjusted)
        served, taken = closed.served | walked.served, closed.taken | walked.taken
        bases = Bases(table, self.contract, self._book, self.quantity_grants.values(), self.month_of)
        running = {**closed.running, **walked.running}
        less = {} if left is charged else waived(charged, left)
        return Derived(spend, running, amounts, lots, woken_us, served, taken, bases, less)

    def _walk(self, table: Table, contract: Contract | None = None, fixed: Served | None = None) -> _Walked:
        """What whole periods come to. `contract`: another than the account's; `fixed`: what quantity grants took of closed
        periods, and take no more of."""
        service = Service(self.quantity_grants.values(), fixed) if self.quantity_grants else None
        sold = self.contract if contract is None else contract
        spend: dict[int, int] = {}
        amounts = []
        running: dict[tuple[int, str], Running] = {}
        for start, period, by_price, running in segments(table, sold.period_of, sold.prices_at(self._book), service):  # noqa: B007
            month = self.month_of(start)
            spend[month] = spend.get(month, 0) + sum(by_price.values())
            amounts.append((start, period, by_price))
        served, taken = (service.served, service.taken) if service is not None else ({}, {})
        return _Walked(spend, running, amounts, served, taken)

    def _committed(self, name: str, start: int, derived: Derived) -> tuple[int, int] | None:
        terms = self.period_terms(start)
        return None if terms is None else terms.committed(name, lambda price: _owed_by(derived.running, start, price))

    def _scope_spends(self) -> dict[str, dict[int, int]]:
        return {scope: each.spend for scope, each in self.scopes.items()}

    def _stand(
        self, rules: Mapping[str, Rule], view: View, *, forget: bool = False, released: Collection[str] = ()
    ) -> tuple[dict[tuple[str, str], Standing], list[Crossing]]:
        """How every rule stands now, and what changed: the `released` first, then in the order of rule, then window.
        `forget` windows that are gone: they never come again, and neither do their ordinals."""
        standings = dict(self.standings)
        if forget:
            gone = [key for key in standings if is_named_gone(self.zone, key[1], view.at.now_us)]
            standings = {key: standing for key, standing in standings.items() if key not in gone}
        crossings = []
        for (name, window), standing in sorted(standings.items()) if released else ():
            if name in released and standing.active:
                standings[name, window] = Standing(standing.ordinal, False)
                level = self.rules[name].level
                crossing = Crossing(self.account, name, window, standing.ordinal, "recovered", None, None, "", level)
                crossings.append(crossing)
        for name in sorted(rules):
            rule = rules[name]
            for reading in readings(name, rule, view):
                key = (name, reading.window)
                standing, phase = step(
                    standings.get(key, _NEVER_STOOD), reached=reading.reached, cleared=reading.cleared
                )
                if phase is not None:
                    standings[key] = standing
                    crossings.append(
                        Crossing(
                            self.account,
                            *key,
                            standing.ordinal,
                            phase,
                            reading.value,
                            reading.threshold,
                            unit_of(name, rule, view.at.caps),
                            rule.level,
                        )
                    )
        return standings, crossings

    def _topped_up(self, top_up: TopUp, derived: Derived, now_us: int) -> tuple[TopUp, list[Crossing]]:
        """How its top-up stands now, and the request that this makes."""
        if top_up.terms is None:
            return top_up, []
        balance = derived.allocation.balance
        after = top_up.after(balance, now_us)
        return after, [] if after.ordinal == top_up.ordinal else [request(self.account, after, balance)]

    def _guarded(self, time_us: int, now_us: int) -> Guard | None:
        """How far the account is linear, if the instant lies in its newest segment, or in a newer one; else None.

        Every rule that rating can change has its bound here. One that cannot say how far it is from changing must keep
        its accounts on the full path: by None."""
        start, end = self._segment_around(time_us, self.lots)
        if start < max(self.table, default=start) or self.closed_period(start, now_us) is not None:
            return None
        derived = self.derive()
        period, month = self.period_of(start), self.month_of(start)
        waiver = waiver_at(self.waivers, start)
        to_waive = UNBOUNDED if waiver is None else (waiver.amount or 0) - derived.spend.get(month, 0)
        if to_waive <= 0:
            return None
        now = Moment(self.caps, self.tallies, self.lots, self.zone, now_us)
        view = View(now, derived, self._scope_spends(), self._committed)
        room = rooms(self.rules, view, self.standings, period, month, lambda name: self._sold_at(start, name))
        room.charges = min(room.charges, to_waive)
        if self.top_up.terms is not None:
            room.charges = min(room.charges, self.top_up.room(derived.allocation.balance))
        guard = Guard(
            start,
            end,
            period=period,
            month=month,
            row=self.table.get(start, {}),
            running=derived.running,
            price_at=self._price_at,
            version=self._version_at(start),
            cells=CELLS_MAX - cells(self.table, self.late),
            room=room.charges,
            tallied=[
                Tallied(self.caps[name], counts, room.counts.get(name, UNBOUNDED))
                for name, counts in self.tallies.items()
            ],
            told_at=room.quantities,
            granted={
                each.price
                for each in self.quantity_grants.values()
                if each.covers(start, period) and derived.taken.get(each.grant, 0) < each.granted
            },
            scopes=self.scopes,
            zone=self.zone,
            closes_us=self._closing.until_us,
        )
        if start in self.table:  # else lots may still be carried, or begin to pay, with its first usage
            guard.payment = self._payment(guard, derived)
        if guard.payment is not None:
            guard.ledger = derived.allocation.postings(self.billed_us)
        return guard

    # ------------------------------------------------------------------------------------------------- the ledger

    def mark_posted(self) -> None:
        """The ledger holds everything up to now: called when an account is thawed from a checkpoint."""
        self._posted = self.derive().allocation.postings(self.billed_us)

    def settle(self, posting_period_us: int) -> Settlement:
        """The signed postings since the last call: law C1's sums per lot, and debt."""
        guard = self._guard
        payment = None if guard is None or guard.start not in self.table else guard.payment
        if guard is None or payment is None or guard.charged - payment.charged > payment.room:
            return self._settle_anew(guard, posting_period_us)
        more = guard.charged - payment.charged
        guard.payment = payment = payment.after(more)
        if guard.ledger is not None:
            ledger, guard.ledger = guard.ledger, None
            if more:
                ledger[payment.place] = ledger.get(payment.place, 0) + more
            return Settlement(self._post_all(ledger, posting_period_us), payment.balance, payment.spend)
        if not more:
            return Settlement([], payment.balance, payment.spend)
        self._posted[payment.place] = self._posted.get(payment.place, 0) + more
        row = self._posting(payment.place, more, posting_period_us)
        return Settlement([row], payment.balance, payment.spend)

    def _settle_anew(self, guard: Guard | None, posting_period_us: int) -> Settlement:
        """Likewise, by all that is derived."""
        derived = self.derive()
        postings = self._post_all(derived.allocation.postings(self.billed_us), posting_period_us)
        spend = derived.spend[max(derived.spend)] if derived.spend else 0
        if guard is not None:
            guard.payment, guard.ledger = self._payment(guard, derived), None
            if guard.payment is not None:
                self._derived = None  # kilobytes; the guard knows what goes on from here
        return Settlement(postings, derived.allocation.balance, spend)

    def _payment(self, guard: Guard, derived: Derived) -> Payment | None:
        """Who pays for what the guard charges from now on; None: it is not as simple as that."""
        if any(segment >= guard.start for segment, _ in self.adjusted):
            return None  # what was posted there is paid behind the segment's usage
        payer = derived.allocation.next_payer(guard.start)
        if payer is None:
            return None
        lot, room = payer
        place = lot, "burn" if lot else "debt", guard.period
        return Payment(place, room, guard.charged, derived.allocation.balance, derived.spend.get(guard.month, 0))

    def _post_all(self, ledger: Postings, posting_period_us: int) -> list[PostingRow]:
        """The ledger is to hold this."""
        before, self._posted = self._posted, ledger
        postings = []
        for place in sorted(ledger.keys() | before.keys(), key=posting_order):
            change = ledger.get(place, 0) - before.get(place, 0)
            if change:
                postings.append(self._posting(place, change, posting_period_us))
        return postings

    def _posting(self, place: Place, amount: int, posting_period_us: int) -> PostingRow:
        lot, kind, usage_period = place
        lot_kind = self.lots[lot].kind if lot else ""
        return PostingRow(self.account, lot, lot_kind, kind, usage_period, posting_period_us, amount)


def _owed_by(running: Mapping[tuple[int, str], Running], start: int, price: str) -> int:
    """Pico that a price runs up to in a period; 0 if it is not used."""
    run = running.get((start, price))
    return 0 if run is None else run.amount


def _take_off(slice_: Slice, prices: tuple[str, ...], quantity: int) -> None:
    for price in prices:
        left = slice_.quantities.get(price, 0) - quantity
        if left > 0:
            slice_.quantities[price] = left
        else:
            slice_.quantities.pop(price, None)
