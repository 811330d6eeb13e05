"""Scenarios: tables that a finance person can read, each run as a log through the engine.

A scenario is a text file in tests/scenarios/, in lines. `#` starts a comment; columns are separated by two or more
spaces, or by `|`; `-` stands for "nothing". Sections start with their name in capitals, in this order, and those but
EVENTS and FINALLY may be left out:

ACCOUNT   zone  anchor day                              (UTC and 1 if left out)
METERS    name  what  by                                `count of TYPE`, `sum of FIELD of TYPE`, or `sum of (EXPRESSION) of
                                                        TYPE` (or max, min, latest, average, unique_count in
                                                        place of sum; behind it `, keeping 1`: so many change
                                                        points); behind it conditions:
                                                        `where FIELD is A or B`, `where FIELD exists`, `and` more of
                                                        them; `by`: dimensions. Left out: PRICES are priced by name.
                                                        Of sessions: `seconds of TYPE`, or `seconds of FIELD of TYPE`,
                                                        and `, silent for 300 s` (how long an open one may be), or
                                                        `seconds at FIELD of TYPE`: each counts the level that FIELD
                                                        has said last
SHAPES    TYPE  shape                                   of the usage objects of an event type: vllm, anthropic ...
STREAMS   TYPE  how long                                of which events may have a number, and for how long: `7 days`
DIMENSIONS  name  of  what                              `up to 10: a, up to 20: b, rest: c`, or `x: a, y: a, rest: b`;
                                                        `none: d` is where the field is missing; `of hours of ZONE`:
                                                        `22:00 to 06:00: a, 08:00 to 12:00 on sat sun: b, rest: c`
UNIT      name  currency  amount per units              of credit, in which all amounts are then: `CREDITS  USD  1 per 100`
PRICES    name  model  tiers                            `10: 30, 50: 40, rest: 50` is $30 each up to 10, and so on;
                                                        `rest: 0.15 per 1000000` is a price per unit; `from TIME`
                                                        behind it makes a new version of the catalogue; with METERS
                                                        `of METER` behind it, or `of METER where x = a, y = b`; a tier
                                                        may be `10: 30 flat 5`; models are those of a catalogue;
                                                        behind the tiers `included 100`, `at most 50`, `less 20%`, `least $9`,
                                                        `commitment $9`, `beyond it times 1.5`,
                                                        `whole in short periods`, `in PLAN` (else `plan`);
                                                        and of a percentage `each 0.30`, `each at least 0.50`, `each at most 9`
FEES      name  amount                                  of a month; behind it `whole in short periods`, `in advance`,
                                                        `in PLAN`
SEATS     name  amount                                  of a month for each, in advance; behind it `in PLAN`
COMMITMENTS  name  amount  for                          of a month, for `all` or `PRICE, PRICE`; behind it the same
ALLOWANCES  name  units  for                            of a month, for `PRICE, PRICE` together, the dearest first; behind it
                                                        `as listed`, and the same as of FEES but `in advance`
SHARED TIERS  name  for                                 `PRICE, PRICE`, the dearest first; behind it `as listed`, `in PLAN`
GRANTS    lot  kind  amount  priority  from  until  for  rollover
                                                        `for`: prices, or `all`; kind: `promo`, or `promo, pays debt`;
                                                        rollover: `50% for 30 days`, `50% up to $9 for 30 days`; its
                                                        lot is `LOT~carried`
RECURRING  name  every  amount  rollover                a lot in each `period`, `month` or `week`: its id is
                                                        NAME@ and the date on which the period begins
SCOPES    path                                          parents first
CAPS      name  amount  scope  window                   the scope is left out or `-` for the account itself; the window
                                                        is a month, or `hour`, `day`, `week`, `rolling 300 min`,
                                                        `first use 300 min`; behind it `before discounts` or `of debt`,
                                                        of money, and `, beyond waived`; the amount `$5`, or `5000 PRICE`
RULES     name  what                                    `80% of CAP`, `80% of commitment NAME`,
                                                        `balance 20`, or `balance 20 clear 30`
EVENTS    time  what                 charge  balance  alerts
          what: `3 PRICE`, `3 PRICE in SCOPE`, `3 PRICE held since TIME`, or `grant LOT AMOUNT`, or
          `adjust $5 because REASON`, `adjust -$5 for TIME because REASON` (of the period of that time), or
          `rerate PRICE by 1 from TIME to TIME because REASON` (by that version of the catalogue), or
          `units NAME 1000 PRICE` (a quantity grant), `no units NAME` (its rest is void), or
          `void LOT` (its rest), `void LOT AMOUNT`, `refund LOT AMOUNT`, or `cap NAME AMOUNT`,
          `cap NAME AMOUNT in SCOPE`, `cap NAME AMOUNT waives` (what is beyond it), or
          `agree PRICE at MODEL TIERS; MODIFIER`, `agree PRICE from TIME at ...`,
          `agree PRICE as published`, `plan PLAN`, `plan PLAN from TIME`, `top-up $50 at $20` (behind it
          `every 60 min`, `2 attempts`), `no top-up`, `paid N`, `failed N` (what became of the account's request N), or
          `postpaid up to $20`, `postpaid`, `prepaid`, `due $12` (what closed periods owe of a postpaid account by then), or
          `pause`, `resume from TIME`, `5 seats NAME`, `5 seats NAME from TIME`, or `pass` (log time moves on, nothing else), or
          `check 3 PRICE`, `check 3 PRICE in SCOPE`: may it run? Under charge stands `allowed` or why not, or
          `cap_reached by CAP`, or `cap_reached by CAP for 90 min` (until it frees).
          `lease NAME of 64 requests of 2 PRICE`, `... in SCOPE`, `extend NAME by 5 requests`: under charge stands how many
          are granted (`32 requests`), or why none. `2 PRICE of lease NAME` is usage of it, `close NAME after 3` gives it
          back behind its third event.
          Usage may have a name (`3 PRICE as NAME`); then `cancel NAME` takes it back and `amend NAME to 5 PRICE` makes
          it what it should have been, once the time has come at which they are sent. `refused REASON: WHAT` is
          refused. With METERS: `TYPE: FIELD 3, FIELD.INNER word`, `TYPE as NAME: FIELD 3`, `amend NAME to FIELD 3`; the charge
          may then be the reason why it is set aside.
          With STREAMS: `TYPE of NAME no. 2: FIELD 3`; the charge may be what became of it instead of being rated.
          A time before the one above is usage that arrives late. Alerts: `RULE crossed`, `RULE recovered`.
FINALLY   lot  remaining  burnt  expired  refunded  voided  carried
                                                        one line per lot (the last three may be left out), `debt  AMOUNT`,
                                                        and for each scope `spend SCOPE  AMOUNT` (of all months);
                                                        `worth  AMOUNT`: the balance in the UNIT's currency

Times are `2026-03-10 12:00`, in UTC, to the microsecond if need be. Prices, grants, scopes, caps and rules are set when the
first event is due. Amounts are dollars.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

import msgspec
import pytest
from msgspec.structs import replace

from engine.catalog import (
    AllowanceDefinition,
    CatalogueDocument,
    CommitmentDefinition,
    FeeDefinition,
    PlanDefinition,
    PriceDefinition,
    SeatDefinition,
    SharedTiersDefinition,
    StreamDefinition,
    TierDefinition,
)
from engine.corrections import AMEND
from engine.holds import Bound, seal_token
from engine.manual_lines import Rerating
from engine.meters import (
    BandDefinition,
    ConditionDefinition,
    DimensionDefinition,
    MeterDefinition,
    TokenShapeDefinition,
)
from engine.meters.definitions import HoursDefinition
from engine.meters.hours import DAYS
from engine.money import NANO
from engine.top_up import request_id
from engine.units import UnitDefinition
from tests.engine.bench import DAY, KEY, MINUTE, Bench, pico_of, told, us
from tests.engine.desk_bench import DeskBench

SCENARIOS: Final = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))
SECTIONS: Final = (
    "FEES",
    "COMMITMENTS",
    "ALLOWANCES",
    "SHARED TIERS",
    "SEATS",
    "ACCOUNT",
    "METERS",
    "SHAPES",
    "STREAMS",
    "DIMENSIONS",
    "UNIT",
    "PRICES",
    "GRANTS",
    "RECURRING",
    "SCOPES",
    "CAPS",
    "RULES",
    "LIMITS",
    "EVENTS",
    "FINALLY",
)

Line = tuple[int, list[str]]  # line number, columns


class ScenarioError(AssertionError):
    """Names file and line."""


def instant(text: str) -> int:
    return us(text.replace(" ", "T", 1) + "+00:00")


def dollars(text: str) -> int:
    return pico_of(text.replace("$", "").replace(",", ""))


def plain(text: str) -> str:
    return text.replace("$", "").replace(",", "")


class Scenario:
    """One file, read and then run."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        self.sections: dict[str, list[Line]] = {section: [] for section in SECTIONS}
        section = None
        for number, raw in enumerate(text.splitlines(), start=1):
            line = raw.split("#", 1)[0].strip()
            if not line:
                continue
            if line in SECTIONS:
                section = line
            elif section is None:
                raise ScenarioError(f"{name}:{number}: before the first section; start with one of {SECTIONS}")
            else:
                self.sections[section].append((number, [part.strip() for part in re.split(r"\s{2,}|\|", line)]))

    def each(self, section: str, handle: Callable[..., None]) -> None:
        for number, columns in self.sections[section]:
            try:
                handle(*columns)
            except (AssertionError, ValueError, TypeError, KeyError, StopIteration) as error:
                raise ScenarioError(f"{self.name}:{number}: {'  '.join(columns)}\n{error}") from error

    # ---- reading

    def documents(self) -> tuple[list[CatalogueDocument], list[int]]:
        """The catalogue versions, and from when each is in force."""
        prices: dict[int, dict[tuple[str, str], PriceDefinition]] = {0: {}}

        def price(name: str, model: str, tiers: str, *more: str) -> None:
            start = next((instant(each.removeprefix("from ")) for each in more if each[:5] == "from "), 0)
            words = ("included", "at", "less", "each", "whole", "least", "commitment", "beyond")
            around = [each for each in more if each.split(" ")[0] in words]
            sold = read_price(name, model, tiers, around)
            for each in more:
                if each.startswith("of "):
                    meter, _, where = each.removeprefix("of ").partition(" where ")
                    sold = replace(sold, meter=meter, where=dict(pairs(where, " = ")))
            plan = next((each.removeprefix("in ") for each in more if each[:3] == "in "), "plan")
            prices.setdefault(start, {})[plan, name] = sold

        self.each("PRICES", price)
        meters: dict[str, MeterDefinition] = {}
        dimensions: dict[str, DimensionDefinition] = {}
        self.each("METERS", lambda name, *columns: meters.update({name: read_meter(*columns)}))
        self.each("DIMENSIONS", lambda name, *columns: dimensions.update({name: read_dimension(*columns)}))
        shapes: dict[str, TokenShapeDefinition] = {}
        self.each(
            "SHAPES",
            lambda event_type, shape: shapes.update(
                {event_type: msgspec.convert({"shape": shape}, TokenShapeDefinition)}
            ),
        )
        streams: dict[str, StreamDefinition] = {}
        self.each(
            "STREAMS", lambda name, window: streams.update({name: StreamDefinition(int(window.split(" ")[0]) * 86_400)})
        )
        units: dict[str, UnitDefinition] = {}
        for _, (name, currency, worth) in self.sections["UNIT"]:
            units[name] = UnitDefinition(currency, *worth.split(" per "))
        unit = next(iter(units), "USD")
        meters = meters or {"units": MeterDefinition("use", "sum", "units", ("price",))}
        documents = []
        sold: dict[tuple[str, str], PriceDefinition] = {}
        for start in sorted(prices):
            sold = sold | prices[start]
            plans: dict[str, dict[str, PriceDefinition]] = {}
            for (plan, name), definition in sold.items():
                plans.setdefault(plan, {})[name] = definition
            fees: dict[str, dict[str, FeeDefinition]] = {}
            for _, (name, amount, *more) in self.sections["FEES"]:
                where, whole = read_terms([each for each in more if each != "in advance"])
                ahead = {"in_advance": True} if "in advance" in more else {}
                fees.setdefault(where, {})[name] = FeeDefinition(plain(amount), **whole, **ahead)
            commitments: dict[str, dict[str, CommitmentDefinition]] = {}
            for _, (name, amount, covered, *more) in self.sections["COMMITMENTS"]:
                where, whole = read_terms(more)
                of_prices = () if covered == "all" else tuple(covered.split(", "))
                commitments.setdefault(where, {})[name] = CommitmentDefinition(
                    plain(amount), of_prices, **cast(Any, whole)
                )
            seats: dict[str, dict[str, SeatDefinition]] = {}
            for _, (name, amount, *more) in self.sections["SEATS"]:
                seats.setdefault(read_terms(more)[0], {})[name] = SeatDefinition(plain(amount))
            allowances: dict[str, dict[str, AllowanceDefinition]] = {}
            for _, (name, units_of, covered, *more) in self.sections["ALLOWANCES"]:
                where, whole = read_terms([each for each in more if each != "as listed"])
                order = {"order": "as_listed"} if "as listed" in more else {}
                allowances.setdefault(where, {})[name] = AllowanceDefinition(
                    plain(units_of), tuple(covered.split(", ")), **cast(Any, whole | order)
                )
            shared: dict[str, dict[str, SharedTiersDefinition]] = {}
            for _, (name, sharing, *more) in self.sections["SHARED TIERS"]:
                where, _ = read_terms(more)
                order = {"order": "as_listed"} if "as listed" in more else {}
                shared.setdefault(where, {})[name] = SharedTiersDefinition(
                    tuple(sharing.split(", ")), **cast(Any, order)
                )
            of = {}
            for plan, each in plans.items():
                beside = {
                    "fees": fees.get(plan, {}),
                    "commitments": commitments.get(plan, {}),
                    "seats": seats.get(plan, {}),
                    "allowances": allowances.get(plan, {}),
                    "shared_tiers": shared.get(plan, {}),
                }
                of[plan] = PlanDefinition(unit, each, **cast(Any, beside))
            documents.append(CatalogueDocument(meters, of, dimensions, shapes, streams, units))
        return documents, sorted(prices)

    # ---- running

    def run(self) -> None:
        documents, starts = self.documents()
        bench = DeskBench(*documents)
        bench.currency = next(iter(documents[0].units), "USD")
        bench.now = instant(self.sections["EVENTS"][0][1][0])
        zone, anchor_day = (self.sections["ACCOUNT"] or [(0, ["UTC", "1"])])[0][1]
        applied(bench.open(zone=zone, anchor_day=int(anchor_day)))
        for version, start in enumerate(starts[1:], start=2):
            assert bench.publish(version, start) == "catalogue", f"a price from {start} comes too soon"
        self.each("GRANTS", lambda *columns: applied(grant(bench, *columns)))
        self.each("RECURRING", lambda *columns: applied(recurring(bench, *columns)))
        self.each("SCOPES", lambda scope: applied(bench.scope(scope)))
        self.each("CAPS", lambda *columns: applied(cap(bench, *columns)))
        self.each("RULES", lambda *columns: applied(rule(bench, *columns)))
        self.each("LIMITS", lambda name, what: applied(limit(bench, name, what)))
        self.each("EVENTS", lambda *columns: event(bench, *columns))
        if not self.sections["FINALLY"]:
            raise ScenarioError(f"{self.name}: has no section FINALLY; say what is left of each lot, and the debt")
        self.each("FINALLY", lambda *columns: finally_is(bench, *columns))


