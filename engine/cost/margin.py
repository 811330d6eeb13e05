"""Revenue and cost of one request side by side, and sums of both: a fold over the topics `rated` and `costs`.

The join is by account and request: the id of the usage event that bills a request is the request's. Beyond it requests are
joined by the run that they belong to: what was served says of which run it was, and an event that bills a run, an outcome say,
names it in its tags. A request that belongs to none is joined with nothing else. Each charge and each cost counts in its own
hour, so that what the hours come to are the sums of both topics; what one topic does not say (the plan of a cost, the feature
of a charge) is taken from the request's other side, or its run. A request whose cost is not known has no margin, and a sum
that has one in it has none (R7). Lines of either topic take each other's place as README.md, "Cost", says: so the order in
which lines come, and how often, changes nothing."""

from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

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
    RUN = "run"


class Key(Struct, frozen=True, order=True):
    """What a row sums up. What is not known, or not asked for, is an empty text or 0."""

    hour_us: int
    account: str
    model: str
    feature: str
    plan: str
    currency: str
    request: str = ""
    run: str = ""


class Margin(Struct):
    """A sum. Money in pico."""

    revenue: int = 0
    known_cost: int = 0
    requests: int = 0
    without_cost: int = 0  # requests of which some cost is not known
    without_revenue: int = 0  # served, and nothing is charged for them
    provisional: int = 0  # their cost may still change without a correction
    charges: int = 0  # of a run's row: charges in it that bill the run
    costs: int = 0  # of a run's row: costs in it whose currency is known
    foreign_cost: int = 0  # requests charged in it some of whose cost is in another currency

    @property
    def cost(self) -> int | None:
        """None while that of any request is not known, or is in another currency."""
        return None if self.without_cost or self.foreign_cost else self.known_cost

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
        self.charges += sign * other.charges
        self.costs += sign * other.costs
        self.foreign_cost += sign * other.foreign_cost


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
    repricing: str | None = None
    correction: str | None = None
    tags: dict[str, str] = {}


RUN_TAG: Final = "run"  # the tag by which a usage event says that it bills a run
RUN_KEPT_US: Final = (
    35 * 24 * HOUR_US
)  # so long behind an hour is it known which runs were charged, or cost anything, in it
EVER_US: Final = 1 << 62

_rated: Final = msgspec.json.Decoder(_RatedLine)

_Place = tuple[int, int, int]  # partition, offset, line
_Execution = tuple[int, str, int]  # hour, replica, attempt


class _Charge(Struct, frozen=True, gc=False):
    hour_us: int
    own: int
    repricing: int  # of usage rated before
    currency: str
    model: str
    plan: str
    run: str  # that it bills
    again: bool  # it corrects what was told of an hour that is closed


class _Cost(Struct, frozen=True, gc=False):
    rank: tuple[int, int]  # epoch, seq
    amount: int | None
    currency: str
    model: str
    feature: str
    settled: bool
    run: str  # that it was served for


def _alike(one: _Cost, other: _Cost) -> bool:
    """But for how much it is, where both say so."""
    return (
        (one.amount is None) == (other.amount is None)
        and (one.settled, one.currency, one.model) == (other.settled, other.currency, other.model)
        and (one.feature, one.run) == (other.feature, other.run)
    )


class _Charged(NamedTuple):
    """A fact of a run: a charge bills it."""

    hour_us: int
    plan: str
    currency: str


class _Paid(NamedTuple):
    """A fact of a run: something was served for it, and what that cost is in this currency."""

    hour_us: int
    currency: str
    model: str
    feature: str


_Fact = _Charged | _Paid


class _Known(Struct, frozen=True):
    """What a request takes from the others of its run."""

    plan: str = ""  # of the newest charge that bills it
    currency: str = ""
    charged: bool = False
    paid_in: frozenset[str] = frozenset()
    model: str = ""  # that all of it was served by; empty: by several, or by none
    feature: str = ""


_ALONE: Final = _Known()


def _known(facts: Iterable[_Fact]) -> _Known:
    charged, paid = [], []
    for fact in facts:
        if isinstance(fact, _Charged):
            charged.append(fact)
        else:
            paid.append(fact)
    newest = max(charged, default=None)
    models, features = {fact.model for fact in paid}, {fact.feature for fact in paid}
    return _Known(
        *(("", "", False) if newest is None else (newest.plan, newest.currency, True)),
        frozenset(fact.currency for fact in paid),
        models.pop() if len(models) == 1 else "",
        features.pop() if len(features) == 1 else "",
    )


