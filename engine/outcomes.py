"""What goes out of the core: charges, postings, alerts, dead letters, answers. Wire names live here."""

from enum import StrEnum
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Struct

from engine.meters import ESTIMATED, MEASURED, Cell
from engine.money import amount_text, quantity_text
from engine.prices.price import Short


class DeadLetterReason(StrEnum):
    """Why a record was not rated. The wire names are stable; README has the order in which they are tested."""

    TOO_LARGE = "too_large"
    MALFORMED = "malformed"
    BAD_MAC = "bad_mac"
    BAD_CONTROL = "bad_control"
    UNKNOWN_ACCOUNT = "unknown_account"
    BAD_HOLD = "bad_hold"
    MISSING_TIME = "missing_time"
    TOO_FAR_AHEAD = "too_far_ahead"
    TOO_OLD = "too_old"
    ID_CONFLICT = "id_conflict"
    NO_METER = "no_meter"
    BAD_USAGE = "bad_usage"
    BAD_QUANTITY = "bad_quantity"
    BAD_DIMENSION = "bad_dimension"
    NO_PRICE = "no_price"
    TOO_MANY_CELLS = "too_many_cells"
    TOO_MANY_VALUES = "too_many_values"
    BAD_SESSION = "bad_session"
    SESSION_CONFLICT = "session_conflict"
    BAD_STREAM = "bad_stream"
    STREAM_OVER = "stream_over"
    TOO_MANY_SESSIONS = "too_many_sessions"
    TOO_MANY_STREAMS = "too_many_streams"
    BAD_CORRECTION = "bad_correction"
    CORRECTION_MISMATCH = "correction_mismatch"
    SUPERSEDED = "superseded"
    NOT_CANCELLABLE = "not_cancellable"
    TOO_MANY_PARKED = "too_many_parked"
    ENGINE_ERROR = "engine_error"


class Refusal(StrEnum):
    """Why a command was not applied, in the order in which the reasons are tested."""

    KEY_REUSED = "key_reused"
    ACCOUNT_EXISTS = "account_exists"
    UNKNOWN_ACCOUNT = "unknown_account"
    UNKNOWN_PLAN = "unknown_plan"
    UNKNOWN_ZONE = "unknown_zone"
    BAD_ANCHOR = "bad_anchor"
    BAD_AMOUNT = "bad_amount"
    BAD_LOT = "bad_lot"
    CURRENCY_MISMATCH = "currency_mismatch"
    BAD_BASIS = "bad_basis"
    BAD_BEYOND = "bad_beyond"
    BAD_BILLING = "bad_billing"
    LOT_EXISTS = "lot_exists"
    BAD_ROLLOVER = "bad_rollover"
    UNKNOWN_LOT = "unknown_lot"
    LOT_OVER = "lot_over"
    EXCEEDS_LOT = "exceeds_lot"
    TOO_MANY_CHANGES = "too_many_changes"
    UNKNOWN_PRICE = "unknown_price"
    UNKNOWN_COMMITMENT = "unknown_commitment"
    EXPIRES_TOO_SOON = "expires_too_soon"
    UNKNOWN_CAP = "unknown_cap"
    CAP_IN_USE = "cap_in_use"
    UNKNOWN_RULE = "unknown_rule"
    BAD_RULE = "bad_rule"
    BAD_SCOPE = "bad_scope"
    UNKNOWN_SCOPE = "unknown_scope"
    TOO_MANY_SCOPES = "too_many_scopes"
    BAD_STANDING = "bad_standing"
    BAD_LIMIT = "bad_limit"
    BAD_LIST = "bad_list"
    UNKNOWN_METER = "unknown_meter"
    BAD_CAP = "bad_cap"
    TOO_MANY_CAPS = "too_many_caps"
    TOO_MANY_RULES = "too_many_rules"
    BAD_START = "bad_start"
    BAD_PRICE = "bad_price"
    TOO_MANY_PRICES = "too_many_prices"
    MID_PERIOD = "mid_period"
    LINE_EXISTS = "line_exists"
    TOO_MANY_LINES = "too_many_lines"
    NO_REASON = "no_reason"
    BAD_PERIOD = "bad_period"
    TOO_MANY_PHASES = "too_many_phases"
    WOULD_REPRICE = "would_reprice"
    BAD_TOP_UP = "bad_top_up"
    NO_TOP_UP = "no_top_up"
    NOT_ASKED = "not_asked"
    TOO_MANY_PAUSES = "too_many_pauses"
    UNKNOWN_VERSION = "unknown_version"
    MID_SEGMENT = "mid_segment"
    WAIVED = "waived"
    RERATE_CHANGED = "rerate_changed"
    NO_DIFFERENCE = "no_difference"
    BAD_RECURRING = "bad_recurring"
    UNKNOWN_RECURRING = "unknown_recurring"
    TOO_MANY_RECURRING = "too_many_recurring"
    BAD_QUANTITY_GRANT = "bad_quantity_grant"
    TOO_MANY_QUANTITY_GRANTS = "too_many_quantity_grants"
    UNKNOWN_SEAT = "unknown_seat"
    BAD_SEATS = "bad_seats"
    TOO_MANY_SEATS = "too_many_seats"


