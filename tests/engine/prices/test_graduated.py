"""Graduated, with and without fees."""

from engine.money import NANO, PICO
from tests.engine.bench import priced

TIERS = [(10 * NANO, 30 * PICO, NANO), (50 * NANO, 40 * PICO, NANO), (None, 50 * PICO, NANO)]


def test_the_golden_row() -> None:
    assert priced(TIERS).owed(100 * NANO) == 4_400 * PICO


def test_a_fee_is_due_once_the_quantity_is_above_the_start_of_its_tier() -> None:
    price = priced(TIERS, fees=[5 * PICO, 7 * PICO, 0])
    found = [price.owed(quantity) for quantity in (0, 1, 10 * NANO, 10 * NANO + 1)]
    assert found == [0, 5 * PICO + 30_000, 305 * PICO, 312 * PICO + 40_000]
    assert price.owed(100 * NANO) == 4_412 * PICO


def test_a_version_may_begin_inside_a_period() -> None:
    assert priced(TIERS).marginal
