"""One partition of the log, folded: every record goes through `Partition.apply`, in offset order (law D4).

State is what `apply` made of the records before, and nothing else. The shard drains `outputs` after each slice, and
asks for a `Cut` when a checkpoint is due; rating goes on while the cut is encoded (copy on write).
"""

from collections.abc import Collection, Iterable
from heapq import heappop, heappush
from typing import Final

import msgspec
from msgspec import Struct

from engine.account import Account, Billed, Change, TooManyCells
from engine.accrual import Stretch, accrue, rate_heard
from engine.admission import Decision, Desk, FieldBound, LeaseNeeded, Question, SliceNeeded, Wallet
from engine.alerts import ID_CONFLICT, Crossing, alert_body
from engine.billing import set_billing
from engine.catalog import SKEW_US, Catalogue, NoPrice, PriceBook
from engine.commands import (
    Refused,
    adjust,
    grant,
    open_account,
    refund_lot,
    remove_cap,
    set_allowed,
    set_cap,
    set_overdraft,
    set_rate_limit,
    set_scope,
    void_lot,
)
from engine.contract_commands import set_pause, set_plan, set_price, set_seats
from engine.correcting import Corrected, Step, correct, failed, identities, park, rated_at, take_up
from engine.corrections import FORMS, BadCorrection, read_correction, read_parked, revision_name
from engine.cut import Cut, Journal
from engine.dedup import BUCKET_US, Dedup, RowsAway, identity
from engine.events import (
    CONTROL_BODY_START,
    CONTROL_MAGIC,
    KEY_BYTES_MAX,
    VALUE_BYTES_MAX,
    Adjust,
    Advance,
    AnswerTopUp,
    BadMac,
    CatalogueMarker,
    Command,
    Control,
    Grant,
    GrantQuantity,
    Leases,
    Malformed,
    OpenAccount,
    Owner,
    RefundLot,
    RemoveCap,
    RemoveRecurringGrant,
    RemoveRule,
    RemoveTopUp,
    Rerate,
    SetAllowed,
    SetBilling,
    SetCap,
    SetOverdraft,
    SetPause,
    SetPlan,
    SetPrice,
    SetRateLimit,
    SetRecurringGrant,
    SetRule,
    SetScope,
    SetSeats,
    SetTopUp,
    Slices,
    Tick,
    UsageEvent,
    VoidLot,
    VoidQuantityGrant,
    command_digest,
    fingerprint,
    parse_control,
    parse_usage,
    unseal,
)
from engine.gauges import TooManyPoints
from engine.holds import BadToken, Hold, read_token
from engine.leases import Lease, takes
from engine.leasing import LeaseTerms, leased_pico, terms_of
from engine.manual_lines import Rerating
from engine.metering import Metering, scopes_of, time_of, used_of, window_of
from engine.meters import (
    TooManyValues,
    tags_of,
)
from engine.midstream import Cheaper, Running, carry_on
from engine.outcomes import (
    APPLIED,
    AccountRow,
    AlertRow,
    CommandRow,
    DeadLetter,
    DeadLetterReason,
    DeadLetterRow,
    DedupSegment,
    Forward,
    RatedEvent,
    Refusal,
    Settled,
    rated_lines,
)
from engine.placement import partition_for
from engine.quantity_grant_commands import grant_quantity, void_quantity_grant
from engine.recurring_commands import remove_recurring, set_recurring
from engine.rerating import Difference, by_price, rerate
from engine.rules import remove_rule, set_rule
from engine.runs import Run
from engine.sessions import SessionConflict, Telling, TooManySessions
from engine.snapshot import decode_account, decode_partition, encode_account, encode_partition, plan_of
from engine.streaming import Said, drawn, take_the_place
from engine.streams import Name, TooManyStreams
from engine.top_up_commands import answer_top_up, remove_top_up, set_top_up

ACCRUAL: Final = "tallygate.accrual"  # the source of lines that no event makes; they bear `accrued_us` besides
PERIOD: Final = "tallygate.period"  # the source of lines that a period owes besides its usage
COMMAND_KEY_US: Final = 30 * 86_400 * 1_000_000
ADVANCE_MAX_US: Final = 366 * 86_400 * 1_000_000
DETAIL_MAX: Final = 300
# Of a record that is not rated, so much is kept. What is cut is longer than any key or usage event may be, and so is what is
# left of it: nobody takes it for a record that could be sent again as it is. A producer can write megabytes, compressed.
LETTER_KEY_BYTES_MAX: Final = 4 * KEY_BYTES_MAX
LETTER_VALUE_BYTES_MAX: Final = 2 * VALUE_BYTES_MAX


class CatalogueMissing(Exception):
    """The record is a marker of a version that is not in the library: load it, then apply the record again."""

    def __init__(self, version: int) -> None:
        super().__init__(f"catalogue version {version} is not loaded")
        self.version = version


class HalfApplied(Exception):
    """The engine broke when the record had already changed something: the fold is unfit, and goes on from a checkpoint,
    skipping the record."""

    def __init__(self, offset: int, error: Exception) -> None:
        super().__init__(f"offset {offset} broke the engine half way: {type(error).__name__}: {error}")
        self.offset = offset


class _Frozen(Struct):
    """An idle account: a tenth of the memory, thawed at the first touch."""

    blob: bytes
    wake_us: int | None


class _Answered(Struct):
    digest: bytes
    answer: str
    log_time_us: int


class Outputs(Struct):
    """What the shard sends on, in offset order; drained after each slice."""

    lines: list[tuple[int, bytes]] = msgspec.field(default_factory=list)  # (offset, rated line)
    forwards: list[Forward] = msgspec.field(default_factory=list)
    alerts: list[AlertRow] = msgspec.field(default_factory=list)
    dead_letters: list[DeadLetterRow] = msgspec.field(default_factory=list)


class Foreseen(Struct, frozen=True, gc=False):
    """A usage event that was read ahead. A correction's identities are those of what it is about."""

    offset: int
    account: str
    event: UsageEvent
    identities: tuple[bytes, ...]


