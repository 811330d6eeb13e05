"""Revenue and cost of one request side by side, and sums of both: a fold over the topics `rated` and `costs`.

The join is by account and request: the id of the usage event that bills a request is the request's. Each charge and each cost
counts in its own hour, so that what the hours come to are the sums of both topics; what one topic does not say (the plan of a
cost, the feature of a charge) is taken from the request's other side. A request whose cost is not known has no margin, and a
sum that has one in it has none (R7). Lines of either topic take each other's place as README.md, "Cost", says: so the order
in which lines come, and how often, changes nothing."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from engine.cost.gpu_rates import HOUR_US
from engine.cost.lines import RequestLine
from engine.events import Malformed
from engine.money import NotADecimal, parse_amount
from engine.waivers import WAIVED


class By(StrEnum):
    """What sums may be told apart by."""

    ACCOUNT = "account"
    MODEL = "model"
    FEATURE = "feature"
    PLAN = "plan"
    HOUR = "hour"
    REQUEST = "request"


class Key(Struct, frozen=True, order=True):
    """What a row sums up. What is not known, or not asked for, is an empty text or 0."""

    hour_us: int
    account: str
    model: str
    feature: str
    plan: str
    currency: str
    request: str = ""


class Margin(Struct):
    """A sum. Money in pico."""

    revenue: int = 0
    known_cost: int = 0
    requests: int = 0
    without_cost: int = 0  # requests of which some cost is not known
    without_revenue: int = 0  # served, and nothing is charged for them
    provisional: int = 0  # their cost may still change without a correction

    @property
    def cost(self) -> int | None:
        """None while that of any request is not known."""
        return None if self.without_cost else self.known_cost

    @property
    def margin(self) -> int | None:
        """Revenue − cost, where that is known."""
        return None if self.cost is None else self.revenue - self.cost

    @property
    def permille(self) -> int | None:
        """The margin of the revenue, rounded down; None where there is no revenue or no margin."""
        margin = self.margin
        return None if margin is None or self.revenue <= 0 else margin * 1_000 // self.revenue

    def add(self, other: "Margin", sign: int = 1) -> None:
        """Take in another sum, or take it out again."""
        self.revenue += sign * other.revenue
        self.known_cost += sign * other.known_cost
        self.requests += sign * other.requests
        self.without_cost += sign * other.without_cost
        self.without_revenue += sign * other.without_revenue
        self.provisional += sign * other.provisional


_NOTHING: Final = Margin()


class _RatedLine(Struct, gc=False):
    """What of a line of the topic `rated` is needed."""

    offset: int
    line: int
    epoch: int
    account: str
    id: str
    time_us: int
    amount: str
    currency: str
    cell: dict[str, str] = {}
    plan: str = ""
    accrued_us: int | None = None
    due: str | None = None


EVER_US: Final = 1 << 62

_rated: Final = msgspec.json.Decoder(_RatedLine)

_Place = tuple[int, int, int]  # partition, offset, line
_Run = tuple[int, str, int]  # hour, replica, attempt


class _Charge(Struct, frozen=True, gc=False):
    hour_us: int
    amount: int
    currency: str
    model: str
    plan: str


class _Cost(Struct, frozen=True, gc=False):
    rank: tuple[int, int]  # epoch, seq
    amount: int | None
    currency: str
    model: str
    feature: str
    settled: bool


class _Request:
    """What is known of one request."""

    __slots__ = ("account", "charges", "costs", "name", "touched")

    def __init__(self, account: str, name: str) -> None:
        self.account = account
        self.name = name
        self.charges: dict[_Place, _Charge] = {}
        self.costs: dict[_Run, _Cost] = {}
        self.touched = False

    def portions(self) -> dict[Key, Margin]:
        """What it adds to which rows. The model served counts, and the feature; where nobody served it, the model charged for.
        A cost falls under the plan and in the currency of the newest charge."""
        newest = max(self.charges) if self.charges else None
        plan = "" if newest is None else self.charges[newest].plan
        currency = "" if newest is None else self.charges[newest].currency
        if self.costs:
            last = self.costs[max(self.costs)]
            model, feature, home_us = last.model, last.feature, max(self.costs)[0]
        else:
            first = self.charges[min(self.charges)]
            model = next((charge.model for _, charge in sorted(self.charges.items()) if charge.model), "")
            feature, home_us = "", first.hour_us
        found: dict[Key, Margin] = {}
        counted: set[tuple[Key, str]] = set()

        def row(hour_us: int, plan: str, currency: str) -> tuple[Key, Margin]:
            key = Key(hour_us, self.account, model, feature, plan, currency)
            sums = found.get(key)
            if sums is None:
                sums = found[key] = Margin()
            return key, sums

        paid_in = {cost.currency for cost in self.costs.values()}
        for charge in self.charges.values():
            key, sums = row(charge.hour_us, charge.plan, charge.currency)
            sums.revenue += charge.amount
            if charge.currency not in paid_in:  # nothing is converted here
                counted.add((key, "unknown"))
        for (hour_us, _, _), cost in self.costs.items():
            key, sums = row(hour_us, plan, cost.currency or currency)
            if cost.amount is None:
                counted.add((key, "unknown"))
            else:
                sums.known_cost += cost.amount
            if not cost.settled:
                counted.add((key, "provisional"))
        key, sums = row(home_us, plan, currency or max(paid_in))
        sums.requests = 1
        sums.without_revenue = int(not self.charges)
        for key, what in counted:
            if what == "unknown":
                found[key].without_cost = 1
            else:
                found[key].provisional = 1
        return found


class RowChange(Struct, frozen=True):
    """A row as it is now."""

    key: Key
    sums: Margin


class _Told(Struct, gc=False):
    epoch: int
    lines: dict[int, tuple[str, str] | None]  # by number: account and id of the request that it charges, None: of none


class MarginFold:
    """All requests of some accounts, and their sums by hour, account, model, feature, plan and currency.

    Memory grows with the requests of the hours that are not forgotten. `closed_us` is what hours no longer change."""

    def __init__(self, close_us: int | None = None, from_us: int = 0, until_us: int = EVER_US) -> None:
        """`close_us`: a charge that comes so long behind the end of its hour counts in the hour in which it comes, as that
        one was told long ago. None: every charge counts in its own. Charges of other times than [from_us, until_us) are
        left out, and costs of hours that it does not touch."""
        self.closed_us = 0
        self.unreadable = 0
        self.too_late = 0  # costs of hours that are forgotten
        self._close_us = close_us
        self._from_us = from_us
        self._until_us = until_us
        self._requests: dict[tuple[str, str], _Request] = {}
        self._offsets: dict[tuple[int, int], _Told] = {}
        self._rows: dict[Key, Margin] = {}
        self._told: dict[Key, Margin] = {}
        self._touched: list[_Request] = []
        self._changed: set[Key] = set()

    def __len__(self) -> int:
        """Requests that are held."""
        return len(self._requests)

    # ---------------------------------------------------------------------------------------------------- what comes in

    def apply_rated(self, partition: int, text: bytes, append_us: int) -> None:
        """A line of the topic `rated`. The lines of an offset are those of its highest epoch, as a set."""
        try:
            line = _rated.decode(text)
            amount = parse_amount(line.amount)
        except (msgspec.MsgspecError, NotADecimal):
            self.unreadable += 1
            return
        place = (partition, line.offset)
        told = self._offsets.get(place)
        if told is None:
            told = self._offsets[place] = _Told(line.epoch, {})
        elif line.epoch < told.epoch or (line.epoch == told.epoch and line.line in told.lines):
            return
        elif line.epoch > told.epoch:
            for number, name in told.lines.items():
                if name is not None:
                    self._take_back(name, (*place, number))
            told.epoch, told.lines = line.epoch, {}
        asked = self._from_us <= line.time_us < self._until_us
        # What a period owes, or open sessions came to, is of no request; what a cap waives is taken off the one that passed it.
        if not asked or line.due not in (None, WAIVED) or line.accrued_us is not None:
            told.lines[line.line] = None
            return
        name = (line.account, line.id)
        told.lines[line.line] = name
        hour_us = line.time_us - line.time_us % HOUR_US
        if self._close_us is not None and hour_us < closed_at(append_us, self._close_us):
            hour_us = append_us - append_us % HOUR_US
        charge = _Charge(hour_us, amount, line.currency, line.cell.get("model", ""), line.plan)
        self._touch(name).charges[*place, line.line] = charge

    def _take_back(self, name: tuple[str, str], place: _Place) -> None:
        if name in self._requests:
            self._touch(name).charges.pop(place, None)

    def apply_cost(self, line: RequestLine) -> None:
        """A line of the topic `costs`: of one execution and hour the newest counts. Raises Malformed."""
        if not self._from_us - HOUR_US < line.hour_us < self._until_us:
            return
        if line.hour_us < self.closed_us:
            self.too_late += 1
            return
        name, run, rank = (
            (line.account or "", line.request),
            (line.hour_us, line.replica, line.attempt),
            (line.epoch, line.seq),
        )
        request = self._requests.get(name)
        before = None if request is None else request.costs.get(run)
        if before is not None and rank < before.rank:
            return
        try:
            amount = None if line.amount is None else parse_amount(line.amount)
        except NotADecimal as error:
            raise Malformed(f"request {line.request[:40]}, amount: {error}") from error
        cost = _Cost(rank, amount, line.currency or "", line.model, line.feature or "", line.settled)
        if before is None or replace(before, rank=rank) != cost:
            self._touch(name).costs[run] = cost
        elif request is not None:
            request.costs[run] = cost

    def _touch(self, name: tuple[str, str]) -> _Request:
        """The request, to be changed: what it adds to the rows is taken out until `_settle` puts it back."""
        request = self._requests.get(name)
        if request is None:
            request = self._requests[name] = _Request(*name)
        if not request.touched:
            request.touched = True
            self._touched.append(request)
            if request.charges or request.costs:
                self._add(request, -1)
        return request

    def _settle(self) -> None:
        for request in self._touched:
            request.touched = False
            if request.charges or request.costs:
                self._add(request, 1)
            else:
                del self._requests[request.account, request.name]
        self._touched.clear()

    def _add(self, request: _Request, sign: int) -> None:
        for key, sums in request.portions().items():
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = Margin()
            row.add(sums, sign)
            self._changed.add(key)

    # --------------------------------------------------------------------------------------------------- what comes out

    def told(self, rows: Iterable[tuple[Key, Margin]], closed_us: int) -> None:
        """What an earlier owner told of hours that are not closed: all that is not found again is taken back."""
        self.closed_us = closed_us
        for key, sums in rows:
            self._told[key] = sums
            self._changed.add(key)

    def changes(self) -> list[RowChange]:
        """Rows that differ from what was told, in order; they count as told from here on."""
        self._settle()
        found = []
        for key in sorted(self._changed):
            now = self._rows.get(key, _NOTHING)
            if key.hour_us >= self.closed_us and now != self._told.get(key, _NOTHING):
                self._told[key] = replace(now)
                found.append(RowChange(key, replace(now)))
        self._changed.clear()
        return found

    def forget(self, before_us: int) -> None:
        """Hours that begin before the instant have closed: what they came to was told."""
        self._settle()
        self.closed_us = max(self.closed_us, before_us)
        self._rows = {key: sums for key, sums in self._rows.items() if key.hour_us >= before_us}
        self._told = {key: sums for key, sums in self._told.items() if key.hour_us >= before_us}
        over = [
            name
            for name, request in self._requests.items()
            if all(charge.hour_us < before_us for charge in request.charges.values())
            and all(hour_us < before_us for hour_us, _, _ in request.costs)
        ]
        for name in over:
            del self._requests[name]
        self._offsets = {
            place: told
            for place, told in self._offsets.items()
            if any(name in self._requests for name in told.lines.values() if name is not None)
        }

    def sums(self, by: Sequence[By]) -> list[tuple[Key, Margin]]:
        """Sums over all that is held, in order."""
        self._settle()
        found: dict[Key, Margin] = {}
        for request in self._requests.values():
            for key, sums in request.portions().items():
                found.setdefault(told_apart(key, by, request.name), Margin()).add(sums)
        return sorted(found.items(), key=lambda each: each[0])


def told_apart(key: Key, by: Sequence[By], request: str = "") -> Key:
    """The key of the sum that a row belongs to."""
    return Key(
        key.hour_us if By.HOUR in by else 0,
        key.account if By.ACCOUNT in by else "",
        key.model if By.MODEL in by else "",
        key.feature if By.FEATURE in by else "",
        key.plan if By.PLAN in by else "",
        key.currency,
        request if By.REQUEST in by else "",
    )


def closed_at(log_us: int, close_us: int) -> int:
    """Hours that begin before this instant are closed at log time `log_us`."""
    return max(0, (log_us - close_us) // HOUR_US * HOUR_US)
