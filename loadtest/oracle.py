"""A second, slow and obvious implementation of the rating core, to check the first one with.

It folds the same log by the same text (`engine/README.md`) and imports nothing of the product: a mistake would
have to be made twice, independently, to go unseen. Where the engine keeps aggregates and guards, the oracle keeps
every rated event and derives. Money is exact until the one rounding the law names: until then it is counted in
grains, parts of a pico so small that every price of every catalogue is a whole number of them.

What the quick mode remembers between events is one table per account, (period, price) -> segment -> quantity, and
the amounts that follow from it; any grant or catalogue throws it away. `paranoid=True` derives everything from
the raw events each time and compares it with the table.

Times are microseconds since 1970 UTC, money pico-units (10^-12), quantities nano-units (10^-9), all integers.
"""

import base64
import hashlib
import hmac
import importlib.resources
import json
import re
from bisect import bisect_right, insort
from calendar import monthrange
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Any, NamedTuple, TypedDict, TypeGuard
from zoneinfo import ZoneInfo

SECOND_US = 1_000_000
DAY_US = 86_400 * SECOND_US
SKEW_US = 300 * SECOND_US
WINDOW_US = 35 * DAY_US
YEAR_US = 31_556_952 * SECOND_US  # on average
BUCKET_US = 7 * DAY_US
COMMAND_MEMORY_US = 30 * DAY_US
WHOLE_DIGITS_READ_MAX = 4300
LOT_INSTANT_MAX_US = 2**60

VALUE_BYTES_MAX = 65_536
KEY_BYTES_MAX = 256
TEXT_CHARACTERS_MAX = 256
DIMENSION_CHARACTERS_MAX = 128
DATA_FIELDS_MAX = 64
CELLS_MAX = 10_000
PERCENT_MAX = 1000
SCOPES_MAX = 1_000
RATE_LIMITS_MAX = 1_000
PER_MINUTE_MAX = 1_000_000
TOKEN_CHARACTERS_MAX = 4096
TOKEN_MAC_BYTES = 16
SLICES_MAX = 1_000
LINGER_US_MAX = DAY_US

CONTROL_PREFIX = b"TGC1"
MAC_BYTES = 32
LOT_KINDS = ("paid", "promo", "commit", "refund")
STANDINGS = ("active", "past_due", "suspended")
SCOPE = re.compile(r"[A-Za-z0-9._:@-]{1,64}(/[A-Za-z0-9._:@-]{1,64}){0,7}", re.ASCII)


# ---------------------------------------------------------------------------------------------------------- results


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
    """granted = burnt + expired + remaining, in pico."""

    granted: int
    burnt: int
    expired: int
    remaining: int


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


# ------------------------------------------------------------------------------------------------- small readings


def murmur2(data: bytes) -> int:
    """Kafka's 32-bit hash of a key, with the sign bit cleared."""
    multiplier, mask = 0x5BD1E995, 0xFFFFFFFF
    whole = len(data) - len(data) % 4
    result = 0x9747B28C ^ len(data)
    for start in range(0, whole, 4):
        word = int.from_bytes(data[start : start + 4], "little") * multiplier & mask
        word = (word ^ word >> 24) * multiplier & mask
        result = result * multiplier & mask ^ word
    if whole < len(data):
        result = (result ^ int.from_bytes(data[whole:], "little")) * multiplier & mask
    result = (result ^ result >> 13) * multiplier & mask
    return (result ^ result >> 15) & 0x7FFFFFFF


@lru_cache(maxsize=100_000)
def partition_of(key: bytes, partitions: int) -> int:
    """The partition of a key, as Kafka's default partitioner names it."""
    return murmur2(key) % partitions


class Number(str):
    """A JSON number as it was written."""


PLAIN_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?")
ANY_NUMBER = re.compile(r"(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?")


def fixed_point(text: str, digits: int) -> int | None:
    """`text` times 10 ** digits; None when it is not a plain number of at most 18 digits and `digits` decimals."""
    match = PLAIN_NUMBER.fullmatch(text)
    if match is None:
        return None
    sign, whole, decimals = match[1], match[2], match[3] or ""
    if len(whole) > 18 or len(decimals) > digits:
        return None
    value = int(whole + decimals.ljust(digits, "0"))
    return -value if sign else value


def pico_of(text: str) -> int | None:
    """An amount in pico-units, or None when it is not one."""
    return fixed_point(text, 12)


def refuse_constant(constant: str) -> None:
    raise ValueError(constant)


def whole_number(text: str) -> Number:
    if len(text.lstrip("-")) > WHOLE_DIGITS_READ_MAX:
        raise ValueError("a whole number without end")
    return Number(text)


JSON = json.JSONDecoder(parse_int=whole_number, parse_float=Number, parse_constant=refuse_constant)


def read_json(data: bytes) -> object:
    """A JSON document with its numbers as written. ValueError when it is not JSON, or holds what is no text."""

    text = data.decode("utf-8")
    try:
        document = JSON.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\ud" in text or "\\uD" in text:
        # An escaped half of a surrogate pair is no character: encoding the strings finds it.
        json.dumps(document, ensure_ascii=False).encode("utf-8")
    return document


def canonical(value: object) -> object:
    """The same for two JSON values exactly when they mean the same: 5 and 5.0, keys in any order."""
    if isinstance(value, dict):
        return ("object", tuple(sorted((name, canonical(item)) for name, item in value.items())))
    if isinstance(value, list):
        return ("array", tuple(canonical(item) for item in value))
    if isinstance(value, Number):
        match = ANY_NUMBER.fullmatch(value)
        if match is None or len(match[4] or "") > 20:
            return ("number", str(value))
        digits = (match[2] + (match[3] or "")).lstrip("0")
        exponent = int(match[4] or 0) - len(match[3] or "")
        exponent += len(digits) - len(digits.rstrip("0"))
        digits = digits.rstrip("0")
        return ("number", match[1] + digits + "e" + str(exponent)) if digits else ("number", "0")
    if isinstance(value, str):
        return ("text", value)
    return ("literal", repr(value))


RFC_3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[Tt ]([0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]+))?"
    r"(?:([Zz])|([+-])([0-9]{2}):([0-9]{2}))"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
