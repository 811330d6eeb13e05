"""What the fold keeps of accounts and partitions, and what it says of them in the end."""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple, TypedDict

from loadtest.oracle.aggregates import Known, Reading
from loadtest.oracle.corrections import Correction, Revision
from loadtest.oracle.credit import Adjusted, Amounts, Lot
from loadtest.oracle.limits import Cap
from loadtest.oracle.periods import period_around
from loadtest.oracle.prices import Allowance, Ladder, Place, Price
from loadtest.oracle.sessions import Heard, Session


class Rated(NamedTuple):
    """One rated event: whose it is, and per price its quantity (nano) and charge (pico)."""

    account: str
    source: str
    id: str
    prices: dict[str, tuple[int, int]]


class Alert(TypedDict):
    """One crossing or recovery, and the record that caused it. `window` is text, as it enters the alert id."""

    account: str
    rule: str
    window: str
    ordinal: int
    phase: str
    partition: int
    offset: int


class LotStanding(NamedTuple):
    """granted + refunded = burnt + voided + expired + carried + remaining, in pico."""

    granted: int
    burnt: int
    expired: int
    remaining: int
    refunded: int = 0
    voided: int = 0
    carried: int = 0


@dataclass(frozen=True)
class OracleAccount:
    """What an account has come to. Quantities in nano, money in pico, keys that are times in microseconds."""

    plan: str
    currency: str
    counters: dict[tuple[int, str, tuple[str, ...]], int]  # (period start, price, cell)
    amounts: dict[tuple[int, str], int]  # (period start, price)
    lots: dict[str, LotStanding]
    debt: int
    balance: int
    spend: dict[int, int]  # calendar month start
    scopes: dict[str, dict[int, int]]  # declared scope below the root -> calendar month start -> spend
    due: int = 0  # of the debt, what is of closed periods of an account that pays behind what it uses
    # (segment of posting, closed period's start) -> price -> pico
    adjusted: dict[tuple[int, int], dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """`of` is a cap, a price or a lot; `length` how long before its expiry a lot is told of. `threshold` and `clear` are
    percents, pico or nano-units."""

    measure: str
    threshold: int
    clear: int
    down: bool = False
    of: str = ""
    length: int = 0


@dataclass
class Crossing:
    """The state of a rule in one window."""

    active: bool = False
    ordinal: int = 0


@dataclass(frozen=True)
class RatedEvent:
    """A rated event as it is kept: when, per price its cell and quantity, in which scopes it counts, and in which caps
    that count for themselves (by name, and the offset from which on each counts).

    What takes an event back is one of the same with its quantities below 0."""

    time_us: int
    parts: list[tuple[str, tuple[str, ...], int]]
    scopes: list[str]
    caps: list[tuple[str, int]]
    readings: list[tuple[str, tuple[str, ...], str, Reading]] = field(default_factory=list)  # price, cell, aggregation
    posted: tuple[int, int, int] | None = None  # its period was closed: segment of posting, period's start and end
    heard: list[Heard] = field(default_factory=list)  # of sessions, whose time is entered by itself
    is_back: bool = False  # its readings are taken back

    @property
    def cells(self) -> set[tuple[str, tuple[str, ...]]]:
        """(price, cell) of all that it counts in."""
        return {(price, cell) for price, cell, _ in self.parts} | {(price, cell) for price, cell, *_ in self.readings}

    @property
    def prices(self) -> set[str]:
        return {price for price, _ in self.cells}

    def taken_back(self, posted: tuple[int, int, int] | None) -> "RatedEvent":
        parts = [(price, cell, -units) for price, cell, units in self.parts]
        caps = self.caps if posted is None else []
        return RatedEvent(self.time_us, parts, self.scopes, caps, self.readings, posted, is_back=True)


@dataclass
class Recurring:
    """What is granted in each period; from `next` on it may be."""

    name: str
    every: str
    next: int
    kind: str
    amount: int
    priority: int
    scope: frozenset[str]
    pays_debt: bool
    expires: bool
    days: int | None
    rollover: tuple[int, int, int | None] | None


@dataclass(frozen=True)
class QuantityGrant:
    """Units of a price (nano) in the period of `begins`; behind `ends` its rest is gone."""

    name: str
    price: str
    units: int
    begins: int
    expires: int
    voided: int | None = None

    @property
    def boundaries(self) -> list[int]:
        return [self.begins, self.expires, self.ends]

    @property
    def ends(self) -> int:
        return self.expires if self.voided is None else min(self.expires, self.voided)


class Stream(NamedTuple):
    """What counts of a stream: the event with the highest seq."""

    seq: int
    billing: object
    until_us: int  # log time at which it is over
    revision: int  # how many have taken the place of another
    rated: RatedEvent
    hold: str | None


class TopUpTerms(NamedTuple):
    threshold: int
    amount: int
    cooldown: int
    attempts: int
    priority: int
    days: int | None


@dataclass
class TopUp:
    """What an account asks for when it has little, and what became of that."""

    terms: TopUpTerms | None = None
    requests: int = 0
    failed: int = 0  # the last ones, in a row
    since: int | None = None  # when the last one was made or answered
    open: TopUpTerms | None = None  # as they were when it was made
    is_low: bool = False


def told_id(account: str, rule: str, window: str, ordinal: int, phase: str) -> str:
    """By which an alert, or a request for credit, is known."""
    text = "\0".join((account, rule, window, str(ordinal), phase))
    prefix = "topup_" if phase == "requested" else "alert_"
    return prefix + hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]


