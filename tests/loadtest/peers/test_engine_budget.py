"""Ours in the comparison with a peer: what it reserves, what it charges, and when a dead holder's money is free."""

import pytest

from loadtest.peers.engine_budget import EngineBudget

DOLLAR = 10**12


def test_a_pair_charges_what_was_used_and_leaves_nothing_held() -> None:
    ours = EngineBudget("2.50", "10", granted="1")
    token = ours.reserve("gpt-4o", 1_000, 256)
    assert token is not None
    assert ours.wallet() == (DOLLAR, 5_060_000_000)
    ours.settle(token, "gpt-4o", 1_000, 100)
    assert ours.wallet() == (996_500_000_000, 0)


def test_a_budget_that_does_not_cover_the_worst_case_is_refused() -> None:
    ours = EngineBudget("2.50", "10", granted="0.005")
    assert not ours.check("gpt-4o", 1_000, 256)
    assert ours.reserve("gpt-4o", 1_000, 256) is None
    assert ours.check("gpt-4o", 1_000, 250)
    assert ours.reserve("gpt-4o", 1_000, 250) is not None
    assert ours.reserve("gpt-4o", 1, 0) is None, "all of it is held"


def test_what_nobody_settles_is_free_again_after_a_while() -> None:
    ours = EngineBudget("2.50", "10", granted="1")
    ours.reserve("gpt-4o", 1_000, 256)
    ours.pass_time(30)
    assert ours.wallet()[1] == 5_060_000_000, "its usage may still come"
    for _ in range(200):
        ours.pass_time(1)
    assert ours.wallet() == (DOLLAR, 0)


def test_a_token_settles_once() -> None:
    ours = EngineBudget("2.50", "10", granted="1")
    token = ours.reserve("gpt-4o", 1_000, 256)
    assert token is not None
    ours.settle(token, "gpt-4o", 1_000, 256)
    ours._events -= 1  # the same event again
    with pytest.raises(AssertionError, match="duplicate"):
        ours.settle(token, "gpt-4o", 1_000, 256)
