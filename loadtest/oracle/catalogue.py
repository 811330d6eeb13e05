"""A catalogue version: which meters take an event, what they count of it, and what a quantity owes."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Any

from loadtest.oracle.records import DeadLetterError, Number, fixed_point

DIMENSION_CHARACTERS_MAX = 128


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
