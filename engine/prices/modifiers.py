"""What stands around a model, always in this order (law R5): included quantity, the model, maximum, discount, and what a
commitment makes of it."""

from fractions import Fraction
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from engine.money import round_half_even
from engine.prices.price import Floor, Terms

HUNDREDTH: Final = Fraction(1, 100)


class Modifiers(Struct, frozen=True):
    """Of one price, for each period."""

    included: int = 0  # nano-units that owe nothing; the model's tiers begin behind them
    maximum: int | None = None  # pico that it never owes more than, before the discount
    discount: Fraction = Fraction(0)  # percent
    minimum: int | None = None  # pico that a period owes at least, behind the discount
    commitment: int | None = None  # the same, where usage beyond it may cost other than usage up to it
    overage: Fraction = Fraction(1)  # what is owed beyond the commitment counts by this factor

    @property
    def marginal(self) -> bool:
        """Whether each unit still stands by itself: a maximum, a minimum or a commitment is one for the whole period."""
        return self.maximum is None and self.floor is None

    @property
    def floor(self) -> Floor | None:
        """What a month owes at least."""
        if self.commitment is not None:
            return Floor("commitment", self.commitment)
        return None if self.minimum is None else Floor("minimum", self.minimum)

    @property
    def has_parts(self) -> bool:
        """Whether a part of a month is priced by other terms than a whole one."""
        return bool(self.included) or self.overage != 1

    def for_part(self, part: Fraction, bound: Fraction) -> "Modifiers":
        """In a period that is a part of a month, for `bound` of which the account is there: what is included is fixed to
        nine digits, the commitment to a pico, half-even. An account that is not there in it is bound to nothing."""
        short = replace(self, included=_share(self.included, part))
        if self.commitment is None or self.overage == 1:
            return short
        return replace(short, commitment=_share(self.commitment, bound) if bound else None)

    def applied(self, terms: list[Terms]) -> list[Terms]:
        """The terms with these around them."""
        found = []
        for up_to, curve in terms:
            end = None if up_to is None else up_to + self.included
            curve = curve.behind(self.included)
            if self.maximum is not None:
                curve = curve.capped(self.maximum)
            curve = curve.scaled(1 - self.discount * HUNDREDTH)
            if self.commitment is not None:
                curve = curve.beyond(self.commitment, self.overage)
            found.append((end, curve.until(end)))
        return found


def _share(whole: int, part: Fraction) -> int:
    exact = whole * part
    return round_half_even(exact.numerator, exact.denominator)
