"""What crosses a door: frames of msgpack over a TCP connection, pipelined, answered in any order.

A frame is a 4-byte big-endian length and a body of at most FRAME_BYTES_MAX, a reply's of REPLY_BYTES_MAX. The first
frame of a connection is `Hello` and is answered by `Welcome` or by closing. Every other request is `Asked`, every reply
`Answered`, matched by number. Deadlines are intervals, so that no two clocks are compared. Replies carry the epoch of
the partition they speak for: a client drops what comes from a lower one than it has seen. Money and quantities cross as
decimal text.
"""

import hmac
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

PROTOCOL: Final = 1
FRAME_BYTES_MAX: Final = 256 * 1024
REPLY_BYTES_MAX: Final = 8 * 1024 * 1024  # an account with 10,000 cells is a few megabytes
LENGTH_BYTES: Final = 4


class Hello(Struct, array_like=True):
    protocol: int
    token: str  # the deployment's internal token: it proves membership, not a user's right


class Welcome(Struct, array_like=True):
    protocol: int
    incarnation: str


# ------------------------------------------------------------------------------------------------------- questions


class FieldLimit(Struct, array_like=True):
    fields: tuple[str, ...]
    up_to: str  # decimal text


class Check(Struct, tag_field="op", tag="check"):
    """engine/admission.py, `Question`."""

    account: str
    scope: str = ""
    type: str | None = None
    data: dict[str, str] = {}
    reach: dict[str, tuple[str, ...]] = {}
    bounds: tuple[FieldLimit, ...] = ()
    n: int = 1
    feature: str | None = None
    ttl_ms: int | None = None  # of the hold wanted; None: reserve nothing


class Extend(Struct, tag_field="op", tag="extend"):
    token: str
    ttl_ms: int
    bounds: tuple[FieldLimit, ...] = ()


class Release(Struct, tag_field="op", tag="release"):
    token: str


class CarryOn(Struct, tag_field="op", tag="carry_on"):
    """May the stream that runs on a hold go on? `event`: a CloudEvent with all that it has used so far."""

    token: str
    event: bytes
    ttl_ms: int
    ahead: tuple[FieldLimit, ...] = ()
    cheaper: tuple[dict[str, str], ...] = ()  # dimensions of requests that would cost less


class TakeLease(Struct, tag_field="op", tag="take_lease"):
    """`of` is one request, with the ttl of the lease."""

    of: Check
    requests: int
    least: int


class ExtendLease(Struct, tag_field="op", tag="extend_lease"):
    token: str
    requests: int
    least: int
    ttl_ms: int


class CloseLease(Struct, tag_field="op", tag="close_lease"):
    token: str
    events: int  # of it, those included that are still on their way


class Balance(Struct, tag_field="op", tag="balance"):
    account: str


class Describe(Struct, tag_field="op", tag="describe"):
    """Everything that is known of an account: see `AccountView`."""

    account: str


class Applied(Struct, tag_field="op", tag="applied"):
    """Wait until the record at this offset is folded; of a command, say how it was answered."""

    partition: int
    offset: int
    account: str | None = None
    command_key: str | None = None
    digest: bytes | None = None  # of the command's body: if the key answered another one, the answer is key_reused


class RecentAlerts(Struct, tag_field="op", tag="recent_alerts"):
    """Alerts of an account made since its sequence number, as far back as the shard remembers."""

    account: str
    after_sequence: int


class FindRated(Struct, tag_field="op", tag="find_rated"):
    """Where in the log a rated event lies."""

    account: str
    source: str
    id: str


class ShowPayers(Struct, tag_field="op", tag="show_payers"):
    """Who pays for the usage of an account around an instant of event time, and which caps usage of that scope counts in.
    With `adjusts`: who pays what was posted around that instant for the closed period that starts then."""

    account: str
    time_us: int
    scope: str
    adjusts: int | None = None


class ShowRerated(Struct, tag_field="op", tag="show_rerated"):
    """What usage of [from_us, to_us) would come to under another published version. Nothing changes."""

    account: str
    price: str | None  # None: each that the version has for the account's plan
    version: int
    from_us: int
    to_us: int


class Status(Struct, tag_field="op", tag="status"):
    """How the whole shard stands: for metrics and readiness."""


Question = (
    Check
    | Extend
    | Release
    | CarryOn
    | TakeLease
    | ExtendLease
    | CloseLease
    | Balance
    | Describe
    | Applied
    | RecentAlerts
    | FindRated
    | ShowPayers
    | ShowRerated
    | Status
)


class Asked(Struct, array_like=True):
    number: int
    within_ms: int  # the answer is worthless after this; counted from its arrival
    question: Question