APPLIED = "applied"


class DeadLetter(Exception):
    """The record is set aside. The message is for a person."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Settled(StrEnum):
    """How an event stands to the hold it names. It changes no charge."""

    WITHIN = "within"
    OVER_HOLD = "over_hold"
    LATE = "late"


class Line(Struct, frozen=True, gc=False):
    """What one price charges for one event (law A2). Quantities below 0 are taken back."""

    price: str
    cell: Cell
    quantity: int  # nano-units
    amount: int  # pico
    tiers: tuple[
        tuple[int, int], ...
    ]  # (tier number from 1, nano-units); 0: included, -1: beyond a maximum, -2: a grant's, -3: shared
    repricing: int = 0  # pico of the amount that earlier units' new terms make (law R9); the rest is its own
    used: int | None = None  # nano-units priced before in the period, where the tiers alone do not tell the amount
    version: int | None = None  # of the price, where an older one than the event's holds through the period
    agreed_us: int | None = None  # from when on the price is agreed with the account alone; None: it is published
    short: Short | None = None  # what is not as published of the price, in a period that is a part of a month
    due: str | None = None  # what it owes that is no usage (engine/period_lines.py); such a line has no cell


class RatedEvent(Struct, frozen=True, gc=False):
    """One rated usage event, with what charged it."""

    offset: int
    log_time_us: int
    account: str
    source: str
    id: str
    time_us: int  # the instant it was rated at
    version: int
    currency: str
    lines: tuple[Line, ...]
    dimensions: tuple[tuple[str, ...], ...]  # names of each line's cell, in the same order
    hold: str | None = None  # id of the hold it names
    settled: Settled | None = None
    correction: str | None = None  # "cancel" or "amend"
    estimated: bool = False
    tags: dict[str, str] | None = None
    adjusts: int | None = None  # start of the billing period it adjusts, if that was closed
    session: str | None = None  # the one that a stretch of time is of
    accrued_us: int | None = None  # of no event: what open sessions came to, or a period owes, by this log time
    plan: str = ""  # that the account is sold at the instant


class RatedLine(Struct, omit_defaults=True, gc=False):
    """A line of the topic `rated`, as it stands there. Money and quantities are decimal text."""

    partition: int
    offset: int
    line: int
    epoch: int
    account: str
    source: str
    id: str
    time_us: int
    log_time_us: int
    price: str
    version: int
    cell: dict[str, str]
    quantity: str
    amount: str
    currency: str
    tiers: tuple[tuple[int, str], ...]
    hold: str | None = None
    settled: str | None = None
    correction: str | None = None
    usage_basis: str = MEASURED
    tags: dict[str, str] | None = None
    repricing: str | None = None
    used: str | None = None
    agreed_us: int | None = None
    adjusts: int | None = None  # start of a closed billing period: counts in no cap, nor in that period
    included: str | None = None
    session: str | None = None
    accrued_us: int | None = None
    due: str | None = None
    commitment: str | None = None
    plan: str = ""


_encode: Final = msgspec.json.Encoder().encode
_REMEMBERED: Final = 16_384


@lru_cache(_REMEMBERED)
def _named(names: tuple[str, ...], cell: Cell) -> dict[str, str]:
    return dict(zip(names, cell, strict=True))


def rated_lines(event: RatedEvent, partition: int, epoch: int, first: int = 0) -> list[bytes]:
    """The event's lines for the topic `rated`: a JSON object each; key = (partition, offset, line), line from `first`."""
    offset, log_time_us, account, source, event_id, time_us = (
        event.offset,
        event.log_time_us,
        event.account,
        event.source,
        event.id,
        event.time_us,
    )
    dimensions = event.dimensions
    if len(dimensions) < len(event.lines):  # what a period owes comes last, and has no cell
        dimensions += ((),) * (len(event.lines) - len(dimensions))
    found: list[bytes] = []
    for line, names in zip(event.lines, dimensions, strict=True):
        units, tiers = line.quantity, line.tiers
        quantity = quantity_text(units)
        told = RatedLine(
            partition,
            offset,
            first + len(found),
            epoch,
            account,
            source,
            event_id,
            time_us,
            log_time_us,
            line.price,
            event.version if line.version is None else line.version,
            _named(names, line.cell),
            quantity,
            amount_text(line.amount),
            event.currency,
            ((tiers[0][0], quantity),)
            if len(tiers) == 1 and tiers[0][1] == units
            else tuple([(tier, quantity_text(part)) for tier, part in tiers]),
            event.hold,
            event.settled,
            event.correction,
            ESTIMATED if event.estimated else MEASURED,
            event.tags,
            amount_text(line.repricing) if line.repricing else None,
            None if line.used is None else quantity_text(line.used),
            line.agreed_us,
            event.adjusts,
            None if line.short is None or line.short.included is None else quantity_text(line.short.included),
            event.session,
            event.accrued_us,
            line.due,
            None if line.short is None or line.short.commitment is None else amount_text(line.short.commitment),
            event.plan,
        )
        found.append(_encode(told))
    return found