def foresee(offset: int, key: bytes | None, value: bytes | None) -> Foreseen | None:
    """Read a record ahead, for `Partition.expect`. None if there is nothing to expect: it is no usage event, or will be
    refused, or break the engine, when its turn comes."""
    if value is None or value[:4] == CONTROL_MAGIC or len(value) > VALUE_BYTES_MAX:
        return None
    try:
        event = parse_usage(value)
        if key is None:
            key = (event.subject or "").encode()
        if not 0 < len(key) <= KEY_BYTES_MAX:
            return None
        account_id = key.decode()
        if event.type in FORMS:
            return Foreseen(offset, account_id, event, identities(account_id, read_correction(account_id, event)))
        return Foreseen(offset, account_id, event, (identity(account_id, event.source, event.id),))
    except Exception:
        return None


class Partition:
    """The fold. `library` holds compiled catalogues by version and may be shared between partitions."""

    def __init__(
        self, number: int, partitions: int, topic: str, control_key: bytes, library: dict[int, Catalogue]
    ) -> None:
        self.number = number
        self.epoch = 0  # of the last `owner` record
        self.epoch_offset = -1  # of the record that raised it; -1: none that this fold has read
        self.line_epoch = 0  # of the owner that runs this fold; stands in the lines it emits
        self.log_time_us = 0
        self.counts: dict[str, int] = {}
        self.outputs = Outputs()
        self.skips: frozenset[int] = frozenset()  # offsets that broke the engine before; honoured on replay
        self._partitions = partitions
        self._topic = topic
        self._control_key = control_key
        self._library = library
        self._book = PriceBook()
        self._metering = Metering(self._book, control_key)
        self._live: dict[str, Account] = {}
        self._frozen: dict[str, _Frozen] = {}
        self._touched_us: dict[str, int] = {}  # log time of each live account's last touch, oldest first
        self._dirty: dict[str, Account] = {}
        self._sliced: set[str] = set()  # accounts with slices: the ones that a new owner touches
        self._leased: set[str] = set()  # accounts with leases
        self._bound: set[str] = set()  # accounts with agreed prices that bill: the ones that any version may concern
        self._wakes: list[tuple[int, str]] = []
        self._watched: dict[str, int] = {}  # the instant put into `_wakes` last, so that it is not put there again
        self._due: tuple[int | None] | None = None  # what `next_wake_us` found, until the next record
        self.dedup = Dedup()  # part of the state
        self._foreseen: dict[int, Foreseen] = {}  # by offset
        self._forget_at_us = 0
        self._answered: dict[tuple[str, str], _Answered] = {}  # in order of log time
        self._journal = Journal()
        self._cut: Cut | None = None
        self.desk = Desk(number)  # soft: never read by the fold
        self._changing = False  # whether the record at hand has changed an account
        self._settlement: tuple[Hold, dict[str, int], bool] | None = None  # what the desk is to hear of this record
        self._numbered = (-1, 0)  # an offset, and how many rated lines it has so far

    # ------------------------------------------------------------------------------------------------- the fold

    def expect(self, foreseen: Iterable[Foreseen]) -> None:
        """The records to be applied next, as far as they were foreseen. Their identities are searched for together, which
        is many times faster. If `dedup.doubts` then names rows, they must be supplied before `apply`."""
        self._foreseen = {each.offset: each for each in foreseen}
        self.dedup.expect([known_as for each in self._foreseen.values() for known_as in each.identities])

    def apply(self, offset: int, append_ms: int, key: bytes | None, value: bytes | None) -> str:
        """Fold one record; the name its outcome is counted under. Raises CatalogueMissing, having changed nothing;
        HalfApplied; RowsAway when the memory of events is not all here and the record was not expected, having changed no
        more than log time: apply it again."""
        sealed = value is not None and value[:4] == CONTROL_MAGIC
        control = self._read_control(value) if sealed and value is not None else None
        if isinstance(control, CatalogueMarker) and self._is_missing(control.version):
            raise CatalogueMissing(control.version)
        self._due = None
        if append_ms * 1000 > self.log_time_us:
            self._advance(append_ms * 1000, offset)
        self._changing = False
        outcome = self._outcome(control, offset, key, value)
        self.counts[outcome] = self.counts.get(outcome, 0) + 1
        if self._settlement is not None:
            # Last, and where nothing is caught: what fails in soft memory must not turn a rated record into a dead letter.
            (hold, used, final), self._settlement = self._settlement, None
            if self.desk.epoch and hold.epoch == self.desk.epoch:  # 0: nobody answers here
                self.desk.settled(hold, used, final)
        return outcome

    def _outcome(
        self, control: Control | DeadLetter | None, offset: int, key: bytes | None, value: bytes | None
    ) -> str:
        """What becomes of a record, by the name it is counted under. No record stops the partition."""
        try:
            if offset in self.skips:
                raise DeadLetter(DeadLetterReason.ENGINE_ERROR, "skipped: it broke the engine before")
            if control is None:
                return self._rate(offset, key, value)
            assert value is not None
            return self._obey(control, offset, value)
        except DeadLetter as letter:
            return self._dead_letter(offset, key, value, letter.reason, str(letter))
        except RowsAway:  # nobody has said what this record is
            raise
        except Exception as error:  # a poison record
            if self._changing:
                self._take_back(offset)
                raise HalfApplied(offset, error) from error
            return self._dead_letter(
                offset, key, value, DeadLetterReason.ENGINE_ERROR, f"{type(error).__name__}: {error}"
            )

    def _take_back(self, offset: int) -> None:
        """Nothing is told of a record that will be skipped: no line of a later owner would take the place of its lines."""
        outputs = self.outputs
        outputs.lines = [each for each in outputs.lines if each[0] != offset]
        outputs.alerts = [each for each in outputs.alerts if each.offset != offset]

    def _count(self, name: str) -> None:
        self.counts[name] = self.counts.get(name, 0) + 1

    def _advance(self, append_us: int, offset: int) -> None:
        """Log time moves on; whoever is due is woken first, in the order (instant, account)."""
        self.log_time_us = append_us
        while self._wakes and self._wakes[0][0] <= append_us:
            instant, account_id = self._next_wake()
            if self._wake_of(account_id) == instant:
                account = self._touch(account_id)
                self._tell(account, account.wake(instant), offset)
                self._tell_billed(account, account.bill(instant), instant, offset)
                accrues = (account.sessions.wake_us() or instant + 1) <= instant
                if accrues and not account.sessions.wait(instant, append_us):
                    self._accrue(account, instant, offset)
                for parked in account.unpark(instant):
                    self._tell(account, [failed(account.account, read_parked(account.account, parked))], offset)
                self._watch(account)
        if append_us >= self._forget_at_us:
            self.dedup.forget(append_us)
            self._forget_at_us = (append_us // BUCKET_US + 1) * BUCKET_US

    def _advance_to(self, until_us: int, offset: int) -> str:
        """Log time as a sandbox wants it. Raises DeadLetter."""
        if until_us > self.log_time_us + ADVANCE_MAX_US:
            raise DeadLetter(DeadLetterReason.BAD_CONTROL, f"until {until_us} is more than 366 days ahead of log time")
        if until_us > self.log_time_us:
            self._changing = True
            self._advance(until_us, offset)
        return "advance"

    def _wake_of(self, account_id: str) -> int | None:
        frozen = self._frozen.get(account_id)
        return frozen.wake_us if frozen else self._live[account_id].wake_us()

    def _watch(self, account: Account) -> None:
        """Remember when the account wants waking, whether it has slices and leases, and has agreed on what bills."""
        if account.slices:
            self._sliced.add(account.account)
        else:
            self._sliced.discard(account.account)
        if account.leases.of:
            self._leased.add(account.account)
        else:
            self._leased.discard(account.account)
        if account.contract.bills:
            self._bound.add(account.account)
        else:
            self._bound.discard(account.account)
        self._wake_at(account.wake_us(), account.account)

    def _wake_at(self, instant: int | None, account_id: str) -> None:
        if instant is not None and self._watched.get(account_id) != instant:
            self._watched[account_id] = instant
            heappush(self._wakes, (instant, account_id))

    def _next_wake(self) -> tuple[int, str]:
        instant, account_id = heappop(self._wakes)
        if self._watched.get(account_id) == instant:
            del self._watched[account_id]
        return instant, account_id

    def next_wake_us(self) -> int | None:
        """When log time should move on even if nothing arrives: the owner then appends a tick."""
        if self._due is None:
            while self._wakes and self._wake_of(self._wakes[0][1]) != self._wakes[0][0]:
                self._next_wake()
            self._due = (self._wakes[0][0] if self._wakes else None,)
        return self._due[0]

    # ------------------------------------------------------------------------------------------------ usage events

    def _rate(self, offset: int, key: bytes | None, value: bytes | None) -> str:
        """Rate one usage event, or forward it; the rows of README's table, in order. Raises DeadLetter."""
        foreseen = self._foreseen.get(offset)
        if foreseen is not None and foreseen.account in self._live and foreseen.event.type not in FORMS:
            return self._rate_event(offset, foreseen.account, foreseen.event, foreseen.identities[0])
        if value is None:
            raise DeadLetter(DeadLetterReason.MALFORMED, "the record has no value")
        if len(value) > VALUE_BYTES_MAX:
            raise DeadLetter(
                DeadLetterReason.TOO_LARGE, f"{len(value)} bytes; a usage event has at most {VALUE_BYTES_MAX}"
            )
        account_id = None if key is None else self._account_of(key)
        if key is not None and account_id is not None and not self._is_here(account_id, key):
            return self._forward(offset, key, value)
        try:
            event = parse_usage(value) if foreseen is None else foreseen.event
        except Malformed as error:
            raise DeadLetter(DeadLetterReason.MALFORMED, str(error)) from None
        if account_id is None:
            if event.subject is None:
                raise DeadLetter(DeadLetterReason.MALFORMED, "neither a record key nor a subject names the account")
            key = event.subject.encode()
            account_id = self._account_of(key)
            if not self._is_here(account_id, key):
                return self._forward(offset, key, value)
        if account_id not in self._live and account_id not in self._frozen:
            raise DeadLetter(DeadLetterReason.UNKNOWN_ACCOUNT, f"account {account_id!r} is not open here")
        if event.type in FORMS:
            return self._correct(offset, account_id, event, value)
        known_as = identity(account_id, event.source, event.id) if foreseen is None else foreseen.identities[0]
        return self._rate_event(offset, account_id, event, known_as)

    @staticmethod
    def _account_of(key: bytes) -> str:
        try:
            account_id = key.decode()
        except UnicodeDecodeError:
            raise DeadLetter(DeadLetterReason.MALFORMED, "the record key is not UTF-8") from None
        if not 0 < len(key) <= KEY_BYTES_MAX:
            raise DeadLetter(DeadLetterReason.MALFORMED, f"an account's id has 1 to {KEY_BYTES_MAX} bytes")
        return account_id

    def _is_here(self, account_id: str, key: bytes) -> bool:
        known = account_id in self._live or account_id in self._frozen
        return known or partition_for(key, self._partitions) == self.number

    def _forward(self, offset: int, key: bytes, value: bytes) -> str:
        self.outputs.forwards.append(Forward(offset, partition_for(key, self._partitions), key, value))
        return "forwarded"

    def _rate_event(self, offset: int, account_id: str, event: UsageEvent, key: bytes) -> str:
        hold = None if event.hold is None else self._metering.hold_of(account_id, event)
        mark = fingerprint(event, time_of(event, hold, self.log_time_us))
        if event.seq is not None:
            return self._rate_of_stream(offset, account_id, event, hold, key, mark)
        known = self.dedup.mark(key)
        if known is not None:
            if known == mark:
                return "duplicate"
            raise self._conflict(account_id, event, offset)
        return self._rate_new(offset, self._touch(account_id), event, hold, key, mark)

    def _conflict(self, account_id: str, event: UsageEvent, offset: int) -> DeadLetter:
        self._tell_conflict(account_id, event, offset)
        detail = f"event {event.id!r} from {event.source!r} was rated before with other billing fields"
        return DeadLetter(DeadLetterReason.ID_CONFLICT, detail)

    def _rate_of_stream(
        self, offset: int, account_id: str, event: UsageEvent, hold: Hold | None, key: bytes, mark: bytes
    ) -> str:
        """Rate an event with a seq; README, "Streams". Raises DeadLetter."""
        assert event.seq is not None
        window_us = window_of(self._book, event, hold)
        account = self._touch(account_id)
        stream = account.streams.open_one(Name(event.type, event.source, event.id), self.log_time_us)
        if stream is None:
            if self.dedup.mark(key) is not None:
                detail = f"event {event.id!r} was rated before without a seq, or its stream is over"
                raise DeadLetter(DeadLetterReason.STREAM_OVER, detail)
            try:
                account.streams.need_room(self.log_time_us)
            except TooManyStreams as error:
                raise DeadLetter(DeadLetterReason.TOO_MANY_STREAMS, str(error)) from None
            return self._rate_new(offset, account, event, hold, key, mark, self.log_time_us + window_us)
        if event.seq < stream.seq:
            return "outdated"
        if event.seq == stream.seq:
            if mark == stream.mark:
                return "duplicate"
            raise self._conflict(account_id, event, offset)
        if stream.hold != (None if hold is None else hold.id):
            detail = f"event {event.id!r} names another hold than its stream did before"
            raise DeadLetter(DeadLetterReason.BAD_HOLD, detail)
        metered = self._metering.metered(account.contract, event, hold)
        said = Said(event, mark, hold, metered, scopes_of(account.scopes, event, hold), offset)
        steps, crossings = take_the_place(account, self._book, stream, said, self.log_time_us)
        self._changing = True
        following = said.stream(stream.until_us, stream.revision + 1)
        account.streams.put(said.name, following, self.log_time_us)
        made = identity(account_id, event.source, revision_name(event.id, following.revision)), mark
        self.dedup.remember(*made, offset, self.log_time_us)
        settled = None
        if hold is not None:
            settled = self._settle(account, hold, drawn(stream, metered), final=event.hold_final, events=0)
        self._tell_steps(account, event, "amend", hold, steps, settled, offset)
        self._tell(account, crossings, offset)
        self._watch(account)
        if account.parked:
            self._take_up(account, made, offset)
        return "amended"

    def _rate_new(
        self,
        offset: int,
        account: Account,
        event: UsageEvent,
        hold: Hold | None,
        key: bytes,
        mark: bytes,
        until_us: int | None = None,
    ) -> str:
        """Rate an event that nothing is known of. `until_us`: it begins a stream that is open until then."""
        metered = self._metering.metered(account.contract, event, hold)
        if hold is not None and metered.heard:
            detail = (
                f"event {event.id!r} tells of a session of meter {metered.heard[0].meter}: such a one draws on no hold"
            )
            raise DeadLetter(DeadLetterReason.BAD_HOLD, detail)
        usages, readings = metered.usages, metered.readings
        stretches: list[Stretch] = []
        try:
            scopes = scopes_of(account.scopes, event, hold)
            if metered.heard:
                own = Change(metered.time_us, usages, scopes, None, readings)
                telling = Telling(metered.time_us, event.source, event.id, event.scope, offset)
                lines, stretches, crossings = rate_heard(
                    account, self._book, metered.heard, own, telling, self.log_time_us
                )
            else:
                lines, crossings = account.rate(metered.time_us, usages, scopes, self.log_time_us, readings)
        except TooManyCells as error:
            raise DeadLetter(DeadLetterReason.TOO_MANY_CELLS, str(error)) from None
        except (TooManyValues, TooManyPoints) as error:
            raise DeadLetter(DeadLetterReason.TOO_MANY_VALUES, str(error)) from None
        except SessionConflict as error:
            raise DeadLetter(DeadLetterReason.SESSION_CONFLICT, f"event {event.id!r}: {error}") from None
        except TooManySessions as error:
            raise DeadLetter(DeadLetterReason.TOO_MANY_SESSIONS, str(error)) from None
        except NoPrice as error:  # of a time that a session covers, but not its event's own
            raise DeadLetter(DeadLetterReason.NO_PRICE, f"event {event.id!r}: {error}") from None
        self._changing = True
        self.dedup.remember(key, mark, offset, self.log_time_us)
        if until_us is not None:
            said = Said(event, mark, hold, metered, scopes, offset)
            account.streams.put(said.name, said.stream(until_us), self.log_time_us)
        settled = None if hold is None else self._settle(account, hold, used_of(metered), final=event.hold_final)
        rated = RatedEvent(
            offset,
            self.log_time_us,
            account.account,
            event.source,
            event.id,
            metered.time_us,
            metered.catalogue.version,
            account.currency,
            lines,
            metered.dimensions,
            None if hold is None else hold.id,
            settled,
            None,
            metered.estimated,
            tags_of(event.data),
            account.closed_period(metered.time_us, self.log_time_us) if account.unguarded else None,
            plan=account.contract.plan_name_at(metered.time_us),
        )
        self._tell_lines(rated)
        for stretch in stretches:
            self._tell_lines(self._stretched(account, stretch, offset, event.source, event.id, tags_of(event.data)))
        if crossings:
            self._tell(account, crossings, offset)
        if crossings or metered.heard or until_us is not None or (account.unguarded and account.fades):
            self._watch(account)
        if account.parked:
            self._take_up(account, (key, mark), offset)
        return "rated"

    def _tell_billed(
        self, account: Account, found: tuple[list[Billed], list[Crossing]], instant: int, offset: int
    ) -> None:
        """What periods owe besides their usage was posted at this log time: at the record that has moved it there, or at a
        command."""
        billed, crossings = found
        for terms, time_us, lines in billed:
            catalogue = self._book.at(terms.from_us)
            assert catalogue is not None
            told = RatedEvent(
                offset,
                instant,
                account.account,
                PERIOD,
                str(terms.start),
                time_us,
                catalogue.version,
                account.currency,
                lines,
                (),
                adjusts=terms.start,
                accrued_us=instant,
                plan=account.contract.plan_name_at(time_us),
            )
            self._tell_lines(told)
        self._tell(account, crossings, offset)

    def _accrue(self, account: Account, instant: int, offset: int) -> None:
        """Charge what open sessions come to by this log time, at the record that has moved it there."""
        stretches, crossings = accrue(account, self._book, instant)
        for stretch in stretches:
            told = self._stretched(account, stretch, offset, ACCRUAL, str(instant), None, instant)
            self._tell_lines(told)
        self._tell(account, crossings, offset)

    def _stretched(
        self,
        account: Account,
        stretch: Stretch,
        offset: int,
        source: str,
        name: str,
        tags: dict[str, str] | None,
        accrued_us: int | None = None,
    ) -> RatedEvent:
        log_time_us = self.log_time_us if accrued_us is None else accrued_us
        return RatedEvent(
            offset,
            log_time_us,
            account.account,
            source,
            name,
            stretch.time_us,
            stretch.version,
            account.currency,
            stretch.lines,
            (stretch.dimensions,),
            tags=tags,
            adjusts=account.closed_period(stretch.time_us, log_time_us),
            session=stretch.session,
            accrued_us=accrued_us,
            plan=account.contract.plan_name_at(stretch.time_us),
        )

    def _tell_lines(self, rated: RatedEvent) -> None:
        """They are numbered on from those that their offset has already."""
        offset, first = self._numbered if self._numbered[0] == rated.offset else (rated.offset, 0)
        for line in rated_lines(rated, self.number, self.line_epoch, first):
            self.outputs.lines.append((offset, line))
        self._numbered = offset, first + len(rated.lines)

    def _settle(self, account: Account, hold: Hold, used: dict[str, int], *, final: bool, events: int = 1) -> Settled:
        if hold.is_lease:
            return account.leases.draw(hold, used, events, self.log_time_us)
        slices = len(account.slices)
        settled = account.draw(hold, used, final=final, log_time_us=self.log_time_us)
        if len(account.slices) != slices:
            self._watch(account)
        self._settlement = hold, used, final
        return settled

    # ------------------------------------------------------------------------------------------------- corrections

    def _correct(self, offset: int, account_id: str, event: UsageEvent, value: bytes) -> str:
        """Cancel or amend a rated event; the rows of README's "Corrections", in order. Raises DeadLetter."""
        try:
            correction = read_correction(account_id, event)
        except Malformed as error:
            raise DeadLetter(DeadLetterReason.MALFORMED, str(error)) from None
        except BadCorrection as error:
            raise DeadLetter(DeadLetterReason.BAD_CORRECTION, str(error)) from None
        original, amended = correction.original, correction.amended
        hold = self._metering.hold_of(account_id, original)
        for each in (original, amended):
            if each is not None:
                time_of(each, hold, self.log_time_us)
        known, following, cancelled = map(self.dedup.find, identities(account_id, correction))
        account = self._touch(account_id)
        if amended is not None:
            self._metering.metered(account.contract, amended, hold)
        if known is None:
            if not park(account, correction, value):
                return "duplicate"
            self._changing = True
            self._watch(account)
            return "parked"
        rated = rated_at(correction, known, following, cancelled)
        if rated is None:
            return "duplicate"
        done = correct(account, correction, self._metering, rated, offset, self.log_time_us)
        self._tell_corrected(account, done, offset)
        if amended is None:
            return "cancelled"
        self._take_up(account, done.made, offset)
        return "amended"

    def _take_up(self, account: Account, made: tuple[bytes, bytes], offset: int) -> None:
        """A revision was rated: apply the corrections that wait for it."""
        for done in take_up(account, made, self._metering, offset, self.log_time_us):
            if isinstance(done, Corrected):
                self._tell_corrected(account, done, offset)
            else:
                self._watch(account)
                self._tell(account, [failed(account.account, done)], offset)

    def _tell_corrected(self, account: Account, done: Corrected, offset: int) -> None:
        self._changing = True
        self.dedup.remember(*done.made, offset, self.log_time_us)
        self._tell_steps(account, done.correction.original, done.correction.kind, done.hold, done.steps, None, offset)
        self._tell(account, done.crossings, offset)
        self._watch(account)

    def _tell_steps(
        self,
        account: Account,
        event: UsageEvent,
        kind: str,
        hold: Hold | None,
        steps: list[Step],
        settled: Settled | None,
        offset: int,
    ) -> None:
        """`settled`: what the last of the steps means to the hold."""
        for step in steps:
            told = RatedEvent(
                offset,
                self.log_time_us,
                account.account,
                event.source,
                event.id,
                step.time_us,
                step.version,
                account.currency,
                step.lines,
                step.dimensions,
                None if hold is None else hold.id,
                settled if step is steps[-1] else None,
                kind,
                step.estimated,
                step.tags,
                account.closed_period(step.time_us, self.log_time_us),
                plan=account.contract.plan_name_at(step.time_us),
            )
            self._tell_lines(told)

    def _dead_letter(
        self, offset: int, key: bytes | None, value: bytes | None, reason: DeadLetterReason, detail: str
    ) -> str:
        detail = detail.replace("\x00", "\\0")[:DETAIL_MAX]
        for name, data, bytes_max in (("key", key, LETTER_KEY_BYTES_MAX), ("value", value, LETTER_VALUE_BYTES_MAX)):
            if data is not None and len(data) > bytes_max:
                detail += f"; of the {name}'s {len(data)} bytes, {bytes_max} are kept"
        row = DeadLetterRow(
            offset,
            self.log_time_us,
            reason.value,
            detail,
            None if key is None else key[:LETTER_KEY_BYTES_MAX],
            None if value is None else value[:LETTER_VALUE_BYTES_MAX],
        )
        self._journal.dead_letters.append(row)
        self.outputs.dead_letters.append(row)
        return f"dead_lettered.{reason.value}"

    # ------------------------------------------------------------------------------------------------------ alerts

    def _tell(self, account: Account, crossings: list[Crossing], offset: int) -> None:
        for crossing in crossings:
            account.sequence += 1
            body = alert_body(
                crossing,
                sequence=account.sequence,
                currency=account.currency if crossing.value is not None else None,
                partition=self.number,
                offset=offset,
                log_time_us=self.log_time_us,
            )
            row = AlertRow(crossing.alert_id, account.account, offset, body)
            self._journal.alerts.append(row)
            self.outputs.alerts.append(row)
            self._count(f"alert_{crossing.phase}")

    def _tell_conflict(self, account_id: str, event: UsageEvent, offset: int) -> None:
        window = f"{event.source}\x00{event.id}"
        self._tell(
            self._touch(account_id),
            [Crossing(account_id, ID_CONFLICT, window, 1, "crossed", None, None)],
            offset,
        )

    # --------------------------------------------------------------------------------------------- control records

    def _read_control(self, value: bytes) -> Control | DeadLetter:
        try:
            body = unseal(self._control_key, self._topic, self.number, value)
            return parse_control(body)
        except BadMac as error:
            return DeadLetter(DeadLetterReason.BAD_MAC, str(error))
        except Malformed as error:
            return DeadLetter(DeadLetterReason.BAD_CONTROL, str(error))

    def _is_missing(self, version: int) -> bool:
        """Whether a marker's version must be loaded first: one that will be refused anyway need not exist."""
        published = self._book.versions
        return version not in self._library and (not published or version > published[-1][0])

    def _obey(self, control: Control | DeadLetter, offset: int, value: bytes) -> str:
        """Apply a control record. Raises DeadLetter."""
        match control:
            case DeadLetter():
                raise control
            case Tick():
                return "tick" if control.epoch >= self.epoch else "void"
            case Advance():
                return self._advance_to(control.until_us, offset)
            case Slices():
                return self._slice(control)
            case Leases():
                return self._lease(control)
            case Owner():
                self._close_slices(control.epoch)
                if control.epoch > self.epoch:
                    self.epoch, self.epoch_offset = control.epoch, offset
                return "owner"
            case CatalogueMarker():
                return self._publish(control)
            case _ if not self._is_here(control.account, control.account.encode()):
                home = partition_for(control.account.encode(), self._partitions)
                raise DeadLetter(
                    DeadLetterReason.BAD_CONTROL,
                    f"account {control.account!r} lives in partition {home}; send its commands there",
                )
            case _:
                return self._command(control, offset, value[CONTROL_BODY_START:])

    def _slice(self, slices: Slices) -> str:
        if slices.epoch < self.epoch:
            return "void"
        self._changing = True
        for account_id, quantities in slices.quantities():
            if account_id in self._live or account_id in self._frozen:
                account = self._touch(account_id)
                account.set_slice(slices.epoch, quantities, slices.linger_us)
                self._watch(account)
                if self.desk.epoch and slices.epoch == self.desk.epoch:
                    self.desk.sliced(account_id, quantities)
        return "slices"

    def _lease(self, leases: Leases) -> str:
        """Raises DeadLetter, having changed nothing."""
        if leases.epoch < self.epoch:
            return "void"
        try:
            granted = [read_token(self._control_key, token) for token in leases.granted]
        except BadToken as error:
            raise DeadLetter(DeadLetterReason.BAD_CONTROL, str(error)) from None
        self._changing = True
        for hold in granted:
            if hold.account in self._live or hold.account in self._frozen:
                account = self._touch(hold.account)
                account.leases.put(hold, self.log_time_us)
                self._watch(account)
                if self.desk.epoch and leases.epoch == self.desk.epoch:
                    self.desk.leased(hold)
        for account_id, lease, sent in leases.closed:
            if account_id in self._live or account_id in self._frozen:
                self._touch(account_id).leases.close(lease, sent)
        return "leases"

    def _close_slices(self, epoch: int) -> None:
        """What earlier owners approved is theirs until it can no longer be reported."""
        if epoch > self.epoch:
            self._changing = True
            for account_id in sorted(self._sliced):
                account = self._touch(account_id)
                account.close_slices(epoch, self.log_time_us)
                self._watch(account)

    def _publish(self, marker: CatalogueMarker) -> str:
        published = self._book.versions
        if published:
            last_version, last_start = published[-1]
            earliest = max(last_start, self.log_time_us + SKEW_US)
            if marker.version <= last_version or marker.effective_us <= earliest:
                detail = f"version {marker.version} must be above {last_version}, and effective after {earliest}"
                raise DeadLetter(DeadLetterReason.BAD_CONTROL, detail)
        before, latest = self._book.last, self._library[marker.version]
        self._book.publish(marker.effective_us, latest)
        for account in self._live.values():
            account.reprice()
        anew = latest.closing_anew(before)
        for account_id in sorted({*self._bound, *(self._sold(anew) if anew else ())}):
            account = self._touch(account_id)
            account.look_on(self.log_time_us)
            self._watch(account)
        return "catalogue"

    def _sold(self, plans: Collection[str]) -> list[str]:
        """The accounts that are sold one of these."""
        live = [account_id for account_id, account in self._live.items() if account.plan in plans]
        return live + [account_id for account_id, frozen in self._frozen.items() if plan_of(frozen.blob) in plans]

    def _command(self, command: Command, offset: int, body: bytes) -> str:
        self._forget_commands()
        memory = (command.account, command.command_key)
        digest = command_digest(body)
        answered = self._answered.get(memory)
        if answered is not None and answered.digest == digest:
            return "repeated"
        if answered is not None:
            answer = Refusal.KEY_REUSED.value
        else:
            answer = self._answer(command, offset)
            self._answered[memory] = _Answered(digest, answer, self.log_time_us)
        kind = str(command.__struct_config__.tag)
        self._journal.commands.append(
            CommandRow(offset, self.log_time_us, command.account, command.command_key, digest, kind, body, answer)
        )
        return answer if answer == APPLIED else f"refused.{answer}"

    def _forget_commands(self) -> None:
        while self._answered:
            oldest = next(iter(self._answered))
            if self._answered[oldest].log_time_us > self.log_time_us - COMMAND_KEY_US:
                break
            del self._answered[oldest]

    def _answer(self, command: Command, offset: int) -> str:
        known = command.account in self._live or command.account in self._frozen
        try:
            if isinstance(command, OpenAccount):
                if known:
                    raise Refused(Refusal.ACCOUNT_EXISTS)
                account = open_account(command, self._book, self.log_time_us)
                self._changing = True
                self._live[command.account] = account
                self._touch(command.account)
                self._tell_billed(account, account.bill_ahead(self.log_time_us), self.log_time_us, offset)
                self._watch(account)
                return APPLIED
            if not known:
                raise Refused(Refusal.UNKNOWN_ACCOUNT)
            account = self._touch(command.account)
            match command:
                case Grant():
                    crossings = grant(account, command, self._book, self.log_time_us)
                case VoidLot():
                    crossings = void_lot(account, command, self.log_time_us)
                case RefundLot():
                    crossings = refund_lot(account, command, self.log_time_us)
                case Adjust():
                    crossings = adjust(account, command, self._book, self.log_time_us)
                case Rerate():
                    crossings = rerate(account, command, self._book, self.log_time_us)
                case SetCap():
                    crossings = set_cap(account, command, self._book, self.log_time_us, offset)
                case RemoveCap():
                    crossings = remove_cap(account, command, self.log_time_us)
                case SetRule():
                    crossings = set_rule(account, command, self._book, self.log_time_us, offset)
                case RemoveRule():
                    crossings = remove_rule(account, command, self.log_time_us)
                case SetScope():
                    crossings = set_scope(account, command, self.log_time_us, offset)
                case SetOverdraft():
                    crossings = set_overdraft(account, command, self.log_time_us)
                case SetBilling():
                    crossings = set_billing(account, command, self.log_time_us)
                case SetRateLimit():
                    crossings = set_rate_limit(account, command, self._book, self.log_time_us)
                case SetAllowed():
                    crossings = set_allowed(account, command, self.log_time_us)
                case SetPause():
                    crossings = set_pause(account, command, self.log_time_us)
                case SetSeats():
                    crossings = set_seats(account, command, self._book, self.log_time_us)
                case SetPlan():
                    crossings = set_plan(account, command, self._book, self.log_time_us)
                case SetPrice():
                    crossings = set_price(account, command, self._book, self.log_time_us)
                case SetRecurringGrant():
                    crossings = set_recurring(account, command, self._book, self.log_time_us)
                case RemoveRecurringGrant():
                    crossings = remove_recurring(account, command, self.log_time_us)
                case GrantQuantity():
                    crossings = grant_quantity(account, command, self._book, self.log_time_us)
                case VoidQuantityGrant():
                    crossings = void_quantity_grant(account, command, self.log_time_us)
                case SetTopUp():
                    crossings = set_top_up(account, command, self.log_time_us)
                case RemoveTopUp():
                    crossings = remove_top_up(account, self.log_time_us)
                case AnswerTopUp():
                    crossings = answer_top_up(account, command, self.log_time_us)
        except Refused as refused:
            return refused.reason.value
        self._changing = True
        self._tell(account, crossings, offset)
        self._tell_billed(account, account.bill_ahead(self.log_time_us), self.log_time_us, offset)
        self._watch(account)
        return APPLIED

    # --------------------------------------------------------------------------------------------------- accounts

    def account(self, account_id: str) -> Account | None:
        """A view of the account, thawed if need be; not to be changed."""
        if account_id in self._live:
            return self._live[account_id]
        frozen = self._frozen.get(account_id)
        return decode_account(frozen.blob, self._book) if frozen else None

    def answer_to(self, account_id: str, command_key: str) -> tuple[bytes, str] | None:
        """How the command under this key was answered: the digest of its body, and the answer; None: not remembered."""
        answered = self._answered.get((account_id, command_key))
        return None if answered is None else (answered.digest, answered.answer)

    @property
    def accounts(self) -> int:
        """How many are open."""
        return len(self._live) + len(self._frozen)

    def account_ids(self) -> Iterable[str]:
        """Every open account, in no particular order."""
        return [*self._live, *self._frozen]

    def _touch(self, account_id: str) -> Account:
        """The account, about to change."""
        account = self._live.get(account_id)
        if account is None:
            account = decode_account(self._frozen.pop(account_id).blob, self._book)
            self._live[account_id] = account
        if self._cut is not None:
            self._cut.before_change(account_id)
        self._dirty[account_id] = account
        if self._touched_us.get(account_id) != self.log_time_us:
            self._touched_us.pop(account_id, None)
            self._touched_us[account_id] = self.log_time_us
        return account

    def freeze_idle(self, idle_us: int, accounts_max: int) -> int:
        """Turn up to that many unchanged accounts, untouched for `idle_us` of log time, into bytes; how many."""
        idle: list[str] = []
        for account_id, touched_us in self._touched_us.items():
            if len(idle) >= accounts_max or touched_us > self.log_time_us - idle_us:
                break
            if account_id not in self._dirty:
                idle.append(account_id)
        for account_id in idle:
            if self._cut is not None:
                self._cut.before_change(account_id)
            account = self._live.pop(account_id)
            del self._touched_us[account_id]
            self._frozen[account_id] = _Frozen(encode_account(account), account.wake_us())
        return len(idle)

    # ------------------------------------------------------------------------------------------------------ checks

    def check(self, question: Question, now_us: int) -> Decision | SliceNeeded:
        """May it run? See engine/admission.py; nothing that is folded changes."""
        return self.desk.check(self._thawed(question.account), self._book, question, self._now(now_us))

    def extend(self, hold: Hold, bounds: tuple[FieldBound, ...], hold_us: int, now_us: int) -> Decision | SliceNeeded:
        """Admit more, or more time, into a hold."""
        return self.desk.extend(self._thawed(hold.account), self._book, hold, bounds, hold_us, self._now(now_us))

    def carry_on(
        self, hold: Hold, event: UsageEvent, ahead: tuple[FieldBound, ...], hold_us: int, cheaper: Cheaper, now_us: int
    ) -> Running | SliceNeeded | None:
        """What a stream is told that runs on the hold and has used what the event says; None: its account is not open
        here. Raises DeadLetter for an event that could not be rated."""
        account = self._thawed(hold.account)
        if account is None:
            return None
        if event.seq is not None:
            window_of(self._book, event, hold)
        used = used_of(self._metering.metered(account.contract, event, hold))
        now_us = self._now(now_us)
        return carry_on(self.desk, account, self._book, hold, used, event.type, ahead, hold_us, cheaper, now_us)

    def lease(self, question: Question, requests: int, least: int, now_us: int) -> Decision | LeaseNeeded:
        """Decide about a lease of so many requests like the question."""
        account = self._thawed(question.account)
        return self.desk.lease(account, self._book, question, requests, least, self._now(now_us))

    def extend_lease(self, hold: Hold, requests: int, least: int, hold_us: int, now_us: int) -> Decision | LeaseNeeded:
        """Admit more requests, or more time, into a lease."""
        account = self._thawed(hold.account)
        return self.desk.extend_lease(account, self._book, hold, requests, least, hold_us, self._now(now_us))

    def lease_terms(self, lease: Hold) -> LeaseTerms | None:
        """What the holder of a lease is told; None: it is not in the log, or over."""
        account = self._thawed(lease.account)
        known = None if account is None else account.leases.of.get(lease.id)
        catalogue = self._book.at(lease.admitted_us)
        if account is None or known is None or catalogue is None or known.hold.requests < lease.requests:
            return None
        plan = account.contract.plan_at(self._book, lease.admitted_us)
        return None if plan is None else terms_of(account, plan, catalogue, lease)

    def lease_over(self, lease: Hold, now_us: int) -> Decision | None:
        """What is said to an extension whose record was read and changed nothing, as the lease was over or closed by then;
        None: it is not so."""
        account = self._thawed(lease.account)
        if account is None or takes(account.leases.of.get(lease.id), lease):
            return None
        return self.desk.lease_over(account, self._book, lease, self._now(now_us))

    def lease_of(self, account_id: str, lease: str) -> Lease | None:
        """As far as the log has been read."""
        account = self._thawed(account_id)
        return None if account is None else account.leases.of.get(lease)

    def leased(self) -> tuple[int, dict[str, int]]:
        """How many leases hold something, and what they have left at the most, in pico by currency."""
        number, money = 0, dict[str, int]()
        for account_id in self._leased:
            account = self.account(account_id)
            plan = None if account is None else account.contract.plan_at(self._book, self.log_time_us)
            if account is not None and plan is not None:
                number += sum(any(each.left) for each in account.leases.of.values())
                money[account.currency] = money.get(account.currency, 0) + leased_pico(account, plan)
        return number, money

    def wallet(self, account_id: str, now_us: int) -> Wallet | None:
        """What the account has at this moment; None: not open here."""
        account = self._thawed(account_id)
        return None if account is None else self.desk.wallet(account, self._book, self._now(now_us))

    def rerated(self, account: Account, price: str | None, asked: Rerating) -> dict[str, list[Difference] | Refusal]:
        """What rating usage again would come to at this moment, by price (None: all). Raises Refused."""
        return by_price(account, price, asked, self._book, self.log_time_us)

    def _thawed(self, account_id: str) -> Account | None:
        """The account, live but not changed: who is asked about is about to be used."""
        if account_id in self._frozen:
            self._live[account_id] = decode_account(self._frozen.pop(account_id).blob, self._book)
            self._touched_us[account_id] = self.log_time_us
        return self._live.get(account_id)

    def _now(self, now_us: int) -> int:
        """The owner's clock, never behind the log (README, "Holds")."""
        return max(self.log_time_us, now_us)

    # ------------------------------------------------------------------------------------------------- checkpoints

    def header(self) -> bytes:
        """The partition's own state; see engine/snapshot.py."""
        return encode_partition(
            self.log_time_us, self.epoch, self._book.versions, self.counts, self._sliced, self._bound, self._leased
        )

    @property
    def dirty_accounts(self) -> int:
        """Accounts changed since the last cut."""
        return len(self._dirty)

    def begin_cut(self) -> Cut:
        """Everything that changed since the last cut, as it stands now. One cut at a time: `end_cut` comes first."""
        assert self._cut is None, "the last cut has not ended"
        journal, self._journal = self._journal, Journal()
        dirty, self._dirty = self._dirty, {}
        self._cut = Cut(self.header(), self.log_time_us, dirty, journal, self.dedup.take_fresh())
        return self._cut

    def end_cut(self) -> None:
        """The cut is complete; changes need no copy any more."""
        self._cut = None

    def load(
        self,
        blob: bytes | None,
        accounts: Iterable[AccountRow],
        dedup: Iterable[DedupSegment],
        commands: Iterable[CommandRow],
        runs: Iterable[Run] = (),
    ) -> None:
        """Take over from a checkpoint; `commands` in offset order. Raises CatalogueMissing or UnknownSnapshot."""
        if blob is None:
            return
        state = decode_partition(blob)
        for version, _ in state.catalogues:
            if version not in self._library:
                raise CatalogueMissing(version)  # before anything is published: the caller loads it, then calls again
        for version, effective_us in state.catalogues:
            self._book.publish(effective_us, self._library[version])
        self.log_time_us = state.log_time_us
        self.epoch = state.epoch
        self.counts = dict(state.counts)
        self._sliced = set(state.sliced)
        self._bound = set(state.bound)
        self._leased = set(state.leased)
        for row in accounts:
            self._frozen[row.account] = _Frozen(row.blob, row.wake_us)
            self._wake_at(row.wake_us, row.account)
        self.dedup.load(dedup, runs)
        for command in commands:
            if command.answer != Refusal.KEY_REUSED:
                # A key may have been used again after 30 days: only the newest answer counts, at the end of the order.
                self._answered.pop((command.account, command.command_key), None)
                self._answered[command.account, command.command_key] = _Answered(
                    command.digest, command.answer, command.log_time_us
                )

    def state_bytes(self) -> bytes:
        """The whole state, the same for the same log however it was folded (law D4)."""
        accounts = {account_id: encode_account(account) for account_id, account in self._live.items()}
        accounts |= {account_id: frozen.blob for account_id, frozen in self._frozen.items()}
        self._forget_commands()
        answered = sorted(
            (*memory, item.digest, item.answer, item.log_time_us) for memory, item in self._answered.items()
        )
        return msgspec.msgpack.encode([self.header(), sorted(accounts.items()), self.dedup.entries(), answered])
