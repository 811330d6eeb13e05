"""R-rerate: rated lines against a second arithmetic, which shares no code with the engine.

It knows what was published (catalogues as JSON), what stands in the topic `rated`, and the laws as engine/README.md has
them in prose: it adds up the quantities, takes off what quantity grants serve, owes what the rest costs as exact
fractions rounded once, pays from the lots, and holds the result against table, lots and postings, line by line, grant by
grant and lot by lot. Slow and plain, for a sample of accounts.
"""

import hashlib
import importlib.resources
import math
from bisect import bisect_right
from calendar import monthrange
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import Struct
from msgspec.structs import replace

CHECK = "rerate"
PICO = 10**12
NANO = 10**9
ABSENT = "nothing"
SERVED = -2  # the number of a tier: of units that a quantity grant took

Cell = tuple[str, ...]
Table = dict[int, dict[tuple[str, Cell], int]]  # segment start -> {(price, cell): nano-units}
Adjusted = dict[tuple[int, int], dict[str, int]]  # (segment of posting, closed period) -> {price: pico}
Finding = tuple[str, str, str]  # what, expected, found


def sample_of(accounts: Iterable[str], share: float, seed: int) -> list[str]:
    """The same share of the same accounts under the same seed; at least one, if there is one."""
    ranked = sorted(accounts, key=lambda name: hashlib.sha256(f"{seed}\x00{name}".encode()).digest())
    return sorted(ranked[: math.ceil(share * len(ranked))])


# ------------------------------------------------------------------------------------------------------------- numbers


def read(text: str, unit: int) -> int:
    """Decimal text as a whole number of 1/unit. Raises ValueError when it is finer than that."""
    exact = Fraction(text) * unit
    if exact.denominator != 1:
        raise ValueError(f"{text} is no whole number of 1/{unit}")
    return exact.numerator


def shown(value: int, unit: int) -> str:
    """A whole number of 1/unit as decimal text, every digit behind the point."""
    whole, rest = divmod(abs(value), unit)
    return f"{'-' if value < 0 else ''}{whole}.{rest:0{len(str(unit)) - 1}d}"


# --------------------------------------------------------------------------------------------------------------- times


@lru_cache(maxsize=1024)
def _zone(name: str) -> ZoneInfo:
    with importlib.resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


