"""A catalogue version: which meters take an event, what they count of it, and what a quantity owes."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import Any

from loadtest.oracle.meters import Meter, read_meter
from loadtest.oracle.records import fixed_point
from loadtest.oracle.tokens import with_tokens


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
class Plan:
    currency: str
    prices: dict[str, Price]


class Version:
    """One numbered catalogue."""

    def __init__(self, number: int, document: Mapping[str, Any]) -> None:
        self.number = number
        self.meters = [
            read_meter(name, body, document.get("dimensions", {})) for name, body in sorted(document["meters"].items())
        ]
        self.token_shapes: Mapping[str, Mapping[str, Any]] = document.get("token_shapes", {})
        self.plans = {
            name: Plan(body["currency"], {price: read_price(price, text) for price, text in body["prices"].items()})
            for name, body in document["plans"].items()
        }
        tiers = [tier for plan in self.plans.values() for price in plan.prices.values() for tier in price.tiers]
        self.grains = lcm(*(tier.per for tier in tiers))  # of a pico: every rate is a whole number of them
        self._found: dict[tuple[str, str, tuple[str, ...]], Price | None] = {}

    def fields_of(self, event_type: str, data: dict[str, Any]) -> dict[str, Any]:
        """What meters see of an event of that type."""
        if event_type not in self.token_shapes:
            return data
        read: set[str] = set()
        for meter in self.meters:
            if meter.event_type == event_type:
                read |= {name.removeprefix("tokens.") for name in meter.reads() if name.startswith("tokens.")}
        return with_tokens(data, self.token_shapes[event_type], read)

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
