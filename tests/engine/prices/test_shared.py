"""Allowances that several prices share."""

from fractions import Fraction

from engine.prices.shared import Allotment, Shared

CALLS = Shared("calls", 100, ("a", "b", "c"))


def test_each_price_has_what_those_before_it_leave() -> None:
    """In the order of the allowance, whatever order they are told in."""
    assert CALLS.allotted({"c": 50, "a": 30, "b": 60}) == {"a": 30, "b": 60, "c": 10}
    assert CALLS.allotted({"c": 50}) == {"c": 50}


def test_a_part_of_a_month_has_its_part_fixed_half_even() -> None:
    """Of 100 nano-units an eighth is 12.5, so 12; one that does not prorate keeps all."""
    assert CALLS.for_part(Fraction(1, 8)).quantity == 12
    assert Shared("calls", 100, ("a", "b"), prorates=False).for_part(Fraction(1, 8)).quantity == 100


def test_the_first_units_in_time_are_served() -> None:
    """As many as the whole period allots, each period for itself."""
    allotment = Allotment()
    for period, price, quantity in ((1, "b", 50), (1, "b", 60), (1, "a", 30), (2, "b", 5)):
        allotment.count(period, CALLS, price, quantity)
    assert [allotment.take(*each) for each in ((1, "b", 50), (1, "a", 30), (1, "b", 60), (2, "b", 5))] == [
        50,
        30,
        20,
        5,
    ]


def test_who_is_served_before_and_behind_a_price() -> None:
    """Itself before, and not behind."""
    assert list(CALLS.up_to("b")) == ["a", "b"]
    assert CALLS.behind("b") == ("c",)
