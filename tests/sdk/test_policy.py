from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


def test_a_budget_has_room_again_when_what_it_let_through_is_so_long_ago() -> None:
    now = Now()
    budget = Budget(1, every_s=10, clock=now)
    assert budget.take(1) and not budget.take(1)
    now.s += 9.999
    assert not budget.take(1), "denials move nothing"
    now.s += 5
    assert budget.take(1)
    now.s += 9.999
    assert not budget.take(1)


@given(st.lists(st.tuples(st.floats(0, 7), st.integers(0, 4)), max_size=300))
def test_no_window_lets_through_more_than_its_budget(steps: list[tuple[float, int]]) -> None:
    now = Now()
    budget = Budget(10, every_s=10, clock=now)
    let_through: list[tuple[float, int]] = []
    for pause_s, amount in steps:
        now.s += pause_s
        recent = sum(each for at_s, each in let_through if at_s + 10 > now.s)
        lately = sum(each for at_s, each in let_through if at_s + 10.2 > now.s)
        if budget.take(amount):
            assert recent + amount <= 10
            let_through.append((now.s, amount))
        else:
            assert lately + amount > 10, "and no less, but for a hundredth of the time"


def test_a_budget_remembers_no_more_for_many_small_amounts() -> None:
    now = Now()
    budget = Budget(10**6, every_s=10, clock=now)
    for _ in range(5_000):
        now.s += 0.01
        assert budget.take(1)
    assert len(budget._taken) <= 101


def test_nothing_can_be_put_back_by_a_negative_cost() -> None:
    budget = Budget(1, every_s=10)
    assert not budget.take(-5)
    assert budget.take(1) and not budget.take(1)
