"""What binds checks and never rating (laws L1, L2): scopes and their standing, caps, rate limits, slices."""

from typing import Final

from msgspec import Struct

ROOT: Final = ""  # the scope that is the account itself
SCOPES_MAX: Final = 1_000  # declared scopes of one account
RATE_LIMITS_MAX: Final = 1_000  # of one account
PER_MINUTE_MAX: Final = 1_000_000
STANDINGS: Final = ("active", "past_due", "suspended")


class Cap(Struct, frozen=True):
    """At most `amount` of spend in a calendar month of the account's zone, in a scope and all below it."""

    cap: str
    amount: int  # pico
    scope: str = ROOT
    hard: bool = True  # a soft one denies nothing; rules may still watch it

    def reached(self, percent: int) -> int:
        """The smallest spend, in pico, that is at least `percent` of the cap."""
        return -(-self.amount * percent // 100)


class Scope(Struct):
    """A declared scope. The root's spend is derived, not kept here (README, "Scopes")."""

    standing: str = STANDINGS[0]
    spend: dict[int, int] = {}  # calendar month start -> pico
    since: int = -1  # offset of the record that declared it


class RateLimit(Struct, frozen=True):
    """At most `per_minute` admissions in any minute, in a scope and all below it."""

    limit: str
    scope: str
    per_minute: int


class Slice(Struct):
    """What the owner of an epoch may have in open holds: nano-units per price (README, "Slices")."""

    quantities: dict[str, int]
    linger_us: int
    closed_us: int | None = None  # log time of the `owner` record that raised the epoch

    @property
    def ends_us(self) -> int | None:
        """Log time from which nothing of it can be reported any more; None while its owner is in office."""
        return None if self.closed_us is None else self.closed_us + self.linger_us


def scope_path(scope: str) -> tuple[str, ...]:
    """The scopes that a path lies in, from the root to itself."""
    if scope == ROOT:
        return (ROOT,)
    parts = scope.split("/")
    return (ROOT, *("/".join(parts[: count + 1]) for count in range(len(parts))))
