"""What a period owes besides its usage: how much, under which name, and of what."""

from fractions import Fraction

from engine.catalog import PriceDefinition, compile_catalogue
from engine.outcomes import Line
from engine.period_lines import Due, PeriodTerms, kind_and_price, lines_between, posted_name
from tests.engine.bench import DOLLAR, document

PLAN = compile_catalogue(
    4,
    document(
        x=PriceDefinition("units", "per_unit", {"model": "x"}, "1", minimum="10"),
        y=PriceDefinition("units", "per_unit", {"model": "y"}, "1", minimum="10", prorate=False),
    ),
).plans["plan"]
X, Y = Due("minimum", "x", 4, None), Due("minimum", "y", 4, None)


def terms(part: Fraction) -> PeriodTerms:
    return PeriodTerms(0, 3, 0, PLAN, part, part)


def test_a_part_of_a_month_owes_a_part_rounded_once_unless_it_is_not_shared() -> None:
    assert terms(Fraction(1, 3)).sold == {X: (10 * DOLLAR, 3_333_333_333_333), Y: (10 * DOLLAR, 10 * DOLLAR)}
    assert terms(Fraction(2, 3)).sold[X] == (10 * DOLLAR, 6_666_666_666_667)


def test_only_what_is_missing_is_owed() -> None:
    used = {"x": 3 * DOLLAR, "y": 10 * DOLLAR}
    assert terms(Fraction(1)).owed(lambda price: used[price]) == {X: 7 * DOLLAR}


def test_lines_are_of_what_has_changed() -> None:
    lines = lines_between({X: 7, Y: 5}, {Y: 5})
    assert lines == (Line("x", (), 0, -7, (), version=4, due="minimum"),)
    assert [kind_and_price(posted_name(line)) for line in lines] == [("minimum", "x")]
    assert kind_and_price(posted_name(Line("x", (), 1, 1, ()))) == (None, "x")
