"""When a stack keeps up, and what its saturation is."""

import pytest

from loadtest.bench.arrivals import Offered
from loadtest.bench.ramp import Step, kept_up, sustained


def step(rate: float, up: bool) -> Step:
    return Step(rate, rate, up, 0.0, 0, 0, {}, {}, {}, [])


def test_a_step_keeps_up_while_its_load_is_open_and_its_lag_below_a_second() -> None:
    assert kept_up(1_000, 0.2, 1_000)
    assert not kept_up(1_000, 0.3, 0), "the load was held back: what was offered was less than it says"
    assert not kept_up(1_000, 0.0, 1_001)


def test_nor_does_it_where_a_check_is_late_or_goes_without_an_answer() -> None:
    assert kept_up(1_000, 0.0, 0, Offered(100, 0, 0.2, 1.0))
    assert not kept_up(1_000, 0.0, 0, Offered(100, 0, 0.3, 1.0))
    assert not kept_up(1_000, 0.0, 0, Offered(100, 1, 0.2, 1.0))


def test_saturation_is_the_last_rate_before_the_first_that_was_too_much() -> None:
    assert sustained([step(1, True), step(2, True), step(4, False)]) == 2
    assert sustained([step(1, True), step(2, False), step(4, True)]) == 1
    with pytest.raises(ValueError, match="start lower"):
        sustained([step(1, False)])
