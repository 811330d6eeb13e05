"""Steps."""

from engine.money import NANO, PICO
from tests.engine.bench import priced

STEPS = priced([(100 * NANO, 10 * PICO, NANO), (500 * NANO, 25 * PICO, NANO), (None, 60 * PICO, NANO)], model="step")


def test_a_step_owes_the_amount_of_the_tier_reached() -> None:
    found = [STEPS.owed(quantity) // PICO for quantity in (0, 1, 100 * NANO, 100 * NANO + 1, 500 * NANO, 9_000 * NANO)]
    assert found == [0, 10, 10, 25, 25, 60]


def test_no_version_begins_inside_a_period() -> None:
    assert not STEPS.marginal
