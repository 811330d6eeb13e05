"""The amount that events carry, times a factor."""

from engine.money import NANO, PICO
from tests.engine.bench import priced


def test_the_sum_of_the_amounts_is_multiplied() -> None:
    assert priced([(None, 12 * PICO // 10, NANO)], model="dynamic").owed(5 * NANO) == 6 * PICO