class Agreed(NamedTuple):
    """A price that an account pays from an instant on; None: the plan's own again."""

    start: int
    plan: str
    price: str
    terms: Price | None


@dataclass(frozen=True)
class ManualLine:
    """What somebody charged (or, below 0, gave back), at an instant of log time, for the period of another."""

    at_us: int
    used_us: int
    price: str
    amount: int
    rerated: tuple[int, int, int] | None = None  # it is what a version makes of usage of these segments: from, to


@dataclass(frozen=True)
class Due:
    """What a period that closed at an instant of log time owes besides its usage."""

    at_us: int
    period: int
    name: str  # what it is, a NUL, and of which price
    amount: int


Least = dict[str, tuple[int, list[str]]]  # as posted -> the least pico that a period owes, and for which prices


class Waiver(NamedTuple):
    """What a month owes at most, from the start of a billing period on."""

    start: int
    cap: str
    amount: int | None  # None: all


@dataclass
class Account:
    account: str
    first_plan: str
    currency: str
    zone: str
    anchor: int
    opened: int
    woken: int
    dues: list[Due] = field(default_factory=list)
    events: list[RatedEvent] = field(default_factory=list)
    rated: int = 0  # events and corrections
    parked: dict[Revision, Correction] = field(default_factory=dict)  # by what they wait for
    newest_us: int | None = None
    lines: dict[str, ManualLine] = field(default_factory=dict)
    lots: list[Lot] = field(default_factory=list)  # in the order in which they pay
    caps: dict[str, Cap] = field(default_factory=dict)
    scopes: dict[str, dict[int, int]] = field(default_factory=dict)  # below the root: spend by month
    rate_limits: set[str] = field(default_factory=set)
    allowed: dict[str, set[str]] = field(default_factory=dict)  # by scope: fields that have a list
    rules: dict[str, Rule] = field(default_factory=dict)
    counts: dict[str, Cap] = field(default_factory=dict)  # by rule, of those that count for themselves
    crossings: dict[tuple[str, str], Crossing] = field(default_factory=dict)
    phases: list[tuple[int, str]] = field(default_factory=list)  # from when on which plan, ascending
    pauses: dict[int, bool] = field(default_factory=dict)  # from when on it is paused, or is not
    seats: dict[tuple[int, str], int] = field(default_factory=dict)  # from when on there are so many of a name
    agreed: list[Agreed] = field(default_factory=list)
    released: list[str] = field(default_factory=list)  # rules that look at something else from the command at hand on
    table: "Table | None" = None
    sessions: dict[tuple[str, str], Session] = field(default_factory=dict)  # by meter and id
    known: dict[tuple[int, str, tuple[str, ...]], Known] = field(default_factory=dict)  # by segment, price and cell
    top_up: TopUp = field(default_factory=TopUp)
    recurring: dict[str, Recurring] = field(default_factory=dict)
    quantity_grants: dict[str, QuantityGrant] = field(default_factory=dict)
    streams: dict[tuple[str, str, str], Stream] = field(default_factory=dict)  # by type, source and id
    postpaid: bool = False
    waivers: list[Waiver] = field(default_factory=list)  # in order of time
    # What follows from what is sold alone, kept for as long as nothing else is.
    priced: dict[tuple[str, int], Price] = field(default_factory=dict)  # by name and instant
    closings: list[tuple[int, int]] = field(
        default_factory=list
    )  # when it closes, and its start, of periods from the first
    least: dict[int, Least] = field(default_factory=dict)  # by a period's start

    def sell(self, *, phases: list[tuple[int, str]] | None = None, agreed: list[Agreed] | None = None) -> None:
        """From now on something else is sold: other plans, prices agreed with it, or what a new version says."""
        self.phases = self.phases if phases is None else phases
        self.agreed = self.agreed if agreed is None else agreed
        self.table = None
        self.priced.clear()
        self.closings.clear()
        self.least.clear()

    def awaits(self, lot: str) -> bool:
        """Whether a lot of this id is to come: of a recurring grant, or of a request that is open."""
        if any(lot.startswith(f"{name}@") and "@" not in lot[len(name) + 1 :] for name in self.recurring):
            return True
        request = told_id(self.account, "top_up", "request", self.top_up.requests, "requested")
        return self.top_up.open is not None and lot == request

    @property
    def counting(self) -> dict[str, Cap]:
        """All that count for themselves; what a rule does, under its name behind a NUL, which no cap's name has."""
        counts = self.caps | {f"\0{rule}": count for rule, count in self.counts.items()}
        return {name: count for name, count in counts.items() if count.counts}

    @property
    def plan(self) -> str:
        """The plan of the newest moment at which the account was woken."""
        return self.plan_at(self.woken)

    def plan_at(self, time_us: int) -> str:
        return [self.first_plan, *(plan for start, plan in self.phases if start <= time_us)][-1]

    def unpaused(self, time_us: int) -> int | None:
        """The first instant from there on at which it is not paused, as far as somebody has said."""
        if not [False, *(paused for start, paused in sorted(self.pauses.items()) if start <= time_us)][-1]:
            return time_us
        return min((start for start, paused in self.pauses.items() if start > time_us and not paused), default=None)

    def period(self, time_us: int) -> tuple[int, int, int]:
        """The billing period of an instant: its start, how long it is, and how long it would be if no phase cut it."""
        start, end = period_around(self.zone, self.anchor, time_us)
        if not self.phases:
            return start, end - start, end - start
        starts = [start, *(each for each, _ in self.phases if start < each <= time_us)]
        ends = [end, *(each for each, _ in self.phases if time_us < each < end)]
        return max(starts), min(ends) - max(starts), end - start

    def period_of(self, time_us: int) -> int:
        return self.period(time_us)[0] if self.phases else period_around(self.zone, self.anchor, time_us)[0]


