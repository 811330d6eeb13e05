"""One account: the fast path against the full one, guards, boundaries, and that a failed call changes nothing."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import account as module
from engine.account import Account, TooManyCells
from engine.alerts import CapShare, Counted, Crossing, Expiring, LotShare, Rule, Spike, Wallet
from engine.catalog import PriceBook, compile_catalogue
from engine.credit import Carry, Lot, LotChange, carried
from engine.limits import Cap, own_count
from engine.money import NANO
from engine.outcomes import Line
from engine.prices.curve import Curve
from engine.routes import Usage
from engine.snapshot import encode_account
from engine.windows import BUCKET, MONTH, Window
from tests.engine.bench import DAY, DOLLAR, HOUR, START, document, kept_open, per_unit, phases, us, versions

MARCH, APRIL, MAY = (us(f"2026-0{month}-01T00:00:00+00:00") for month in (3, 4, 5))
SECOND_VERSION, THIRD_VERSION = START + 3 * DAY, START + 40 * DAY


def book(*, version_count: int = 1, open_days: int = 1) -> PriceBook:
    found = PriceBook()
    for version, body in enumerate(versions()[:version_count], start=1):
        compiled = compile_catalogue(version, kept_open(body, open_days))
        found.publish((START, SECOND_VERSION, THIRD_VERSION)[version - 1], compiled)
    return found


class Held:
    """An account and the prices that it is rated with."""

    def __init__(self, *, version_count: int = 1, zone: str = "UTC", anchor_day: int = 1, open_days: int = 1) -> None:
        self.book = book(version_count=version_count, open_days=open_days)
        self.account = Account("acme", "plan", "USD", zone, anchor_day, START, self.book)

    def usage(self, time_us: int, name: str, nano: int, cell: str = "") -> Usage:
        catalogue = self.book.at(time_us)
        assert catalogue is not None
        return catalogue.plans["plan"].prices[name], (cell or name,), nano

    def use(self, units: int, name: str = "x", time_us: int = START) -> tuple[tuple[Line, ...], list[Crossing]]:
        return self.account.rate(time_us, [self.usage(time_us, name, units * NANO)])

    def charge(self, units: int, name: str = "x", time_us: int = START) -> int:
        return sum(line.amount for line in self.use(units, name, time_us)[0])

    def grant(
        self, name: str, dollars: int, effective_us: int = START, carry: Carry | None = None, **fields: Any
    ) -> list[Crossing]:
        body: dict[str, Any] = {"kind": "paid", "priority": 100, "expires_us": None, "scope": ()}
        if self.account.has_usage:
            effective_us = max(effective_us, self.account.newest_event_us + 1)
        lot = Lot(lot=name, granted=dollars * DOLLAR, effective_us=effective_us, **(body | fields))
        lots = [lot] if carry is None else [lot, carried(lot, carry, 1)]
        return self.account.grant(lots, max(START, self.account.woken_us))

    @property
    def balance(self) -> int:
        return self.account.derive().allocation.balance


# --------------------------------------------------------------------------------------------- fast path = full path

Step = Callable[[Held], object]


@st.composite
def events(draw: st.DrawFn) -> Step:
    """One event of one or two prices, mostly near the one before, and mostly whole."""
    time_us = START + draw(
        st.sampled_from([0, 0, 0, 1, -DAY, 2 * DAY]) | st.integers(-12 * DAY, 60 * DAY) | st.integers(0, HOUR)
    )
    names = draw(st.lists(st.sampled_from(["x", "y", "third", "tiered"]), min_size=1, max_size=2, unique=True))
    nano = draw(
        st.sampled_from([0, 1, NANO // 2, 9 * NANO, 10 * NANO, 11 * NANO]) | st.integers(0, 30).map(lambda n: n * NANO)
    )
    cell = draw(st.sampled_from(["a", "a", "a", "b"]))
    scopes = draw(st.sampled_from([(), ("red",)]))
    return lambda held: held.account.rate(time_us, [held.usage(time_us, name, nano, cell) for name in names], scopes)


@st.composite
def grants(draw: st.DrawFn) -> Step:
    name = draw(st.uuids().map(str))
    dollars = draw(st.integers(1, 60))
    effective_us = START + draw(st.integers(-DAY, 10 * DAY))
    span = draw(st.none() | st.integers(1, 20 * DAY))
    kind = draw(st.sampled_from(["paid", "promo"]))
    scope = draw(st.sampled_from([(), ("x",), ("y", "third")]))
    priority = draw(st.integers(0, 2))
    carry = None if span is None else draw(st.none() | st.just(Carry(name, 100, None)))

    def step(held: Held) -> object:
        start = max(effective_us, held.account.newest_event_us + 1)
        expires_us = None if span is None else start + span
        fields = {"kind": kind, "scope": scope, "priority": priority, "expires_us": expires_us}
        return held.grant(name, dollars, effective_us, carry, **fields)

    return step


@st.composite
def settings_of_limits(draw: st.DrawFn) -> Step:
    choice = draw(st.integers(0, 8))
    amount = draw(st.integers(1, 120)) * DOLLAR
    percent = draw(st.sampled_from([1, 33, 80, 100, 250]))
    clear = draw(st.integers(1, percent))
    window = draw(st.sampled_from([MONTH, Window("hour"), Window("rolling", HOUR), Window("first_use", 5 * HOUR)]))
    meter = draw(st.sampled_from([None, None, "units"]))
    scope = draw(st.sampled_from(["", "red"]))
    within_us = draw(st.sampled_from([HOUR, 3 * DAY, 30 * DAY]))

    def step(held: Held) -> object:
        account = held.account
        lots = sorted(account.lots)
        if choice == 0 or "c" not in account.caps:
            return account.set_cap(Cap("c", amount, scope, window=window, meter=meter), account.woken_us)
        name, count, rule = f"cap-{percent}", None, Rule(CapShare("c"), percent, clear)
        if choice == 1:
            name, rule = "balance", Rule(Wallet(), amount - 60 * DOLLAR, amount, falls=True)
        elif choice == 2:
            name, rule = "rich", Rule(Wallet(), amount, amount - 30 * DOLLAR)
        elif choice == 3:
            name, rule = "counted", Rule(Counted(), amount, amount // 2)
            count = Cap(own_count(name), amount, scope, hard=False, window=window, meter=meter)
        elif choice == 4:
            name, rule = "quiet", Rule(Counted(), amount // 2, amount, falls=True)
            count = Cap(own_count(name), amount, scope, hard=False, window=Window("rolling", HOUR), meter=meter)
        elif choice == 5:
            name, rule = "spike", Rule(Spike(), percent, clear)
            count = Cap(own_count(name), amount // 8, scope, hard=False, window=Window(BUCKET, HOUR), meter=meter)
        elif choice == 6 and lots:
            name, rule = "lot", Rule(LotShare(lots[percent % len(lots)]), percent % 100, 100, falls=True)
        elif choice == 7:
            name, rule = "expiring", Rule(Expiring(within_us), amount // 2, amount // 4)
        return account.set_rule(name, rule, account.woken_us, count)

    return step


def wake_next(held: Held) -> object:
    instant = held.account.wake_us()
    return None if instant is None else held.account.wake(instant)


def change_lots(held: Held) -> object:
    """Void the rest of a lot, and give back something of another."""
    told = []
    at_us = max(held.account.woken_us, held.account.newest_event_us + 1)
    changes = LotChange(at_us, "void", None), LotChange(at_us, "refund", DOLLAR)
    for name, change in zip(sorted(held.account.lots), changes, strict=False):
        if not held.account.lots[name].changes:
            told.append(held.account.change_lot(name, change, held.account.woken_us))
    return told


def cut(held: Held) -> object:
    return held.account.settle(held.account.period_of(held.account.newest_event_us))


STEPS = st.lists(
    st.one_of(
        *(events(), events(), events(), st.just(cut), st.just(cut)),
        *(grants(), settings_of_limits(), st.just(wake_next), st.just(change_lots)),
    ),
    max_size=30,
)


@settings(max_examples=250)
@given(
    st.lists(st.integers(1, 40), max_size=3),
    STEPS,
    st.sampled_from(["UTC", "Europe/Berlin"]),
    st.sampled_from([1, 15, 31]),
)
def test_the_fast_path_gives_the_lines_the_crossings_and_the_state_of_the_full_path(
    lots: list[int], steps: list[Step], zone: str, anchor_day: int
) -> None:
    """And the same postings, however often an account is cut off."""
    fast = Held(version_count=3, zone=zone, anchor_day=anchor_day)
    full = Held(version_count=3, zone=zone, anchor_day=anchor_day)
    for held in (fast, full):
        held.account.set_scope("red", "active", START, -1)
        for number, dollars in enumerate(lots):
            held.grant(f"lot-{number}", dollars, START - DAY)
    for step in steps:
        full.account.reprice()  # forgets the newest segment: the next event is derived anew
        assert step(fast) == step(full)
        assert encode_account(fast.account) == encode_account(full.account)
        assert fast.account.wake_us() == full.account.wake_us()


def test_a_lot_is_carried_for_usage_ahead_of_log_time_whoever_settles_it() -> None:
    """Where log time has not reached the end of a lot, and the first usage behind it has come."""
    told = []
    for is_fast in (True, False):
        held = Held()
        held.grant("l", 5, expires_us=START + HOUR, carry=Carry("l", 100, None), priority=1)
        held.grant("m", 500)
        settled = [held.account.settle(MARCH)]
        for _ in range(2):
            held.use(1, time_us=START + HOUR)
            if not is_fast:
                held.account.reprice()
            settled.append(held.account.settle(MARCH))
        told.append(settled)
    assert told[0] == told[1]


@pytest.mark.parametrize("name", ["tiered", "third"])
def test_late_events_one_behind_the_other_are_charged_by_the_full_path(name: str) -> None:
    """Behind them lies a segment in which another version of the price holds, and another lot."""
    fast, full = Held(version_count=2), Held(version_count=2)
    told = []
    for held in (fast, full):
        held.grant("l", 5)
        held.use(1, name, SECOND_VERSION)
        held.grant("m", 500, SECOND_VERSION + DAY)
        held.use(1, name, SECOND_VERSION + 2 * DAY)
        charges = []
        for units in (3, 3, 3, 9, 2):
            if held is full:
                held.account.reprice()
            charges.append((held.use(units, name), held.balance, held.account.settle(MARCH)))
        told.append(charges)
    assert told[0] == told[1]


@settings(max_examples=60)
@given(st.lists(st.integers(0, 7), min_size=20, max_size=60), st.integers(1, 60), st.integers(1, 200))
def test_no_crossing_waits_for_a_later_event(units: list[int], lot_dollars: int, percent: int) -> None:
    """The guard is never too large: each event tells what its own total has reached."""
    held = Held()
    held.grant("l", lot_dollars)
    held.account.set_cap(Cap("c", 50 * DOLLAR), START)
    held.account.set_rule("cap", Rule(CapShare("c"), percent, percent), START)
    held.account.set_rule("low", Rule(Wallet(), lot_dollars * DOLLAR // 3, lot_dollars * DOLLAR, falls=True), START)
    spent = 0
    for count in units:
        before, spent = spent, spent + count * DOLLAR
        _, crossings = held.use(count)
        expected = []
        if before * 100 < percent * 50 * DOLLAR <= spent * 100:
            expected.append("cap")
        low = lot_dollars * DOLLAR - lot_dollars * DOLLAR // 3
        if before < low <= spent:
            expected.append("low")
        assert [crossing.rule for crossing in crossings] == expected


def test_most_events_take_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, each event would walk the whole table."""
    held = Held()
    held.account.set_cap(Cap("c", 100 * DOLLAR), START)
    held.account.set_rule("cap", Rule(CapShare("c"), 100, 100), START)
    derived = 0
    full = Account._derive

    def counting(self: Account, *arguments: Any) -> Any:
        nonlocal derived
        derived += 1
        return full(self, *arguments)

    monkeypatch.setattr(Account, "_derive", counting)
    for _ in range(99):
        held.use(1)
    assert derived <= 4
    assert phases(held.use(1)[1]) == [("cap", str(MARCH), 1, "crossed")]


