"""Credits of a seller's own: a unit in which plans are priced and lots are granted, and what it is worth (law M3; README,
"Units of credit")."""

import re
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from engine.money import NANO, PICO, NotADecimal, parse_amount, parse_quantity, round_half_even

CURRENCY: Final = re.compile(r"[A-Z]{3}")
_UNIT: Final = re.compile(r"[A-Z][A-Z0-9]{3,11}")  # never a currency's code


class UnitDefinition(Struct, forbid_unknown_fields=True, frozen=True):
    """`per` of the unit are worth `amount` of the currency."""

    currency: str
    amount: str
    per: str = "1"


class Unit(Struct, frozen=True):
    """A compiled unit: `per` nano-units of it are worth `amount` pico of the currency."""

    currency: str
    amount: int
    per: int

    def worth(self, numerator: int, denominator: int = 1) -> int:
        """Pico of the currency that so many pico of the unit, a fraction, are worth; rounded once, half-even."""
        return round_half_even(numerator * self.amount * NANO, denominator * self.per * PICO)


def compile_unit(name: str, definition: UnitDefinition, fault: Callable[[tuple[str | int, ...], str], None]) -> Unit:
    """The unit; what is wrong with it is told to `fault`, with its path."""
    path = ("units", name)
    if not _UNIT.fullmatch(name):
        fault(path, "is no name of a unit: 4 to 12 capital letters and digits, a letter first (three are a currency)")
    if not CURRENCY.fullmatch(definition.currency):
        fault((*path, "currency"), f"{definition.currency!r} is not a three-letter ISO 4217 code (law M3)")
    values = []
    for key, text, parse in (("amount", definition.amount, parse_amount), ("per", definition.per, parse_quantity)):
        try:
            values.append(parse(text))
        except NotADecimal as error:
            fault((*path, key), str(error))
            values.append(1)
        if values[-1] <= 0:
            fault((*path, key), f"{text} is too small: a unit is worth something")
            values[-1] = 1
    return Unit(definition.currency, *values)