def applied(outcome: str) -> None:
    assert outcome == "applied", f"the engine answered {outcome}"


def read_terms(said: list[str]) -> tuple[str, dict[str, bool]]:
    """Of which plan it is, and what else."""
    where = next((each.removeprefix("in ") for each in said if each[:3] == "in "), "plan")
    return where, {"prorate": False} if "whole in short periods" in said else {}


def read_price(name: str, model: str, tiers: str, around: list[str]) -> PriceDefinition:
    rows = []
    for tier in tiers.split(", "):
        up_to, _, rate = tier.partition(": ")
        rate, _, flat = rate.partition(" flat ")
        amount, _, per = rate.partition(" per ")
        fee = {"flat": plain(flat)} if flat else {}
        rows.append(TierDefinition(plain(amount), per or "1", None if up_to == "rest" else up_to, **fee))
    said: dict[str, str | bool] = {}
    for what in around:
        if what == "whole in short periods":
            said["prorate"] = False
            continue
        word, _, amount = what.rpartition(" ")
        key = {
            "included": "included",
            "at most": "maximum",
            "less": "discount",
            "least": "minimum",
            "commitment": "commitment",
            "beyond it times": "overage",
            "each": "per_event",
            "each at least": "event_minimum",
            "each at most": "event_maximum",
        }[word]
        said[key] = plain(amount).removesuffix("%")
    where = {"price": name}
    if model in ("graduated", "volume", "step"):
        return PriceDefinition("units", cast(Any, model), where, tiers=tuple(rows), **cast(Any, said))
    (row,) = rows
    if model in ("percentage", "dynamic"):
        key = "percent" if model == "percentage" else "factor"
        return PriceDefinition(
            "units", cast(Any, model), where, **cast(Any, said | {key: row.amount.removesuffix("%")})
        )
    return PriceDefinition("units", cast(Any, model), where, row.amount, row.per, **cast(Any, said))


