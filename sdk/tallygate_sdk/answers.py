"""What is answered. Amounts and quantities are exact decimals."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Literal

from msgspec import Struct


class Binding(Struct, frozen=True):
    """The limit that refused, or that has the least left."""

    kind: str
    scope: str
    name: str
    remaining: Decimal | None
    frees_in_s: float | None
    unit: str = ""  # the meter or price whose units a cap counts; "": money, or a count of requests


class Price(Struct, frozen=True):
    """What the request would add, at most."""

    amount: Decimal
    currency: str | None
    version: int | None


class Balance(Struct, frozen=True):
    """available = booked - held; None: not known now (or, of `overdraft`, without limit)."""

    booked: Decimal | None
    held: Decimal | None = None
    available: Decimal | None = None
    overdraft: Decimal | None = None
    currency: str | None = None


class Hold(Struct, frozen=True):
    """What is reserved. Settle it, extend it or release it by its token before `valid_for_s` has passed."""

    id: str
    token: str
    valid_for_s: float
    expires_in_s: float

    @property
    def partition(self) -> int:
        """Whose owner knows it: an id is partition, epoch and number."""
        return int(self.id.partition(".")[0])


class AsOf(Struct, frozen=True):
    """The state that an answer was given from."""

    partition: int
    epoch: int
    offset: int
    log_time: str
    lag_records: int | None


class Advice(Struct, frozen=True):
    """Such requests have earned less than a margin floor asks for, in the last hour whose costs have settled."""

    advice: str  # below_margin_floor
    floor: str
    of: str  # model, account
    subject: str
    percent: str  # the margin of that hour, of its revenue
    floor_percent: str
    level: str
    hour: str


class Decision(Struct, frozen=True):
    """Whether a request may run. A denial is an answer, not an error: branch on `reason`."""

    allowed: bool
    reason: str | None = None
    transient: bool = False  # it may pass by itself
    retry_after_s: float | None = None
    binding: Binding | None = None
    price: Price | None = None
    balance: Balance | None = None
    feature: bool | str | None = None
    hold: Hold | None = None
    as_of: AsOf | None = None
    entitlement: Binding | None = None  # what a metered feature has left behind this request, and when it frees
    decided_by: Literal["service", "policy"] = "service"  # "policy": nobody answered, and the caller's rule decided
    advice: Advice | None = None  # what the seller wants gateways to know; it has decided nothing


class Undecided(Struct, frozen=True):
    """Of one check among many: why there is no decision."""

    status: int
    type: str
    detail: str
    next_step: str
    field: str | None = None


class Outcome(Struct, frozen=True):
    """Of one check among many: a decision, or why there is none."""

    answer: Decision | None = None
    problem: Undecided | None = None


class RefusedEvent(Struct, frozen=True):
    """A usage event that the service did not take, by its place in what was sent."""

    index: int
    id: str | None
    reason: str
    field: str
    detail: str


class Reported(Struct, frozen=True):
    """How many events are durable, and which were not taken."""

    accepted: int
    refused: tuple[RefusedEvent, ...] = ()


class Captured(Struct, frozen=True):
    """The event is durable."""

    id: str
    account: str
    hold_id: str


class Covered(Struct, frozen=True):
    """What a hold still covers of these fields together. No fields: events."""

    fields: tuple[str, ...]
    left: Decimal


class Running(Struct, frozen=True):
    """What a running stream is told. `continue`: on with the hold of `check`, if it has one. `stop`: use at most what is
    covered, then end, and settle. `cheaper`: likewise, but a request with the dimensions of `alternative` would still run."""

    action: Literal["continue", "stop", "cheaper"]
    covered: tuple[Covered, ...] = ()
    alternative: Mapping[str, str] | None = None
    check: Decision | None = None  # how the extension of the hold was decided


class Released(Struct, frozen=True):
    """`was_open` false: it had been settled, released or reclaimed before."""

    was_open: bool
    as_of: AsOf | None = None


class AccountBalance(Struct, frozen=True):
    account: str
    balance: Balance
    recovering: bool = False  # from the last checkpoint: nobody speaks for the account yet
    as_of: AsOf | None = None


class DoorRoute(Struct, frozen=True):
    partition: int
    host: str
    port: int
    epoch: int


class RoutingTable(Struct, frozen=True):
    """Who owns what."""

    partitions: int
    routes: tuple[DoorRoute, ...]


class LeasedBound(Struct, frozen=True):
    """What the requests of a lease may use of these fields: one of them, and all together. No fields: they are counted."""

    fields: tuple[str, ...]
    up_to: Decimal
    granted: Decimal


class UnitCeiling(Struct, frozen=True):
    """The most that a unit of a price can cost under a lease; None: it comes in steps."""

    price: str
    meter: str
    fields: tuple[str, ...]
    unit: Decimal | None


class Lease(Struct, frozen=True):
    """Requests that its holder may decide alone, for `valid_for_s` from when they were asked for."""

    id: str
    token: str
    requests: int
    bounds: tuple[LeasedBound, ...]
    prices: tuple[UnitCeiling, ...]
    owner_decides: tuple[str, ...]  # scopes below the lease's whose requests must be checked one by one
    valid_for_s: float
    expires_in_s: float
    report_within_s: float


class LeaseDecision(Struct, frozen=True):
    """Whether there is a lease. `strict`: a request may still run, but each has to be checked."""

    allowed: bool
    reason: str | None = None
    transient: bool = False
    retry_after_s: float | None = None
    binding: Binding | None = None
    balance: Balance | None = None
    lease: Lease | None = None


class LeaseClosed(Struct, frozen=True):
    """`open`: what is left waits until as many events as were stated are rated."""

    open: bool
    events_rated: int | None = None
