"""What several prices share: an allowance, tiers."""

from fractions import Fraction

from engine.prices.shared import Shared

CALLS = Shared("calls", ("a", "b", "c"), 100)


def test_units_lie_behind_those_of_the_prices_before() -> None:
    """In the order of the tiers, whatever order they are told in; what is not used takes no room."""
    assert list(CALLS.begins({"c": 50, "a": 30})) == [("a", 0), ("b", 30), ("c", 30)]
    assert list(Shared("calls", ("a", "b"), by_sum=True).begins({"a": 30, "b": 5})) == [("a", 0), ("b", 0)]


def test_a_part_of_a_month_has_its_part_fixed_half_even() -> None:
    """Of 100 nano-units an eighth is 12.5, so 12; one that does not prorate keeps all."""
    assert CALLS.for_part(Fraction(1, 8)).free == 12
    assert Shared("calls", ("a", "b"), 100, prorates=False).for_part(Fraction(1, 8)).free == 100


def test_who_is_moved_by_a_price() -> None:
    """Those behind it; of a sum, all."""
    assert CALLS.behind("b") == ("c",)
    assert Shared("calls", ("a", "b"), by_sum=True).behind("b") == ("a", "b")
