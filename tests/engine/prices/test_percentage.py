"""Percentages of a summed field."""

from engine.money import NANO, PICO
from tests.engine.bench import priced


def test_a_percentage_is_owed_of_the_sum() -> None:
    assert priced([(None, 29 * PICO // 10, NANO)], model="percentage").owed(200 * NANO) == 58 * PICO // 10


def test_a_version_may_begin_inside_a_period() -> None:
    assert priced([(None, PICO, NANO)], model="percentage").marginal
