"""Conditions: which events a meter counts (law R3). All conditions of a meter must hold."""

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from engine.meters.dimensions import BadDimension, Dimension
from engine.meters.fields import Key, as_sent, key_of, value_at
from engine.money import NotADecimal, parse_quantity


class Condition(Struct, frozen=True):
    """On one field, or on one declared dimension."""

    name: str
    dimension: Dimension | None = None  # None: the field of that name
    one_of: frozenset[Key] | None = None
    none_of: frozenset[Key] = frozenset()
    least: int | None = None  # nano-units
    most: int | None = None  # nano-units
    exists: bool | None = None  # None: an event without the field cannot be rated

    def holds(self, data: Mapping[str, Any]) -> bool:
        """Whether the event counts, as far as this goes. Raises BadDimension."""
        if self.dimension is not None:
            return self._takes(self.dimension.value(data))
        value = value_at(data, self.name)
        if value is None:
            if self.exists is None:
                raise BadDimension(f"data.{self.name} is missing; only a condition with `exists` does without it")
            return not self.exists
        return self.exists is not False and self._takes(value)

    def may_hold(self, texts: tuple[str, ...] | None) -> bool:
        """Whether it can hold, if the field will hold one of these texts; None: nothing is known of it."""
        values = texts if self.dimension is None else self.dimension.reachable(texts)
        if values is None or None in values:
            return True
        try:
            return self.exists is not False and any(map(self._takes, as_sent(value for value in values if value)))
        except BadDimension:
            return True

    def _takes(self, value: Any) -> bool:
        try:
            if self.one_of is not None or self.none_of:
                key = key_of(value)
                if (self.one_of is not None and key not in self.one_of) or key in self.none_of:
                    return False
            if self.least is not None or self.most is not None:
                number = parse_quantity(value)
                return (self.least is None or number >= self.least) and (self.most is None or number <= self.most)
        except NotADecimal as error:
            raise BadDimension(f"data.{self.name}: {error}") from error
        return True
