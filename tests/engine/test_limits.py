"""Caps: when a percentage of one is reached, exactly. Scopes: what a path lies in. Slices: when they end."""

from hypothesis import given
from hypothesis import strategies as st

from engine.limits import ROOT, Cap, Slice, scope_path


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


def test_a_path_lies_in_all_its_prefixes_and_the_root() -> None:
    assert scope_path(ROOT) == ("",)
    assert scope_path("team:a") == ("", "team:a")
    assert scope_path("team:a/ann/laptop") == ("", "team:a", "team:a/ann", "team:a/ann/laptop")


def test_a_slice_ends_only_once_it_was_closed() -> None:
    assert Slice({"x": 1}, 60).ends_us is None
    assert Slice({"x": 1}, 60, 100).ends_us == 160
