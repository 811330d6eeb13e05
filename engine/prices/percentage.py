"""Percentage: `percent` of what a meter sums, a field that holds money. With terms for each event, of its fees."""

from msgspec.structs import replace

from engine.money import NANO
from engine.prices.curve import Rung, curve_of
from engine.prices.model import Model
from engine.prices.price import Terms


def _terms(rungs: tuple[Rung, ...]) -> list[Terms]:
    return [(None, curve_of(replace(rung, per=100 * NANO) for rung in rungs))]


MODEL = Model(
    "percentage", _terms, tiered=False, has_per=False, has_fee=False, marginal=True, rising=False, amount_key="percent"
)
