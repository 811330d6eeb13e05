"""What several prices of a plan share: the tiers that their units fill together (law R1; README, "Shared tiers and
allowances"). An allowance is a first tier that costs nothing."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from engine.money import round_half_even

SHARED: Final = -3  # the number of a tier that no price has: of units that a shared allowance takes


class Shared(Struct, frozen=True):
    """Tiers that these prices fill together, each at its own rates."""

    name: str
    prices: tuple[str, ...]  # in the order in which their units lie in the tiers
    free: int = 0  # nano-units of a first tier that owes nothing: an allowance
    prorates: bool = True  # a short period has less of that
    by_sum: bool = False  # the sum of all units reaches one tier, which holds for all of them

    def for_part(self, part: Fraction) -> "Shared":
        """In a period that is a `part` of a month: an allowance is fixed to nine digits, half-even, once; tiers stay."""
        if not self.prorates:
            return self
        exact = self.free * part
        return replace(self, free=round_half_even(exact.numerator, exact.denominator))

    def begins(self, priced: Mapping[str, int]) -> Iterator[tuple[str, int]]:
        """Each price, and the nano-units that lie before its first one, if so many of each are priced in the period."""
        filled = 0
        for name in self.prices:
            yield name, 0 if self.by_sum else filled
            filled += priced.get(name, 0)

    def behind(self, price: str) -> tuple[str, ...]:
        """The prices that lie elsewhere when more is used of this one."""
        return self.prices if self.by_sum else self.prices[self.prices.index(price) + 1 :]
