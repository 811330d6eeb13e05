"""What is asked of "what if": other rates of GPUs, prices, utilisation, or another bearer of what no request took.

Wire form: README.md, "What if". What comes of it is a projection, never an account of what was."""

from collections.abc import Iterable
from typing import Annotated, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.cost.economics import Costs, Economics, Idle, Takings, at_utilisation, economics
from engine.cost.gpu_rates import PPM, GpuRate, GpuRates, RateDocument
from engine.events import TEXT_MAX, Malformed
from engine.money import PICO, NotADecimal, parse_amount, round_half_even

NAMED_MAX: Final = 1_000
_PERCENT: Final = PICO * 100 // PPM  # pico of a percentage that are one millionth

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
_Decimal = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
_Decimals = Annotated[dict[_Name, _Decimal], msgspec.Meta(max_length=NAMED_MAX)]


class Change(Struct, forbid_unknown_fields=True, frozen=True):
    """What is otherwise; what is not named stays. Numbers are decimal text."""

    gpu_rates: _Decimals = {}  # by kind: what a GPU costs an hour, at all times; its overhead stays
    price_factors: _Decimals = {}  # by model: what is charged is multiplied by it
    utilisation_percent: _Decimal | None = None  # of the GPUs, by requests
    spread_idle: bool = True  # False: nobody bears what no request took
    idle_payers: Annotated[
        dict[_Name, _Name], msgspec.Meta(max_length=NAMED_MAX)
    ] = {}  # by model: the account that does
    target_margin_percent: _Decimal = "50"  # of the price floors


class Scenario:
    """A change, compiled."""

    def __init__(self, change: Change) -> None:
        """Raises Malformed, naming the field."""
        self.change: Final = change
        self.idle: Final = Idle(change.spread_idle, change.idle_payers)
        self._factors = {model: _amount("price_factors", text) for model, text in change.price_factors.items()}
        self._utilisation_ppm: int | None = None
        if change.utilisation_percent is not None:
            self._utilisation_ppm = _ppm("utilisation_percent", change.utilisation_percent)
            if not 0 < self._utilisation_ppm <= PPM:
                raise Malformed("utilisation_percent: it is more than 0, and 100 at most")
        self.margin_ppm: Final = _ppm("target_margin_percent", change.target_margin_percent)
        if self.margin_ppm >= PPM:
            raise Malformed("target_margin_percent: it is less than 100: no price leaves all of itself")
        for text in change.gpu_rates.values():
            _amount("gpu_rates", text)

    def rates(self, published: RateDocument | None) -> GpuRates | None:
        """In place of the published ones; None: they stay. Raises Malformed for a kind that nobody has a rate of."""
        asked = self.change.gpu_rates
        if not asked:
            return None
        if published is None:
            raise Malformed("gpu_rates: no rates are published: there is nothing that they could be held against")
        overheads = {rate.kind: rate.overhead_ppm for rate in sorted(published.rates, key=lambda rate: rate.from_us)}
        unknown = sorted(asked.keys() - overheads.keys())
        if unknown:
            raise Malformed(
                f"gpu_rates: {unknown[0][:40]} has no published rate: there is {', '.join(sorted(overheads))}"
            )
        kept = tuple(rate for rate in published.rates if rate.kind not in asked)
        new = tuple(GpuRate(kind, 0, amount, overheads[kind]) for kind, amount in sorted(asked.items()))
        return GpuRates(replace(published, rates=kept + new))

    def project(self, costs: Costs, takings: Iterable[Takings]) -> Economics:
        """`costs` under `rates`, where those are others."""
        if self._utilisation_ppm is not None:
            costs = at_utilisation(costs, self._utilisation_ppm)
        return economics(costs, map(self._priced, takings), self.idle)

    def _priced(self, takings: Takings) -> Takings:
        factor = self._factors.get(takings.model)
        return takings if factor is None else replace(takings, amount=round_half_even(takings.amount * factor, PICO))


def _amount(field: str, text: str) -> int:
    try:
        amount = parse_amount(text)
    except NotADecimal as error:
        raise Malformed(f"{field}: {error}") from error
    if amount < 0:
        raise Malformed(f"{field}: {text} is below 0")
    return amount


def _ppm(field: str, text: str) -> int:
    parts, rest = divmod(_amount(field, text), _PERCENT)
    if rest:
        raise Malformed(f"{field}: {text} has more than 4 digits behind the point")
    return parts


def in_a_month(amount: int, stretch_us: int, month_us: int) -> int:
    """As much in a month, half-even, if it went on like in the stretch."""
    return round_half_even(amount * month_us, stretch_us)


_decoder: Final = msgspec.json.Decoder(Change)


def parse_change(value: bytes) -> Scenario:
    """The change in these bytes. Raises Malformed, naming the field."""
    try:
        change = _decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(str(error)[:200]) from error
    return Scenario(change)
