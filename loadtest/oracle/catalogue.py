"""A catalogue version: which meters take an event, and what they count of it."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from math import lcm
from typing import Any

from loadtest.oracle.meters import Meter, read_meter
from loadtest.oracle.prices import Allowance, Ladder, Price, read_price
from loadtest.oracle.records import SECOND_US, fixed_point
from loadtest.oracle.tokens import with_tokens


@dataclass(frozen=True)
class Plan:
    currency: str
    prices: dict[str, Price]
    close_after_us: int
    fees: dict[
        str, tuple[int, bool, bool]
    ]  # pico of a month, whether a part of it owes less, and whether it is in advance
    seats: dict[str, int]  # pico of a month for one of them
    commitments: dict[str, tuple[int, bool, list[str]]]  # the same, and for which prices; none named: for all


class Version:
    """One numbered catalogue."""

    def __init__(self, number: int, document: Mapping[str, Any]) -> None:
        self.number = number
        self.meters = [
            read_meter(name, body, document.get("dimensions", {})) for name, body in sorted(document["meters"].items())
        ]
        self.token_shapes: Mapping[str, Mapping[str, Any]] = document.get("token_shapes", {})
        self.stream_windows_us = {
            event_type: body.get("window_s", 3_600) * SECOND_US
            for event_type, body in document.get("streams", {}).items()
        }
        adds_up = {meter.name: meter.adds_up for meter in self.meters}
        self.plans = {
            name: Plan(
                body["currency"],
                sharing(
                    {price: read_price(price, text, adds_up[text["meter"]]) for price, text in body["prices"].items()},
                    body,
                ),
                body.get("close_after_s", 86_400) * SECOND_US,
                {
                    fee: (pico(said["amount"]), said.get("prorate", True), said.get("in_advance", False))
                    for fee, said in body.get("fees", {}).items()
                },
                {seat: pico(said["amount"]) for seat, said in body.get("seats", {}).items()},
                {
                    each: (pico(said["amount"]), said.get("prorate", True), said.get("prices", []))
                    for each, said in body.get("commitments", {}).items()
                },
            )
            for name, body in document["plans"].items()
        }
        self.prices = [price for plan in self.plans.values() for price in plan.prices.values()]
        self.grains = lcm(
            *(price.grains for price in self.prices)
        )  # of a pico: all that is owed is a whole number of them
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


def sharing(prices: dict[str, Price], plan: Mapping[str, Any]) -> dict[str, Price]:
    """The prices of a plan, with what they share."""
    found = dict(prices)
    for body in plan.get("allowances", {}).values():
        units = fixed_point(body["quantity"], 9)
        assert units, f"{body['quantity']} is no allowance that may be published"
        order = in_order(prices, body)
        for name in order:
            found[name] = replace(prices[name], shares=Allowance(units, order, body.get("prorate", True)))
    for body in plan.get("shared_tiers", {}).values():
        order = in_order(prices, body)
        for name in order:
            found[name] = replace(prices[name], shares=Ladder(order, prices[name].model == "volume"))
    return found


def in_order(prices: Mapping[str, Price], body: Mapping[str, Any]) -> tuple[str, ...]:
    """Of those that share something: the dearest first, unless they are to be as listed."""
    order = list(body["prices"])
    if body.get("order", "dearest_first") == "dearest_first":
        order.sort(key=lambda name: (-cost(prices[name]), name))
    return tuple(order)


def cost(price: Price) -> Fraction:
    """Of a unit, where it costs most."""
    return max(Fraction(tier.amount, tier.per) for tier in price.tiers) * price.kept


def pico(text: str) -> int:
    amount = fixed_point(text, 12)
    assert amount, f"{text} is no fee that may be published"
    return amount


def version_of(number: int, catalogue: Mapping[str, Any] | Version) -> Version:
    """Read from its JSON document, unless that was done before."""
    return catalogue if isinstance(catalogue, Version) else Version(number, catalogue)
