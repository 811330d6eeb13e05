"""One replica: what is known of it, by window, and which windows have to be worked out anew.

Nothing that settles depends on the order in which things became known: a window is worked out whole, by `window_costs`."""

from collections.abc import Mapping
from itertools import pairwise
from operator import attrgetter
from typing import Final

import msgspec
from msgspec import Struct, field

from engine.cost.activity import Activity
from engine.cost.gpu_rates import HOUR_US, GpuRates, Profile
from engine.cost.rollup import Key, Rollup, Row
from engine.cost.served import ReplicaUp, Served
from engine.cost.sweep import Phases, phases
from engine.cost.window import Bucket, Window, window_costs

Name = str  # request and attempt: see `_name`
AGAIN_US: Final = (
    1_000_000  # a window that goes on changing is worked out again after its age, and never sooner than this
)
# Behind its end a stay is known for so long: for what a producer or a new owner may say of it again; and where it was so long
# that the records of one of its hours do not tell of it, for as long as these may still be read (`kafka.retention_days`).
SHORT_KEPT_US: Final = 24 * HOUR_US
LONG_KEPT_US: Final = 42 * 24 * HOUR_US


class Execution(Struct, eq=False, gc=False):
    """What counts of one execution, its shares by window, and what was told of it by hour. It is itself only, and holds
    nothing that could lead back to it: so the collector, which would look at all of them again and again, need not know."""

    name: Name
    served: Served
    phases: Phases
    row: Row  # of the hour in which it ended; most of its windows lie in it
    hour_us: int
    shares: dict[int, int | None] = field(default_factory=dict)
    told: dict[int, tuple[int | None, bool]] = field(default_factory=dict)


Touched = dict[int, set[Execution]]  # by hour: what may have to be told anew


class RequestCost(Struct, frozen=True, gc=False):
    """What one execution cost in one hour; it takes the place of what was told before."""

    served: Served
    hour_us: int
    amount: int | None  # pico; None: not known
    settled: bool  # nothing that is in time changes it any more
    profiled: bool  # False: the model has no profile, and its share is that of any other
    change: int  # to what was told before, as far as both are known


class WindowCost(Struct, frozen=True, gc=False):
    """What a replica cost in one window: all buckets, `direct` as the sum of all shares."""

    replica: str
    begin_us: int
    cost: int | None  # None: not known for all of it
    buckets: dict[Bucket, int]
    settled: bool


class _Told(Struct, frozen=True, gc=False):
    model: str
    cost: int | None
    buckets: dict[Bucket, int]
    unsaid: int = 0  # of `direct`: what its executions together were not told of yet


