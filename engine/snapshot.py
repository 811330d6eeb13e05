"""Account and partition as bytes: versioned msgpack, the same state always the same bytes (law D4).

Money and quantities cross as decimal text, because a msgpack integer ends at 2^64. Fields are positional: a new one
goes to the end and raises the version; READABLE says which older ones are read. Version 1 had no scopes and no slices,
version 2 no corrections, no changes of lots, and no caps but those on a month's spend.
"""

from collections.abc import Iterable, Sequence
from typing import Final, Literal

import msgspec
from msgspec import Struct

from engine.account import Account
from engine.alerts import CapShare, Level, Measure, Rule, Standing, Wallet
from engine.bases import CHARGED
from engine.catalog import PriceBook
from engine.charges import Table
from engine.contract import Agreement, Contract, Pause, Phase, Seats
from engine.corrections import Parked
from engine.credit import Carry, Lot, LotChange
from engine.gauges import Gauge, Point
from engine.holds import Drawn, hold_text, read_hold
from engine.leases import Lease
from engine.limits import ROOT, Cap, RateLimit, Scope, Slice
from engine.manual_lines import ManualLine, Rerating
from engine.meters import kept, read_kept
from engine.quantity_grants import QuantityGrant
from engine.recurring import Every, Recurring
from engine.sessions import Key, Session, Sessions, Timed
from engine.streams import Name, Part, Stream
from engine.top_up import NONE, Terms, TopUp
from engine.waivers import Waiver
from engine.windows import MONTH, Window

VERSION: Final = 3
READABLE: Final = (1, 2, 3)


_Terms = tuple[str, str, int, int, int, int | None]  # engine/top_up.py, `Terms`, in its order


_Recurring = tuple[  # engine/recurring.py, in its order
    str, Every, int, str, str, int, tuple[str, ...], bool, bool, int | None, tuple[int, int, str | None] | None
]


class UnknownSnapshot(ValueError):
    """The bytes were written by a version that this one does not read."""


class _Stream(Struct, array_like=True):
    """Name and stream (engine/streams.py)."""

    event_type: str
    source: str
    id: str
    seq: int
    revision: int
    mark: bytes
    until_us: int
    time_us: int
    offset: int
    scopes: tuple[str, ...]
    parts: list[tuple[str, tuple[str, ...], str]]
    hold: str | None
    estimated: bool
    tags: dict[str, str] | None


class _Account(Struct, array_like=True):
    version: int
    account: str
    plan: str
    currency: str
    zone: str
    anchor_day: int
    woken_us: int
    newest_event_us: int
    rated: int
    sequence: int
    table: list[tuple[int, list[tuple[str, tuple[str, ...], str]]]]
    lots: list[tuple[str, str, str, int, int, int | None, tuple[str, ...]]]
    caps: list[tuple[str, str]]
    cap_rules: list[tuple[str, str, int, int]]  # of versions 1 and 2; now in `rules`
    balance_rules: list[tuple[str, str, str]]  # likewise
    standings: list[tuple[str, str, int, bool]]
    cap_scopes: list[tuple[str, str, bool]] = []
    scopes: list[tuple[str, str, list[tuple[int, str]]]] = []
    overdraft: str | None = "0"
    rate_limits: list[tuple[str, str, int]] = []
    slices: list[tuple[int, list[tuple[str, str]], int, int | None]] = []
    draws: list[tuple[str, int, list[str], bool]] = []
    scopes_since: list[tuple[str, int]] = []
    parked: list[tuple[bytes, int, bytes]] = []
    debt_payers: list[tuple[str, bool]] = []
    lot_changes: list[tuple[str, list[tuple[int, Literal["void", "refund"], str | None]]]] = []
    carries: list[tuple[str, str, int, str | None]] = []
    cap_windows: list[tuple[str, str, int, str | None, str | None, int]] = []
    tallies: list[tuple[str, list[tuple[int, str]]]] = []
    aggregates: list[tuple[int, list[tuple[str, tuple[str, ...], list[str]]]]] = []
    agreed: list[tuple[int, str, str, str | None, bool]] = []
    late: list[tuple[int, list[tuple[str, tuple[str, ...], str]]]] = []
    adjusted: list[tuple[int, int, list[tuple[str, str]]]] = []
    rules: list[tuple[str, Measure, str, str, bool, Level]] = []
    rate_meters: list[tuple[str, str]] = []
    allowed: list[tuple[str, list[tuple[str, tuple[str, ...]]]]] = []
    lines: list[tuple[str, int, int, int, str, str, str, str]] = []
    phases: list[tuple[int, str]] = []
    first_plan: str | None = None  # where it is not the plan of now
    sessions: list[
        tuple[str, str, tuple[str, ...], str, str, int, int | None, int, int | None, bool, tuple[int, int]]
    ] = []
    sessions_us: int = 0
    top_up: tuple[_Terms | None, int, int, int, _Terms | None, bool] | None = None
    pauses: list[tuple[int, bool]] = []
    rerated: list[tuple[str, int, int, int]] = []
    recurring: list[_Recurring] = []
    gauges: list[tuple[str, str, tuple[str, ...], str, int, int, bool, list[tuple[int, str, str, str]]]] = []
    opened_us: int = 0
    quantity_grants: list[tuple[str, str, str, int, int, int | None]] = []
    streams: list[_Stream] = []
    streams_us: int = 0
    leases: list[tuple[str, str, list[str], int, int | None]] = []
    seats: list[tuple[int, str, int]] = []
    cap_bases: list[tuple[str, str]] = []  # (cap, basis), of those on another than what is charged
    waiving: list[str] = []  # caps beyond which nothing is owed
    waivers: list[tuple[int, str, str | None]] = []  # (since when, cap, pico)
    postpaid: bool = False
    billed_us: int = 0