def pairs(text: str, sign: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (each.partition(sign) for each in text.split(", ") if each)]


def read_meter(what: str, by: str = "") -> MeterDefinition:
    group_by = tuple(by.removeprefix("by ").split(", ")) if by else ()
    if levels := re.fullmatch(r"seconds at (\S+) of (\S+)", what):
        return MeterDefinition(levels[2], "time_weighted_sum", levels[1], group_by, session="session")
    timed = re.fullmatch(r"seconds(?: of (\S+))? of ([^\s,]+)(?:, silent for (\d+) s)?", what)
    if timed:
        timeout_s = int(timed[3]) if timed[3] else None
        return MeterDefinition(timed[2], "duration", timed[1], group_by, session="session", timeout_s=timeout_s)
    read = re.fullmatch(
        r"(count|(?:sum|max|min|latest|average|unique_count) of (\S+|\(.+\))) of ([^\s,]+)(?:, keeping (\d+))?(?: where (.+))?",
        what,
    )
    assert read, "a meter is `count of TYPE` or `sum of FIELD of TYPE`, and conditions behind `where`"
    when = {}
    for condition in read[5].split(" and ") if read[5] else []:
        field, _, said = condition.partition(" ")
        values = tuple(said.removeprefix("is ").split(" or "))
        when[field] = ConditionDefinition(exists=True) if said == "exists" else ConditionDefinition(one_of=values)
    aggregation: Any = read[1].split(" ")[0]
    if read[2] and read[2][0] == "(":
        return MeterDefinition(read[3], aggregation, None, group_by, when, expression=read[2])
    points = int(read[4]) if read[4] else None
    return MeterDefinition(read[3], aggregation, read[2], group_by, when, change_points=points)


