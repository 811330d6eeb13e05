"""How leases stand with whoever grants them: what they hold of an account, and how large one may be (README, "Leases")."""

from collections.abc import Callable
from fractions import Fraction
from math import ceil

from msgspec import Struct

from engine.account import Account
from engine.catalog import Catalogue, Plan
from engine.holds import Bound, Hold
from engine.leases import Lease, LeaseBook, takes
from engine.limits import scope_path
from engine.money import NANO
from engine.outlook import Ledger
from engine.prices.price import Price
from engine.reasons import Binding


class LeasedBound(Struct, frozen=True):
    """What a lease's requests may use of these fields together; no fields: they are counted."""

    fields: tuple[str, ...]
    up_to: int  # nano-units, of one request
    granted: int  # of all


class UnitCeiling(Struct, frozen=True):
    """The most that a unit of a price can cost under a lease."""

    price: str
    meter: str
    fields: tuple[str, ...]
    pico: int | None  # None: it comes in steps, and no unit has a price of its own


class LeaseTerms(Struct, frozen=True):
    """What a holder needs to know to decide alone."""

    bounds: tuple[LeasedBound, ...]
    ceilings: tuple[UnitCeiling, ...]
    owner_decides: tuple[str, ...]  # scopes below the lease's


class Leased:
    """The leases of one account as its owner counts them: those in the log, and those on their way into it."""

    def __init__(self) -> None:
        self.granting: dict[str, Hold] = {}  # decided, and not read back yet
        self._piled: dict[
            str, tuple[int, Hold, tuple[int, ...]]
        ] = {}  # segment, hold, what is left: as the ledger has it
        self._seen: LeaseBook | None = None
        self._stale: set[str] = set()  # to be looked at anew, though the log says nothing new of them

    def begin(self, hold: Hold) -> None:
        """It was decided: it counts from now on."""
        self.granting[hold.id] = hold
        self._stale.add(hold.id)

    def read(self, hold: Hold) -> None:
        """The log says so now. A later extension of it may still be on its way."""
        if self.granting.get(hold.id) == hold:
            del self.granting[hold.id]
            self._stale.add(hold.id)

    def count(self, account: Account) -> int:
        """How many there are, or will be."""
        return len(account.leases.of.keys() | self.granting.keys())

    def open_one(self, account: Account, lease: str) -> Hold | None:
        """What was granted of a lease that the log has, and that was not closed; extensions that are on their way included."""
        known = account.leases.of.get(lease)
        if known is None or known.sent is not None:
            return None
        return self._coming(known, lease) or known.hold

    def mind(self, ledger: Ledger, account: Account) -> None:
        """Let the ledger hold what is left of each."""
        book = account.leases
        names = book.changed | self._stale
        if self._seen is not book:
            names = book.of.keys() | self.granting.keys() | self._piled.keys()
        if not names:
            return
        self._seen = book
        book.changed.clear()
        self._stale.clear()
        for name in names:
            before, wanted = self._piled.pop(name, None), self._wanted(book, name)
            if before is not None and wanted == before[1:]:
                self._piled[name] = before
                continue
            if before is not None:
                self._pile(ledger, before, -1)
            if wanted is not None:
                hold, left = wanted
                after = account.segment_around(hold.admitted_us)[0], hold, left
                self._pile(ledger, after, 1)
                self._piled[name] = after

    def put_anew(self, ledger: Ledger, account: Account) -> None:
        """The ledger was cleared: boundaries have moved."""
        self._piled.clear()
        self._seen = None
        self.mind(ledger, account)

    def _wanted(self, book: LeaseBook, name: str) -> tuple[Hold, tuple[int, ...]] | None:
        """What a lease holds: what is left of it, and what is on its way."""
        known = book.of.get(name)
        hold = self._coming(known, name)
        if hold is None:
            return None if known is None or not any(known.left) else (known.hold, known.left)
        had = [bound.quantity for bound in known.hold.bounds] if known is not None else [0] * len(hold.bounds)
        left = known.left if known is not None else (0,) * len(hold.bounds)
        more = [max(0, bound.quantity - before) for bound, before in zip(hold.bounds, had, strict=True)]
        return hold, tuple(map(sum, zip(left, more, strict=True)))

    def _coming(self, known: Lease | None, name: str) -> Hold | None:
        """What is on its way into the log, and will be taken when it gets there."""
        hold = self.granting.get(name)
        return hold if hold is not None and takes(known, hold) else None

    @staticmethod
    def _pile(ledger: Ledger, piled: tuple[int, Hold, tuple[int, ...]], sign: int) -> None:
        segment, hold, left = piled
        path = scope_path(hold.scope)
        for bound, quantity in zip(hold.bounds, left, strict=True):
            ledger.put(segment, path, bound, sign * quantity, sign * hold.requests)