class _Subscription(Struct, array_like=True):
    """The beginning of `_Account`."""

    version: int
    account: str
    plan: str


_account_decoder: Final = msgspec.msgpack.Decoder(_Account)
_plan_decoder: Final = msgspec.msgpack.Decoder(_Subscription)
_encoder: Final = msgspec.msgpack.Encoder()


def encode_account(account: Account) -> bytes:
    """The account's stored state; nothing derived, nothing of the fast path."""
    rules, scopes = sorted(account.rules.items()), sorted(account.scopes.items())
    lots = [lot for _, lot in sorted(account.lots.items())]
    caps = [cap for _, cap in sorted(account.caps.items())]
    return _encoder.encode(
        _Account(
            VERSION,
            account.account,
            account.plan,
            account.currency,
            account.zone,
            account.anchor_day,
            account.woken_us,
            account.newest_event_us,
            account.rated,
            account.sequence,
            _rows(account.table),
            [
                (lot.lot, lot.kind, str(lot.granted), lot.priority, lot.effective_us, lot.expires_us, lot.scope)
                for lot in lots
            ],
            [(cap.cap, str(cap.amount)) for cap in caps],
            [],
            [],
            [
                (rule, window, standing.ordinal, standing.active)
                for (rule, window), standing in sorted(account.standings.items())
            ],
            [(cap.cap, cap.scope, cap.hard) for cap in caps],
            [
                (name, scope.standing, [(month, str(spend)) for month, spend in sorted(scope.spend.items())])
                for name, scope in scopes
            ],
            None if account.overdraft is None else str(account.overdraft),
            # Most accounts have nothing of what follows, and an account is encoded with every checkpoint.
            [(limit.limit, limit.scope, limit.per_minute) for _, limit in sorted(account.rate_limits.items())]
            if account.rate_limits
            else [],
            [
                (
                    epoch,
                    [(price, str(left)) for price, left in sorted(each.quantities.items())],
                    each.linger_us,
                    each.closed_us,
                )
                for epoch, each in sorted(account.slices.items())
            ]
            if account.slices
            else [],
            [
                (hold, drawn.until_us, [str(quantity) for quantity in drawn.quantities], drawn.done)
                for hold, drawn in sorted(account.draws.items())
            ]
            if account.draws
            else [],
            [(name, scope.since) for name, scope in scopes if scope.since >= 0],
            [(mark, parked.until_us, parked.value) for mark, parked in sorted(account.parked.items())]
            if account.parked
            else [],
            [(lot.lot, lot.pays_debt) for lot in lots if lot.pays_debt is not None],
            [
                (lot.lot, [(each.at_us, each.kind, _amount_or_none(each.amount)) for each in lot.changes])
                for lot in lots
                if lot.changes
            ],
            [
                (lot.lot, lot.carry.source, lot.carry.percent, _amount_or_none(lot.carry.cap))
                for lot in lots
                if lot.carry is not None
            ],
            [
                (cap.cap, cap.window.kind, cap.window.length_us, cap.meter, cap.price, cap.since)
                for cap in caps
                if not cap.is_plain
            ],
            [
                (cap, [(place, str(amount)) for place, amount in sorted(counts.items())])
                for cap, counts in sorted(account.tallies.items())
            ]
            if account.tallies
            else [],
            [
                (start, [(name, cell, kept(aggregate)) for (name, cell), aggregate in sorted(row.items())])
                for start, row in sorted(account.aggregates.items())
            ]
            if account.aggregates
            else [],
            [(each.from_us, each.plan, each.price, each.terms, each.adds_up) for each in account.contract.agreed],
            _rows(account.late) if account.late else [],
            [
                (start, period, [(price, str(pico)) for price, pico in sorted(charges.items())])
                for (start, period), charges in sorted(account.adjusted.items())
            ]
            if account.adjusted
            else [],
            [
                (name, rule.measure, str(rule.threshold), str(rule.clear), rule.falls, rule.level)
                for name, rule in rules
            ],
            [(name, limit.meter) for name, limit in sorted(account.rate_limits.items()) if limit.meter is not None]
            if account.rate_limits
            else [],
            [(name, sorted(scope.allowed.items())) for name, scope in scopes if scope.allowed],
            [
                (
                    *(name, line.posted_us, line.segment_us, line.period_us),
                    *(line.price, str(line.amount), line.reason, line.by),
                )
                for name, line in account.lines.items()  # as they were posted: of re-ratings, the newest counts
            ],
            [(each.from_us, each.plan) for each in account.contract.phases],
            account.contract.plan if account.contract.phases else None,
            [
                (
                    *key,
                    each.cell,
                    str(each.weight),
                    each.scope,
                    each.since,
                    each.begin_us,
                    each.seen_us,
                    each.stop_us,
                    each.is_open,
                    each.charged,
                )
                for key, each in sorted(account.sessions.by_key.items())
                if isinstance(each, Session)
            ]
            if account.sessions.by_key
            else [],
            account.sessions.as_of_us if account.sessions.by_key else 0,
            None if account.top_up == NONE else _top_up(account.top_up),
            [(each.from_us, each.paused) for each in account.contract.pauses],
            [
                (name, line.rerated.version, line.rerated.from_us, line.rerated.to_us)
                for name, line in account.lines.items()
                if line.rerated is not None
            ],
            [_recurring(each) for _, each in sorted(account.recurring.items())] if account.recurring else [],
            [
                (
                    *(*key, each.cell, each.scope, each.since, each.end_us, each.is_cut),
                    [(*point[:3], str(point.level)) for point in each.points],
                )
                for key, each in sorted(account.sessions.by_key.items())
                if isinstance(each, Gauge)
            ]
            if account.sessions.by_key
            else [],
            account.contract.opened_us,
            [
                (each.grant, each.price, str(each.granted), each.effective_us, each.expires_us, each.voided_us)
                for _, each in sorted(account.quantity_grants.items())
            ]
            if account.quantity_grants
            else [],
            [_stream(name, stream) for name, stream in account.streams],
            account.streams.as_of_us if account.streams.by_type else 0,
            [
                (name, hold_text(each.hold), [str(quantity) for quantity in each.left], each.rated, each.sent)
                for name, each in sorted(account.leases.of.items())
            ]
            if account.leases.of
            else [],
            [(each.from_us, each.seat, each.count) for each in account.contract.seats],
            [(cap.cap, cap.basis) for cap in caps if cap.basis != CHARGED],
            [cap.cap for cap in caps if cap.waives],
            [(each.from_us, each.cap, _amount_or_none(each.amount)) for each in account.waivers],
            account.postpaid,
            account.billed_us,
        )
    )