# --------------------------------------------------------------------------------------------------------- answers


class AsOf(Struct):
    """The state an answer was given from."""

    partition: int
    epoch: int
    offset: int  # the next one to be folded
    log_time_us: int
    lag_records: int | None  # behind the end of the log; None: not known


class WalletView(Struct):
    currency: str
    booked: str
    held: str
    available: str
    overdraft: str | None  # None: without limit


class BindingView(Struct):
    kind: str
    scope: str
    name: str
    remaining: str | None
    frees_in_ms: int | None
    unit: str = ""  # the meter or price whose units a cap or a rate counts


class HoldView(Struct):
    id: str
    token: str
    valid_for_ms: int
    expires_in_ms: int


class Checked(Struct, tag_field="op", tag="checked"):
    """To Check and Extend."""

    allowed: bool
    as_of: AsOf
    reason: str | None = None
    transient: bool = False
    retry_after_ms: int | None = None
    binding: BindingView | None = None
    wallet: WalletView | None = None
    price: str | None = None
    version: int | None = None
    feature: bool | str | None = None
    hold: HoldView | None = None
    entitlement: BindingView | None = None  # what a metered feature has left, and when it frees


class CoveredView(Struct):
    fields: tuple[str, ...]  # none: events
    left: str


class CarriedOn(Struct, tag_field="op", tag="carried_on"):
    """engine/midstream.py, `Running`."""

    action: Literal["continue", "stop", "cheaper"]
    covered: tuple[CoveredView, ...]
    checked: Checked
    alternative: dict[str, str] | None = None


class LeasedBoundView(Struct):
    fields: tuple[str, ...]  # none: requests are counted
    up_to: str
    granted: str


class UnitCeilingView(Struct):
    price: str
    meter: str
    fields: tuple[str, ...]
    unit: str | None


class LeaseView(Struct):
    id: str
    token: str
    requests: int
    bounds: tuple[LeasedBoundView, ...]
    prices: tuple[UnitCeilingView, ...]
    owner_decides: tuple[str, ...]  # scopes below the lease's that have limits of their own
    valid_for_ms: int
    expires_in_ms: int
    report_within_ms: int


class LeaseAnswered(Struct, tag_field="op", tag="lease"):
    """To TakeLease and ExtendLease."""

    checked: Checked
    lease: LeaseView | None = None


class LeaseClosed(Struct, tag_field="op", tag="lease_closed"):
    """`is_open`: its rest waits for events. `events_rated` None: it is not remembered."""

    is_open: bool
    events_rated: int | None
    as_of: AsOf


class Released(Struct, tag_field="op", tag="released"):
    was_open: bool
    as_of: AsOf


class WorthView(Struct):
    """What credits are worth in a currency."""

    currency: str
    amount: str  # for so many of them:
    per: str
    booked: str
    held: str
    available: str


class BalanceView(Struct, tag_field="op", tag="balance"):
    wallet: WalletView
    as_of: AsOf
    worth: WorthView | None = None  # of an account that is billed in a unit of credit


class LotView(Struct):
    lot: str
    kind: str
    granted: str
    remaining: str
    expired: str
    priority: int
    effective_us: int
    expires_us: int | None
    scope: tuple[str, ...]
    refunded: str = "0"
    voided: str = "0"
    pays_debt: bool = False
    carried: str = "0"


class CapView(Struct):
    cap: str
    scope: str
    hard: bool
    amount: str
    spent: str  # in the window of log time
    window: str
    length_s: int | None
    unit: str  # the meter or price whose units it counts; "": money
    resets_us: int | None  # when the window ends, or begins to sink
    basis: str = "charged"  # which money it counts: charged, list or due
    beyond: str = "owed"  # or waived: what is spent beyond it


class ScopeView(Struct):
    scope: str
    standing: str
    spent: str  # in the month of log time; the root's is the account's
    allowed: dict[str, tuple[str, ...]] = {}  # field of an event -> the only values that checks admit


class RuleView(Struct):
    rule: str
    on: dict[str, str | int | None]  # as in the command set_rule
    active_in: tuple[str, ...]  # windows
    level: str = "warning"


class RateLimitView(Struct):
    limit: str
    scope: str
    per_minute: int
    meter: str | None = None


class UsageView(Struct):
    """What one price owes for one cell in one billing period; `amount` is the price's whole, given on its first cell."""

    period_us: int
    price: str
    cell: tuple[str, ...]
    quantity: str
    amount: str | None
    worth: str | None = None  # of the amount in the unit's currency, worked out exactly and rounded once


