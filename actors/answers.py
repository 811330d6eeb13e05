"""What a shard says to the questions of its door (`actors/door_wire.py`).

It speaks for a partition only while it is ready, inside its lease, and the last owner that the log names: else the
answer is `WrongOwner` or `Recovering`, and it is the caller who decides what that means. Every text and size that a
caller sent is tested here, before the engine sees it.
"""

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Final, cast, get_args

import msgspec
from msgspec import Struct

from actors.account_view import (
    account_view,
    checked_view,
    lease_view,
    payers_view,
    rerated_view,
    wallet_view,
    worth_view,
)
from actors.door_wire import (
    AlertsView,
    Answer,
    Applied,
    AppliedView,
    AsOf,
    BadQuestion,
    Balance,
    BalanceView,
    CarriedOn,
    CarryOn,
    Check,
    Checked,
    CloseLease,
    CoveredView,
    Describe,
    Extend,
    ExtendLease,
    FieldLimit,
    FindRated,
    HoldView,
    LeaseAnswered,
    LeaseClosed,
    NotFound,
    Question,
    RatedAt,
    RecentAlerts,
    Recovering,
    Release,
    Released,
    ShowPayers,
    ShowRerated,
    Status,
    StatusView,
    TakeLease,
    TooLate,
    WrongOwner,
)
from actors.lease import Lease
from actors.owned import Owned
from actors.ports import Clock, Log, Place, StoreRefused, StoreUnavailable
from actors.sealing import RowsLost
from actors.slices import SliceWriter
from config.settings import ShardSettings
from engine.admission import Decision, FieldBound, LeaseNeeded, SliceNeeded
from engine.admission import Question as Asked
from engine.corrections import cancelled_name, revision_name
from engine.dedup import OFFSETS, RowsAway, identity
from engine.events import DATA_FIELDS_MAX, KEY_BYTES_MAX, Malformed, is_scope, is_text, parse_usage
from engine.holds import BadToken, Hold, read_token, seal_token
from engine.meters import DIMENSION_TEXT_MAX
from engine.money import NotADecimal, amount_text, parse_quantity, quantity_text
from engine.outcomes import DeadLetter, Refusal
from engine.placement import partition_for

_log = logging.getLogger(__name__)

EVENT_TIME_END_US: Final = 1 << 57
RETRY_MS: Final = 250  # a takeover takes about a second
CORRECTIONS_SHOWN_MAX: Final = 100  # of one event; each is looked for by itself
N_MAX: Final = 1_000_000  # events of one request, and requests of one lease
CHEAPER_MAX: Final = 8  # alternatives of one running stream
EVENTS_MAX: Final = 10**9  # that a closed lease may have
CELLS_MAX: Final = 10_000  # that one request may reach: the product of its open dimensions' values


_ByToken = Extend | Release | CarryOn | ExtendLease | CloseLease  # questions about what a token names
_BY_TOKEN: Final[frozenset[type]] = frozenset(get_args(_ByToken))
_WAITING: Final[frozenset[type]] = frozenset(
    {TakeLease, ExtendLease, CloseLease}
)  # what is in the log before the answer
_HOLDING: Final[frozenset[type]] = frozenset({Check, TakeLease}) | _BY_TOKEN  # not answered while a partition moves


class _Bad(Exception):
    """The question breaks a limit."""

    def __init__(self, field: str, detail: str) -> None:
        super().__init__(field)
        self.answer = BadQuestion(field, detail)


class _AlertData(Struct):
    sequence: int


class _Alert(Struct):
    data: _AlertData


_alert_decoder: Final = msgspec.json.Decoder(_Alert)


