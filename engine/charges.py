"""What is owed, as a function of quantities: law R1's A, per segment of event time (README, "What is owed").

An account's usage is one table, segment start -> {(price, cell): quantity}. Amounts are never stored: they are
derived here, so that they cannot drift from the quantities, nor depend on the order of arrival.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from fractions import Fraction

from engine.meters import Cell
from engine.money import round_half_even
from engine.prices.curve import Curve
from engine.prices.price import Price
from engine.prices.shared import Allotment
from engine.quantity_grants import QuantityGrant, Served, Service, granted_in

Row = dict[tuple[str, Cell], int]  # (price name, cell) -> nano-units
Table = dict[int, Row]  # by segment start, microseconds
PriceAt = Callable[[int, str], Price]  # (event time, price name) -> the price in force


class Running:
    """What one price owes in one period, while its segments are walked in time order."""

    __slots__ = ("_carried", "_since", "amount", "curve", "price", "quantity", "served", "shared")

    def __init__(self, price: Price, period_quantity: int = 0) -> None:
        """`period_quantity`: the nano-units that the period comes to, without what grants serve; they choose the terms, if
        there are several."""
        self.quantity = 0  # nano-units so far
        self.served = 0  # of these, what quantity grants took
        self.shared = 0  # and what a shared allowance did
        self.amount = 0  # pico so far, rounded once on the exact cumulative amount
        self.curve = price.curve_at(period_quantity)
        self.price = price  # the version that was used last
        self._carried: Fraction | None = None  # exact pico owed when this version of the price came into force
        self._since = 0  # nano-units priced by then

    @property
    def priced(self) -> int:
        """Nano-units so far that the price counts: what is included, and what its model sees."""
        return self.quantity - self.served - self.shared

    def exact(self) -> tuple[int, int]:
        """What is owed before rounding: pico, as numerator and denominator."""
        numerator = self.curve.numerator(self.quantity - self.served - self.shared)
        if self._since:
            numerator -= self.curve.numerator(self._since)
        if self._carried is None:
            return numerator, self.curve.denominator
        exact = self._carried + Fraction(numerator, self.curve.denominator)
        return exact.numerator, exact.denominator

    def add(self, price: Price, quantity: int, served: int = 0, shared: int = 0) -> int:
        """Use `quantity` more under the version `price`, of which grants have `served`, and a shared allowance so much; the
        pico that this adds."""
        if price.terms is not self.price.terms:
            assert price.marginal
            self._carried = Fraction(*self.exact())
            self._since = self.priced
            self.price = price
            self.curve = price.curves[0]
        self.quantity += quantity
        self.served += served
        self.shared += shared
        before = self.amount
        self.amount = round_half_even(*self.exact())
        return self.amount - before

    def under(self, price: Price) -> "Running":
        """The same, with the version `price` in force from here on."""
        same = Running(self.price)
        same.quantity, same.amount, same.curve = self.quantity, self.amount, self.curve
        same.served, same.shared = self.served, self.shared
        same._carried, same._since = self._carried, self._since
        same.add(price, 0)
        return same

    def peek(self, price: Price, quantity: int) -> int:
        """The pico that `add` would add; nothing is used."""
        if price.terms is self.price.terms and self._carried is None and not self._since:
            numerator = self.curve.numerator(self.priced + quantity)
            return round_half_even(numerator, self.curve.denominator) - self.amount
        return self.under(price).add(price, quantity)


def moved(before: Running, after: Running) -> int:
    """Of what a price comes to more or less: the pico of units that a shared allowance no longer serves, or serves again, as
    others have more or less of it."""
    low, high = sorted((before.priced, after.priced))
    grown = after.priced > before.priced
    given_up = before.shared - after.shared if grown else after.shared - before.shared
    units = min(max(0, given_up), high - low)
    pico = after.curve.owed(low + units) - after.curve.owed(low)
    return pico if grown else -pico


def by_price(row: Row) -> dict[str, int]:
    """A segment's quantity per price: the sum over the cells that the price matches."""
    totals: dict[str, int] = {}
    for (name, _), quantity in row.items():
        totals[name] = totals.get(name, 0) + quantity
    return totals


