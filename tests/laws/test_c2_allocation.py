"""Law C2: who pays is a function of amounts and lots: segments in time, narrowest class first, then the order of lots.

With it go C3, validity by the event's own time, and C4, debt as an account of its own that a paid lot settles."""

from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.credit import Lot, allocate
from tests.engine.bench import DAY, DOLLAR, HOUR, START, Bench, random_bench


def opened() -> Bench:
    bench = Bench()
    bench.open()
    return bench


def left(bench: Bench) -> dict[str, int]:
    return {name: pico // DOLLAR for name, pico in bench.allocation().remaining.items()}


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
@pytest.mark.parametrize("priorities", [(1, 2), (2, 1)])
@pytest.mark.parametrize(("a", "b"), [("A", "B"), ("B", "A")])
def test_a_lot_for_x_alone_and_a_lot_for_all_pay_x_and_y_in_either_order(
    order: tuple[str, str], priorities: tuple[int, int], a: str, b: str
) -> None:
    """Golden: A $10 (all), B $10 (X only); usage X $10 and Y $10 burn both and leave no debt, whatever their names."""
    bench = opened()
    bench.grant(a, "10", priority=priorities[0])
    bench.grant(b, "10", priority=priorities[1], scope=["x"])
    for model in order:
        bench.use(10, model)
    # Y has fewer payers, takes A whole, and leaves B to X.
    assert (left(bench), bench.debt()) == ({"A": 0, "B": 0}, 0)


@pytest.mark.parametrize("order", [("x", "y"), ("y", "x")])
@pytest.mark.parametrize(("first", "x_lot", "y_lot"), [("y", "b", "a"), ("x", "a", "b")])
def test_classes_of_one_size_go_in_the_order_of_their_lots(
    order: tuple[str, str], first: str, x_lot: str, y_lot: str
) -> None:
    """A lot for both goes to the class whose list of lots sorts first; the other one has its own lot, and debt."""
    bench = opened()
    bench.grant("both", "10", priority=1)
    bench.grant(x_lot, "4", priority=2, scope=["x"])
    bench.grant(y_lot, "4", priority=2, scope=["y"])
    for model in order:
        bench.use(10, model)
    own = {"x": x_lot, "y": y_lot}
    other = "y" if first == "x" else "x"
    assert left(bench) == {"both": 0, own[first]: 4, own[other]: 0}
    assert bench.debt() == 6 * DOLLAR


BY_ORDER: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "priority": ({"priority": 1}, {"priority": 2, "expires_us": START + DAY}),
    "expiry": (
        {"expires_us": START + DAY, "effective_us": START - HOUR},
        {"expires_us": START + 2 * DAY, "effective_us": START - DAY},
    ),
    "any expiry before none": ({"expires_us": START + 2 * DAY}, {}),
    "effective": ({"effective_us": START - DAY}, {"effective_us": START - HOUR}),
    "id": ({}, {}),
}


@pytest.mark.parametrize("granted_first", [0, 1])
@pytest.mark.parametrize("rule", BY_ORDER)
def test_lots_pay_in_the_order_of_the_law(rule: str, granted_first: int) -> None:
    """Priority, then earliest expiry, then earliest effective, then id: never the order of granting."""
    fields = dict(zip(("a", "b"), BY_ORDER[rule], strict=True))
    bench = opened()
    for name in ("a", "b") if granted_first == 0 else ("b", "a"):
        bench.grant(name, "10", **fields[name])
    bench.use(12)
    assert left(bench) == {"a": 0, "b": 8}


def test_a_late_event_takes_credit_back_from_a_newer_segment() -> None:
    """Segments fill in time order: what came late but happened early is paid first, and the later usage owes."""
    bench = opened()
    bench.grant("l", "10", "promo", effective_us=START - DAY)
    bench.grant("boundary", "1", "promo", effective_us=START, expires_us=START + 1, scope=["y"])
    bench.use(10, at=START + 1000)
    assert bench.debt() == 0
    bench.use(4, at=START - HOUR)
    assert (left(bench)["l"], bench.debt()) == (0, 4 * DOLLAR)
    assert bench.allocation().burnt == {("l", bench.account().period_of(START)): 10 * DOLLAR}


def test_validity_is_judged_by_the_time_of_the_event() -> None:
    """Law C3: usage before the expiry is paid by the lot, even when it comes after; usage at the expiry is not."""
    bench = opened()
    bench.grant("l", "10", "promo", expires_us=START + HOUR)
    bench.tick(START + 2 * HOUR)
    assert bench.balance() == 0
    bench.use(3, at=START + HOUR - 1)
    bench.use(4, at=START + HOUR)
    allocation = bench.allocation()
    assert sum(allocation.burnt.values()) == 3 * DOLLAR
    assert (allocation.expired["l"], bench.debt()) == (7 * DOLLAR, 4 * DOLLAR)


def test_a_paid_lot_settles_debt_when_it_becomes_effective_oldest_first() -> None:
    """Law C4: not when it is granted; and the debt of February goes before that of March."""
    bench = opened()
    bench.use(5, at=START - 20 * DAY)
    bench.use(5)
    bench.grant("topup", "7", effective_us=START + HOUR)
    assert (left(bench)["topup"], bench.debt(), bench.balance()) == (7, 10 * DOLLAR, -10 * DOLLAR)
    bench.tick(START + HOUR)
    assert (left(bench)["topup"], bench.balance()) == (0, -3 * DOLLAR)
    march = bench.account().period_of(START)
    assert bench.allocation().debt == {march: 3 * DOLLAR}


