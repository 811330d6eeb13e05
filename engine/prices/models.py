"""The models that a catalogue may name (law R4), and prices compiled by them."""

from collections.abc import Mapping
from typing import Final

from msgspec.structs import replace

from engine.prices import flat, graduated, package, per_unit, step, volume
from engine.prices.curve import Rung
from engine.prices.model import Model
from engine.prices.modifiers import Modifiers
from engine.prices.price import Price

MODELS: Final[dict[str, Model]] = {
    module.MODEL.name: module.MODEL for module in (per_unit, graduated, package, volume, step, flat)
}
PLAIN: Final = Modifiers()


def compile_price(
    name: str,
    meter: str,
    where: Mapping[str, str],
    model: str,
    rungs: list[Rung],
    modifiers: Modifiers = PLAIN,
    version: int = 0,
) -> Price:
    """A price from its tiers in rising order, the last one open; one that has none comes as one open tier."""
    row = MODELS[model]
    numbered = tuple(replace(rung, number=number) for number, rung in enumerate(rungs, start=1))
    terms = modifiers.applied(row.terms(numbered))
    return Price(name, meter, where, terms, marginal=row.marginal and modifiers.marginal, version=version)