def read_dimension(of: str, what: str) -> DimensionDefinition:
    said = dict(pairs(what, ": "))
    default, rest = said.pop("none", None), said.pop("rest", None)
    field = of.removeprefix("of ")
    if field.startswith("hours of "):
        hours = []
        for text, name in pairs(what, ": "):
            if stretch := re.fullmatch(r"(\S+) to (\S+)(?: on (.+))?", text):
                days = tuple(stretch[3].split(" ")) if stretch[3] else DAYS
                hours.append(HoursDefinition(name, stretch[1], stretch[2], days))
        return DimensionDefinition(hours=tuple(hours), zone=field.removeprefix("hours of "), otherwise=rest)
    if not any(text.startswith("up to ") for text in said):
        return DimensionDefinition(field, (), said, rest, default)
    bands = [BandDefinition(name, plain(text.removeprefix("up to "))) for text, name in said.items()]
    return DimensionDefinition(field, (*bands, BandDefinition(rest or "rest")), default=default)


def recurring(bench: Bench, name: str, every: str, amount: str, rollover: str = "") -> str:
    fields: dict[str, Any] = {"rollover": rolled_over(rollover)} if rollover else {}
    return bench.recurring(name, plain(amount), every=every, **fields)


def rolled_over(rollover: str) -> dict[str, Any]:
    rolled = re.fullmatch(r"(\d+)%(?: up to (\S+))? for (\d+) days", rollover)
    assert rolled, "a rollover is `50% for 30 days` or `50% up to $9 for 30 days`"
    return {"percent": int(rolled[1]), "days": int(rolled[3])} | ({"cap": plain(rolled[2])} if rolled[2] else {})