@pytest.mark.parametrize("kind", ["promo", "commit", "refund"])
def test_only_a_paid_lot_settles_debt(kind: str) -> None:
    """A gift does not pay what was used before it."""
    bench = opened()
    bench.use(5)
    bench.grant("gift", "7", kind)
    bench.tick(START + HOUR)
    assert (left(bench)["gift"], bench.debt(), bench.balance()) == (7, 5 * DOLLAR, 2 * DOLLAR)


def test_debt_is_settled_whatever_the_scope() -> None:
    """Debt is an account of its own: a lot for Y pays the debt of X, once it begins."""
    bench = opened()
    bench.use(5)
    bench.grant("only-y", "7", scope=["y"])
    bench.tick(START + HOUR)
    assert (left(bench)["only-y"], bench.debt()) == (2, 0)


def test_a_lot_does_not_reach_back_past_what_was_rated_before_it() -> None:
    """Granted for last week after this week was rated: it pays nothing of either but by settling debt."""
    bench = opened()
    bench.use(5)
    bench.grant("backdated", "7", "promo", effective_us=START - 7 * DAY)
    assert (left(bench)["backdated"], bench.debt()) == (7, 5 * DOLLAR)


LOTS = st.lists(
    st.builds(
        Lot,
        st.sampled_from(["a", "b", "c", "d"]),
        st.sampled_from(["paid", "promo"]),
        st.integers(1, 30),
        st.integers(0, 1),
        st.sampled_from([0, 10, 20]),
        st.sampled_from([None, 25, 30]),
        st.sampled_from([(), ("x",), ("y",)]),
    ),
    unique_by=lambda lot: lot.lot,
    max_size=4,
)
AMOUNTS = st.lists(st.fixed_dictionaries({"x": st.integers(0, 20), "y": st.integers(0, 20)}), min_size=4, max_size=4)


@settings(max_examples=150)
@given(LOTS, AMOUNTS, st.sampled_from([5, 15, 22, 27, 40]))
def test_the_allocation_depends_on_no_order(lots: list[Lot], amounts: list[dict[str, int]], woken: int) -> None:
    """Lots in any order of granting, prices in any order within a segment: the same remaining, burnt and debt."""
    segments = [(start, 0, by_price) for start, by_price in zip((0, 10, 20, 30), amounts, strict=True)]
    backwards = [(start, 0, dict(reversed(by_price.items()))) for start, _, by_price in segments]
    expected = allocate(segments, {lot.lot: lot for lot in lots}, woken)
    for order in permutations(lots):
        for given_segments in (segments, backwards):
            found = allocate(given_segments, {lot.lot: lot for lot in order}, woken)
            assert (found.remaining, found.burnt, found.debt) == (expected.remaining, expected.burnt, expected.debt)


@settings(max_examples=150)
@given(LOTS, AMOUNTS, st.sampled_from([5, 15, 22, 27, 40]))
def test_debt_is_left_only_where_no_lot_could_have_paid(
    lots: list[Lot], amounts: list[dict[str, int]], woken: int
) -> None:
    """A lot with money left that covers a segment and all prices leaves no debt of it."""
    segments = [(start, start, by_price) for start, by_price in zip((0, 10, 20, 30), amounts, strict=True)]
    found = allocate(segments, {lot.lot: lot for lot in lots}, woken)
    for lot in lots:
        if found.remaining[lot.lot] and not lot.scope:
            assert not [start for start in found.debt if lot.covers(start)]
        if found.remaining[lot.lot] and lot.kind == "paid" and lot.effective_us <= woken:
            assert not [start for start in found.debt if start < lot.effective_us]


# ------------------------------------------------------------------------------------------------------ who paid, told


@pytest.mark.parametrize("seed", range(20))
def test_what_segments_are_said_to_be_paid_by_adds_up_to_what_lots_have_burnt(seed: int) -> None:
    """Told for each segment on top of all usage up to it: over all of them every lot's burn and all debt, to the pico."""
    bench, _ = random_bench(seed, 120)
    for name in bench.partition.account_ids():
        account = bench.partition.account(name)
        assert account is not None
        derived = account.derive()
        burnt: dict[str, int] = {}
        owed = refunded = 0
        for place in {(start, account.period_of(start)) for start in account.table} | account.adjusted.keys():
            told = derived.paid(*place)
            assert told is not None
            charged, by_lot, debt = told
            refunded += sum(charged.values()) - sum(by_lot.values()) - debt
            owed += debt
            for lot, pico in by_lot.items():
                burnt[lot] = burnt.get(lot, 0) + pico
        allocation = derived.allocation
        total = {lot: allocation.unreturned(lot) for lot in account.lots}
        assert ({lot: burnt.get(lot, 0) for lot in total}, owed) == (total, sum(allocation.debt.values()))
        assert refunded >= 0
        given_back = [change for lot in account.lots.values() for change in lot.changes if change.kind == "refund"]
        assert given_back or not refunded
        assert derived.paid(START - 365 * DAY, account.period_of(START - 365 * DAY)) is None


def test_a_debt_that_a_later_lot_settled_is_told_as_that_lot_s() -> None:
    """$30 of usage: $10 from the lot that was there, $15 settled by the payment that came later, $5 still owed."""
    bench = opened()
    bench.grant("first", "10", "promo")
    bench.use(30)
    bench.now += HOUR
    bench.grant("payment", "15")
    account = bench.partition.account("acme")
    assert account is not None
    (start,) = account.table
    assert account.derive().paid(start, account.period_of(start)) == (
        {"x": 30 * DOLLAR},
        {"first": 10 * DOLLAR, "payment": 15 * DOLLAR},
        5 * DOLLAR,
    )
