"""Dynamic: the amount that each event carries, times `factor`. Where it carries none, the `estimate` counts."""

from engine.prices.curve import Rung, curve_of
from engine.prices.model import Model
from engine.prices.price import Terms


def _terms(rungs: tuple[Rung, ...]) -> list[Terms]:
    return [(None, curve_of(rungs))]


MODEL = Model(
    "dynamic", _terms, tiered=False, has_per=False, has_fee=False, marginal=True, rising=False, amount_key="factor"
)
