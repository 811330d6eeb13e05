from decimal import Decimal

import pytest

from tallygate_sdk import CLOSED, OPEN, Budget, Check, Decision, FailurePolicy, Overdraft
from tallygate_sdk.policy import decided_by

ACME = Check("acme")


class Now:
    def __init__(self) -> None:
        self.s = 1_000.0

    def __call__(self) -> float:
        return self.s


@pytest.mark.parametrize(("policy", "allowed"), [(CLOSED, False), (OPEN, True)])
def test_closed_says_no_and_open_says_yes(policy: FailurePolicy, allowed: bool) -> None:
    decision = decided_by(policy, ACME, None)
    assert (decision.allowed, decision.decided_by) == (allowed, "policy")
    assert decision.reason == (None if allowed else "unavailable")


def test_what_the_service_said_last_is_told_when_the_policy_says_no() -> None:
    last = Decision(False, "recovering", transient=True)
    assert decided_by(CLOSED, ACME, last) is last
    assert decided_by(OPEN, ACME, last).allowed


def test_an_overdraft_counts_requests_unless_told_what_they_cost() -> None:
    policy = Overdraft(Budget(3, every_s=60))
    assert [policy.allows(Check("acme", n=n)) for n in (2, 2, 1, 1)] == [True, False, True, False]


def test_an_overdraft_of_money_is_exact() -> None:
    budget = Budget("0.30", every_s=60)
    policy = Overdraft(budget, cost=lambda check: Decimal("0.10"))
    assert [policy.allows(ACME) for _ in range(4)] == [True, True, True, False]
    assert not budget.take("0.000000000001") and budget.take(0)


def test_a_budget_begins_anew_with_the_first_request_behind_its_window() -> None:
    now = Now()
    budget = Budget(1, every_s=10, clock=now)
    assert budget.take(1) and not budget.take(1)
    now.s += 9.999
    assert not budget.take(1), "denials move no window"
    now.s += 5
    assert budget.take(1)
    now.s += 9.999
    assert not budget.take(1), "the window began with what was let through"


def test_nothing_can_be_put_back_by_a_negative_cost() -> None:
    budget = Budget(1, every_s=10)
    assert not budget.take(-5)
    assert budget.take(1) and not budget.take(1)
