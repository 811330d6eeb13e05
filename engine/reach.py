"""What a request may come to use, before it has run: prices, and what bounds each (README, "What is asked")."""

from collections.abc import Collection, Mapping
from itertools import product
from typing import Final, Literal

from msgspec import Struct

from engine.catalog import Catalogue, NoPrice, Plan
from engine.meters import RISING, Meter
from engine.prices.price import Price

CELLS_ASKED_MAX: Final = 256  # of one meter: a request that may reach more is as good as unbounded


class Part(Struct, frozen=True):
    """Prices that share one quantity: that of a field bound, by its place in the question, or a count (None)."""

    bound: int | None
    reached: tuple[str, ...]
    held: tuple[str, ...]  # those of them that no other dominates


class Unreachable(Struct, frozen=True):
    """Why a request cannot be bounded: the reason's wire name, and the meter, field or dimension it is about."""

    reason: Literal["no_meter", "model_not_entitled", "unbounded"]
    name: str


def reach_of(
    catalogue: Catalogue | None,
    plan_name: str,
    plan: Plan | None,
    event_type: str,
    data: Mapping[str, str],
    reach: Mapping[str, tuple[str, ...]],
    fields: tuple[tuple[str, ...], ...],
) -> tuple[Part, ...] | Unreachable:
    """The parts of a request; `plan` is as it is in force now, `fields` are those of each field bound.

    The meters of one field all take what the field holds, so each meter is in one part only, and no part has two
    meters of the same field."""
    meters = catalogue.meters_of.get(event_type) if catalogue else None
    if not meters:
        return Unreachable("no_meter", event_type)
    if plan is None:
        return Unreachable("model_not_entitled", plan_name)
    known = {
        name: tuple(sorted({*reach.get(name, ()), *((data[name],) if name in data else ())}))
        for name in data.keys() | reach.keys()
    }
    reached = [(meter, _prices(plan, meter, known)) for meter in meters if meter.may_count(known)]
    faults = [found for _, found in reached if isinstance(found, Unreachable)]
    faults.sort(key=lambda fault: fault.reason != "model_not_entitled")  # it comes first in the order of reasons
    if faults:
        return faults[0]
    for _, prices in reached:
        if isinstance(prices, dict):
            fees = [name for name, price in sorted(prices.items()) if price.per_event is not None]
            if fees:  # no bound of a field bounds them: they depend on how many events there will be
                return Unreachable("unbounded", fees[0])
    parts: dict[tuple[int | None, int], dict[str, Price]] = {}
    seen: dict[str | None, int] = {}
    for meter, prices in reached:
        assert not isinstance(prices, Unreachable)
        if meter.kind is not None and meter.kind not in RISING:
            return Unreachable("unbounded", meter.name)  # one event more may move what lots have paid by now
        named = meter.bounded_by
        layer = seen[named] = seen.get(named, -1) + 1
        bound = None
        if named is not None:
            bound = next((place for place, names in enumerate(fields) if named in names), None)
            if bound is None:
                return Unreachable("unbounded", named)
        parts.setdefault((bound, layer), {}).update(prices)
    return tuple(
        Part(bound, tuple(sorted(prices)), undominated(prices.values())) for (bound, _), prices in parts.items()
    )


def _prices(plan: Plan, meter: Meter, known: Mapping[str, tuple[str, ...]]) -> dict[str, Price] | Unreachable:
    """The prices of every cell of a meter that the request may fall in."""
    values: list[tuple[str | None, ...]] = []
    cells = 1
    for dimension in meter.group_by:
        values.append(meter.reachable(dimension, known))
        cells *= len(values[-1])
        if cells > CELLS_ASKED_MAX:
            return Unreachable("unbounded", dimension)
    found: dict[str, Price] = {}
    for cell in product(*values):
        price = _price(plan, meter, cell)
        if isinstance(price, Unreachable):
            return price
        found[price.name] = price
    return found


def _price(plan: Plan, meter: Meter, cell: tuple[str | None, ...]) -> Price | Unreachable:
    if None not in cell:
        try:
            return plan.price_of(meter, tuple(value for value in cell if value is not None))
        except NoPrice:
            return Unreachable("model_not_entitled", meter.name)
    stated = dict(zip(meter.group_by, cell, strict=True))
    fitting = [
        price
        for price in plan.prices_of(meter)
        if all(stated[dimension] in (None, value) for dimension, value in price.where.items())
    ]
    if not fitting:
        return Unreachable("model_not_entitled", meter.name)
    for price in fitting:
        for dimension in price.where:
            if stated[dimension] is None:
                return Unreachable("unbounded", dimension)
    return fitting[0]


def dominates(price: Price, other: Price) -> bool:
    """Whether no units of the other can cost more than as many of this one; of equals, the first by name does. What a unit
    costs that draws on a shared allowance depends on what else is used."""
    if price.shared is not None or other.shared is not None:
        return False
    dearest = other.dearest_rate
    if price.name == other.name or dearest is None or price.cheapest_rate < dearest:
        return False
    return price.name < other.name or price.dearest_rate is None or other.cheapest_rate < price.dearest_rate


def undominated(prices: Collection[Price]) -> tuple[str, ...]:
    """The names of those prices that no other of them dominates, in order."""
    alone = [price for price in prices if price.shared is None]
    sharing = [price.name for price in prices if price.shared is not None]
    if not alone:
        return tuple(sorted(sharing))
    rates = {price.name: (price.cheapest_rate, price.dearest_rate) for price in alone}
    floor = max(cheapest for cheapest, _ in rates.values())
    held = [name for name, (_, dearest) in rates.items() if dearest is None or dearest > floor]
    if not any(rates[name][0] == floor for name in held):
        held.append(min(name for name, (cheapest, _) in rates.items() if cheapest == floor))
    return tuple(sorted([*held, *sharing]))
