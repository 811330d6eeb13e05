"""A top-up by itself: when a request is due, what an answer makes of it, and what is told."""

import hashlib

from engine.credit import UNBOUNDED
from engine.top_up import NONE, Terms, TopUp, request, request_id

TERMS = Terms(threshold=20, amount=50, cooldown_us=600, attempts=2)


def test_without_terms_nothing_is_due_at_any_balance() -> None:
    assert NONE.after(-(10**40), 5) is NONE
    assert (NONE.due_us, NONE.wakes_us(0), NONE.room(-5)) == (None, None, UNBOUNDED)


def test_it_asks_at_the_threshold_and_once() -> None:
    high = TopUp(TERMS).after(21, 100)
    assert (high.ordinal, high.low, high.room(21)) == (0, False, 1)
    low = high.after(20, 100)
    assert (low.ordinal, low.asked, low.since_us, low.room(20)) == (1, TERMS, 100, UNBOUNDED)
    assert low.after(-100, 10**9).ordinal == 1


def test_behind_an_answer_it_waits_for_the_cool_down() -> None:
    failed = TopUp(TERMS).after(0, 100).answered(paid=False, now_us=300)
    assert (failed.failed, failed.due_us, failed.wakes_us(899), failed.wakes_us(900)) == (1, 900, 900, None)
    assert failed.after(0, 899).ordinal == 1
    assert failed.after(0, 900).ordinal == 2


def test_as_many_failures_as_it_may_have_end_it_until_the_balance_was_higher() -> None:
    top_up = TopUp(TERMS)
    for now_us in (1000, 3000):
        top_up = top_up.after(0, now_us).answered(paid=False, now_us=now_us)
    assert (top_up.failed, top_up.due_us) == (2, None)
    assert top_up.after(0, 10**9).ordinal == 2
    assert top_up.after(21, 10**9).after(0, 10**9).ordinal == 3


def test_a_paid_request_begins_the_count_anew() -> None:
    top_up = TopUp(TERMS, ordinal=4, failed=1, asked=TERMS, low=True).answered(paid=True, now_us=7)
    assert (top_up.failed, top_up.asked, top_up.due_us) == (0, None, 607)


def test_a_request_is_told_with_what_it_asks_for() -> None:
    asked = TopUp(TERMS, failed=1, low=True).after(-3, 5)
    told = request("acme", asked, -3)
    assert (told.value, told.threshold, told.amount, told.attempt, told.ordinal) == (-3, 20, 50, 2, 1)
    text = "\0".join(["acme", "top_up", "request", "1", "requested"])
    expected = "topup_" + hashlib.sha256(text.encode()).hexdigest()[:32]
    assert told.alert_id == request_id("acme", 1) == expected
