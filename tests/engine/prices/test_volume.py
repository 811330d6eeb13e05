"""Volume, with and without fees."""

from engine.money import NANO, PICO
from tests.engine.bench import priced

TIERS = [(100 * NANO, PICO // 2, NANO), (None, 3 * PICO // 10, NANO)]


def test_the_golden_row() -> None:
    """(0,100] $0.50, (100,∞) $0.30: 100 units owe $50, 30 more take it down to $39."""
    price = priced(TIERS, model="volume")
    assert [price.owed(units * NANO) for units in (100, 130)] == [50 * PICO, 39 * PICO]


def test_all_units_have_the_fee_of_the_tier_they_reach_and_no_other() -> None:
    price = priced(TIERS, model="volume", fees=[2 * PICO, 9 * PICO])
    assert [price.owed(units * NANO) // PICO for units in (0, 100, 130)] == [0, 52, 48]


def test_no_version_begins_inside_a_period() -> None:
    assert not priced(TIERS, model="volume").marginal


def test_what_may_come_of_a_hold_is_the_dearest_quantity_on_the_way_not_the_last() -> None:
    """90 used and 60 held: 100 units would owe $50, all 150 only $45."""
    price = priced(TIERS, model="volume")
    assert price.most_owed(90 * NANO, 150 * NANO) == 50 * PICO
    assert price.most_owed(110 * NANO, 150 * NANO) == 45 * PICO
