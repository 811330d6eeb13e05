"""What stands around a model, always in this order (law R5): included quantity, the model, maximum, discount."""

from fractions import Fraction
from typing import Final

from msgspec import Struct

from engine.prices.price import Terms

HUNDREDTH: Final = Fraction(1, 100)


class Modifiers(Struct, frozen=True):
    """Of one price, for each period."""

    included: int = 0  # nano-units that owe nothing; the model's tiers begin behind them
    maximum: int | None = None  # pico that it never owes more than, before the discount
    discount: Fraction = Fraction(0)  # percent
    minimum: int | None = (
        None  # pico that a period owes at least, behind the discount; what is missing is a line at its end
    )

    @property
    def marginal(self) -> bool:
        """Whether each unit still stands by itself: a maximum or a minimum is one for the whole period."""
        return self.maximum is None and self.minimum is None

    def applied(self, terms: list[Terms]) -> list[Terms]:
        """The terms with these around them."""
        found = []
        for up_to, curve in terms:
            end = None if up_to is None else up_to + self.included
            curve = curve.behind(self.included)
            if self.maximum is not None:
                curve = curve.capped(self.maximum)
            found.append((end, curve.scaled(1 - self.discount * HUNDREDTH).until(end)))
        return found
