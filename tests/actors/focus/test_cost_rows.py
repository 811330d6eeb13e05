"""FOCUS rows of costs: shared out, and adding up to what the replica cost."""

from decimal import Decimal
from typing import Any

import pytest

from actors.focus.cost_rows import NotConserved, focus_cost_rows
from actors.focus.rows import Issuer
from engine.cost.lines import RequestLine, WindowLine
from engine.cost.window import Bucket
from tests.actors.focus.focus_lines import AT_US, HOUR_US

ISSUER = Issuer("Example AI", "Inference")


def request(name: str, amount: str | None, **changed: Any) -> RequestLine:
    fields: dict[str, Any] = {
        "replica": "llama-0",
        "request": name,
        "attempt": 0,
        "hour_us": AT_US,
        "amount": amount,
        "change": amount or "0",
        "currency": "USD",
        "settled": True,
        "method": "profiled",
        "account": "acme",
        "scope": "",
        "feature": "chat",
        "model": "m",
        "status": "ok",
        "prompt": 100,
        "cached": 60,
        "output": 20,
        "epoch": 1,
        "seq": 1,
    }
    return RequestLine(**fields | changed)


def window(at_us: int, cost: str | None, *, settled: bool = True, **buckets: str) -> WindowLine:
    found = {Bucket(name): amount for name, amount in buckets.items()}
    return WindowLine("llama-0", at_us, cost, found, "USD", settled, 1, 1)


LINES: list[RequestLine | WindowLine] = [
    request("a", "0.003"),
    request("b", "0.001", account=None, feature=None),
    request("c", "0.002"),
    window(AT_US, "0.01", direct="0.006", hard_idle="0.003", overhead="0.001"),
    window(AT_US + 10_000_000, "0.01", direct="0", hard_idle="0.01"),
]


def test_each_has_its_part_and_they_add_up() -> None:
    made = focus_cost_rows(LINES, ISSUER, "fleet")
    assert made.unknown == 0
    assert [(row["x_CostRole"], row["SubAccountId"], row["BilledCost"]) for row in made.rows] == [
        ("direct", None, Decimal("0.001")),
        ("direct", "acme", Decimal("0.005")),
        ("hard_idle", None, Decimal("0.013")),
        ("overhead", None, Decimal("0.001")),
    ]
    acme = made.rows[1]
    assert (acme["x_Feature"], acme["x_Model"], acme["ResourceId"]) == ("chat", "m", "llama-0")
    assert (acme["ConsumedQuantity"], acme["x_Lines"], acme["BillingAccountId"]) == (Decimal(120), Decimal(2), "fleet")


def test_the_newest_line_of_an_identity_counts_whatever_the_order() -> None:
    old = request("a", "9", epoch=0, seq=7)
    made = focus_cost_rows([old, *LINES, old], ISSUER, "fleet")
    assert made == focus_cost_rows(LINES[::-1], ISSUER, "fleet")


def test_lines_that_are_missing_are_noticed() -> None:
    with pytest.raises(
        NotConserved, match=r"llama-0, hour 2025-11-29T00:00:00Z: windows and requests differ by 0\.003"
    ):
        focus_cost_rows(LINES[1:], ISSUER, "fleet")


def test_what_is_not_known_is_in_no_row() -> None:
    later = AT_US + HOUR_US
    made = focus_cost_rows([*LINES, request("z", None, hour_us=later), window(later, None)], ISSUER, "fleet")
    assert (made.unknown, len(made.rows)) == (2, 4)


def test_what_is_known_of_an_execution_that_is_not_wholly_known_is_nobodys() -> None:
    made = focus_cost_rows([*LINES[1:], request("a", None)], ISSUER, "fleet")
    nobodys = made.rows[0]
    assert (nobodys["x_CostRole"], nobodys["SubAccountId"], nobodys["BilledCost"]) == ("direct", None, Decimal("0.003"))
    total = sum(Decimal(str(row["BilledCost"])) for row in made.rows)
    assert total == Decimal("0.02")


def test_tokens_are_consumed_once_in_the_hour_in_which_the_execution_ended() -> None:
    later = AT_US + HOUR_US
    lines = [*LINES, request("a", "0.004", hour_us=later), window(later, "0.004", direct="0.004")]
    both = focus_cost_rows(lines, ISSUER, "fleet").rows
    halves = [
        *focus_cost_rows(lines, ISSUER, "fleet", until_us=later).rows,
        *focus_cost_rows(lines, ISSUER, "fleet", from_us=later).rows,
    ]
    assert halves == both
    assert [(row["ConsumedQuantity"], row["BilledCost"]) for row in both if row["SubAccountId"] == "acme"] == [
        (Decimal(60), Decimal("0.005")),  # of c; a goes on
        (Decimal(60), Decimal("0.004")),
    ]


def test_what_executions_were_not_told_of_yet_is_nobodys_until_their_window_settles() -> None:
    """One was told alone that came late to a window: what the others had until then is too much, or too little."""
    for direct, rest in (("0.005", "-0.003"), ("0.011", "0.003")):
        open_window = window(AT_US + 20_000_000, direct, settled=False, direct=direct)
        made = focus_cost_rows([*LINES, request("z", "0.008"), open_window], ISSUER, "fleet")
        nobodys, _, acme = made.rows[:3]
        assert (nobodys["SubAccountId"], nobodys["x_Model"], nobodys["BilledCost"]) == (None, None, Decimal(rest))
        assert (acme["SubAccountId"], acme["BilledCost"]) == ("acme", Decimal("0.013"))
        total = sum(Decimal(str(row["BilledCost"])) for row in made.rows)
        assert total == Decimal("0.02") + Decimal(direct)


def test_what_is_known_of_a_window_that_is_not_wholly_known_is_in_the_rows() -> None:
    """The replica's GPUs are known from the middle of a window on: one ran before, and one behind it."""
    partly = window(AT_US + 20_000_000, None, direct="0.004", hard_idle="0.001")
    made = focus_cost_rows([*LINES, request("z", None), request("y", "0.004"), partly], ISSUER, "fleet")
    assert made.unknown == 2
    assert [(row["x_CostRole"], row["SubAccountId"], row["BilledCost"]) for row in made.rows] == [
        ("direct", None, Decimal("0.001")),
        ("direct", "acme", Decimal("0.009")),
        ("hard_idle", None, Decimal("0.014")),
        ("overhead", None, Decimal("0.001")),
    ]