def grant(
    bench: Bench,
    lot: str,
    kind: str,
    amount: str,
    priority: str,
    since: str,
    until: str,
    scope: str = "all",
    rollover: str = "",
) -> str:
    fields: dict[str, Any] = {"priority": int(priority), "scope": [] if scope == "all" else scope.split(", ")}
    if since != "-":
        fields["effective_us"] = instant(since)
    if until != "-":
        fields["expires_us"] = instant(until)
    if rollover:
        fields["rollover"] = rolled_over(rollover)
    kind, _, debt = kind.partition(", ")
    if debt:
        assert debt == "pays debt", "a kind is `promo`, or `promo, pays debt`"
        fields["pays_debt"] = True
    return bench.grant(lot, plain(amount), kind, **fields)


def cap(bench: Bench, name: str, amount: str, scope: str = "-", window: str = "month") -> str:
    number, _, price = plain(amount).partition(" ")
    fields: dict[str, Any] = {"currency": None, "price": price} if price else {}
    if window.endswith(", beyond waived"):
        window, fields["beyond"] = window.removesuffix(", beyond waived"), "waived"
    for words, basis in ((" before discounts", "list"), (" of debt", "due")):
        if window.endswith(words):
            window, fields["basis"] = window.removesuffix(words), basis
    length = re.fullmatch(r"(.+) (\d+) min", window)
    if length:
        fields["length_s"] = int(length[2]) * 60
        window = length[1].replace(" ", "_")
    return bench.cap(number, cap=name, scope=scope.replace("-", ""), window=window, **fields)


MEASURES: Final = {
    r"(?P<percent>\d+)% of included (?P<price>\S+)": "included_percent",
    r"(?P<percent>\d+)% of commitment (?P<commitment>.+)": "commitment_percent",
    r"(?P<percent>\d+)% of (?P<cap>\S+)": "cap_percent",
    r"(?P<percent>\d+)% left of (?P<lot>\S+)": "lot_percent",
    r"(?P<percent>\d+)% and \$(?P<minimum>\S+) in (?P<minutes>\d+) min": "spike",
    r"balance (?P<threshold>\S+)(?: clear (?P<clear>\S+))?": "balance",
    r"\$(?P<threshold>\S+) of a lot within (?P<days>\d+) days": "expiring",
    r"\$(?P<threshold>\S+) in a (?P<window>\S+)(?: of (?P<scope>\S+))?": "spend",
    r"(?P<threshold>\S+) (?P<price>\S+) in a (?P<window>\S+)(?: of (?P<scope>\S+))?": "quantity",
}


def rule(bench: Bench, name: str, what: str, level: str = "warning") -> str:
    for pattern, measure in MEASURES.items():
        read = re.fullmatch(pattern, what)
        if read:
            on: dict[str, Any] = {key: plain(text) for key, text in read.groupdict().items() if text is not None}
            for key, unit, seconds in (("minutes", "bucket_s", 60), ("days", "within_s", 86_400)):
                if key in on:
                    on[unit] = int(on.pop(key)) * seconds
            if "percent" in on:
                on["percent"] = int(on["percent"])
            return bench.rule(name, measure, level=level, **on)
    raise AssertionError(f"a rule is one of {', '.join(MEASURES)}")


def limit(bench: Bench, name: str, what: str) -> str:
    rate = re.fullmatch(r"(\d+) (\S+) a minute(?: of (\S+))?", what)
    if rate:
        meter = {} if rate[2] == "requests" else {"meter": rate[2]}
        return bench.command("set_rate_limit", limit=name, per_minute=int(rate[1]), scope=rate[3] or "", **meter)
    only = re.fullmatch(r"only (.+?)(?: in (\S+))?", what)
    assert only, "a limit is `20 requests a minute`, `20 units a minute of SCOPE` or `only x or y in SCOPE`"
    return bench.command("set_allowed", field=name, values=only[1].split(" or "), scope=only[2] or "")


def checked(bench: DeskBench, units: str, price: str, scope: str) -> str:
    """Whether such a request may run, as a scenario says it."""
    decision = bench.check(units, type="use", data={"price": price}, scope=scope, hold_us=None)
    if decision.reason is None:
        return "allowed"
    binding = decision.binding
    if binding is None or binding.kind not in ("cap", "rate", "list"):
        return decision.reason.value
    frees = "" if binding.frees_in_us is None else f" for {binding.frees_in_us // MINUTE} min"
    return f"{decision.reason.value} by {binding.name}{frees}"