def _top_up(top_up: TopUp) -> tuple[_Terms | None, int, int, int, _Terms | None, bool]:
    terms, asked = (
        None if of is None else (str(of.threshold), str(of.amount), of.cooldown_us, of.attempts, of.priority, of.days)
        for of in (top_up.terms, top_up.asked)
    )
    return terms, top_up.ordinal, top_up.failed, top_up.since_us, asked, top_up.low


def _recurring(each: Recurring) -> _Recurring:
    rolled = each.rollover
    rollover = None if rolled is None else (rolled[0], rolled[1], _amount_or_none(rolled[2]))
    before = each.name, each.every, each.next_us, each.kind, str(each.amount)
    return (*before, each.priority, each.scope, each.pays_debt, each.expires, each.days, rollover)


def _stream(name: Name, stream: Stream) -> _Stream:
    parts = [(part.price, part.cell, str(part.quantity)) for part in stream.parts]
    return _Stream(
        *(*name, stream.seq, stream.revision, stream.mark, stream.until_us, stream.time_us, stream.offset),
        *(stream.scopes, parts, stream.hold, stream.estimated, stream.tags),
    )


def _read_stream(row: _Stream) -> Stream:
    parts = tuple(Part(price, cell, int(quantity)) for price, cell, quantity in row.parts)
    return Stream(
        *(row.seq, row.revision, row.mark, row.until_us, row.time_us, row.offset, row.scopes, parts),
        *(row.hold, row.estimated, row.tags),
    )