class AgreedView(Struct):
    from_us: int
    plan: str
    price: str
    terms: dict[str, Any] | None  # as in the command set_price


class AdjustmentView(Struct):
    """What was posted for a billing period: a manual line, or the sum of what late usage of a closed one changed."""

    line: str | None  # None: late usage, and corrections of it
    period_us: int
    posted_us: int  # of a manual line its log time, else the start of the segment that it was posted in
    price: str  # "": no price's
    amount: str
    reason: str = ""
    by: str = ""


class QuantityGrantView(Struct):
    """granted = remaining + used + expired + voided."""

    grant: str
    price: str
    granted: str
    remaining: str
    used: str
    expired: str
    voided: str
    effective_us: int
    expires_us: int


class RecurringView(Struct):
    grant: str
    every: str
    kind: str
    amount: str
    priority: int
    scope: tuple[str, ...]
    pays_debt: bool
    expires: bool
    days: int | None
    rollover: tuple[int, int, str | None] | None  # percent, days, cap
    next_us: int | None  # when its next lot begins, as far as that is known


class PeriodLineView(Struct):
    """What a billing period owes besides its usage."""

    kind: str
    price: str
    period_us: int
    ends_us: int
    amount: str
    closed: bool  # else it is a projection, as if nothing more were used, or posted in advance, as things are by now
    month: str  # what is agreed for a whole month
    period: str  # and for this period, as long as it is


class TopUpView(Struct, frozen=True):
    """Terms, all None where none are set, and how the account stands to them."""

    threshold: str | None = None
    amount: str | None = None
    cooldown_s: int | None = None
    attempts: int | None = None
    priority: int | None = None
    days: int | None = None
    requests: int = 0
    failed: int = 0
    request: str | None = None  # the open one's id
    asked: str | None = None  # how much it asks for
    next_us: int | None = None


class AccountView(Struct, tag_field="op", tag="account"):
    account: str
    plan: str
    currency: str
    zone: str
    anchor_day: int
    rated: int
    open_holds: int
    wallet: WalletView
    lots: tuple[LotView, ...]
    caps: tuple[CapView, ...]
    scopes: tuple[ScopeView, ...]
    rules: tuple[RuleView, ...]
    rate_limits: tuple[RateLimitView, ...]
    usage: tuple[UsageView, ...]
    as_of: AsOf
    agreed: tuple[AgreedView, ...] = ()
    adjustments: tuple[AdjustmentView, ...] = ()
    phases: tuple[tuple[int, str], ...] = ()  # from when on, which plan
    first_plan: str = ""  # the one before them
    top_up: TopUpView = TopUpView()
    pauses: tuple[tuple[int, bool], ...] = ()  # from when on it is paused, or is not
    recurring: tuple[RecurringView, ...] = ()
    period_lines: tuple[PeriodLineView, ...] = ()  # by period, kind and price
    quantity_grants: tuple[QuantityGrantView, ...] = ()
    seats: tuple[tuple[int, str, int], ...] = ()  # from when on there are so many of a name
    worth: WorthView | None = None  # of its wallet, if it is billed in a unit of credit
    billing: str = "prepaid"  # or postpaid
    due: tuple[tuple[int, int, str], ...] = ()  # of closed periods of a postpaid account: start, end, amount


class AppliedView(Struct, tag_field="op", tag="applied"):
    answer: str | None  # of the command: "applied" or a refusal's wire name; None: none was asked for
    as_of: AsOf


class AlertsView(Struct, tag_field="op", tag="recent_alerts"):
    bodies: tuple[bytes, ...]  # JSON, oldest first
    as_of: AsOf


class RatedAt(Struct, tag_field="op", tag="rated_at"):
    """Of an event of an account, and by what the account is billed.

    `corrected`: offsets at which it was amended or cancelled, the first hundred; one may be its own."""

    offset: int | None  # None: no such event was rated in the last 35 days of log time
    checkpointed: bool  # its outcome is durable
    plan: str
    zone: str
    anchor_day: int
    as_of: AsOf
    corrected: tuple[int, ...] = ()
    agreed: tuple[tuple[int, str, str], ...] = ()  # from when on, price, terms as JSON
    phases: tuple[tuple[int, str], ...] = ()  # from when on, which plan; `plan` is the one before them