def leased(bench: DeskBench, word: str, rest: str) -> str:
    """How many requests a lease is granted, or is extended by, or why none."""
    said = re.fullmatch(r"(\S+) (?:of|by) (\d+) requests(?: of (\S+) (\S+))?(?: in (\S+))?", rest)
    assert said, "a lease is `lease NAME of 64 requests of 2 PRICE in SCOPE`, or `extend NAME by 5 requests`"
    name, number, units, price, scope = said.groups()
    before = 0
    if word == "extend":
        before = bench.leases[name].requests
        decision = bench.extend_lease(bench.leases[name], int(number))
    else:
        decision = bench.lease(int(number), plain(units), data={"price": price}, scope=scope or "")
    if decision.reason is None and decision.hold is not None:
        bench.leases[name] = decision.hold
        return f"{decision.hold.requests - before} requests"
    binding = decision.binding
    if binding is None or binding.kind not in ("cap", "rate"):
        return str(decision.reason)
    return f"{decision.reason} by {binding.name}"


def event(bench: DeskBench, time: str, what: str, charge: str, balance: str, alerts: str = "-") -> None:
    at = instant(time)
    bench.now = max(bench.now, at)
    told_before, lines_before = len(bench.partition.outputs.alerts), len(bench.partition.outputs.lines)
    word, _, rest = what.partition(" ")
    if word == "pass":
        assert bench.tick(bench.now) == "tick"
    elif word == "grant":
        lot, amount = rest.split(" ")
        applied(bench.grant(lot, plain(amount)))
    elif word == "units":
        name, units, price = rest.split(" ")
        applied(bench.grant_units(name, price, plain(units)))
    elif what.startswith("no units "):
        applied(bench.command("void_quantity_grant", grant=what.removeprefix("no units ")))
    elif word == "adjust":
        said = re.fullmatch(r"(\S+)(?: for (\S+ \S+))? because (.+)", rest)
        assert said, "an adjustment is `adjust $5 because REASON` or `adjust $5 for TIME because REASON`"
        used_us = instant(said[2]) if said[2] else None
        applied(bench.adjust(f"line {len(bench.log)}", plain(said[1]), said[3], used_us=used_us))
    elif word == "rerate":
        applied(rerate(bench, rest))
    elif what.startswith("refused ") and ": rerate " in what:
        reason, _, tried = rest.partition(": rerate ")
        assert rerate(bench, tried) == f"refused.{reason}"
    elif word == "void":
        lot, _, amount = rest.partition(" ")
        applied(bench.void(lot, plain(amount) or None))
    elif word == "refund":
        lot, amount = rest.split(" ")
        applied(bench.refund(lot, plain(amount)))
    elif word == "cap":
        beyond = {"beyond": "waived"} if rest.endswith(" waives") else {}
        name, amount, *scope = rest.removesuffix(" waives").replace(" in ", " ").split(" ")
        applied(bench.cap(plain(amount), cap=name, scope="".join(scope), **beyond))
    elif word in ("pause", "resume"):
        since = rest.removeprefix("from ")
        applied(bench.pause(instant(since) if since else None, paused=word == "pause"))
    elif seats := re.fullmatch(r"(\d+) seats (\S+)(?: from (.+))?", what):
        applied(bench.seats(int(seats[1]), instant(seats[3]) if seats[3] else None, seats[2]))
    elif word == "plan":
        applied(sell(bench, rest))
    elif what.startswith("refused ") and ": plan " in what:
        reason, _, tried = rest.partition(": plan ")
        assert sell(bench, tried) == f"refused.{reason}"
    elif word == "agree":
        applied(agree(bench, rest))
    elif word in ("top-up", "no", "paid", "failed"):
        applied(top_up(bench, word, rest))
    elif what.startswith(("refused not_asked: ", "refused lot_exists: ")):
        reason, _, tried = rest.partition(": ")
        assert top_up(bench, *tried.split(" ", 1)) == f"refused.{reason}"
    elif what.startswith("refused ") and ": agree " in what:
        reason, _, tried = rest.partition(": agree ")
        assert agree(bench, tried) == f"refused.{reason}"
    elif word in ("lease", "extend"):
        assert bench.tick(bench.now) == "tick"
        answer = leased(bench, word, rest)
        assert answer == charge, f"lease: the engine says {answer}"
        charge = "-"
    elif word == "close":
        name, events = rest.split(" after ")
        bench.close_lease(bench.leases[name], int(events))
    elif word in ("prepaid", "postpaid"):
        limit = plain(rest.removeprefix("up to ")) or None
        applied(bench.command("set_billing", billing=word, credit_limit=limit, currency=bench.currency))
    elif word == "due":
        assert bench.tick(bench.now) == "tick"
        assert sum(bench.account().due.values()) == dollars(rest), f"due: the engine says {bench.account().due}"
    elif word == "check":
        assert bench.tick(bench.now) == "tick"
        units, price, *scope = rest.replace(" in ", " ").split(" ")
        answer = checked(bench, plain(units), price, "".join(scope))
        assert answer.startswith(charge), f"check: the engine says {answer}"
        charge = "-"
    elif word == "refused":
        reason, _, tried = rest.partition(": ")
        outcome = correct(bench, *tried.split(" ", 1))
        assert outcome == f"dead_lettered.{reason}", f"the engine answered {outcome}"
    elif word in ("cancel", "amend"):
        outcome = correct(bench, word, rest)
        assert outcome in ("cancelled", "amended"), f"the engine answered {outcome}"
    elif numbered := re.fullmatch(r"(\S+) of (\S+) no\. (\d+): (.+)", what):
        event_type, name, seq, said_of = numbered.groups()
        outcome = bench.use(at=at, type=event_type, id=name, seq=int(seq), data=read_data(said_of))
        if charge == outcome.removeprefix("dead_lettered."):
            charge = "-"
        else:
            assert outcome in ("rated", "amended"), f"the engine answered {outcome}"
    elif named := re.fullmatch(r"(\S+) as (\S+): (.+)", what):
        outcome = bench.use(at=at, type=named[1], id=named[2], data=read_data(named[3]))
        assert outcome == "rated", f"the engine answered {outcome}"
    elif word.endswith(":"):
        outcome = bench.use(at=at, type=word.removesuffix(":"), data=read_data(rest))
        if charge == outcome.removeprefix("dead_lettered."):
            charge = "-"
        else:
            assert outcome == "rated", f"the engine answered {outcome}: {bench.letter().detail}"
    else:
        outcome = use(bench, at, plain(word), rest)
        assert outcome == "rated", f"the engine answered {outcome}: {bench.letter().detail}"
    lines = [json.loads(line)["amount"] for _, line in bench.partition.outputs.lines[lines_before:]]
    found = "-" if not lines else str(sum(map(pico_of, lines)))
    expected = "-" if charge == "-" else str(dollars(charge))
    assert found == expected, f"charge: the engine says {found} pico"
    assert bench.balance() == dollars(balance), f"balance: the engine says {bench.balance()} pico"
    crossed = [f"{row[0]} {row[3]}" for row in map(told, bench.partition.outputs.alerts[told_before:])]
    assert crossed == ([] if alerts == "-" else alerts.split(", ")), f"alerts: the engine says {crossed}"


