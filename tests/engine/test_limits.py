"""Caps: when a percentage of one is reached, exactly."""

from hypothesis import given
from hypothesis import strategies as st

from engine.limits import Cap


@given(st.integers(1, 10**30), st.integers(1, 1000))
def test_reached_is_the_smallest_spend_of_at_least_that_percentage(amount: int, percent: int) -> None:
    smallest = Cap("c", amount).reached(percent)
    assert smallest * 100 >= percent * amount
    assert (smallest - 1) * 100 < percent * amount


def test_a_percentage_between_two_pico_is_reached_at_the_upper_one() -> None:
    assert Cap("c", 1).reached(80) == 1
    assert Cap("c", 10).reached(80) == 8
    assert Cap("c", 11).reached(80) == 9


def test_a_rule_may_stand_above_its_cap() -> None:
    assert Cap("c", 10).reached(1000) == 100
