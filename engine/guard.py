"""The fast path of rating: most events change nothing but quantities.

Between two boundaries an account is linear. While events lie in its newest segment, quantities below the ends of their
tiers, and charges below what a rule waits for, a charge is a multiplication and a few additions, and everything else of
the account follows from them when somebody asks. A guard holds these bounds. It is made by asking the full path once
(`Account._guarded`), and is thrown away with the first call that takes the full path.

What a guard does not know it does not let pass: `rate` says None, having changed nothing, and the full path decides.
"""

from collections.abc import Callable, Collection, Mapping
from math import gcd, lcm
from typing import NamedTuple

from engine.charges import Row, Running
from engine.credit import UNBOUNDED, Place
from engine.limits import Cap, Scope
from engine.meters import Cell
from engine.outcomes import Line
from engine.prices.price import Price
from engine.prices.shared import Shared
from engine.routes import Usage
from engine.windows import Counts


class _Use:
    """A price in the segment: up to which quantity of its period each begun `size` costs the same."""

    __slots__ = (
        "_start",
        "agreed_us",
        "denominator",
        "edge",
        "is_plain",
        "over",
        "owed",
        "quantity",
        "rate",
        "short",
        "size",
        "tier",
        "unpriced",
        "version",
    )

    def __init__(self, run: Running, price: Price, version: int) -> None:
        stretch = run.curve.next_at(run.at)
        unpriced = run.quantity - run.at
        ends = [stretch.end, None if price.shared is not None else price.end_at(run.priced)]
        self.edge = min((end + unpriced for end in ends if end is not None), default=UNBOUNDED)
        if run.at == stretch.start and run.curve.numerator(run.at) != stretch.base:
            self.edge = run.quantity  # the next unit owes what is due on entering its tier
        self.quantity = run.quantity  # nano-units in the period
        # Of these, what quantity grants took; None: others may move what is used in tiers that they share.
        self.unpriced = unpriced if price.shared is None else None
        self.tier = stretch.tier
        self.owed = run.amount  # pico, rounded
        exact, denominator = run.exact()
        self.denominator = lcm(denominator, run.curve.denominator)
        self.over = exact * (self.denominator // denominator) - run.amount * self.denominator  # what rounding left out
        self.rate = stretch.rate * (self.denominator // run.curve.denominator)
        shared = gcd(self.rate, self.denominator, self.over)
        self.rate, self.denominator, self.over = self.rate // shared, self.denominator // shared, self.over // shared
        self._start, self.size = stretch.start + unpriced, stretch.size
        self.agreed_us = price.agreed_us
        self.version = None if price.agreed_us is not None or price.version == version else price.version
        self.short = price.short
        self.is_plain = price.is_even and self.version is None and price.is_published

    def begun(self, quantity: int) -> int:
        """How many sizes so many more nano-units begin."""
        behind = self._start - self.quantity
        return behind // self.size - (behind - quantity) // self.size

    def rounded(self, amount: int, over: int) -> tuple[int, int]:
        """The charge, and what is left over or owed, so that the cumulative amount is rounded half-even (law M2)."""
        if 2 * over > self.denominator or (2 * over == self.denominator and (self.owed + amount) & 1):
            return amount + 1, over - self.denominator
        return amount, over


class Tallied:
    """A cap that counts for itself."""

    __slots__ = ("cap", "counts", "room")

    def __init__(self, cap: Cap, counts: Counts, room: int) -> None:
        self.cap = cap
        self.counts = counts
        self.room = room  # what may be counted before a rule on it can change


class Payment(NamedTuple):
    """Who pays for what more is charged in the segment, beside what it was when all was derived last."""

    place: Place  # of the ledger
    room: int  # pico that may be charged before another pays
    charged: int  # what the guard had charged by then
    balance: int  # pico
    spend: int  # pico, of the segment's calendar month

    def after(self, more: int) -> "Payment":
        """So many pico later."""
        return Payment(self.place, self.room - more, self.charged + more, self.balance - more, self.spend + more)


class Guard:
    """The newest segment, from `start` to before `end`. Used or not: `row` is what the table has of it, or will have."""

    __slots__ = (
        *(
            "_cells",
            "_granted",
            "_price_at",
            "_room",
            "_running",
            "_scopes",
            "_tallied",
            "_told_at",
            "_uses",
            "_version",
            "_zone",
        ),
        *("charged", "closes_us", "end", "ledger", "month", "payment", "period", "row", "start"),
    )

    def __init__(
        self,
        start: int,
        end: int,
        *,
        period: int,
        month: int,
        row: Row,
        running: Mapping[tuple[int, str], Running],
        price_at: Callable[[int, str], Price],
        version: int,
        cells: int,
        room: int,
        tallied: list[Tallied],
        told_at: Mapping[str, int],
        granted: Collection[str],
        scopes: Mapping[str, Scope],
        zone: str,
        closes_us: int,
    ) -> None:
        """`running`: what each price owes by now; `version`: the catalogue's in force; `cells`: how many may be added;
        `room`: the pico below which a charge changes no rule; `told_at`: per price, the nano-units of the period at which a
        rule wants to know; `granted`: prices of which a quantity grant serves the next unit; `closes_us`: the log time by
        which the period may be closed."""
        self.start = start
        self.end = end
        self.closes_us = closes_us
        self.period = period
        self.month = month
        self.row = row
        self.charged = 0  # pico, since the guard was made
        self.payment: Payment | None = None
        self.ledger: dict[Place, int] | None = None  # pico, as of the making; None: it has been posted
        self._running = running
        self._price_at = price_at
        self._version = version
        self._cells = cells
        self._room = room
        self._tallied = tallied
        self._told_at = told_at
        self._granted = granted
        self._scopes = scopes
        self._zone = zone
        self._uses: dict[str, _Use] = {}

    def rate(self, time_us: int, usages: list[Usage], scopes: tuple[str, ...], now_us: int) -> tuple[Line, ...] | None:
        """Charge one event that lies in the segment: its lines. None: the full path decides, and nothing was changed."""
        uses, row = self._uses, self.row
        lines: list[Line] = []
        steps: list[tuple[_Use, tuple[str, Cell], int, int, int]] = []
        total = fresh = 0
        for price, cell, quantity in usages:
            name = price.name
            use = uses.get(name)
            if use is None:
                use = uses[name] = self._use(name)
            if use.quantity + quantity > use.edge:
                return None
            key = (name, cell)
            if key not in row:
                fresh += 1
            amount, over = divmod(
                use.rate * (quantity if use.size == 1 else use.begun(quantity)) + use.over, use.denominator
            )
            if over:
                amount, over = use.rounded(amount, over)
            tiers = ((use.tier, quantity),) if quantity else ()
            if use.is_plain:
                lines.append(Line(name, cell, quantity, amount, tiers))
            else:
                used = None if use.unpriced is None else use.quantity - use.unpriced
                lines.append(Line(name, cell, quantity, amount, tiers, 0, used, use.version, use.agreed_us, use.short))
            steps.append((use, key, quantity, amount, over))
            total += amount
        if total >= self._room or fresh > self._cells:
            return None
        if self._tallied and not self._tally(time_us, usages, scopes, total, now_us):
            return None
        self._room -= total
        self._cells -= fresh
        self.charged += total
        for use, key, quantity, amount, over in steps:
            use.quantity += quantity
            use.owed += amount
            use.over = over
            row[key] = row.get(key, 0) + quantity
        for scope in scopes:
            spend = self._scopes[scope].spend
            spend[self.month] = spend.get(self.month, 0) + total
        return tuple(lines)

    def _use(self, name: str) -> _Use:
        price = self._price_at(self.start, name)
        run = self._running.get((self.period, name))
        if price.shared is None:
            use = _Use(Running(price) if run is None else run.under(price), price, self._version)
        else:
            use = self._share(price, price.shared, run)
        if name in self._told_at:
            use.edge = min(use.edge, self._told_at[name] - 1)
        if name in self._granted:
            use.edge = use.quantity
        return use

    def _share(self, price: Price, shared: Shared, run: Running | None) -> _Use:
        """Of tiers that are shared: as many units as move no other price into another tier. Each price may use an equal part
        of them, as what one uses, it takes from all."""
        priced = {
            name: known.priced
            for name in shared.prices
            if (known := self._running.get((self.period, name))) is not None
        }
        begins, total = dict(shared.begins(priced)), sum(priced.values())
        use = _Use(run or Running(price, total, begins[price.name]), price, self._version)
        if shared.by_sum:
            end = price.end_at(total)
            rooms = [] if end is None else [end - total]
        else:
            rooms = [] if use.edge == UNBOUNDED else [use.edge - use.quantity]
            for name in shared.behind(price.name):
                stretch = price.curves[0].next_at(begins[name])
                if stretch.end is not None:
                    rooms.append(stretch.end - begins[name] - priced.get(name, 0))
        if rooms:
            use.edge = use.quantity + max(0, min(rooms)) // len(shared.prices)
        return use

    def _tally(self, time_us: int, usages: list[Usage], scopes: tuple[str, ...], charge: int, now_us: int) -> bool:
        """Count the event where no rule can change and no place is new; False: nothing was counted."""
        counting = []
        for tallied in self._tallied:
            window, counts = tallied.cap.window, tallied.counts
            amount = tallied.cap.counted(usages, scopes, charge)
            instant = now_us if window.by_log_time else time_us
            place = None if amount is None else window.place(self._zone, counts, instant)
            if amount is None or place is None:
                continue
            if place not in counts or amount >= tallied.room or window.is_gone(self._zone, place, now_us):
                return False
            counting.append((tallied, place, amount))
        for tallied, place, amount in counting:
            tallied.counts[place] += amount
            tallied.room -= amount
        return True