# ------------------------------------------------------------------------------------------------------------ charges


def test_an_event_is_charged_what_it_adds_to_its_period() -> None:
    held = Held()
    assert held.charge(60, "tiered") == 2_400 * DOLLAR
    assert held.charge(40, "tiered") == 2_000 * DOLLAR
    assert [held.charge(1, "third") for _ in range(4)] == [0, 1, 0, 0]


def test_a_line_names_the_tiers_of_its_units() -> None:
    held = Held()
    (first,), _ = held.use(5, "tiered")
    (second,), _ = held.use(50, "tiered")
    (third,), _ = held.use(1, "tiered")
    assert first.tiers == ((1, 5 * NANO),)
    assert second.tiers == ((1, 5 * NANO), (2, 40 * NANO), (3, 5 * NANO))
    assert third.tiers == ((3, NANO),)


def test_a_unit_at_the_end_of_a_tier_belongs_to_it_on_either_path() -> None:
    held = Held()
    charges = [held.charge(units, "tiered") for units in (9, 1, 0, 1)]
    assert charges == [270 * DOLLAR, 30 * DOLLAR, 0, 40 * DOLLAR]


def test_nothing_used_is_charged_nothing_and_still_rated() -> None:
    held = Held()
    assert held.charge(0) == 0
    assert (held.account.rated, held.account.derive().spend) == (1, {MARCH: 0})


