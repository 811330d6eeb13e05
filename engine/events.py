"""What stands in a record: usage events (CloudEvents JSON) and control records (sealed with a MAC).

Wire formats: README.md, "A record's way" and "Control records". Nothing here knows accounts or prices.
"""

import hashlib
import hmac
import re
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, Final, Literal

import msgspec
import xxhash
from msgspec import Struct

from engine.money import NotADecimal, parse_quantity
from engine.periods import EPOCH, MICROSECOND

VALUE_BYTES_MAX: Final = 65_536  # a usage event is a few hundred bytes; ten times the largest seen in practice
KEY_BYTES_MAX: Final = 256
TEXT_MAX: Final = 256
DATA_FIELDS_MAX: Final = 64
WHOLE_DIGITS_READ_MAX: Final = 4_300  # of a whole number in JSON: Python reads no longer one
# Objects and lists inside one another in a record. How many Python reads depends on who calls, which is no word of the log.
NESTED_MAX: Final = 64
CANCEL: Final = "tallygate.cancel"
AMEND: Final = "tallygate.amend"
_CARRIED: Final = 2  # so much deeper may these be: in their data stand events, whole
SCOPE_PARTS_MAX: Final = 8
SCOPE_TEXT_MAX: Final = SCOPE_PARTS_MAX * 65 - 1
SEQ_MAX: Final = 1_000_000_000
TOKEN_TEXT_MAX: Final = 4096  # characters of a hold's token
SLICES_MAX: Final = 1_000  # accounts in one record
LEASES_IN_RECORD_MAX: Final = 100  # each with a token of up to TOKEN_TEXT_MAX
LINGER_US_MAX: Final = 86_400_000_000
CONTROL_MAGIC: Final = b"TGC1"
_MAC_BYTES: Final = 32
CONTROL_BODY_START: Final = len(CONTROL_MAGIC) + _MAC_BYTES


class Malformed(ValueError):
    """The record cannot be read as what it claims to be. The message is for a person."""


class BadMac(ValueError):
    """A control record that the deployment's key did not seal for this topic and partition."""


# ---------------------------------------------------------------------------------------------------- usage events


_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]


class _CloudEvent(Struct, gc=False):
    id: _Name
    source: _Name
    type: _Name
    specversion: Literal["1.0"]
    data: Annotated[dict[str, Any], msgspec.Meta(max_length=DATA_FIELDS_MAX)]
    time: str | None = None
    subject: str | None = None
    scope: Annotated[str, msgspec.Meta(max_length=SCOPE_TEXT_MAX)] = ""  # `is_scope` remembers what it was asked
    hold: Annotated[str, msgspec.Meta(min_length=1, max_length=TOKEN_TEXT_MAX)] | None = None
    holdfinal: bool = True
    seq: Annotated[int, msgspec.Meta(ge=0, le=SEQ_MAX)] | None = None


class UsageEvent(Struct, gc=False):
    """A usage event as it was sent. `time_us` is None when the event states no time."""

    id: str
    source: str
    type: str
    subject: str | None
    time_us: int | None
    data: dict[str, Any]
    scope: str = ""
    hold: str | None = None  # the token of the hold it settles (engine/holds.py)
    hold_final: bool = True  # nothing more will come for that hold
    seq: int | None = None  # which event of its stream it is (engine/streams.py)


class Scientific(Decimal):
    """A number written with an exponent: as a billing field the same as its plain form, but no quantity (law M1)."""


def _number(text: str) -> Decimal:
    return Scientific(text) if "e" in text or "E" in text else Decimal(text)


_decoder: Final = msgspec.json.Decoder(_CloudEvent, float_hook=_number)
_RFC3339: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?([Zz]|[+-][0-9]{2}:[0-9]{2})",
    re.ASCII,
)
_SCOPE_PART: Final = re.compile(r"[A-Za-z0-9._:@-]{1,64}", re.ASCII)
_second_starts: dict[str, int] = {}  # "2026-11-22T10:00:00." -> microseconds; events of one second share the parse
_SECOND_STARTS_MAX: Final = 4096


def _parse_time(text: str) -> int:
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise Malformed(f"time {text[:40]!r} is not RFC 3339 with an offset")
    day, clock, fraction, offset = match.groups()
    try:
        second = datetime.fromisoformat(f"{day}T{clock}{'+00:00' if offset in 'Zz' else offset}")
        return (second - EPOCH) // MICROSECOND + int((fraction or "0")[:6].ljust(6, "0"))
    except (ValueError, OverflowError) as error:
        raise Malformed(f"time {text[:40]!r} is not an instant") from error


