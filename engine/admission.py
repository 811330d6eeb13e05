"""May this request run? Checks and holds, decided by the owner of a partition (README, "Holds").

Soft: nothing here is read when rating, and nothing here survives the owner. What must survive is in the log, as
slices; what a hold needs to settle is in its token.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from msgspec import Struct

from engine.account import Account
from engine.catalog import PriceBook
from engine.holds import Hold

HOLDS_MAX: Final = 10_000  # open holds of one account


class Reason(StrEnum):
    """Why a check is refused, in the order in which the reasons are tested. The wire names are stable."""

    RECOVERING = "recovering"  # answered by the shard
    UNKNOWN_ACCOUNT = "unknown_account"
    UNKNOWN_SCOPE = "unknown_scope"
    SUSPENDED = "suspended"
    PAST_DUE = "past_due"
    FEATURE_NOT_ENTITLED = "feature_not_entitled"
    NO_METER = "no_meter"
    MODEL_NOT_ENTITLED = "model_not_entitled"
    UNBOUNDED = "unbounded"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_HOLDS = "too_many_holds"
    CAP_REACHED = "cap_reached"
    CREDIT_DEPLETED = "credit_depleted"
    WITHHELD = "withheld"


TRANSIENT: Final = frozenset(
    {Reason.RECOVERING, Reason.RATE_LIMITED, Reason.TOO_MANY_HOLDS, Reason.CAP_REACHED, Reason.WITHHELD}
)


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


class Binding(Struct, frozen=True):
    """The limit that refused, or that has the least left. `remaining` is pico for wallet and cap, a count for a rate."""

    kind: str  # "wallet", "cap", "rate", "standing", "feature", "slice"
    scope: str
    name: str
    remaining: int | None
    frees_in_us: int | None


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
    feature: bool | str | None  # the plan's value of the feature asked for
    hold: Hold | None

    @property
    def allowed(self) -> bool:
        return self.reason is None


class SliceNeeded(Struct, frozen=True):
    """Admitted, but the slice does not cover it yet: put these whole slices into the log, then ask again."""

    account: str
    quantities: Mapping[str, int]  # nano-units per price


class Desk:
    """The owner's memory of open holds and admissions, for one partition."""

    def __init__(self, partition: int) -> None:
        self.partition = partition
        self.epoch = 0  # of the owner that answers here; slices of a lower one are someone else's
        self.report_delay_us = 60_000_000  # how long after a hold's expiry its usage may still reach the log

    def begin(self, epoch: int) -> None:
        """Answer from now on as the owner of this epoch; what was held under another is left to its slices."""
        raise NotImplementedError

    def check(
        self, account: Account | None, book: PriceBook, question: Question, now_us: int
    ) -> Decision | SliceNeeded:
        """Decide, and reserve if a hold is asked for and admitted."""
        raise NotImplementedError

    def extend(
        self,
        account: Account | None,
        book: PriceBook,
        hold: Hold,
        bounds: tuple[FieldBound, ...],
        hold_us: int,
        now_us: int,
    ) -> Decision | SliceNeeded:
        """Admit more into an open hold (bounds may be empty: only its time is extended)."""
        raise NotImplementedError

    def release(self, hold: Hold) -> bool:
        """The holder asserts that nothing was used (or nothing more). False: the hold is not open here (any more)."""
        raise NotImplementedError

    def wallet(self, account: Account, now_us: int) -> Wallet:
        """Booked, held and available at this moment."""
        raise NotImplementedError

    def settled(self, hold: Hold, used: Mapping[str, int], final: bool) -> None:
        """An event that names the hold was rated: nano-units per price. Called by the fold."""
        raise NotImplementedError

    def reclaim(self, log_time_us: int, now_us: int) -> int:
        """Free the holds whose report_until both clocks have passed; how many."""
        raise NotImplementedError

    def next_reclaim_us(self) -> int | None:
        """When log time should have moved on for a hold to be reclaimed."""
        raise NotImplementedError

    def slices_wished(self, now_us: int) -> list[SliceNeeded]:
        """Slices to put into the log although nobody waits for them: refilled ahead, or given back (no quantities)."""
        raise NotImplementedError

    @property
    def open_holds(self) -> int:
        raise NotImplementedError
