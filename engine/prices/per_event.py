"""What a price counts of each event, where that is not the meter's quantity: a fee of its own (percentage prices)."""

from fractions import Fraction

from msgspec import Struct

from engine.money import round_half_even


class PerEvent(Struct, frozen=True):
    """percent of the event's quantity + fixed, but not below `least` nor above `most`; amounts in nano of the currency."""

    percent: Fraction
    fixed: int
    least: int | None
    most: int | None

    def fee(self, quantity: int) -> int:
        """Of one event, rounded once, half-even, to nine digits (law M1)."""
        exact = quantity * self.percent * Fraction(1, 100) + self.fixed
        if self.least is not None:
            exact = max(exact, Fraction(self.least))
        if self.most is not None:
            exact = min(exact, Fraction(self.most))
        return round_half_even(exact.numerator, exact.denominator)
