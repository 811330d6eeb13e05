"""A meter as it rates: whether an event counts, how much, and in which cell (law R3)."""

from collections.abc import Iterator, Mapping
from typing import Any, Final, cast

from msgspec import Struct

from engine.events import is_text
from engine.meters.aggregates import POINTS, UNIQUE_MAX, Aggregate, Average, Kind, Ranked, Unique, mark_of
from engine.meters.conditions import Condition
from engine.meters.dimensions import DIMENSION_TEXT_MAX, BadDimension, Dimension
from engine.meters.expressions import Expression, NoValue
from engine.meters.fields import key_of, value_at
from engine.meters.hours import Hours, called
from engine.meters.sessions import Heard, SessionFields
from engine.money import NANO, WHOLE_DIGITS_MAX, NotADecimal, parse_quantity, quantity_text, round_half_even

Cell = tuple[str, ...]  # the values of a meter's dimensions, in the order of its group_by
PASSING: Final = ""  # in the cell of a session: the hour, which is another as it goes on


class BadQuantity(ValueError):
    """What a meter sums is missing, negative, or not a number by law M1."""


class Meter(Struct, frozen=True):
    """What is measured is the field of `data`, or the expression; with neither, events are counted."""

    name: str
    event_type: str
    field: str | None
    group_by: tuple[str, ...]
    derived: dict[str, Dimension] = {}  # those of group_by that are declared
    conditions: tuple[Condition, ...] = ()
    expression: Expression | None = None
    kind: Kind | None = None  # of its aggregate; None: what it measures is added up
    limit: int = UNIQUE_MAX
    session: SessionFields | None = (
        None  # of a meter of time: it adds up seconds, each of which counts what is measured
    )
    points: int = POINTS  # of a max, min or latest: how many readings behind the answer are kept
    hours: tuple[Hours, ...] = ()  # of a meter of time: those of group_by through which its sessions go

    @property
    def bounded_by(self) -> str | None:
        """What a check bounds to bound this meter: the field, or the meter itself where it is of an expression. None: a
        count, of events or of different values, which needs no bound."""
        if self.kind == "unique_count":
            return None
        if self.session is not None:
            return self.name
        return self.field if self.expression is None else self.name

    @property
    def measured(self) -> str:
        """What is counted, for people: "events", or what is summed, or "max of" what, or "seconds", of what."""
        of = self.field or (self.expression.text if self.expression else "events")
        if self.session is not None:
            return "seconds" if of == "events" else f"seconds of {of}"
        return of if self.kind is None else f"{self.kind.replace('_', ' ')} of {of}"

    def counts(self, data: dict[str, Any]) -> bool:
        """Whether the event counts here. Raises BadDimension."""
        try:
            return all(condition.holds(data) for condition in self.conditions)
        except BadDimension as error:
            raise BadDimension(f"meter {self.name}: {error}") from error

    def quantity(self, data: dict[str, Any]) -> int:
        """Nano-units of one event. Raises BadQuantity."""
        if self.field is None:
            return NANO if self.expression is None else self._worked_out(self.expression, data)
        value = value_at(data, self.field)
        try:
            quantity = parse_quantity(value)
        except NotADecimal as error:
            raise BadQuantity(f"data.{self.field} (meter {self.name}): {error}") from error
        if quantity < 0:
            raise BadQuantity(f"data.{self.field} (meter {self.name}): {value!s:.40} is negative")
        return quantity

    def hear(self, data: dict[str, Any]) -> Heard:
        """What one event says of a session. Raises BadSession, BadQuantity and BadDimension."""
        assert self.session is not None
        session, state = self.session.read(self.name, data)
        weight = self.quantity(data)
        hours = {each.dimension for each in self.hours}
        cell = tuple(
            PASSING if name in hours else value for name, value in zip(self.group_by, self.cell(data), strict=True)
        )
        return Heard(self.name, session, state, cell, weight)

    def cells_of(self, cell: Cell, from_us: int, to_us: int) -> Iterator[tuple[int, int, Cell]]:
        """The cells in which a session counts from one instant to another, each from when to when."""
        if not self.hours:
            yield from_us, to_us, cell
            return
        places = [self.group_by.index(each.dimension) for each in self.hours]
        for start, end, names in called(self.hours, from_us, to_us):
            filled = dict(zip(places, names, strict=True))
            yield start, end, tuple(filled.get(place, value) for place, value in enumerate(cell))

    def aggregate(self, data: dict[str, Any], time_us: int, source: str, event_id: str) -> Aggregate:
        """What one event is, of what does not add up. Raises BadQuantity."""
        match self.kind:
            case "unique_count":
                assert self.field is not None
                return Unique({self._mark(value_at(data, self.field)): 1}, self.limit)
            case "latest":
                return Ranked("latest", ((time_us, source, event_id, self.quantity(data)),), self.points)
            case "average":
                return Average(self.quantity(data), 1)
            case "min":
                return Ranked("min", ((-self.quantity(data),),), self.points)
        return Ranked("max", ((self.quantity(data),),), self.points)

    def _mark(self, value: Any) -> bytes:
        try:
            return mark_of(key_of(value))
        except NotADecimal as error:
            raise BadQuantity(f"data.{self.field} (meter {self.name}): {error}") from error

    def _worked_out(self, expression: Expression, data: dict[str, Any]) -> int:
        """Exact, then fixed to nine digits, half-even: once per event."""
        try:
            exact = expression.of(data)
        except NoValue as error:
            raise BadQuantity(f"meter {self.name}: {error}") from error
        quantity = round_half_even(exact.numerator * NANO, exact.denominator)
        if not 0 <= quantity < 10**WHOLE_DIGITS_MAX * NANO:
            shown = "too large" if quantity > 0 else f"{quantity_text(quantity):.40}, which is negative"
            raise BadQuantity(f"{_listed(expression)} (meter {self.name}): {expression.text} is {shown}")
        return quantity

    def cell(self, data: dict[str, Any]) -> Cell:
        """The event's cell. Raises BadDimension."""
        values: list[str] = []
        for dimension in self.group_by:
            if dimension in self.derived:
                values.append(self.derived[dimension].value(data))
                continue
            value = value_at(data, dimension)
            if not is_text(value, DIMENSION_TEXT_MAX):
                raise BadDimension(
                    f"data.{dimension} (meter {self.name}) must be a string of 1 to {DIMENSION_TEXT_MAX} characters"
                )
            values.append(cast(str, value))
        return tuple(values)

    @property
    def looks_at(self) -> frozenset[str]:
        """The fields that say whether an event counts, and in which cell."""
        found: set[str] = set()
        for name in self.group_by:
            found |= self.derived[name].fields if name in self.derived else {name}
        for each in self.conditions:
            found |= each.dimension.fields if each.dimension else {each.name}
        return frozenset(found)

    @property
    def reads(self) -> frozenset[str]:
        """Every field that it looks at."""
        summed = self.expression.fields if self.expression else frozenset([self.field] if self.field else [])
        told = self.session.fields if self.session else frozenset()
        return self.looks_at | summed | told

    def may_count(self, known: Mapping[str, tuple[str, ...]]) -> bool:
        """Whether an event can count of which some fields are known: each will hold one of the texts."""
        return all(
            condition.may_hold(known.get(condition.dimension.of if condition.dimension else condition.name))
            for condition in self.conditions
        )

    def reachable(self, dimension: str, known: Mapping[str, tuple[str, ...]]) -> tuple[str | None, ...]:
        """Every value that a dimension of such an event may take; a None among them is any text at all."""
        if dimension in self.derived:
            return self.derived[dimension].reachable(known.get(self.derived[dimension].of))
        return known.get(dimension) or (None,)


def _listed(expression: Expression) -> str:
    return ", ".join(f"data.{path}" for path in sorted(expression.fields)) or "the expression"
