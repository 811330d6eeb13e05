"""Flat: one amount for a period in which anything was used, however much."""

from msgspec.structs import replace

from engine.prices.curve import Rung, curve_of
from engine.prices.model import Model
from engine.prices.price import Terms


def _terms(rungs: tuple[Rung, ...]) -> list[Terms]:
    return [(None, curve_of(replace(rung, amount=0, per=1, fee=rung.amount) for rung in rungs))]


MODEL = Model("flat", _terms, tiered=False, has_per=False, has_fee=False, marginal=False, rising=False)