@dataclass
class Table:
    """What follows from an account's events; kept between events in the quick mode only."""

    quantities: dict[tuple[int, str], dict[int, int]] = field(default_factory=dict)  # (period, price) -> segment
    amounts: Amounts = field(default_factory=dict)
    cells: set[tuple[int, str, tuple[str, ...]]] = field(default_factory=set)  # (segment, price, cell)
    whole: dict[tuple[int, str], dict[int, int]] = field(default_factory=dict)  # quantities with what came too late
    adjusted: Adjusted = field(default_factory=dict)
    # By period and price: what it shares with others, and where its units lay in that last.
    shared: dict[tuple[int, str], Allowance | Ladder | None] = field(default_factory=dict, compare=False)
    places: dict[tuple[int, str], Place] = field(default_factory=dict, compare=False)

    def total(self, period: int, price: str) -> int:
        """A of the whole period, in pico, as far as it was on time."""
        return sum(self.amounts[segment][price] for segment in self.quantities.get((period, price), {}))


class Partition:
    """The fold over one partition of the log."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.offset = -1
        self.log_us = 0
        self.epoch = 0
        self.accounts: dict[str, Account] = {}
        self.versions: list[tuple[int, int]] = []  # (version, effective), ascending versions
        # (account, source, id, revision; -1: cancelled) -> (bucket, billing fields, what was rated)
        self.identities: dict[tuple[str, str, str, int], tuple[int, object, RatedEvent]] = {}
        self.commands: dict[tuple[str, str], tuple[int, bytes]] = {}  # -> (log time, hash of the body)
        self.wakes: list[tuple[int, str]] = []
        self.outcomes: Counter[str] = Counter()