def segments(
    table: Mapping[int, Row], period_of: Callable[[int], int], price_at: PriceAt, service: Service | None = None
) -> Iterator[tuple[int, int, dict[str, int], dict[tuple[int, str], Running]]]:
    """(segment start, its period's start, pico per price, what runs) in time order. `service`: what quantity grants take."""
    running: dict[tuple[int, str], Running] = {}
    rows: list[tuple[int, int, list[tuple[str, int, Price]]]] = []
    allotment = Allotment()
    for start in sorted(table):
        used = [(name, quantity, price_at(start, name)) for name, quantity in by_price(table[start]).items()]
        rows.append((start, period_of(start), used))
        for name, quantity, price in used:
            if price.shared is not None:
                allotment.count(rows[-1][1], price.shared, name, quantity)
    wholes: dict[tuple[int, str], int] = {}  # nano-units of each period that are priced
    served: Served = {}
    shared: Served = {}
    for start, period, used in rows:
        for name, quantity, price in used:
            if price.shared is not None:
                taken = shared[start, name] = allotment.take(period, name, quantity)
                quantity -= taken
            if service is not None:
                taken = served[start, name] = service.take(start, period, price, quantity)
                quantity -= taken
            wholes[period, name] = wholes.get((period, name), 0) + quantity
    for start, period, used in rows:
        amounts = {}
        for name, quantity, price in used:
            run = running.get((period, name))
            if run is None:
                run = running[period, name] = Running(price, wholes[period, name])
            here = (start, name)
            amounts[name] = run.add(price, quantity, served.get(here, 0), shared.get(here, 0))
        yield start, period, amounts, running


def foreseen(
    table: Mapping[int, Row],
    held: Mapping[int, Mapping[str, int]],
    period_of: Callable[[int], int],
    price_at: PriceAt,
    grants: Collection[QuantityGrant] = (),
) -> list[tuple[int, int, dict[str, int]]]:
    """(segment start, its period's start, pico per price) in time order, never less than what comes of it, if what is
    `held` (segment start -> {price: nano-units}) is used in full, in part or not at all.

    Where nothing held lies before a segment in its period, full use is the dearest under any terms that the period may
    come to. Behind something held, units may come to lie in any tier that its use leaves them in, and the dearest
    counts. There the start is no longer known to the last digit, so what rounding may add is added: at most one pico.

    Quantity grants serve what is held in the first segment in which anything is; behind it, as if they served no more:
    what they do there depends on how much of it is used.

    Of prices that draw on a shared allowance each segment is dearest if all that is held is used, of every price: no unit
    more gives another one room. There, too, a start is not known to the last digit as long as anything is held."""
    places = []
    allotment = Allotment()
    least: dict[tuple[int, str], int] = {}  # nano-units that a period comes to, if nothing held is used
    most: dict[tuple[int, str], int] = {}  # and if all of it is
    for start in sorted(table.keys() | held.keys()):
        period = period_of(start)
        used = by_price(table[start]) if start in table else {}
        reserved = held.get(start, {})
        for name in sorted(used.keys() | reserved.keys()):
            here = (period, name)
            least[here] = least.get(here, 0) + used.get(name, 0)
            most[here] = most.get(here, 0) + used.get(name, 0) + reserved.get(name, 0)
            price = price_at(start, name)
            if price.shared is not None:
                allotment.count(period, price.shared, name, used.get(name, 0) + reserved.get(name, 0))
        places.append((start, period, used, reserved))
    service = Service(grants)
    for period, name in least:
        least[period, name] = max(0, least[period, name] - granted_in(grants, name, period, period_of))
    running: dict[tuple[int, str], Running] = {}
    loose: dict[tuple[int, str], int] = {}  # quantity before this segment, in its period, that may yet not be priced
    rough: set[tuple[int, str]] = set()  # prices whose amounts are not whole pico wherever they start
    found = []
    for start, period, used, reserved in places:
        amounts = {}
        for name in sorted(used.keys() | reserved.keys()):
            price = price_at(start, name)
            here = (period, name)
            run = running.get(here)
            if run is None:
                run = running[here] = Running(price, least[here])
            if price.rounds:
                rough.add(here)
            quantity = used.get(name, 0) + reserved.get(name, 0)
            if price.shared is not None:
                taken = allotment.take(period, name, quantity)
                served = service.take(start, period, price, quantity - taken)
                amounts[name] = run.add(price, quantity, served, taken) + (price.rounds and bool(held) and quantity > 0)
                continue
            high, before = run.priced, loose.get(here, 0)
            amount = run.add(price, quantity, 0 if before else service.take(start, period, price, quantity))
            curves = price.curves_between(least[here], most[here])
            if before:
                amount = max(curve.dearest_span(high - before, high, quantity) // curve.denominator for curve in curves)
                amount += here in rough and quantity > 0
            elif len(curves) > 1:
                amount = max(_between(curve, high, run.priced) for curve in curves)
            if name in reserved or (before and grants):
                loose[here] = before + (quantity if before and grants else reserved[name])
            amounts[name] = amount
        found.append((start, period, amounts))
    return found


def _between(curve: Curve, before: int, after: int) -> int:
    """Pico that the curve adds from one quantity to another."""
    return curve.owed(after) - curve.owed(before)