def _amount_or_none(amount: int | None) -> str | None:
    return None if amount is None else str(amount)


def _rows(table: Table) -> list[tuple[int, list[tuple[str, tuple[str, ...], str]]]]:
    return [
        (start, [(name, cell, str(quantity)) for (name, cell), quantity in sorted(row.items())])
        for start, row in sorted(table.items())
    ]


def _table(rows: list[tuple[int, list[tuple[str, tuple[str, ...], str]]]]) -> Table:
    return {start: {(name, cell): int(quantity) for name, cell, quantity in row} for start, row in rows}


def decode_account(blob: bytes, book: PriceBook) -> Account:
    """The account, ready to go on. Its ledger counts as posted up to here. Raises UnknownSnapshot."""
    try:
        stored = _account_decoder.decode(blob)
    except msgspec.MsgspecError as error:
        raise UnknownSnapshot(str(error)) from error
    if stored.version not in READABLE:
        raise UnknownSnapshot(f"account snapshot version {stored.version}; this engine reads up to {VERSION}")
    where = stored.zone, stored.anchor_day
    account = Account(stored.account, stored.plan, stored.currency, *where, stored.woken_us, book, stored.opened_us)
    account.newest_event_us = stored.newest_event_us
    account.rated = stored.rated
    account.sequence = stored.sequence
    account.table = _table(stored.table)
    account.late = _table(stored.late)
    account.adjusted = {
        (start, period): {price: int(pico) for price, pico in charges} for start, period, charges in stored.adjusted
    }
    rerated = {name: Rerating(*said) for name, *said in stored.rerated}
    account.lines = {
        name: ManualLine(posted_us, segment_us, period_us, price, int(amount), reason, by, rerated.get(name))
        for name, posted_us, segment_us, period_us, price, amount, reason, by in stored.lines
    }
    debt_payers = dict(stored.debt_payers)
    carries = {
        name: Carry(source, percent, None if cap is None else int(cap)) for name, source, percent, cap in stored.carries
    }
    changes = {
        name: tuple(LotChange(at_us, kind, None if amount is None else int(amount)) for at_us, kind, amount in of)
        for name, of in stored.lot_changes
    }
    account.lots = {
        name: Lot(
            name,
            kind,
            int(granted),
            priority,
            effective_us,
            expires_us,
            scope,
            debt_payers.get(name),
            changes.get(name, ()),
            carries.get(name),
        )
        for name, kind, granted, priority, effective_us, expires_us, scope in stored.lots
    }
    placed = {name: (scope, hard) for name, scope, hard in stored.cap_scopes}
    counting = {
        name: (Window(kind, length_us), meter, price, since)
        for name, kind, length_us, meter, price, since in stored.cap_windows
    }
    bases = dict(stored.cap_bases)
    for name, amount in stored.caps:
        scope, hard = placed.get(name, (ROOT, True))
        window, meter, price, counts_since = counting.get(name, (MONTH, None, None, -1))
        counted_as = window, meter, price, counts_since, bases.get(name, CHARGED)
        account.caps[name] = Cap(name, int(amount), scope, hard, *counted_as, name in stored.waiving)
    account.tallies = {name: {place: int(counted) for place, counted in counts} for name, counts in stored.tallies}
    account.rules = {name: Rule(CapShare(cap), percent, clear) for name, cap, percent, clear in stored.cap_rules}
    account.rules |= {
        name: Rule(Wallet(), int(threshold), int(clear), True) for name, threshold, clear in stored.balance_rules
    }
    account.rules |= {
        name: Rule(measure, int(threshold), int(clear), falls, level)
        for name, measure, threshold, clear, falls, level in stored.rules
    }
    account.standings = {
        (rule, window): Standing(ordinal, active) for rule, window, ordinal, active in stored.standings
    }
    since, allowed = dict(stored.scopes_since), dict(stored.allowed)
    account.scopes |= {
        name: Scope(
            standing, {month: int(spend) for month, spend in spends}, since.get(name, -1), dict(allowed.get(name, ()))
        )
        for name, standing, spends in stored.scopes
    }
    account.overdraft = None if stored.overdraft is None else int(stored.overdraft)
    rate_meters = dict(stored.rate_meters)
    account.rate_limits = {
        name: RateLimit(name, scope, per_minute, rate_meters.get(name))
        for name, scope, per_minute in stored.rate_limits
    }
    account.slices = {
        epoch: Slice({price: int(left) for price, left in quantities}, linger_us, closed_us)
        for epoch, quantities, linger_us, closed_us in stored.slices
    }
    account.draws = {
        hold: Drawn(until_us, [int(quantity) for quantity in quantities], done)
        for hold, until_us, quantities, done in stored.draws
    }
    account.aggregates = {
        start: {(name, cell): read_kept(parts) for name, cell, parts in row} for start, row in stored.aggregates
    }
    if stored.agreed or stored.phases or stored.pauses or stored.seats:
        account.contract = Contract(
            stored.zone,
            stored.anchor_day,
            stored.first_plan or stored.plan,
            [Phase(*each) for each in stored.phases],
            [Agreement(*each) for each in stored.agreed],
            [Pause(*each) for each in stored.pauses],
            stored.opened_us,
            [Seats(*each) for each in stored.seats],
        )
    if stored.sessions or stored.gauges:
        account.sessions = Sessions(stored.account, _sessions_of(stored), stored.sessions_us)
    for row in stored.streams:
        of_type = account.streams.by_type.setdefault(row.event_type, {})
        of_type[Name(row.event_type, row.source, row.id)] = _read_stream(row)
    account.streams.as_of_us = stored.streams_us
    account.leases.of = {
        name: Lease(read_hold(hold), tuple(int(quantity) for quantity in left), rated, sent)
        for name, hold, left, rated, sent in stored.leases
    }
    account.postpaid, account.billed_us = stored.postpaid, stored.billed_us
    account.waivers = tuple(
        Waiver(from_us, cap, None if amount is None else int(amount)) for from_us, cap, amount in stored.waivers
    )
    account.parked = {mark: Parked(until_us, value) for mark, until_us, value in stored.parked}
    account.quantity_grants = {
        grant: QuantityGrant(grant, price, int(granted), effective_us, expires_us, voided_us)
        for grant, price, granted, effective_us, expires_us, voided_us in stored.quantity_grants
    }
    account.recurring = {each[0]: _read_recurring(each) for each in stored.recurring}
    if stored.top_up is not None:
        stated, ordinal, failed, since_us, asked, low = stored.top_up
        account.top_up = TopUp(_terms(stated), ordinal, failed, since_us, _terms(asked), low)
    account.mark_posted()
    return account


