"""Every kind of difference between oracle and engine is seen, named and counted."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

from loadtest.oracle.accounts import Alert, LotStanding, OracleAccount, Rated
from loadtest.report import DIFFERENCES_MAX, Comparison, compare, percentiles, settled_lines

ACCOUNTS = {
    "acme": OracleAccount(
        plan="starter",
        currency="USD",
        counters={(0, "in", ("atlas",)): 374 * 10**9, (0, "in", ("free",)): 0},
        amounts={(0, "in"): 56_100_000},
        lots={"paid": LotStanding(10**12, 56_100_000, 0, 10**12 - 56_100_000)},
        debt=0,
        balance=10**12 - 56_100_000,
        spend={0: 56_100_000},
        scopes={"team:red": {0: 56_100_000}, "team:red/user:ann": {}},
    )
}
RATED = {(0, 7): Rated("acme", "gateway-1", "req-1", {"in": (374 * 10**9, 56_100_000)})}
CORRECTED = {(0, 9): Rated("acme", "gateway-1", "req-2", {"in": (-(5 * 10**9), -750_000)})}
ALERT = Alert(account="acme", rule="cap-80", window="0", ordinal=1, phase="crossed", partition=0, offset=7)
ALERTS = {"alert_1": ALERT}


def line(**fields: Any) -> dict[str, Any]:
    row = {"partition": 0, "offset": 7, "line": 0, "epoch": 1, "account": "acme", "source": "gateway-1", "id": "req-1"}
    return row | {"price": "in", "quantity": "374", "amount": "0.000056100000"} | fields


def corrections() -> list[dict[str, Any]]:
    """An amend: what is taken back, and what is put in its place."""
    fields = {"offset": 9, "id": "req-2", "correction": "amend"}
    taken = line(quantity="-6", amount="-0.0000009", **fields)
    return [taken, line(line=1, quantity="1", amount="0.00000015", **fields)]


def view() -> dict[str, Any]:
    account = ACCOUNTS["acme"]
    parts = ("counters", "amounts", "lots", "debt", "balance", "spend", "scopes")
    return {
        "accounts": {"acme": {part: copy.deepcopy(getattr(account, part)) for part in parts}},
        "lines": [line(), *corrections()],
        "alerts": {"alert_1"},
    }


def judged(found: dict[str, Any]) -> Comparison:
    return compare(
        ACCOUNTS,
        RATED,
        ALERTS,
        corrected=CORRECTED,
        engine_accounts=found["accounts"],
        rated_lines=iter(found["lines"]),
        received_alerts=found["alerts"],
    )


def test_nothing_differs() -> None:
    found = view()
    del found["accounts"]["acme"]["counters"][(0, "in", ("free",))]  # no row is a row of 0
    assert judged(found) == Comparison(True, 0, 0, [], [], [], 0)


@pytest.mark.parametrize(
    ("part", "key", "value", "sentence"),
    [
        ("counters", (0, "in", ("atlas",)), 1, "counters (0, 'in', ('atlas',)): expected 374000000000, found 1"),
        ("counters", (5, "in", ("atlas",)), 1, "counters (5, 'in', ('atlas',)): expected 0, found 1"),
        ("amounts", (0, "in"), 56_100_001, "amounts (0, 'in'): expected 56100000, found 56100001"),
        ("spend", 0, 0, "spend 0: expected 56100000, found 0"),
        ("scopes", "team:red", {0: 1}, "scopes ('team:red', 0): expected 56100000, found 1"),
        ("scopes", "team:blue", {5: 7}, "scopes ('team:blue', 5): expected 0, found 7"),
        ("lots", "paid", (10**12, 0, 1, 10**12 - 1, 0, 0, 0), "lot paid burnt: expected 56100000, found 0"),
        ("lots", "more", (1, 0, 0, 1, 0, 0, 0), "lot more: expected False, found True"),
        ("debt", None, 1, "debt: expected 0, found 1"),
        ("balance", None, 0, "balance: expected 999943900000, found 0"),
    ],
)
def test_a_difference_in_an_account(part: str, key: Any, value: Any, sentence: str) -> None:
    found = view()
    if key is None:
        found["accounts"]["acme"][part] = value
    else:
        found["accounts"]["acme"][part][key] = value
    result = judged(found)
    assert not result.oracle_equal
    assert f"account acme: {sentence}" in result.differences


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda accounts: accounts.pop("acme"), "account acme: expected an open account, found none"),
        (lambda accounts: accounts.update(ghost={}), "account ghost: expected none, found an account"),
        (lambda accounts: accounts["acme"].pop("lots"), "account acme: lots expected, found nothing to compare"),
        (lambda accounts: accounts["acme"]["lots"].clear(), "account acme: lot paid: expected True, found False"),
    ],
)
def test_an_account_or_part_that_is_missing(change: Callable[[dict[str, Any]], Any], sentence: str) -> None:
    found = view()
    change(found["accounts"])
    result = judged(found)
    assert result.differences == [sentence]
    assert not result.oracle_equal


@pytest.mark.parametrize(
    ("lines", "lost", "double", "sentence"),
    [
        ([], 1, 0, "event req-1 at partition 0, offset 7: expected rated, found no line"),
        ([line(), line(offset=8)], 0, 2, "event req-1 of gateway-1: expected at one offset, found at 0/7, 0/8"),
        ([line(), line(partition=1, id="req-2")], 0, 1, "partition 1, offset 7: expected not rated, found rated"),
        ([line(amount="0.000056100001")], 0, 0, "amount in pico: expected 56100000, found 56100001"),
        ([line(amount="5.61e-5")], 0, 0, "amount in pico: expected 56100000, found None"),
        ([line(quantity="375")], 0, 0, "quantity in nano: expected 374000000000, found 375000000000"),
        (
            [line(), line(line=1, price="out", amount="9-1")],
            0,
            0,
            "price out: amount in pico: expected None, found None",
        ),
        ([line(price="out")], 0, 0, "price out: amount in pico: expected None, found 56100000"),
        ([line(), line(line=1)], 0, 0, "price in: expected one line, found more"),
        ([line(source="gateway-2")], 0, 0, "source: expected 'gateway-1', found 'gateway-2'"),
        ([line(account="other")], 0, 0, "account: expected 'acme', found 'other'"),
        ([line(), line(epoch=2, amount="0")], 0, 0, "amount in pico: expected 56100000, found 0"),
    ],
)
def test_a_difference_in_the_rated_lines(lines: list[dict[str, Any]], lost: int, double: int, sentence: str) -> None:
    result = judged(view() | {"lines": lines})
    assert (result.lost, result.double, result.oracle_equal) == (lost, double, False)
    assert any(sentence in text and text.startswith("account ") for text in result.differences), result.differences


def test_lines_of_the_highest_epoch_replace_an_offset_as_a_set() -> None:
    old = [line(line=number, amount="9") for number in range(3)]
    assert judged(view() | {"lines": [*old, line(epoch=2), *corrections()]}).oracle_equal
    assert judged(view() | {"lines": [*corrections(), line(epoch=2), *old]}).oracle_equal
    assert judged(view() | {"lines": [line(), line(), *corrections()]}).oracle_equal  # the same line, written twice
    assert settled_lines([*old, line(epoch=2)]) == {(0, 7): [line(epoch=2)]}


@pytest.mark.parametrize("fields", [{"amount": "0.000056100001"}, {"price": "out"}, {"lots": [["paid", "1"]]}])
@pytest.mark.parametrize("is_last", [False, True])
def test_two_unlike_lines_under_one_epoch_and_number_are_a_finding(fields: dict[str, Any], is_last: bool) -> None:
    """Whichever comes last, and whatever it is that differs."""
    pair = [line(**fields), line()] if is_last else [line(), line(**fields)]
    result = judged(view() | {"lines": [*pair, *corrections()]})
    assert not result.oracle_equal
    assert any(
        each.startswith("account acme: partition 0, offset 7, line 0 of epoch 1: expected to be told once, found ")
        for each in result.differences
    ), result.differences
    higher = line(epoch=2)
    assert judged(view() | {"lines": [higher, *pair, *corrections()]}).oracle_equal, "void, and read by nobody"
    assert judged(view() | {"lines": [*pair, higher, *corrections()]}).oracle_equal


def test_alerts_missing_and_extra() -> None:
    result = judged(view() | {"alerts": {"alert_2"}})
    assert (result.alerts_missing, result.alerts_extra, result.oracle_equal) == (["alert_1"], ["alert_2"], False)
    assert result.differences[0].startswith("account acme: alert alert_1 (rule cap-80, window '0', ordinal 1, crossed")
    assert result.differences[1] == "alert alert_2: expected none, found it at the receiver"


def test_sentences_are_limited_but_all_are_counted() -> None:
    found = view()
    found["accounts"] |= {f"ghost-{number}": {} for number in range(80)}
    result = judged(found)
    assert (len(result.differences), result.differences_count) == (DIFFERENCES_MAX, 80)


def test_percentiles() -> None:
    assert percentiles([]) == {"p50": None, "p99": None}
    assert percentiles(list(range(101))) == {"p50": 50.0, "p99": 99.0}
    assert percentiles([1.0], (50, 99.9)) == {"p50": 1.0, "p99.9": 1.0}


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ([], "partition 0, offset 9, corrections: expected True, found False"),
        (corrections()[:1], "price in: quantity in nano: expected -5000000000, found -6000000000"),
        (
            [corrections()[0] | {"amount": "9-0.0000009"}, corrections()[1]],
            "price in: amount in pico: expected -750000, found None",
        ),
        ([*corrections(), line(offset=8, correction="cancel")], "offset 8, corrections: expected False, found True"),
    ],
)
def test_corrections_that_differ_are_named(lines: list[dict[str, Any]], sentence: str) -> None:
    result = judged(view() | {"lines": [line(), *lines]})
    assert (result.lost, result.double) == (0, 0)
    assert any(sentence in each for each in result.differences)


ACCRUED = {(0, 9, "acme"): Rated("acme", "tallygate.accrual", "", {"in": (9 * 10**9, 90)})}


def accruals() -> list[dict[str, Any]]:
    """Two accruals at one offset, as log time has leapt."""
    fields = {"offset": 9, "source": "tallygate.accrual", "quantity": "4.5", "amount": "0.000000000045"}
    return [line(id=str(minute), line=minute, accrued_us=minute, **fields) for minute in (60, 120)]


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        (
            [
                line(session="s", quantity="300", amount="0.00005"),
                line(line=1, session="s", quantity="74", amount="0.0000061"),
            ],
            None,
        ),
        ([*accruals(), line()], None),
        ([{**accruals()[0], "source": "tallygate.period"}, accruals()[1], line()], None),
        ([line(), *accruals(), line(line=1, quantity="0", amount="0", due="minimum")], None),
        ([line(), *accruals(), line(line=1, quantity="0", amount="-0.000000000001", due="minimum")], "amount in pico"),
        (
            [
                *(line(amount="0.0001"), *accruals(), line(line=1, quantity="0", amount="-0.00003", due="waived")),
                line(line=2, quantity="0", amount="-0.0000139", due="waived", session="s"),
            ],
            None,
        ),
        (
            [line(), line(line=1), *accruals(), line(line=2, price="cap", quantity="0", amount="-1", due="waived")],
            "price in: expected one line, found more",
        ),
        ([line(), *accruals()[:1]], "accrued: price in: quantity in nano: expected 9000000000, found 4500000000"),
        ([line()], "partition 0, offset 9, account acme, accrued: expected True, found False"),
        (
            [line(), *accruals(), *[row | {"account": "b"} for row in accruals()]],
            "account b, accrued: expected False, found True",
        ),
        (
            [line(session="s"), line(line=1, session="s"), *accruals()],
            "quantity in nano: expected 374000000000, found 748",
        ),
    ],
)
def test_the_stretches_of_a_session_are_one_and_what_accrues_is_of_no_event(
    lines: list[dict[str, Any]], sentence: str | None
) -> None:
    lines = lines if sentence is not None or len(lines) > 2 else [*lines, *accruals()]
    result = compare(
        ACCOUNTS,
        RATED,
        ALERTS,
        corrected={},
        engine_accounts=view()["accounts"],
        rated_lines=iter(lines),
        received_alerts={"alert_1"},
        accrued=ACCRUED,
    )
    assert result.oracle_equal is (sentence is None), result.differences
    assert sentence is None or any(sentence in each for each in result.differences), result.differences


def test_of_a_correction_of_what_no_meter_counts_nothing_is_told() -> None:
    of_nothing = {**CORRECTED, (0, 11): Rated("acme", "gateway-1", "req-3", {})}
    found = view()
    result = compare(
        ACCOUNTS,
        RATED,
        ALERTS,
        corrected=of_nothing,
        engine_accounts=found["accounts"],
        rated_lines=iter(found["lines"]),
        received_alerts=found["alerts"],
    )
    assert result.oracle_equal, result.differences