class Payers(Struct, tag_field="op", tag="payers"):
    """Of a segment: a stretch of event time in which the same lots may pay, and no period or version begins.

    `lots` and `debt` are what its charges add, on top of all usage up to it; they change while usage arrives for it or
    for what is before it. `lots` is in the order in which lots pay; all is empty where nothing was used."""

    start_us: int
    end_us: int
    charged: dict[str, str]  # by price
    lots: tuple[tuple[str, str, str], ...]  # lot, its kind, amount
    debt: str
    refunded: str
    caps: tuple[CapView, ...]  # spent: in the month of the instant
    as_of: AsOf
    waived: str = "0"  # of the segment's usage, beside what is charged


class DifferenceView(Struct):
    """Of a price in a billing period: what it came to as rated, and by earlier re-ratings, and what it would come to."""

    price: str
    period_us: int
    rated: str
    posted: str
    owed: str
    difference: str


class ReratedView(Struct, tag_field="op", tag="rerated"):
    account: str
    plan: str
    currency: str
    items: tuple[DifferenceView, ...]
    refused: tuple[tuple[str, str], ...]  # price, and why it cannot be rated again
    as_of: AsOf


class PartitionStatus(Struct):
    partition: int
    stage: str
    halt_reason: str
    epoch: int
    next_offset: int
    lag_records: int | None
    log_time_us: int
    checkpointed_offset: int
    checkpoint_age_s: float
    open_holds: int
    accounts: int
    counts: dict[str, int]
    leases_open: int = 0
    leased: dict[str, str] = {}  # by currency: the most that leases have left
    unheld: dict[str, str] = {}  # by currency: the most that may be used of what was allowed without a hold


class StatusView(Struct, tag_field="op", tag="status"):
    shard: str
    incarnation: str
    rss_bytes: int
    cpu_s: float
    lease_left_s: float
    checks: dict[str, int]  # by "allowed" or the reason
    partitions: tuple[PartitionStatus, ...]
    alerts_told: int
    alerts_waiting: int


class NotFound(Struct, tag_field="op", tag="not_found"):
    """There is no such account."""

    as_of: AsOf


class WrongOwner(Struct, tag_field="op", tag="wrong_owner"):
    """The partition is not owned here: look at the routing table again."""

    partition: int


class Recovering(Struct, tag_field="op", tag="recovering"):
    """Ours, but not ready; the balance is the last checkpoint's, where one is known."""

    partition: int
    retry_after_ms: int
    booked: str | None = None


class BadQuestion(Struct, tag_field="op", tag="bad_question"):
    """`field` names what is wrong."""

    field: str
    detail: str


class TooLate(Struct, tag_field="op", tag="too_late"):
    """The deadline passed before there was an answer; what was asked may still happen."""


Answer = (
    Checked
    | CarriedOn
    | LeaseAnswered
    | LeaseClosed
    | Released
    | BalanceView
    | AccountView
    | AppliedView
    | AlertsView
    | RatedAt
    | Payers
    | ReratedView
    | StatusView
    | NotFound
    | WrongOwner
    | Recovering
    | BadQuestion
    | TooLate
)


class Answered(Struct, array_like=True):
    number: int
    answer: Answer


encoder: Final = msgspec.msgpack.Encoder()
hello_decoder: Final = msgspec.msgpack.Decoder(Hello)
welcome_decoder: Final = msgspec.msgpack.Decoder(Welcome)
asked_decoder: Final = msgspec.msgpack.Decoder(Asked)
answered_decoder: Final = msgspec.msgpack.Decoder(Answered)


def frame(message: Struct) -> bytes:
    """A message with its length in front."""
    body = encoder.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


class BadFrame(ValueError):
    """The other side sent what no peer of this protocol would send. The connection is of no use any more."""


class Frames:
    """Cuts a stream of bytes into the bodies of frames."""

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        self._rest = bytearray()  # of a frame that has begun

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that are complete by now. Raises BadFrame for one that is empty or longer than allowed."""
        rest = self._rest
        if rest:
            rest += data
        stream = rest or data  # mostly whole frames come, and nothing is copied but their bodies
        bodies = []
        start, have = 0, len(stream)
        while have - start >= LENGTH_BYTES:
            length = int.from_bytes(stream[start : start + LENGTH_BYTES], "big")
            if not 0 < length <= self._bytes_max:
                raise BadFrame(f"a frame of {length} bytes, where 1 to {self._bytes_max} are allowed")
            end = start + LENGTH_BYTES + length
            if have < end:
                break
            bodies.append(bytes(stream[start + LENGTH_BYTES : end]))
            start = end
        if rest:
            del rest[:start]
        elif start < have:
            rest += data[start:]
        return bodies


def door_token(control_key: bytes) -> str:
    """The deployment's internal token. It cannot be turned back into the key that seals control records."""
    return hmac.digest(control_key, b"tallygate door\0", "sha256").hex()
