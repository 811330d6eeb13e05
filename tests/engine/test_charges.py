"""What segments of a period owe: rounded once, cumulatively, in time order."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.charges import Running, Table, by_price, segments
from engine.money import NANO
from engine.prices import Price, compile_price

ONE = compile_price("p", "m", {}, [(None, 6, NANO)])
THIRD = compile_price("p", "m", {}, [(None, 1, 3 * NANO)])
TWO_TIERS = compile_price("p", "m", {}, [(4 * NANO, 1, 3 * NANO), (None, 5, 7 * NANO)])


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
    price = compile_price("p", "m", {}, [(10 * NANO, 30, NANO), (None, 40, NANO)])
    table: Table = {10: {("p", ()): 10 * NANO}, 20: {("p", ()): NANO}}
    assert [owed["p"] for _, owed in amounts(table, (0, price))] == [300, 40]


def test_another_period_counts_from_nothing() -> None:
    price = compile_price("p", "m", {}, [(10 * NANO, 30, NANO), (None, 40, NANO)])
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
    new = compile_price("p", "m", {}, [(None, 2, 3 * NANO)])
    table: Table = {10: {("p", ()): NANO}, 20: {("p", ()): NANO}}
    assert [owed["p"] for _, owed in amounts(table, (0, THIRD), (20, new))] == [0, 1]


def test_an_amount_is_whole_only_when_no_fraction_waits_for_the_next_unit() -> None:
    run = Running(THIRD)
    wholes = []
    for _ in range(4):
        wholes.append(run.whole)
        run.add(THIRD, NANO)
    assert wholes == [True, False, False, True]


@given(
    st.lists(st.tuples(st.booleans(), st.integers(0, 10 * NANO)), min_size=1, max_size=8),
    st.integers(1, 50),
)
def test_versions_in_turn_owe_the_sum_of_their_stretches_of_the_same_count(
    parts: list[tuple[bool, int]], amount: int
) -> None:
    """However often versions alternate, the total is the one rounding of the exact sum."""
    other = compile_price("p", "m", {}, [(7 * NANO, amount, 11 * NANO), (None, 3, 13 * NANO)])
    run = Running(TWO_TIERS)
    exact = Fraction(0)
    used = 0
    for second, quantity in parts:
        price = other if second else TWO_TIERS
        exact += Fraction(price.numerator(used + quantity) - price.numerator(used), price.denominator)
        used += quantity
        run.add(price, quantity)
    assert (run.quantity, run.amount) == (used, round(exact))