def _read_recurring(stored: _Recurring) -> Recurring:
    name, every, next_us, kind, amount, priority, scope, pays_debt, expires, days, rolled = stored
    rollover = None if rolled is None else (rolled[0], rolled[1], None if rolled[2] is None else int(rolled[2]))
    return Recurring(name, every, next_us, kind, int(amount), priority, scope, pays_debt, expires, days, rollover)


def _sessions_of(stored: _Account) -> dict[Key, Timed]:
    by_key: dict[Key, Timed] = {
        (meter, name): Session(
            cell, int(weight), scope, since, begin_us, seen_us, stop_us, is_open=is_open, charged=charged
        )
        for meter, name, cell, weight, scope, since, begin_us, seen_us, stop_us, is_open, charged in stored.sessions
    }
    for meter, name, cell, scope, since, end_us, is_cut, kept_points in stored.gauges:
        points = tuple(Point(time_us, source, told, int(level)) for time_us, source, told, level in kept_points)
        by_key[meter, name] = Gauge(cell, scope, since, points, end_us, is_cut)
    return by_key


def _terms(stored: _Terms | None) -> Terms | None:
    return None if stored is None else Terms(int(stored[0]), int(stored[1]), *stored[2:])


def plan_of(blob: bytes) -> str:
    """The plan in an account's snapshot, of which nothing else is read. Raises UnknownSnapshot."""
    try:
        return _plan_decoder.decode(blob).plan
    except msgspec.MsgspecError as error:
        raise UnknownSnapshot(str(error)) from error


