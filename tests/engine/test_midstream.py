"""A running stream: extended from what it has used in all, told to stop or to take a cheaper model at depletion, and settled
to the token. The laws are those of holds (L3, L4)."""

from collections.abc import Mapping
from typing import Any

import pytest

from engine.admission import FieldBound
from engine.events import parse_usage
from engine.holds import Hold, seal_token
from engine.midstream import Covered, Running
from engine.money import NANO
from engine.outcomes import DeadLetter, DeadLetterReason
from engine.reasons import Reason
from tests.engine.bench import DOLLAR, KEY, MINUTE, SECOND, cloud_event, document, per_unit
from tests.engine.desk_bench import DeskBench, nano


def rich(dollars: str = "10") -> DeskBench:
    """A unit of x costs $1, one of y $2."""
    bench = DeskBench(document(y=per_unit("2", model="y")))
    bench.open()
    bench.grant("l", dollars)
    return bench


def meter(
    bench: DeskBench,
    hold: Hold,
    used: str,
    ahead: str = "2",
    cheaper: tuple[Mapping[str, str], ...] = (),
    ttl_us: int = MINUTE,
    **event: Any,
) -> Running:
    body = {"data": {"model": "y", "units": used}, "hold": seal_token(KEY, hold)} | event
    said = parse_usage(cloud_event("stream", bench.now, **body))
    bounds = (FieldBound(("units",), nano(ahead)),)
    for _ in range(5):
        answer = bench.partition.carry_on(hold, said, bounds, ttl_us, cheaper, bench.now)
        if isinstance(answer, Running):
            return answer
        assert answer is not None
        bench.write(answer)
    raise AssertionError("slices without end")


def test_what_the_hold_covers_needs_no_extension_but_of_time() -> None:
    bench = rich()
    hold = bench.hold_for("3", "y")
    bench.wait(30 * SECOND)
    told = meter(bench, hold, "1")
    assert (told.action, told.covered) == ("continue", (Covered(("units",), 2 * NANO),))
    assert told.decision.hold is not None
    assert told.decision.hold.valid_until_us > hold.valid_until_us
    assert told.decision.price == 0


def test_what_it_does_not_cover_is_a_new_admission_of_just_that() -> None:
    """Of the 3 units 2.5 are used; 2 are ahead, so 1.5 more are held."""
    bench = rich()
    hold = bench.hold_for("3", "y")
    told = meter(bench, hold, "2.5")
    assert (told.action, told.covered) == ("continue", (Covered(("units",), 2 * NANO),))
    assert told.decision.hold is not None
    assert told.decision.hold.bounds[0].quantity == nano("4.5")
    assert told.decision.price == 3 * DOLLAR
    again = meter(bench, hold, "2.5")  # asked again, with the old token: nothing more is held
    assert again.decision.hold is not None
    assert again.decision.hold.bounds[0].quantity == nano("4.5")
    bench.spend_held(told.decision.hold, "4.1", "y")
    assert bench.wallet() == (1_800_000_000_000, 0)


def test_at_depletion_it_stops_with_what_is_covered() -> None:
    bench = rich("7")
    hold = bench.hold_for("3", "y")
    told = meter(bench, hold, "2.25")
    assert (told.action, told.covered, told.alternative) == ("stop", (Covered(("units",), nano("0.75")),), None)
    assert told.decision.reason is Reason.CREDIT_DEPLETED
    bench.spend_held(hold, 3, "y")
    assert bench.wallet() == (DOLLAR, 0)
    assert bench.debt() == 0


def test_the_first_alternative_that_the_account_can_bear_is_named_and_counts_nowhere() -> None:
    """$2 are left beside the hold."""
    bench = rich("8")
    bench.command("set_rate_limit", limit="two", per_minute=2)
    hold = bench.hold_for("3", "y")
    told = meter(bench, hold, "3", "2", ({"model": "y"}, {"model": "unheard"}, {"model": "x"}))
    assert (told.action, told.alternative) == ("cheaper", {"model": "x"})
    assert told.covered == (Covered(("units",), 0),)
    assert bench.partition.desk.unheld(bench.now) == {}
    assert bench.refused("2", "x") is None  # the second of two a minute
    assert meter(bench, hold, "3", "3", ({"model": "x"},)).action == "stop"


def test_a_cumulative_event_draws_while_it_goes_on_and_the_last_settles_exactly() -> None:
    bench = rich()
    hold = bench.hold_for("2", "y")
    bench.spend_held(hold, 1, "y", final=False)
    told = meter(bench, hold, "1.5")
    assert told.decision.hold is not None
    assert bench.wallet() == (8 * DOLLAR, 5 * DOLLAR)  # 3.5 units in all, of which one is drawn
    bench.spend_held(told.decision.hold, "1.25", "y")
    assert bench.wallet() == (5_500_000_000_000, 0)


def test_after_a_crash_what_was_admitted_still_runs_and_no_more_is_given() -> None:
    bench = rich()
    hold = bench.hold_for("3", "y")
    bench.take_over()
    told = meter(bench, hold, "1")
    assert (told.action, told.covered) == ("continue", (Covered(("units",), 2 * NANO),))
    assert told.decision.reason is Reason.HOLD_NOT_OPEN
    assert meter(bench, hold, "2").action == "stop"
    bench.now = hold.valid_until_us
    assert meter(bench, hold, "1").action == "stop"


def test_an_event_that_could_not_be_rated_is_refused() -> None:
    bench = rich()
    hold = bench.hold_for("3", "y")
    for event, reason in (
        ({"seq": 1}, DeadLetterReason.BAD_STREAM),
        ({"type": "unheard"}, DeadLetterReason.NO_METER),
        ({"data": {"model": "y"}}, DeadLetterReason.BAD_QUANTITY),
        ({"data": {"model": "unheard", "units": 1}}, DeadLetterReason.NO_PRICE),
    ):
        with pytest.raises(DeadLetter) as refused:
            meter(bench, hold, "1", **event)
        assert refused.value.reason is reason


def test_what_the_hold_does_not_know_costs_nothing_and_nobody_is_told_nothing() -> None:
    bench = rich()
    hold = bench.hold_for("3", "y")
    said = parse_usage(cloud_event("stream", bench.now, data={"model": "y", "units": 1}))
    ahead = (FieldBound(("other",), 99 * NANO),)
    told = bench.partition.carry_on(hold, said, ahead, MINUTE, (), bench.now)
    assert isinstance(told, Running)
    assert told.action == "continue"
    assert DeskBench().partition.carry_on(hold, said, ahead, MINUTE, (), bench.now) is None
