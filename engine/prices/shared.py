"""Allowances that several prices share (law R1; README, "Shared allowances")."""

from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from engine.money import round_half_even

SHARED: Final = -3  # the number of a tier that no price has: of units that a shared allowance takes


class Shared(Struct, frozen=True):
    """So many units of these prices together owe nothing in a period."""

    name: str
    quantity: int  # nano-units
    prices: tuple[str, ...]  # in the order in which it serves them
    prorates: bool = True  # a short period has less of it

    def for_part(self, part: Fraction) -> "Shared":
        """In a period that is a `part` of a month: fixed to nine digits, half-even, once."""
        if not self.prorates:
            return self
        exact = self.quantity * part
        return replace(self, quantity=round_half_even(exact.numerator, exact.denominator))

    def allotted(self, used: Mapping[str, int]) -> dict[str, int]:
        """Nano-units that each price has of it, if so many of each are used in the period."""
        left, found = self.quantity, {}
        for name in self.prices:
            if name in used:
                found[name] = min(left, used[name])
                left -= found[name]
        return found

    def up_to(self, price: str) -> Iterator[str]:
        """The prices that it serves before this one, and this one."""
        for name in self.prices:
            yield name
            if name == price:
                return

    def behind(self, price: str) -> tuple[str, ...]:
        """The prices that have less of it when more is used of this one."""
        return self.prices[self.prices.index(price) + 1 :]


class Allotment:
    """What shared allowances serve, while an account's segments are walked in time order: of each price the first units
    of a period, as many as the whole period allots to it."""

    def __init__(self) -> None:
        self._used: dict[tuple[int, Shared], dict[str, int]] = {}  # period -> price -> nano-units
        self._left: dict[tuple[int, str], int] | None = None

    def count(self, period: int, shared: Shared, price: str, quantity: int) -> None:
        """Before the walk: so much is used of a price that draws on it."""
        used = self._used.setdefault((period, shared), {})
        used[price] = used.get(price, 0) + quantity

    def take(self, period: int, price: str, quantity: int) -> int:
        """Of so many nano-units of a price, next in time: those that owe nothing."""
        if self._left is None:
            self._left = {
                (of, name): units
                for (of, shared), used in self._used.items()
                for name, units in shared.allotted(used).items()
            }
        taken = min(quantity, self._left.get((period, price), 0))
        if taken:
            self._left[period, price] -= taken
        return taken