def _place(price: str, cell: Sequence[str]) -> str:
    return f"{price} {'/'.join(cell)}" if cell else price


def account_fields(blob: bytes) -> dict[str, str]:
    """Everything an account's snapshot stores, as text, by a name that a person can find it by; in the stored order.

    Quantities are nano-units and money is pico, as they are stored. Raises UnknownSnapshot."""
    try:
        stored = _account_decoder.decode(blob)
    except msgspec.MsgspecError as error:
        raise UnknownSnapshot(str(error)) from error
    fields = {name: str(getattr(stored, name)) for name in _PLAIN}
    for start, row in stored.table:
        for price, cell, quantity in row:
            fields[f"quantity of {_place(price, cell)} in the segment from {start}"] = quantity
    for start, row in stored.late:
        for price, cell, quantity in row:
            fields[f"late quantity of {_place(price, cell)} in the segment from {start}"] = quantity
    for start, period, charges in stored.adjusted:
        for price, pico in charges:
            fields[f"adjustment of {price} of the period from {period}, posted in the segment from {start}"] = pico
    for group, parts in _NAMED.items():
        for row in getattr(stored, group):
            for part, value in zip(parts, row[1:], strict=True):
                fields[f"{group} {row[0]}: {part}"] = _words(value) if isinstance(value, Struct) else str(value)
    for scope, lists in stored.allowed:
        for field, values in lists:
            fields[f"allowed in {scope}: {field}"] = " ".join(values)
    for start, kept_row in stored.aggregates:
        for price, cell, kept_parts in kept_row:
            fields[f"aggregate of {_place(price, cell)} in the segment from {start}"] = " ".join(kept_parts)
    for from_us, plan in stored.phases:
        fields[f"plan from {from_us}"] = plan
    for from_us, paused in stored.pauses:
        fields[f"paused from {from_us}"] = str(paused)
    for from_us, seat, count in stored.seats:
        fields[f"seats {seat} from {from_us}"] = str(count)
    for from_us, plan, price, terms, adds_up in stored.agreed:
        fields[f"agreed of {price} in plan {plan} from {from_us}: terms"] = str(terms)
        fields[f"agreed of {price} in plan {plan} from {from_us}: adds_up"] = str(adds_up)
    for kept_session in stored.sessions:
        for part, said in zip(_OF_SESSION, kept_session[2:], strict=True):
            fields[f"session {kept_session[1]} of meter {kept_session[0]}: {part}"] = str(said)
    for gauge in stored.gauges:
        name = f"session {gauge[1]} of meter {gauge[0]}"
        for part, value in zip(_OF_GAUGE, gauge[2:], strict=False):
            fields[f"{name}: {part}"] = str(value)
        for time_us, source, event_id, level in gauge[-1]:
            fields[f"{name}: level at {time_us} by {source}, {event_id}"] = level
    for stream in stored.streams:
        for part in stream.__struct_fields__[3:]:
            name = f"stream {stream.id} of {stream.source}, type {stream.event_type}: {part}"
            fields[name] = str(getattr(stream, part))
    for mark, until_us, value in stored.parked:
        fields[f"parked for {mark.hex()}"] = f"until {until_us}: {value.decode('utf-8', 'backslashreplace')}"
    top_up = ("terms", "ordinal", "failed", "since_us", "asked", "low")
    for part, value in zip(top_up, stored.top_up or [None] * len(top_up), strict=True):
        fields[f"top_up: {part}"] = " ".join(map(str, value)) if isinstance(value, tuple) else str(value)
    for from_us, cap, waived_amount in stored.waivers:
        fields[f"waived beyond cap {cap} from {from_us}: amount"] = str(waived_amount)
    fields["waiving"] = " ".join(stored.waiving)
    for rule, window, ordinal, active in stored.standings:
        fields[f"standing of rule {rule} in window {window}"] = f"ordinal {ordinal}, {'active' if active else 'clear'}"
    return fields


