"""Package: `amount` for each begun `per` units of the period."""

from msgspec.structs import replace

from engine.prices.curve import Rung, curve_of
from engine.prices.model import Model
from engine.prices.price import Terms


def _terms(rungs: tuple[Rung, ...]) -> list[Terms]:
    return [(None, curve_of(replace(rung, begun=True) for rung in rungs))]


MODEL = Model("package", _terms, tiered=False, has_per=True, has_fee=False, marginal=False, rising=False)
