"""Accounts and partitions as bytes, and back."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.account import Account
from engine.alerts import (
    LEVELS,
    CapShare,
    CommitmentShare,
    Counted,
    Expiring,
    IncludedShare,
    LotShare,
    Rule,
    Spike,
    Standing,
    Wallet,
)
from engine.bases import BASES
from engine.catalog import PriceBook, compile_catalogue
from engine.contract import Agreement, Contract, Pause, Phase, Seats
from engine.corrections import Parked
from engine.credit import Carry, Lot, LotChange
from engine.gauges import Gauge, Point
from engine.holds import Bound, Drawn, Hold
from engine.leases import Lease
from engine.limits import ROOT, Cap, RateLimit, Scope, Slice
from engine.manual_lines import ManualLine, Rerating
from engine.meters.aggregates import Average, Ranked, Unique
from engine.quantity_grants import QuantityGrant
from engine.recurring import Every, Recurring
from engine.sessions import Session, Sessions
from engine.snapshot import (
    VERSION,
    UnknownSnapshot,
    account_fields,
    decode_account,
    decode_partition,
    encode_account,
    encode_partition,
    plan_of,
)
from engine.streams import Name, Part, Stream
from engine.top_up import Terms, TopUp
from engine.waivers import Waiver
from engine.windows import Window
from tests.engine.bench import START, document

BOOK = PriceBook()
BOOK.publish(START, compile_catalogue(1, document()))
TEXT = st.text(min_size=1, max_size=8)
BIG = st.integers(-(10**40), 10**40)
INSTANT = st.integers(-(1 << 60), 1 << 60)
EVENT_TIME = st.integers(0, 2 * START)
MARK = st.binary(min_size=12, max_size=12)
FOLLOWS = {
    *("_book", "_closed", "_closing", "_derived", "_draw_ends", "_guard", "_posted", "_terms", "_terms_wake"),
}  # what an account finds out from the rest
STORED = {  # and what it does not: all of it is drawn below
    *("account", "adjusted", "aggregates", "anchor_day", "billed_us", "caps", "contract", "currency", "draws", "late"),
    *(
        "leases",
        "lines",
        "lots",
        "newest_event_us",
        "overdraft",
        "parked",
        "postpaid",
        "quantity_grants",
        "rate_limits",
    ),
    *("rated", "recurring", "rules", "scopes", "sequence", "sessions", "slices", "standings", "streams", "table"),
    *("tallies", "top_up", "waivers", "woken_us", "zone"),
}
OF_THEIR_OWN = {  # what has no equality
    "contract": ("plan", "phases", "agreed", "pauses", "seats", "opened_us"),
    "sessions": ("by_key", "as_of_us"),
    "streams": ("by_type", "as_of_us"),
    "leases": ("of",),
}


@st.composite
def accounts(draw: st.DrawFn) -> Account:
    account = Account(draw(TEXT), "plan", "USD", "Europe/Berlin", draw(st.integers(1, 31)), draw(EVENT_TIME), BOOK)
    account.newest_event_us, account.rated = draw(EVENT_TIME), draw(st.integers(0, 1 << 62))
    account.sequence = draw(st.integers(0, 1 << 62))
    names = st.sampled_from(["x", "y", "third"])
    cells = st.tuples(names, st.lists(TEXT, max_size=2).map(tuple))
    account.table = draw(
        st.dictionaries(EVENT_TIME, st.dictionaries(cells, st.integers(0, 10**40), min_size=1, max_size=3), max_size=3)
    )
    scope = st.lists(names, max_size=2).map(tuple)
    amount = st.integers(1, 10**40)
    changes = st.builds(LotChange, INSTANT, st.just("void"), st.none() | amount)
    changes |= st.builds(LotChange, INSTANT, st.just("refund"), amount)
    lots = st.builds(
        Lot,
        TEXT,
        st.sampled_from(["paid", "promo"]),
        BIG,
        INSTANT,
        INSTANT,
        st.none() | INSTANT,
        scope,
        st.sampled_from([None, True, False]),
        st.lists(changes, max_size=2).map(tuple),
        st.none() | st.builds(Carry, TEXT, st.integers(1, 100), st.none() | amount),
    )
    account.lots = {lot.lot: lot for lot in draw(st.lists(lots, max_size=3))}
    for name, lot in account.lots.items():
        if lot.carry is not None:  # whose rest it is must be a lot of the account
            source = draw(st.sampled_from(sorted(account.lots)))
            account.lots[name] = replace(lot, carry=replace(lot.carry, source=source))
    windows = st.builds(Window, st.sampled_from(["month", "day", "rolling", "request"]), st.integers(0, 1 << 40))
    unit = st.none() | TEXT
    basis = st.sampled_from(BASES)
    since = st.integers(0, 1 << 62)
    caps = st.builds(Cap, TEXT, BIG, TEXT, st.booleans(), windows, unit, unit, since, basis, st.booleans()).map(
        lambda cap: msgspec.structs.replace(cap, since=-1) if cap.is_plain else cap
    )
    account.caps = {cap.cap: cap for cap in draw(st.lists(caps, max_size=3))}
    counts = st.dictionaries(EVENT_TIME, BIG, max_size=3)
    account.tallies = {name: draw(counts) for name, cap in account.caps.items() if cap.tallied}
    measures = st.one_of(
        *(st.builds(named, TEXT) for named in (CapShare, IncludedShare, CommitmentShare, LotShare)),
        *(st.builds(plain) for plain in (Counted, Spike, Wallet)),
        st.builds(Expiring, st.integers(1, 1 << 60)),
    )
    rules = st.builds(Rule, measures, BIG, BIG, st.booleans(), st.sampled_from(LEVELS))
    account.rules = draw(st.dictionaries(TEXT, rules, max_size=4))
    standings = st.builds(Standing, st.integers(0, 1 << 62), st.booleans())
    account.standings = draw(st.dictionaries(st.tuples(TEXT, TEXT), standings, max_size=3))
    standing, spend = st.sampled_from(["active", "suspended"]), st.dictionaries(EVENT_TIME, BIG, max_size=2)
    scopes = st.builds(Scope, standing, spend, st.just(-1) | since)
    account.scopes |= draw(st.dictionaries(st.just(ROOT) | TEXT, scopes, max_size=3))
    account.overdraft = draw(st.none() | BIG)
    for each in account.scopes.values():
        lists = st.dictionaries(TEXT, st.lists(TEXT, max_size=2).map(tuple), max_size=2)
        each.allowed = draw(st.just({}) | lists)
    limits = st.builds(RateLimit, TEXT, TEXT, st.integers(1, 1_000_000), st.none() | TEXT)
    account.rate_limits = {each.limit: each for each in draw(st.lists(limits, max_size=3))}
    quantities = st.dictionaries(names, st.integers(1, 10**40), min_size=1)
    slices = st.builds(Slice, quantities, st.integers(1, 1 << 40), st.none() | EVENT_TIME)
    account.slices = draw(st.dictionaries(st.integers(0, 1 << 62), slices, max_size=2))
    draws = st.builds(Drawn, EVENT_TIME, st.lists(st.integers(0, 10**40), max_size=2), st.booleans())
    agreed = st.builds(Agreement, INSTANT, TEXT, TEXT, st.none() | st.just('{"meter":"m","model":"flat","amount":"1"}'))
    phases = draw(st.lists(st.builds(Phase, INSTANT, st.sampled_from(["plan", "pro"])), max_size=3))
    pauses = draw(st.lists(st.builds(Pause, INSTANT, st.booleans()), max_size=3))
    sold = draw(st.lists(agreed, max_size=3))
    one_seat = st.builds(Seats, INSTANT, TEXT, st.integers(0, 1_000_000))
    seats = draw(st.lists(one_seat, max_size=3, unique_by=lambda each: (each.from_us, each.seat)))
    came = draw(st.just(0) | INSTANT)
    account.contract = Contract(account.zone, account.anchor_day, "plan", phases, sold, pauses, came, seats)
    account.draws = draw(st.dictionaries(TEXT, draws, max_size=2))
    terms = st.none() | st.builds(Terms, BIG, amount, INSTANT, st.integers(1, 100), INSTANT, st.none() | INSTANT)
    rollover = st.none() | st.tuples(st.integers(1, 100), st.integers(1, 3660), st.none() | amount)
    every: st.SearchStrategy[Every] = st.sampled_from(["period", "month", "week"])
    recurring = st.builds(Recurring, TEXT, every, INSTANT, TEXT, amount, INSTANT, scope, st.booleans(), st.booleans())
    account.recurring = {
        each.name: replace(each, days=draw(st.none() | EVENT_TIME), rollover=draw(rollover))
        for each in draw(st.lists(recurring, max_size=2))
    }
    units = st.builds(QuantityGrant, TEXT, TEXT, amount, INSTANT, INSTANT, st.none() | INSTANT)
    account.quantity_grants = {each.grant: each for each in draw(st.lists(units, max_size=2))}
    count = st.integers(0, 1 << 40)
    account.top_up = draw(st.builds(TopUp, terms, count, count, INSTANT, terms, st.booleans()))
    return account


@st.composite
def later_ones(draw: st.DrawFn) -> Account:
    """What few accounts have: late usage, sessions, streams, leases and the like."""
    account = Account("acme", "plan", "USD", "UTC", 1, draw(EVENT_TIME), BOOK)
    names, amount = st.sampled_from(["x", "y", "third"]), st.integers(1, 10**40)
    count = since = st.integers(0, 1 << 40)
    cells, scope = st.tuples(names, st.lists(TEXT, max_size=2).map(tuple)), st.lists(names, max_size=2).map(tuple)
    ranks = st.lists(st.tuples(BIG), min_size=1, max_size=3).map(tuple)
    latest = st.lists(st.tuples(EVENT_TIME, TEXT, TEXT, BIG), min_size=1, max_size=2).map(tuple)
    aggregates = st.one_of(
        st.builds(Ranked, st.sampled_from(["max", "min"]), ranks, count),
        st.builds(Ranked, st.just("max"), ranks, count, st.integers(1, 9), st.tuples(BIG)),
        st.builds(Ranked, st.just("latest"), latest, count),
        st.builds(Average, amount, st.integers(1, 1 << 40)),
        st.builds(Unique, st.dictionaries(MARK, st.integers(1, 9), min_size=1, max_size=3), count),
    )
    row = st.dictionaries(cells, aggregates, min_size=1, max_size=2)
    account.aggregates = draw(st.dictionaries(EVENT_TIME, row, max_size=2))
    account.late = draw(st.dictionaries(EVENT_TIME, st.dictionaries(cells, BIG, min_size=1, max_size=2), max_size=2))
    places = st.tuples(EVENT_TIME, EVENT_TIME)
    account.adjusted = draw(st.dictionaries(places, st.dictionaries(names, BIG, min_size=1, max_size=2), max_size=2))
    rerated = st.none() | st.builds(Rerating, count, INSTANT, INSTANT)
    lines = st.builds(ManualLine, INSTANT, INSTANT, INSTANT, TEXT, BIG, TEXT, TEXT, rerated)
    account.lines = draw(st.dictionaries(TEXT, lines, max_size=2))
    marks = st.binary(min_size=20, max_size=20)
    account.parked = draw(st.dictionaries(marks, st.builds(Parked, INSTANT, st.binary(max_size=9)), max_size=2))
    cell = st.lists(TEXT, max_size=2).map(tuple)
    ends = st.none() | INSTANT
    span = st.tuples(INSTANT, INSTANT)
    sessions = st.builds(Session, cell, amount, TEXT, since, ends, INSTANT, ends, st.booleans(), span)
    points = st.lists(st.builds(Point, INSTANT, TEXT, TEXT, amount), min_size=1, max_size=2).map(tuple)
    gauges = st.builds(Gauge, cell, TEXT, since, points, INSTANT, st.booleans())
    timed = draw(st.dictionaries(st.tuples(TEXT, TEXT), sessions | gauges, max_size=3))
    account.sessions = Sessions(account.account, timed, draw(INSTANT) if timed else 0)
    parts = st.lists(st.builds(Part, TEXT, cell, amount), max_size=2).map(tuple)
    tags = st.none() | st.dictionaries(TEXT, TEXT, max_size=2)
    scope_names = st.lists(TEXT, max_size=2).map(tuple)
    stood = count, count, marks, INSTANT, INSTANT, since, scope_names, parts
    streams = st.builds(Stream, *stood, st.none() | TEXT, st.booleans(), tags)
    for name, stream in draw(st.dictionaries(st.builds(Name, TEXT, TEXT, TEXT), streams, max_size=3)).items():
        account.streams.by_type.setdefault(name.event_type, {})[name] = stream
    account.streams.as_of_us = draw(INSTANT) if account.streams.by_type else 0
    bounds = st.lists(st.builds(Bound, amount, scope, scope), max_size=2).map(tuple)
    times = INSTANT, count, INSTANT, INSTANT, INSTANT
    holds = st.builds(Hold, TEXT, TEXT, count, count, count, *times, bounds, count, st.booleans())
    left = st.lists(st.integers(0, 10**40), max_size=2).map(tuple)
    account.leases.of = draw(st.dictionaries(TEXT, st.builds(Lease, holds, left, count, st.none() | count), max_size=2))
    account.waivers = draw(st.lists(st.builds(Waiver, INSTANT, TEXT, st.none() | amount), max_size=2).map(tuple))
    account.postpaid, account.billed_us = draw(st.booleans()), draw(INSTANT)
    return account


def test_no_slot_of_an_account_is_forgotten() -> None:
    """Whoever adds one says here whether it is stored."""
    assert set(Account.__slots__) == STORED | FOLLOWS


@given(accounts() | later_ones())
def test_an_account_comes_back_as_it_was(account: Account) -> None:
    blob = encode_account(account)
    found = decode_account(blob, BOOK)
    assert encode_account(found) == blob
    assert found.contract.is_like(account.contract)
    assert (found.plan, found.contract.opened_us) == (account.plan, account.contract.opened_us)
    assert list(found.lines) == list(account.lines), "in the order in which they were posted"
    for name in STORED - OF_THEIR_OWN.keys():
        assert getattr(found, name) == getattr(account, name), name
    for name, parts in OF_THEIR_OWN.items():
        for part in parts:
            assert getattr(getattr(found, name), part) == getattr(getattr(account, name), part), (name, part)
    assert encode_account(account) == blob


@given(accounts())
def test_the_order_in_which_things_came_leaves_no_trace(account: Account) -> None:
    blob = encode_account(account)
    for name in ("lots", "caps", "rules", "standings", "tallies", "scopes", "rate_limits", "slices", "draws"):
        setattr(account, name, dict(reversed(getattr(account, name).items())))
    account.table = {start: dict(reversed(row.items())) for start, row in reversed(account.table.items())}
    assert encode_account(account) == blob


def test_amounts_and_quantities_beyond_64_bits_survive() -> None:
    account = Account("acme", "plan", "USD", "UTC", 1, START, BOOK)
    account.table = {START: {("x", ("x",)): 10**30 + 1}}
    account.lots = {"l": Lot("l", "paid", 10**30 + 3, 1, START, None, ())}
    account.caps = {"c": Cap("c", 10**30 + 5)}
    account.rules = {"r": Rule(Wallet(), -(10**30) - 7, 10**30 + 9, falls=True)}
    found = decode_account(encode_account(account), BOOK)
    assert found.table == account.table
    assert (found.lots, found.caps, found.rules) == (account.lots, account.caps, account.rules)


def test_what_was_settled_before_is_not_settled_again() -> None:
    account = Account("acme", "plan", "USD", "UTC", 1, START, BOOK)
    account.lots = {"l": Lot("l", "paid", 5, 1, START, None, ())}
    found = decode_account(encode_account(account), BOOK)
    assert found.settle(START).postings == []
    assert len(account.settle(START).postings) == 1


def versioned(blob: bytes, version: int) -> bytes:
    fields = msgspec.msgpack.decode(blob)
    assert fields[0] == VERSION
    return msgspec.msgpack.encode([version, *fields[1:]])


@pytest.mark.parametrize("version", [0, VERSION + 1, 255])
def test_another_version_is_refused(version: int) -> None:
    account = Account("acme", "plan", "USD", "UTC", 1, START, BOOK)
    with pytest.raises(UnknownSnapshot, match=f"version {version}; this engine reads up to {VERSION}"):
        decode_account(versioned(encode_account(account), version), BOOK)
    with pytest.raises(UnknownSnapshot, match=f"version {version}; this engine reads up to {VERSION}"):
        decode_partition(versioned(encode_partition(START, 1, [(1, 0)], {}, (), (), ()), version))


@pytest.mark.parametrize("blob", [b"", b"\xc0", b"\x91\x01", b"not msgpack", msgspec.msgpack.encode({"version": 1})])
def test_what_is_no_snapshot_is_refused(blob: bytes) -> None:
    with pytest.raises(UnknownSnapshot):
        decode_account(blob, BOOK)
    with pytest.raises(UnknownSnapshot):
        decode_partition(blob)


def test_a_partition_comes_back_as_it_was() -> None:
    blob = encode_partition(START, 7, [(1, 0), (4, START)], {"rated": 3, "applied": 1}, {"b", "a"}, {"c"}, {"e", "d"})
    state = decode_partition(blob)
    assert (state.log_time_us, state.epoch) == (START, 7)
    assert state.catalogues == [(1, 0), (4, START)]
    assert dict(state.counts) == {"rated": 3, "applied": 1}
    assert (state.sliced, state.bound, state.leased) == (["a", "b"], ["c"], ["d", "e"])
    sets = {"a", "b"}, {"c"}, {"d", "e"}
    assert encode_partition(START, 7, [(1, 0), (4, START)], {"applied": 1, "rated": 3}, *sets) == blob


def test_version_1_is_read_as_it_was_written() -> None:
    """Bytes that the engine wrote before there were scopes, slices and draws."""
    account = [1, "acme", "plan", "USD", "UTC", 1, START, START + 5, 1, 2]
    account += [[[START, [["x", ["x"], "3000000000"]]]], [["l", "paid", "7", 1, START, None, []]], [["c", "9"]]]
    account += [[["r", "c", 80, 80]], [], [["r", "5", 1, True]]]
    found = decode_account(msgspec.msgpack.encode(account), BOOK)
    assert found.table == {START: {("x", ("x",)): 3_000_000_000}}
    assert found.caps == {"c": Cap("c", 9, ROOT, hard=True)}
    assert (found.scopes, found.overdraft, found.slices) == ({ROOT: Scope("active")}, 0, {})
    assert (found.lots["l"].settles, found.lots["l"].changes) == (True, ())
    state = decode_partition(msgspec.msgpack.encode([1, START, 7, [[1, 0]], [["rated", 3]]]))
    assert (state.epoch, state.sliced) == (7, [])


@given(accounts())
def test_every_stored_value_has_a_name_for_people(account: Account) -> None:
    """A value without one could differ without a word."""
    blob = encode_account(account)
    fields = account_fields(blob)
    told = " ".join([*fields, *fields.values()])
    shown = repr(told)  # a text inside a list is shown in quotes
    leaves = _leaves(msgspec.msgpack.decode(blob))
    assert not [leaf for leaf in leaves if repr(leaf)[1:-1] not in shown and str(leaf) not in told]
    with pytest.raises(UnknownSnapshot):
        account_fields(blob[:-1])


@given(later_ones())
def test_when_sessions_and_streams_were_looked_at_last_has_one_too(account: Account) -> None:
    fields = account_fields(encode_account(account))
    assert fields["sessions_us"] == str(account.sessions.as_of_us)
    assert fields["streams_us"] == str(account.streams.as_of_us)


def _leaves(stored: Any) -> Iterator[str]:
    if isinstance(stored, list):
        for item in stored:
            yield from _leaves(item)
    elif not isinstance(stored, bool):
        yield str(stored)


@given(accounts())
def test_the_plan_is_read_without_the_rest(account: Account) -> None:
    assert plan_of(encode_account(account)) == account.plan


@pytest.mark.parametrize("blob", [b"", b"junk", msgspec.msgpack.encode([1, "acme"])])
def test_a_plan_that_cannot_be_read_is_said(blob: bytes) -> None:
    with pytest.raises(UnknownSnapshot):
        plan_of(blob)


def test_cells_that_differ_by_a_space_have_names_of_their_own() -> None:
    account = Account("acme", "plan", "USD", "UTC", 1, START, BOOK)
    account.table = {START: {("x", ("a b",)): 1, ("x", ("a  b",)): 2, ("x", ()): 3}}
    told = {name: value for name, value in account_fields(encode_account(account)).items() if "quantity" in name}
    assert sorted(told.values()) == ["1", "2", "3"]
