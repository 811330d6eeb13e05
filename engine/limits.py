"""What binds checks and never rating (laws L1, L2): scopes and their standing, caps, rate limits, slices."""

from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from msgspec import Struct

from engine.bases import BASES, CHARGED
from engine.money import NANO
from engine.routes import Usage
from engine.windows import MONTH, REQUEST, Window

ROOT: Final = ""  # the scope that is the account itself
SCOPES_MAX: Final = 1_000  # declared scopes of one account
RATE_LIMITS_MAX: Final = 1_000  # of one account
TALLIES_MAX: Final = 100  # caps of one account that count for themselves: each looks at every event
PER_MINUTE_MAX: Final = 1_000_000
UNITS_PER_MINUTE_MAX: Final = 10**15
LISTS_MAX: Final = 16  # allow-lists of one scope
LISTED_MAX: Final = 1_000  # values in one of them
BEYOND_OWED: Final = "owed"
BEYOND_WAIVED: Final = "waived"
STANDINGS: Final = ("active", "past_due", "suspended")


def own_count(rule: str) -> str:
    """The name of what a rule counts for itself: a soft cap that nobody can name, as names hold no NUL."""
    return "\x00" + rule


class Cap(Struct, frozen=True):
    """At most `amount` in a window, in a scope and all below it: of spend, or of the units of a meter or of a price."""

    cap: str
    amount: int  # pico, or nano-units
    scope: str = ROOT
    hard: bool = True  # a soft one denies nothing; rules may still watch it
    window: Window = MONTH
    meter: str | None = None
    price: str | None = None
    since: int = -1  # offset of the record from which on it counts for itself
    basis: str = CHARGED  # one of BASES; all but this are of an account's month, where they are known without counting
    waives: bool = False  # what is spent beyond it is not owed

    @property
    def basis_fits(self) -> bool:
        """Whether what it counts is known: of a scope, or of another window, only what is charged is."""
        of_month = self.is_plain and self.scope == ROOT
        return self.basis == CHARGED or (self.basis in BASES and of_month)

    @property
    def may_waive(self) -> bool:
        """Whether what is spent beyond it could be waived: of an account's month of charges."""
        return self.is_plain and self.scope == ROOT and self.basis == CHARGED

    @property
    def is_own(self) -> bool:
        """Whether it is a rule's own count, and nobody else's concern."""
        return self.cap.startswith("\x00")

    @property
    def in_money(self) -> bool:
        """Whether it counts spend."""
        return self.meter is None and self.price is None

    @property
    def is_plain(self) -> bool:
        """Whether it is on a month's spend, which is known anyway."""
        return self.in_money and self.window == MONTH

    @property
    def per_request(self) -> bool:
        """Whether it binds each request by itself: nothing counts in it."""
        return self.window.kind == REQUEST

    @property
    def tallied(self) -> bool:
        """Whether it counts for itself, from the record on that set it."""
        return not self.is_plain and not self.per_request

    @property
    def unit(self) -> str:
        """What its amounts count; "" is money."""
        return self.meter or self.price or ""

    def counts_alike(self, other: "Cap") -> bool:
        """Whether what one has counted is what the other would have."""
        mine = (self.scope, self.window, self.meter, self.price, self.basis)
        return mine == (other.scope, other.window, other.meter, other.price, other.basis)

    def takes(self, price: str, meter: str) -> bool:
        """Whether units of this price, which is one of this meter's, count."""
        return meter == self.meter or price == self.price

    def counted(self, usages: Iterable[Usage], scopes: tuple[str, ...], charge: int) -> int | None:
        """What it counts of an event in these scopes: pico or nano-units; None: the event is none of it."""
        if self.scope != ROOT and self.scope not in scopes:
            return None
        if self.in_money:
            return charge
        quantities = [quantity for price, _, quantity in usages if self.takes(price.name, price.meter)]
        return sum(quantities) if quantities else None


class Scope(Struct):
    """A declared scope. The root's spend is derived, not kept here (README, "Scopes")."""

    standing: str = STANDINGS[0]
    spend: dict[int, int] = {}  # calendar month start -> pico
    since: int = -1  # offset of the record that declared it
    allowed: dict[str, tuple[str, ...]] = {}  # field of an event -> the only values of it that checks admit here


class RateLimit(Struct, frozen=True):
    """At most `per_minute` admissions, or admitted whole units of a meter, in any minute, in a scope and all below it."""

    limit: str
    scope: str
    per_minute: int
    meter: str | None = None

    @property
    def most(self) -> int:
        """Admissions, or nano-units."""
        return self.per_minute if self.meter is None else self.per_minute * NANO


class Slice(Struct):
    """What the owner of an epoch may have in open holds: nano-units per price (README, "Slices")."""

    quantities: dict[str, int]
    linger_us: int
    closed_us: int | None = None  # log time of the `owner` record that raised the epoch

    @property
    def ends_us(self) -> int | None:
        """Log time from which nothing of it can be reported any more; None while its owner is in office."""
        return None if self.closed_us is None else self.closed_us + self.linger_us


@lru_cache(16_384)
def scope_path(scope: str) -> tuple[str, ...]:
    """The scopes that a path lies in, from the root to itself."""
    if scope == ROOT:
        return (ROOT,)
    parts = scope.split("/")
    return (ROOT, *("/".join(parts[: count + 1]) for count in range(len(parts))))
