"""What is owed, as a function of quantities: law R1's A, per segment of event time (README, "What is owed").

An account's usage is one table, segment start -> {(price, cell): quantity}. Amounts are never stored: they are
derived here, so that they cannot drift from the quantities, nor depend on the order of arrival.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from fractions import Fraction
from typing import NamedTuple

from engine.meters import Cell
from engine.money import round_half_even
from engine.prices.curve import Curve
from engine.prices.price import Price
from engine.prices.shared import Shared
from engine.quantity_grants import QuantityGrant, Served, Service, granted_in

Row = dict[tuple[str, Cell], int]  # (price name, cell) -> nano-units
Table = dict[int, Row]  # by segment start, microseconds
PriceAt = Callable[[int, str], Price]  # (event time, price name) -> the price in force


class Running:
    """What one price owes in one period, while its segments are walked in time order."""

    __slots__ = ("_carried", "_since", "amount", "begins", "curve", "price", "quantity", "served")

    def __init__(self, price: Price, period_quantity: int = 0, begins: int = 0) -> None:
        """`period_quantity`: the nano-units that the period comes to, without what grants serve; they choose the terms, if
        there are several. `begins`: those that lie before it in tiers that it shares."""
        self.quantity = 0  # nano-units so far
        self.served = 0  # of these, what quantity grants took
        self.begins = begins
        self.amount = 0  # pico so far, rounded once on the exact cumulative amount
        self.curve = price.curve_at(period_quantity)
        self.price = price  # the version that was used last
        self._carried: Fraction | None = None  # exact pico owed when this version of the price came into force
        self._since = begins  # where it had come to by then

    @property
    def priced(self) -> int:
        """Nano-units so far that the price counts: what is included, and what its model sees."""
        return self.quantity - self.served

    @property
    def at(self) -> int:
        """Where the last of them lies in its tiers, nano-units from their start."""
        return self.begins + self.quantity - self.served

    def parts(self) -> tuple[tuple[int, int], ...]:
        """(tier number, nano-units) of all that is priced."""
        return self.curve.parts(self.begins, self.at)

    def exact(self) -> tuple[int, int]:
        """What is owed before rounding: pico, as numerator and denominator."""
        numerator = self.curve.numerator(self.begins + self.quantity - self.served)
        if self._since:
            numerator -= self.curve.numerator(self._since)
        if self._carried is None:
            return numerator, self.curve.denominator
        exact = self._carried + Fraction(numerator, self.curve.denominator)
        return exact.numerator, exact.denominator

    def add(self, price: Price, quantity: int, served: int = 0) -> int:
        """Use `quantity` more under the version `price`, of which grants have `served`; the pico that this adds."""
        if price.terms is not self.price.terms:
            assert price.marginal
            self._carried = Fraction(*self.exact())
            self._since = self.at
            self.price = price
            self.curve = price.curves[0]
        self.quantity += quantity
        self.served += served
        before = self.amount
        self.amount = round_half_even(*self.exact())
        return self.amount - before

    def under(self, price: Price) -> "Running":
        """The same, with the version `price` in force from here on."""
        same = Running(self.price, begins=self.begins)
        same.quantity, same.amount, same.curve = self.quantity, self.amount, self.curve
        same.served, same._carried, same._since = self.served, self._carried, self._since
        same.add(price, 0)
        return same

    def peek(self, price: Price, quantity: int) -> int:
        """The pico that `add` would add; nothing is used."""
        if price.terms is self.price.terms and self._carried is None and not self._since:
            numerator = self.curve.numerator(self.priced + quantity)
            return round_half_even(numerator, self.curve.denominator) - self.amount
        return self.under(price).add(price, quantity)


def repriced(price: Price, before: Running, after: Running) -> int:
    """Law R9: the pico by which units that are there before and after have become dearer, as the period has come to other
    terms, or others have moved them in the tiers that they share."""
    units = min(before.priced, after.priced)
    if price.shared is None:
        was, now = price.curve_at(before.priced), price.curve_at(after.priced)
    else:
        was, now = before.curve, after.curve
    if now is was and before.begins == after.begins:
        return 0
    return _span(now, after.begins, units) - _span(was, before.begins, units)


def _span(curve: Curve, begins: int, units: int) -> int:
    """Pico for so many nano-units behind where they begin, rounded once."""
    return round_half_even(curve.numerator(begins + units) - curve.numerator(begins), curve.denominator)


def moved(before: Running, after: Running) -> tuple[tuple[int, int], ...]:
    """(tier number, nano-units) that a price has more or less in tiers that it shares, those that it published first."""
    change = dict(after.parts())
    for tier, units in before.parts():
        change[tier] = change.get(tier, 0) - units
    return tuple(
        sorted(((tier, units) for tier, units in change.items() if units), key=lambda part: (part[0] < 1, part))
    )


def by_price(row: Row) -> dict[str, int]:
    """A segment's quantity per price: the sum over the cells that the price matches."""
    totals: dict[str, int] = {}
    for (name, _), quantity in row.items():
        totals[name] = totals.get(name, 0) + quantity
    return totals


Uses = dict[str, list[tuple[int, int, Price]]]  # by price: (segment start, nano-units, its version), in time order


def _filled(
    shared: Shared, period: int, uses: Uses, service: Service | None, served: Served
) -> Iterator[tuple[str, int, int]]:
    """(price, nano-units that lie before its first, nano-units of it that are priced) of shared tiers, in their order.
    What grants take of each use is put into `served`."""
    filled = 0
    for name in shared.prices:
        if name not in uses:
            continue
        priced = 0
        for start, quantity, price in uses[name]:
            taken = 0
            if service is not None:
                taken = served[start, name] = service.take(start, period, price, quantity, max(0, shared.free - filled))
            priced += quantity - taken
        yield name, 0 if shared.by_sum else filled, priced
        filled += priced


