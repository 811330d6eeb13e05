"""Derived dimensions: a cell's value that is worked out from a field, as a band of a number or by a mapping (law R3)."""

from collections.abc import Mapping
from typing import Any, Final

from msgspec import Struct

from engine.events import is_text
from engine.meters.expressions import Expression, NoValue
from engine.meters.fields import Key, as_sent, key_of, value_at
from engine.money import NANO, NotADecimal, parse_quantity, round_half_even

DIMENSION_TEXT_MAX: Final = 128


class BadDimension(ValueError):
    """A dimension is missing, is not a short text, or cannot be worked out."""


class Band(Struct, frozen=True):
    """Numbers up to and with `up_to` (nano-units; None: all others) that the band before it does not take."""

    name: str
    up_to: int | None


class Dimension(Struct, frozen=True):
    """A declared dimension. With neither bands nor values it is the field itself, with a default."""

    name: str
    of: str  # path of the field, or the text of the expression
    bands: tuple[Band, ...] = ()
    values: dict[Key, str] = {}
    otherwise: str | None = None  # what a value becomes that `values` does not name; None: it stays as it is
    default: str | None = None  # where the field is missing; None: then the event cannot be rated
    expression: Expression | None = None  # what the bands are of, if not a field

    @property
    def fields(self) -> frozenset[str]:
        """The fields that it is worked out from."""
        return frozenset([self.of]) if self.expression is None else self.expression.fields

    def value(self, data: Mapping[str, Any]) -> str:
        """The event's value. Raises BadDimension."""
        if self.expression is not None:
            return self._band_of(self.expression, data)
        found = value_at(data, self.of)
        if found is None:
            if self.default is None:
                raise BadDimension(f"data.{self.of} (dimension {self.name}) is missing, and has no default")
            return self.default
        try:
            return self._band(parse_quantity(found)) if self.bands else self._mapped(key_of(found))
        except NotADecimal as error:
            raise BadDimension(f"data.{self.of} (dimension {self.name}): {error}") from error

    def _band_of(self, expression: Expression, data: Mapping[str, Any]) -> str:
        try:
            exact = expression.of(data)
        except NoValue as error:
            raise BadDimension(f"dimension {self.name}: {error}") from error
        return self._band(round_half_even(exact.numerator * NANO, exact.denominator))

    def _band(self, number: int) -> str:
        return next(band.name for band in self.bands if band.up_to is None or number <= band.up_to)

    def _mapped(self, key: Key) -> str:
        found = self.values.get(key, self.otherwise)
        if found is None and is_text(key, DIMENSION_TEXT_MAX):
            return str(key)
        if found is None:
            raise BadDimension(
                f"data.{self.of} (dimension {self.name}) must be a text of 1 to {DIMENSION_TEXT_MAX} characters, "
                "or one of its values"
            )
        return found

    def reachable(self, texts: tuple[str, ...] | None) -> tuple[str | None, ...]:
        """Every value it may take, if the field will hold one of these texts; None: nothing is known of the field. A None
        among the values is any text at all."""
        if texts is not None and self.expression is None:
            try:
                return tuple(sorted({self.value({self.of: value}) for value in as_sent(texts)}))
            except BadDimension:
                pass
        closed = {band.name for band in self.bands}
        if not self.bands:
            if self.otherwise is None:
                return (None,)
            closed = {*self.values.values(), self.otherwise}
        return tuple(sorted(closed | ({self.default} if self.default else set())))