def _words(measure: Struct) -> str:
    return " ".join(map(str, msgspec.to_builtins(measure)))


_PLAIN: Final = (
    *("version", "account", "plan", "currency", "zone", "anchor_day", "woken_us", "newest_event_us", "rated"),
    *("sequence", "overdraft", "first_plan", "opened_us", "postpaid", "billed_us", "sessions_us", "streams_us"),
)
_OF_SESSION: Final = ("cell", "weight", "scope", "since", "begin_us", "seen_us", "stop_us", "is_open", "charged")
_OF_GAUGE: Final = ("cell", "scope", "since", "end_us", "is_cut")
_NAMED: Final = {
    "scopes_since": ("offset",),
    "lots": ("kind", "granted", "priority", "effective_us", "expires_us", "scope"),
    "caps": ("amount",),
    "cap_scopes": ("scope", "hard"),
    "rules": ("measure", "threshold", "clear", "falls", "level"),
    "scopes": ("standing", "spend"),
    "rate_limits": ("scope", "per_minute"),
    "slices": ("quantities", "linger_us", "closed_us"),
    "draws": ("until_us", "quantities", "done"),
    "leases": ("hold", "left", "rated", "sent"),
    "debt_payers": ("pays_debt",),
    "lot_changes": ("changes",),
    "carries": ("source", "percent", "cap"),
    "cap_windows": ("kind", "length_us", "meter", "price", "since"),
    "tallies": ("counted",),
    "cap_bases": ("basis",),
    "rate_meters": ("meter",),
    "rerated": ("version", "from_us", "to_us"),
    "recurring": (
        *("every", "next_us", "kind", "amount", "priority", "scope", "pays_debt", "expires", "days", "rollover"),
    ),
    "quantity_grants": ("price", "granted", "effective_us", "expires_us", "voided_us"),
    "lines": ("posted_us", "segment_us", "period_us", "price", "amount", "reason", "by"),
}


class PartitionState(Struct, array_like=True):
    """What a partition keeps beside its accounts, its duplicate memory and its command memory."""

    version: int
    log_time_us: int
    epoch: int
    catalogues: list[tuple[int, int]]  # (version, effective instant)
    counts: list[tuple[str, int]]  # outcomes so far, by name
    sliced: list[str] = []  # accounts with slices
    bound: list[str] = []  # accounts that have agreed on prices by which a period may owe more than its usage
    leased: list[str] = []  # accounts with leases


_partition_decoder: Final = msgspec.msgpack.Decoder(PartitionState)


def encode_partition(
    log_time_us: int,
    epoch: int,
    catalogues: list[tuple[int, int]],
    counts: dict[str, int],
    sliced: Iterable[str],
    bound: Iterable[str],
    leased: Iterable[str],
) -> bytes:
    """The partition's own state; the same state always the same bytes."""
    return _encoder.encode(
        PartitionState(
            *(VERSION, log_time_us, epoch, catalogues, sorted(counts.items())),
            *(sorted(sliced), sorted(bound), sorted(leased)),
        )
    )


def decode_partition(blob: bytes) -> PartitionState:
    """Raises UnknownSnapshot."""
    try:
        state = _partition_decoder.decode(blob)
    except msgspec.MsgspecError as error:
        raise UnknownSnapshot(str(error)) from error
    if state.version not in READABLE:
        raise UnknownSnapshot(f"partition snapshot version {state.version}; this engine reads up to {VERSION}")
    return state
