"""Step: one amount for all units, that of the tier which they reach. Nothing owes nothing."""

from msgspec.structs import replace

from engine.prices.curve import Rung, curve_of
from engine.prices.model import Model
from engine.prices.price import Terms


def _terms(rungs: tuple[Rung, ...]) -> list[Terms]:
    steps, reached = [], 0
    for rung in rungs:
        steps.append(replace(rung, amount=0, per=1, fee=rung.amount - reached))
        reached = rung.amount
    return [(None, curve_of(steps))]


MODEL = Model("step", _terms, tiered=True, has_per=False, has_fee=False, marginal=False, rising=True)
