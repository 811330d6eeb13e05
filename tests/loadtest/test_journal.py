"""What the callers saw, held against what was rated: every way to differ is a sentence."""

from dataclasses import replace

import pytest

from loadtest.journal import CheckAnswer, Decided, Journal, Sent, judge_denials, judge_usage, overspend
from loadtest.oracle.accounts import OracleAccount, Rated

SOURCE = "run-gateway-1"


def answer(allowed: bool, reason: str | None = None, **figures: int | None) -> CheckAnswer:
    given: dict[str, int | None] = {"price": 10, "booked": 8, "held": 3, "available": 5, "overdraft": 0}
    given.update(figures)
    return CheckAnswer(
        allowed, reason, False, None, given["price"], given["booked"], given["held"], given["available"],
        given["overdraft"], 0, 1, 7, "0.1.1" if allowed else None, "token" if allowed else None,
    )  # fmt: skip


def account(debt: int) -> OracleAccount:
    return OracleAccount("starter", "USD", {}, {}, {}, debt, -debt, {}, {})


def journal(*sent: tuple[int, str, bool]) -> Journal:
    made = Journal()
    made.decided = [Decided(1, "acme", answer(True)), Decided(2, "acme", answer(False, "credit_depleted"))]
    made.sent = [Sent(request, "acme", SOURCE, event, "0.1.1", acknowledged) for request, event, acknowledged in sent]
    return made


def rated(event: str, source: str = SOURCE) -> Rated:
    return Rated("acme", source, event, {})


def test_a_run_in_order_has_no_sentence() -> None:
    made = journal((1, "a", True), (1, "b", False))
    assert judge_usage(made, [rated("a"), rated("x", "another")], [SOURCE]) == []
    assert judge_usage(made, [rated("a"), rated("b")], [SOURCE]) == [], "an event that nobody acknowledged may arrive"
    assert (made.allowed, made.denied, made.reasons()) == (1, 1, {"credit_depleted": 1})
    assert len(made.about(0).decided) == len(made.about(0).sent) == 2
    assert (made.about(1).decided, made.about(1).sent) == ([], [])


@pytest.mark.parametrize(
    ("sent", "found", "says"),
    [
        ((1, "a", True), [], "found 0 times"),
        ((1, "a", False), [rated("a"), rated("a")], "found 2 times"),
        ((2, "a", True), [rated("a")], "rated, yet denied"),
        ((1, "a", True), [rated("a"), rated("z")], "rated, yet never sent"),
    ],
)
def test_what_was_lost_doubled_denied_or_invented_is_a_sentence(
    sent: tuple[int, str, bool], found: list[Rated], says: str
) -> None:
    (sentence,) = judge_usage(journal(sent), found, [SOURCE])
    assert says in sentence


def test_what_no_caller_must_be_told_is_a_sentence() -> None:
    made = journal()
    made.faults.append("account acme: 404")
    assert judge_usage(made, [], [SOURCE]) == ["the fleet was told: account acme: 404"]


def test_overspend_is_debt_beyond_the_overdraft_of_the_accounts_named() -> None:
    accounts = {"a": account(5), "b": account(7), "c": account(0), "other": account(99)}
    assert overspend(accounts, {"a": 0, "b": 4, "c": 6, "unopened": 0}) == 5 + 3


def test_what_a_period_owes_besides_its_usage_is_no_overspend() -> None:
    """A fee in advance is due whatever a check says; an adjustment of usage is usage."""
    posted = {(0, 0): {"fee\0onboarding": 3, "calls": 2}}
    assert overspend({"a": replace(account(5), adjusted=posted)}, {"a": 0}) == 2
    assert overspend({"a": replace(account(2), adjusted=posted)}, {"a": 0}) == 0


def test_a_denial_for_want_of_credit_shows_the_want() -> None:
    made = journal()
    assert judge_denials(made) == []
    for figures, says in (
        ({"available": 10, "booked": 13}, "cover the price"),
        ({"overdraft": 5}, "cover the price"),
        ({"overdraft": None}, "cover the price"),
        ({"held": 2}, "is not"),
        ({"held": -1, "available": 9}, "is not"),
        ({"booked": None}, "without figures"),
    ):
        made.decided = [Decided(2, "acme", answer(False, "credit_depleted", **figures))]
        (sentence,) = judge_denials(made)
        assert says in sentence
        made.decided = [Decided(2, "acme", answer(False, "suspended", **figures))]
        assert judge_denials(made) == [], "another reason needs no want of credit"