def parse_time(text: str) -> int:
    """Microseconds since 1970 UTC; digits beyond the sixth are cut off. Raises Malformed."""
    fraction = text[20:26]
    if text[26:] == "Z" and fraction.isdecimal() and fraction.isascii():
        start = _second_starts.get(text[:20])
        if start is None:
            time_us = _parse_time(text)
            if len(_second_starts) >= _SECOND_STARTS_MAX:
                _second_starts.clear()
            start = _second_starts[text[:20]] = time_us - int(fraction)
        return start + int(fraction)
    return _parse_time(text)


def is_text(value: object, length_max: int = TEXT_MAX) -> bool:
    """A string of 1 to length_max characters that Postgres and UTF-8 can hold (no NUL; JSON lets no surrogate in)."""
    return type(value) is str and 0 < len(value) <= length_max and "\x00" not in value


@lru_cache(16_384)
def is_scope(text: str) -> bool:
    """Whether this is the path of a scope below the root (README, "Scopes")."""
    parts = text.split("/")
    return len(parts) <= SCOPE_PARTS_MAX and all(map(_SCOPE_PART.fullmatch, parts))


# One that does not end goes to the end: else each quotation mark in it would be looked through again.
_TEXTS: Final = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*(?:"|\\?\Z)', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[{}\[\]]")


def _nested(body: bytes) -> int:
    """How many objects and lists stand inside one another in JSON; 0: no more than may anyway."""
    if len(body) - len(body.replace(b"{", b"").replace(b"[", b"")) <= NESTED_MAX:  # a fifth of what `count` takes
        return 0
    depth = deepest = 0
    for bracket in _BRACKETS.findall(_TEXTS.sub(b"", body)):
        depth += 1 if bracket in b"{[" else -1
        deepest = max(deepest, depth)
    return deepest


def _too_nested() -> Malformed:
    return Malformed(f"more than {NESTED_MAX} objects and lists stand inside one another")


def parse_usage(value: bytes) -> UsageEvent:
    """The event in a record's value. Raises Malformed, naming the field."""
    nested = _nested(value)
    if nested > NESTED_MAX + _CARRIED:
        raise _too_nested()
    try:
        event = _decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, ArithmeticError) as error:
        raise Malformed(str(error)[:200]) from error
    if nested > NESTED_MAX and event.type not in (CANCEL, AMEND):
        raise _too_nested()
    return _checked(event, may_hold_nul=b"\\" in value)  # JSON writes it with a backslash only


def nested_usage(value: object) -> UsageEvent:
    """The event that stands as a value in another one's data. Raises Malformed, naming the field."""
    try:
        event = msgspec.convert(value, _CloudEvent)
    except msgspec.MsgspecError as error:
        raise Malformed(str(error)[:200]) from error
    return _checked(event, may_hold_nul=True)


def _checked(event: _CloudEvent, *, may_hold_nul: bool) -> UsageEvent:
    if may_hold_nul:
        for name in ("id", "source", "type", "hold"):
            if "\x00" in (getattr(event, name) or ""):
                raise Malformed(f"{name} has a NUL character")
    if event.scope and not is_scope(event.scope):
        raise Malformed(f"scope {event.scope[:40]!r} is not a path of 1 to 8 parts of A-Z a-z 0-9 . _ : @ -")
    time_us = None if event.time is None else parse_time(event.time)
    return UsageEvent(
        *(event.id, event.source, event.type, event.subject, time_us, event.data, event.scope, event.hold),
        *(event.holdfinal, event.seq),
    )


_WRITTEN_ONE_WAY: Final = frozenset((int, str))
_canonical_encoder: Final = msgspec.json.Encoder(order="deterministic")


def _canonical(value: Any) -> Any:
    """The value with every number written one way, so that 5, 5.0 and 5e0 are the same billing field."""
    if isinstance(value, Decimal):
        sign, digits, exponent = value.as_tuple()
        assert type(exponent) is int, "JSON has no NaN or infinity"
        text = "".join(map(str, digits)).lstrip("0")
        stripped = text.rstrip("0")
        exponent += len(text) - len(stripped)
        if not stripped:
            return 0
        if 0 <= exponent <= WHOLE_DIGITS_READ_MAX - len(stripped):  # else nobody can have written it as a whole number
            return int(stripped) * 10**exponent * (-1 if sign else 1)
        return f"{'-' if sign else ''}{stripped}e{exponent}"
    if type(value) is dict:
        return {key: _canonical(item) for key, item in value.items()}
    if type(value) is list:
        return [_canonical(item) for item in value]
    return value


