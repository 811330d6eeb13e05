"""What segments of a period owe: rounded once, cumulatively, in time order."""

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.charges import Running, Table, by_price, foreseen, segments
from engine.money import NANO
from engine.prices.price import Price
from engine.quantity_grants import QuantityGrant, Service
from tests.engine.bench import priced

ONE = priced([(None, 6, NANO)])
THIRD = priced([(None, 1, 3 * NANO)])
TWO_TIERS = priced([(4 * NANO, 1, 3 * NANO), (None, 5, 7 * NANO)])


def amounts(table: Table, *versions: tuple[int, Price], period: int = 0) -> list[tuple[int, dict[str, int]]]:
    """(segment, pico per price) where each version is in force from its instant on."""

    def price_at(time_us: int, _: str) -> Price:
        return [price for start, price in versions if start <= time_us][-1]

    return [(start, owed) for start, _, owed, _ in segments(table, lambda _: period, price_at)]


def test_a_price_owes_for_the_sum_of_its_cells() -> None:
    assert by_price({("p", ("a",)): 2, ("q", ()): 5, ("p", ("b",)): 3}) == {"p": 5, "q": 5}


def test_segments_come_in_time_order_whatever_the_order_of_arrival() -> None:
    assert amounts({20: {("p", ()): NANO}, 10: {("p", ()): 2 * NANO}}, (0, ONE)) == [(10, {"p": 12}), (20, {"p": 6})]


def test_a_segment_owes_the_difference_of_the_running_total() -> None:
    """Two thirds of a pico, then four thirds: 1, and nothing more."""
    table: Table = {10: {("p", ()): 2 * NANO}, 20: {("p", ()): 2 * NANO}, 30: {("p", ()): NANO}}
    assert [owed["p"] for _, owed in amounts(table, (0, THIRD))] == [1, 0, 1]


def test_a_tier_reached_in_one_segment_binds_the_next() -> None:
    price = priced([(10 * NANO, 30, NANO), (None, 40, NANO)])
    table: Table = {10: {("p", ()): 10 * NANO}, 20: {("p", ()): NANO}}
    assert [owed["p"] for _, owed in amounts(table, (0, price))] == [300, 40]


def test_another_period_counts_from_nothing() -> None:
    price = priced([(10 * NANO, 30, NANO), (None, 40, NANO)])
    table: Table = {10: {("p", ()): 10 * NANO}, 20: {("p", ()): NANO}}
    found = [owed["p"] for _, _, owed, _ in segments(table, lambda start: start, lambda *_: price)]
    assert found == [300, 30]


def test_what_runs_is_told_per_period_and_price() -> None:
    table: Table = {10: {("p", ()): 2 * NANO, ("q", ()): NANO}, 20: {("p", ()): NANO}}
    *_, (_, _, _, running) = segments(table, lambda _: 5, lambda *_: THIRD)
    assert {key: (run.quantity, run.amount) for key, run in running.items()} == {
        (5, "p"): (3 * NANO, 1),
        (5, "q"): (NANO, 0),
    }


def test_a_fraction_owed_under_the_old_version_is_carried_into_the_new_one() -> None:
    """One third is owed before the change and two thirds after it: one pico, not none."""
    new = priced([(None, 2, 3 * NANO)])
    table: Table = {10: {("p", ()): NANO}, 20: {("p", ()): NANO}}
    assert [owed["p"] for _, owed in amounts(table, (0, THIRD), (20, new))] == [0, 1]


def test_a_version_that_takes_over_carries_what_rounding_left_out() -> None:
    run, two = Running(THIRD), priced([(None, 2, 3 * NANO)])
    run.add(THIRD, NANO)
    followed = run.under(two)
    assert (Fraction(*followed.exact()), followed.amount, followed.add(two, NANO)) == (Fraction(1, 3), 0, 1)
    assert (run.quantity, run.amount, run.add(THIRD, NANO)) == (NANO, 0, 1), "what it follows goes on by itself"


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 10 * NANO)), min_size=1, max_size=8),
    st.integers(1, 50),
)
def test_versions_in_turn_owe_the_sum_of_their_stretches_of_the_same_count(
    parts: list[tuple[bool, int]], amount: int
) -> None:
    """However often versions alternate, the total is the one rounding of the exact sum."""
    other = priced([(7 * NANO, amount, 11 * NANO), (None, 3, 13 * NANO)])
    run = Running(TWO_TIERS)
    exact = Fraction(0)
    used = 0
    for second, quantity in parts:
        price = other if second else TWO_TIERS
        exact += price.exact(used + quantity) - price.exact(used)
        used += quantity
        run.add(price, quantity)
    assert (run.quantity, run.amount) == (used, round(exact))