class _Request:
    """What is known of one request."""

    __slots__ = ("account", "charges", "costs", "name", "run", "touched")

    def __init__(self, account: str, name: str) -> None:
        self.account = account
        self.name = name
        self.charges: dict[_Place, _Charge] = {}
        self.costs: dict[_Execution, _Cost] = {}
        self.run: _Run | None = None
        self.touched = False

    def run_named(self) -> str:
        """The run that its newest charge says it bills, else the one that it was last served for. Empty: none."""
        billed = [place for place, charge in self.charges.items() if charge.run]
        if billed:
            return self.charges[max(billed)].run
        served = [place for place, cost in self.costs.items() if cost.run]
        return self.costs[max(served)].run if served else ""

    def facts(self) -> set[_Fact]:
        """What the others of its run must know of it."""
        found: set[_Fact] = {
            _Charged(each.hour_us, each.plan, each.currency) for each in self.charges.values() if each.run
        }
        if self.costs:
            last = self.costs[max(self.costs)]
            for (hour_us, _, _), cost in self.costs.items():
                if cost.currency:
                    found.add(_Paid(hour_us, cost.currency, last.model, last.feature))
        return found

    def _sold_as(self) -> tuple[str, str]:
        """Plan and currency."""
        known = _ALONE if self.run is None else self.run.known
        newest = self.charges[max(self.charges)] if self.charges else known
        return newest.plan, newest.currency

    def row_of(self, place: _Execution) -> Key:
        """Where the cost of one execution and hour falls, as `portions` has it."""
        plan, currency = self._sold_as()
        last = self.costs[max(self.costs)]
        return Key(place[0], self.account, last.model, last.feature, plan, self.costs[place].currency or currency)

    def portions(self) -> dict[Key, Margin]:
        """What it adds to which rows. The model served counts, and the feature; where nobody served it, the model charged for,
        else that of its run. A cost falls under the plan and in the currency of the newest charge."""
        known = _ALONE if self.run is None else self.run.known
        plan, currency = self._sold_as()
        if self.costs:
            last = self.costs[max(self.costs)]
            model, feature, home_us = last.model, last.feature, max(self.costs)[0]
        else:
            first = self.charges[min(self.charges)]
            model = next((charge.model for _, charge in sorted(self.charges.items()) if charge.model), known.model)
            feature, home_us = known.feature, first.hour_us
        found: dict[Key, Margin] = {}
        counted: set[tuple[Key, str]] = set()

        def row(hour_us: int, plan: str, currency: str) -> tuple[Key, Margin]:
            key = Key(hour_us, self.account, model, feature, plan, currency)
            sums = found.get(key)
            if sums is None:
                sums = found[key] = Margin()
            return key, sums

        paid_in = {cost.currency for cost in self.costs.values() if cost.currency}
        for charge in self.charges.values():
            key, sums = row(charge.hour_us, charge.plan, charge.currency)
            sums.revenue += charge.own
            sums.charges += bool(charge.run)
            if charge.again:
                continue  # what was not known of a closed hour was counted there
            if (all_paid_in := paid_in | known.paid_in if charge.run else paid_in) - {charge.currency}:
                counted.add((key, "foreign"))
            elif not all_paid_in:
                counted.add((key, "unknown"))
        for (hour_us, _, _), cost in self.costs.items():
            key, sums = row(hour_us, plan, cost.currency or currency)
            sums.costs += bool(cost.currency) and self.run is not None
            if cost.amount is None:
                counted.add((key, "unknown"))
            else:
                sums.known_cost += cost.amount
            if not cost.settled:
                counted.add((key, "provisional"))
        if self.costs or not all(charge.again for charge in self.charges.values()):
            _, sums = row(home_us, plan, currency or max(paid_in, default=""))
            sums.requests = 1
            sums.without_revenue = int(not self.charges and not known.charged)
        for key, what in counted:
            if what == "unknown":
                found[key].without_cost = 1
            elif what == "foreign":
                found[key].foreign_cost = 1
            else:
                found[key].provisional = 1
        return found

    def repriced(self) -> dict[Key, Margin]:
        """What it changed in the price of usage rated before. By law R9 that is the account's alone: of no model and feature,
        of no run, and not the request's."""
        found: dict[Key, Margin] = {}
        for charge in self.charges.values():
            if charge.repricing:
                key = Key(charge.hour_us, self.account, "", "", charge.plan, charge.currency)
                found.setdefault(key, Margin()).revenue += charge.repricing
        return found