def fingerprint(event: UsageEvent, time_us: int) -> bytes:
    """4 bytes over the billing fields: type, time, scope, hold, seq and the whole of data."""
    data = event.data if _WRITTEN_ONE_WAY.issuperset(map(type, event.data.values())) else _canonical(event.data)
    fields = b"%b\x00%d\x00%b" % (_canonical_encoder.encode(data), time_us, event.type.encode())
    if event.scope or event.hold is not None:
        # Only then: what was recorded before events had these fields must still be known again.
        hold = b"-" if event.hold is None else b"%d%b" % (event.hold_final, event.hold.encode())
        fields = b"%b\x00%b\x00%b" % (fields, event.scope.encode(), hold)
    if event.seq is not None:
        fields = b"%b\x00seq %d" % (fields, event.seq)
    return xxhash.xxh3_64_digest(fields)[:4]


# -------------------------------------------------------------------------------------------------- control records

# Checkpoints hold whole numbers of 64 bits: a larger one, once applied, would let no later checkpoint be written.
Whole = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class Tick(Struct, tag_field="kind", tag="tick", forbid_unknown_fields=True, frozen=True):
    """Moves log time on when nothing else does."""

    epoch: Whole


class Advance(Struct, tag_field="kind", tag="advance", forbid_unknown_fields=True, frozen=True):
    """Log time is this from here on, if it is not later already. Only a sandbox appends it (`sandbox` of the settings)."""

    until_us: Whole


class Owner(Struct, tag_field="kind", tag="owner", forbid_unknown_fields=True, frozen=True):
    """A new owner of the partition has begun."""

    epoch: Whole


class CatalogueMarker(Struct, tag_field="kind", tag="catalogue", forbid_unknown_fields=True, frozen=True):
    """A catalogue version comes into force for event times from effective_us on."""

    version: Whole
    effective_us: Whole


class Slices(Struct, tag_field="kind", tag="slices", forbid_unknown_fields=True, frozen=True):
    """What the owner of this epoch may have in open holds, per account and price, as decimal text."""

    epoch: Whole
    linger_us: Whole
    of: tuple[tuple[str, dict[str, str]], ...]

    def quantities(self) -> list[tuple[str, dict[str, int]]]:
        """Nano-units. `parse_control` has seen that all can be read."""
        return [
            (account, {price: parse_quantity(text) for price, text in by_price.items()})
            for account, by_price in self.of
        ]


class Leases(Struct, tag_field="kind", tag="leases", forbid_unknown_fields=True, frozen=True):
    """Leases that the owner of this epoch grants or extends, as their tokens, and such as their holders have closed:
    account, lease, and how many usage events there are of it."""

    epoch: Whole
    granted: tuple[str, ...]
    closed: tuple[tuple[str, str, Whole], ...]


