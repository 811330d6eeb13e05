"""Meters: which usage events count, and what of them (law R3; here count and sum, with group-by)."""

from typing import Any, Final, cast

from msgspec import Struct

from engine.events import is_text
from engine.money import NANO, NotADecimal, parse_quantity

DIMENSION_TEXT_MAX: Final = 128

Cell = tuple[str, ...]  # the values of a meter's dimensions, in the order of its group_by


class BadQuantity(ValueError):
    """The field a meter sums is missing, negative, or not a number by law M1."""


class BadDimension(ValueError):
    """A dimension a meter groups by is missing, or not a short string."""


class Meter(Struct, frozen=True):
    """`field` None counts events, else the field of `data` is summed."""

    name: str
    event_type: str
    field: str | None
    group_by: tuple[str, ...]

    def quantity(self, data: dict[str, Any]) -> int:
        """Nano-units of one event. Raises BadQuantity."""
        if self.field is None:
            return NANO
        value = data.get(self.field)
        try:
            quantity = parse_quantity(value)
        except NotADecimal as error:
            raise BadQuantity(f"data.{self.field} (meter {self.name}): {error}") from error
        if quantity < 0:
            raise BadQuantity(f"data.{self.field} (meter {self.name}): {value!s:.40} is negative")
        return quantity

    def cell(self, data: dict[str, Any]) -> Cell:
        """The event's cell. Raises BadDimension."""
        values: list[str] = []
        for dimension in self.group_by:
            value = data.get(dimension)
            if not is_text(value, DIMENSION_TEXT_MAX):
                raise BadDimension(
                    f"data.{dimension} (meter {self.name}) must be a string of 1 to {DIMENSION_TEXT_MAX} characters"
                )
            values.append(cast(str, value))
        return tuple(values)
