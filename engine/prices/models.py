"""The models that a catalogue may name (law R4), and prices compiled by them."""

from collections.abc import Mapping
from fractions import Fraction
from typing import Final

from msgspec.structs import replace

from engine.prices import dynamic, flat, graduated, package, per_unit, percentage, step, volume
from engine.prices.curve import Rung
from engine.prices.model import Model
from engine.prices.modifiers import Modifiers
from engine.prices.per_event import PerEvent
from engine.prices.price import Price, Short

MODELS: Final[dict[str, Model]] = {
    module.MODEL.name: module.MODEL
    for module in (per_unit, graduated, package, volume, step, flat, percentage, dynamic)
}
PLAIN: Final = Modifiers()
_ALL: Final = Fraction(1)


def compile_price(
    name: str,
    meter: str,
    where: Mapping[str, str],
    model: str,
    rungs: list[Rung],
    modifiers: Modifiers = PLAIN,
    version: int = 0,
    per_event: PerEvent | None = None,
    estimate: int | None = None,
    *,
    prorate: bool = True,
) -> Price:
    """A price from its tiers in rising order, the last one open; one that has none comes as one open tier."""
    row = MODELS[model]
    numbered = tuple(replace(rung, number=number) for number, rung in enumerate(rungs, start=1))
    terms = modifiers.applied(row.terms(numbered))
    marginal = row.marginal and modifiers.marginal
    price = Price(name, meter, where, terms, marginal=marginal, version=version, per_event=per_event, estimate=estimate)
    price.floor, price.prorates, price.has_overage = modifiers.floor, prorate, modifiers.overage != 1

    def in_part(part: Fraction, bound: Fraction) -> Short | None:
        short = modifiers.for_part(part if prorate else _ALL, bound if prorate or not bound else _ALL)
        if short == modifiers:
            return None
        included = None if short.included == modifiers.included else short.included
        commitment = None if short.commitment == modifiers.commitment else short.commitment or 0
        return Short(included, commitment, tuple(short.applied(row.terms(numbered))))

    if modifiers.has_parts:
        price.in_part = in_part
    if modifiers.discount or modifiers.overage != 1:
        listed = replace(modifiers, discount=Fraction(0), overage=Fraction(1))
        price.undiscounted = compile_price(
            name, meter, where, model, rungs, listed, version, per_event, estimate, prorate=prorate
        )
    return price
