"""Graduated: each unit at the rate of the tier it falls in; a tier's fee is due once the quantity is above its start."""

from engine.prices.curve import Rung, curve_of
from engine.prices.model import Model
from engine.prices.price import Terms


def _terms(rungs: tuple[Rung, ...]) -> list[Terms]:
    return [(None, curve_of(rungs))]


MODEL = Model("graduated", _terms, tiered=True, has_per=True, has_fee=True, marginal=True, rising=False)
