"""Whole parts of a whole amount."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.cost.split import largest_remainder


def test_the_largest_remainders_have_what_the_floors_leave() -> None:
    assert largest_remainder(10, [1, 1, 1]) == [4, 3, 3]
    assert largest_remainder(10, [1, 2, 4]) == [1, 3, 6]  # 1.43, 2.86, 5.71: two are left
    assert largest_remainder(0, [0, 5]) == [0, 0]
    assert largest_remainder(7, [0, 5, 0]) == [0, 7, 0]


@given(st.integers(0, 10**18), st.lists(st.integers(0, 1 << 60), min_size=1, max_size=50).filter(any))
def test_it_sums_to_the_amount_and_no_part_is_off_by_a_whole_one(amount: int, weights: list[int]) -> None:
    parts = largest_remainder(amount, weights)
    assert sum(parts) == amount
    total = sum(weights)
    assert all(abs(part - Fraction(amount * weight, total)) < 1 for part, weight in zip(parts, weights, strict=True))
