"""What a minute counts, and which limit is named. The laws of rates stand in tests/laws/test_l2_caps.py."""

from engine.holds import Bound
from engine.limits import RateLimit
from engine.money import NANO
from engine.rates import Pace, TooFast, counted_by
from tests.engine.bench import SECOND, priced

CALLS = RateLimit("calls", "", 2)
UNITS = RateLimit("units", "", 10, "m")


def test_of_several_limits_the_one_that_is_waited_for_longest_is_named() -> None:
    pace = Pace()
    pace.count([(CALLS, 1), (UNITS, 4 * NANO)], 0)
    pace.count([(CALLS, 1), (UNITS, 4 * NANO)], 30 * SECOND)
    now = 40 * SECOND
    assert pace.refusal([(CALLS, 1), (UNITS, 5 * NANO)], now) == TooFast(CALLS, 0, 21 * SECOND)
    assert pace.refusal([(CALLS, 1), (UNITS, 7 * NANO)], now) == TooFast(UNITS, 2 * NANO, 51 * SECOND)
    assert pace.refusal([(UNITS, 2 * NANO)], now) is None


def test_what_never_fits_is_named_before_what_may() -> None:
    pace = Pace()
    pace.count([(CALLS, 2)], 0)
    assert pace.refusal([(UNITS, 11 * NANO), (CALLS, 1)], 0) == TooFast(UNITS, 10 * NANO, None)
    assert pace.refusal([(CALLS, 1), (UNITS, 11 * NANO)], 0) == TooFast(UNITS, 10 * NANO, None)


def test_a_limit_that_counts_something_else_begins_anew() -> None:
    pace = Pace()
    pace.count([(CALLS, 2)], 0)
    assert pace.refusal([(RateLimit("calls", "", 2, "m"), NANO)], 0) is None
    assert pace.refusal([(CALLS, 1)], 0) is not None


def test_a_minute_that_has_passed_is_idle() -> None:
    pace = Pace()
    pace.count([(UNITS, NANO)], 0)
    assert not pace.idle(61 * SECOND - 1)
    assert pace.idle(61 * SECOND)


def test_a_request_counts_once_or_by_the_bounds_that_reach_the_meter() -> None:
    prices = {"p": priced([(None, 1, 1)])}  # of the meter m
    bounds = [Bound(3 * NANO, ("p", "q"), ("p",)), Bound(5 * NANO, ("q",), ("q",))]
    assert counted_by(CALLS, bounds, prices) == 1
    assert counted_by(CALLS, bounds, prices, is_request=False) == 0
    assert counted_by(UNITS, bounds, prices) == counted_by(UNITS, bounds, prices, is_request=False) == 3 * NANO