def at_most_half(requests: int, least: int, is_admitted: Callable[[int], bool]) -> int:
    """How many of the requests a lease may have: all, half, a quarter and so on, the first that twice as many of would be
    admitted too; 0: fewer than `least`. So whoever comes next still finds as much."""
    number = requests
    while number >= max(1, least):
        if is_admitted(2 * number):
            return number
        number = number // 2 if number // 2 >= least or number == least else least
    return 0


def only_owner_keeps(account: Account, scope: str) -> Binding | None:
    """A limit on the path that binds each request at its own moment, or by its own price: no lease can keep it."""
    path = scope_path(scope)
    for name, rate in sorted(account.rate_limits.items()):
        if rate.scope in path:
            return Binding("rate", rate.scope, name, None, None, rate.meter or "")
    for name, cap in sorted(account.caps.items()):
        if cap.hard and cap.per_request and cap.in_money and cap.scope in path:
            return Binding("cap", cap.scope, name, None, None)
    return None


def narrower_limits(account: Account, scope: str) -> list[str]:
    """The scopes below a lease's that have limits of their own, which its holder does not know."""
    limited = {cap.scope for cap in account.caps.values() if cap.hard}
    limited |= {rate.scope for rate in account.rate_limits.values()}
    limited |= {name for name, each in account.scopes.items() if each.standing != "active" or each.allowed}
    return sorted(each for each in limited if each != scope and scope in scope_path(each))


def terms_of(account: Account, plan: Plan, catalogue: Catalogue, lease: Hold) -> LeaseTerms:
    """`plan` and `catalogue` as they were in force when it was granted."""
    bounds: dict[tuple[str, ...], LeasedBound] = {}
    ceilings: dict[str, UnitCeiling] = {}
    for bound in lease.bounds:
        fields = fields_of(bound, plan, catalogue)
        bounds[fields] = LeasedBound(fields, bound.quantity // lease.requests, bound.quantity)
        for name in bound.reached:
            price = plan.prices[name]
            rate = _dearest_rate(plan, price)
            ceilings[name] = UnitCeiling(name, price.meter, fields, None if rate is None else ceil(rate * NANO))
    by_name = tuple(ceilings[name] for name in sorted(ceilings))
    return LeaseTerms(tuple(bounds.values()), by_name, tuple(narrower_limits(account, lease.scope)))


def _dearest_rate(plan: Plan, price: Price) -> Fraction | None:
    """The most that one more unit can add: its own rate, and what it adds by moving others in tiers that they share."""
    if price.shared is None:
        return price.dearest_rate
    others = [plan.prices[name] for name in price.shared.behind(price.name) if name in plan.prices]
    if price.shared.by_sum:
        return None  # all units of all of them may become dearer at once
    found = Fraction(0)
    by_tier = list(zip(price.curves[0].rates, *(each.curves[0].rates for each in others), strict=True))
    for place, (own, *_) in enumerate(by_tier):
        above = zip(by_tier[place:], by_tier[place + 1 :], strict=False)
        # At each edge above it one unit of one of them, at the most, comes into the next tier.
        rises = sum(
            (max([Fraction(0), *(b - a for a, b in zip(low[1:], high[1:], strict=True))]) for low, high in above)
        )
        found = max(found, own + rises)
    return found


def fields_of(bound: Bound, plan: Plan, catalogue: Catalogue) -> tuple[str, ...]:
    """What a question names to bound it: fields of events, or meters; nothing where events are counted."""
    read = {catalogue.meters[plan.prices[name].meter].bounded_by for name in bound.reached}
    return tuple(sorted(field for field in read if field is not None))


def leased_pico(account: Account, plan: Plan) -> int:
    """What all leases of an account have left, at the dearest a unit of it can cost; of steps, on average."""
    total = 0
    for each in account.leases.of.values():
        for bound, left in zip(each.hold.bounds, each.left, strict=True):
            rates = [plan.prices[name].steepest for name in bound.held if name in plan.prices]
            total += ceil(left * sum(rates))
    return total


def times(bounds: tuple[Bound, ...], number: int) -> tuple[Bound, ...]:
    """Of so many requests; none of no request."""
    return tuple(Bound(number * each.quantity, each.reached, each.held) for each in bounds) if number else ()


def per_request(lease: Hold) -> tuple[Bound, ...]:
    """What each of a lease's requests may use at most."""
    return tuple(Bound(each.quantity // lease.requests, each.reached, each.held) for each in lease.bounds)
