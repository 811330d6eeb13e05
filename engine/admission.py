"""May this request run? Checks and holds, decided by the owner of a partition (README, "Holds").

Soft: nothing here is read when rating, and nothing here survives the owner. What must survive is in the log, as
slices; what a hold needs to settle is in its token.
"""

from collections.abc import Iterable, Mapping
from heapq import heappop, heappush
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.account import Account
from engine.bases import DUE, LIST
from engine.catalog import Catalogue, Plan, PriceBook
from engine.entitlements import ceiling_denies, ceilings_on, granted, list_denies, standing_denies
from engine.events import TOKEN_TEXT_MAX
from engine.exposure import Exposure
from engine.holds import VALID_GAP_US, Bound, Hold, held_by
from engine.leases import LEASES_MAX
from engine.leasing import Leased, at_most_half, only_owner_keeps, per_request, times
from engine.limits import ROOT, Cap, RateLimit, scope_path
from engine.money import NANO, WHOLE_DIGITS_MAX
from engine.outlook import Asked, Ledger, Outlook, held_by_payers, payers_of
from engine.prices.price import Price
from engine.rates import Pace, counted_by
from engine.reach import Part, Unreachable, reach_of
from engine.reasons import Binding, Reason

HOLDS_MAX: Final = 10_000  # open holds of one account
HOLD_JSON_MAX: Final = TOKEN_TEXT_MAX * 3 // 4 - 64  # bytes of a hold that a token still has room for
SHAPES_MAX: Final = 10_000  # questions whose reach is remembered
LEDGERS_IDLE_MAX: Final = 10_000  # accounts without holds that are remembered because they were asked about
SCOPES_REMEMBERED_MAX: Final = 100  # of one account, whose caps are remembered
SECOND_US: Final = 1_000_000
GIVE_BACK_US: Final = 30 * SECOND_US  # after which an unused slice goes back
RETRY_US: Final = SECOND_US  # when what is in the way may be gone at any moment
QUANTITY_MAX: Final = 10**WHOLE_DIGITS_MAX * NANO - 1  # what a slice's decimal text can say
SLICE_SPARE: Final = 3  # how many times the need a slice is larger, if the account can afford it
SLICE_SHARE: Final = 8  # part of what is left that the spare of a slice may freeze after a crash


class FieldBound(Struct, frozen=True):
    """The sum of these fields of the event's data will be at most `up_to` nano-units."""

    fields: tuple[str, ...]
    up_to: int


class Question(Struct, frozen=True):
    """What a check asks. Built by the shard from the door's message; every text and size is already tested."""

    account: str
    scope: str = ""
    type: str | None = None  # event type; None: only standing, feature and limits are asked
    data: Mapping[str, str] = {}  # dimensions known by now
    reach: Mapping[str, tuple[str, ...]] = {}  # dimensions still open -> every value they may take
    bounds: tuple[FieldBound, ...] = ()
    n: int = 1
    feature: str | None = None
    hold_us: int | None = None  # time to live of the hold wanted; None: reserve nothing


class Wallet(Struct, frozen=True):
    """Pico. available = booked - held; `overdraft` None: without limit."""

    currency: str
    booked: int
    held: int
    overdraft: int | None

    @property
    def available(self) -> int:
        return self.booked - self.held


class Decision(Struct, frozen=True):
    """The answer to a question. A refusal has a reason and no hold."""

    reason: Reason | None
    binding: Binding | None
    wallet: Wallet | None
    price: int  # pico that the request would add
    version: int | None  # catalogue version it was priced by
    retry_after_us: int | None
    feature: bool | str | None  # the plan's value of the feature asked for; of a metered one, whether anything is left
    hold: Hold | None
    entitlement: Binding | None = None  # what a metered feature has left behind this request, and when it frees

    @property
    def allowed(self) -> bool:
        return self.reason is None


class SliceNeeded(Struct, frozen=True):
    """Admitted, but the slice does not cover it yet: put these whole slices into the log, then ask again."""

    account: str
    quantities: Mapping[str, int]  # nano-units per price


class LeaseNeeded(Struct, frozen=True):
    """Admitted; the decision's hold is the lease. Put it into the log: it is granted when it has been read back."""

    decision: Decision
    hold: Hold


class _Open(Struct):
    """An open hold; `left` is what may still come of each bound, in nano-units."""

    hold: Hold
    segment: int  # start of the segment of its admission instant
    left: list[int]
    events: int  # that may come of it, as asked


