"""Commands of quantity grants: what each refuses, in which order, and that a refusal changes nothing."""

from typing import Any

import pytest
from msgspec.structs import replace

from engine.quantity_grant_commands import QUANTITY_GRANTS_MAX
from engine.quantity_grants import QuantityGrant
from tests.engine.bench import MINUTE, START, Bench, document, us
from tests.engine.precedence import assert_the_first_reason_wins

APRIL = us("2026-04-01T00:00:00+00:00")
BASE: dict[str, Any] = {"grant": "g", "price": "x", "quantity": "10"}
# In the order of precedence.
WRONG: list[tuple[str, dict[str, Any]]] = [
    ("unknown_account", {"account": "nobody"}),
    ("bad_amount", {"quantity": "0"}),
    ("bad_quantity_grant", {"effective_us": -(1 << 61)}),
    ("lot_exists", {"grant": "taken"}),
    ("unknown_price", {"price": "unheard"}),
    ("bad_quantity_grant", {"expires_us": APRIL + 1}),
    ("expires_too_soon", {"expires_us": START}),
]


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.open()
    bench.use(10)
    bench.grant_units("taken", "x", "1")
    return bench


@pytest.mark.parametrize("top", range(len(WRONG)))
def test_the_first_reason_in_order_wins_and_nothing_changes(bench: Bench, top: int) -> None:
    assert_the_first_reason_wins(bench, "grant_quantity", BASE, WRONG[top:])


def test_a_meter_that_does_not_add_up_has_nothing_to_grant() -> None:
    body = document()
    meters = {**body.meters, "units": replace(body.meters["units"], aggregation="max")}
    bench = Bench(replace(body, meters=meters))
    bench.open()
    assert bench.grant_units("g", "x", "1") == "refused.bad_quantity_grant"


def test_an_account_has_so_many(bench: Bench) -> None:
    account = bench.account()
    account.quantity_grants = {
        str(number): QuantityGrant(str(number), "x", 1, START, APRIL) for number in range(QUANTITY_GRANTS_MAX)
    }
    assert bench.grant_units("more", "x", "1") == "refused.too_many_quantity_grants"


def test_what_is_over_cannot_be_voided(bench: Bench) -> None:
    assert bench.command("void_quantity_grant", grant="unheard") == "refused.unknown_lot"
    assert bench.command("void_quantity_grant", grant="taken") == "applied"
    assert bench.command("void_quantity_grant", grant="taken") == "refused.lot_over"
    bench.grant_units("short", "x", "1", expires_us=bench.now + MINUTE)
    bench.now += MINUTE
    assert bench.command("void_quantity_grant", grant="short") == "refused.lot_over"


def test_one_that_has_not_begun_is_voided_from_its_beginning(bench: Bench) -> None:
    later = bench.now + 10 * MINUTE
    bench.grant_units("later", "x", "1", effective_us=later)
    bench.command("void_quantity_grant", grant="later")
    assert bench.account().quantity_grants["later"].voided_us == later


@pytest.mark.parametrize("kind", ["grant_quantity", "void_quantity_grant"])
def test_a_field_that_is_missing_or_unknown_is_a_bad_control(bench: Bench, kind: str) -> None:
    assert bench.command(kind) == "dead_lettered.bad_control"
    assert bench.command(kind, **BASE, surprise=1) == "dead_lettered.bad_control"


def test_before_any_usage_one_may_begin_as_far_back_as_a_month_is_looked_up() -> None:
    bench = Bench()
    bench.open()
    assert bench.grant_units("g", "x", "1", effective_us=-(1 << 55) - 1) == "refused.bad_quantity_grant"
    assert bench.grant_units("g", "x", "1", effective_us=-(1 << 55)) == "refused.expires_too_soon"
