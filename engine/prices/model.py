"""What a price model is: which keys its price has in a catalogue, and the terms that its tiers come to."""

from collections.abc import Callable

from msgspec import Struct

from engine.prices.curve import Rung
from engine.prices.price import Terms


class Model(Struct, frozen=True):
    """A row of `models.py`. A price without tiers is compiled as if it had one, open one."""

    name: str
    terms: Callable[[tuple[Rung, ...]], list[Terms]]
    tiered: bool  # it has `tiers`; else `amount`
    has_per: bool  # an amount is for `per` units; else for all of them
    has_fee: bool  # a tier may have a `flat` amount beside its rate
    marginal: bool  # each unit stands by itself, so that a new version may begin inside a period
    rising: bool  # amounts must not fall from tier to tier
    amount_key: str = "amount"  # the key of a price without tiers that says what it costs
