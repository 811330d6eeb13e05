"""Commands of automatic top-up: what each refuses, in which order, and that a refusal changes nothing."""

from typing import Any

import pytest

from engine.snapshot import encode_account
from engine.top_up import Terms
from tests.engine.bench import DOLLAR, SECOND, Bench
from tests.engine.precedence import assert_the_first_reason_wins

BASE: dict[str, Any] = {"threshold": "20", "amount": "50", "currency": "USD"}
# In the order of precedence.
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("unknown_account", {"account": "nobody"}),
    ("bad_amount", {"amount": "0"}),
    ("currency_mismatch", {"currency": "EUR"}),
    ("bad_top_up", {"cooldown_s": 599}),
]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.open()
    bench.grant("prepaid", "100")
    bench.use(10)
    return bench


@pytest.mark.parametrize("top", range(len(WRONG)))
def test_the_first_reason_in_order_wins_and_nothing_changes(bench: Bench, top: int) -> None:
    assert_the_first_reason_wins(bench, "set_top_up", BASE, WRONG[top:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"threshold": "low"}, "bad_amount"),
        ({"amount": "-1"}, "bad_amount"),
        ({"cooldown_s": 30 * 86_400 + 1}, "bad_top_up"),
        ({"attempts": 0}, "bad_top_up"),
        ({"attempts": 101}, "bad_top_up"),
        ({"days": 0}, "bad_top_up"),
        ({"days": 3661}, "bad_top_up"),
    ],
)
def test_what_is_out_of_range_is_refused(bench: Bench, change: dict[str, Any], reason: str) -> None:
    assert bench.command("set_top_up", **BASE | change) == f"refused.{reason}"


def test_terms_are_kept_whole_and_a_threshold_may_be_negative(bench: Bench) -> None:
    more = {"threshold": "-5", "cooldown_s": 600, "attempts": 7, "priority": -1, "days": 9}
    assert bench.command("set_top_up", **BASE | more) == "applied"
    assert bench.account().top_up.terms == Terms(-5 * DOLLAR, 50 * DOLLAR, 600 * SECOND, 7, -1, 9)


def test_an_answer_is_to_the_open_request(bench: Bench) -> None:
    assert bench.answer("topup_unheard", paid=True) == "refused.not_asked"
    bench.top_up("95", "50")
    (request,) = bench.requests()
    before = encode_account(bench.account())
    assert bench.answer("topup_unheard", paid=False) == "refused.not_asked"
    assert bench.answer(request, paid=True, account="nobody") == "refused.unknown_account"
    assert encode_account(bench.account()) == before
    assert bench.answer(request, paid=False) == "applied"
    assert bench.answer(request, paid=True) == "refused.not_asked", "it was answered"


def test_a_lot_that_took_the_id_beforehand_is_not_paid_twice(bench: Bench) -> None:
    """Ids can be foretold; then the payment fails here, and is booked under another one."""
    probe = Bench()
    probe.open()
    probe.top_up("0", "1")
    (foretold,) = probe.requests()
    bench.grant(foretold, "1")
    bench.top_up("95", "50")
    assert bench.requests() == [foretold]
    assert bench.answer(foretold, paid=True) == "refused.lot_exists"
    assert bench.answer(foretold, paid=False) == "applied"
    assert bench.account().lots[foretold].granted == DOLLAR


@pytest.mark.parametrize("kind", ["set_top_up", "answer_top_up", "remove_top_up"])
def test_a_field_that_is_missing_or_unknown_is_a_bad_control(bench: Bench, kind: str) -> None:
    assert bench.command(kind, surprise=1) == "dead_lettered.bad_control"
    if kind != "remove_top_up":
        assert bench.command(kind) == "dead_lettered.bad_control"


def test_terms_can_be_removed_once(bench: Bench) -> None:
    assert bench.command("remove_top_up") == "refused.no_top_up"
    bench.top_up("20", "50")
    assert bench.command("remove_top_up") == "applied"
    assert bench.account().top_up.terms is None
