"""Commands of recurring grants: what each refuses, in which order, and that a refusal changes nothing."""

from typing import Any

import pytest

from tests.engine.bench import Bench
from tests.engine.precedence import assert_the_first_reason_wins

BASE: dict[str, Any] = {"grant": "m", "every": "period", "lot_kind": "promo", "amount": "10", "currency": "USD"}
# In the order of precedence.
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("unknown_account", {"account": "nobody"}),
    ("bad_amount", {"amount": "0"}),
    ("bad_lot", {"lot_kind": "loan"}),
    ("currency_mismatch", {"currency": "EUR"}),
    ("bad_rollover", {"rollover": {"percent": 0, "days": 1}}),
    ("unknown_price", {"scope": ["unheard"]}),
    ("bad_recurring", {"every": "day"}),
]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.open()
    bench.use(10)
    return bench


@pytest.mark.parametrize("top", range(len(WRONG)))
def test_the_first_reason_in_order_wins_and_nothing_changes(bench: Bench, top: int) -> None:
    assert_the_first_reason_wins(bench, "set_recurring_grant", BASE, WRONG[top:])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"days": 0}, "bad_recurring"),
        ({"days": 3661}, "bad_recurring"),
        ({"days": 1, "expires": False}, "bad_recurring"),
        ({"grant": "m" * 201}, "bad_recurring"),
        ({"rollover": {"percent": 50, "days": 1}, "expires": False}, "bad_rollover"),
        ({"rollover": {"percent": 50, "days": 1, "cap": "0"}}, "bad_rollover"),
    ],
)
def test_what_cannot_recur_is_refused(bench: Bench, change: dict[str, Any], reason: str) -> None:
    assert bench.command("set_recurring_grant", **BASE | change) == f"refused.{reason}"


def test_they_make_so_many_lots_a_year_and_one_may_be_replaced(bench: Bench) -> None:
    """Two weekly ones, 53 each, leave 14 lots: for one of 12, and for none with a rollover."""
    assert bench.recurring("a", "1", every="week") == "applied"
    assert bench.recurring("b", "1", every="week") == "applied"
    assert bench.recurring("c", "1", rollover={"percent": 50, "days": 1}) == "refused.too_many_recurring"
    assert bench.recurring("c", "1") == "applied"
    assert bench.recurring("d", "1") == "refused.too_many_recurring"
    assert bench.recurring("c", "1", every="month") == "applied"
    assert set(bench.account().recurring) == {"a", "b", "c"}


def test_only_what_there_is_can_be_removed(bench: Bench) -> None:
    assert bench.command("remove_recurring_grant", grant="m") == "refused.unknown_recurring"
    bench.recurring("m", "1")
    assert bench.command("remove_recurring_grant", grant="m") == "applied"
    assert bench.account().recurring == {}


@pytest.mark.parametrize("kind", ["set_recurring_grant", "remove_recurring_grant"])
def test_a_field_that_is_missing_or_unknown_is_a_bad_control(bench: Bench, kind: str) -> None:
    assert bench.command(kind) == "dead_lettered.bad_control"
    assert bench.command(kind, grant="m", surprise=1) == "dead_lettered.bad_control"


def test_another_rhythm_begins_anew(bench: Bench) -> None:
    bench.recurring("m", "1", every="month")
    assert bench.recurring("m", "1", every="week") == "applied"
    assert set(bench.account().lots) == {"m@2026-03-01", "m@2026-03-09"}