def test_a_late_event_is_charged_in_its_own_period() -> None:
    held = Held()
    held.use(10, "tiered", APRIL)
    assert held.charge(10, "tiered", APRIL - 1) == 300 * DOLLAR
    assert held.account.derive().spend == {MARCH: 300 * DOLLAR, APRIL: 300 * DOLLAR}
    assert held.account.newest_event_us == APRIL


def test_cells_of_a_price_share_its_tiers() -> None:
    held = Held()
    for cell, amount in (("a", 300), ("b", 400)):
        (line,), _ = held.account.rate(START, [held.usage(START, "tiered", 10 * NANO, cell)])
        assert (line.cell, line.amount) == ((cell,), amount * DOLLAR)


def test_a_price_that_the_plan_stops_selling_leaves_the_others_alone() -> None:
    held = Held()
    held.use(3)
    held.book.publish(START + DAY, compile_catalogue(2, document(x=None)))
    held.account.reprice()
    assert held.charge(2, "y", START + 2 * DAY) == 2 * DOLLAR
    assert held.charge(2, "y", START + 2 * DAY) == 2 * DOLLAR
    assert held.account.derive().spend == {MARCH: 7 * DOLLAR}


def test_half_a_pico_that_was_carried_makes_whole_charges_alternate() -> None:
    """Exact: 1/2, 3/2, 5/2, 7/2. Half-even: 0, 2, 2, 4. Simply adding one each time would be wrong."""
    held = Held()
    held.book = PriceBook()
    prices = (per_unit("0.000000000001", "2", model="x"), per_unit("0.000000000001", model="x"))
    for version, price in enumerate(prices, start=1):
        held.book.publish(START + DAY, compile_catalogue(version, document(x=price)))
    held.account = Account("acme", "plan", "USD", "UTC", 1, START, held.book)
    assert held.charge(1) == 0
    assert [held.charge(1, time_us=START + DAY) for _ in range(4)] == [2, 0, 2, 0]