class _Run:
    """Requests that are joined because they belong to one run."""

    __slots__ = ("facts", "known", "members", "name", "past")

    def __init__(self, name: tuple[str, str], past: set[_Fact]) -> None:
        self.name = name
        self.members: dict[str, _Request] = {}
        self.facts: dict[_Fact, int] = {}  # of how many members
        self.past = past  # facts of hours that are closed
        self.known = _known(past)

    def take_in(self, request: _Request, sign: int) -> None:
        """The request belongs to it from here on, or (-1) no longer."""
        for fact in request.facts():
            members = self.facts.get(fact, 0) + sign
            if members:
                self.facts[fact] = members
            else:
                del self.facts[fact]
        if sign > 0:
            self.members[request.name] = request
        else:
            del self.members[request.name]

    def now_known(self) -> _Known:
        return _known({*self.facts, *self.past})


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
        self._runs: dict[tuple[str, str], _Run] = {}  # those of requests that are held
        self._past: dict[tuple[str, str], set[_Fact]] = {}  # of closed hours, by account and run
        self._stirred: dict[tuple[str, str], _Run] = {}  # a request of theirs has changed
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
            repricing = parse_amount(line.repricing) if line.repricing else 0
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
        hour_us, is_late = line.time_us - line.time_us % HOUR_US, False
        if self._close_us is not None and hour_us < closed_at(append_us, self._close_us):
            hour_us, is_late = append_us - append_us % HOUR_US, True
        again = is_late and line.correction is not None
        run = line.tags.get(RUN_TAG, "")
        parts = amount - repricing, repricing
        charge = _Charge(hour_us, *parts, line.currency, line.cell.get("model", ""), line.plan, run, again)
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
        name, place, rank = (
            (line.account or "", line.request),
            (line.hour_us, line.replica, line.attempt),
            (line.epoch, line.seq),
        )
        request = self._requests.get(name)
        before = None if request is None else request.costs.get(place)
        if before is not None and rank < before.rank:
            return
        try:
            amount = None if line.amount is None else parse_amount(line.amount)
        except NotADecimal as error:
            raise Malformed(f"request {line.request[:40]}, amount: {error}") from error
        cost = _Cost(rank, amount, line.currency or "", line.model, line.feature or "", line.settled, line.run or "")
        if request is None or before is None or not _alike(before, cost):
            self._touch(name).costs[place] = cost
            return
        request.costs[place] = cost
        if amount != before.amount and not request.touched:
            self._move(request, place, (amount or 0) - (before.amount or 0))

    def _move(self, request: _Request, place: _Execution, change: int) -> None:
        """What a request cost has changed, and nothing else of it."""
        key = request.row_of(place)
        keys = (key,) if request.run is None else (key, replace(key, run=request.run.name[1]))
        for each in keys:
            self._rows[each].known_cost += change
            self._changed.add(each)

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
                self._leave_run(request)
        return request

    def _leave_run(self, request: _Request) -> None:
        run = request.run
        if run is not None:
            run.take_in(request, -1)
            self._stirred[run.name] = run
            request.run = None

    def _settle(self) -> None:
        here: list[_Request] = []
        for request in self._touched:
            if not request.charges and not request.costs:
                del self._requests[request.account, request.name]
                continue
            here.append(request)
            named = request.run_named()
            if named:
                request.run = self._run(request.account, named)
                request.run.take_in(request, 1)
        for run in self._stirred.values():
            self._tell_members(run)
        self._stirred.clear()
        for request in here:
            request.touched = False
            self._add(request, 1)
        self._touched.clear()

    def _run(self, account: str, named: str) -> _Run:
        name = account, named
        run = self._runs.get(name)
        if run is None:
            run = self._runs[name] = _Run(name, self._past.get(name, set()))
        self._stirred[name] = run
        return run

    def _tell_members(self, run: _Run) -> None:
        """What they take from it has changed perhaps; those that are touched are added later."""
        if not run.members:
            self._runs.pop(run.name, None)
            return
        known = run.now_known()
        if known == run.known:
            return
        others = [request for request in run.members.values() if not request.touched]
        for request in others:
            self._add(request, -1)
        run.known = known
        for request in others:
            self._add(request, 1)

    def _add(self, request: _Request, sign: int) -> None:
        for key, sums in request.portions().items():
            if request.run is not None:
                self._add_row(replace(key, run=request.run.name[1]), sums, sign)
            self._add_row(key, _of_no_run(sums), sign)
        for key, sums in request.repriced().items():
            self._add_row(key, sums, sign)

    def _add_row(self, key: Key, sums: Margin, sign: int) -> None:
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Margin()
        row.add(sums, sign)
        self._changed.add(key)

    # --------------------------------------------------------------------------------------------------- what comes out

    def told(self, rows: Iterable[tuple[Key, Margin]], closed_us: int) -> None:
        """What an earlier owner told. Of hours that are not closed all that is not found again is taken back; of the others
        it is known which runs were charged and what they cost anything in (rows of the last RUN_KEPT_US)."""
        self.closed_us = closed_us
        for key, sums in rows:
            if key.hour_us < closed_us:
                self._remember(key, sums)
                continue
            self._told[key] = sums
            self._changed.add(key)

    def _remember(self, key: Key, sums: Margin) -> None:
        """Facts of a run in an hour that has closed."""
        name = key.account, key.run
        facts: list[_Fact] = []
        if sums.charges:
            facts.append(_Charged(key.hour_us, key.plan, key.currency))
        if sums.costs:
            facts.append(_Paid(key.hour_us, key.currency, key.model, key.feature))
        if facts:
            self._past.setdefault(name, set()).update(facts)
            run = self._runs.get(name)
            if run is not None:
                run.past = self._past[name]
                self._stirred[name] = run

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
        for key, sums in self._rows.items():
            if key.run and key.hour_us < before_us:
                self._remember(key, sums)
        self._forget_runs(self.closed_us - RUN_KEPT_US)
        self._rows = {key: sums for key, sums in self._rows.items() if key.hour_us >= before_us}
        self._told = {key: sums for key, sums in self._told.items() if key.hour_us >= before_us}
        over = [
            name
            for name, request in self._requests.items()
            if all(charge.hour_us < before_us for charge in request.charges.values())
            and all(hour_us < before_us for hour_us, _, _ in request.costs)
        ]
        for name in over:
            self._leave_run(self._requests.pop(name))
        self._offsets = {
            place: told
            for place, told in self._offsets.items()
            if any(name in self._requests for name in told.lines.values() if name is not None)
        }

    def _forget_runs(self, before_us: int) -> None:
        for name, facts in list(self._past.items()):
            old = {fact for fact in facts if fact.hour_us < before_us}
            if old:
                facts -= old
                if name in self._runs:
                    self._stirred[name] = self._runs[name]
                if not facts:
                    del self._past[name]

    def sums(self, by: Sequence[By]) -> list[tuple[Key, Margin]]:
        """Sums over all that is held, in order."""
        self._settle()
        found: dict[Key, Margin] = {}
        for request in self._requests.values():
            for key, sums in request.portions().items():
                if request.run is not None:
                    key = replace(key, run=request.run.name[1])
                found.setdefault(told_apart(key, by, request.name), Margin()).add(_of_no_run(sums))
            for key, sums in request.repriced().items():
                found.setdefault(told_apart(key, by), Margin()).add(sums)
        return sorted(found.items(), key=lambda each: each[0])


def _of_no_run(sums: Margin) -> Margin:
    """Without what only a run's own row tells."""
    return replace(sums, charges=0, costs=0) if sums.charges or sums.costs else sums


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
        key.run if By.RUN in by else "",
    )


def summed(rows: Iterable[tuple[Key, Margin]], by: Sequence[By]) -> list[tuple[Key, Margin]]:
    """Rows as sums by less, in order."""
    found: dict[Key, Margin] = {}
    for key, sums in rows:
        found.setdefault(told_apart(key, by, key.request), Margin()).add(sums)
    return sorted(found.items(), key=lambda each: each[0])


def closed_at(log_us: int, close_us: int) -> int:
    """Hours that begin before this instant are closed at log time `log_us`."""
    return max(0, (log_us - close_us) // HOUR_US * HOUR_US)