class Answers:
    """Everything here is synchronous but for waiting: a decision and what it rests on are of one moment."""

    def __init__(
        self,
        *,
        clock: Clock,
        log: Log,
        lease: Lease,
        owned: Mapping[int, Owned],
        slices: SliceWriter,
        rows: Callable[[Owned, Sequence[Place]], Awaitable[list[tuple[Place, bytes]]]],
        control_key: bytes,
        settings: ShardSettings,
        status: Callable[[], StatusView],
    ) -> None:
        """`owned` is looked into at each question, and never changed. `rows` is `Sealing.rows`."""
        self.checks: Counter[str] = Counter()  # by "allowed" or the reason
        self._clock = clock
        self._log = log
        self._lease = lease
        self._owned = owned
        self._slices = slices
        self._rows = rows
        self._control_key = control_key
        self._settings = settings
        self._status = status

    def answer_now(self, question: Question) -> Answer | None:
        """The answer; None when it takes waiting: as a lease always does, it is in the log before it is given."""
        if type(question) in _WAITING:
            return None
        answer = self._try(question)
        return None if isinstance(answer, _Wait) else answer

    async def answer(self, question: Question, within_s: float) -> Answer:
        """The answer, `TooLate` when there is none in time."""
        answer = self._try(question)
        try:
            async with asyncio.timeout(within_s):
                while isinstance(answer, _Wait):
                    await self._until_there(answer)
                    answer = self._try(question, answer)
        except TimeoutError:
            return TooLate()
        except (StoreUnavailable, StoreRefused, RowsLost) as error:
            assert isinstance(answer, _Wait)
            _log.warning("partition %d: a rated event could not be looked for: %s", answer.owned.number, error)
            return self._recovering(answer.owned, question)
        return answer

    async def _until_there(self, wait: "_Wait") -> None:
        owned, awaited = wait.owned, wait.awaited
        if isinstance(awaited, SliceNeeded):
            await self._slices.written(owned, awaited)
        elif isinstance(awaited, int):
            await owned.folded(awaited)
        elif isinstance(awaited, LeaseNeeded):
            await self._slices.granted(owned, seal_token(self._control_key, awaited.hold))
        elif isinstance(awaited, _Close):
            await self._slices.closed(owned, awaited.account, awaited.lease, awaited.events)
        else:
            owned.fold.dedup.supply(await self._rows(owned, sorted(awaited)))

    # ------------------------------------------------------------------------------------------------ whom it concerns

    def _try(self, question: Question, waited: "_Wait | None" = None) -> "Answer | _Wait":
        """`waited`: what there is now that was waited for; what was decided for it is not decided again."""
        if isinstance(question, Status):
            return self._status()
        kind = type(question)
        decided = waited is not None and isinstance(waited.awaited, LeaseNeeded | _Close)
        try:
            hold = self._hold(cast(_ByToken, question)) if kind in _BY_TOKEN else None
            partition = self._partition(question, hold)
        except _Bad as bad:
            return bad.answer
        owned = self._owned.get(partition)
        if owned is None:
            return WrongOwner(partition)
        if not self._may_answer(owned):
            return self._recovering(owned, question)
        if owned.giving and not decided and kind in _HOLDING:
            return self._recovering(owned, question)
        try:
            if waited is not None and decided:
                answer: Answer | _Wait = self._in_the_log(owned, waited, hold)
            else:
                answer = self._say(owned, question, hold)
        except _Bad as bad:
            return bad.answer
        except Exception:
            # A fault of the engine must not take the door down with it, nor be taken for a yes.
            _log.exception("partition %d: a %s could not be answered", partition, kind.__name__)
            return Recovering(partition, RETRY_MS)
        if not self._may_answer(owned):  # the lease ran out while we decided: a successor may have spoken meanwhile
            return self._recovering(owned, question)
        if isinstance(answer, Checked):
            self.checks[answer.reason or "allowed"] += 1
        elif isinstance(answer, LeaseAnswered | CarriedOn):
            self.checks[answer.checked.reason or "allowed"] += 1
        return answer

    def _may_answer(self, owned: Owned) -> bool:
        return owned.speaks and self._lease.valid() and not self._lease.lost(owned.number, owned.claimed_s)

    def _partition(self, question: Question, hold: Hold | None) -> int:
        if isinstance(question, Applied):
            return question.partition
        account = hold.account if hold is not None else _account_of(question)
        return _home(account, self._log.partitions)

    def _hold(self, question: _ByToken) -> Hold:
        try:
            return read_token(self._control_key, question.token)
        except BadToken as error:
            raise _Bad("token", str(error)) from None

    def _recovering(self, owned: Owned, question: Question) -> Recovering:
        """With the balance as far as the log has been read here, for whom a late answer is better than none."""
        booked = None
        if isinstance(question, Check | Balance | Describe):
            account = owned.fold.account(question.account)
            booked = None if account is None else amount_text(account.derive().allocation.balance)
        if isinstance(question, Check | Extend | CarryOn | TakeLease | ExtendLease):
            self.checks["recovering"] += 1
        return Recovering(owned.number, RETRY_MS, booked)

    # ------------------------------------------------------------------------------------------------------ what is said

    def _say(self, owned: Owned, question: Question, hold: Hold | None) -> "Answer | _Wait":
        match question:
            case Check():
                return self._checked(owned, owned.fold.check(self._asked(question), self._clock.wall_us()))
            case Extend():
                assert hold is not None
                bounds = _bounds(question.bounds)
                ttl_us = self._ttl_us(question.ttl_ms)
                return self._checked(owned, owned.fold.extend(hold, bounds, ttl_us, self._clock.wall_us()))
            case CarryOn():
                assert hold is not None
                return self._carried_on(owned, question, hold)
            case Release():
                assert hold is not None
                return Released(owned.fold.desk.release(hold), self._as_of(owned))
            case TakeLease():
                asked = self._asked_for_each(question)
                number, least = _requests(question, 1)
                return self._leased(owned, owned.fold.lease(asked, number, least, self._clock.wall_us()))
            case ExtendLease():
                assert hold is not None
                number, least = _requests(question, 0)
                ttl_us = self._ttl_us(question.ttl_ms)
                decision = owned.fold.extend_lease(_lease(hold), number, least, ttl_us, self._clock.wall_us())
                return self._leased(owned, decision)
            case CloseLease():
                assert hold is not None
                if not 0 <= question.events <= EVENTS_MAX:
                    raise _Bad("events", f"must be 0 to {EVENTS_MAX}")
                known = owned.fold.lease_of(hold.account, _lease(hold).id)
                if known is None or known.sent is not None:
                    return self._closed(owned, hold)
                return _Wait(owned, _Close(hold.account, hold.id, question.events))
            case Applied():
                return self._applied(owned, question)
            case RecentAlerts():
                return AlertsView(_alerts_after(owned, question), self._as_of(owned))
            case Balance():
                wallet = owned.fold.wallet(question.account, self._clock.wall_us())
                account, as_of = owned.fold.account(question.account), self._as_of(owned)
                if account is None or wallet is None:
                    return NotFound(as_of)
                return BalanceView(wallet_view(wallet), as_of, worth_view(account, wallet))
            case Describe():
                return self._described(owned, question.account)
            case FindRated():
                return self._rated_at(owned, question)
            case ShowPayers():
                return self._payers(owned, question)
            case ShowRerated():
                return rerated_view(owned.fold, question, self._as_of(owned))
            case _:
                raise TypeError(f"{type(question).__name__} is not answered here")

    def _as_of(self, owned: Owned) -> AsOf:
        end = self._log.end(owned.number)
        lag = None if end is None else max(0, end - owned.next_offset)
        return AsOf(owned.number, owned.epoch, owned.next_offset, owned.fold.log_time_us, lag)

    def _checked(self, owned: Owned, decision: Decision | SliceNeeded) -> "Checked | _Wait":
        if isinstance(decision, SliceNeeded):
            return _Wait(owned, decision)
        hold = None if decision.hold is None else self._hold_view(owned, decision.hold)
        return checked_view(decision, hold, self._as_of(owned))

    def _carried_on(self, owned: Owned, question: CarryOn, hold: Hold) -> "Answer | _Wait":
        if hold.is_lease:
            raise _Bad("token", "it is the token of a lease; a stream runs on a hold of its own")
        if len(question.cheaper) > CHEAPER_MAX:
            raise _Bad("cheaper", f"{len(question.cheaper)} alternatives; at most {CHEAPER_MAX} are allowed")
        for place, data in enumerate(question.cheaper):
            if len(data) > DATA_FIELDS_MAX:
                raise _Bad(f"cheaper.{place}", f"has {len(data)} fields; at most {DATA_FIELDS_MAX} are allowed")
            for name, value in data.items():
                _need_dimension(f"cheaper.{place}", name, (value,))
        ahead, ttl_us = _bounds(question.ahead), self._ttl_us(question.ttl_ms)
        try:
            event = parse_usage(question.event)
            said = owned.fold.carry_on(hold, event, ahead, ttl_us, question.cheaper, self._clock.wall_us())
        except Malformed as error:
            raise _Bad("event", str(error)) from None
        except DeadLetter as letter:
            raise _Bad("event", str(letter)) from None
        if said is None:
            return NotFound(self._as_of(owned))
        if isinstance(said, SliceNeeded):
            return _Wait(owned, said)
        decision = said.decision
        held = None if decision.hold is None else self._hold_view(owned, decision.hold)
        return CarriedOn(
            said.action,
            tuple(CoveredView(each.fields, quantity_text(each.left)) for each in said.covered),
            checked_view(decision, held, self._as_of(owned)),
            None if said.alternative is None else dict(said.alternative),
        )

    def _leased(self, owned: Owned, decision: Decision | LeaseNeeded) -> "Answer | _Wait":
        if isinstance(decision, LeaseNeeded):
            return _Wait(owned, decision)
        return LeaseAnswered(checked_view(decision, None, self._as_of(owned)))

    def _in_the_log(self, owned: Owned, waited: "_Wait", hold: Hold | None) -> Answer:
        """A lease that was read back; one that was not, because its owner was replaced, was never given. An extension that
        came behind the end of its lease, or its close, is refused as if it had been asked for then."""
        needed = waited.awaited
        if isinstance(needed, _Close):
            assert hold is not None
            return self._closed(owned, hold)
        assert isinstance(needed, LeaseNeeded)
        over = owned.fold.lease_over(needed.hold, self._clock.wall_us())
        if over is not None:
            return LeaseAnswered(checked_view(over, None, self._as_of(owned)))
        terms = owned.fold.lease_terms(needed.hold)
        if terms is None:
            return Recovering(owned.number, RETRY_MS)
        now_us = max(owned.fold.log_time_us, self._clock.wall_us())
        lease = lease_view(needed.hold, seal_token(self._control_key, needed.hold), terms, now_us)
        return LeaseAnswered(checked_view(needed.decision, None, self._as_of(owned)), lease)

    def _closed(self, owned: Owned, hold: Hold) -> LeaseClosed:
        known = owned.fold.lease_of(hold.account, hold.id)
        is_open = known is not None and not known.is_done
        return LeaseClosed(is_open, None if known is None else known.rated, self._as_of(owned))

    def _hold_view(self, owned: Owned, hold: Hold) -> HoldView:
        now_us = max(owned.fold.log_time_us, self._clock.wall_us())
        return HoldView(
            hold.id,
            seal_token(self._control_key, hold),
            max(0, (hold.valid_until_us - now_us) // 1000),
            max(0, (hold.expires_us - now_us) // 1000),
        )

    def _applied(self, owned: Owned, question: Applied) -> "AppliedView | _Wait":
        if owned.next_offset <= question.offset:
            return _Wait(owned, question.offset)
        answer = None
        if question.account is not None and question.command_key is not None:
            remembered = owned.fold.answer_to(question.account, question.command_key)
            if remembered is not None:
                digest, answer = remembered
                if question.digest is not None and question.digest != digest:
                    answer = Refusal.KEY_REUSED.value
        return AppliedView(answer, self._as_of(owned))

    def _described(self, owned: Owned, account_id: str) -> Answer:
        wallet = owned.fold.wallet(account_id, self._clock.wall_us())
        account = owned.fold.account(account_id)
        if wallet is None or account is None:
            return NotFound(self._as_of(owned))
        open_holds = owned.fold.desk.holds_of(account_id)
        return account_view(account, wallet, open_holds, owned.fold.log_time_us, self._as_of(owned))

    def _rated_at(self, owned: Owned, question: FindRated) -> "Answer | _Wait":
        account = owned.fold.account(question.account)
        if account is None:
            return NotFound(self._as_of(owned))
        _need_text("source", question.source)
        _need_text("id", question.id)
        corrected: tuple[int, ...] = ()
        try:
            if (offset := self._offset_of(owned, question, question.id)) is not None:
                corrected = tuple(self._corrected(owned, question))
        except RowsAway as away:
            return _Wait(owned, away.places)
        checkpointed = offset is not None and max(offset, *corrected, 0) < owned.checkpointed_offset
        contract = account.contract
        billed = contract.plan, account.zone, account.anchor_day
        agreed = tuple((each.from_us, each.price, each.terms) for each in contract.agreed if each.terms)
        phases = tuple((each.from_us, each.plan) for each in contract.phases)
        return RatedAt(offset, checkpointed, *billed, self._as_of(owned), corrected, agreed, phases)

    @staticmethod
    def _offset_of(owned: Owned, question: FindRated, name: str) -> int | None:
        """Where what the memory of events knows by this name lies. Raises RowsAway."""
        known = owned.fold.dedup.find(identity(question.account, question.source, name))
        newest = owned.next_offset - 1
        return None if known is None else newest - (newest - known[1]) % OFFSETS

    def _corrected(self, owned: Owned, question: FindRated) -> Iterator[int]:
        """The offsets of the event's amends, and of its cancel. Raises RowsAway."""
        for revision in range(1, CORRECTIONS_SHOWN_MAX):
            if (offset := self._offset_of(owned, question, revision_name(question.id, revision))) is None:
                break
            yield offset
        if (offset := self._offset_of(owned, question, cancelled_name(question.id))) is not None:
            yield offset

    def _payers(self, owned: Owned, question: ShowPayers) -> Answer:
        account = owned.fold.account(question.account)
        if account is None:
            return NotFound(self._as_of(owned))
        if not 0 <= question.time_us < EVENT_TIME_END_US:
            raise _Bad("time_us", "must be an instant from 1970 to 6500, in microseconds")
        if question.scope and not is_scope(question.scope):
            raise _Bad("scope", "must be 1 to 8 parts joined by /, each of 1 to 64 of A-Z a-z 0-9 . _ : @ -")
        return payers_view(account, question.time_us, question.adjusts, question.scope, self._as_of(owned))

    # ------------------------------------------------------------------------------------------------------ what is asked

    def _asked(self, check: Check) -> Asked:
        """The engine's question. Raises _Bad."""
        if check.scope and not is_scope(check.scope):
            raise _Bad("scope", "must be 1 to 8 parts joined by /, each of 1 to 64 of A-Z a-z 0-9 . _ : @ -")
        _need_text("type", check.type)
        _need_text("feature", check.feature)
        if len(check.data) + len(check.reach) > DATA_FIELDS_MAX:
            raise _Bad(
                "data", f"data and reach have {len(check.data) + len(check.reach)} fields; at most 64 are allowed"
            )
        for name, value in check.data.items():
            _need_dimension("data", name, (value,))
        for name, values in check.reach.items():
            _need_dimension("reach", name, values)
            if not values:
                raise _Bad(f"reach.{name[:64]}", "names no value; leave the dimension out, or name all it may take")
            if name in check.data:
                raise _Bad(f"reach.{name[:64]}", "is in data too: a dimension is known or open")
        if check.reach and math.prod(len(values) for values in check.reach.values()) > CELLS_MAX:
            raise _Bad("reach", f"more than {CELLS_MAX} combinations of values")
        if not 1 <= check.n <= N_MAX:
            raise _Bad("n", f"must be 1 to {N_MAX}")
        hold_us = None if check.ttl_ms is None else self._ttl_us(check.ttl_ms)
        if hold_us is not None and check.type is None:
            raise _Bad("type", "a hold needs the type of the event to come")
        return Asked(
            check.account,
            check.scope,
            check.type,
            check.data,
            check.reach,
            _bounds(check.bounds),
            check.n,
            check.feature,
            hold_us,
        )

    def _asked_for_each(self, question: TakeLease) -> Asked:
        """The engine's question of one request of a lease. Raises _Bad."""
        if question.of.ttl_ms is None or question.of.type is None:
            raise _Bad("type", "a lease needs the type of the events to come, and a ttl")
        if question.of.n != 1 or question.of.feature is not None:
            raise _Bad("n", "a lease says in `requests` how many, and asks for no feature")
        return self._asked(question.of)

    def _ttl_us(self, ttl_ms: int) -> int:
        longest_ms = int(self._settings.hold_ttl_max_s * 1000)
        if not 1 <= ttl_ms <= longest_ms:
            raise _Bad("ttl", f"must be above 0 and at most {longest_ms / 1000:g} s (setting shard.hold_ttl_max_s)")
        return ttl_ms * 1000


class _Close(Struct):
    """A lease that its holder closes."""

    account: str
    lease: str
    events: int


class _Wait(Struct):
    """There is no answer before this slice, lease, close or offset has been read, or these rows are here."""

    owned: Owned
    awaited: SliceNeeded | LeaseNeeded | _Close | int | frozenset[Place]


def _requests(question: TakeLease | ExtendLease, fewest: int) -> tuple[int, int]:
    """How many requests are wanted, and how few are of use. Raises _Bad."""
    if not fewest <= question.requests <= N_MAX:
        raise _Bad("requests", f"must be {fewest} to {N_MAX}")
    if not min(1, question.requests) <= question.least <= max(1, question.requests):
        raise _Bad("least", "must be 1 to `requests`")
    return question.requests, question.least


def _lease(hold: Hold) -> Hold:
    """Raises _Bad."""
    if not hold.is_lease:
        raise _Bad("token", "it is the token of a hold, and of no lease")
    return hold


@lru_cache(65_536)  # as `partition_for`: the same accounts come again and again
def _home(account: str, partitions: int) -> int:
    """Where an account lives. Raises _Bad."""
    key = account.encode()
    if not is_text(account) or len(key) > KEY_BYTES_MAX:
        raise _Bad("account", f"must be 1 to {KEY_BYTES_MAX} bytes of text without NUL")
    return partition_for(key, partitions)


def _account_of(question: Question) -> str:
    if isinstance(question, Check):
        return question.account
    if isinstance(question, TakeLease):
        return question.of.account
    assert isinstance(question, Balance | Describe | RecentAlerts | FindRated | ShowPayers | ShowRerated)
    return question.account


def _alerts_after(owned: Owned, question: RecentAlerts) -> tuple[bytes, ...]:
    return tuple(
        alert.body
        for alert in owned.recent_alerts
        if alert.account == question.account
        and _alert_decoder.decode(alert.body).data.sequence > question.after_sequence
    )


def _need_text(field: str, value: str | None) -> None:
    if value is not None and not is_text(value):
        raise _Bad(field, "must be 1 to 256 characters without NUL")


def _need_dimension(of: str, name: str, values: Iterable[str]) -> None:
    """`of`: what the field is one of, as an error names it."""
    if not is_text(name):
        raise _Bad(f"{of}.{name[:64]}", "the name of a field must be 1 to 256 characters without NUL")
    for value in values:
        if not is_text(value, DIMENSION_TEXT_MAX):
            raise _Bad(f"{of}.{name[:64]}", f"a value must be 1 to {DIMENSION_TEXT_MAX} characters without NUL")


def _bounds(limits: tuple[FieldLimit, ...]) -> tuple[FieldBound, ...]:
    if len(limits) > DATA_FIELDS_MAX:
        raise _Bad("bounds", f"{len(limits)} bounds; at most {DATA_FIELDS_MAX} are allowed")
    named: set[str] = set()
    bounds = []
    for place, limit in enumerate(limits):
        fields = limit.fields
        if not 1 <= len(fields) <= DATA_FIELDS_MAX:
            raise _Bad(f"bounds.{place}.fields", f"must name 1 to {DATA_FIELDS_MAX} fields")
        for name in fields:
            if not is_text(name):
                raise _Bad(f"bounds.{place}.fields", "a field's name must be 1 to 256 characters without NUL")
            if name in named:
                detail = f"{name[:64]!r} stands in two bounds, or twice; a field has one bound"
                raise _Bad(f"bounds.{place}.fields", detail)
            named.add(name)
        bounds.append(FieldBound(fields, _up_to(place, limit.up_to)))
    return tuple(bounds)


def _up_to(place: int, text: str) -> int:
    try:
        quantity = parse_quantity(text)
    except NotADecimal as error:
        raise _Bad(f"bounds.{place}.up_to", str(error)) from None
    if quantity < 0:
        raise _Bad(f"bounds.{place}.up_to", "must not be negative")
    return quantity
