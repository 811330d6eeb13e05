"""Why a check is refused, and the limit that an answer names. The wire names live here."""

from enum import StrEnum
from typing import Final

from msgspec import Struct


class Reason(StrEnum):
    """Why a check is refused, in the order in which the reasons are tested. The wire names are stable."""

    RECOVERING = "recovering"  # answered by the shard
    UNKNOWN_ACCOUNT = "unknown_account"
    UNKNOWN_SCOPE = "unknown_scope"
    SUSPENDED = "suspended"
    PAST_DUE = "past_due"
    PAUSED = "paused"
    FEATURE_NOT_ENTITLED = "feature_not_entitled"
    NO_METER = "no_meter"
    MODEL_NOT_ENTITLED = "model_not_entitled"
    UNBOUNDED = "unbounded"
    RATE_LIMITED = "rate_limited"
    TOO_MANY_HOLDS = "too_many_holds"
    TOO_MANY_LEASES = "too_many_leases"
    OVER_CEILING = "over_ceiling"
    CAP_REACHED = "cap_reached"
    CREDIT_DEPLETED = "credit_depleted"
    WITHHELD = "withheld"
    STRICT = "strict"  # of leases: a request may run, if the owner is asked for it
    HOLD_NOT_OPEN = "hold_not_open"  # of extensions
    BOUNDARY_PASSED = "boundary_passed"  # of extensions


TRANSIENT: Final = frozenset(
    {
        *(Reason.RECOVERING, Reason.RATE_LIMITED, Reason.TOO_MANY_HOLDS, Reason.TOO_MANY_LEASES, Reason.CAP_REACHED),
        *(Reason.WITHHELD, Reason.STRICT),
    }
)


class Binding(Struct, frozen=True):
    """The limit that refused, or that has the least left. `remaining` is pico for wallet and cap, nano-units for what has
    a unit, else a count."""

    # "wallet", "cap", "rate", "holds", "leases", "standing", "scope", "feature", "meter", "bound", "slice", "hold", "list"
    kind: str
    scope: str
    name: str
    remaining: int | None
    frees_in_us: int | None
    unit: str = ""  # the meter or price whose units a cap or a rate counts