def rerate(bench: Bench, text: str) -> str:
    said = re.fullmatch(r"(\S+) by (\d+) from (\S+ \S+) to (\S+ \S+) because (.+)", text)
    assert said, "a re-rating is `rerate PRICE by 1 from TIME to TIME because REASON`"
    asked = Rerating(int(said[2]), instant(said[3]), instant(said[4]))
    return bench.rerate(said[1], asked, f"rerate {len(bench.log)}", reason=said[5])


def use(bench: DeskBench, at: int, units: str, rest: str) -> str:
    used = re.fullmatch(r"(\S+)(?: in (\S+))?(?: held since (.+))?(?: of lease (\S+))?(?: as (\S+))?", rest)
    assert used, "usage is `3 PRICE`, `3 PRICE in SCOPE` or `3 PRICE held since TIME`, and may end in `as NAME`"
    price, scope, since, lease, name = used.groups()
    more: dict[str, Any] = {"scope": scope} if scope else {}
    if since:
        number = len(bench.log)
        hold = bench.hold(Bound(1000 * NANO, (price,), (price,)), at=instant(since), number=number, ttl_us=10 * DAY)
        more["hold"] = seal_token(KEY, hold)
    if lease:
        more["hold"] = seal_token(KEY, bench.leases[lease])
    if name:
        more["id"] = name
    return bench.use(at=at, data={"units": units, "price": price}, **more)


def sell(bench: Bench, what: str) -> str:
    """`PLAN`, or `PLAN from TIME`."""
    plan, _, since = what.partition(" from ")
    return bench.sell(plan, instant(since) if since else None)


def top_up(bench: Bench, word: str, rest: str) -> str:
    """`$50 at $20`, with `every 60 min` and `2 attempts` behind it; or the number of a request that was paid or failed."""
    if word == "no":
        return bench.command("remove_top_up")
    if word != "top-up":
        return bench.answer(request_id("acme", int(rest)), paid=word == "paid")
    read = re.fullmatch(r"(\S+) at (\S+)(?: every (\d+) min)?(?: (\d+) attempts)?", rest)
    assert read, top_up.__doc__
    terms: dict[str, Any] = {} if read[3] is None else {"cooldown_s": int(read[3]) * 60}
    terms |= {} if read[4] is None else {"attempts": int(read[4])}
    return bench.top_up(plain(read[2]), plain(read[1]), **terms)


def agree(bench: Bench, what: str) -> str:
    """`PRICE at MODEL TIERS; MODIFIER`, `PRICE from TIME at ...`, or `PRICE as published`."""
    read = re.fullmatch(r"(\S+)(?: from (\S+ \S+))? (?:at (\S+) (.+)|as published)", what)
    assert read, agree.__doc__
    name, since, model, said = read.groups()
    terms = None
    if model:
        tiers, *around = said.split("; ")
        sold = read_price(name, model, tiers, around)
        stated = msgspec.to_builtins(sold).items()
        terms = {key: value for key, value in stated if key not in ("meter", "where") and value is not None}
    return bench.agree(name, terms, from_us=instant(since) if since else None)


