"""Law C5: a top-up has a threshold, an amount, an in-flight guard, a cool-down and an attempt limit; it asks, the payment
answers."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.bench import DAY, DOLLAR, HOUR, MINUTE, START, Bench, RandomLog, Store, versions


def opened(**terms: Any) -> Bench:
    """$100, and $50 more is asked for at $20."""
    bench = Bench()
    bench.open()
    bench.grant("prepaid", "100")
    assert bench.top_up("20", "50", **terms) == "applied"
    return bench


def test_credit_is_asked_for_at_the_threshold_and_not_a_pico_above() -> None:
    """At or below: as for a balance rule."""
    bench = opened()
    bench.use("79.999999999")
    assert bench.requests() == []
    bench.use("0.000000001")
    (row,) = bench.partition.outputs.alerts
    body = json.loads(row.body)
    assert (body["id"], body["type"]) == (row.alert_id, "top_up.requested")
    told = {name: body["data"][name] for name in ("account", "amount", "threshold", "value", "currency", "attempt")}
    assert told == {
        "account": "acme",
        "amount": "50",
        "threshold": "20",
        "value": "20",
        "currency": "USD",
        "attempt": 1,
    }


def test_terms_that_find_the_balance_low_ask_at_once() -> None:
    """Nobody has to use something first."""
    bench = Bench()
    bench.open()
    bench.top_up("0", "50")
    assert len(bench.requests()) == 1


def test_one_request_for_one_crossing_however_many_events_cross() -> None:
    """The open request is the guard: nothing is asked for until it is answered, however long that takes."""
    bench = opened()
    for _ in range(20):
        bench.use(10)
    bench.now += 40 * DAY
    bench.use(10)
    bench.tick(bench.now + DAY)
    assert len(bench.requests()) == 1


def test_a_paid_request_is_one_lot_of_its_id_and_settles_debt() -> None:
    """Exactly once: whoever answers again is told that nothing is asked."""
    bench = opened(days=365, priority=7)
    bench.use(130)
    (request,) = bench.requests()
    assert bench.answer(request, paid=True) == "applied"
    lot = bench.account().lots[request]
    assert (lot.kind, lot.granted, lot.priority) == ("paid", 50 * DOLLAR, 7)
    assert lot.effective_us == bench.account().newest_event_us + 1
    assert lot.expires_us == lot.effective_us + 365 * DAY
    bench.tick(bench.now + MINUTE)
    assert (bench.balance(), bench.debt()) == (20 * DOLLAR, 0)
    for paid in (True, False):
        assert bench.answer(request, paid=paid) == ("refused.lot_exists" if paid else "refused.not_asked")
    assert bench.balance() == 20 * DOLLAR


def test_the_lot_is_what_was_asked_for_whatever_the_terms_became() -> None:
    """The payment was of that amount."""
    bench = opened()
    bench.use(90)
    bench.top_up("20", "500", days=1)
    (request,) = bench.requests()
    bench.answer(request, paid=True)
    assert (bench.account().lots[request].granted, bench.account().lots[request].expires_us) == (50 * DOLLAR, None)


def test_nothing_is_asked_for_within_the_cool_down() -> None:
    """Behind a request, and behind its answer. Then it is asked for by the passing of time alone."""
    bench = opened(cooldown_s=3600)
    bench.use(90)
    bench.now += 10 * MINUTE
    bench.answer(bench.requests()[0], paid=True)
    bench.now += MINUTE
    bench.use(45)
    assert len(bench.requests()) == 1, "$15 are left, and the last answer is a minute old"
    due_us = START + 70 * MINUTE
    assert bench.partition.next_wake_us() == due_us
    bench.tick(due_us - MINUTE)
    assert len(bench.requests()) == 1
    bench.tick(due_us)
    assert len(bench.requests()) == 2


def test_what_fails_is_tried_again_behind_the_cool_down_up_to_the_limit() -> None:
    """The third in a row that fails is the last, until the balance was above the threshold, or the terms are set again."""
    bench = opened(attempts=3, cooldown_s=600)
    bench.use(90)
    attempts = []
    for _ in range(5):
        attempts.append(len(bench.requests()))
        bench.answer(bench.requests()[-1], paid=False)
        bench.tick(bench.now + HOUR)
    assert attempts == [1, 2, 3, 3, 3]
    bodies = [json.loads(row.body)["data"] for row in bench.partition.outputs.alerts]
    assert [(body["ordinal"], body["attempt"]) for body in bodies] == [(1, 1), (2, 2), (3, 3)]
    bench.grant("by-hand", "30")
    bench.use(30)
    assert len(bench.requests()) == 4, "it had recovered"
    for _ in range(3):
        bench.answer(bench.requests()[-1], paid=False)
        bench.tick(bench.now + HOUR)
    assert len(bench.requests()) == 6
    bench.top_up("20", "50", attempts=1, cooldown_s=600)
    assert len(bench.requests()) == 7


def test_no_terms_ask_for_nothing_and_an_open_request_can_still_be_answered() -> None:
    """Money that was taken is credit."""
    bench = opened()
    bench.use(90)
    assert bench.command("remove_top_up") == "applied"
    assert bench.command("remove_top_up") == "refused.no_top_up"
    assert bench.answer(bench.requests()[0], paid=True) == "applied"
    bench.use(100)
    bench.tick(bench.now + 40 * DAY)
    assert len(bench.requests()) == 1
    assert set(bench.account().lots) == {"prepaid", *bench.requests()}


def test_an_ordinal_outlives_the_terms() -> None:
    """No id is ever used for two requests."""
    bench = opened(cooldown_s=600)
    for _ in range(3):
        bench.use(100)
        bench.answer(bench.requests()[-1], paid=True)
        bench.command("remove_top_up")
        bench.now += HOUR
        bench.top_up("20", "50", cooldown_s=600)
    assert len(set(bench.requests())) == len(bench.requests()) >= 3


def test_the_id_of_an_open_request_is_no_lot_of_anybody_else() -> None:
    """Else its payment would find its own id taken."""
    bench = opened()
    bench.use(90)
    (request,) = bench.requests()
    assert bench.grant(request, "1") == "refused.lot_exists"
    assert bench.answer(request, paid=True) == "applied"


def test_the_fast_path_asks_where_the_full_path_would() -> None:
    """Many small events: the one that reaches the threshold, and no other, asks."""
    bench = opened()
    asked = []
    for _ in range(90):
        bench.use(1)
        asked.append(len(bench.requests()))
    assert asked == [0] * 79 + [1] * 11


@settings(max_examples=10)
@given(st.integers(0, 10**9), st.integers(1, 6))
def test_requests_are_a_function_of_the_log(seed: int, takeovers: int) -> None:
    """Whoever folds the log, from wherever, asks for the same with the same id, once; every paid one is one lot."""
    source = random.Random(seed)
    bench = Bench(*versions())
    log = RandomLog(bench, source, stride_us=3 * HOUR)
    for _ in range(150):
        log.step()
    for account in log.accounts:
        bench.top_up("100000", "10", account)
    told = {row.alert_id: row.body for row in bench.partition.outputs.alerts if row.alert_id.startswith("topup_")}
    assert len(told) == sum(bench.account(name).top_up.ordinal for name in log.accounts)
    partition, store = bench.fresh(), Store()
    again: dict[str, bytes] = {}
    ends = sorted(source.randrange(len(bench.log)) for _ in range(takeovers))
    for row in bench.log:
        partition.apply(*row)
        if row.offset in ends:
            for alert in partition.outputs.alerts:
                assert again.setdefault(alert.alert_id, alert.body) == alert.body
            store.checkpoint(partition)
            partition = store.load_into(bench.fresh())
    again |= {row.alert_id: row.body for row in partition.outputs.alerts}
    assert {name: body for name, body in again.items() if name.startswith("topup_")} == told
    assert partition.state_bytes() == bench.partition.state_bytes()


@pytest.mark.parametrize("seed", range(4))
def test_no_two_requests_are_open_and_none_comes_within_a_cool_down(seed: int) -> None:
    """Over random usage and random answers: between two requests lie an answer and the cool-down."""
    source = random.Random(seed)
    bench = Bench()
    bench.open()
    bench.top_up("20", "30", cooldown_s=1800, attempts=3)
    quiet_until, failed, is_open = 0, 0, True
    for _ in range(300):
        before = len(bench.requests())
        if is_open and source.random() < 0.3:
            paid = source.random() < 0.5
            assert bench.answer(bench.requests()[-1], paid=paid) == "applied"
            failed, is_open, quiet_until = 0 if paid else failed + 1, False, bench.now + 1800 * 1_000_000
        elif source.random() < 0.2:
            bench.grant(f"by-hand-{len(bench.log)}", "40")
        else:
            bench.use(source.randrange(18))
        failed = failed if bench.balance() <= 20 * DOLLAR else 0
        if len(bench.requests()) > before:
            assert len(bench.requests()) == before + 1 and not is_open and failed < 3
            assert bench.now >= quiet_until
            is_open, quiet_until = True, bench.now + 1800 * 1_000_000
        bench.now += source.randrange(20 * MINUTE)
    assert len(bench.requests()) > 5