WALL_EPOCH = EPOCH.replace(tzinfo=None)  # wall clocks are compared and subtracted without a zone


def time_us_of(text: str) -> int | None:
    """An RFC 3339 time in microseconds (further digits are cut off), or None when it is not one."""
    match = RFC_3339.fullmatch(text)
    if match is None:
        return None
    day, clock, decimals, zulu, sign, hours, minutes = match.groups()
    try:
        local = datetime.fromisoformat(f"{day}T{clock}")
    except ValueError:
        return None
    value = (local - WALL_EPOCH) // timedelta(microseconds=1) + int((decimals or "").ljust(6, "0")[:6])
    if zulu:
        return value
    if int(hours) > 23 or int(minutes) > 59:
        return None
    shift = (int(hours) * 3600 + int(minutes) * 60) * SECOND_US
    return value - shift if sign == "+" else value + shift


# ---------------------------------------------------------------------------------------------------------- periods


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The zones of the pinned `tzdata` package; the host's own files are never read."""
    return frozenset(importlib.resources.files("tzdata").joinpath("zones").read_text().split())


@lru_cache(maxsize=1000)
def zone_of(name: str) -> ZoneInfo:
    with importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as data:
        return ZoneInfo.from_file(data, key=name)


def local_time(zone: str, time_us: int) -> datetime:
    """The wall clock of the zone, without a zone attached, so that it compares as a wall clock."""
    return (EPOCH + timedelta(microseconds=time_us)).astimezone(zone_of(zone)).replace(tzinfo=None)