def correct(bench: Bench, word: str, rest: str) -> str:
    """Cancel or amend the newest revision of the event with this id."""
    name, _, other = rest.partition(" to ")
    sent = [json.loads(record.value) for record in bench.log if record.value and record.value[:1] == b"{"]
    (original,) = [event for event in sent if event["id"] == name]
    amends = [event["data"]["amended"] for event in sent if event["type"] == AMEND]
    revisions = [original, *(event for event in amends if event["id"] == name)]
    amended = None
    if word == "amend":
        first, second = other.split(" ", 1)
        data = {"units": plain(first), "price": second} if "units" in original["data"] else read_data(other)
        amended = json.dumps(revisions[-1] | {"data": data}).encode()
    return bench.correct(json.dumps(revisions[-1]).encode(), amended, len(revisions) - 1)


def read_data(text: str) -> dict[str, Any]:
    """`tokens 3, usage.cached 2, status done` as an event's data: numbers where they read as numbers."""
    data: dict[str, Any] = {}
    for path, value in pairs(text, " "):
        *outer, last = path.split(".")
        inside = data
        for name in outer:
            inside = inside.setdefault(name, {})
        inside[last] = json.loads(plain(value)) if re.fullmatch(r"-?[\d_]+(\.\d+)?", value) else value
    return data


def finally_is(bench: Bench, name: str, *amounts: str) -> None:
    allocation = bench.allocation()
    if name == "debt":
        assert bench.debt() == dollars(amounts[0]), f"debt: the engine says {bench.debt()} pico"
        return
    if name == "worth":
        unit = bench.account().unit
        assert unit is not None
        assert unit.worth(bench.balance()) == dollars(amounts[0]), (
            f"worth: the engine says {unit.worth(bench.balance())}"
        )
        return
    if name.startswith("spend "):
        spent = sum(bench.account().scopes[name.removeprefix("spend ")].spend.values())
        assert spent == dollars(amounts[0]), f"spend: the engine says {spent} pico"
        return
    burnt = sum(pico for (lot, _), pico in allocation.burnt.items() if lot == name)
    refunded = sum(pico for (lot, _), pico in allocation.refunded.items() if lot == name)
    found = [allocation.remaining[name], burnt, allocation.expired.get(name, 0)]
    found += [refunded, allocation.voided.get(name, 0), allocation.carried.get(name, 0)]
    expected = [dollars(amount) for amount in amounts]
    expected += [0] * (6 - len(expected))
    assert found == expected, f"remaining, burnt, expired, refunded, voided, carried: the engine says {found} pico"


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_the_engine_bills_what_the_table_says(path: Path) -> None:
    Scenario(path.name, path.read_text()).run()


def test_every_lot_of_a_scenario_is_accounted_for() -> None:
    """A table that leaves out a lot, a scope or the debt would pass whatever became of it."""
    for path in SCENARIOS:
        scenario = Scenario(path.name, path.read_text())
        lots = {columns[0] for _, columns in scenario.sections["GRANTS"]}
        lots |= {f"{columns[0]}~carried" for _, columns in scenario.sections["GRANTS"] if len(columns) > 7}
        lots |= {columns[1].split(" ")[1] for _, columns in scenario.sections["EVENTS"] if columns[1][:6] == "grant "}
        paid = [columns[1] for _, columns in scenario.sections["EVENTS"] if columns[1][:5] == "paid "]
        lots |= {request_id("acme", int(what.removeprefix("paid "))) for what in paid}
        recurring = [columns[0] for _, columns in scenario.sections["RECURRING"]]
        lots |= {row[0] for _, row in scenario.sections["FINALLY"] if row[0].rpartition("@")[0] in recurring}
        worth = {"worth"} if scenario.sections["UNIT"] else set()
        scopes = {f"spend {columns[0]}" for _, columns in scenario.sections["SCOPES"]}
        assert {columns[0] for _, columns in scenario.sections["FINALLY"]} == lots | scopes | {"debt"} | worth, (
            path.name
        )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("2026-03-10 12:00  3 x  $4  -$3", r"s\.txt:4:.*\n.*charge: the engine says 3000000000000 pico"),
        ("2026-03-10 12:00  3 x  $3  -$4", r"s\.txt:4:.*\n.*balance"),
        ("2026-03-10 12:00  3 x  $3  -$3  low crossed", r"s\.txt:4:.*\n.*alerts"),
        ("2026-03-10 12:00  3 y  $3  -$3", r"s\.txt:4:.*\n.*no_price"),
        ("2026-03-10 12:00  3 x", r"s\.txt:4:"),
    ],
)
def test_a_wrong_table_fails_and_names_file_and_line(line: str, message: str) -> None:
    text = f"PRICES\nx  per_unit  rest: 1\nEVENTS\n{line}\nFINALLY\ndebt  $3\n"
    with pytest.raises(ScenarioError, match=message):
        Scenario("s.txt", text).run()


def test_wrong_lots_and_debt_fail() -> None:
    head = "PRICES\nx  per_unit  rest: 1\nGRANTS\nl  paid  $2  1  -  -\nEVENTS\n2026-03-10 12:00  3 x  $3  -$1\n"
    Scenario("s.txt", head + "FINALLY\nl  $0  $2  $0\ndebt  $1\n").run()
    for last in ("l  $0  $1  $0", "debt  $2"):
        with pytest.raises(ScenarioError, match=r"s\.txt:8:"):
            Scenario("s.txt", head + f"FINALLY\n{last}\n").run()