@lru_cache(maxsize=65536)
def _day_starts(zone: str, year: int, month: int, day: int) -> int:
    """The first instant at or after local midnight, in microseconds."""
    rules = _zone(zone)
    midnight = datetime(year, month, day, tzinfo=rules)
    guess = midnight.astimezone(UTC)
    wall = midnight.replace(tzinfo=None)
    if guess.astimezone(rules).replace(tzinfo=None) != wall:  # skipped: the first second whose wall clock is past it
        early, late = guess - timedelta(days=1), guess
        while late - early > timedelta(seconds=1):
            middle = early + timedelta(seconds=(late - early) // timedelta(seconds=2))
            early, late = (early, middle) if middle.astimezone(rules).replace(tzinfo=None) >= wall else (middle, late)
        guess = late
    return (guess - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def month_start(zone: str, anchor: int, time_us: int) -> int:
    """The start of the month, by anchor day, that an instant lies in."""
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).astimezone(_zone(zone))
    year, month = local.year, local.month
    while True:
        start = _day_starts(zone, year, month, min(anchor, monthrange(year, month)[1]))
        if start <= time_us:
            return start
        year, month = (year, month - 1) if month > 1 else (year - 1, 12)


# -------------------------------------------------------------------------------------------------------------- prices


class Tier(Struct, frozen=True):
    """Of a price as published; quantities behind what it includes."""

    start: int  # nano-units
    end: int | None
    amount: int  # pico
    per: int  # nano-units
    flat: int  # pico

    def within(self, quantity: int) -> int:
        """How much of a quantity from zero lies in it."""
        return max(0, (quantity if self.end is None else min(quantity, self.end)) - self.start)

    @property
    def rate(self) -> Fraction:
        """Pico per nano-unit."""
        return Fraction(self.amount, self.per)


class Sharing(Struct, frozen=True):
    """What prices of a plan share: an allowance, or tiers."""

    prices: tuple[str, ...]  # in the order in which their units lie in it
    free: int = 0  # nano-units of an allowance
    prorate: bool = True
    by_sum: bool = False  # the sum of all units reaches one tier


class Place(Struct, frozen=True):
    """Where a price's units of a period lie in what it shares; nano-units."""

    left: int = 0  # of an allowance, that the prices before it leave
    before: int = 0  # in the tiers, of the prices before it
    reached: int | None = None  # by all prices together


class PriceTerms(Struct, frozen=True):
    """A price as published."""

    version: int
    model: str
    tiers: list[Tier]
    included: int  # nano-units
    maximum: int | None  # pico
    discount: Fraction  # percent
    agreed_us: int | None = None  # from when on it is agreed with the account alone
    prorate: bool = True  # a short period includes less, and owes less of the minimum
    minimum: int | None = None  # pico that a month owes at least
    commitment: int | None = None  # the same, beyond which usage counts by `overage`
    overage: Fraction = Fraction(1)
    shares: Sharing | None = None

    @property
    def follows(self) -> bool:
        """Whether it may begin, or end, inside a period."""
        around = self.maximum is None and self.minimum is None and self.commitment is None
        return self.model in ("per_unit", "graduated", "percentage", "dynamic") and around and self.shares is None

    def reached(self, priced: int) -> Tier:
        """The tier that a quantity behind what is included lies in."""
        return [tier for tier in self.tiers if tier.start < priced or tier.start == 0][-1]

    def by_model(self, priced: int, whole: int) -> Fraction:
        """Exact pico for a quantity behind what is included, before maximum and discount."""
        reached = self.reached(max(0, whole - self.included))
        if priced <= 0:
            return Fraction(0)
        match self.model:
            case "package":
                return Fraction(-(-priced // reached.per) * reached.amount)
            case "flat" | "step":
                return Fraction(self.reached(priced).amount)
            case "volume":
                return priced * reached.rate + reached.flat
        exact = sum((tier.within(priced) * tier.rate for tier in self.tiers), start=Fraction(0))
        return exact + sum(tier.flat for tier in self.tiers if tier.within(priced))

    def owed(self, quantity: int, whole: int) -> Fraction:
        """Exact pico for a quantity from zero, in a period that comes to `whole`."""
        exact = self.by_model(quantity - self.included, whole)
        if self.maximum is not None:
            exact = min(exact, Fraction(self.maximum))
        exact = exact * (100 - self.discount) / 100
        beyond = Fraction(0) if self.commitment is None else max(Fraction(0), exact - self.commitment)
        return exact + beyond * (self.overage - 1)

    def owed_at(self, place: Place, priced: int, whole: int) -> Fraction:
        """The same for so many units that lie there."""
        whole = whole if place.reached is None else place.reached
        until = place.before + max(0, priced - place.left)
        return self.owed(until, whole) - self.owed(place.before, whole)

    def parts(self, before: int, after: int) -> list[tuple[int, int]]:
        """(number, nano-units) of the tiers that units fall in; 0: included, -1: beyond the maximum."""
        high = max(0, after - self.included)
        full = high
        if self.maximum is not None:
            # The most units that the model alone would let owe no more than the maximum: what they owe never falls.
            full = (
                bisect_right(range(high + 1), Fraction(self.maximum), key=lambda units: self.by_model(units, after)) - 1
            )
        low = max(0, before - self.included)
        found = [(0, min(after, self.included) - min(before, self.included))]
        for number, tier in enumerate(self.tiers, start=1):
            if self.model != "volume":
                found.append((number, max(0, tier.within(full) - tier.within(low))))
            elif tier is self.reached(high):
                found.append((number, max(0, full - low)))
        found.append((-1, high - max(low, full)))
        return [(number, units) for number, units in found if units > 0]


Agreed = Sequence[tuple[int, str, PriceTerms | None]]  # since when, of which price, what; None: as published


class Prices:
    """What was published: documents by version, and (version, effective instant) in order; the first is for all time."""

    def __init__(self, documents: Mapping[int, Any], versions: list[tuple[int, int]]) -> None:
        self._documents = documents
        self.versions = versions
        self._known: dict[tuple[int, str, str], PriceTerms | None] = {}

    def at(self, time_us: int) -> int:
        """The version in force at an instant of event time."""
        later = [version for version, effective_us in self.versions[1:] if effective_us <= time_us]
        return later[-1] if later else self.versions[0][0]

    def in_force(self, plan: str, price: str, period_us: int, time_us: int, agreed: "Agreed" = ()) -> PriceTerms:
        """What holds at an instant of a period: another than what it began with only if both are sums of their units.
        Raises KeyError."""
        changes = [effective_us for _, effective_us in self.versions[1:]] + [from_us for from_us, _, _ in agreed]
        found: PriceTerms | None = None
        for since_us in [period_us, *sorted({each for each in changes if period_us < each <= time_us})]:
            terms = self.terms(self.at(since_us), plan, price)
            own = [said for from_us, name, said in agreed if name == price and from_us <= since_us]
            if terms is not None and own and own[-1] is not None:
                terms = own[-1]
            if terms is not None and (found is None or (found.follows and terms.follows)):
                found = terms
        if found is None:
            raise KeyError(price)
        if found.shares is not None:
            opened = [
                self.at(each) for each in [period_us, *sorted(each for each in changes if period_us < each <= time_us)]
            ]
            first = next(each for each in opened if plan in self._documents[each]["plans"])
            if self.terms(first, plan, price) is None:
                return replace(found, shares=None)  # it began inside the period
        return found

    def fee(self, version: int, plan: str, name: str) -> tuple[int, bool, bool]:
        """Pico of a month, whether a part of one owes less, and whether it is due in advance. Raises KeyError."""
        stated = self._documents[version]["plans"][plan]["fees"][name]
        return read(stated["amount"], PICO), stated.get("prorate", True), stated.get("in_advance", False)

    def seat(self, version: int, plan: str, name: str) -> int:
        """Pico of a month for one of them. Raises KeyError."""
        return read(self._documents[version]["plans"][plan]["seats"][name]["amount"], PICO)

    def commitment(self, version: int, plan: str, name: str) -> tuple[int, bool, list[str]] | None:
        """Pico of a month, whether a part of one owes less, and the prices it is for; None: it is of one price."""
        sold = self._documents[version]["plans"][plan]
        stated = sold.get("commitments", {}).get(name)
        if stated is None:
            return None
        return read(stated["amount"], PICO), stated.get("prorate", True), stated.get("prices") or list(sold["prices"])

    def terms(self, version: int, plan: str, price: str) -> PriceTerms | None:
        """As a version has it; None: it does not."""
        key = version, plan, price
        if key not in self._known:
            sold = self._documents[version]["plans"].get(plan, {"prices": {}})["prices"]
            self._known[key] = _read_terms(version, sold[price]) if price in sold else None
            for shares in _sharing(self._documents[version]["plans"].get(plan, {})) if price in sold else ():
                if price in shares.prices:
                    self._known[key] = replace(_read_terms(version, sold[price]), shares=shares)
        return self._known[key]


def _sharing(plan: Mapping[str, Any]) -> Iterator[Sharing]:
    def order(body: Mapping[str, Any]) -> tuple[str, ...]:
        def dearest(name: str) -> tuple[Fraction, str]:
            terms = _read_terms(0, plan["prices"][name])
            return -max(tier.rate for tier in terms.tiers) * (100 - terms.discount), name

        listed = body.get("order") == "as_listed"
        return tuple(body["prices"] if listed else sorted(body["prices"], key=dearest))

    for body in plan.get("allowances", {}).values():
        yield Sharing(order(body), read(body["quantity"], NANO), body.get("prorate", True))
    for body in plan.get("shared_tiers", {}).values():
        yield Sharing(order(body), by_sum=plan["prices"][body["prices"][0]]["model"] == "volume")


def read_agreed(from_us: int, stated: Mapping[str, Any]) -> PriceTerms:
    """A price that was agreed with an account."""
    return replace(_read_terms(0, stated), agreed_us=from_us)


def _read_terms(version: int, stated: Mapping[str, Any]) -> PriceTerms:
    tiers, start = [], 0
    rows = stated.get("tiers") or [stated]
    if {"per_event", "event_minimum", "event_maximum"} & stated.keys():
        rows = [{"amount": "1"}]  # of the fee that each event counts
    elif "percent" in stated:
        rows = [{"amount": stated["percent"], "per": "100"}]
    elif "factor" in stated:
        rows = [{"amount": stated["factor"]}]
    for row in rows:
        end = None if row.get("up_to") is None else read(row["up_to"], NANO)
        per, flat = read(str(row.get("per", 1)), NANO), read(str(row.get("flat", 0)), PICO)
        tiers.append(Tier(start, end, read(row["amount"], PICO), per, flat))
        start = end if end is not None else start
    maximum = read(stated["maximum"], PICO) if "maximum" in stated else None
    included, discount = read(stated.get("included", "0"), NANO), Fraction(stated.get("discount", "0"))
    least: dict[str, Any] = {key: read(stated[key], PICO) for key in ("minimum", "commitment") if key in stated}
    return PriceTerms(
        version,
        stated["model"],
        tiers,
        included,
        maximum,
        discount,
        prorate=stated.get("prorate", True),
        overage=Fraction(stated.get("overage", "1")),
        **least,
    )


# ------------------------------------------------------------------------------------------------------------- account


class LotTerms(Struct, frozen=True):
    """A credit grant."""

    lot: str
    kind: str
    granted: int
    priority: int
    effective_us: int
    expires_us: int | None
    scope: tuple[str, ...]
    pays_debt: bool
    changes: tuple[tuple[int, str, int | None], ...] = ()  # (instant, void or refund, pico or all that remains)
    carry: tuple[str, int, int | None] | None = None  # (lot whose rest it has, percent of it, pico at most)

    @property
    def rank(self) -> tuple[int, bool, int, int, str]:
        """Who pays first: priority, earliest expiry (none is last), earliest effective, id."""
        return self.priority, self.expires_us is None, self.expires_us or 0, self.effective_us, self.lot


class UnitTerms(Struct, frozen=True):
    """A quantity grant."""

    grant: str
    price: str
    granted: int  # nano-units
    effective_us: int
    expires_us: int
    voided_us: int | None = None

    @property
    def rank(self) -> tuple[int, int, str]:
        """Which serves first: earliest expiry, earliest effective, id."""
        return self.expires_us, self.effective_us, self.grant

    @property
    def ends_us(self) -> int:
        return self.expires_us if self.voided_us is None else min(self.expires_us, self.voided_us)


class Terms(Struct, frozen=True):
    """What an account is rated and billed by."""

    account: str
    plan: str
    currency: str
    zone: str
    anchor_day: int
    woken_us: int
    lots: dict[str, LotTerms]
    agreed: Sequence[tuple[int, str, str, PriceTerms | None]] = ()  # since when, of which plan and price; in order
    phases: Sequence[tuple[int, str]] = ()  # from when on which plan; `plan` is the one before them
    opened_us: int = 0
    pauses: Sequence[tuple[int, bool]] = ()  # from when on it is paused, or is not; in order
    units: Sequence[UnitTerms] = ()
    seats: Sequence[tuple[int, str, int]] = ()  # from when on there are so many of a name; in order
    billed_us: int = 0  # debt of periods that begin before is due
    waivers: Sequence[
        tuple[int, str, int | None]
    ] = ()  # since when, which cap, pico that a month owes at most; in order

    def waiver(self, time_us: int) -> tuple[str, int] | None:
        """The cap beyond which nothing is owed of an instant's usage, and its pico."""
        said = [(cap, pico) for from_us, cap, pico in self.waivers if from_us <= time_us][-1:]
        return next(((cap, pico) for cap, pico in said if pico is not None), None)

    def plan_at(self, time_us: int) -> str:
        return [self.plan, *(plan for from_us, plan in self.phases if from_us <= time_us)][-1]

    def period(self, time_us: int) -> tuple[int, Fraction]:
        """The start of the billing period of an instant, and how much it is of the month that phases cut it from."""
        start, end, month = self._bounds(time_us)
        return start, Fraction(end - start, month)

    def bound(self, time_us: int) -> tuple[int, Fraction]:
        """Since when the account is bound in the billing period of an instant, and how much of a month that is."""
        start, end, month = self._bounds(time_us)
        since_us = max(start, self.opened_us)
        return since_us, Fraction(end - since_us, month)

    def active(self, time_us: int) -> Fraction:
        """How much of a month the account is bound and not paused in the billing period of an instant."""
        start, end, month = self._bounds(time_us)
        turns = [(max(start, self.opened_us), self.paused_at(max(start, self.opened_us)))]
        turns += [turn for turn in self.pauses if turns[0][0] < turn[0] < end]
        ends = [*(since for since, _ in turns[1:]), end]
        return Fraction(sum(until - since for (since, off), until in zip(turns, ends, strict=True) if not off), month)

    def begun_by(self, log_time_us: int) -> "Terms":
        """As if no change of plan, no pause and no other seats came behind a log time."""
        phases = [each for each in self.phases if each[0] <= log_time_us]
        pauses = [each for each in self.pauses if each[0] <= log_time_us]
        return replace(
            self, phases=phases, pauses=pauses, seats=[each for each in self.seats if each[0] <= log_time_us]
        )

    def seat_months(self, seat: str, time_us: int) -> Fraction:
        """How many seats there are in the billing period of an instant, by how much of a month each is there, unpaused."""
        start, end, month = self._bounds(time_us)
        since_us = max(start, self.opened_us)
        turns = sorted({since_us, *(turn for turn, _ in self.pauses), *(turn for turn, _, _ in self.seats)})
        turns = [turn for turn in turns if since_us <= turn < end]
        total = 0
        for since, until in zip(turns, [*turns[1:], end], strict=True):
            counts = [count for from_us, name, count in self.seats if name == seat and from_us <= since]
            total += (until - since) * (0 if self.paused_at(since) or not counts else counts[-1])
        return Fraction(total, month)

    def paused_at(self, time_us: int) -> bool:
        return [False, *(off for since, off in self.pauses if since <= time_us)][-1]

    def _bounds(self, time_us: int) -> tuple[int, int, int]:
        first = month_start(self.zone, self.anchor_day, time_us)
        last = month_start(self.zone, self.anchor_day, first + 45 * 86_400_000_000)
        if last <= time_us:
            last = month_start(self.zone, self.anchor_day, first + 75 * 86_400_000_000)
        start = max([first, *(from_us for from_us, _ in self.phases if from_us <= time_us)])
        end = min([last, *(from_us for from_us, _ in self.phases if from_us > time_us)])
        return start, end, last - first


class Paid(Struct):
    """Who paid for what; pico."""

    burnt: dict[tuple[str, int], int]  # (lot, usage period)
    refunded: dict[tuple[str, int], int]  # (lot, usage period)
    voided: dict[str, int]
    granted: dict[str, int]
    carried: dict[str, int]
    expired: dict[str, int]
    remaining: dict[str, int]
    debt: dict[int, int]  # usage period
    balance: int


class Stretch(Struct, frozen=True):
    """What a segment has used of a price; nano-units."""

    start: int
    terms: PriceTerms
    priced: int
    served: int  # by quantity grants, which owes nothing


class Whole(Struct, frozen=True):
    """What a period has used of a price; nano-units."""

    priced: int
    served: int
    owed: int  # pico


class Together(Struct):
    """Lines of an offset whose prices share something. What one of them comes to depends on the others: all of them together
    come to what is owed more."""

    offset: int
    log_time_us: int
    before: dict[tuple[int, bool, str], int]  # (period, late, price) -> pico
    told: dict[tuple[int, bool, str], int]


Used = dict[int, tuple[PriceTerms, int]]  # of a price in a period: segment -> the terms there, and nano-units


class Rerated:
    """One account, from its table at the start through every rated line."""

    def __init__(self, terms: Terms, prices: Prices, table: Table, late: Table, adjusted: Adjusted) -> None:
        """`late` is what came of closed periods, beside `table`; `adjusted` what was posted for that."""
        self._terms = terms
        self._prices = prices
        self.table: Table = {start: dict(row) for start, row in table.items()}
        self._used: dict[tuple[int, str], Used] = {}
        for start, row in self.table.items():
            for (price, _), quantity in row.items():
                self._use(start, price, quantity)
        self.adjusted: Adjusted = {place: dict(charges) for place, charges in adjusted.items()}
        self._late: dict[tuple[int, str], Used] = {}
        for start, row in late.items():
            for (price, _), quantity in row.items():
                self._use(start, price, quantity, self._late)
        edges = [effective_us for _, effective_us in prices.versions[1:]]
        edges += [from_us for from_us, *_ in terms.agreed]
        for lot in terms.lots.values():
            edges += [lot.effective_us] if lot.expires_us is None else [lot.effective_us, lot.expires_us]
            edges += [at_us for at_us, _, _ in lot.changes]
        for units in terms.units:
            edges += [units.effective_us, units.expires_us, units.ends_us]
        self._edges = edges
        self._together: Together | None = None
        self._not_owed: dict[int, dict[str, int]] = {}  # of closed periods: what was waived, with what came late by now

    def _period(self, time_us: int) -> int:
        return self._terms.period(time_us)[0]

    def _segment(self, time_us: int) -> int:
        months = [self._period(time_us), month_start(self._terms.zone, 1, time_us)]
        return max([*months, *(edge for edge in self._edges if edge <= time_us)])

    def _in_force(self, time_us: int, price: str) -> PriceTerms:
        period_us, part = self._terms.period(time_us)
        plan = self._terms.plan_at(time_us)
        agreed = [(since, name, said) for since, sold, name, said in self._terms.agreed if sold == plan]
        terms = self._prices.in_force(plan, price, period_us, time_us, agreed)
        if part != 1 and terms.prorate and terms.included:
            terms = replace(terms, included=round(terms.included * part))
        if part != 1 and terms.shares is not None and terms.shares.prorate:
            terms = replace(terms, shares=replace(terms.shares, free=round(terms.shares.free * part)))
        _, bound = self._terms.bound(time_us)
        if terms.commitment is not None and bound <= 0:
            return replace(terms, commitment=None)
        if terms.commitment is not None and terms.prorate:
            terms = replace(terms, commitment=round(Fraction(terms.commitment) * bound))
        return terms

    def _use(self, start: int, price: str, quantity: int, into: dict[tuple[int, str], Used] | None = None) -> None:
        used = (self._used if into is None else into).setdefault((self._period(start), price), {})
        _add(used, start, self._in_force(start, price), quantity)

    def line(self, line: Mapping[str, Any]) -> Iterator[Finding]:
        """One rated line, in the order of the log: what is wrong with it."""
        where = f"rated line {line['line']} of offset {line['offset']}"
        if self._together is not None and (self._together.offset != line["offset"] or "due" in line):
            yield from self._all_told(self._together)
        if line.get("due") == "waived":
            yield from self._waived_line(where, line)
            return
        if "due" in line:
            yield from self._besides(where, line)
            return
        time_us, price = line["time_us"], line["price"]
        quantity = read(line["quantity"], NANO)
        terms = self._in_force(time_us, price)
        version = self._prices.at(time_us) if terms.agreed_us is not None else terms.version
        yield from _unlike(f"{where}: version", version, line["version"])
        yield from _unlike(f"{where}: agreed", terms.agreed_us, line.get("agreed_us"))
        yield from _unlike(f"{where}: currency", self._terms.currency, line["currency"])
        period, late = self._period(time_us), "adjusts" in line
        if late and period not in self._not_owed:
            self._not_owed[period] = self._waived_of(period)
        if terms.shares is not None:
            self._share(line, terms.shares, period, quantity)
            if late:
                yield from _unlike(f"{where}: adjusts", period, line["adjusts"])
            return
        before = self._whole(period, price, late)
        self._use(self._segment(time_us), price, quantity, self._late if late else None)
        after = self._whole(period, price, late)
        amount = after.owed - before.owed
        yield from _unlike(f"{where}: amount", shown(amount, PICO), shown(read(line["amount"], PICO), PICO))
        low, high = sorted((before.priced, after.priced))  # below 0: it is taken back
        repriced = round(terms.owed(low, after.priced)) - round(terms.owed(low, before.priced))
        told = read(line.get("repricing", "0"), PICO)
        yield from _unlike(f"{where}: repricing", shown(repriced, PICO), shown(told, PICO))
        sign = 1 if quantity >= 0 else -1
        parts = terms.parts(low, high)
        if after.served != before.served:
            parts.append((SERVED, abs(after.served - before.served)))
        tiers = [[number, shown(sign * units, NANO)] for number, units in parts]
        stated = [[number, shown(read(text, NANO), NANO)] for number, text in line["tiers"]]
        yield from _unlike(f"{where}: tiers", tiers, stated)
        if late:
            yield from _unlike(f"{where}: adjusts", period, line["adjusts"])
            charges = self.adjusted.setdefault((self._segment(line["log_time_us"]), period), {})
            charges[price] = charges.get(price, 0) + amount
            return
        row = self.table.setdefault(self._segment(time_us), {})
        cell = tuple(line["cell"].values())
        row[price, cell] = row.get((price, cell), 0) + quantity

    def _share(self, line: Mapping[str, Any], shares: Sharing, period: int, quantity: int) -> None:
        """A line of a price that shares something; one that is of no usage tells only how others have moved its units."""
        time_us, price, late = line["time_us"], line["price"], "adjusts" in line
        if self._together is None:
            self._together = Together(line["offset"], line["log_time_us"], {}, {})
        for name in shares.prices:
            place = period, late, name
            if place not in self._together.before:
                self._together.before[place] = self._whole(period, name, late).owed
        told = self._together.told
        told[period, late, price] = told.get((period, late, price), 0) + read(line["amount"], PICO)
        if not quantity and line["tiers"]:
            return
        self._use(self._segment(time_us), price, quantity, self._late if late else None)
        if not late:
            row = self.table.setdefault(self._segment(time_us), {})
            cell = tuple(line["cell"].values())
            row[price, cell] = row.get((price, cell), 0) + quantity

    def _all_told(self, together: Together) -> Iterator[Finding]:
        self._together = None
        for (period, late, price), before in together.before.items():
            amount = self._whole(period, price, late).owed - before
            told = together.told.get((period, late, price), 0)
            where = f"rated lines of {price} of offset {together.offset}: amount"
            yield from _unlike(where, shown(amount, PICO), shown(told, PICO))
            if late and (period, late, price) in together.told:
                charges = self.adjusted.setdefault((self._segment(together.log_time_us), period), {})
                charges[price] = charges.get(price, 0) + amount

    def _besides(self, where: str, line: Mapping[str, Any]) -> Iterator[Finding]:
        """What a period owes besides its usage, as far as it was not posted before."""
        since_us, part = self._terms.bound(line["time_us"])
        period, price, name = self._period(line["time_us"]), line["price"], f"{line['due']}\0{line['price']}"
        before = sum(charges.get(name, 0) for place, charges in self.adjusted.items() if place[1] == period)
        if line["due"] == "fee":
            pico, shared, ahead = self._prices.fee(self._prices.at(since_us), self._terms.plan_at(since_us), price)
            terms = self._terms.begun_by(line["log_time_us"]) if ahead else self._terms
            amount = round(pico * (terms.active(line["time_us"]) if shared else 1)) - before
        elif line["due"] == "seat":
            pico = self._prices.seat(self._prices.at(since_us), self._terms.plan_at(since_us), price)
            months = self._terms.begun_by(line["log_time_us"]).seat_months(price, line["time_us"])
            amount = round(pico * months) - before
        else:
            least, shared, covered = self._least(since_us, line["due"], price)
            used = sum(self._whole(period, each, late=True).owed for each in covered)
            amount = max(0, round(least * (part if shared else 1)) - used) - before
        yield from _unlike(f"{where}: amount", shown(amount, PICO), shown(read(line["amount"], PICO), PICO))
        yield from _unlike(f"{where}: adjusts", period, line.get("adjusts"))
        charges = self.adjusted.setdefault((self._segment(line["log_time_us"]), period), {})
        charges[name] = charges.get(name, 0) + amount

    def _least(self, since_us: int, kind: str, name: str) -> tuple[int, bool, list[str]]:
        """What a month owes at least by a line of this kind, whether a part of one owes less, and for which prices."""
        plan, version = self._terms.plan_at(since_us), self._prices.at(since_us)
        together = self._prices.commitment(version, plan, name) if kind == "commitment" else None
        if together is not None:
            return together
        agreed = [(since, of, said) for since, sold, of, said in self._terms.agreed if sold == plan]
        terms = self._prices.in_force(plan, name, self._period(since_us), since_us, agreed)
        return (terms.commitment if kind == "commitment" else terms.minimum) or 0, terms.prorate, [name]

    def _waived_line(self, where: str, line: Mapping[str, Any]) -> Iterator[Finding]:
        """What a cap waives more, with the lines before it; of a closed period that is posted. Of an open one the amount is
        that of the cap as it was then: what it comes to by now is told by who pays."""
        period = self._period(line["time_us"])
        cap, _ = self._terms.waiver(line["time_us"]) or (line["price"], 0)
        if "adjusts" not in line:
            return
        yield from _unlike(f"{where}: cap", cap, line["price"])
        yield from _unlike(f"{where}: adjusts", period, line["adjusts"])
        before, after = self._not_owed.get(period, {}), self._waived_of(period)
        more = sum(after.values()) - sum(before.values())
        yield from _unlike(f"{where}: amount", shown(-more, PICO), shown(read(line["amount"], PICO), PICO))
        charges = self.adjusted.setdefault((self._segment(line["log_time_us"]), period), {})
        for price in after.keys() | before.keys():
            if after.get(price, 0) != before.get(price, 0):
                charges[price] = charges.get(price, 0) - after.get(price, 0) + before.get(price, 0)
        self._not_owed[period] = after

    def _waived_of(self, period: int) -> dict[str, int]:
        """Pico per price that is waived of a closed period, with what came late."""
        amounts = dict(self._amounts())
        for of, price in {*self._used, *self._late}:
            for start, pico in self._owed(of, price, late=True) if of == period else ():
                amounts.setdefault(start, {})[price] = pico
        found: dict[str, int] = {}
        for start, left in self._left(sorted(amounts.items())):
            for price, pico in left.items() if self._period(start) == period else ():
                found[price] = found.get(price, 0) + amounts[start][price] - pico
        return found

    def _left(self, amounts: Iterable[tuple[int, dict[str, int]]]) -> Iterator[tuple[int, dict[str, int]]]:
        """What is owed of amounts in time order: in each month no more than its cap, the first and by name first."""
        owed: dict[int, int] = {}
        for start, charged in amounts:
            month, waiver = month_start(self._terms.zone, 1, start), self._terms.waiver(start)
            left = {}
            for price, pico in sorted(charged.items()):
                left[price] = pico if waiver is None else min(pico, max(0, waiver[1] - owed.get(month, 0)))
                owed[month] = owed.get(month, 0) + left[price]
            yield start, left

    def manual(self, at_us: int, used_us: int, price: str, amount: str) -> None:
        """A manual line that was posted at this log time, for the period of another instant."""
        charges = self.adjusted.setdefault((self._segment(at_us), self._period(used_us)), {})
        charges[price] = charges.get(price, 0) + read(amount, PICO)

    def _whole(self, period: int, price: str, late: bool) -> Whole:
        """What a period comes to; a closed one with what came late."""
        stretches, _ = self._walk(period, price, late)
        priced, served = sum(each.priced for each in stretches), sum(each.served for each in stretches)
        return Whole(priced, served, sum(pico for _, pico in self._owed(period, price, late)))

    def _owed(self, period: int, price: str, late: bool = False) -> Iterator[tuple[int, int]]:
        stretches, _ = self._walk(period, price, late)
        return _owed(stretches, self._place(period, price, late))

    def _shares(self, period: int, price: str, late: bool) -> Sharing | None:
        used = self._used.get((period, price)) or (self._late.get((period, price)) if late else None)
        return next((terms.shares for terms, _ in used.values()), None) if used else None

    def _place(self, period: int, price: str, late: bool) -> Place:
        """Behind the units of the prices before it; those that a quantity grant serves fill no tier."""
        shares = self._shares(period, price, late)
        if shares is None:
            return Place()
        before = shares.prices[: shares.prices.index(price)]
        if shares.free:
            tables = (self._used, self._late) if late else (self._used,)
            used = sum(
                units for table in tables for name in before for _, units in table.get((period, name), {}).values()
            )
            return Place(left=max(0, shares.free - used))
        priced = {
            name: sum(each.priced for each in self._walk(period, name, late)[0])
            for name in shares.prices
            if self._shares(period, name, late) is not None
        }
        if shares.by_sum:
            return Place(reached=sum(priced.values()))
        return Place(before=sum(priced.get(name, 0) for name in before))

    def _walk(self, period: int, price: str, late: bool = False) -> tuple[list[Stretch], dict[str, int]]:
        """A period's segments in time order, and what each quantity grant took of them (README, "Quantity grants"). With
        what came `late` they take no more in a segment than they took of the table, which is what it was closed with."""
        used = dict(self._used.get((period, price), {}))
        closed: dict[int, int] | None = None
        if late:
            closed = {each.start: each.served for each in self._walk(period, price)[0]}
            for start, (terms, quantity) in self._late.get((period, price), {}).items():
                _add(used, start, terms, quantity)
        grants = [each for each in self._terms.units if each.price == price]
        grants = [each for each in grants if self._period(each.effective_us) == period]
        grants.sort(key=lambda each: each.rank)
        stretches: list[Stretch] = []
        took = {each.grant: 0 for each in grants}
        through, shares = 0, self._shares(period, price, late)
        left = 0 if shares is None or not shares.free else self._place(period, price, late).left
        for start, (terms, quantity) in sorted(used.items(), key=lambda item: item[0]):
            free = terms.included or left
            wanted = max(0, through + quantity - free) - max(0, through - free)
            through += quantity
            served = 0 if closed is None else min(wanted, closed.get(start, 0))
            for grant in grants if closed is None else ():
                if grant.effective_us <= start < grant.ends_us:
                    part = min(wanted - served, grant.granted - took[grant.grant])
                    took[grant.grant] += part
                    served += part
            stretches.append(Stretch(start, terms, quantity - served, served))
        return stretches, took

    def finish(
        self,
        table: Table,
        adjusted: Adjusted,
        posted: Mapping[tuple[str, str, int | None], int],
        balance: int,
        took: Mapping[str, int],
    ) -> Iterator[Finding]:
        """Against the account's own table and adjustments, its postings (lot, kind, usage period), its balance, and what it
        says that each quantity grant `took` (nano-units); what is granted less that remains, has expired or is void."""
        if self._together is not None:
            yield from self._all_told(self._together)
        for place in sorted(self.adjusted.keys() | adjusted.keys()):
            ours, stored = self.adjusted.get(place, {}), adjusted.get(place, {})
            for price in sorted(ours.keys() | stored.keys()):
                told = [None if price not in side else shown(side[price], PICO) for side in (ours, stored)]
                yield from _unlike(f"adjustment of {price} of {place[1]} in the segment from {place[0]}", *told)
        for start in sorted(self.table.keys() | table.keys()):
            mine, theirs = self.table.get(start, {}), table.get(start, {})
            for price, cell in sorted(mine.keys() | theirs.keys()):
                told = [
                    None if row is None else shown(row, NANO)
                    for row in (mine.get((price, cell)), theirs.get((price, cell)))
                ]
                yield from _unlike(f"quantity of {price} {'/'.join(cell)} in the segment from {start}", *told)
        taken = {grant: units for place in self._used for grant, units in self._walk(*place)[1].items()}
        for grant in sorted(taken.keys() | took.keys()):
            told = [shown(side.get(grant, 0), NANO) for side in (taken, took)]
            yield from _unlike(f"units that quantity grant {grant} took", *told)
        paid = self.paid()
        expected: dict[tuple[str, str, int | None], int] = {
            (lot, "grant", None): pico for lot, pico in paid.granted.items()
        }
        expected |= {(lot, "carry", None): pico for lot, pico in paid.carried.items()}
        expected |= {(lot, "burn", period): pico for (lot, period), pico in paid.burnt.items()}
        expected |= {(lot, "refund", period): pico for (lot, period), pico in paid.refunded.items()}
        expected |= {(lot, "void", None): pico for lot, pico in paid.voided.items()}
        expected |= {(lot, "expire", None): pico for lot, pico in paid.expired.items()}
        billed_us = self._terms.billed_us
        expected |= {("", "due" if of < billed_us else "debt", of): pico for of, pico in paid.debt.items()}
        for lot, kind, period in sorted(expected.keys() | posted.keys(), key=lambda at: (at[0], at[1], at[2] or 0)):
            what = f"{kind} of lot {lot}" if lot else kind
            what += "" if period is None else f" in the period from {period}"
            told = [shown(side.get((lot, kind, period), 0), PICO) for side in (expected, posted)]
            yield from _unlike(what, *told)
        yield from _unlike("balance", shown(paid.balance, PICO), shown(balance, PICO))

    def paid(self) -> Paid:
        """The table, priced and paid from the lots (README, "Credit")."""
        lots = sorted(self._terms.lots.values(), key=lambda lot: lot.rank)
        granted = {lot.lot: lot.granted for lot in lots}
        paid = Paid({}, {}, {}, granted, {}, {}, dict(granted), {}, 0)

        def pay(lot: LotTerms, period: int, wanted: int) -> int:
            part = min(wanted, paid.remaining[lot.lot])
            paid.remaining[lot.lot] -= part
            if part:
                paid.burnt[lot.lot, period] = paid.burnt.get((lot.lot, period), 0) + part
            return wanted - part

        def settle(lot: LotTerms) -> None:
            for period, owed in sorted(paid.debt.items()):
                if owed > 0:
                    paid.debt[period] = pay(lot, period, owed)

        def give_back(lot: LotTerms, wanted: int, *, owed: bool) -> int:
            given = 0
            for period in sorted({period for name, period in paid.burnt if name == lot.lot}, reverse=True):
                place = lot.lot, period
                part = min(wanted - given, paid.burnt[place] - paid.refunded.get(place, 0))
                if part:
                    paid.refunded[place] = paid.refunded.get(place, 0) + part
                    given += part
                    if owed:
                        paid.debt[period] = paid.debt.get(period, 0) + part
            return given

        def change(lot: LotTerms, what: str, amount: int | None) -> None:
            if what == "refund":
                paid.remaining[lot.lot] += give_back(lot, amount or 0, owed=False)
                if lot.pays_debt:
                    settle(lot)
                return
            rest = paid.remaining[lot.lot] if amount is None else min(amount, paid.remaining[lot.lot])
            paid.remaining[lot.lot] -= rest
            burnt = 0 if amount is None else give_back(lot, amount - rest, owed=True)
            paid.voided[lot.lot] = paid.voided.get(lot.lot, 0) + rest + burnt

        def carry(lot: LotTerms) -> None:
            source, percent, most = lot.carry or ("", 0, None)
            part = paid.remaining[source] * percent // 100
            part = part if most is None else min(part, most)
            paid.remaining[source] -= part
            paid.carried[source] = paid.granted[lot.lot] = paid.remaining[lot.lot] = part

        woken_us = self._terms.woken_us
        happenings: list[tuple[int, int, tuple[int, bool, int, int, str], int]] = []  # (instant, kind, lot, change)
        seen_us = max([woken_us, *self.table, *(start for start, _ in self.adjusted)])
        for lot in lots:
            if lot.carry and lot.effective_us <= seen_us:
                happenings.append((lot.effective_us, 0, lot.rank, 0))
            if lot.pays_debt and lot.effective_us <= woken_us:
                happenings.append((lot.effective_us, 1, lot.rank, 0))
            for number, (at_us, what, _) in enumerate(lot.changes):
                if what == "void" or at_us <= woken_us:
                    happenings.append((at_us, 2, lot.rank, number))
        happenings.sort()

        def happen(until_us: int | None) -> None:
            while happenings and (until_us is None or happenings[0][0] <= until_us):
                _, what, rank, number = happenings.pop(0)
                lot = self._terms.lots[rank[-1]]
                if what == 0:
                    carry(lot)
                elif what == 1:
                    settle(lot)
                else:
                    change(lot, *lot.changes[number][1:])

        def charge(start: int, period: int, amounts: Mapping[str, int]) -> None:
            classes: dict[tuple[str, ...], int] = {}
            for price, pico in amounts.items():
                payers = tuple(sorted(lot.lot for lot in lots if _may_pay(lot, start, price)))
                classes[payers] = classes.get(payers, 0) + pico
            rest = 0
            for payers in sorted(classes, key=lambda names: (len(names), names)):
                owed = classes[payers]
                for lot in lots:
                    if lot.lot in payers:
                        owed = pay(lot, period, owed)
                rest += owed
            if rest:
                paid.debt[period] = paid.debt.get(period, 0) + rest

        def return_to_payers(start: int, period: int, price: str, pico: int) -> None:
            """What was charged too much for a closed period: off its debt first, then to who paid last."""
            less = min(pico, max(0, paid.debt.get(period, 0)))
            paid.debt[period] = paid.debt.get(period, 0) - less
            pico -= less
            whole = [lot for lot in reversed(lots) if not any(at <= start and x is None for at, _, x in lot.changes)]
            fit = [lot for lot in whole if _is_for(lot, price)]
            for lot in [*fit, *(lot for lot in whole if lot not in fit)]:
                place = lot.lot, period
                part = min(pico, paid.burnt.get(place, 0) - paid.refunded.get(place, 0))
                if part:
                    paid.refunded[place] = paid.refunded.get(place, 0) + part
                    paid.remaining[lot.lot] += part
                    pico -= part
                    if (
                        lot.pays_debt
                        and lot.effective_us <= start
                        and (lot.expires_us is None or start < lot.expires_us)
                    ):
                        settle(lot)
            paid.debt[period] = paid.debt.get(period, 0) - pico

        due = {(start, self._period(start)): amounts for start, amounts in self._left(self._amounts())}
        for place, charges in self.adjusted.items():
            own = due.get(place, {})
            due[place] = own | {price: own.get(price, 0) + pico for price, pico in charges.items()}
        for start, period in sorted(due, key=lambda place: (place[0], -place[1])):
            happen(start)
            charge(start, period, {price: pico for price, pico in due[start, period].items() if pico > 0})
            for price, pico in sorted(due[start, period].items()):
                if pico < 0:
                    return_to_payers(start, period, price, -pico)
        happen(None)
        for lot in lots:
            if lot.expires_us is not None and lot.expires_us <= woken_us:
                paid.expired[lot.lot], paid.remaining[lot.lot] = paid.remaining[lot.lot], 0
        usable = sum(paid.remaining[lot.lot] for lot in lots if lot.carry or lot.effective_us <= woken_us)
        paid.debt = {period: owed for period, owed in paid.debt.items() if owed}
        paid.balance = usable - sum(paid.debt.values())
        return paid

    def _amounts(self) -> Iterator[tuple[int, dict[str, int]]]:
        """(segment start, pico per price) in time order: what each segment adds to its period's rounded total."""
        amounts: dict[int, dict[str, int]] = {start: {} for start in sorted(self.table)}
        for period, price in self._used:
            for start, pico in self._owed(period, price):
                amounts[start][price] = pico
        yield from amounts.items()


def _owed(stretches: Sequence[Stretch], place: Place) -> Iterator[tuple[int, int]]:
    """(segment start, pico): what each adds to what a price owes for a period, which is each of its terms for what was
    priced under them, rounded once; a tie goes to the even neighbour. `place`: where that lies in what is shared."""
    exact, through, whole = Fraction(0), 0, sum(each.priced for each in stretches)
    for each in stretches:
        before = round(exact)
        exact += each.terms.owed_at(place, through + each.priced, whole) - each.terms.owed_at(place, through, whole)
        through += each.priced
        yield each.start, round(exact) - before


def _add(used: Used, start: int, terms: PriceTerms, quantity: int) -> None:
    used[start] = terms, quantity + (used[start][1] if start in used else 0)


def _may_pay(lot: LotTerms, start: int, price: str) -> bool:
    inside = lot.effective_us <= start and (lot.expires_us is None or start < lot.expires_us)
    voided = any(at_us <= start for at_us, _, amount in lot.changes if amount is None)
    return inside and not voided and _is_for(lot, price)


def _is_for(lot: LotTerms, price: str) -> bool:
    """Its scope has it; what a period owes besides usage, named by its kind, a NUL and the price, is for who pays debt."""
    kind, _, name = price.rpartition("\0")
    return (not kind or lot.pays_debt) and (not lot.scope or name in lot.scope)


def _unlike(what: str, expected: object, found: object) -> Iterator[Finding]:
    if expected != found:
        yield what, ABSENT if expected is None else str(expected), ABSENT if found is None else str(found)