def segments(
    table: Mapping[int, Row], period_of: Callable[[int], int], price_at: PriceAt, service: Service | None = None
) -> Iterator[tuple[int, int, dict[str, int], dict[tuple[int, str], Running]]]:
    """(segment start, its period's start, pico per price, what runs) in time order. `service`: what quantity grants take."""
    running: dict[tuple[int, str], Running] = {}
    rows: list[tuple[int, int, list[tuple[str, int, Price]]]] = []
    wholes: dict[tuple[int, str], int] = {}  # nano-units of each period that are priced
    served: Served = {}
    sharing: dict[tuple[int, Shared], Uses] = {}
    for start in sorted(table):
        used = [(name, quantity, price_at(start, name)) for name, quantity in by_price(table[start]).items()]
        period = period_of(start)
        rows.append((start, period, used))
        for name, quantity, price in used:
            if price.shared is not None:
                sharing.setdefault((period, price.shared), {}).setdefault(name, []).append((start, quantity, price))
                continue
            if service is not None:
                taken = served[start, name] = service.take(start, period, price, quantity)
                quantity -= taken
            wholes[period, name] = wholes.get((period, name), 0) + quantity
    begins: dict[tuple[int, str], int] = {}
    for (period, shared), uses in sharing.items():
        for name, before, priced in _filled(shared, period, uses, service, served):
            begins[period, name], wholes[period, name] = before, priced
        if shared.by_sum:
            reached = sum(wholes[period, name] for name in uses)
            wholes.update(((period, name), reached) for name in uses)
    for start, period, used in rows:
        amounts = {}
        for name, quantity, price in used:
            run = running.get((period, name))
            if run is None:
                here = (period, name)
                run = running[here] = Running(price, wholes[here], begins.get(here, 0))
            amounts[name] = run.add(price, quantity, served.get((start, name), 0))
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
    what they do there depends on how much of it is used."""
    if not any(held.values()):
        service = Service(grants) if grants else None
        return [(start, period, owed) for start, period, owed, _ in segments(table, period_of, price_at, service)]
    places = []
    least: dict[tuple[int, str], int] = {}  # nano-units that a period comes to, if nothing held is used
    most: dict[tuple[int, str], int] = {}  # and if all of it is
    sharing: dict[tuple[int, Shared], dict[str, list[_Share]]] = {}
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
                share = _Share(start, price, used.get(name, 0), used.get(name, 0) + reserved.get(name, 0))
                sharing.setdefault((period, price.shared), {}).setdefault(name, []).append(share)
        places.append((start, period, used, reserved))
    service = Service(grants)
    granted = {(period, name): granted_in(grants, name, period, period_of) if grants else 0 for period, name in least}
    for here in least:
        least[here] = max(0, least[here] - granted[here])
    apart: dict[tuple[int, str], int] = {}  # (segment start, price that shares tiers) -> pico
    for (period, shared), shares in sharing.items():
        apart |= _dearest_shares(shared, period, shares, service, {name: granted[period, name] for name in shares})
    running: dict[tuple[int, str], Running] = {}
    loose: dict[tuple[int, str], int] = {}  # quantity before this segment, in its period, that may yet not be priced
    rough: set[tuple[int, str]] = set()  # prices whose amounts are not whole pico wherever they start
    found = []
    for start, period, used, reserved in places:
        amounts = {}
        for name in sorted(used.keys() | reserved.keys()):
            if (start, name) in apart:
                amounts[name] = apart[start, name]
                continue
            price = price_at(start, name)
            here = (period, name)
            run = running.get(here)
            if run is None:
                run = running[here] = Running(price, least[here])
            if price.rounds:
                rough.add(here)
            quantity = used.get(name, 0) + reserved.get(name, 0)
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


class _Share(NamedTuple):
    """Nano-units of a price in a segment: those used by now, and with all that is held."""

    start: int
    price: Price
    used: int
    full: int


def _dearest_shares(
    shared: Shared, period: int, shares: Mapping[str, list[_Share]], service: Service, granted: Mapping[str, int]
) -> dict[tuple[int, str], int]:
    """By segment and price, the most pico for units that share tiers: wherever they come to lie, from behind what is used to
    behind all that is held as well, under any terms that the sum may come to. Fewer units never owe more, and what is used
    of them is held no more: so no settlement within a hold makes any of these dearer."""
    uses = {name: [(each.start, each.full, each.price) for each in of] for name, of in shares.items()}
    served: Served = {}
    highest = {name: (before, priced) for name, before, priced in _filled(shared, period, uses, service, served)}
    least = {name: max(0, sum(each.used for each in of) - granted[name]) for name, of in shares.items()}
    sums = sum(least.values()), sum(priced for _, priced in highest.values())
    found = {}
    for name, lowest in shared.begins(least):
        used, high = 0, highest[name][0] if name in highest else 0
        for each in shares.get(name, ()):
            low, units = lowest + max(0, used - granted[name]), each.full - served[each.start, name]
            curves = each.price.curves_between(*sums) if shared.by_sum else each.price.curves
            most = max(curve.dearest_span(low, high, units) // curve.denominator for curve in curves)
            found[each.start, name] = most + (each.price.rounds and units > 0)
            used, high = used + each.used, high + units
    return found


def _between(curve: Curve, before: int, after: int) -> int:
    """Pico that the curve adds from one quantity to another."""
    return curve.owed(after) - curve.owed(before)
