"""Included quantity, model, maximum, discount: always in this order (law R5)."""

from fractions import Fraction

from engine.money import NANO, PICO
from engine.prices.modifiers import Modifiers
from engine.prices.price import Floor
from tests.engine.bench import priced

UNIT = [(None, PICO, NANO)]


def owed(
    units: int, *, included: int = 0, maximum: int | None = None, discount: int = 0, model: str = "per_unit"
) -> Fraction:
    around = Modifiers(included * NANO, None if maximum is None else maximum * PICO, Fraction(discount))
    return Fraction(priced(UNIT, model=model, modifiers=around).owed(units * NANO), PICO)


def test_included_units_are_not_priced() -> None:
    """1,400 calls, 1,000 of them included: 400 priced."""
    assert owed(1_400, included=1_000) == 400
    assert owed(1_000, included=1_000) == 0


def test_tiers_begin_behind_what_is_included() -> None:
    price = priced([(10 * NANO, 3 * PICO, NANO), (None, PICO, NANO)], modifiers=Modifiers(5 * NANO))
    assert [price.owed(units * NANO) // PICO for units in (5, 6, 15, 16)] == [0, 3, 30, 31]
    falling = priced([(10 * NANO, 3 * PICO, NANO), (None, PICO, NANO)], model="volume", modifiers=Modifiers(5 * NANO))
    assert [falling.owed(units * NANO) // PICO for units in (5, 15, 16)] == [0, 30, 11]


def test_the_maximum_comes_before_the_discount() -> None:
    """200 units at $1, at most $100, less 10 %: $90, not $100."""
    assert owed(200, maximum=100, discount=10) == 90
    assert owed(50, maximum=100, discount=10) == 45


def test_all_of_them() -> None:
    assert owed(350, included=100, maximum=200, discount=50) == 100
    assert owed(150, included=100, maximum=200, discount=50) == 25


def test_a_discount_of_everything_owes_nothing() -> None:
    assert owed(150, discount=100) == 0


def test_a_maximum_is_one_for_the_whole_period_so_no_version_begins_inside_it() -> None:
    assert not Modifiers(maximum=5).marginal
    assert not Modifiers(minimum=5).marginal
    assert not Modifiers(commitment=5).marginal
    assert Modifiers(NANO, None, Fraction(10)).marginal


def test_what_comes_beyond_a_commitment_counts_by_its_factor_behind_the_discount() -> None:
    """350 units at $2 less 50 % owe $350: $100 as they stand, $250 at one and a half."""
    around = Modifiers(discount=Fraction(50), commitment=100 * PICO, overage=Fraction(3, 2))
    price = priced([(None, 2 * PICO, NANO)], model="per_unit", modifiers=around)
    assert [price.owed(units * NANO) // PICO for units in (50, 100, 102, 350)] == [50, 100, 103, 475]
    assert price.floor == Floor("commitment", 100 * PICO)
    assert not price.is_even, "one tier has two rates"


def test_in_a_part_of_a_month_it_is_met_sooner() -> None:
    """Of what an account that is not there in the period is committed to, nothing is left."""
    around = Modifiers(4 * NANO, commitment=10, overage=Fraction(2))
    half, third = Fraction(1, 2), Fraction(1, 3)
    assert around.for_part(half, third) == Modifiers(2 * NANO, commitment=3, overage=Fraction(2))
    assert around.for_part(half, Fraction(0)) == Modifiers(2 * NANO, overage=Fraction(2))
    assert Modifiers(commitment=10).for_part(half, third) == Modifiers(commitment=10), "its price is the same"
