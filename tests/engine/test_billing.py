"""The command that bills an account before or behind what it uses: what it refuses, in which order, and what it sets."""

from typing import Any

import pytest

from engine.snapshot import encode_account
from tests.engine.bench import DOLLAR, Bench
from tests.engine.precedence import assert_the_first_reason_wins

BASE: dict[str, Any] = {"billing": "postpaid", "credit_limit": "5", "currency": "USD"}
# In the order of precedence.
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("unknown_account", {"account": "nobody"}),
    ("bad_amount", {"credit_limit": "-1"}),
    ("currency_mismatch", {"currency": "EUR"}),
    ("bad_billing", {"billing": "later"}),
]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.open()
    bench.use(10)
    return bench


@pytest.mark.parametrize("top", range(len(WRONG)))
def test_the_first_reason_in_order_wins_and_nothing_changes(bench: Bench, top: int) -> None:
    assert_the_first_reason_wins(bench, "set_billing", BASE, WRONG[top:])


def test_a_prepaid_account_has_no_credit_limit(bench: Bench) -> None:
    before = encode_account(bench.account())
    assert bench.command("set_billing", **(BASE | {"billing": "prepaid"})) == "refused.bad_billing"
    assert encode_account(bench.account()) == before


def test_the_credit_limit_is_the_overdraft(bench: Bench) -> None:
    for limit, overdraft in (("5", 5 * DOLLAR), (None, None)):
        assert bench.command("set_billing", **(BASE | {"credit_limit": limit})) == "applied"
        assert (bench.account().postpaid, bench.account().overdraft) == (True, overdraft)
    assert bench.command("set_billing", billing="prepaid", currency="USD") == "applied"
    assert (bench.account().postpaid, bench.account().overdraft) == (False, 0)