def test_a_published_version_ends_the_newest_segment() -> None:
    held = Held()
    held.use(1)
    held.book.publish(START + DAY, compile_catalogue(2, document(x=per_unit("3", model="x"))))
    held.account.reprice()
    assert [held.charge(1, time_us=START + shift_us) for shift_us in (DAY - 1, DAY, 2 * DAY)] == [
        DOLLAR,
        3 * DOLLAR,
        3 * DOLLAR,
    ]
    assert list(held.account.table) == [MARCH, START + DAY]


# ----------------------------------------------------------------------------------------------------------- segments


def test_a_segment_ends_where_a_lot_begins_or_expires() -> None:
    held = Held()
    held.grant("l", 1, START + HOUR, expires_us=START + 2 * HOUR)
    for time_us in (START, START + HOUR - 1, START + HOUR, START + 2 * HOUR - 1, START + 2 * HOUR):
        held.use(1, time_us=time_us)
    assert {start: sum(row.values()) // NANO for start, row in held.account.table.items()} == {
        MARCH: 2,
        START + HOUR: 2,
        START + 2 * HOUR: 1,
    }


def test_periods_and_months_cut_apart() -> None:
    held = Held(anchor_day=15)
    for time_us in (START, START + 10 * DAY, START + 25 * DAY, START + 40 * DAY):
        held.use(1, time_us=time_us)
    mid = [us(f"2026-0{month}-15T00:00:00+00:00") for month in (3, 4)]
    assert list(held.account.table) == [MARCH, mid[0], APRIL, mid[1]]
    assert held.account.period_of(START) == us("2026-02-15T00:00:00+00:00")
    assert held.account.month_of(START) == MARCH
    assert held.account.derive().spend == {MARCH: 2 * DOLLAR, APRIL: 2 * DOLLAR}


