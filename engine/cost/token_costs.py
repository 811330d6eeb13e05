"""What the tokens of a model cost: the cost of each execution, split over its tokens by the work that each made.

A token of the prompt that is computed makes its prefill; each token of the context, computed or cached, is read once for
every token made behind the first; a token made makes its decode, and reads those made before it. So a cached token is
cheap, and not free."""

from enum import StrEnum

from msgspec import Struct

from engine.cost.gpu_rates import Profile
from engine.cost.replica import RequestCost
from engine.cost.served import Served
from engine.cost.split import largest_remainder


class TokenClass(StrEnum):
    """The wire names are stable."""

    UNCACHED_INPUT = "uncached_input"
    CACHED_INPUT = "cached_input"
    OUTPUT = "output"


Split = tuple[int, int, int]  # in the order of the classes


def work(served: Served, profile: Profile) -> Split:
    """Picoseconds that the profile gives for each class of its tokens; together those of both its phases."""
    made = max(served.output - 1, 0)  # the first one ends the prefill
    computed, read = served.prompt - served.cached, profile.context_read_ps * made
    return (
        computed * (profile.prefill_token_ps + read),
        served.cached * read,
        made * profile.decode_token_ps + profile.context_read_ps * (made * (made + 1) // 2),
    )


class ModelTokenCosts(Struct):
    """Pico-units of a model's executions, by class. What no profile tells the work of is in none."""

    uncached_input: int = 0
    cached_input: int = 0
    output: int = 0

    def of(self, token_class: TokenClass) -> int:
        """Of one class."""
        amount: int = getattr(self, token_class.value)
        return amount


def note(into: ModelTokenCosts, cost: RequestCost, profile: Profile | None) -> None:
    """Add an execution's cost in one hour, as far as it is known and can be split."""
    weights = None if profile is None else work(cost.served, profile)
    if not cost.amount or weights is None or not any(weights):
        return
    uncached, cached, output = largest_remainder(cost.amount, weights)
    into.uncached_input += uncached
    into.cached_input += cached
    into.output += output