class _Till:
    """What the owner remembers of one account."""

    __slots__ = (
        "asked_slices",
        "caps",
        "held",
        "leased",
        "ledger",
        "limits",
        "numbers",
        "pace",
        "read_slice",
        "spare",
        "wanted",
    )

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.leased = Leased()
        self.numbers: set[int] = set()  # of its open holds
        self.held: dict[str, int] = {}  # price -> nano-units in open holds
        self.pace = Pace()
        self.read_slice: Mapping[str, int] = {}  # as last read from the log
        self.asked_slices: list[dict[str, int]] = []  # on their way into the log, oldest first; no two are equal
        self.wanted: dict[str, int] = {}  # price -> nano-units that callers wait for
        self.spare: dict[str, int] = {}  # price -> nano-units that the slice may be larger than its need
        self.caps: Mapping[str, Cap] = {}  # the account's, that `limits` were made of
        self.limits: dict[str, _Limits] = {}  # by scope

    def limits_on(self, account: Account, scope: str) -> "_Limits":
        """The caps on the path. They change seldom, and are then another table."""
        if self.caps is not account.caps:
            self.caps, self.limits = account.caps, {}
        found = self.limits.get(scope)
        if found is None:
            if len(self.limits) >= SCOPES_REMEMBERED_MAX:
                self.limits.clear()
            found = self.limits[scope] = _limits_on(account, scope)
        return found

    def has_room(self, extra: Mapping[str, int]) -> bool:
        """Whether the slice covers all open holds and this much more."""
        return all(self.held.get(price, 0) + quantity <= self.usable(price) for price, quantity in extra.items())

    def would_overflow(self, extra: Mapping[str, int]) -> bool:
        """Whether no slice could say this much."""
        return any(self.held.get(price, 0) + quantity > QUANTITY_MAX for price, quantity in extra.items())

    def usable(self, price: str) -> int:
        """What open holds may come to: no slice that the log holds, or may hold, is smaller."""
        usable = self.read_slice.get(price, 0)
        for asked in self.asked_slices:
            usable = min(usable, asked.get(price, 0))
        return usable

    def read(self, quantities: Mapping[str, int]) -> None:
        """The log says so now; what was asked for before has arrived, or never will."""
        self.read_slice = quantities
        for place, asked in enumerate(self.asked_slices):
            if asked == quantities:
                del self.asked_slices[: place + 1]
                self.wanted = {}
                break

    def ask(self, extra: Mapping[str, int]) -> dict[str, int]:
        """The slice to put into the log so that this much more may be held: one that is already asked for, if it will
        do. It is no smaller than the one before, and unlike any other, so that it is known again when it is read."""
        for price, quantity in extra.items():
            self.wanted[price] = self.wanted.get(price, 0) + quantity
        need = {price: self.held.get(price, 0) + extra.get(price, 0) for price in self.held | dict(extra)}
        latest = self.asked_slices[-1] if self.asked_slices else None
        others = {price: self.wanted.get(price, 0) - extra.get(price, 0) for price in need}
        if latest is not None and all(
            latest.get(price, 0) >= quantity + min(others[price], self.spare.get(price, 0))
            for price, quantity in need.items()
        ):
            return latest
        wish = dict(self.read_slice if latest is None else latest)
        for price, quantity in need.items():
            ahead = min(others[price] + SLICE_SPARE * quantity, self.spare.get(price, 0))
            wish[price] = max(wish.get(price, 0), min(quantity + ahead, QUANTITY_MAX))
        while wish == self.read_slice or wish in self.asked_slices:
            wish[next(iter(need))] += 1
        self.asked_slices.append(wish)
        return wish


class _LookedAt(Struct, frozen=True):
    """What the meters of an event type look at."""

    dimensions: tuple[str, ...]
    session: str | None  # the first of them that counts sessions


class _Limits(Struct, frozen=True):
    """The caps that bind a request in a scope."""

    path: tuple[str, ...]  # the scopes that it lies in
    caps: list[Cap]  # hard ones on what is counted, by scope and name
    ceilings: list[Cap]  # those on each single request


class _Verdict(Struct):
    """How the money limits answer a request."""

    reason: Reason | None
    binding: Binding | None
    wallet: Wallet
    price: int
    retry_after_us: int | None
    left: int | None  # pico behind the request, of the tightest limit; None: without limit


