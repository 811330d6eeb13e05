"""The published bound of what was allowed without a hold."""

from engine.admission import Question
from engine.exposure import CHECK_VALID_US, SECOND_US, Exposure
from tests.engine.bench import DOLLAR
from tests.engine.desk_bench import DeskBench

DELAY = 60 * SECOND_US


def test_the_bound_is_the_allows_of_the_window_times_the_largest() -> None:
    exposure = Exposure()
    for second, pico in ((0, 3), (0, 5), (30, 2)):
        exposure.note("USD", pico, second * SECOND_US)
    exposure.note("EUR", 7, 30 * SECOND_US)
    assert exposure.bound(DELAY, 30 * SECOND_US) == {"USD": 15, "EUR": 7}
    assert exposure.bound(DELAY, CHECK_VALID_US + DELAY) == {"USD": 15, "EUR": 7}
    assert exposure.bound(DELAY, CHECK_VALID_US + DELAY + SECOND_US) == {"USD": 2, "EUR": 7}
    assert exposure.bound(DELAY, CHECK_VALID_US + DELAY + 31 * SECOND_US) == {}


def test_a_clock_that_was_set_back_forgets_nothing_early() -> None:
    exposure = Exposure()
    exposure.note("USD", 1, 100 * SECOND_US)
    exposure.note("USD", 2, 50 * SECOND_US)
    assert exposure.bound(DELAY, 100 * SECOND_US) == {"USD": 4}


def test_only_what_was_allowed_and_not_reserved_counts() -> None:
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    bench.hold_for("4")
    bench.leased(1)
    assert bench.refused("9", hold_us=None) is not None
    assert bench.partition.desk.unheld(bench.now) == {}
    for units in ("2", "3"):
        assert bench.refused(units, hold_us=None) is None
    assert bench.ask(Question("acme")).allowed  # nothing is to be used by it
    assert bench.partition.desk.unheld(bench.now) == {"USD": 2 * 3 * DOLLAR}