class OpenAccount(Struct, tag_field="kind", tag="open_account", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    plan: str
    zone: str = "UTC"
    anchor_day: Whole = 1


class Rollover(Struct, forbid_unknown_fields=True, frozen=True):
    """What becomes of a lot's rest when it expires: `percent` of it, at most `cap`, lives on for so many days."""

    percent: Whole
    days: Whole
    cap: str | None = None


class Grant(Struct, tag_field="kind", tag="grant", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    lot: str
    lot_kind: str
    amount: str
    currency: str
    priority: Whole = 100
    effective_us: Whole | None = None
    expires_us: Whole | None = None
    scope: tuple[str, ...] = ()
    pays_debt: bool | None = None  # None: a paid lot does, any other does not
    rollover: Rollover | None = None


class VoidLot(Struct, tag_field="kind", tag="void_lot", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    lot: str
    currency: str
    amount: str | None = None  # None: all that remains


class RefundLot(Struct, tag_field="kind", tag="refund_lot", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    lot: str
    amount: str
    currency: str


class Adjust(Struct, tag_field="kind", tag="adjust", forbid_unknown_fields=True, frozen=True):
    """A manual line. `used_us`: an instant of the billing period that it is for; absent: that of log time."""

    account: str
    command_key: str
    line: str
    amount: str
    currency: str
    reason: str
    by: str
    price: str | None = None
    used_us: Whole | None = None


class Rerate(Struct, tag_field="kind", tag="rerate", forbid_unknown_fields=True, frozen=True):
    """What a price owes for usage of [from_us, to_us) as a version has it: `differences` is (start of a billing period,
    amount) as a dry run found them, and all of them, or nothing, are posted."""

    account: str
    command_key: str
    rerate: str
    price: str
    version: Whole
    from_us: Whole
    to_us: Whole
    currency: str
    differences: tuple[tuple[Whole, str], ...]
    reason: str
    by: str


class SetCap(Struct, tag_field="kind", tag="set_cap", forbid_unknown_fields=True, frozen=True):
    """`amount` is money of the currency, or units of the meter or price that is named instead. `basis`: which money."""

    account: str
    command_key: str
    cap: str
    amount: str
    currency: str | None = None
    scope: str = ""
    hard: bool = True
    window: str = "month"
    length_s: Whole | None = None
    meter: str | None = None
    price: str | None = None
    basis: str = "charged"
    beyond: str = "owed"  # or `waived`: what is spent beyond it is not owed


class SetScope(Struct, tag_field="kind", tag="set_scope", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    scope: str
    standing: str = "active"


class SetOverdraft(Struct, tag_field="kind", tag="set_overdraft", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    amount: str | None  # None: without limit
    currency: str


class SetBilling(Struct, tag_field="kind", tag="set_billing", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    billing: str  # prepaid, postpaid
    currency: str
    credit_limit: str | None = None  # of postpaid; None: without limit


class SetPlan(Struct, tag_field="kind", tag="set_plan", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    plan: str
    from_us: Whole | None = None  # None: at once


class SetPause(Struct, tag_field="kind", tag="set_pause", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    paused: bool
    from_us: Whole | None = None  # None: at once


class SetSeats(Struct, tag_field="kind", tag="set_seats", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    seat: str
    count: Whole
    from_us: Whole | None = None  # None: at once


class SetPrice(Struct, tag_field="kind", tag="set_price", forbid_unknown_fields=True, frozen=True):
    """`terms` is the price as a catalogue states it, but for its meter and cells."""

    account: str
    command_key: str
    price: str
    currency: str
    terms: dict[str, Any] | None  # None: the plan's own again
    from_us: Whole | None = None  # None: at once


class SetRateLimit(Struct, tag_field="kind", tag="set_rate_limit", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    limit: str
    per_minute: Whole  # 0: the limit is gone
    scope: str = ""
    meter: str | None = None  # None: admissions count


class SetAllowed(Struct, tag_field="kind", tag="set_allowed", forbid_unknown_fields=True, frozen=True):
    """The only values of a field of events that checks admit in a scope; null: any."""

    account: str
    command_key: str
    field: str
    values: tuple[str, ...] | None
    scope: str = ""


class RemoveCap(Struct, tag_field="kind", tag="remove_cap", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    cap: str


class OnCapPercent(Struct, tag_field="measure", tag="cap_percent", forbid_unknown_fields=True, frozen=True):
    """What a cap has counted, in percent of it."""

    cap: str
    percent: Whole
    clear_percent: Whole | None = None


class OnBalance(Struct, tag_field="measure", tag="balance", forbid_unknown_fields=True, frozen=True):
    threshold: str
    clear: str | None = None
    direction: str = "down"


class OnSpend(Struct, tag_field="measure", tag="spend", forbid_unknown_fields=True, frozen=True):
    """What is charged in a window."""

    threshold: str
    clear: str | None = None
    scope: str = ""
    window: str = "month"
    length_s: Whole | None = None
    direction: str = "up"


class OnQuantity(Struct, tag_field="measure", tag="quantity", forbid_unknown_fields=True, frozen=True):
    """Units of a meter or of a price, in a window."""

    threshold: str
    meter: str | None = None
    price: str | None = None
    clear: str | None = None
    scope: str = ""
    window: str = "month"
    length_s: Whole | None = None
    direction: str = "up"


class OnIncludedPercent(Struct, tag_field="measure", tag="included_percent", forbid_unknown_fields=True, frozen=True):
    """What is used of a price in a billing period, in percent of what it includes."""

    price: str
    percent: Whole
    clear_percent: Whole | None = None


class OnCommitmentPercent(
    Struct, tag_field="measure", tag="commitment_percent", forbid_unknown_fields=True, frozen=True
):
    """What the usage of a billing period comes to, in percent of what it commits to: by a commitment of the plan, or by that
    of the price of this name."""

    commitment: str
    percent: Whole
    clear_percent: Whole | None = None


class OnLotPercent(Struct, tag_field="measure", tag="lot_percent", forbid_unknown_fields=True, frozen=True):
    """What is left of a lot, in percent of what it was granted, or less."""

    lot: str
    percent: Whole
    clear_percent: Whole | None = None


class OnExpiring(Struct, tag_field="measure", tag="expiring", forbid_unknown_fields=True, frozen=True):
    """At least `threshold` is left of a lot that expires within so many seconds."""

    threshold: str
    within_s: Whole
    clear: str | None = None


class OnSpike(Struct, tag_field="measure", tag="spike", forbid_unknown_fields=True, frozen=True):
    """What is counted in a stretch of log time, in percent of the average stretch before it, and at least `minimum`."""

    percent: Whole
    minimum: str
    bucket_s: Whole
    clear_percent: Whole | None = None
    meter: str | None = None
    price: str | None = None
    scope: str = ""


On = (
    OnCapPercent
    | OnBalance
    | OnSpend
    | OnQuantity
    | OnIncludedPercent
    | OnCommitmentPercent
    | OnLotPercent
    | OnExpiring
    | OnSpike
)


class SetRule(Struct, tag_field="kind", tag="set_rule", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    rule: str
    on: On
    level: str = "warning"


class RemoveRule(Struct, tag_field="kind", tag="remove_rule", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    rule: str


class SetRecurringGrant(Struct, tag_field="kind", tag="set_recurring_grant", forbid_unknown_fields=True, frozen=True):
    """A lot in each period: `every` billing period, or calendar month or week of the account's zone."""

    account: str
    command_key: str
    grant: str
    every: str
    lot_kind: str
    amount: str
    currency: str
    priority: Whole = 100
    scope: tuple[str, ...] = ()
    pays_debt: bool = False
    expires: bool = True  # at the end of its period, or after `days`
    days: Whole | None = None
    rollover: Rollover | None = None


class RemoveRecurringGrant(
    Struct, tag_field="kind", tag="remove_recurring_grant", forbid_unknown_fields=True, frozen=True
):
    account: str
    command_key: str
    grant: str


class GrantQuantity(Struct, tag_field="kind", tag="grant_quantity", forbid_unknown_fields=True, frozen=True):
    """Units of one price that owe nothing, in the billing period of `effective_us`. Absent: from log time on, to the end of
    the period."""

    account: str
    command_key: str
    grant: str
    price: str
    quantity: str
    effective_us: Whole | None = None
    expires_us: Whole | None = None


class VoidQuantityGrant(Struct, tag_field="kind", tag="void_quantity_grant", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str
    grant: str


class SetTopUp(Struct, tag_field="kind", tag="set_top_up", forbid_unknown_fields=True, frozen=True):
    """Ask for `amount` once the balance is at or below `threshold`."""

    account: str
    command_key: str
    threshold: str
    amount: str
    currency: str
    cooldown_s: Whole = 3600
    attempts: Whole = 3
    priority: Whole = 100
    days: Whole | None = None  # how long the lot lives that a payment makes; None: for ever


class RemoveTopUp(Struct, tag_field="kind", tag="remove_top_up", forbid_unknown_fields=True, frozen=True):
    account: str
    command_key: str


class AnswerTopUp(Struct, tag_field="kind", tag="answer_top_up", forbid_unknown_fields=True, frozen=True):
    """What became of the payment that a request asked for."""

    account: str
    command_key: str
    request: str
    paid: bool


Command = (
    OpenAccount
    | Grant
    | VoidLot
    | RefundLot
    | Adjust
    | Rerate
    | SetCap
    | RemoveCap
    | SetRule
    | RemoveRule
    | SetScope
    | SetOverdraft
    | SetBilling
    | SetRateLimit
    | SetAllowed
    | SetPlan
    | SetPause
    | SetSeats
    | SetPrice
    | SetRecurringGrant
    | RemoveRecurringGrant
    | GrantQuantity
    | VoidQuantityGrant
    | SetTopUp
    | RemoveTopUp
    | AnswerTopUp
)
Control = Tick | Advance | Owner | CatalogueMarker | Slices | Leases | Command

_control_decoder: Final = msgspec.json.Decoder(Control)


def seal(control_key: bytes, topic: str, partition: int, body: bytes) -> bytes:
    """A control record's value: only valid in this topic and partition."""
    return CONTROL_MAGIC + _mac(control_key, topic, partition, body) + body


def _mac(control_key: bytes, topic: str, partition: int, body: bytes) -> bytes:
    message = b"%b\x00%d\x00%b" % (topic.encode(), partition, body)
    return hmac.digest(control_key, message, "sha256")


def unseal(control_key: bytes, topic: str, partition: int, value: bytes) -> bytes:
    """The body of a control record. Raises BadMac."""
    body = value[CONTROL_BODY_START:]
    stated = value[len(CONTROL_MAGIC) : CONTROL_BODY_START]
    if not hmac.compare_digest(stated, _mac(control_key, topic, partition, body)):
        raise BadMac("the MAC does not hold for this topic and partition")
    return body


def parse_control(body: bytes) -> Control:
    """The control record in a body. Raises Malformed, naming the field."""
    if _nested(body) > NESTED_MAX:
        raise _too_nested()
    try:
        control: Control = _control_decoder.decode(body)
    except (msgspec.MsgspecError, ValueError) as error:
        raise Malformed(str(error)[:200]) from error
    if isinstance(control, Command):
        names = [control.account, control.command_key]
        match control:
            case OpenAccount():
                names += [control.plan, control.zone]
            case Grant():
                names += [control.lot, control.lot_kind, control.currency, *control.scope]
            case VoidLot() | RefundLot():
                names += [control.lot, control.currency]
            case Adjust():
                names += [control.line, control.currency, *([] if control.price is None else [control.price])]
            case Rerate():
                names += [control.rerate, control.price, control.currency]
            case SetCap():
                names += [control.cap, control.window, control.basis, control.beyond]
                names += [name for name in (control.currency, control.meter, control.price) if name is not None]
            case RemoveCap():
                names += [control.cap]
            case SetRule():
                names += [control.rule, control.level, *_names_in(control.on)]
            case RemoveRule():
                names += [control.rule]
            case SetScope():
                names += [control.standing]
            case SetOverdraft():
                names += [control.currency]
            case SetBilling():
                names += [control.billing, control.currency]
            case SetPlan():
                names += [control.plan]
            case SetPrice():
                names += [control.price, control.currency]
            case SetRateLimit():
                names += [control.limit, *([] if control.meter is None else [control.meter])]
            case SetAllowed():
                names += [control.field, *(control.values or ())]
            case SetRecurringGrant():
                names += [control.grant, control.every, control.lot_kind, control.currency, *control.scope]
            case RemoveRecurringGrant() | VoidQuantityGrant():
                names += [control.grant]
            case GrantQuantity():
                names += [control.grant, control.price]
            case SetTopUp():
                names += [control.currency]
            case AnswerTopUp():
                names += [control.request]
        if not all(map(is_text, names)):
            raise Malformed(f"every name must be a string of 1 to {TEXT_MAX} characters without NUL")
    if isinstance(control, Slices):
        _check_slices(control)
    if isinstance(control, Leases):
        _check_leases(control)
    return control


def _names_in(on: On) -> list[str]:
    """What a rule's measure names, and its words. A threshold is read later, and a scope, which may be empty."""
    words = ("window", "direction", "meter", "price", "lot")
    return [word for word in (getattr(on, name, None) for name in words) if word is not None]


def _check_slices(slices: Slices) -> None:
    """A control record is applied whole or not at all. Raises Malformed."""
    if len(slices.of) > SLICES_MAX or not 0 < slices.linger_us <= LINGER_US_MAX:
        raise Malformed(f"slices has 1 to {SLICES_MAX} accounts and a linger_us of 1 to {LINGER_US_MAX}")
    names = [name for account, by_price in slices.of for name in (account, *by_price)]
    if not all(map(is_text, names)):
        raise Malformed(f"every name must be a string of 1 to {TEXT_MAX} characters without NUL")
    try:
        quantities = [quantity for _, by_price in slices.quantities() for quantity in by_price.values()]
    except NotADecimal as error:
        raise Malformed(str(error)) from error
    if any(quantity <= 0 for quantity in quantities):
        raise Malformed("a slice's quantity is above 0; a price without one is left out")


def _check_leases(leases: Leases) -> None:
    """Raises Malformed. Tokens are read by whoever has the key."""
    if len(leases.granted) + len(leases.closed) > LEASES_IN_RECORD_MAX:
        raise Malformed(f"leases has at most {LEASES_IN_RECORD_MAX} grants and closes")
    for account, lease, events in leases.closed:
        if not (is_text(account) and is_text(lease)) or events < 0:
            raise Malformed("a close names an account and a lease, and at least 0 events")


def command_digest(body: bytes) -> bytes:
    """16 bytes that tell the bodies of two commands apart, whoever chose them."""
    return hashlib.sha256(body).digest()[:16]
