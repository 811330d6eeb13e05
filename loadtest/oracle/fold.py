"""The fold over a log: records in, outcomes out, and everything derived from the rated events.

What the quick mode remembers between events is one table per account, (period, price) -> segment -> quantity, and
the amounts that follow from it; any grant or catalogue throws it away. `paranoid=True` derives everything from
the raw events each time and compares it with the table.
"""

import hashlib
import hmac
from bisect import insort
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cache, partial
from math import lcm
from typing import Any

from loadtest.oracle.accounts import (
    Account,
    Alert,
    Crossing,
    Due,
    Least,
    LotStanding,
    OracleAccount,
    Partition,
    Rated,
    RatedEvent,
    Stream,
    Table,
    told_id,
)
from loadtest.oracle.aggregates import Known, Reading, added, known_after
from loadtest.oracle.approvals import leases, slices
from loadtest.oracle.catalogue import Version, version_of
from loadtest.oracle.commands import COMMANDS as ON_ACCOUNTS
from loadtest.oracle.contract import View, price_at, segment_of, stated
from loadtest.oracle.corrections import PARKED_BYTES_MAX, PARTS, Correction, Revision, read_correction
from loadtest.oracle.credit import Amounts, Paid, allocate, counted
from loadtest.oracle.limits import is_over
from loadtest.oracle.meters import OF_SESSIONS, RATED_AT
from loadtest.oracle.period_lines import closings, fees, least, next_ahead, next_closing, opened_by
from loadtest.oracle.periods import DAY_US, period_of
from loadtest.oracle.prices import ALONE, Allowance, Ladder, Place, Price, half_even
from loadtest.oracle.quantity_grants import as_before, grant_quantity, served, void_quantity_grant
from loadtest.oracle.records import (
    CONTROL_PREFIX,
    MAC_BYTES,
    SECOND_US,
    DeadLetterError,
    Fields,
    RefusedError,
    partition_of,
    read_event,
    read_hold,
    read_json,
    read_key,
)
from loadtest.oracle.recurring import give, remove_recurring, set_recurring
from loadtest.oracle.rerating import rerate
from loadtest.oracle.rules import looks_again, remove_rule, seen, set_rule
from loadtest.oracle.sessions import (
    MINUTE_US,
    SESSIONS_MAX,
    Heard,
    Session,
    Stretch,
    Told,
    in_segments,
    last_minute,
)
from loadtest.oracle.top_up import again_at, answer_top_up, asks, remove_top_up, set_top_up
from loadtest.oracle.waivers import in_force, owed, waived

COMMANDS = ON_ACCOUNTS | {
    "rerate": rerate,
    "set_rule": set_rule,
    "remove_rule": remove_rule,
    "set_recurring_grant": set_recurring,
    "remove_recurring_grant": remove_recurring,
    "grant_quantity": grant_quantity,
    "void_quantity_grant": void_quantity_grant,
    "set_top_up": set_top_up,
    "remove_top_up": remove_top_up,
    "answer_top_up": answer_top_up,
}
SKEW_US = 300 * SECOND_US
WINDOW_US = 35 * DAY_US
CLOSE_AFTER_MAX_US = 30 * DAY_US
BUCKET_US = 7 * DAY_US
COMMAND_MEMORY_US = 30 * DAY_US
VALUE_BYTES_MAX = 65_536
CELLS_MAX = 10_000
STREAMS_MAX = 10_000
ADVANCE_US_MAX = 366 * DAY_US

Quantities = Mapping[tuple[int, str], Mapping[int, int]]  # (period, price) -> segment -> nano-units


def _on_time(events: list[RatedEvent]) -> list[RatedEvent]:
    """Those whose period was open when they came."""
    return [event for event in events if event.posted is None]


def _adjusted(table: Table) -> dict[tuple[int, int], dict[str, int]]:
    """(segment of posting, closed period's start) -> price -> pico."""
    return {(posted, start): dict(charges) for (posted, start, _), charges in table.adjusted.items()}


def _until(parked: Correction) -> int:
    """The log time from which the original would be refused as too old."""
    return int(parked.original["time_us"]) + WINDOW_US - SKEW_US + 1