class Desk:
    """The owner's memory of open holds and admissions, for one partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.epoch = 0  # of the owner that answers here; slices of a lower one are someone else's
        self.report_delay_us = 60_000_000  # how long after a hold's expiry its usage may still reach the log
        self._clear()

    def _clear(self) -> None:
        self._tills: dict[str, _Till] = {}  # by account, the one asked about last at the end
        self._open: dict[int, _Open] = {}
        self._last_number = 0
        self._due: dict[int, set[int]] = {}  # second -> holds whose report_until lies in it
        self._due_seconds: list[int] = []  # heap of the seconds in _due, and some that are no more
        self._shapes: dict[object, tuple[Part, ...] | Unreachable] = {}
        self._looked_at: dict[tuple[int, str], _LookedAt] = {}
        self._unused: dict[str, int] = {}  # account -> since when its slice is unused, oldest first
        self._strained: dict[str, None] = {}  # accounts whose slices are nearly used up
        self._now_us = 0  # the latest clock that was told; the fold tells none
        self._exposure = Exposure()

    def begin(self, epoch: int) -> None:
        """Answer from now on as the owner of this epoch; what was held under another is left to its slices."""
        self.epoch = epoch
        self._clear()

    # ------------------------------------------------------------------------------------------------------ questions

    def would_run(self, account: Account, book: PriceBook, question: Question, now_us: int) -> bool:
        """Whether such a request without a hold would be allowed. It is not, and counts nowhere."""
        decision = self.check(account, book, question, now_us, counts=False)
        return isinstance(decision, Decision) and decision.allowed

    def check(
        self, account: Account | None, book: PriceBook, question: Question, now_us: int, *, counts: bool = True
    ) -> Decision | SliceNeeded:
        """Decide, and reserve if a hold is asked for and admitted."""
        if account is None:
            return _refused(Reason.UNKNOWN_ACCOUNT)
        till = self.face(account, book, now_us)
        catalogue = book.at(now_us)
        denied = standing_denies(account, question.scope, now_us)
        feature: bool | str | None = None
        meter: Cap | None = None
        if denied is None and question.feature is not None:
            plan = catalogue.plans.get(account.contract.plan_name_at(now_us)) if catalogue else None
            value = granted(plan, account, question.scope, question.feature)
            if value is None:
                denied = Reason.FEATURE_NOT_ENTITLED, Binding("feature", "", question.feature, None, None)
            meter, feature = (value, None) if isinstance(value, Cap) else (None, value)
        bounds: tuple[Bound, ...] = ()
        if denied is None and question.type is not None:
            denied, bounds = self._reached(account, till, catalogue, question, now_us)
        rates: list[tuple[RateLimit, int]] = []
        if denied is None and account.rate_limits:
            rates = _rates(account, till, question.scope, bounds)
            denied = _too_fast(till, rates, now_us)
        if denied is None and question.hold_us is not None and len(till.numbers) >= HOLDS_MAX:
            denied = Reason.TOO_MANY_HOLDS, _MANY_HOLDS
        if denied is not None:
            return _turned_down(account, till, catalogue, *denied, feature)
        asked = Asked(till.ledger.segment, bounds, question.n)
        kept = question.hold_us is not None
        verdict = self.weigh(account, till, question.scope, asked, now_us, kept=kept)
        if meter is not None and meter.hard:
            verdict = _metered(account, till, meter, verdict, now_us)
        hold = None
        if verdict.reason is None and kept:
            hold = self._hold(account, question, bounds, _version(catalogue), now_us)
            if len(msgspec.json.encode(hold)) > HOLD_JSON_MAX:
                return _turned_down(account, till, catalogue, *_TOO_WIDE, feature)
            more = held_by(bounds)
            if till.would_overflow(more):
                return _turned_down(account, till, catalogue, Reason.TOO_MANY_HOLDS, _MANY_HOLDS, feature)
            if not till.has_room(more):
                return self._slice_for(account, till, more, verdict.left)
            self._last_number = hold.number
            self._keep(till, _Open(hold, asked.segment, [bound.quantity for bound in bounds], question.n))
            self._watch_use(account.account, till)
        if verdict.reason is None and counts:
            if rates:
                till.pace.count(rates, now_us)
            if hold is None and bounds:
                self._exposure.note(account.currency, verdict.price, now_us)
        return Decision(
            verdict.reason,
            verdict.binding,
            verdict.wallet,
            verdict.price,
            _version(catalogue),
            verdict.retry_after_us,
            feature if meter is None else verdict.reason is None,
            hold,
            None if meter is None else _entitlement(account, till, meter, now_us),
        )

    def extend(
        self,
        account: Account | None,
        book: PriceBook,
        hold: Hold,
        bounds: tuple[FieldBound, ...],
        hold_us: int,
        now_us: int,
    ) -> Decision | SliceNeeded:
        """Admit more into an open hold (bounds may be empty: only its time is extended).

        A bound adds to each bound of the hold that has one of its fields; what the hold does not know costs nothing."""
        if account is None:
            return _refused(Reason.UNKNOWN_ACCOUNT)
        till = self.face(account, book, now_us)
        found = self._open.get(hold.number) if self._is_mine(hold) else None
        catalogue = book.at(now_us)
        denied: tuple[Reason, Binding] | None = None
        if found is None or found.hold.account != hold.account or now_us >= found.hold.expires_us:
            denied = _not_open(hold)
        else:
            denied = standing_denies(account, found.hold.scope, now_us)
            if denied is None and found.segment != till.ledger.segment:
                denied = Reason.BOUNDARY_PASSED, Binding("hold", hold.scope, hold.id, None, None)
        if denied is not None or found is None:
            assert denied is not None
            return _turned_down(account, till, catalogue, *denied, None)
        assert catalogue is not None
        added = _added(_sold(till), catalogue, found.hold.bounds, bounds)
        more = tuple(
            Bound(quantity, bound.reached, bound.held)
            for bound, quantity in zip(found.hold.bounds, added, strict=True)
            if quantity
        )
        asked = Asked(found.segment, more, 1)
        grown = self._grown(found.hold, added, now_us + hold_us)
        rates = _rates(account, till, hold.scope, more, is_request=False)
        if (denied := _too_fast(till, rates, now_us)) is not None:
            return _turned_down(account, till, catalogue, *denied, None)
        verdict = self.weigh(account, till, found.hold.scope, asked, now_us, kept=True, whole=(found, grown.bounds))
        if verdict.reason is None:
            if len(msgspec.json.encode(grown)) > HOLD_JSON_MAX:
                return _turned_down(account, till, catalogue, *_TOO_WIDE, None)
            quantities = held_by(more)
            if till.would_overflow(quantities):
                return _turned_down(account, till, catalogue, Reason.TOO_MANY_HOLDS, _MANY_HOLDS, None)
            if not till.has_room(quantities):
                return self._slice_for(account, till, quantities, verdict.left)
            self._drop(found)
            left = [old + new for old, new in zip(found.left, added, strict=True)]
            self._keep(till, _Open(grown, found.segment, left, found.events))
            self._watch_use(account.account, till)
            till.pace.count(rates, now_us)
            found = self._open[grown.number]
        return Decision(
            verdict.reason,
            verdict.binding,
            verdict.wallet,
            verdict.price,
            _version(catalogue),
            verdict.retry_after_us,
            None,
            found.hold if verdict.reason is None else None,
        )

    def lease(
        self, account: Account | None, book: PriceBook, question: Question, requests: int, least: int, now_us: int
    ) -> Decision | LeaseNeeded:
        """Grant a lease of up to so many requests like the question, none below `least` (README, "Leases"). What is
        granted counts as held from now on."""
        assert question.hold_us is not None
        assert question.n == 1
        if account is None:
            return _refused(Reason.UNKNOWN_ACCOUNT)
        till = self.face(account, book, now_us)
        catalogue = book.at(now_us)
        denied = standing_denies(account, question.scope, now_us)
        bounds: tuple[Bound, ...] = ()
        if denied is None:
            denied, bounds = self._reached(account, till, catalogue, question, now_us)
        if denied is None and till.leased.count(account) >= LEASES_MAX:
            denied = Reason.TOO_MANY_LEASES, _MANY_LEASES
        if denied is not None:
            return _turned_down(account, till, catalogue, *denied, None)
        granted = self._part_of(account, till, question.scope, bounds, requests, least, now_us)
        if isinstance(granted, _Verdict):
            return _decided(granted, catalogue, None)
        number, verdict = granted
        question = replace(question, hold_us=min(question.hold_us, till.ledger.ends - now_us))
        hold = self._hold(account, question, times(bounds, number), _version(catalogue), now_us)
        return self._grant(account, till, catalogue, replace(hold, requests=number), verdict)

    def extend_lease(
        self,
        account: Account | None,
        book: PriceBook,
        hold: Hold,
        requests: int,
        least: int,
        hold_us: int,
        now_us: int,
    ) -> Decision | LeaseNeeded:
        """Admit up to so many more requests into an open lease (0: only its time is extended)."""
        if account is None:
            return _refused(Reason.UNKNOWN_ACCOUNT)
        till = self.face(account, book, now_us)
        catalogue = book.at(now_us)
        found = till.leased.open_one(account, hold.id)
        denied: tuple[Reason, Binding] | None = None
        if found is None or now_us >= found.expires_us:
            denied = _not_open(hold)
        else:
            denied = standing_denies(account, found.scope, now_us)
            if denied is None and account.segment_around(found.admitted_us)[0] != till.ledger.segment:
                denied = Reason.BOUNDARY_PASSED, Binding("hold", hold.scope, hold.id, None, None)
        if denied is not None or found is None:
            assert denied is not None
            return _turned_down(account, till, catalogue, *denied, None)
        one = per_request(found)
        granted = self._part_of(account, till, found.scope, one, requests, min(least, requests), now_us)
        if isinstance(granted, _Verdict):
            return _decided(granted, catalogue, None)
        number, verdict = granted
        more = times(one, number)
        added = [bound.quantity for bound in more] if number else [0] * len(one)
        until_us = max(found.valid_until_us, min(now_us + hold_us, till.ledger.ends))
        grown = replace(self._grown(found, added, until_us), requests=found.requests + number, extends=True)
        return self._grant(account, till, catalogue, grown, verdict)

    def lease_over(self, account: Account, book: PriceBook, lease: Hold, now_us: int) -> Decision:
        """The answer to an extension that was admitted and came into the log behind the end of its lease."""
        till = self.face(account, book, now_us)
        return _turned_down(account, till, book.at(now_us), *_not_open(lease), None)

    def _part_of(
        self,
        account: Account,
        till: _Till,
        scope: str,
        one: tuple[Bound, ...],
        requests: int,
        least: int,
        now_us: int,
    ) -> "tuple[int, _Verdict] | _Verdict":
        """How many of the requests a lease may have, each with these bounds, and what they come to; or why none."""

        def weighed(number: int, *, kept: bool = True) -> _Verdict:
            asked = Asked(till.ledger.segment, times(one, number), number)
            return self.weigh(account, till, scope, asked, now_us, kept=kept)

        keeper = only_owner_keeps(account, scope)
        number = 0 if keeper is not None else at_most_half(requests, least, lambda n: weighed(n).reason is None)
        if number or not requests:
            return number, weighed(number)
        verdict = weighed(1, kept=False)
        if verdict.reason is not None:
            return verdict
        binding = keeper or weighed(2 * least).binding
        return replace(verdict, reason=Reason.STRICT, binding=binding, retry_after_us=None, price=0)

    def _grant(
        self, account: Account, till: _Till, catalogue: Catalogue | None, hold: Hold, verdict: _Verdict
    ) -> Decision | LeaseNeeded:
        if len(msgspec.json.encode(hold)) > HOLD_JSON_MAX:
            return _turned_down(account, till, catalogue, *_TOO_WIDE, None)
        self._last_number = max(self._last_number, hold.number if hold.epoch == self.epoch else 0)
        till.leased.begin(hold)
        till.leased.mind(till.ledger, account)
        return LeaseNeeded(_decided(verdict, catalogue, hold), hold)

    def wallet(self, account: Account, book: PriceBook, now_us: int) -> Wallet:
        """Booked, held and available at this moment."""
        return _wallet(account, self.face(account, book, now_us).ledger)

    # ---------------------------------------------------------------------------------------------------- what happens

    def opened(self, hold: Hold) -> Hold | None:
        """The hold with all its extensions; None: it is not open here (any more)."""
        found = self._open.get(hold.number) if self._is_mine(hold) else None
        return None if found is None else found.hold

    def release(self, hold: Hold) -> bool:
        """The holder asserts that nothing was used (or nothing more). False: the hold is not open here (any more)."""
        found = self._open.get(hold.number) if self._is_mine(hold) else None
        if found is None:
            return False
        self._drop(found)
        return True

    def settled(self, hold: Hold, used: Mapping[str, int], final: bool) -> None:
        """An event that names the hold was rated: nano-units per price. Called by the fold."""
        found = self._open.get(hold.number) if self._is_mine(hold) else None
        if found is None:
            return
        if final:
            self._drop(found)
            return
        till = self._tills[found.hold.account]
        path = scope_path(found.hold.scope)
        for place, bound in enumerate(found.hold.bounds):
            drawn = min(found.left[place], sum(used.get(price, 0) for price in bound.reached))
            if drawn:
                found.left[place] -= drawn
                till.ledger.put(found.segment, path, bound, -drawn, 0)
                _take(till.held, bound.held, drawn)

    def leased(self, hold: Hold) -> None:
        """A lease of this owner's was read from the log. Called by the fold."""
        till = self._tills.get(hold.account)
        if till is not None:
            till.leased.read(hold)

    def sliced(self, account_id: str, quantities: Mapping[str, int]) -> None:
        """A slice of this owner's was read from the log. Called by the fold."""
        till = self._tills.get(account_id)
        if till is not None:
            till.read(quantities)
            self._watch_use(account_id, till)

    def reclaim(self, log_time_us: int, now_us: int) -> int:
        """Free the holds whose report_until both clocks have passed; how many."""
        self._now_us = max(self._now_us, now_us)
        passed = min(log_time_us, now_us) // SECOND_US
        reclaimed = 0
        while self._due_seconds and self._due_seconds[0] < passed:
            for number in list(self._due.get(heappop(self._due_seconds), ())):
                self._drop(self._open[number])
                reclaimed += 1
        return reclaimed

    def next_reclaim_us(self) -> int | None:
        """When log time should have moved on for a hold to be reclaimed."""
        while self._due_seconds and self._due_seconds[0] not in self._due:
            heappop(self._due_seconds)
        return (self._due_seconds[0] + 1) * SECOND_US if self._due_seconds else None

    def slices_wished(self, now_us: int) -> list[SliceNeeded]:
        """Slices to put into the log although nobody waits for them: refilled ahead, or given back (no quantities)."""
        self._now_us = max(self._now_us, now_us)
        wishes = []
        for account_id in self._strained:
            till = self._tills.get(account_id)
            if till is not None and till.held and not till.asked_slices:
                wish = till.ask({})
                if _is_worth_a_record(till.read_slice, wish):
                    wishes.append(SliceNeeded(account_id, wish))
                else:
                    till.asked_slices.pop()
        self._strained.clear()
        while self._unused:
            account_id, since_us = next(iter(self._unused.items()))
            if since_us > now_us - GIVE_BACK_US:
                break
            del self._unused[account_id]
            till = self._tills[account_id]
            if (till.asked_slices[-1] if till.asked_slices else till.read_slice) and not till.numbers:
                till.asked_slices.append({})
                till.wanted = {}
                wishes.append(SliceNeeded(account_id, {}))
        return wishes

    def unheld(self, now_us: int) -> dict[str, int]:
        """Pico by currency: at most so much may still be used that was allowed without a hold."""
        return self._exposure.bound(self.report_delay_us, now_us)

    @property
    def open_holds(self) -> int:
        """Holds neither settled, released nor reclaimed."""
        return len(self._open)

    def holds_of(self, account_id: str) -> int:
        """How many of them are one account's."""
        till = self._tills.get(account_id)
        return 0 if till is None else len(till.numbers)

    # ---------------------------------------------------------------------------------------------------- open holds

    def _is_mine(self, hold: Hold) -> bool:
        return hold.epoch == self.epoch and hold.partition == self.partition

    def face(self, account: Account, book: PriceBook, now_us: int) -> _Till:
        """The till of the account, with its ledger turned to how the account stands now."""
        self._now_us = max(self._now_us, now_us)
        name = account.account
        till = self._tills.pop(name, None)
        if till is None:
            till = _Till()
            self._forget_idle(now_us)
        self._tills[name] = till
        if till.ledger.face(account, book, now_us):
            self._put_anew(till, account)
        till.leased.mind(till.ledger, account)
        mine = account.slices.get(self.epoch)
        quantities = mine.quantities if mine is not None and mine.closed_us is None else {}
        if quantities is not till.read_slice and quantities != till.read_slice:
            till.read(quantities)
        if till.ledger.withheld or len(account.slices) > (mine is not None):
            till.ledger.withhold(
                (now_us if each.closed_us is None else each.closed_us - each.linger_us, each.quantities)
                for epoch, each in account.slices.items()
                if epoch != self.epoch
            )
        return till

    def _forget_idle(self, now_us: int) -> None:
        """Of the accounts that were not asked about for longest, forget two that have nothing to remember."""
        for _ in range(2):
            if len(self._tills) < LEDGERS_IDLE_MAX:
                return
            name, till = next(iter(self._tills.items()))
            del self._tills[name]
            busy = till.numbers or till.read_slice or till.asked_slices or till.leased.granting
            if busy or not till.pace.idle(now_us):
                self._tills[name] = till

    def _put_anew(self, till: _Till, account: Account) -> None:
        """Boundaries have moved: each hold lies in the segment of its admission as it is now."""
        till.ledger.piles.clear()
        start, end = 0, 0
        for number in till.numbers:
            found = self._open[number]
            if not start <= found.hold.admitted_us < end:
                start, end = account.segment_around(found.hold.admitted_us)
            found.segment = start
            self._pile_up(till, found, 1)
        till.leased.put_anew(till.ledger, account)

    @staticmethod
    def _pile_up(till: _Till, found: _Open, sign: int) -> None:
        path = scope_path(found.hold.scope)
        for bound, left in zip(found.hold.bounds, found.left, strict=True):
            till.ledger.put(found.segment, path, bound, sign * left, sign * found.events)

    def _keep(self, till: _Till, found: _Open) -> None:
        number = found.hold.number
        self._open[number] = found
        till.numbers.add(number)
        self._pile_up(till, found, 1)
        for bound, left in zip(found.hold.bounds, found.left, strict=True):
            for price in bound.held if left else ():
                till.held[price] = till.held.get(price, 0) + left
        second = found.hold.report_until_us // SECOND_US
        due = self._due.get(second)
        if due is None:
            due = self._due[second] = set()
            heappush(self._due_seconds, second)
        due.add(number)

    def _drop(self, found: _Open) -> None:
        hold = found.hold
        till = self._tills[hold.account]
        del self._open[hold.number]
        till.numbers.discard(hold.number)
        self._pile_up(till, found, -1)
        for bound, left in zip(hold.bounds, found.left, strict=True):
            _take(till.held, bound.held, left)
        second = hold.report_until_us // SECOND_US
        self._due[second].discard(hold.number)
        if not self._due[second]:
            del self._due[second]
        if not till.numbers:
            self._watch_use(hold.account, till)

    def _hold(
        self, account: Account, question: Question, bounds: tuple[Bound, ...], version: int | None, now_us: int
    ) -> Hold:
        assert question.hold_us is not None
        assert version is not None
        valid_until_us = now_us + question.hold_us
        expires_us = valid_until_us + VALID_GAP_US
        return Hold(
            account.account,
            question.scope,
            self.partition,
            self.epoch,
            self._last_number + 1,
            now_us,
            version,
            valid_until_us,
            expires_us,
            expires_us + self.report_delay_us,
            bounds,
        )

    def _grown(self, hold: Hold, added: list[int], until_us: int) -> Hold:
        valid_until_us = max(hold.valid_until_us, until_us)
        expires_us = valid_until_us + VALID_GAP_US
        return replace(
            hold,
            valid_until_us=valid_until_us,
            expires_us=expires_us,
            report_until_us=expires_us + self.report_delay_us,
            bounds=tuple(
                Bound(bound.quantity + more, bound.reached, bound.held)
                for bound, more in zip(hold.bounds, added, strict=True)
            ),
        )

    # ------------------------------------------------------------------------------------------------------- slices

    def _slice_for(self, account: Account, till: _Till, more: Mapping[str, int], left: int | None) -> SliceNeeded:
        """The slice that has room for this much more; larger, if what is left can bear being frozen after a crash."""
        prices = _sold(till)
        spare = {}
        for name in till.held | dict(more):
            rate = prices[name].steepest if name in prices else None
            if left is None or rate == 0:
                spare[name] = QUANTITY_MAX
            elif rate is not None:
                spare[name] = (left // rate) // (SLICE_SHARE * len(more))
            if name in spare:
                for cap in account.caps.values():
                    if cap.hard and cap.tallied and name in prices and cap.takes(name, prices[name].meter):
                        free = cap.amount - cap.window.counted(account.zone, account.tallies[cap.cap], self._now_us)
                        spare[name] = min(spare[name], max(0, free) // SLICE_SHARE)
        till.spare = spare
        return SliceNeeded(account.account, till.ask(more))

    def _watch_use(self, account_id: str, till: _Till) -> None:
        """Remember whose slice is nearly used up, and whose is not used at all."""
        if till.numbers:
            self._unused.pop(account_id, None)
            if account_id not in self._strained:
                for price, quantity in till.held.items():
                    if 4 * quantity > 3 * till.usable(price):
                        self._strained[account_id] = None
                        break
        elif till.read_slice or till.asked_slices:
            self._unused.pop(account_id, None)
            self._unused[account_id] = self._now_us

    # ---------------------------------------------------------------------------------------------------- the limits

    def _reached(
        self, account: Account, till: _Till, catalogue: Catalogue | None, question: Question, now_us: int
    ) -> tuple[tuple[Reason, Binding] | None, tuple[Bound, ...]]:
        """The bounds of a question with a type, or why it has none."""
        assert question.type is not None
        bounds = self._bounds(account, till, catalogue, question, now_us)
        denied = None
        if catalogue is not None and not (isinstance(bounds, Unreachable) and bounds.reason == "no_meter"):
            denied = list_denies(account, question.scope, catalogue, question.type, question.data, question.reach)
        if not isinstance(bounds, Unreachable):
            return denied, bounds
        kind = "bound" if bounds.reason == "unbounded" else "meter"
        return denied or (Reason(bounds.reason), Binding(kind, "", bounds.name, None, None)), ()

    def _bounds(
        self, account: Account, till: _Till, catalogue: Catalogue | None, question: Question, now_us: int
    ) -> tuple[Bound, ...] | Unreachable:
        event_type = question.type
        assert event_type is not None
        plan = till.ledger.plan
        name = account.contract.plan_name_at(till.ledger.segment)
        if question.hold_us is not None and catalogue is not None and event_type in catalogue.hours_of:
            # What is held is rated at its admission, so its hour is known.
            question = replace(question, data={**question.data, **catalogue.hours_at(event_type, now_us)})
        parts = self._reach(name, plan, catalogue, question)
        if isinstance(parts, Unreachable):
            return parts
        if question.hold_us is not None and catalogue is not None:
            session = self._looks_at(catalogue, event_type).session
            if session is not None:  # it goes on past the instant that a hold is admitted and rated at
                return Unreachable("unbounded", session)
        bounds = []
        payers: list[tuple[str, ...]] | None = None
        for part in parts:
            quantity = question.n * (NANO if part.bound is None else question.bounds[part.bound].up_to)
            held = part.held
            if len(part.reached) > len(held):
                if payers is None:
                    payers = payers_of(account, till.ledger.segment)
                if payers and plan is not None:
                    held = held_by_payers(plan, part.reached, payers)
            bounds.append(Bound(quantity, part.reached, held))
        return tuple(bounds)

    def _reach(
        self, plan_name: str, plan: Plan | None, catalogue: Catalogue | None, question: Question
    ) -> tuple[Part, ...] | Unreachable:
        """What such a question reaches. Many are alike in what matters, so it is remembered."""
        event_type = question.type
        assert event_type is not None
        if catalogue is None or event_type not in catalogue.meters_of:
            return Unreachable("no_meter", event_type)
        dimensions = self._looks_at(catalogue, event_type).dimensions
        data, reach = question.data, question.reach
        fields = tuple([bound.fields for bound in question.bounds])
        shape = (
            catalogue.version,
            plan_name,
            plan,
            event_type,
            tuple([data.get(name) for name in dimensions]),
            tuple([reach.get(name) for name in dimensions]) if reach else None,
            fields,
        )
        found = self._shapes.get(shape)
        if found is None:
            if len(self._shapes) >= SHAPES_MAX:
                self._shapes.clear()
            found = reach_of(catalogue, plan_name, plan, event_type, data, reach, fields)
            self._shapes[shape] = found
        return found

    def _looks_at(self, catalogue: Catalogue, event_type: str) -> "_LookedAt":
        key = catalogue.version, event_type
        found = self._looked_at.get(key)
        if found is None:
            meters = catalogue.meters_of[event_type]
            dimensions = tuple(sorted({name for meter in meters for name in meter.looks_at}))
            session = next((meter.name for meter in meters if meter.session is not None), None)
            found = self._looked_at[key] = _LookedAt(dimensions, session)
        return found

    def weigh(
        self,
        account: Account,
        till: _Till,
        scope: str,
        asked: Asked,
        now_us: int,
        *,
        kept: bool,
        whole: tuple[_Open, tuple[Bound, ...]] | None = None,
    ) -> _Verdict:
        """Whether wallet and caps bear what is asked for on top of all that is held. `whole`: the hold that it extends,
        and the bounds that it grows to, on which ceilings are tested."""
        ledger, limits = till.ledger, till.limits_on(account, scope)
        caps = limits.caps
        nothing_held = ledger.look(held=False, withheld=False)
        booked, before = nothing_held.balance, ledger.look() if ledger.keeps else nothing_held
        after = ledger.look(asked=asked)
        price = after.total - before.total
        if limits.ceilings:
            bounds, full, requests = asked.bounds, price, asked.events
            if whole is not None:
                found, bounds = whole
                full, requests = self._price_of(till, found, bounds), found.events
            denied = ceiling_denies(limits.ceilings, bounds, _sold(till), full, requests)
            if denied is not None:
                wallet = Wallet(account.currency, booked, booked - before.balance, account.overdraft)
                return _Verdict(*denied, wallet, price, None, None)
        refusal = _refusal(account, ledger, caps, after, asked, now_us, withheld=True)
        if refusal is None:
            held = booked - (after if kept else before).balance
            binding, spare = _tightest(account, ledger, caps, after, asked, now_us)
            wallet = Wallet(account.currency, booked, held, account.overdraft)
            return _Verdict(None, binding, wallet, price, None, spare)
        wallet = Wallet(account.currency, booked, booked - before.balance, account.overdraft)
        if ledger.withheld:
            alone = ledger.look(withheld=False, asked=asked)
            refusal = _refusal(account, ledger, caps, alone, asked, now_us, withheld=False)
            if refusal is None:
                epoch, ends_us = min(
                    ((epoch, each.ends_us or now_us) for epoch, each in account.slices.items() if epoch != self.epoch),
                    key=lambda item: item[1],
                )
                wait_us = max(RETRY_US, ends_us - now_us)
                binding = Binding("slice", "", str(epoch), None, wait_us)
                return _Verdict(Reason.WITHHELD, binding, wallet, price, wait_us, None)
        reason, cap = refusal
        if cap is None:
            left = None
            if account.overdraft is not None:
                # What is owed already, beside lots that need not settle it, leaves nothing for anybody.
                left = max(0, before.balance + account.overdraft) if before.debt <= account.overdraft else 0
            return _Verdict(reason, Binding("wallet", "", "", left, None), wallet, price, None, None)
        free = _left_of(account, ledger, cap, before, ledger.month, now_us, withheld=True, asked=None)[0]
        short, rounding = _left_of(account, ledger, cap, after, ledger.month, now_us, withheld=True, asked=asked)
        frees_us = _frees_in_us(account, cap, now_us, rounding - short)
        binding = Binding("cap", cap.scope, cap.cap, max(0, free), frees_us, cap.unit)
        return _Verdict(reason, binding, wallet, price, frees_us, None)

    def _price_of(self, till: _Till, found: _Open, bounds: tuple[Bound, ...]) -> int:
        """What a hold of these bounds would add, in place of the one that is open."""
        self._pile_up(till, found, -1)
        without = till.ledger.look().total
        price = till.ledger.look(asked=Asked(found.segment, bounds, found.events)).total - without
        self._pile_up(till, found, 1)
        return price


def _limits_on(account: Account, scope: str) -> _Limits:
    path = scope_path(scope)
    caps = [cap for cap in account.caps.values() if cap.hard and not cap.per_request and cap.scope in path]
    caps.sort(key=lambda cap: (cap.scope, cap.cap))
    return _Limits(path, caps, ceilings_on(account, scope))


_TOO_WIDE: Final = Reason.UNBOUNDED, Binding("bound", "", "reach", None, None)
_MANY_HOLDS: Final = Binding("holds", "", "", 0, RETRY_US)
_MANY_LEASES: Final = Binding("leases", "", "", 0, RETRY_US)


def _sold(till: _Till) -> Mapping[str, Price]:
    """The prices in force at this moment."""
    plan = till.ledger.plan
    return {} if plan is None else plan.prices


def _rates(
    account: Account, till: _Till, scope: str, bounds: Iterable[Bound], *, is_request: bool = True
) -> list[tuple[RateLimit, int]]:
    """The rate limits on the path, and what a request counts in each."""
    if not account.rate_limits:
        return []
    path, prices = scope_path(scope), _sold(till)
    return [
        (limit, counted_by(limit, bounds, prices, is_request=is_request))
        for limit in account.rate_limits.values()
        if limit.scope in path
    ]


def _too_fast(till: _Till, rates: Iterable[tuple[RateLimit, int]], now_us: int) -> tuple[Reason, Binding] | None:
    found = till.pace.refusal(rates, now_us)
    if found is None:
        return None
    limit = found.limit
    return Reason.RATE_LIMITED, Binding("rate", limit.scope, limit.limit, found.left, found.wait_us, limit.meter or "")


def _left(account: Account, till: _Till, cap: Cap, now_us: int, *, withheld: bool = True) -> int:
    """What a cap leaves on top of all that is held."""
    ledger = till.ledger
    seen = ledger.look(withheld=withheld)
    return _left_of(account, ledger, cap, seen, ledger.month, now_us, withheld=withheld, asked=None)[0]


def _entitlement(account: Account, till: _Till, cap: Cap, now_us: int) -> Binding:
    """How a metered feature stands."""
    left = max(0, _left(account, till, cap, now_us))
    return Binding("cap", cap.scope, cap.cap, left, _frees_in_us(account, cap, now_us, 1 - left), cap.unit)


def _metered(account: Account, till: _Till, meter: Cap, verdict: _Verdict, now_us: int) -> _Verdict:
    """The verdict, where a metered feature must have something left, even for a request that takes nothing of it."""
    if verdict.reason in (Reason.OVER_CEILING, Reason.CAP_REACHED) or _left(account, till, meter, now_us) > 0:
        return verdict
    binding = _entitlement(account, till, meter, now_us)
    if _left(account, till, meter, now_us, withheld=False) <= 0:
        return replace(verdict, reason=Reason.CAP_REACHED, binding=binding, retry_after_us=binding.frees_in_us)
    if verdict.reason is None:
        return replace(verdict, reason=Reason.WITHHELD, binding=binding, retry_after_us=RETRY_US)
    return verdict


def _refusal(
    account: Account, ledger: Ledger, caps: Iterable[Cap], seen: Outlook, asked: Asked, now_us: int, *, withheld: bool
) -> tuple[Reason, Cap | None] | None:
    """The first of the caps and the wallet that what is seen would pass."""
    now = ledger.month
    # A clock that was set back makes later months of this one's holds: they count as well.
    later = [month for month in seen.spend if month > now]
    for cap in caps:
        for month in (now,) if cap.tallied else (now, *later):
            left, rounding = _left_of(account, ledger, cap, seen, month, now_us, withheld=withheld, asked=asked)
            if left < rounding:
                return Reason.CAP_REACHED, cap
    if account.overdraft is not None and seen.debt > account.overdraft:
        return Reason.CREDIT_DEPLETED, None
    return None


def _left_of(
    account: Account,
    ledger: Ledger,
    cap: Cap,
    seen: Outlook,
    month: int,
    now_us: int,
    *,
    withheld: bool,
    asked: Asked | None,
) -> tuple[int, int]:
    """What a cap leaves in a month, or in its own window, and what of it must stay free because charges round one by one.

    What is held counts in whatever window a tallied cap is asked about: it may yet be used in it."""
    if cap.tallied:
        left = cap.amount - cap.window.counted(account.zone, account.tallies[cap.cap], now_us)
        if not cap.in_money:
            return left - ledger.scope_quantity(cap, withheld=withheld, asked=asked), 0
        charges, rounding = ledger.scope_charges(cap.scope, None, withheld=withheld, asked=asked)
        return left - charges, rounding
    if cap.basis == DUE:
        return cap.amount - seen.due.get(month, 0), 0
    if cap.basis == LIST:
        seen = ledger.by_list.look(withheld=withheld, asked=asked)
    if cap.scope == ROOT:
        return cap.amount - seen.spend.get(month, 0), seen.rounding.get(month, 0)
    charges, rounding = ledger.scope_charges(cap.scope, month, withheld=withheld, asked=asked)
    return cap.amount - account.scopes[cap.scope].spend.get(month, 0) - charges, rounding


def _tightest(
    account: Account, ledger: Ledger, caps: Iterable[Cap], seen: Outlook, asked: Asked, now_us: int
) -> tuple[Binding, int | None]:
    """The limit to name, and the least pico that a money limit leaves (None: without limit).

    Of money limits it is the one with the least left; of equals the wallet, then caps by scope and name. Units and money
    cannot be compared, so a cap on units is named before them if the same request would not fit in it again."""
    overdraft = account.overdraft
    least = None if overdraft is None else max(0, seen.balance + overdraft)
    best: Cap | None = None  # None: the wallet
    scarce: tuple[Cap, int] | None = None
    for cap in caps:
        left = max(0, _left_of(account, ledger, cap, seen, ledger.month, now_us, withheld=True, asked=asked)[0])
        if cap.in_money:
            if least is None or left < least:
                best, least = cap, left
        elif scarce is None and left < ledger.scope_quantity(cap, withheld=False, asked=asked, held=False):
            scarce = cap, left
    named, left_of_it = scarce or (best, least)
    if named is None:
        return Binding("wallet", "", "", least, None), least
    frees_us = _frees_in_us(account, named, now_us, 0)
    return Binding("cap", named.scope, named.cap, left_of_it, frees_us, named.unit), least


def _frees_in_us(account: Account, cap: Cap, now_us: int, excess: int) -> int | None:
    """When the window of a cap ends, or so much of what it has counted is gone; None: time alone frees nothing."""
    frees_us = cap.window.fits_us(account.zone, account.tallies.get(cap.cap, {}), now_us, excess)
    return None if frees_us is None else frees_us - now_us


def _wallet(account: Account, ledger: Ledger) -> Wallet:
    booked = ledger.look(held=False, withheld=False).balance
    return Wallet(account.currency, booked, booked - ledger.look().balance, account.overdraft)


def _refused(reason: Reason) -> Decision:
    return Decision(reason, None, None, 0, None, None, None, None)


def _decided(verdict: _Verdict, catalogue: Catalogue | None, lease: Hold | None) -> Decision:
    return Decision(
        *(verdict.reason, verdict.binding, verdict.wallet, verdict.price),
        *(_version(catalogue), verdict.retry_after_us, None, lease),
    )


def _turned_down(
    account: Account,
    till: _Till,
    catalogue: Catalogue | None,
    reason: Reason,
    binding: Binding,
    feature: bool | str | None,
) -> Decision:
    wallet = _wallet(account, till.ledger)
    return Decision(reason, binding, wallet, 0, _version(catalogue), binding.frees_in_us, feature, None)


def _not_open(hold: Hold) -> tuple[Reason, Binding]:
    return Reason.HOLD_NOT_OPEN, Binding("hold", hold.scope, hold.id, None, None)


def _version(catalogue: Catalogue | None) -> int | None:
    return catalogue.version if catalogue else None


def _added(
    prices: Mapping[str, Price], catalogue: Catalogue, bounds: tuple[Bound, ...], more: tuple[FieldBound, ...]
) -> list[int]:
    """What an extension adds to each bound of a hold."""
    added = []
    for bound in bounds:
        fields = {catalogue.meters[prices[name].meter].bounded_by for name in bound.reached}
        added.append(sum(each.up_to for each in more if not fields.isdisjoint(each.fields)))
    return added


def _take(held: dict[str, int], prices: tuple[str, ...], quantity: int) -> None:
    for price in prices:
        left = held.get(price, 0) - quantity
        if left:
            held[price] = left
        else:
            held.pop(price, None)


def _is_worth_a_record(slice_: Mapping[str, int], wish: Mapping[str, int]) -> bool:
    """Not for the one nano-unit that only makes a wish unlike the slice."""
    return any(quantity > slice_.get(price, 0) + 1 for price, quantity in wish.items())
