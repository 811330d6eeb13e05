"""Volume: all units of the period at the rate, and with the fee, of the tier that they reach.

Reaching a tier re-prices what was used before (law R9), so this is the one model whose charges may be negative."""

from msgspec.structs import replace

from engine.prices.curve import Rung, curve_of
from engine.prices.model import Model
from engine.prices.price import Terms


def _terms(rungs: tuple[Rung, ...]) -> list[Terms]:
    return [(rung.up_to, curve_of([replace(rung, up_to=None)])) for rung in rungs]


MODEL = Model("volume", _terms, tiered=True, has_per=True, has_fee=True, marginal=False, rising=False)
