"""What a plan makes of an event, worked out once for all events that say the same in the fields that decide.

Which meters count an event, in which cells, under which prices, depends on a few of its fields, and these seldom say
anything new. Of the next event that says the same, only the quantities are read.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final, NamedTuple

from engine.meters import BadQuantity, Cell, Meter
from engine.meters.fields import value_at
from engine.money import NANO, WHOLE_DIGITS_MAX
from engine.prices.price import Price

ROUTES_MAX: Final = 16_384  # of one plan and event type
_LIMIT: Final = 10**WHOLE_DIGITS_MAX

Usage = tuple[Price, Cell, int]  # what one meter says of one event: its price, its cell, nano-units


class _Stop(NamedTuple):
    """A meter that counts the event."""

    field: str | None  # of the data, that it sums; None: ask the meter
    meter: Meter
    price: Price
    cell: Cell


class _Route(NamedTuple):
    stops: tuple[_Stop, ...]
    dimensions: tuple[tuple[str, ...], ...]  # the names of each stop's cell


class Routes:
    """Of the events of one type under one plan. `price_of` raises a ValueError where there is none."""

    def __init__(self, meters: Iterable[Meter], price_of: Callable[[Meter, Cell], Price]) -> None:
        self._meters = tuple(meters)
        self._price_of = price_of
        fields = sorted({field for meter in self._meters for field in meter.looks_at})
        self._fields = tuple(fields)
        self._nested = any("." in field for field in fields)  # such a path may lead into an object
        self._known: dict[tuple[Any, ...], _Route | None] = {}

    def usages(self, data: dict[str, Any]) -> tuple[list[Usage], tuple[tuple[str, ...], ...]] | None:
        """What the meters say, and the names of each cell's dimensions. None: they must be asked one by one, as not all of
        it adds up, or for what is wrong with the event."""
        says = tuple(map(partial(value_at, data) if self._nested else data.get, self._fields))
        try:
            route = self._known[says]
        except (KeyError, TypeError):  # TypeError: a field holds a list or an object
            route = self._found(says, data)
        if route is None:
            return None
        usages: list[Usage] = []
        for field, meter, price, cell in route.stops:
            units = None if field is None else data.get(field)
            if type(units) is int and 0 <= units < _LIMIT:
                usages.append((price, cell, units * NANO))
                continue
            try:
                usages.append((price, cell, meter.quantity(data)))
            except BadQuantity:
                return None
        return usages, route.dimensions

    def _found(self, says: tuple[Any, ...], data: dict[str, Any]) -> _Route | None:
        """The route, remembered where only texts decide: numbers would be too many, and True is 1 to a dict."""
        if not all(each is None or type(each) is str for each in says):
            return None
        route = self._worked_out(data)
        if len(self._known) >= ROUTES_MAX:
            self._known.clear()
        self._known[says] = route
        return route

    def _worked_out(self, data: dict[str, Any]) -> _Route | None:
        stops = []
        try:
            for meter in self._meters:
                if not meter.counts(data):
                    continue
                cell = meter.cell(data)
                price = self._price_of(meter, cell)
                if meter.kind is not None or meter.session is not None or price.per_event is not None:
                    return None
                stops.append(_Stop(meter.field, meter, price, cell))
        except ValueError:
            return None
        return _Route(tuple(stops), tuple(stop.meter.group_by for stop in stops))