def test_an_account_wants_waking_at_each_boundary_of_its_lots() -> None:
    held = Held()
    assert held.account.wake_us() is None
    held.grant("a", 1, START + HOUR, expires_us=START + 3 * HOUR)
    held.grant("b", 1, START - HOUR, expires_us=START + 2 * HOUR)
    woken = []
    while (instant := held.account.wake_us()) is not None:
        woken.append((instant - START) // HOUR)
        held.account.wake(instant)
    assert woken == [1, 2, 3]


# -------------------------------------------------------------------------------------------------------------- rules


def test_a_balance_rule_tells_depletion_and_recovery() -> None:
    held = Held()
    held.grant("l", 10)
    held.account.set_rule("low", Rule(Wallet(), 2 * DOLLAR, 5 * DOLLAR, falls=True), START)
    told = [phases(held.use(units)[1]) for units in (7, 1, 1)]
    assert told == [[], [("low", "-", 1, "crossed")], []]
    assert phases(held.grant("m", 4)) == []  # 1 + 4 is not above 5; the lot is not effective yet
    assert phases(held.account.wake(START + 1)) == []
    assert phases(held.grant("n", 1, START + 2)) == []
    assert phases(held.account.wake(START + 2)) == [("low", "-", 1, "recovered")]
    assert phases(held.use(4, time_us=START + 3)[1]) == [("low", "-", 2, "crossed")]


def test_an_expiring_lot_lowers_the_balance() -> None:
    held = Held()
    held.grant("l", 10, expires_us=START + HOUR)
    held.account.set_rule("low", Rule(Wallet(), 0, 0, falls=True), START)
    (crossing,) = held.account.wake(START + HOUR)
    assert (crossing.rule, crossing.value, crossing.threshold) == ("low", 0, 0)


def test_each_month_is_a_window_of_its_own() -> None:
    held = Held()
    held.account.set_cap(Cap("c", 10 * DOLLAR), START)
    held.account.set_rule("full", Rule(CapShare("c"), 100, 100), START)
    told = [phases(held.use(units, time_us=at)[1]) for units, at in ((10, APRIL), (9, START), (1, START), (9, MAY))]
    assert told == [[("full", str(APRIL), 1, "crossed")], [], [("full", str(MARCH), 1, "crossed")], []]


def test_a_rule_set_late_tells_every_month_in_order() -> None:
    held = Held()
    held.account.set_cap(Cap("c", 10 * DOLLAR), START)
    held.use(10, time_us=APRIL)
    held.use(10)
    told = held.account.set_rule("b", Rule(CapShare("c"), 100, 100), START)
    assert [(crossing.rule, crossing.window) for crossing in told] == [("b", str(MARCH)), ("b", str(APRIL))]


def test_rules_tell_in_the_order_of_their_names() -> None:
    held = Held()
    held.account.set_cap(Cap("c", 10 * DOLLAR), START)
    for name in ("b", "a", "c"):
        held.account.set_rule(name, Rule(CapShare("c"), 100, 100), START)
    assert [crossing.rule for crossing in held.use(10)[1]] == ["a", "b", "c"]


def test_a_raised_cap_recovers_what_it_no_longer_reaches() -> None:
    held = Held()
    held.account.set_cap(Cap("c", 10 * DOLLAR), START)
    held.account.set_rule("full", Rule(CapShare("c"), 100, 100), START)
    held.use(10)
    assert phases(held.account.set_cap(Cap("c", 20 * DOLLAR), START)) == [("full", str(MARCH), 1, "recovered")]
    assert phases(held.use(10)[1]) == [("full", str(MARCH), 2, "crossed")]


# ----------------------------------------------------------------------------------------------- failure and postings


@pytest.mark.parametrize("function", ["numerator", "parts", "next_at"])
def test_a_price_that_fails_leaves_the_account_as_it_was(function: str, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    held.grant("l", 10)
    held.use(3)
    held.use(0, "tiered")
    before = encode_account(held.account)

    def fail(*_: object) -> None:
        raise ArithmeticError("broken on purpose")

    held.account.reprice()  # the guard is made anew
    with monkeypatch.context() as patch:
        patch.setattr(Curve, function, fail)
        with pytest.raises(ArithmeticError):
            held.use(20, "tiered")
    assert encode_account(held.account) == before
    assert held.charge(1) == DOLLAR
    assert held.balance == 6 * DOLLAR


def test_a_cell_too_many_is_refused_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CELLS_MAX", 3)
    held = Held()
    for cell in ("a", "b", "c"):
        held.account.rate(START, [held.usage(START, "x", NANO, cell)])
    before = encode_account(held.account)
    for time_us, cell in ((START, "d"), (APRIL, "a")):
        with pytest.raises(TooManyCells, match="account acme would hold more than 3"):
            held.account.rate(time_us, [held.usage(time_us, "x", NANO, cell)])
    assert encode_account(held.account) == before
    held.account.rate(START, [held.usage(START, "x", NANO, "c")])
    assert held.account.rated == 4


def test_postings_are_the_differences_since_the_last_ones() -> None:
    held = Held()
    held.grant("l", 10, expires_us=START + HOUR)
    held.use(3)

    def post() -> list[tuple[str, str, str, int | None, int]]:
        rows = held.account.settle(APRIL).postings
        assert {(row.account, row.posting_period_us) for row in rows} <= {("acme", APRIL)}
        return [(row.lot, row.lot_kind, row.kind, row.usage_period_us, row.amount // DOLLAR) for row in rows]

    assert post() == [("l", "paid", "grant", None, 10), ("l", "paid", "burn", MARCH, 3)]
    assert post() == []
    held.account.wake(START + HOUR)
    held.use(2, time_us=START + 2 * HOUR)
    assert post() == [("l", "paid", "expire", None, 7), ("", "", "debt", MARCH, 2)]
    held.use(4)
    assert post() == [("l", "paid", "burn", MARCH, 4), ("l", "paid", "expire", None, -4)]
    held.grant("m", 5)
    held.account.wake(START + 2 * HOUR + 1)
    assert post() == [
        ("m", "paid", "grant", None, 5),
        ("m", "paid", "burn", MARCH, 2),
        ("", "", "debt", MARCH, -2),
    ]


def test_a_cut_between_two_events_tells_when_one_lot_is_used_up() -> None:
    held = Held()
    held.grant("l", 10)
    held.grant("m", 3)

    def posted() -> list[tuple[str, str, int]]:
        found = held.account.settle(MARCH)
        assert found.balance == held.balance
        return [(row.lot, row.kind, row.amount // DOLLAR) for row in found.postings if row.kind != "grant"]

    used = []
    for units in (5, 3, 2, 0, 2, 4, 1):
        held.use(units)
        used.append(posted())
    assert used == [
        *([("l", "burn", 5)], [("l", "burn", 3)], [("l", "burn", 2)], [], [("m", "burn", 2)]),
        *([("m", "burn", 1), ("", "debt", 3)], [("", "debt", 1)]),
    ]


def test_the_spend_that_a_cut_shows_is_that_of_the_newest_month_with_usage(monkeypatch: pytest.MonkeyPatch) -> None:
    held = Held()
    held.use(3)
    held.account.reprice()  # a guard is made for the event that fails
    with monkeypatch.context() as patch:
        patch.setattr(Account, "_changed", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            held.use(11, "tiered", APRIL)
    assert held.account.settle(APRIL).spend == 3 * DOLLAR
    held.use(0, "x", APRIL)
    assert held.account.settle(APRIL).spend == 0


def test_a_burn_that_late_usage_takes_back_is_posted_with_a_minus() -> None:
    """February's late usage takes the whole lot from March, of which nothing is burnt any more."""
    held = Held(open_days=30)
    february = us("2026-02-01T00:00:00+00:00")
    held.grant("l", 10, february)
    held.use(10)
    held.account.settle(MARCH)
    held.use(10, time_us=february)
    rows = held.account.settle(MARCH).postings
    assert [(row.kind, row.usage_period_us, row.amount // DOLLAR) for row in rows] == [
        ("burn", february, 10),
        ("burn", MARCH, -10),
        ("debt", MARCH, 10),
    ]