class Oracle:
    """Feed it the log, partition by partition in offset order, then read what should have come of it.

    `catalogues` holds the JSON document of each version, or what was read of it before; the log's markers say from when
    each is in force."""

    def __init__(
        self,
        catalogues: Mapping[int, Mapping[str, Any] | Version],
        control_key: bytes,
        topic: str,
        partitions: int,
        paranoid: bool = False,
    ) -> None:
        self._versions = {number: version_of(number, catalogue) for number, catalogue in catalogues.items()}
        plans = [plan for version in self._versions.values() for plan in version.plans.values()]
        published = [price for version in self._versions.values() for price in version.prices]
        self._floors = {price.name for price in published if price.floor is not None}  # ever, as below
        self._owes_besides = any(plan.fees or plan.commitments or plan.seats for plan in plans)
        self._has_advance = any(
            plan.seats or any(ahead for _, _, ahead in plan.fees.values()) for plan in plans
        )  # whether any plan ever had a fee in advance, or seats
        self._any_shares = any(price.shares is not None for price in published)
        self._grains = lcm(*(version.grains for version in self._versions.values()))
        self._control_key = control_key
        self._topic = topic
        self._partition_count = partitions
        self._paranoid = paranoid
        self._partitions = {number: Partition(number) for number in range(partitions)}
        self.rated: dict[tuple[int, int], Rated] = {}
        self.corrected: dict[tuple[int, int], Rated] = {}  # what corrections changed, all of an offset together
        self.accrued: dict[
            tuple[int, int, str], Rated
        ] = {}  # what open sessions came to, by partition, offset, account
        self.alerts: dict[str, Alert] = {}

    # ---- results

    @property
    def outcomes(self) -> dict[int, Counter[str]]:
        """Per partition, how many records came to what: `rated`, `duplicate`, `forwarded`, `dead_lettered.<reason>`,
        `cancelled`, `amended`, `parked`, `applied`, `repeated`, `refused.<reason>`, `tick`, `void`, `owner`, `catalogue`."""
        return {number: partition.outcomes for number, partition in self._partitions.items()}

    @property
    def accounts(self) -> dict[str, OracleAccount]:
        """Every open account, derived from its raw events now."""
        return {
            name: self._standing(partition, account)
            for partition in self._partitions.values()
            for name, account in partition.accounts.items()
        }

    def state(self, partition: int) -> Partition:
        """All that the fold over a partition has come to."""
        return self._partitions[partition]

    def segments(self, partition: int, account: Account) -> dict[int, Counter[tuple[str, tuple[str, ...]]]]:
        """Segment start -> (price, cell) -> quantity, from the account's raw events that were on time."""
        state = self._partitions[partition]
        table: dict[int, Counter[tuple[str, tuple[str, ...]]]] = {}
        for event in account.events:
            if not event.parts or event.posted:
                continue
            row = table.setdefault(self._segment_of(state, account, event.time_us), Counter())
            for price, cell, quantity in event.parts:
                row[price, cell] += quantity
        for (_, price, cell), by_segment in self._observed(state, account, _on_time(account.events)).items():
            for start, quantity in by_segment.items():
                table.setdefault(start, Counter())[price, cell] = quantity
        return table

    def adjusted(self, partition: int, account: Account) -> dict[tuple[int, int], dict[str, int]]:
        """(segment of posting, closed period's start) -> price -> pico, from the account's raw events."""
        return _adjusted(self._derive(self._partitions[partition], account))

    def balance(self, name: str, until_us: int = 0) -> int | None:
        """One account's balance as of the last record fed, or had nothing but time passed until then; None while it is not
        open."""
        for state in self._partitions.values():
            if name in state.accounts:
                account = state.accounts[name]
                return self._balance(account, self._table(state, account), max(account.woken, until_us))
        return None

    def _standing(self, partition: Partition, account: Account) -> OracleAccount:
        table = self._derive(partition, account)
        counters: Counter[tuple[int, str, tuple[str, ...]]] = Counter()
        for event in account.events:
            period = account.period_of(event.time_us)
            for price, cell, quantity in event.parts if event.posted is None else []:
                counters[(period, price, cell)] += quantity
        for key, by_segment in self._observed(partition, account, _on_time(account.events)).items():
            counters[key] = sum(by_segment.values())
        paid = allocate(owed(account, table.amounts), table.adjusted, account.lots, account.woken)
        lots = {}
        for lot in account.lots:
            left, over = paid.left[lot.lot], lot.expires is not None and account.woken >= lot.expires
            parts = (paid.burnt(lot.lot), left if over else 0, 0 if over else left)
            more = (paid.back(lot.lot), paid.voids.get(lot.lot, 0), paid.carried.get(lot.lot, 0))
            lots[lot.lot] = LotStanding(paid.granted[lot.lot], *parts, *more)
        return OracleAccount(
            plan=account.plan,
            currency=account.currency,
            counters=dict(counters),
            amounts={key: table.total(*key) for key in table.quantities},
            lots=lots,
            debt=paid.debt,
            due=self._due_of(partition, account, paid),
            balance=self._balance(account, table, account.woken),
            spend=self._spend(account, table.amounts),
            scopes={scope: dict(spend) for scope, spend in account.scopes.items()},
            adjusted=_adjusted(table),
        )

    # ---- the fold

    def feed(self, partition: int, offset: int, append_ms: int, key: bytes | None, value: bytes | None) -> str:
        """Apply the next record of a partition; returns its outcome, as `outcomes` counts it."""
        state = self._partitions[partition]
        if offset <= state.offset:
            raise ValueError(f"partition {partition}: offset {offset} does not follow {state.offset}; feed in order")
        state.offset = offset
        self._wake(state, max(state.log_us, append_ms * 1000))
        try:
            if value is None:
                raise DeadLetterError("malformed")
            control = value.startswith(CONTROL_PREFIX)
            outcome = self._control(state, value) if control else self._usage(state, key, value)
        except DeadLetterError as error:
            outcome = f"dead_lettered.{error}"
        except RefusedError as error:
            outcome = f"refused.{error}"
        state.outcomes[outcome] += 1
        return outcome

    def _wake(self, state: Partition, reached: int) -> None:
        """Log time moves on, past everything that is due by then."""
        while state.wakes and state.wakes[0][0] <= reached:
            instant, name = state.wakes.pop(0)
            state.log_us = max(state.log_us, instant)
            account = state.accounts[name]
            account.woken = instant
            give(state, account, instant)
            self._evaluate(state, account, instant)
            self._bill(state, account)
            if instant == last_minute(name, instant) < last_minute(name, reached):
                self._wait(state, account, last_minute(name, reached))  # the last one says it all
            elif instant == last_minute(name, instant):
                self._accrue(state, account)
            for corrects, parked in list(account.parked.items()):
                if _until(parked) <= instant:
                    del account.parked[corrects]
                    self._tell_failed(state, account, parked)
        state.log_us = reached

    def _bill(self, state: Partition, account: Account) -> None:
        """Periods that close at this instant of log time: what each owes besides its usage is posted."""
        if not self._has_minima(account):
            self._await_statement(state, account)
            return
        table, version_at = self._table(state, account), self._versions_of(state)
        dues = []
        for closes, start in closings(account, version_at):
            if closes > state.log_us:
                break
            if closes == state.log_us:
                owed = self._missing(state, account, table, start)
                owed |= fees(account, version_at, start)
                dues += [Due(closes, start, name, pico) for name, pico in owed.items()]
        self._post(state, account, [*dues, *self._ahead(state, account)])
        self._await_closing(state, account)

    def _ahead(self, state: Partition, account: Account) -> list[Due]:
        """What open periods owe in advance by what has begun at this log time, and was not posted for them before."""
        found = []
        for start in opened_by(account, self._versions_of(state), state.log_us):
            before: dict[str, int] = {}
            for due in account.dues:
                if due.period == start and due.name.startswith(("fee\0", "seat\0")):
                    before[due.name] = before.get(due.name, 0) + due.amount
            owed = fees(account, self._versions_of(state), start, in_advance=True, known_by=state.log_us)
            more = {name: owed.get(name, 0) - before.get(name, 0) for name in sorted(before.keys() | owed.keys())}
            found += [Due(state.log_us, start, name, pico) for name, pico in more.items() if pico]
        return found

    def _post(self, state: Partition, account: Account, dues: list[Due]) -> None:
        """At this instant of log time, as lines that no event makes."""
        if not dues:
            return
        place = (state.number, state.offset, account.account)
        lines = dict(self.accrued[place].prices) if place in self.accrued else {}
        for due in dues:
            account.dues.append(due)
            _, _, of = due.name.partition("\0")
            had = lines.get(of, (0, 0))
            lines[of] = (had[0], had[1] + due.amount)
        self.accrued[place] = Rated(account.account, "tallygate.period", "", lines)
        account.table = None
        account.newest_us = max(state.log_us, account.newest_us or state.log_us)
        self._evaluate(state, account, state.log_us)

    def _due_of(self, state: Partition, account: Account, paid: Paid) -> int:
        """Debt of closed periods, as of the last waking."""
        if not account.postpaid:
            return 0
        closing = closings(account, self._versions_of(state))
        return paid.owed_before(next(start for closes, start in closing if closes > account.woken))

    def _await_statement(self, state: Partition, account: Account) -> None:
        if account.postpaid:
            closing = closings(account, self._versions_of(state))
            due = next(closes for closes, _ in closing if closes > account.woken)
            if (due, account.account) not in state.wakes:
                insort(state.wakes, (due, account.account))

    def _versions_of(self, state: Partition) -> Callable[[int], Version | None]:
        return lambda time_us: self._version_at(state, time_us)

    def _least(self, state: Partition, account: Account, start: int) -> Least:
        """What the period that starts then owes at least, for which prices."""
        if start not in account.least:
            price_at = partial(self._price_at, state, account)
            account.least[start] = least(account, self._versions_of(state), price_at, start, self._floored(account))
        return account.least[start]

    def _missing(self, state: Partition, account: Account, table: Table, start: int) -> dict[str, int]:
        """What the usage of a period, with all that came late, falls short of that."""
        found = {}
        for name, (pico, prices) in self._least(state, account, start).items():
            missing = pico - sum(self._whole_total(state, account, table, start, price) for price in prices)
            if missing > 0:
                found[name] = missing
        return found

    def _floored(self, account: Account) -> set[str]:
        """Every price that ever had a minimum or a commitment of its own."""
        agreed = {each.price for each in account.agreed if each.terms is not None and each.terms.floor is not None}
        return agreed | self._floors

    def _has_minima(self, account: Account) -> bool:
        """Whether any price ever had one, or a plan a fee, a commitment or seats."""
        return self._owes_besides or bool(self._floored(account))

    def _await_closing(self, state: Partition, account: Account) -> None:
        self._await_statement(state, account)
        if not self._has_minima(account):
            return
        due = next_closing(state, account, self._versions_of(state), partial(self._least, state, account))
        ahead = None
        if self._has_advance:
            changes = [each for _, each in state.versions[1:]] + [each for each, _ in account.phases]
            ahead = next_ahead(account, self._versions_of(state), state.log_us, max([account.opened, *changes]))
        for each in (due, ahead):
            if each is not None and (each, account.account) not in state.wakes:
                insort(state.wakes, (each, account.account))

    # ---- usage

    def _usage(self, state: Partition, key: bytes | None, value: bytes) -> str:
        if len(value) > VALUE_BYTES_MAX:
            raise DeadLetterError("too_large")
        name = None
        if key is not None:
            name = read_key(key)
            if partition_of(key, self._partition_count) != state.number:
                return "forwarded"
        event = read_event(value)
        if name is None:
            subject = event.get("subject")
            if subject is None:
                raise DeadLetterError("malformed")
            name = read_key(subject.encode("utf-8"))
            if partition_of(subject.encode("utf-8"), self._partition_count) != state.number:
                return "forwarded"
        account = state.accounts.get(name)
        if account is None:
            raise DeadLetterError("unknown_account")
        if event["type"] in PARTS:
            return self._correct(state, account, read_correction(name, event, len(value)))
        held = self._admission(name, event)
        self._check_time(state, event, held)
        revision = (event["source"], event["id"], 0)
        known = self._known(state, name, revision)
        if event["seq"] is not None:
            stream = self._stream_of(state, account, event, held)
            if stream is not None:
                return self._follow(state, account, stream, event, held)
            if known is not None:
                raise DeadLetterError("stream_over")
            if sum(each.until_us > state.log_us for each in account.streams.values()) >= STREAMS_MAX:
                raise DeadLetterError("too_many_streams")
        if known is not None:
            if known[1] == event["billing"]:
                return "duplicate"
            self._tell(state, name, "id_conflict", f"{event['source']}\0{event['id']}", 1, "crossed")
            raise DeadLetterError("id_conflict")
        rated = self._measured(state, account, event, held)
        if held and rated.heard:
            raise DeadLetterError("bad_hold")
        sessions = self._hear(state, account, rated, event)
        lines = self._enter(state, account, [rated, *self._stretches(state, account, sessions, True)])
        self._went(state, account, sessions)
        self.rated[(state.number, state.offset)] = Rated(name, event["source"], event["id"], lines)
        self._remember(state, name, revision, event["billing"], rated)
        if event["seq"] is not None:
            until_us = state.log_us + self._stream_window(state, event, held)
            self._put_stream(account, event, until_us, 0, rated)
        self._take_up(state, account, revision)
        return "rated"

    # ---- streams

    def _stream_window(self, state: Partition, event: dict[str, Any], held: tuple[int, str] | None) -> int:
        """How long a stream stays open that the event begins."""
        version = self._version_at(state, event["time_us"] if held is None else held[0])
        if version is None or event["type"] not in version.stream_windows_us:
            raise DeadLetterError("bad_stream")
        return int(version.stream_windows_us[event["type"]])

    def _stream_of(
        self, state: Partition, account: Account, event: dict[str, Any], held: tuple[int, str] | None
    ) -> Stream | None:
        """The stream that goes on with the event."""
        self._stream_window(state, event, held)
        stream = account.streams.get((event["type"], event["source"], event["id"]))
        return None if stream is None or stream.until_us <= state.log_us else stream

    def _follow(
        self,
        state: Partition,
        account: Account,
        stream: Stream,
        event: dict[str, Any],
        held: tuple[int, str] | None,
    ) -> str:
        """The event takes the place of the last one, if it is a later one."""
        name = account.account
        if event["seq"] < stream.seq:
            return "outdated"
        if event["seq"] == stream.seq:
            if event["billing"] == stream.billing:
                return "duplicate"
            self._tell(state, name, "id_conflict", f"{event['source']}\0{event['id']}", 1, "crossed")
            raise DeadLetterError("id_conflict")
        if self._hold_id(event) != stream.hold:
            raise DeadLetterError("bad_hold")
        back = stream.rated.taken_back(self._posted(state, account, stream.rated.time_us))
        rated = self._measured(state, account, event, held)
        lines = self._enter(state, account, [self._in_time(account, each) for each in (back, rated)])
        self.corrected[state.number, state.offset] = Rated(name, event["source"], event["id"], lines)
        made = event["source"], event["id"], stream.revision + 1
        self._remember(state, name, made, event["billing"], rated)
        self._put_stream(account, event, stream.until_us, stream.revision + 1, rated)
        self._take_up(state, account, made)
        return "amended"

    def _put_stream(
        self, account: Account, event: dict[str, Any], until_us: int, revision: int, rated: RatedEvent
    ) -> None:
        place = event["type"], event["source"], event["id"]
        account.streams[place] = Stream(event["seq"], event["billing"], until_us, revision, rated, self._hold_id(event))

    def _hold_id(self, event: dict[str, Any]) -> str | None:
        return None if event["hold"] is None else read_hold(self._control_key, event["hold"]).id

    def _check_time(self, state: Partition, event: dict[str, Any], held: tuple[int, str] | None) -> None:
        time_us = event["time_us"]
        if time_us is None:
            raise DeadLetterError("missing_time")
        if time_us > state.log_us + SKEW_US:
            raise DeadLetterError("too_far_ahead")
        if time_us < state.log_us - (WINDOW_US - SKEW_US):
            raise DeadLetterError("too_old")
        if held is not None and held[0] < state.log_us - (WINDOW_US - SKEW_US):
            raise DeadLetterError("too_old")

    def _measured(
        self, state: Partition, account: Account, event: dict[str, Any], held: tuple[int, str] | None
    ) -> RatedEvent:
        """The event as it is to be rated."""
        time_us, scope = held or (event["time_us"], event["scope"])
        parts, said, heard = self._measure(state, account, event["type"], time_us, event["data"])
        readings = [
            (price, cell, kind, Reading(time_us, event["source"], event["id"], value, limit, points))
            for price, cell, kind, value, limit, points in said
        ]
        scopes = [name for name in account.scopes if (scope + "/").startswith(name + "/")]
        caps = [(name, cap.since) for name, cap in account.counting.items() if not cap.scope or cap.scope in scopes]
        posted = self._posted(state, account, time_us)
        return RatedEvent(time_us, parts, scopes, caps if posted is None else [], readings, posted, heard)

    def _posted(self, state: Partition, account: Account, time_us: int) -> tuple[int, int, int] | None:
        """Where usage of an instant is posted, if its period is closed, and so are all before it."""
        start, length, _ = account.period(time_us)
        end = start + length
        while end > state.log_us - CLOSE_AFTER_MAX_US:  # each before that is closed
            version = self._version_at(state, end)
            assert version is not None
            plan = version.plans.get(account.plan_at(end - 1))
            if end + (DAY_US if plan is None else plan.close_after_us) > state.log_us:
                return None
            end = account.period_of(end - 1)
        return self._segment_of(state, account, state.log_us), start, start + length

    def _admission(self, name: str, event: dict[str, Any]) -> tuple[int, str] | None:
        """When the hold that an event names was admitted, and in which scope its usage lies: how it is rated."""
        if event["hold"] is None:
            return None
        try:
            hold = read_hold(self._control_key, event["hold"])
        except (ValueError, LookupError, TypeError) as error:
            raise DeadLetterError("bad_hold") from error
        if hold.account != name:
            raise DeadLetterError("bad_hold")
        if hold.is_lease and (not hold.scope or (event["scope"] + "/").startswith(hold.scope + "/")):
            return hold.admitted, event["scope"]
        return hold.admitted, hold.scope

    def _known(self, state: Partition, name: str, revision: Revision) -> tuple[int, object, RatedEvent] | None:
        known = state.identities.get((name, *revision))
        forgotten = known is not None and state.log_us >= (known[0] + 1) * BUCKET_US + WINDOW_US
        return None if forgotten else known

    def _remember(self, state: Partition, name: str, revision: Revision, billing: object, rated: RatedEvent) -> None:
        state.identities[name, *revision] = (state.log_us // BUCKET_US, billing, rated)

    def _measure(
        self, state: Partition, account: Account, event_type: str, time_us: int, data: dict[str, object]
    ) -> tuple[
        list[tuple[str, tuple[str, ...], int]], list[tuple[str, tuple[str, ...], str, int | str, int, int]], list[Heard]
    ]:
        """What adds up, what does not, and what is said of sessions."""
        version = self._version_at(state, time_us)
        meters = [meter for meter in version.meters if meter.event_type == event_type] if version else []
        if version is None or not meters:
            raise DeadLetterError("no_meter")
        if data.get("usage_basis") not in (None, "measured", "estimated"):
            raise DeadLetterError("bad_usage")
        seen = version.fields_of(event_type, data) | {RATED_AT: time_us}
        parts = []
        said = []
        heard = []
        for meter in meters:
            measured = meter.measure(seen)
            if measured is None:
                continue
            cell, quantity = measured
            price = version.price_of(account.plan_at(time_us), meter, cell)
            price = price and stated(account, version, price.name, time_us)
            if quantity is None and (price is None or price.estimate is None):
                raise DeadLetterError("bad_quantity")
            if price is None:
                raise DeadLetterError("no_price")
            if meter.aggregation in OF_SESSIONS:
                assert isinstance(quantity, int)
                heard.append(Heard(meter.name, *meter.session_of(seen), meter.begun(cell), quantity))
            elif meter.adds_up:
                assert not isinstance(quantity, str)
                parts.append((price.name, cell, price.counted(quantity)))
            else:
                assert quantity is not None
                said.append((price.name, cell, meter.aggregation, quantity, meter.limit, meter.points))
        return parts, said, heard

    # ---- sessions

    def _hear(
        self, state: Partition, account: Account, rated: RatedEvent, event: Mapping[str, Any]
    ) -> dict[tuple[str, str], Session]:
        """The sessions that an event tells of, with what it tells."""
        found = {}
        for heard in rated.heard:
            key, said = (heard.meter, heard.session), (heard.cell, event["scope"])
            session = account.sessions.get(key)
            if session is None or self._is_gone(state, session):
                if sum(not self._is_gone(state, each) for each in account.sessions.values()) >= SESSIONS_MAX:
                    raise DeadLetterError("too_many_sessions")
                session = Session(*said, tuple(rated.scopes))
            told = Told(rated.time_us, event["source"], event["id"], heard.state, heard.weight)
            same_weight = told.state == "level" or all(each.weight == told.weight for each in session.events)
            if (session.cell, session.scope) != said or not same_weight:
                raise DeadLetterError("session_conflict")
            if session.oldest is not None and told < session.oldest:
                raise DeadLetterError("too_many_values")
            session = found[key] = replace(session, events=[*session.events, told])
            if session.has_levels:
                session.oldest = session.oldest_known(state.log_us - (WINDOW_US - SKEW_US))
            self._pieces(state, account, key, session)  # all of its time has a price
        return found

    def _is_gone(self, state: Partition, session: Session) -> bool:
        is_over = not session.has_levels or max(session.events).weight == 0
        return is_over and session.seen < state.log_us - (WINDOW_US - SKEW_US)

    def _goes(self, state: Partition, account: Account, meter: str, session: Session) -> tuple[list[Stretch], bool]:
        """What it comes to as of now, and whether it goes on."""
        version = self._version_at(state, session.seen)
        assert version is not None
        timeout_us = next(each.timeout_us for each in version.meters if each.name == meter)
        return session.goes(last_minute(account.account, state.log_us), timeout_us)

    def _pieces(
        self, state: Partition, account: Account, key: tuple[str, str], session: Session
    ) -> list[tuple[int, int, str, tuple[str, ...], int]]:
        """(segment, last microsecond, price, cell, nano-units) of what is to be entered, or, below 0, taken back."""
        stretches, _ = self._goes(state, account, key[0], session)
        whole = [*stretches, *session.charged]
        low, high = min((each.begin for each in whole), default=0), max((each.end for each in whole), default=0)
        boundaries = self._boundaries(state, account, low, high)
        cells_between = partial(self._cells_between, state, key[0], session.cell)
        now, before = (in_segments(each, boundaries, cells_between) for each in (stretches, session.charged))
        found = []
        for place in sorted(now.keys() | session.entered.keys()):
            segment, cell = place
            last, units = now.get(place, (0, 0))
            more = units - session.entered.get(place, 0)
            if more:
                last = last if more > 0 else before[place][0]
                found.append((segment, last, self._price_of_time(state, account, key[0], cell, last), cell, more))
        return found

    def _cells_between(
        self, state: Partition, meter_name: str, cell: tuple[str, ...], begin: int, end: int
    ) -> list[tuple[int, int, tuple[str, ...]]]:
        """The cells that a session goes through in a segment."""
        version = self._version_at(state, begin)
        for meter in version.meters if version else []:
            if meter.name == meter_name and len(meter.group_by) == len(cell):
                return meter.cells_between(cell, begin, end)
        return [(begin, end, cell)]

    def _boundaries(self, state: Partition, account: Account, low: int, high: int) -> set[int]:
        """Every boundary of segments from the one that holds `low` on, to `high`."""
        boundaries = {effective for _, effective in state.versions[1:]} | {each.start for each in account.agreed}
        boundaries |= {instant for lot in account.lots for instant in lot.boundaries()}
        boundaries |= {instant for grant in account.quantity_grants.values() for instant in grant.boundaries}
        boundaries = {each for each in boundaries if low < each < high}
        time_us = low
        while time_us < high:
            start, length, _ = account.period(time_us)
            boundaries |= {start, period_of(account.zone, 1, time_us), period_of(account.zone, 1, start + length)}
            time_us = start + length
        return boundaries | {self._segment_of(state, account, low)}

    def _price_of_time(
        self, state: Partition, account: Account, meter_name: str, cell: tuple[str, ...], time_us: int
    ) -> str:
        version = self._version_at(state, time_us)
        for meter in version.meters if version else []:
            if meter.name == meter_name and len(meter.group_by) == len(cell):
                assert version is not None
                price = version.price_of(account.plan_at(time_us), meter, cell)
                if price is not None:
                    return price.name
        raise DeadLetterError("no_price")

    def _stretches(
        self, state: Partition, account: Account, sessions: Mapping[tuple[str, str], Session], apart: bool
    ) -> list[RatedEvent]:
        """What these sessions change, as events: by segment, what is taken back first; each session's apart or not."""
        made: dict[tuple[int, bool, tuple[str, ...], str, tuple[str, ...], str], tuple[int, int]] = {}
        for key, session in sessions.items():
            try:
                pieces = self._pieces(state, account, key, session)
            except DeadLetterError:
                continue  # it has no price now, and is tried again
            for segment, last, price, cell, units in pieces:
                kind = (segment, units > 0, session.scopes, price, cell, key[1] if apart else "")
                had = made.get(kind, (0, 0))
                made[kind] = max(had[0], last), had[1] + units
        events = []
        for (_, is_added, scopes, price, cell, _), (last, units) in sorted(made.items()):
            caps = [(name, cap.since) for name, cap in account.counting.items() if not cap.scope or cap.scope in scopes]
            posted = self._posted(state, account, last)
            counting = caps if is_added and posted is None else []
            events.append(RatedEvent(last, [(price, cell, units)], list(scopes), counting, posted=posted))
        return events

    def _went(self, state: Partition, account: Account, sessions: Mapping[tuple[str, str], Session]) -> None:
        """All of their time is entered. Those that go on come to more with the next minute."""
        for key, session in sessions.items():
            try:
                for segment, _, _, cell, units in self._pieces(state, account, key, session):
                    session.entered = session.entered | {
                        (segment, cell): session.entered.get((segment, cell), 0) + units
                    }
            except DeadLetterError:
                continue
            session.charged = self._goes(state, account, key[0], session)[0]
        account.sessions |= sessions
        self._wait(state, account, last_minute(account.account, state.log_us) + MINUTE_US)

    def _wait(self, state: Partition, account: Account, instant: int) -> None:
        """It wakes then, if any of its sessions goes on, or is not entered as it is."""
        if self._accruing(state, account):
            due = instant, account.account
            if due not in state.wakes:
                insort(state.wakes, due)

    def _accruing(self, state: Partition, account: Account) -> dict[tuple[str, str], Session]:
        found = {}
        for key, session in account.sessions.items():
            stretches, goes_on = self._goes(state, account, key[0], session)
            if goes_on or stretches != session.charged:
                found[key] = session
        return found

    def _accrue(self, state: Partition, account: Account) -> None:
        open_ones = self._accruing(state, account)
        events = self._stretches(state, account, open_ones, False)
        if events:
            try:
                lines = self._enter(state, account, events)
            except DeadLetterError:  # too many cells: tried again
                self._went(state, account, {})
                return
            place = state.number, state.offset, account.account
            before = self.accrued[place].prices if place in self.accrued else {}
            for price, (quantity, amount) in before.items():
                had = lines.get(price, (0, 0))
                lines[price] = (had[0] + quantity, had[1] + amount)
            self.accrued[place] = Rated(account.account, "tallygate.accrual", "", lines)
        self._went(state, account, open_ones)

    def _enter(self, state: Partition, account: Account, events: list[RatedEvent]) -> dict[str, tuple[int, int]]:
        """Add events, all or none; per price the quantity and the charge of all of them. Rules look at the end only."""
        table = self._table(state, account)
        cells = set(table.cells)
        known = dict(account.known)
        for place, event in enumerate(events):
            self._check_values(account, event, events[:place])
            segment = self._segment_of(state, account, event.time_us)
            for price, cell, kind, reading in event.readings:
                if kind in ("max", "min", "latest"):
                    here = (segment, price, cell)
                    known[here] = known_after(kind, known.get(here, Known()), reading, event.is_back)
            cells |= {(segment, price, cell) for price, cell in event.cells}
            if len(cells) > CELLS_MAX:
                raise DeadLetterError("too_many_cells")
        account.known = known
        lines: dict[str, tuple[int, int]] = {}
        for event in events:
            account.events.append(event)
            if not event.parts and not event.readings:  # no meter counts it: it is known by its id, and that is all
                continue
            own = 0
            moved: dict[str, int] = {}
            prices = event.prices
            start = account.period_of(event.time_us)
            others = self._sharing(state, account, table, start) - prices
            before = {price: self._total(state, account, table, event, price) for price in prices | others}
            lay = self._placed(state, account, table, event, prices | others)
            missing = self._missing(state, account, table, event.posted[1]) if event.posted else {}
            not_owed = self._not_owed(state, account, table, event)
            used = {price: sum(self._counted(account, table, event, price).values()) for price in prices}
            seen = event.time_us if event.posted is None else state.log_us
            account.newest_us = seen if account.newest_us is None else max(account.newest_us, seen)
            self._add(state, account, table, event, account.events)
            lie = self._placed(state, account, table, event, prices | others)
            for price in prices:
                quantity = moved[price] = sum(self._counted(account, table, event, price).values()) - used[price]
                amount = self._total(state, account, table, event, price) - before[price]
                own += amount - self._repriced(state, account, price, event.time_us, lay[price], lie[price])
                had = lines.get(price, (0, 0))
                lines[price] = (had[0] + quantity, had[1] + amount)
            for price in others:
                if self._moves(state, account, price, event.time_us, lay[price], lie[price]):
                    had = lines.get(price, (0, 0))
                    lines[price] = had[0], had[1] + self._total(state, account, table, event, price) - before[price]
            after = self._missing(state, account, table, event.posted[1]) if event.posted else {}
            for name in missing.keys() | after.keys():
                more, (_, _, of) = after.get(name, 0) - missing.get(name, 0), name.partition("\0")
                if more:
                    lines[of] = (lines.get(of, (0, 0))[0], lines.get(of, (0, 0))[1] + more)
            now_not = self._not_owed(state, account, table, event)
            changes = {price: now_not.get(price, 0) - not_owed.get(price, 0) for price in {*now_not, *not_owed}}
            more, waiver = sum(changes.values()), in_force(account, event.time_us)
            if waiver is not None and (more or (event.posted and any(changes.values()))):
                had = lines.get(waiver.cap, (0, 0))
                lines[waiver.cap] = (had[0], had[1] - more)
            month = period_of(account.zone, 1, event.time_us)
            for scope in event.scopes if event.posted is None else []:
                spend = account.scopes[scope]
                spend[month] = spend.get(month, 0) + own
            begun = [self._count(state, account, cap, event.time_us, moved, own) for cap in event.caps]
            if any(begun):
                account.crossings = {
                    key: each
                    for key, each in account.crossings.items()
                    if not is_over(account.zone, key[1], state.log_us)
                }
        account.rated += 1
        self._evaluate(state, account, state.log_us)
        return lines

    def _repriced(
        self,
        state: Partition,
        account: Account,
        name: str,
        time_us: int,
        was: tuple[int, Place],
        now: tuple[int, Place],
    ) -> int:
        """What changes in the price of the units that are there before and after, by the terms that a period reaches, or
        where others have moved them in what they share. `was` and `now`: how many units there are, and where."""
        price, units, grains = (
            self._price_at(state, account, name, time_us),
            min(was[0], now[0]),
            self._grains_of(account),
        )
        if price.shares is None or not price.draws:
            if price.model != "volume":
                return 0
            owed = [price.owed(units, whole, grains) for whole, _ in (was, now)]
        else:
            owed = [price.owed_at(place, units, grains) for _, place in (was, now)]
        return half_even(owed[1], grains) - half_even(owed[0], grains)

    def _moves(
        self,
        state: Partition,
        account: Account,
        name: str,
        time_us: int,
        was: tuple[int, Place],
        now: tuple[int, Place],
    ) -> bool:
        """Whether units of a price that an event has none of come to lie in other tiers."""
        if was == now:
            return False
        price = self._price_at(state, account, name, time_us)
        return price.split(was[1], was[0]) != price.split(now[1], now[0])

    def _count(
        self,
        state: Partition,
        account: Account,
        counting: tuple[str, int],
        time_us: int,
        moved: dict[str, int],
        charge: int,
    ) -> bool:
        """Whether the cap began a new place for it."""
        name, since = counting
        cap = account.counting.get(name)
        if cap is None or cap.since != since:
            return False  # it is gone, or has begun anew meanwhile
        amounts = [charge]
        if cap.meter is not None or cap.price is not None:
            version = self._version_at(state, time_us)
            assert version is not None
            prices = version.plans[account.plan_at(time_us)].prices
            amounts = [
                quantity for price, quantity in moved.items() if price == cap.price or prices[price].meter == cap.meter
            ]
        return bool(amounts) and cap.count(account.zone, time_us, sum(amounts), state.log_us)

    def _check_values(self, account: Account, event: RatedEvent, before: list[RatedEvent]) -> None:
        """A unique count holds no more different values of a cell and period than its meter allows. `before`: what is
        entered with the event, before it."""
        for price, cell, kind, reading in event.readings:
            if kind != "unique_count" or event.is_back:
                continue
            period = account.period_of(event.time_us)
            known = [reading]
            for other in [*account.events, *before]:
                for each in other.readings:
                    if each[:2] == (price, cell) and account.period_of(other.time_us) == period:
                        known.remove(each[3]) if other.is_back else known.append(each[3])
            if len({each.value for each in known}) > max(each.limit for each in known):
                raise DeadLetterError("too_many_values")

    # ---- corrections

    def _correct(self, state: Partition, account: Account, correction: Correction) -> str:
        original, amended = correction.original, correction.amended
        held = self._admission(account.account, original)
        self._check_time(state, original, held)
        if amended is not None:
            self._check_time(state, amended, held)
            self._measured(state, account, amended, held)
        source, event_id, revision = correction.corrects
        known, following, cancelled = (
            self._known(state, account.account, (source, event_id, number)) for number in (revision, revision + 1, -1)
        )
        if known is None:
            return self._park(state, account, correction)
        if known[1] != original["billing"]:
            raise DeadLetterError("correction_mismatch")
        if amended is None and cancelled:
            return "duplicate"
        if amended is not None and following and following[1] == amended["billing"]:
            return "duplicate"
        if following or cancelled:
            raise DeadLetterError("superseded")
        self._apply_correction(state, account, correction)
        self._take_up(state, account, correction.makes)
        return "amended" if amended else "cancelled"

    def _park(self, state: Partition, account: Account, correction: Correction) -> str:
        waiting = account.parked.get(correction.corrects)
        if waiting is not None:
            if waiting.said == correction.said:
                return "duplicate"
            raise DeadLetterError("superseded")
        if sum(parked.record_bytes for parked in [*account.parked.values(), correction]) > PARKED_BYTES_MAX:
            raise DeadLetterError("too_many_parked")
        account.parked[correction.corrects] = correction
        due = (_until(correction), account.account)
        if due not in state.wakes:
            insort(state.wakes, due)
        return "parked"

    def _take_up(self, state: Partition, account: Account, made: Revision) -> None:
        """Apply the corrections that wait for what was just rated, one behind the other."""
        while (parked := account.parked.pop(made, None)) is not None:
            known = self._known(state, account.account, made)
            assert known is not None
            try:
                if known[1] != parked.original["billing"]:
                    raise DeadLetterError("correction_mismatch")
                self._apply_correction(state, account, parked)
            except DeadLetterError:
                self._tell_failed(state, account, parked)
                return
            made = parked.makes

    def _apply_correction(self, state: Partition, account: Account, correction: Correction) -> None:
        name, amended = account.account, correction.amended
        rated = state.identities[name, *correction.corrects][2]
        if rated.heard:
            raise DeadLetterError("not_cancellable")
        events = [rated.taken_back(self._posted(state, account, rated.time_us))]
        billing = correction.original["billing"]
        if amended is not None:
            events.append(self._measured(state, account, amended, self._admission(name, amended)))
            if events[-1].heard:
                raise DeadLetterError("not_cancellable")
            billing = amended["billing"]
        lines = self._enter(state, account, [self._in_time(account, event) for event in events])
        place = (state.number, state.offset)
        before = self.corrected[place].prices if place in self.corrected else {}
        for price, (quantity, amount) in before.items():
            had = lines.get(price, (0, 0))
            lines[price] = (had[0] + quantity, had[1] + amount)
        source, event_id, _ = correction.corrects
        self.corrected[place] = Rated(name, source, event_id, lines)
        self._remember(state, name, correction.makes, billing, events[-1])

    @staticmethod
    def _in_time(account: Account, event: RatedEvent) -> RatedEvent:
        """The event in the caps that count by its time; others count what arrives."""
        by_time = {name for name, cap in account.counting.items() if cap.window != "bucket"}
        return replace(event, caps=[cap for cap in event.caps if cap[0] in by_time])

    def _tell_failed(self, state: Partition, account: Account, correction: Correction) -> None:
        source, event_id, revision = correction.corrects
        self._tell(state, account.account, "correction_failed", f"{source}\0{event_id}", revision + 1, "crossed")

    # ---- what follows from the events

    def _version_at(self, state: Partition, time_us: int) -> Version | None:
        """The highest version that is effective by then; the first one holds for all time."""
        chosen = None
        for position, (number, effective) in enumerate(state.versions):
            if position == 0 or effective <= time_us:
                chosen = self._versions[number]
        return chosen

    def _price_at(self, state: Partition, account: Account, name: str, time_us: int) -> Price:
        """The price of an instant, as far as it may begin inside the period of the instant."""
        price = account.priced.get((name, time_us))
        if price is None:
            starts = [effective for _, effective in state.versions[1:]]
            price = price_at(account, lambda instant: self._version_at(state, instant), starts, name, time_us)
            account.priced[name, time_us] = price
        return price

    def _owed_in(self, state: Partition) -> Callable[[Account], object]:
        """What the prices of an account of the partition owe in each period, and how much of that is included."""

        def owed(account: Account) -> object:
            table = self._derive(state, account)
            found = {}
            for (period, name), quantities in table.quantities.items():
                price = self._price_at(state, account, name, max(quantities))
                place = self._place(state, account, table, table.quantities, period, name)
                included = min(sum(quantities.values()), price.included or place.left)
                found[period, name] = table.total(period, name), included
            return found

        return owed

    def _committed_in(self, state: Partition) -> Callable[[Account, int, str], int]:
        """The pico that a period commits to, by the name of the plan's commitment or of the price that has one."""

        def committed(account: Account, period: int, name: str) -> int:
            return self._least(state, account, period).get(f"commitment\0{name}", (0, []))[0]

        return committed

    def _grains_of(self, account: Account) -> int:
        """Parts of a pico so small that all that the account can owe is a whole number of them."""
        return lcm(self._grains, *(each.terms.grains for each in account.agreed if each.terms is not None))

    @staticmethod
    def _segment_of(state: Partition, account: Account, time_us: int) -> int:
        return segment_of(state, account, time_us)

    def _counted(self, account: Account, table: Table, event: RatedEvent, price: str) -> dict[int, int]:
        """The quantities of the event's period by segment; of a closed one with all that came late."""
        place = account.period_of(event.time_us), price
        on_time = table.quantities.get(place, {})
        return on_time if event.posted is None else table.whole.get(place, on_time)

    def _total(self, state: Partition, account: Account, table: Table, event: RatedEvent, price: str) -> int:
        """What a price comes to in the event's period; of a closed one with all that came late."""
        start = account.period_of(event.time_us)
        if event.posted is None:
            return table.total(start, price)
        return self._whole_total(state, account, table, start, price)

    def _whole_total(self, state: Partition, account: Account, table: Table, start: int, price: str) -> int:
        """What a price comes to in a period with all that came late."""
        known, on_time = table.quantities | table.whole, table.quantities
        whole, closed = known.get((start, price), {}), on_time.get((start, price), {})
        place = self._place(state, account, table, known, start, price)
        if whole == closed and place == self._place(state, account, table, on_time, start, price):
            return table.total(start, price)
        granted = self._granted_of(state, account, table, known, start, price)
        return sum(self._segment_amounts(state, account, price, whole, granted, place).values())

    def _add(
        self, state: Partition, account: Account, table: Table, event: RatedEvent, events: list[RatedEvent]
    ) -> None:
        """Count one event into the table, the last of these, and derive again the amounts of the prices it touches."""
        period = account.period_of(event.time_us)
        segment = self._segment_of(state, account, event.time_us)
        cells = event.cells
        changed = {price: dict(self._counted(account, table, event, price)) for price, _ in cells}
        for price, _, quantity in event.parts:
            changed[price][segment] = changed[price].get(segment, 0) + quantity
        if event.readings:
            which = {(period, price) for price, *_ in event.readings}
            seen = events if event.posted else _on_time(events)
            changed |= {price: by_segment for (_, price), by_segment in self._read(state, account, seen, which).items()}
        table.cells |= {(segment, price, cell) for price, cell in cells}
        if event.posted is None:
            for price, quantities in changed.items():
                self._put(state, account, table, period, price, quantities)
            return
        charges = table.adjusted.setdefault(event.posted, {})
        missing = self._missing(state, account, table, period)
        not_owed = self._not_owed(state, account, table, event)
        touched = changed.keys() | self._sharing(state, account, table, period)
        before = {price: self._total(state, account, table, event, price) for price in touched}
        lay = self._placed(state, account, table, event, touched)
        table.whole |= {(period, price): quantities for price, quantities in changed.items()}
        lie = self._placed(state, account, table, event, touched)
        for price in touched:
            if price in changed or self._moves(state, account, price, event.time_us, lay[price], lie[price]):
                more = self._total(state, account, table, event, price) - before[price]
                charges[price] = charges.get(price, 0) + more
        now = self._missing(state, account, table, period)
        for name in missing.keys() | now.keys():
            if more := now.get(name, 0) - missing.get(name, 0):
                charges[name] = charges.get(name, 0) + more
        for price, pico in self._not_owed(state, account, table, event).items():
            if pico != not_owed.get(price, 0):
                charges[price] = charges.get(price, 0) - pico + not_owed.get(price, 0)

    def _not_owed(self, state: Partition, account: Account, table: Table, event: RatedEvent) -> dict[str, int]:
        """By price, what caps waive; of an event's period alone with what came late, if that is closed."""
        if not account.waivers:
            return {}
        period = account.period_of(event.time_us)
        amounts = {segment: dict(prices) for segment, prices in table.amounts.items()}
        for of, price in table.quantities | table.whole if event.posted else ():
            if of == period:
                known = table.quantities | table.whole
                place = self._place(state, account, table, known, period, price)
                granted = self._granted_of(state, account, table, known, period, price)
                by_segment = self._segment_amounts(state, account, price, known[period, price], granted, place)
                for segment, amount in by_segment.items():
                    amounts.setdefault(segment, {})[price] = amount
        found: dict[str, int] = {}
        for (of, price), pico in waived(account, amounts).items():
            if of == period or not event.posted:
                found[price] = found.get(price, 0) + pico
        return found

    def _put(
        self, state: Partition, account: Account, table: Table, period: int, price: str, quantities: dict[int, int]
    ) -> None:
        table.quantities[period, price] = quantities
        for name in {price} | self._sharing(state, account, table, period):
            place = self._place(state, account, table, table.quantities, period, name)
            if name == price or place != table.places.get((period, name)):
                of_name = table.quantities[period, name]
                granted = self._granted_of(state, account, table, table.quantities, period, name)
                for start, amount in self._segment_amounts(state, account, name, of_name, granted, place).items():
                    table.amounts.setdefault(start, {})[name] = amount
            table.places[period, name] = place

    def _observed(
        self, state: Partition, account: Account, events: list[RatedEvent]
    ) -> dict[tuple[int, str, tuple[str, ...]], dict[int, int]]:
        """Of what does not add up in these events: (period, price, cell) -> segment -> what it adds."""
        kinds: dict[tuple[int, str, tuple[str, ...]], str] = {}
        readings: dict[tuple[int, str, tuple[str, ...]], dict[int, list[Reading]]] = {}
        for event in events:
            for price, cell, kind, reading in event.readings:
                key = (account.period_of(event.time_us), price, cell)
                kinds[key] = kind
                segment = self._segment_of(state, account, event.time_us)
                of_segment = readings.setdefault(key, {}).setdefault(segment, [])
                of_segment.remove(reading) if event.is_back else of_segment.append(reading)
        return {key: added(kinds[key], by_segment) for key, by_segment in readings.items()}

    def _read(
        self,
        state: Partition,
        account: Account,
        events: list[RatedEvent],
        which: set[tuple[int, str]] | None = None,
    ) -> dict[tuple[int, str], dict[int, int]]:
        """Of what does not add up, these (period, price) or all, over all cells: segment -> what it adds."""
        totals: dict[tuple[int, str], dict[int, int]] = {}
        for (period, price, _), by_segment in self._observed(state, account, events).items():
            if which is None or (period, price) in which:
                quantities = totals.setdefault((period, price), {})
                for segment, quantity in by_segment.items():
                    quantities[segment] = quantities.get(segment, 0) + quantity
        return totals

    def _segment_amounts(
        self,
        state: Partition,
        account: Account,
        name: str,
        quantities: Mapping[int, int],
        granted: Mapping[int, int],
        place: Place,
        *,
        listed: bool = False,
    ) -> dict[int, int]:
        """A through each segment less A before it, where a new version continues the count of the last one. `granted`: what
        quantity grants took in each; `place`: where the units lie in what is shared."""
        amounts = {}
        quantity, owed, grains = 0, 0, self._grains_of(account)
        whole = sum(quantities.values()) - sum(granted.values())
        for segment in sorted(quantities):
            price = self._price_at(state, account, name, segment)
            if listed:
                price = replace(price, kept=Fraction(1), overage=Fraction(1))
            after = quantity + quantities[segment] - granted.get(segment, 0)
            if place == ALONE:
                through = owed + price.owed(after, whole, grains) - price.owed(quantity, whole, grains)
            else:
                through = price.owed_at(place, after, grains)
            amounts[segment] = half_even(through, grains) - half_even(owed, grains)
            quantity, owed = after, through
        return amounts

    @staticmethod
    def _used_with(table: Table, event: RatedEvent) -> Quantities:
        """The quantities of the event's period, by period and price; of a closed one with all that came late."""
        return table.quantities if event.posted is None else table.quantities | table.whole

    def _shares(
        self, state: Partition, account: Account, table: Table, known: Quantities, period: int, name: str
    ) -> Allowance | Ladder | None:
        """What a price shares with others in that period, if it does; what is sold makes the table anew."""
        if self._any_shares and (period, name) not in table.shared:
            price = self._price_at(state, account, name, max(known[period, name]))
            table.shared[period, name] = price.shares if price.draws else None
        return table.shared.get((period, name))

    def _sharing(self, state: Partition, account: Account, table: Table, period: int) -> set[str]:
        """The prices of a period that share anything."""
        known = table.quantities | table.whole if self._any_shares else {}
        return {name for of, name in known if of == period and self._shares(state, account, table, known, of, name)}

    def _place(
        self, state: Partition, account: Account, table: Table, known: Quantities, period: int, name: str
    ) -> Place:
        """Where the units of a price lie: behind those of the prices before it."""
        shares = self._shares(state, account, table, known, period, name) if known.get((period, name)) else None
        if shares is None:
            return ALONE
        others = [
            other
            for of, other in known
            if of == period and self._shares(state, account, table, known, of, other) and other in shares.prices
        ]
        if isinstance(shares, Allowance):
            return Place(left=shares.left_for(name, {other: sum(known[period, other].values()) for other in others}))
        units = {other: self._priced_of(state, account, table, known, period, other) for other in others}
        if shares.by_sum:
            return Place(reached=sum(units.values()))
        return Place(before=sum(units.get(other, 0) for other in shares.prices[: shares.prices.index(name)]))

    def _placed(
        self, state: Partition, account: Account, table: Table, event: RatedEvent, prices: Collection[str]
    ) -> dict[str, tuple[int, Place]]:
        """Of these prices, how many units of the event's period no grant takes, and where they lie."""
        known, period = self._used_with(table, event), account.period_of(event.time_us)
        return {
            price: (
                self._priced_of(state, account, table, known, period, price),
                self._place(state, account, table, known, period, price),
            )
            for price in prices
        }

    def _priced_of(
        self, state: Partition, account: Account, table: Table, known: Quantities, period: int, name: str
    ) -> int:
        """How many units of a price no grant takes."""
        granted = self._granted_of(state, account, table, known, period, name)
        return sum(known.get((period, name), {}).values()) - sum(granted.values())

    def _granted_of(
        self, state: Partition, account: Account, table: Table, known: Quantities, period: int, name: str
    ) -> dict[int, int]:
        """What quantity grants take in each segment of a period, behind what the price includes or an allowance leaves it;
        with what came late, no more than they took by the close."""
        if all(grant.price != name for grant in account.quantity_grants.values()):
            return {}

        def included(of: Quantities) -> dict[int, int]:
            shares = self._shares(state, account, table, of, period, name) if of.get((period, name)) else None
            left = 0
            if isinstance(shares, Allowance):
                left = self._place(state, account, table, of, period, name).left
            segments = known.get((period, name), {}).keys() | table.quantities.get((period, name), {}).keys()
            return {each: self._price_at(state, account, name, each).included or left for each in segments}

        quantities = dict(known.get((period, name), {}))
        if known is table.quantities:
            return served(account, name, quantities, included(known))
        took = served(account, name, table.quantities.get((period, name), {}), included(table.quantities))
        return as_before(took, quantities, included(known))

    def _derive(self, state: Partition, account: Account) -> Table:
        """The table from the raw events alone: what was on time, then what came when its period was closed."""
        table = Table()
        quantities: dict[tuple[int, str], dict[int, int]] = {}
        for event in _on_time(account.events):
            period = account.period_of(event.time_us)
            segment = self._segment_of(state, account, event.time_us)
            table.cells |= {(segment, price, cell) for price, cell in event.cells}
            for price, _, quantity in event.parts:
                by_segment = quantities.setdefault((period, price), {})
                by_segment[segment] = by_segment.get(segment, 0) + quantity
        quantities |= self._read(state, account, _on_time(account.events))
        for (period, price), by_segment in quantities.items():
            self._put(state, account, table, period, price, by_segment)
        for number, event in enumerate(account.events, start=1):
            if event.posted and event.cells:
                self._add(state, account, table, event, account.events[:number])
        for line in account.lines.values():
            start, length, _ = account.period(line.used_us)
            place = self._segment_of(state, account, line.at_us), start, start + length
            charges = table.adjusted.setdefault(place, {})
            charges[line.price] = charges.get(line.price, 0) + line.amount
        for due in account.dues:
            start, length, _ = account.period(due.period)
            place = self._segment_of(state, account, due.at_us), start, start + length
            charges = table.adjusted.setdefault(place, {})
            charges[due.name] = charges.get(due.name, 0) + due.amount
        return table

    def _table(self, state: Partition, account: Account) -> Table:
        if account.table is None:
            account.table = self._derive(state, account)
        elif self._paranoid and account.table != self._derive(state, account):
            raise AssertionError(f"account {account.account}: the quick table differs from its events")
        return account.table

    def _before_discounts(self, state: Partition, account: Account, table: Table) -> Amounts:
        """What the table's segments would amount to without any discount."""
        amounts: Amounts = {}
        for period, name in table.quantities:
            place = self._place(state, account, table, table.quantities, period, name)
            of_name = table.quantities[period, name]
            granted = self._granted_of(state, account, table, table.quantities, period, name)
            listed = self._segment_amounts(state, account, name, of_name, granted, place, listed=True)
            for start, amount in listed.items():
                amounts.setdefault(start, {})[name] = amount
        return amounts

    def _spend(self, account: Account, amounts: Amounts) -> dict[int, int]:
        """Per calendar month with usage, what its segments amount to."""
        spend: dict[int, int] = {}
        for segment, prices in amounts.items():
            month = period_of(account.zone, 1, segment)
            spend[month] = spend.get(month, 0) + sum(prices.values())
        return spend

    def _balance(self, account: Account, table: Table, now: int) -> int:
        paid = allocate(owed(account, table.amounts), table.adjusted, account.lots, now)
        held = sum(paid.left[lot.lot] for lot in counted(account.lots, now))
        return held - paid.debt

    # ---- rules and top-up

    def _evaluate(self, state: Partition, account: Account, now: int) -> None:
        self._look(state, account, now)
        top_up = account.top_up
        if top_up.terms is None:
            return
        if asks(top_up, self._balance(account, self._table(state, account), account.woken), now):
            self._tell(state, account.account, "top_up", "request", top_up.requests, "requested")
        again = again_at(top_up)
        if again is not None and (again, account.account) not in state.wakes:
            insort(state.wakes, (again, account.account))

    def _look(self, state: Partition, account: Account, now: int) -> None:
        """How the rules stand."""
        for rule, window in sorted(account.crossings) if account.released else []:
            crossing = account.crossings[rule, window]
            if rule in account.released and crossing.active:
                crossing.active = False
                self._tell(state, account.account, rule, window, crossing.ordinal, "recovered")
        account.released.clear()
        if not account.rules and not self._paranoid:
            return
        table = self._table(state, account)
        paid = cache(lambda: allocate(owed(account, table.amounts), table.adjusted, account.lots, account.woken))
        on_basis = {
            "charged": lambda: self._spend(account, table.amounts),
            "list": lambda: self._spend(account, self._before_discounts(state, account, table)),
            "due": lambda: self._spend(account, {start: {"": pico} for start, pico in paid().unpaid.items()}),
        }
        spend = cache(lambda basis: on_basis[basis]())

        def used(price: str) -> dict[int, tuple[int, int]]:
            found = {}
            for (period, name), quantities in table.quantities.items():
                if name == price:
                    included = self._price_at(state, account, name, max(quantities)).included
                    found[period] = sum(quantities.values()), included
            return found

        def committed(name: str) -> dict[int, tuple[int, int]]:
            found = {}
            for period in {period for period, _ in table.quantities}:
                least, prices = self._least(state, account, period).get(f"commitment\0{name}", (0, []))
                if least:
                    used_up = (table.total(period, price) for price in prices if (period, price) in table.quantities)
                    found[period] = sum(used_up), least
            return found

        for name in sorted(account.rules):
            for each in list(seen(account, name, now, spend=spend, paid=paid, used=used, committed=committed)):
                self._step(state, account, name, each.window, each.is_active, each.is_clear)
            for instant in looks_again(account, name, now):
                if (instant, account.account) not in state.wakes:
                    insort(state.wakes, (instant, account.account))

    def _step(self, state: Partition, account: Account, rule: str, window: str, active: bool, clears: bool) -> None:
        crossing = account.crossings.setdefault((rule, window), Crossing())
        if not crossing.active and active:
            crossing.active = True
            crossing.ordinal += 1
            self._tell(state, account.account, rule, window, crossing.ordinal, "crossed")
        elif crossing.active and clears:
            crossing.active = False
            self._tell(state, account.account, rule, window, crossing.ordinal, "recovered")

    def _tell(self, state: Partition, account: str, rule: str, window: str, ordinal: int, phase: str) -> None:
        self.alerts.setdefault(
            told_id(account, rule, window, ordinal, phase),
            Alert(
                account=account,
                rule=rule,
                window=window.replace("\0", "\n"),  # as a person is shown it
                ordinal=ordinal,
                phase=phase,
                partition=state.number,
                offset=state.offset,
            ),
        )

    # ---- control records

    def _control(self, state: Partition, value: bytes) -> str:
        mac = value[len(CONTROL_PREFIX) : len(CONTROL_PREFIX) + MAC_BYTES]
        body = value[len(CONTROL_PREFIX) + MAC_BYTES :]
        message = self._topic.encode("utf-8") + b"\0" + str(state.number).encode() + b"\0" + body
        if not hmac.compare_digest(mac, hmac.digest(self._control_key, message, "sha256")):
            raise DeadLetterError("bad_mac")
        try:
            document = read_json(body)
        except ValueError as error:
            raise DeadLetterError("bad_control") from error
        if not isinstance(document, dict):
            raise DeadLetterError("bad_control")
        fields = Fields(document)
        kind = fields.text("kind")
        if kind in ("tick", "owner"):
            epoch = fields.integer("epoch")
            fields.close()
            if kind == "tick":
                return "tick" if epoch >= state.epoch else "void"
            state.epoch = max(state.epoch, epoch)
            return "owner"
        if kind == "advance":
            until = fields.integer("until_us")
            fields.close()
            if until > state.log_us + ADVANCE_US_MAX:
                raise DeadLetterError("bad_control")
            self._wake(state, max(state.log_us, until))
            return "advance"
        if kind == "catalogue":
            return self._catalogue(state, fields)
        if kind == "slices":
            return slices(fields, state.epoch)
        if kind == "leases":
            return leases(fields, state.epoch, self._control_key)
        if kind not in COMMANDS:
            raise DeadLetterError("bad_control")
        return self._command(state, fields, body, COMMANDS[kind])

    def _catalogue(self, state: Partition, fields: Fields) -> str:
        number, effective = fields.integer("version"), fields.integer("effective_us")
        fields.close()
        if state.versions:
            last_number, last_effective = state.versions[-1]
            # The first version is in force for all time, so its own instant binds nobody.
            earliest = state.log_us + SKEW_US
            if len(state.versions) > 1:
                earliest = max(earliest, last_effective)
            if number <= last_number or effective <= earliest:
                raise DeadLetterError("bad_control")
        if number not in self._versions:
            raise ValueError(f"the log names catalogue version {number}: give its document to the oracle")
        state.versions.append((number, effective))
        for account in state.accounts.values():
            account.sell()
            self._await_closing(state, account)
        return "catalogue"

    def _command(
        self,
        state: Partition,
        fields: Fields,
        body: bytes,
        prepare: Callable[[Partition, Fields, View], Callable[[], None]],
    ) -> str:
        """`prepare` reads the fields, and returns what refuses or applies the command."""
        name, command_key = fields.text("account"), fields.text("command_key")
        apply = prepare(
            state,
            fields,
            View(lambda time_us: self._version_at(state, time_us), self._owed_in(state), self._committed_in(state)),
        )
        fields.close()
        if partition_of(name.encode(), len(self._partitions)) != state.number:
            raise DeadLetterError("bad_control")
        digest = hashlib.sha256(body).digest()
        known = state.commands.get((name, command_key))
        if known is not None and state.log_us < known[0] + COMMAND_MEMORY_US:
            if known[1] == digest:
                return "repeated"
            raise RefusedError("key_reused")
        state.commands[(name, command_key)] = (state.log_us, digest)
        if name in state.accounts:
            self._table(state, state.accounts[name])  # what there is to void or refund follows from it
        apply()
        account = state.accounts[name]
        account.woken = state.log_us
        give(state, account, state.log_us)
        self._evaluate(state, account, state.log_us)
        if self._has_advance:
            self._post(state, account, self._ahead(state, account))
        self._await_closing(state, account)
        return "applied"