@lru_cache(maxsize=100_000)
def period_start_us(zone: str, anchor: int, year: int, month: int) -> int:
    """The first instant at or after local midnight of the anchor day of that month."""
    day = min(anchor, monthrange(year, month)[1])
    midnight = datetime(year, month, day, tzinfo=UTC).replace(tzinfo=None)
    instants = []
    for fold in (0, 1):
        offset = midnight.replace(tzinfo=zone_of(zone), fold=fold).utcoffset()
        assert offset is not None
        instants.append((midnight - offset - WALL_EPOCH) // timedelta(microseconds=1))
    first, second = instants
    if local_time(zone, first) == midnight:
        return first  # fold 0 is the earlier of two
    # In a gap the two readings enclose the jump: find the first instant whose wall clock is past midnight.
    low, high = min(first, second), max(first, second)
    while low < high:
        middle = (low + high) // 2
        if local_time(zone, middle) >= midnight:
            high = middle
        else:
            low = middle + 1
    return low


@lru_cache(maxsize=100_000)
def period_starts(zone: str, anchor: int, year: int) -> list[int]:
    """The starts of the year, and of two months before and one after it: its first and last days may be meant of
    another, by the zone or by `YEAR_US`."""
    months = range(year * 12 - 2, year * 12 + 13)
    return [period_start_us(zone, anchor, month // 12, month % 12 + 1) for month in months]


def period_of(zone: str, anchor: int, time_us: int) -> int:
    """The start of the period that an instant lies in: the latest start that is not after it."""
    starts = period_starts(zone, anchor, 1970 + time_us // YEAR_US)
    return starts[bisect_right(starts, time_us) - 1]


# -------------------------------------------------------------------------------------------------------- catalogue


@dataclass(frozen=True)
class Tier:
    up_to: int | None  # nano; None: open
    pico: int  # for `per` nano-units, in lowest terms
    per: int


@dataclass(frozen=True)
class Price:
    name: str
    meter: str
    where: dict[str, str]
    tiers: list[Tier]  # per_unit is one open tier

    def owed(self, quantity: int, grains: int) -> int:
        """What `quantity` nano-units of a period owe, exactly, where a pico has so many grains."""
        total, floor = 0, 0
        for tier in self.tiers:
            top = quantity if tier.up_to is None else min(quantity, tier.up_to)
            if top > floor:
                total += tier.pico * (grains // tier.per) * (top - floor)
                floor = top
        return total


def half_even(owed: int, grains: int) -> int:
    """The nearest whole pico; of two equally near, the even one."""
    pico, rest = divmod(owed, grains)
    return pico + 1 if 2 * rest > grains or (2 * rest == grains and pico % 2) else pico


@dataclass(frozen=True)
class Meter:
    name: str
    event_type: str
    field: str | None  # None: a count
    group_by: list[str]


@dataclass(frozen=True)
class Plan:
    currency: str
    prices: dict[str, Price]


class Version:
    """One numbered catalogue."""

    def __init__(self, number: int, document: Mapping[str, Any]) -> None:
        self.number = number
        self.meters = [
            Meter(name, body["event_type"], body["field"] if body["aggregation"] == "sum" else None, body["group_by"])
            for name, body in sorted(document["meters"].items())
        ]
        self.plans = {
            name: Plan(body["currency"], {price: read_price(price, text) for price, text in body["prices"].items()})
            for name, body in document["plans"].items()
        }
        tiers = [tier for plan in self.plans.values() for price in plan.prices.values() for tier in price.tiers]
        self.grains = lcm(*(tier.per for tier in tiers))  # of a pico: every rate is a whole number of them
        self._found: dict[tuple[str, str, tuple[str, ...]], Price | None] = {}

    def price_of(self, plan: str, meter: Meter, cell: tuple[str, ...]) -> Price | None:
        asked = (plan, meter.name, cell)
        if asked not in self._found:
            self._found[asked] = self._price_of(plan, meter, cell)
        return self._found[asked]

    def _price_of(self, plan: str, meter: Meter, cell: tuple[str, ...]) -> Price | None:
        values = dict(zip(meter.group_by, cell, strict=True))
        if plan in self.plans:
            for price in self.plans[plan].prices.values():
                if price.meter == meter.name and all(values.get(name) == want for name, want in price.where.items()):
                    return price
        return None


@lru_cache(maxsize=10_000)
def rate_of(amount: str, per: str) -> Fraction:
    """Pico per nano-unit: amount / per, times 10^12 / 10^9."""
    return Fraction(amount) / Fraction(per) * 1000


def read_price(name: str, body: Mapping[str, Any]) -> Price:
    """A price of a catalogue document."""

    def tier(up_to: str | None, part: Mapping[str, Any]) -> Tier:
        rate = rate_of(part["amount"], part["per"])
        return Tier(None if up_to is None else fixed_point(up_to, 9), rate.numerator, rate.denominator)

    if body["model"] == "per_unit":
        return Price(name, body["meter"], dict(body["where"]), [tier(None, body)])
    return Price(name, body["meter"], dict(body["where"]), [tier(part["up_to"], part) for part in body["tiers"]])


# ----------------------------------------------------------------------------------------------------------- credit


@dataclass(frozen=True)
class Lot:
    lot: str
    kind: str
    granted: int
    priority: int
    effective: int
    expires: int | None
    scope: frozenset[str]

    def valid(self, instant: int) -> bool:
        return self.effective <= instant and (self.expires is None or instant < self.expires)

    def may_pay(self, price: str) -> bool:
        return not self.scope or price in self.scope

    def order(self) -> tuple[int, bool, int, int, str]:
        return (self.priority, self.expires is None, self.expires or 0, self.effective, self.lot)


Amounts = dict[int, dict[str, int]]  # segment start -> price -> pico


def allocate(amounts: Amounts, lots: list[Lot], woken: int) -> tuple[dict[str, int], dict[int, int]]:
    """(what is burnt per lot, the debt per segment). `lots` come in the order in which they pay."""
    left = {lot.lot: lot.granted for lot in lots}
    debts: dict[int, int] = {}

    def pay(lot: Lot, due: int) -> int:
        paid = min(left[lot.lot], due)
        left[lot.lot] -= paid
        return due - paid

    settling = [lot for lot in lots if lot.kind == "paid" and lot.effective <= woken]
    for instant in sorted({*amounts, *(lot.effective for lot in settling)}):
        for lot in settling:
            if lot.effective == instant:
                for segment in sorted(debts):
                    debts[segment] = pay(lot, debts[segment])
        if instant not in amounts:
            continue
        classes: dict[tuple[str, ...], int] = {}
        valid = [lot for lot in lots if lot.valid(instant)]
        for price, amount in amounts[instant].items():
            payers = tuple(lot.lot for lot in valid if lot.may_pay(price))
            classes[payers] = classes.get(payers, 0) + amount
        for payers in sorted(classes, key=lambda payers: (len(payers), sorted(payers))):
            due = classes[payers]
            for lot in valid:
                if lot.lot in payers:
                    due = pay(lot, due)
            if due:
                debts[instant] = debts.get(instant, 0) + due
    return {lot.lot: lot.granted - left[lot.lot] for lot in lots}, debts


# --------------------------------------------------------------------------------------------------------- accounts


@dataclass(frozen=True)
class Rule:
    measure: str  # cap_percent, balance
    cap: str
    percent: int
    clear_percent: int
    threshold: int
    clear: int


@dataclass
class Crossing:
    """The state of a rule in one window."""

    active: bool = False
    ordinal: int = 0


@dataclass(frozen=True)
class RatedEvent:
    """A rated event as it is kept: when, and per price its cell and quantity."""

    time_us: int
    parts: list[tuple[str, tuple[str, ...], int]]
    scope: str


@dataclass
class Account:
    account: str
    plan: str
    currency: str
    zone: str
    anchor: int
    woken: int
    events: list[RatedEvent] = field(default_factory=list)
    newest_us: int | None = None
    lots: list[Lot] = field(default_factory=list)  # in the order in which they pay
    caps: dict[str, tuple[int, str]] = field(default_factory=dict)  # amount, scope
    scopes: dict[str, dict[int, int]] = field(default_factory=dict)  # below the root: spend by month
    rate_limits: set[str] = field(default_factory=set)
    rules: dict[str, Rule] = field(default_factory=dict)
    crossings: dict[tuple[str, str], Crossing] = field(default_factory=dict)
    table: "Table | None" = None


@dataclass
class Table:
    """What follows from an account's events; kept between events in the quick mode only."""

    quantities: dict[tuple[int, str], dict[int, int]] = field(default_factory=dict)  # (period, price) -> segment
    amounts: Amounts = field(default_factory=dict)
    cells: set[tuple[int, str, tuple[str, ...]]] = field(default_factory=set)  # (segment, price, cell)

    def total(self, period: int, price: str) -> int:
        """A of the whole period, in pico."""
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
        self.identities: dict[tuple[str, str, str], tuple[int, object]] = {}  # -> (bucket, billing fields)
        self.commands: dict[tuple[str, str], tuple[int, bytes]] = {}  # -> (log time, hash of the body)
        self.wakes: list[tuple[int, str]] = []
        self.outcomes: Counter[str] = Counter()


class DeadLetterError(Exception):
    """The record is not applied; the message is the reason's wire name."""


class RefusedError(Exception):
    """The command is not applied; the message is the reason's wire name."""


class HoldToken(NamedTuple):
    """What the token of a hold says, as far as it can be held against the log."""

    account: str
    scope: str
    id: str
    epoch: int
    number: int  # ascending within an epoch
    admitted: int
    held: dict[str, int]  # price -> nano


def read_hold(control_key: bytes, token: str) -> HoldToken:
    """ValueError, LookupError or TypeError when this deployment has not sealed it."""
    sealed = base64.b64decode(token + "=" * (-len(token) % 4), altchars="-_", validate=True)
    mac, body = sealed[:TOKEN_MAC_BYTES], sealed[TOKEN_MAC_BYTES:]
    message = b"tallygate hold\0" + body
    if not hmac.compare_digest(mac, hmac.digest(control_key, message, "sha256")[:TOKEN_MAC_BYTES]):
        raise ValueError("not sealed here")
    version, hold = json.loads(body)
    if version != 1:
        raise ValueError(f"version {version}")
    account, scope, partition, epoch, number, admitted = hold[:6]
    held: dict[str, int] = {}
    for quantity, _, prices in hold[10]:
        for price in prices:
            held[price] = held.get(price, 0) + int(quantity)
    return HoldToken(account, scope, f"{partition}.{epoch}.{number}", int(epoch), int(number), int(admitted), held)


# ----------------------------------------------------------------------------------------------------------- oracle


class Oracle:
    """Feed it the log, partition by partition in offset order, then read what should have come of it.

    `catalogues` holds the JSON document of each version; the log's markers say from when each is in force."""

    def __init__(
        self,
        catalogues: Mapping[int, Mapping[str, Any]],
        control_key: bytes,
        topic: str,
        partitions: int,
        paranoid: bool = False,
    ) -> None:
        self._versions = {number: Version(number, document) for number, document in catalogues.items()}
        self._grains = lcm(*(version.grains for version in self._versions.values()))
        self._control_key = control_key
        self._topic = topic
        self._partition_count = partitions
        self._paranoid = paranoid
        self._partitions = {number: Partition(number) for number in range(partitions)}
        self.rated: dict[tuple[int, int], Rated] = {}
        self.alerts: dict[str, Alert] = {}

    # ---- results

    @property
    def outcomes(self) -> dict[int, Counter[str]]:
        """Per partition, how many records came to what: `rated`, `duplicate`, `forwarded`, `dead_lettered.<reason>`,
        `applied`, `repeated`, `refused.<reason>`, `tick`, `void`, `owner`, `catalogue`."""
        return {number: partition.outcomes for number, partition in self._partitions.items()}

    @property
    def accounts(self) -> dict[str, OracleAccount]:
        """Every open account, derived from its raw events now."""
        return {
            name: self._standing(partition, account)
            for partition in self._partitions.values()
            for name, account in partition.accounts.items()
        }

    def state(self, partition: int) -> Partition:
        """All that the fold over a partition has come to."""
        return self._partitions[partition]

    def segments(self, partition: int, account: "Account") -> dict[int, Counter[tuple[str, tuple[str, ...]]]]:
        """Segment start -> (price, cell) -> quantity, from the account's raw events."""
        state = self._partitions[partition]
        table: dict[int, Counter[tuple[str, tuple[str, ...]]]] = {}
        for event in account.events:
            row = table.setdefault(self._segment_of(state, account, event.time_us), Counter())
            for price, cell, quantity in event.parts:
                row[price, cell] += quantity
        return table

    def balance(self, name: str) -> int | None:
        """One account's balance as of the last record fed; None while it is not open."""
        for state in self._partitions.values():
            if name in state.accounts:
                account = state.accounts[name]
                return self._balance(account, self._table(state, account))
        return None

    def _standing(self, partition: Partition, account: Account) -> OracleAccount:
        table = self._derive(partition, account)
        counters: Counter[tuple[int, str, tuple[str, ...]]] = Counter()
        for event in account.events:
            period = period_of(account.zone, account.anchor, event.time_us)
            for price, cell, quantity in event.parts:
                counters[(period, price, cell)] += quantity
        burnt, debts = allocate(table.amounts, account.lots, account.woken)
        lots = {}
        for lot in account.lots:
            rest = lot.granted - burnt[lot.lot]
            over = lot.expires is not None and account.woken >= lot.expires
            lots[lot.lot] = LotStanding(lot.granted, burnt[lot.lot], rest if over else 0, 0 if over else rest)
        return OracleAccount(
            plan=account.plan,
            currency=account.currency,
            counters=dict(counters),
            amounts={key: table.total(*key) for key in table.quantities},
            lots=lots,
            debt=sum(debts.values()),
            balance=self._balance(account, table),
            spend=self._spend(account, table),
            scopes={scope: dict(spend) for scope, spend in account.scopes.items()},
        )

    # ---- the fold

    def feed(self, partition: int, offset: int, append_ms: int, key: bytes | None, value: bytes | None) -> str:
        """Apply the next record of a partition; returns its outcome, as `outcomes` counts it."""
        state = self._partitions[partition]
        if offset <= state.offset:
            raise ValueError(f"partition {partition}: offset {offset} does not follow {state.offset}; feed in order")
        state.offset = offset
        state.log_us = max(state.log_us, append_ms * 1000)
        self._wake(state)
        try:
            if value is None:
                raise DeadLetterError("malformed")
            control = value.startswith(CONTROL_PREFIX)
            outcome = self._control(state, value) if control else self._usage(state, key, value)
        except DeadLetterError as error:
            outcome = f"dead_lettered.{error}"
        except RefusedError as error:
            outcome = f"refused.{error}"
        state.outcomes[outcome] += 1
        return outcome

    def _wake(self, state: Partition) -> None:
        while state.wakes and state.wakes[0][0] <= state.log_us:
            instant, name = state.wakes.pop(0)
            account = state.accounts[name]
            account.woken = instant
            self._evaluate(state, account)

    # ---- usage

    def _usage(self, state: Partition, key: bytes | None, value: bytes) -> str:
        if len(value) > VALUE_BYTES_MAX:
            raise DeadLetterError("too_large")
        name = None
        if key is not None:
            name = read_key(key)
            if partition_of(key, self._partition_count) != state.number:
                return "forwarded"
        event = read_event(value)
        if name is None:
            subject = event.get("subject")
            if subject is None:
                raise DeadLetterError("malformed")
            name = read_key(subject.encode("utf-8"))
            if partition_of(subject.encode("utf-8"), self._partition_count) != state.number:
                return "forwarded"
        account = state.accounts.get(name)
        if account is None:
            raise DeadLetterError("unknown_account")
        held = self._admission(name, event["hold"])
        time_us = event.get("time_us")
        if time_us is None:
            raise DeadLetterError("missing_time")
        if time_us > state.log_us + SKEW_US:
            raise DeadLetterError("too_far_ahead")
        if time_us < state.log_us - (WINDOW_US - SKEW_US):
            raise DeadLetterError("too_old")
        identity = (name, event["source"], event["id"])
        billing = event["billing"]
        known = self._known(state, identity)
        if known is not None:
            if known == billing:
                return "duplicate"
            self._tell(state, name, "id_conflict", f"{event['source']}\0{event['id']}", 1, "crossed")
            raise DeadLetterError("id_conflict")
        scope = event["scope"]
        if held is not None:
            time_us, scope = held
        parts = self._measure(state, account, event["type"], time_us, event["data"])
        segment = self._segment_of(state, account, time_us)
        cells = self._table(state, account).cells
        if len(cells) + len({(segment, price, cell) for price, cell, _ in parts} - cells) > CELLS_MAX:
            raise DeadLetterError("too_many_cells")
        state.identities[identity] = (state.log_us // BUCKET_US, billing)
        self._rate(state, account, identity, segment, RatedEvent(time_us, parts, scope))
        return "rated"

    def _admission(self, name: str, token: str | None) -> tuple[int, str] | None:
        """When and in which scope the hold that an event names was admitted: how it is rated."""
        if token is None:
            return None
        try:
            hold = read_hold(self._control_key, token)
        except (ValueError, LookupError, TypeError) as error:
            raise DeadLetterError("bad_hold") from error
        if hold.account != name:
            raise DeadLetterError("bad_hold")
        return hold.admitted, hold.scope

    def _known(self, state: Partition, identity: tuple[str, str, str]) -> object | None:
        if identity not in state.identities:
            return None
        bucket, billing = state.identities[identity]
        forgotten = state.log_us >= (bucket + 1) * BUCKET_US + WINDOW_US
        return None if forgotten else billing

    def _measure(
        self, state: Partition, account: Account, event_type: str, time_us: int, data: dict[str, object]
    ) -> list[tuple[str, tuple[str, ...], int]]:
        version = self._version_at(state, time_us)
        meters = [meter for meter in version.meters if meter.event_type == event_type] if version else []
        if version is None or not meters:
            raise DeadLetterError("no_meter")
        parts = []
        for meter in meters:
            quantity = read_quantity(data, meter.field)
            cell = tuple(read_dimension(data, name) for name in meter.group_by)
            price = version.price_of(account.plan, meter, cell)
            if price is None:
                raise DeadLetterError("no_price")
            parts.append((price.name, cell, quantity))
        return parts

    def _rate(
        self,
        state: Partition,
        account: Account,
        identity: tuple[str, str, str],
        segment: int,
        event: RatedEvent,
    ) -> None:
        period = period_of(account.zone, account.anchor, event.time_us)
        prices = {price for price, _, _ in event.parts}
        table = self._table(state, account)
        before = {price: table.total(period, price) for price in prices}
        account.events.append(event)
        account.newest_us = event.time_us if account.newest_us is None else max(account.newest_us, event.time_us)
        self._add(state, account, table, segment, event)
        after = {price: table.total(period, price) for price in prices}
        lines = {}
        for price in sorted(prices):
            quantity = sum(part[2] for part in event.parts if part[0] == price)
            lines[price] = (quantity, after[price] - before[price])
        month, charge = period_of(account.zone, 1, event.time_us), sum(amount for _, amount in lines.values())
        for scope, spend in account.scopes.items():
            if (event.scope + "/").startswith(scope + "/"):
                spend[month] = spend.get(month, 0) + charge
        self.rated[(state.number, state.offset)] = Rated(*identity, lines)
        self._evaluate(state, account)

    # ---- what follows from the events

    def _version_at(self, state: Partition, time_us: int) -> Version | None:
        """The highest version that is effective by then; the first one holds for all time."""
        chosen = None
        for position, (number, effective) in enumerate(state.versions):
            if position == 0 or effective <= time_us:
                chosen = self._versions[number]
        return chosen

    def _segment_of(self, state: Partition, account: Account, time_us: int) -> int:
        """The latest boundary that is not after the instant."""
        boundaries = [period_of(account.zone, account.anchor, time_us), period_of(account.zone, 1, time_us)]
        boundaries += [effective for _, effective in state.versions[1:]]
        for lot in account.lots:
            boundaries.append(lot.effective)
            if lot.expires is not None:
                boundaries.append(lot.expires)
        return max(instant for instant in boundaries if instant <= time_us)

    def _add(self, state: Partition, account: Account, table: Table, segment: int, event: RatedEvent) -> None:
        """Count one event into the table, and derive again the amounts of the prices it touches."""
        period = period_of(account.zone, account.anchor, event.time_us)
        for price, cell, quantity in event.parts:
            table.cells.add((segment, price, cell))
            quantities = table.quantities.setdefault((period, price), {})
            quantities[segment] = quantities.get(segment, 0) + quantity
            for start, amount in self._segment_amounts(state, account, price, quantities).items():
                table.amounts.setdefault(start, {})[price] = amount

    def _segment_amounts(
        self, state: Partition, account: Account, name: str, quantities: dict[int, int]
    ) -> dict[int, int]:
        """A through each segment less A before it, where a new version continues the count of the last one."""
        amounts = {}
        quantity, owed = 0, 0
        for segment in sorted(quantities):
            version = self._version_at(state, segment)
            assert version is not None
            price = version.plans[account.plan].prices[name]
            after = quantity + quantities[segment]
            through = owed + price.owed(after, self._grains) - price.owed(quantity, self._grains)
            amounts[segment] = half_even(through, self._grains) - half_even(owed, self._grains)
            quantity, owed = after, through
        return amounts

    def _derive(self, state: Partition, account: Account) -> Table:
        """The table from the raw events alone."""
        table = Table()
        for event in account.events:
            period = period_of(account.zone, account.anchor, event.time_us)
            segment = self._segment_of(state, account, event.time_us)
            for price, cell, quantity in event.parts:
                table.cells.add((segment, price, cell))
                quantities = table.quantities.setdefault((period, price), {})
                quantities[segment] = quantities.get(segment, 0) + quantity
        for (_, price), quantities in table.quantities.items():
            for start, amount in self._segment_amounts(state, account, price, quantities).items():
                table.amounts.setdefault(start, {})[price] = amount
        return table

    def _table(self, state: Partition, account: Account) -> Table:
        if account.table is None:
            account.table = self._derive(state, account)
        elif self._paranoid and account.table != self._derive(state, account):
            raise AssertionError(f"account {account.account}: the quick table differs from its events")
        return account.table

    def _spend(self, account: Account, table: Table) -> dict[int, int]:
        """Per calendar month with usage, what its segments amount to."""
        spend: dict[int, int] = {}
        for segment, prices in table.amounts.items():
            month = period_of(account.zone, 1, segment)
            spend[month] = spend.get(month, 0) + sum(prices.values())
        return spend

    def _balance(self, account: Account, table: Table) -> int:
        burnt, debts = allocate(table.amounts, account.lots, account.woken)
        held = sum(lot.granted - burnt[lot.lot] for lot in account.lots if lot.valid(account.woken))
        return held - sum(debts.values())

    # ---- rules

    def _evaluate(self, state: Partition, account: Account) -> None:
        if not account.rules and not self._paranoid:
            return
        table = self._table(state, account)
        spend: dict[int, int] | None = None
        balance: int | None = None
        for name in sorted(account.rules):
            rule = account.rules[name]
            if rule.measure == "balance":
                balance = self._balance(account, table) if balance is None else balance
                self._step(state, account, name, "-", balance <= rule.threshold, balance > rule.clear)
                continue
            cap, scope = account.caps[rule.cap]
            if not scope and spend is None:
                spend = self._spend(account, table)
            counted = account.scopes[scope] if scope else spend or {}
            for month in sorted(counted, key=str):
                active = counted[month] * 100 >= rule.percent * cap
                clears = counted[month] * 100 < rule.clear_percent * cap
                self._step(state, account, name, str(month), active, clears)

    def _step(self, state: Partition, account: Account, rule: str, window: str, active: bool, clears: bool) -> None:
        crossing = account.crossings.setdefault((rule, window), Crossing())
        if not crossing.active and active:
            crossing.active = True
            crossing.ordinal += 1
            self._tell(state, account.account, rule, window, crossing.ordinal, "crossed")
        elif crossing.active and clears:
            crossing.active = False
            self._tell(state, account.account, rule, window, crossing.ordinal, "recovered")

    def _tell(self, state: Partition, account: str, rule: str, window: str, ordinal: int, phase: str) -> None:
        text = "\0".join((account, rule, window, str(ordinal), phase))
        alert_id = "alert_" + hashlib.sha256(text.encode("utf-8")).hexdigest()[:32]
        self.alerts.setdefault(
            alert_id,
            Alert(
                account=account,
                rule=rule,
                window=window.replace("\0", "\n"),  # as a person is shown it
                ordinal=ordinal,
                phase=phase,
                partition=state.number,
                offset=state.offset,
            ),
        )

    # ---- control records

    def _control(self, state: Partition, value: bytes) -> str:
        mac = value[len(CONTROL_PREFIX) : len(CONTROL_PREFIX) + MAC_BYTES]
        body = value[len(CONTROL_PREFIX) + MAC_BYTES :]
        message = self._topic.encode("utf-8") + b"\0" + str(state.number).encode() + b"\0" + body
        if not hmac.compare_digest(mac, hmac.digest(self._control_key, message, "sha256")):
            raise DeadLetterError("bad_mac")
        try:
            document = read_json(body)
        except ValueError as error:
            raise DeadLetterError("bad_control") from error
        if not isinstance(document, dict):
            raise DeadLetterError("bad_control")
        fields = Fields(document)
        kind = fields.text("kind")
        if kind in ("tick", "owner"):
            epoch = fields.integer("epoch")
            fields.close()
            if kind == "tick":
                return "tick" if epoch >= state.epoch else "void"
            state.epoch = max(state.epoch, epoch)
            return "owner"
        if kind == "catalogue":
            return self._catalogue(state, fields)
        if kind == "slices":
            return self._slices(state, fields)
        commands: dict[str, Callable[[Partition, Fields], Callable[[], None]]] = {
            "open_account": self._open_account,
            "grant": self._grant,
            "set_cap": self._set_cap,
            "set_rule": self._set_rule,
            "set_scope": self._set_scope,
            "set_overdraft": self._set_overdraft,
            "set_rate_limit": self._set_rate_limit,
        }
        if kind not in commands:
            raise DeadLetterError("bad_control")
        return self._command(state, fields, body, commands[kind])

    def _catalogue(self, state: Partition, fields: "Fields") -> str:
        number, effective = fields.integer("version"), fields.integer("effective_us")
        fields.close()
        if state.versions:
            last_number, last_effective = state.versions[-1]
            # The first version is in force for all time, so its own instant binds nobody.
            earliest = state.log_us + SKEW_US
            if len(state.versions) > 1:
                earliest = max(earliest, last_effective)
            if number <= last_number or effective <= earliest:
                raise DeadLetterError("bad_control")
        if number not in self._versions:
            raise ValueError(f"the log names catalogue version {number}: give its document to the oracle")
        state.versions.append((number, effective))
        for account in state.accounts.values():
            account.table = None
        return "catalogue"

    def _slices(self, state: Partition, fields: "Fields") -> str:
        """Slices bind checks and move no money: only what makes one void or unreadable matters here."""
        epoch, linger, rows = fields.integer("epoch"), fields.integer("linger_us"), fields.list_of("of")
        fields.close()
        if not 0 < linger <= LINGER_US_MAX or len(rows) > SLICES_MAX:
            raise DeadLetterError("bad_control")
        for row in rows:
            if not isinstance(row, list) or len(row) != 2 or not isinstance(row[1], dict):
                raise DeadLetterError("bad_control")
            names = [row[0], *row[1]]
            quantities = [fixed_point(text, 9) if is_text(text) else None for text in row[1].values()]
            if not all(is_name(name) for name in names) or not all(
                quantity and quantity > 0 for quantity in quantities
            ):
                raise DeadLetterError("bad_control")
        return "slices" if epoch >= state.epoch else "void"

    def _command(
        self,
        state: Partition,
        fields: "Fields",
        body: bytes,
        prepare: "Callable[[Partition, Fields], Callable[[], None]]",
    ) -> str:
        """`prepare` reads the fields, and returns what refuses or applies the command."""
        name, command_key = fields.text("account"), fields.text("command_key")
        apply = prepare(state, fields)
        fields.close()
        if partition_of(name.encode(), len(self._partitions)) != state.number:
            raise DeadLetterError("bad_control")
        digest = hashlib.sha256(body).digest()
        known = state.commands.get((name, command_key))
        if known is not None and state.log_us < known[0] + COMMAND_MEMORY_US:
            if known[1] == digest:
                return "repeated"
            raise RefusedError("key_reused")
        state.commands[(name, command_key)] = (state.log_us, digest)
        apply()
        account = state.accounts[name]
        account.woken = state.log_us
        self._evaluate(state, account)
        return "applied"

    def _known_account(self, state: Partition, name: str) -> Account:
        if name not in state.accounts:
            raise RefusedError("unknown_account")
        return state.accounts[name]

    def _open_account(self, state: Partition, fields: "Fields") -> Callable[[], None]:
        name, plan = fields.text("account"), fields.text("plan")
        zone, anchor = fields.text("zone", "UTC"), fields.integer("anchor_day", 1)

        def apply() -> None:
            if name in state.accounts:
                raise RefusedError("account_exists")
            version = self._version_at(state, state.log_us)
            if version is None or plan not in version.plans:
                raise RefusedError("unknown_plan")
            if zone not in zone_names():
                raise RefusedError("unknown_zone")
            if not 1 <= anchor <= 31:
                raise RefusedError("bad_anchor")
            state.accounts[name] = Account(name, plan, version.plans[plan].currency, zone, anchor, state.log_us)

        return apply

    def _grant(self, state: Partition, fields: "Fields") -> Callable[[], None]:
        name, lot_id, kind = fields.text("account"), fields.text("lot"), fields.text("lot_kind")
        amount, currency = pico_of(fields.string("amount")), fields.text("currency")
        priority, scope = fields.integer("priority", 100), fields.texts("scope")
        requested, expires = fields.optional_integer("effective_us"), fields.optional_integer("expires_us")

        def apply() -> None:
            account = self._known_account(state, name)
            if amount is None or amount <= 0:
                raise RefusedError("bad_amount")
            if kind not in LOT_KINDS or any(abs(instant or 0) > LOT_INSTANT_MAX_US for instant in (requested, expires)):
                raise RefusedError("bad_lot")
            if currency != account.currency:
                raise RefusedError("currency_mismatch")
            if any(lot.lot == lot_id for lot in account.lots):
                raise RefusedError("lot_exists")
            version = self._version_at(state, state.log_us)
            assert version is not None
            plan = version.plans.get(account.plan)
            if any(plan is None or price not in plan.prices for price in scope):
                raise RefusedError("unknown_price")
            effective = state.log_us if requested is None else requested
            if account.newest_us is not None:
                effective = max(effective, account.newest_us + 1)
            newest = account.newest_us
            if expires is not None and (
                expires <= state.log_us or expires <= effective or (newest is not None and expires <= newest)
            ):
                raise RefusedError("expires_too_soon")
            account.lots.append(Lot(lot_id, kind, amount, priority, effective, expires, frozenset(scope)))
            account.lots.sort(key=Lot.order)
            account.table = None
            for instant in (effective, expires):
                if instant is not None and instant > state.log_us and (instant, name) not in state.wakes:
                    insort(state.wakes, (instant, name))

        return apply

    def _set_cap(self, state: Partition, fields: "Fields") -> Callable[[], None]:
        name, cap = fields.text("account"), fields.text("cap")
        amount, currency = pico_of(fields.string("amount")), fields.text("currency")
        scope = fields.string("scope", "")
        fields.boolean("hard", True)

        def apply() -> None:
            account = self._known_account(state, name)
            if amount is None or amount <= 0:
                raise RefusedError("bad_amount")
            if currency != account.currency:
                raise RefusedError("currency_mismatch")
            if scope and scope not in account.scopes:
                raise RefusedError("unknown_scope")
            account.caps[cap] = (amount, scope)

        return apply

    def _set_scope(self, state: Partition, fields: "Fields") -> Callable[[], None]:
        name, scope, standing = fields.text("account"), fields.string("scope"), fields.text("standing", "active")

        def apply() -> None:
            account = self._known_account(state, name)
            if scope and not SCOPE.fullmatch(scope):
                raise RefusedError("bad_scope")
            parts = scope.split("/")
            if any("/".join(parts[:count]) not in account.scopes for count in range(1, len(parts))):
                raise RefusedError("unknown_scope")
            if scope and scope not in account.scopes and len(account.scopes) >= SCOPES_MAX:
                raise RefusedError("too_many_scopes")
            if standing not in STANDINGS:
                raise RefusedError("bad_standing")
            if scope:
                account.scopes.setdefault(scope, {})

        return apply

    def _set_overdraft(self, state: Partition, fields: "Fields") -> Callable[[], None]:
        name, text, currency = fields.text("account"), fields.required_string("amount"), fields.text("currency")

        def apply() -> None:
            account = self._known_account(state, name)
            amount = 0 if text is None else pico_of(text)
            if amount is None or amount < 0:
                raise RefusedError("bad_amount")
            if currency != account.currency:
                raise RefusedError("currency_mismatch")

        return apply

    def _set_rate_limit(self, state: Partition, fields: "Fields") -> Callable[[], None]:
        name, limit, scope = fields.text("account"), fields.text("limit"), fields.string("scope", "")
        per_minute = fields.integer("per_minute")

        def apply() -> None:
            account = self._known_account(state, name)
            if scope and scope not in account.scopes:
                raise RefusedError("unknown_scope")
            full = limit not in account.rate_limits and len(account.rate_limits) >= RATE_LIMITS_MAX
            if full or not 0 <= per_minute <= PER_MINUTE_MAX:
                raise RefusedError("bad_limit")
            account.rate_limits = account.rate_limits | {limit} if per_minute else account.rate_limits - {limit}

        return apply

    def _set_rule(self, state: Partition, fields: "Fields") -> Callable[[], None]:
        name, rule, on = fields.text("account"), fields.text("rule"), fields.nested("on")
        measure = on.text("measure")
        if measure == "cap_percent":
            cap, percent = on.text("cap"), on.integer("percent")
            clear_percent = on.optional_integer("clear_percent")
            on.close()

            def apply_cap_percent() -> None:
                account = self._known_account(state, name)
                if cap not in account.caps:
                    raise RefusedError("unknown_cap")
                low = percent if clear_percent is None else clear_percent
                if not 1 <= low <= percent <= PERCENT_MAX:
                    raise RefusedError("bad_rule")
                account.rules[rule] = Rule(measure, cap, percent, low, 0, 0)

            return apply_cap_percent
        if measure == "balance":
            threshold = pico_of(on.string("threshold"))
            text = on.optional_string("clear")
            clear = threshold if text is None else pico_of(text)
            on.close()

            def apply_balance() -> None:
                account = self._known_account(state, name)
                if threshold is None or clear is None:
                    raise RefusedError("bad_amount")
                if clear < threshold:
                    raise RefusedError("bad_rule")
                account.rules[rule] = Rule(measure, "", 0, 0, threshold, clear)

            return apply_balance
        raise DeadLetterError("bad_control")


# ------------------------------------------------------------------------------------------------- reading records


def read_key(key: bytes) -> str:
    """The account that a key names."""
    if not 1 <= len(key) <= KEY_BYTES_MAX:
        raise DeadLetterError("malformed")
    try:
        return key.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DeadLetterError("malformed") from error


def read_event(value: bytes) -> dict[str, Any]:
    """The CloudEvent's id, source, type, data, subject, `time_us` (None: it has no time) and billing fields."""
    try:
        document = read_json(value)
    except ValueError as error:
        raise DeadLetterError("malformed") from error
    if not isinstance(document, dict):
        raise DeadLetterError("malformed")
    specversion, subject, time = document.get("specversion"), document.get("subject"), document.get("time")
    if isinstance(specversion, Number) or specversion != "1.0":
        raise DeadLetterError("malformed")
    for name in ("id", "source", "type"):
        text = document.get(name)
        if not is_text(text) or "\0" in text or not 1 <= len(text) <= TEXT_CHARACTERS_MAX:
            raise DeadLetterError("malformed")
    data = document.get("data")
    if not isinstance(data, dict) or len(data) > DATA_FIELDS_MAX:
        raise DeadLetterError("malformed")
    if subject is not None and not is_text(subject):
        raise DeadLetterError("malformed")
    time_us = None
    if time is not None:
        time_us = time_us_of(time) if is_text(time) else None
        if time_us is None:
            raise DeadLetterError("malformed")
    scope, hold, final = document.get("scope", ""), document.get("hold"), document.get("holdfinal", True)
    if not is_text(scope) or (scope and not SCOPE.fullmatch(scope)) or not isinstance(final, bool):
        raise DeadLetterError("malformed")
    if hold is not None and not (is_text(hold) and 1 <= len(hold) <= TOKEN_CHARACTERS_MAX and "\0" not in hold):
        raise DeadLetterError("malformed")
    try:
        billing = (document["type"], time_us, canonical(data), scope, hold, final or hold is None)
    except RecursionError as error:
        raise DeadLetterError("malformed") from error
    event = {name: document[name] for name in ("id", "source", "type", "data")}
    return event | {"subject": subject, "time_us": time_us, "billing": billing, "scope": scope, "hold": hold}


def is_text(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and not isinstance(value, Number)


def is_name(value: object) -> bool:
    return is_text(value) and 1 <= len(value) <= TEXT_CHARACTERS_MAX and "\0" not in value


def read_quantity(data: dict[str, object], name: str | None) -> int:
    """What a meter counts of an event, in nano; a count counts one."""
    if name is None:
        return 10**9
    value = data.get(name)
    quantity = fixed_point(value, 9) if isinstance(value, str) else None
    if quantity is None or quantity < 0:
        raise DeadLetterError("bad_quantity")
    return quantity


def read_dimension(data: dict[str, object], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or isinstance(value, Number):
        raise DeadLetterError("bad_dimension")
    if not 1 <= len(value) <= DIMENSION_CHARACTERS_MAX or "\0" in value:
        raise DeadLetterError("bad_dimension")
    return value


class Fields:
    """The fields of a control record's body; what cannot be read is `bad_control`."""

    def __init__(self, body: dict[str, object]) -> None:
        self._body = body
        self._asked: set[str] = set()

    def _get(self, name: str) -> object:
        self._asked.add(name)
        return self._body.get(name)

    def close(self) -> None:
        """A field that the kind does not have is a mistake of the sender's: it is not passed over."""
        if set(self._body) - self._asked:
            raise DeadLetterError("bad_control")

    def nested(self, name: str) -> "Fields":
        value = self._get(name)
        if not isinstance(value, dict):
            raise DeadLetterError("bad_control")
        return Fields(value)

    def boolean(self, name: str, default: bool) -> bool:
        value = self._get(name) if name in self._body else default
        self._asked.add(name)
        if not isinstance(value, bool):
            raise DeadLetterError("bad_control")
        return value

    def list_of(self, name: str) -> list[Any]:
        value = self._get(name)
        if not isinstance(value, list):
            raise DeadLetterError("bad_control")
        return value

    def required_string(self, name: str) -> str | None:
        """A string or null, but said."""
        if name not in self._body:
            raise DeadLetterError("bad_control")
        return self.optional_string(name)

    def string(self, name: str, default: str | None = None) -> str:
        if default is not None and name not in self._body:
            self._asked.add(name)
            return default
        value = self._get(name)
        if not isinstance(value, str) or isinstance(value, Number):
            raise DeadLetterError("bad_control")
        return value

    def optional_string(self, name: str) -> str | None:
        return None if self._get(name) is None else self.string(name)

    def text(self, name: str, default: str | None = None) -> str:
        if default is not None and name not in self._body:
            self._asked.add(name)
            return default
        value = self.string(name)
        if not 1 <= len(value) <= TEXT_CHARACTERS_MAX or "\0" in value:
            raise DeadLetterError("bad_control")
        return value

    def texts(self, name: str) -> list[str]:
        if name not in self._body:
            self._asked.add(name)
            return []
        value = self._get(name)
        if not isinstance(value, list) or not all(is_text(item) for item in value):
            raise DeadLetterError("bad_control")
        return value

    def integer(self, name: str, default: int | None = None) -> int:
        if default is not None and name not in self._body:
            self._asked.add(name)
            return default
        value = self._get(name)
        if not isinstance(value, Number) or re.fullmatch(r"-?[0-9]{1,19}", value) is None:
            raise DeadLetterError("bad_control")
        if not -(2**63) <= int(value) < 2**63:
            raise DeadLetterError("bad_control")
        return int(value)

    def optional_integer(self, name: str) -> int | None:
        return None if self._get(name) is None else self.integer(name)