class Forward(Struct, frozen=True):
    """A usage event found in the wrong partition: produced again under its key."""

    offset: int
    partition: int
    key: bytes
    value: bytes


# ------------------------------------------------------------------------------- what a checkpoint writes, row by row


class AccountRow(Struct, frozen=True):
    """One account in a checkpoint."""

    account: str
    blob: bytes  # engine/snapshot.py
    wake_us: int | None  # when log time reaches this, the account wants waking
    balance: int  # pico; shown to people, never read back
    spend: int  # pico, of the newest calendar month; shown to people, never read back
    currency: str


class CommandRow(Struct, frozen=True):
    """A command and its answer: the audit copy, and the memory of command keys."""

    offset: int
    log_time_us: int
    account: str
    command_key: str
    digest: bytes  # 16 bytes over the body
    kind: str
    body: bytes
    answer: str  # "applied", or the refusal's wire name


class PostingRow(Struct, frozen=True):
    """A signed change of one lot's standing, or of debt (lot "")."""

    account: str
    lot: str
    lot_kind: str  # "" for debt
    kind: str  # grant, burn, refund, void, expire, carry, debt, due
    usage_period_us: int | None  # start of the billing period of the usage; None for the others
    posting_period_us: int
    amount: int  # pico


class AlertRow(Struct, frozen=True):
    """An alert to be told. `body` is the JSON that is signed and sent, the same bytes at every attempt."""

    alert_id: str
    account: str
    offset: int
    body: bytes


class DeadLetterRow(Struct, frozen=True):
    """A record that was not rated, kept so that it can be mended and sent again: whole, but for what is longer than any
    usage event (`engine/partition.py`, LETTER_KEY_BYTES_MAX, LETTER_VALUE_BYTES_MAX)."""

    offset: int
    log_time_us: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None


class DedupSegment(Struct, frozen=True):
    """Identities of events rated since the last checkpoint: 20-byte entries of one generation of a bucket
    (engine/dedup.py)."""

    bucket: int
    generation: int
    entries: bytes
