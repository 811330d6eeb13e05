"""Per unit: `amount` for every `per` units, in proportion."""

from engine.prices.curve import Rung, curve_of
from engine.prices.model import Model
from engine.prices.price import Terms


def _terms(rungs: tuple[Rung, ...]) -> list[Terms]:
    return [(None, curve_of(rungs))]


MODEL = Model("per_unit", _terms, tiered=False, has_per=True, has_fee=False, marginal=True, rising=False)
