"""Per unit."""

from engine.money import NANO, PICO
from tests.engine.bench import priced


def test_a_hundred_units_at_fifty_dollars() -> None:
    assert priced([(None, 50 * PICO, NANO)], model="per_unit").owed(100 * NANO) == 5_000 * PICO


def test_a_part_of_a_unit_owes_its_part() -> None:
    assert priced([(None, 3 * PICO, 2 * NANO)], model="per_unit").owed(NANO // 2) == 3 * PICO // 4
