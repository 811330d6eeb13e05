"""Scenarios as they are read: the sections of a table, the catalogue in it, and what a line says. The grammar stands in
tests/test_scenarios.py.
"""

import json
import re
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final, cast

import msgspec
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
from engine.meters import (
    BandDefinition,
    ConditionDefinition,
    DimensionDefinition,
    MeterDefinition,
    TokenShapeDefinition,
)
from engine.meters.definitions import HoursDefinition
from engine.meters.hours import DAYS
from engine.outcomes import DeadLetterReason, Refusal
from engine.periods import EPOCH
from engine.reasons import Reason
from engine.units import UnitDefinition
from tests.engine.bench import DAY, MINUTE, pico_of, us

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


def read_nested(text: str) -> list[tuple[list[str], str]]:
    """`tokens 3, usage.cached 2, note 9 letters`: the path of each field, and its value."""
    filled = ((path.split("."), value, re.fullmatch(r"(\d+) letters", value)) for path, value in pairs(text, " "))
    return [(path, "n" * int(letters[1]) if letters else value) for path, value, letters in filled]


def read_data(text: str) -> dict[str, Any]:
    """`tokens 3, usage.cached 2, status done` as an event's data: numbers where they read as numbers."""
    data: dict[str, Any] = {}
    for (*outer, last), value in read_nested(text):
        inside = data
        for name in outer:
            inside = inside.setdefault(name, {})
        inside[last] = json.loads(plain(value)) if re.fullmatch(r"-?[\d_]+(\.\d+)?", value) else value
    return data


# ---------------------------------------------------------------------------------------------- lines of EVENTS

QUESTIONS: Final = ("check", "hold", "lease", "extend")
REPEATED: Final = re.compile(r"([\d,]+) times(?:, a (minute|day) apart)?: (.+)")


def is_money(charge: str) -> bool:
    return re.fullmatch(r"-?\$?[\d,]*\.?\d+", charge) is not None


def repetitions(what: str) -> list[tuple[str, int]]:
    """What a line does, as often as it says, and how long after the one before, in microseconds. `*` is the number."""
    repeated = REPEATED.fullmatch(what)
    if repeated is None:
        return [(what, 0)]
    parts, step_us = repeated[3].split("; then "), {None: 0, "minute": MINUTE, "day": DAY}[repeated[2]]
    found = [part.replace("*", str(number)) for number in range(1, int(plain(repeated[1])) + 1) for part in parts]
    return [(_later(each, place * step_us), step_us if place else 0) for place, each in enumerate(found)]


def _later(what: str, by_us: int) -> str:
    """The same, with the time that it says behind `from` so much later."""
    said = re.search(r"(?<= from )\d{4}-\d\d-\d\d \d\d:\d\d", what)
    if said is None or not by_us:
        return what
    return what.replace(said[0], (EPOCH + timedelta(microseconds=instant(said[0]) + by_us)).strftime("%Y-%m-%d %H:%M"))


def reason_said(what: str, charge: str) -> Refusal | DeadLetterReason | Reason | None:
    """Why nothing comes of a line, as it says itself: a command is refused, a question is answered no, anything else is set
    aside."""
    what = what if (repeated := REPEATED.fullmatch(what)) is None else repeated[3]
    if what.startswith("refused "):
        return Refusal(what.removeprefix("refused ").partition(":")[0])
    said = charge.split(" ")[0]
    if what.split(" ")[0] in QUESTIONS:
        return next((reason for reason in Reason if reason == said), None)
    return next((reason for reason in DeadLetterReason if reason == said), None)