SPREAD = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=4)
STEPS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9), st.integers(1, 3)), max_size=3)


@settings(max_examples=300)
@given(SPREAD, STEPS, st.integers(0, 9), st.integers(1, 3), st.data())
def test_no_use_of_what_is_held_costs_a_segment_more_than_was_foreseen(
    spread: list[tuple[int, int]], steps: list[tuple[int, int, int]], last: int, per: int, data: st.DataObject
) -> None:
    """Rising tiers, falling ones, rates that round, and quantity grants: each segment alone stays within what was foreseen
    for it."""
    reached = 0
    tiers: list[tuple[int | None, int, int]] = []
    for length, amount, divisor in steps:
        reached += length
        tiers.append((reached, amount, divisor))
    first = priced([*tiers, (None, last, per)])
    second = priced([(None, data.draw(st.integers(0, 9)), data.draw(st.integers(1, 3)))])
    changes = data.draw(st.integers(0, 50))

    def price_at(time_us: int, _: str) -> Price:
        return second if time_us >= changes else first

    terms = st.tuples(st.integers(1, 9), st.integers(0, 30), st.integers(1, 30))
    grants = [
        QuantityGrant(str(number), "p", units, begins, begins + lasts)
        for number, (units, begins, lasts) in enumerate(data.draw(st.lists(terms, max_size=2)))
    ]
    table: Table = {10 * place: {("p", ()): used} for place, (used, _) in enumerate(spread) if used}
    held = {10 * place: {"p": reserved} for place, (_, reserved) in enumerate(spread) if reserved}
    limits = {start: owed["p"] for start, _, owed in foreseen(table, held, lambda _: 0, price_at, grants)}
    after = {start: dict(row) for start, row in table.items()}
    for start, by_name in held.items():
        row = after.setdefault(start, {})
        row["p", ()] = row.get(("p", ()), 0) + data.draw(st.integers(0, by_name["p"]))
    for start, _, owed, _ in segments(after, lambda _: 0, price_at, Service(grants)):
        assert owed["p"] <= limits[start]


def test_what_nothing_is_held_before_is_foreseen_as_it_is_rated() -> None:
    table: Table = {10: {("p", ()): 3 * NANO}, 20: {("p", ()): 2 * NANO}}
    rated = [(start, period, owed) for start, period, owed, _ in segments(table, lambda _: 0, lambda *_: TWO_TIERS)]
    assert foreseen(table, {}, lambda _: 0, lambda *_: TWO_TIERS) == rated
    full = foreseen({10: {("p", ()): 3 * NANO}}, {20: {"p": 2 * NANO}}, lambda _: 0, lambda *_: TWO_TIERS)
    assert full == rated


def test_units_behind_a_hold_are_foreseen_in_the_dearest_tier_that_it_may_leave_them() -> None:
    """Falling: 4 units of 9 pico, then free. Held before: 4. Two more units cost 18, if the hold is not used."""
    falling = priced([(4 * NANO, 9, NANO), (None, 0, 1)])
    found = foreseen({}, {10: {"p": 4 * NANO}, 20: {"p": 2 * NANO}}, lambda _: 0, lambda *_: falling)
    assert [owed["p"] for _, _, owed in found] == [36, 19]
    apart = foreseen({}, {10: {"p": 4 * NANO}, 20: {"p": 2 * NANO}}, lambda start: start, lambda *_: falling)
    assert [owed["p"] for _, _, owed in apart] == [36, 18]


@given(st.integers(0, 20), st.integers(0, 20), st.booleans())
def test_a_peek_is_what_adding_would_add(first: int, second: int, changed: bool) -> None:
    run = Running(TWO_TIERS)
    run.add(TWO_TIERS, first * NANO)
    if changed:
        run.add(THIRD, first * NANO)
    price = THIRD if changed else TWO_TIERS
    seen = run.peek(price, second * NANO)
    assert (run.add(price, second * NANO), run.add(price, 0)) == (seen, 0)