class Replica:
    """See the module's docstring. Windows are `window_us` long, and named by the instant at which they begin."""

    def __init__(self, name: str, window_us: int, rollup: Rollup, rates: GpuRates | None) -> None:
        self.name: Final = name
        self.ups: Final[dict[int, ReplicaUp]] = {}
        self._window_us: Final = window_us
        self._rollup: Final = rollup
        self._rates = rates
        self._profiles: Mapping[str, Profile] = {} if rates is None else rates.profiles
        self._stays: list[ReplicaUp] = []
        self._activity: Final = Activity()
        self._executions: dict[Name, Execution] = {}
        self._members: dict[int, list[Execution]] = {}
        self._told: dict[int, _Told] = {}
        self._stale: set[int] = set()  # windows of which something is known that they were not worked out with
        self._rest_until: dict[int, int] = {}
        self._asked: set[int] = set()  # stale ones of which somebody waits to be told for the first time
        self._opened_us: int | None = None  # windows that begin before it were opened, whether or not anything ran
        self._rows: dict[tuple[int, str, str | None, str | None], Row] = {}  # of `direct`
        self._settled_us = 0
        self._replaced: Touched = {}
        self._let_go: list[tuple[int, int | None]] = []  # stretches in which it was taken to be there, and was not

    # ---------------------------------------------------------------------------------------------------- what comes in

    def note_served(self, served: Served, closed_us: int, *, follows: bool = False, late: bool = False) -> bool:
        """An execution. False: it changes nothing, because it is known, or a later record of it is. It is told at once what
        it cost, unless it is `late`: then as soon as the rest of each of its windows is over.

        `follows`: what it replaces may have been told by an earlier owner, here and in `note_up`."""
        name = served.request if not served.attempt else _name(served)
        before = self._executions.get(name)
        if before is not None:
            if _rank(served) <= _rank(before.served):
                return False
            self._take_back(before, closed_us)
        begin_us, last_us = served.scheduled_us, served.last_us
        hour_us = last_us - last_us % HOUR_US
        row = self._rows.get((hour_us, served.model, served.account, served.feature)) or self._row_of(served, last_us)
        profiles = self._profiles
        profile = profiles.get(served.model) if profiles else None
        execution = self._executions[name] = Execution(name, served, phases(served, profile), row, hour_us)
        if before is not None:  # where it ran no more, it is told to have cost nothing; but of closed hours nothing is
            execution.told = {hour: told for hour, told in before.told.items() if hour >= closed_us}
            ran = self._windows(before.served.scheduled_us, before.served.last_us, closed_us) if follows else ()
            for hour in execution.told.keys() | {window - window % HOUR_US for window in ran}:
                self._replaced.setdefault(hour, set()).add(execution)
        # As `_windows` has it. An execution is noted a million times an hour, so this path calls as little as it can.
        length, by_window = self._window_us, self._members
        stale, asked = self._stale, self._stale if late else self._asked
        window = begin_us if begin_us > closed_us else closed_us
        window -= window % length
        end_us = last_us if last_us > begin_us else begin_us + 1
        while window < end_us:
            members = by_window.get(window)
            if members is None:
                members = by_window[window] = []
            members.append(execution)
            stale.add(window)
            asked.add(window)
            window += length
        self._count(execution, 1)
        return True

    def _take_back(self, execution: Execution, closed_us: int) -> None:
        served = execution.served
        for window in self._windows(served.scheduled_us, served.last_us, closed_us):
            self._members[window].remove(execution)
            self._stale.add(window)
            self._asked.add(window)  # or its cost would be missing until the window is due
            self._book(execution, window, 0)
        self._count(execution, -1)

    def note_up(self, up: ReplicaUp, closed_us: int, *, follows: bool = False) -> bool:
        """A stay. False: it changes nothing."""
        before = self.ups.get(up.up_us)
        if before is not None and (up.seq, _text(up)) <= (before.seq, _text(before)):
            return False
        if follows and before is not None and up.down_us is not None:
            self._let_go.append((max(up.down_us, closed_us), before.down_us))
        self.ups[up.up_us] = up
        self._stays = _not_closed(self._apart(), closed_us)
        self._look_again(up.up_us, closed_us)
        return True

    def _apart(self) -> list[ReplicaUp]:
        """All stays that are known, in order: each ends where the next begins, at the latest."""
        ordered = [self.ups[begin] for begin in sorted(self.ups)]
        return [_ended(stay, following.up_us) for stay, following in pairwise(ordered)] + ordered[-1:]

    def note_activity(self, gpu: str, at_us: int, permille: int, closed_us: int) -> None:
        """A sample of one of its GPUs: behind the sample before it, it worked for so much of the time."""
        stretch = self._activity.note(gpu, at_us, permille)
        if stretch is not None:
            self._stale.update(window for window in self._windows(*stretch, closed_us) if window in self._told)

    def set_rates(self, rates: GpuRates, closed_us: int) -> None:
        """Other rates, for all that is not closed."""
        self._rates = rates
        self._profiles = rates.profiles
        for execution in self._executions.values():
            served = execution.served
            execution.phases = phases(served, rates.profiles.get(served.model))
        self._look_again(0, closed_us)

    def _look_again(self, from_us: int, closed_us: int) -> None:
        first = max(from_us, closed_us)
        if self._opened_us is not None:
            self._opened_us = min(self._opened_us, first - first % self._window_us)
        for known in (self._members, self._told):
            self._stale.update(window for window in known if window + self._window_us > first)

    def _windows(self, begin_us: int, end_us: int, closed_us: int) -> range:
        """Those that [begin, end) touches and that are not closed; of an empty stretch, the one it lies in."""
        length = self._window_us
        first = max(begin_us, closed_us) // length
        behind = (max(end_us, begin_us + 1) - 1) // length + 1
        return range(first * length, behind * length, length)

    # --------------------------------------------------------------------------------------------------- what comes out

    def work(
        self, now_us: int, settled_us: int, closed_us: int, *, live: bool
    ) -> tuple[list[WindowCost], list[RequestCost]]:
        """Work out what is stale and ends by `settled_us`, and with `live` also what does not: whole, the rarer the older it
        is; and between that, for who waits to be told what an execution cost. That alone is told then: that others ran
        beside it changes a little what each of hundreds cost, ten times over until all have ended. Gives the windows and
        executions that changed or settled since the last time, in order."""
        self._open(now_us, closed_us)
        windows: set[int] = set()
        touched, self._replaced = self._replaced, {}
        due, asked = [], []
        for window in sorted(self._stale):
            end = window + self._window_us
            if end <= settled_us or (live and window < now_us and self._rest_until.get(window, 0) <= now_us):
                due.append(window)
                if end <= now_us:  # else it goes on growing
                    self._stale.remove(window)
                self._rest_until[window] = now_us + max(AGAIN_US, now_us - window)
            elif live and window < now_us and window in self._asked:
                asked.append(window)
        self._asked.difference_update(due, asked)
        self._work_out(due, now_us, windows, touched)
        self._work_out(asked, now_us, windows, touched, whole=False)
        for window in self._settling(settled_us):
            self._rest_until.pop(window, None)
            if window in self._told:
                windows.add(window)
            hour = window - window % HOUR_US
            touched.setdefault(hour, set()).update(self._members.get(window, ()))
        self._settled_us = max(settled_us - settled_us % self._window_us, self._settled_us)
        return self._tell_windows(windows), self._tell_executions(touched)

    def _open(self, now_us: int, closed_us: int) -> None:
        """Time passes for a replica that nobody asks, too."""
        if not self._stays:
            return
        if self._opened_us is None:
            first = max(self._stays[0].up_us, closed_us)
            self._opened_us = first - first % self._window_us
        for window in range(self._opened_us, now_us, self._window_us):
            end = window + self._window_us
            if any(stay.up_us < end and (stay.down_us is None or window < stay.down_us) for stay in self._stays):
                self._stale.add(window)
            self._opened_us = end
        for begin, until in self._let_go:  # it is told to have cost nothing there
            self._stale.update(self._windows(begin, max(begin, min(until or now_us, now_us)), closed_us))
        self._let_go.clear()

    def _settling(self, settled_us: int) -> list[int]:
        """Windows that end by `settled_us` and did not by the last one."""
        length = self._window_us
        first, behind = self._settled_us // length * length, settled_us // length * length
        if (behind - first) // length <= len(self._told):
            return list(range(first, behind, length))
        return sorted(window for window in self._told if first <= window < behind)

    def _work_out(
        self, due: list[int], now_us: int, windows: set[int], touched: Touched, *, whole: bool = True
    ) -> None:
        """All of them at once. Those that come to something else than was told are added to `windows`. Not `whole`: what the
        executions that were told before cost by now is not told, and in their sum alone is it in the rows."""
        asked = []
        for window in due:
            members = self._members.get(window, [])
            members.sort(key=_by_name)
            end = min(window + self._window_us, now_us)
            asked.append(Window([member.phases for member in members], window, end))
        for window, costs in zip(due, window_costs(asked, self._stays, self._rates, self._activity), strict=True):
            hour = window - window % HOUR_US
            changed = touched.setdefault(hour, set())
            before = self._told.get(window)
            all_told = whole or costs.cost is None or before is None or before.cost is None
            for member, share in zip(self._members.get(window, ()), costs.of, strict=True):
                shares = member.shares
                if window not in shares:
                    if share and member.hour_us == hour:  # the common case of `_book`
                        self._rollup.touch(member.row).amount += share
                        shares[window] = share
                    else:  # nothing is a cost as well: it is known
                        self._book(member, window, share)
                    changed.add(member)
                elif all_told and shares[window] != share:
                    self._book(member, window, share)
                    changed.add(member)
            stays = [stay for stay in self._stays if stay.up_us < min(window + self._window_us, now_us)]
            unsaid = 0
            if not all_told:
                said = sum(member.shares[window] or 0 for member in self._members.get(window, ()))
                unsaid = costs.buckets[Bucket.DIRECT] - said
            told = _Told(stays[-1].model if stays else "", costs.cost, costs.buckets, unsaid)
            if told == before:
                continue
            self._told[window] = told
            windows.add(window)
            for sign, state in ((-1, before), (1, told)):
                if state is not None:
                    self._book_buckets(hour, state, sign)

    def _book_buckets(self, hour: int, told: _Told, sign: int) -> None:
        for bucket, whole in told.buckets.items():
            amount = told.unsaid if bucket is Bucket.DIRECT else whole
            if amount:
                row = self._rollup.row(Key(hour, self.name, told.model, bucket))
                self._rollup.touch(row).amount += sign * amount
        if told.cost is None:
            row = self._rollup.row(Key(hour, self.name, told.model, Bucket.UNATTRIBUTED))
            self._rollup.touch(row).unknown += sign

    def _book(self, execution: Execution, window: int, share: int | None) -> None:
        before = execution.shares.get(window, 0)
        row = execution.row
        if not execution.hour_us <= window < execution.hour_us + HOUR_US:
            row = self._row_of(execution.served, window)
        sums = self._rollup.touch(row)
        if share is None or before is None:
            sums.unknown += (share is None) - (before is None)
        sums.amount += (share or 0) - (before or 0)
        execution.shares[window] = share

    def _count(self, execution: Execution, sign: int) -> None:
        served, sums = execution.served, self._rollup.touch(execution.row)
        sums.requests += sign
        sums.computed += sign * (served.prompt - served.cached)
        sums.cached += sign * served.cached
        sums.output += sign * served.output

    def _row_of(self, served: Served, at_us: int) -> Row:
        name = (at_us - at_us % HOUR_US, served.model, served.account, served.feature)
        row = self._rows.get(name)
        if row is None:
            hour, model, account, feature = name
            row = self._rows[name] = self._rollup.row(Key(hour, self.name, model, Bucket.DIRECT, account, feature))
        return row

    def _tell_windows(self, windows: set[int]) -> list[WindowCost]:
        found = []
        for window in sorted(windows):
            told = self._told[window]
            settled = window + self._window_us <= self._settled_us
            found.append(WindowCost(self.name, window, told.cost, told.buckets, settled))
        return found

    def _tell_executions(self, touched: Touched) -> list[RequestCost]:
        found = []
        profiles = self._profiles
        for hour in sorted(touched):
            behind = hour + HOUR_US
            for execution in sorted(touched[hour], key=_by_name):
                served = execution.served
                if self._executions.get(execution.name) is not execution:
                    continue  # another record of it counts now
                amount: int | None = 0
                for window, share in execution.shares.items():
                    if hour <= window < behind:
                        amount = None if amount is None or share is None else amount + share
                state = (amount, min(behind, served.last_us) <= self._settled_us)
                before = execution.told.get(hour)
                if state == before:
                    continue
                execution.told[hour] = state
                change = (amount or 0) - (0 if before is None else before[0] or 0)
                found.append(RequestCost(served, hour, amount, state[1], served.model in profiles, change))
        return found

    @property
    def is_gone(self) -> bool:
        """It holds no GPU any more, and nothing that is not closed is known of it."""
        known = (self.ups, self._executions, self._members, self._told, self._stale, self._replaced, self._let_go)
        return not any(known)

    def forget(self, closed_us: int, close_us: int) -> None:
        """Drop what lies in windows that begin before `closed_us` alone; and stays, a while later. `close_us`: how long an hour
        stays open."""
        for by_window in (self._members, self._told, self._rest_until):
            for window in [window for window in by_window if window < closed_us]:
                del by_window[window]
        self._stale = {window for window in self._stale if window >= closed_us}
        self._asked = {window for window in self._asked if window >= closed_us}
        self._rows = {name: row for name, row in self._rows.items() if name[0] >= closed_us}
        over = [
            name
            for name, known in self._executions.items()
            if max(known.served.last_us, known.served.scheduled_us + 1) <= closed_us
        ]
        for name in over:
            del self._executions[name]
        self._forget_stays(closed_us, close_us)
        self._activity.forget(closed_us)
        if self._opened_us is not None:
            self._opened_us = max(self._opened_us, closed_us)

    def _forget_stays(self, closed_us: int, close_us: int) -> None:
        is_end = False  # the one before it ends only because this one begins
        for stay in self._apart():
            down_us = stay.down_us
            if down_us is not None and not is_end:
                # Whoever works an hour out again reads what was appended until it had closed. Of a stay that was shorter its
                # begin or its end is in there.
                kept_us = LONG_KEPT_US if down_us - stay.up_us > close_us else SHORT_KEPT_US
                if down_us <= closed_us - kept_us:
                    del self.ups[stay.up_us]
                    continue
            is_end = self.ups[stay.up_us].down_us != down_us
        self._stays = _not_closed(self._apart(), closed_us)


_by_name: Final = attrgetter("name")


def _name(served: Served) -> Name:
    """Of a further attempt; of the first one, the common case, it is the request. In the order of both: no request holds a
    NUL, which comes before every other character."""
    return f"{served.request}\x00{served.attempt:04d}"


_encoder: Final = msgspec.json.Encoder()


def _text(record: Served | ReplicaUp) -> bytes:
    return _encoder.encode(record)


def _rank(served: Served) -> tuple[int, bytes]:
    """Of two records with one `seq` that say different things, any one counts, as long as it is always the same."""
    return served.seq, _text(served)


def _not_closed(stays: list[ReplicaUp], closed_us: int) -> list[ReplicaUp]:
    """Of stays in order, those that do not end before it; and the last one that does, to name what is not known behind it."""
    over = sum(stay.down_us is not None and stay.down_us <= closed_us for stay in stays)
    return stays[max(over - 1, 0) :]


def _ended(stay: ReplicaUp, by_us: int) -> ReplicaUp:
    if stay.down_us is not None and stay.down_us <= by_us:
        return stay
    ready = None if stay.ready_us is None or stay.ready_us > by_us else stay.ready_us
    return msgspec.structs.replace(stay, down_us=by_us, ready_us=ready)
