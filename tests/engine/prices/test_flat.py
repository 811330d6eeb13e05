"""Flat amounts."""

from engine.money import NANO, PICO
from tests.engine.bench import priced

FLAT = priced([(None, 20 * PICO, NANO)], model="flat")


def test_any_use_of_a_period_owes_the_amount_once() -> None:
    assert [FLAT.owed(quantity) // PICO for quantity in (0, 1, NANO, 10**15)] == [0, 20, 20, 20]


def test_no_version_begins_inside_a_period() -> None:
    assert not FLAT.marginal
