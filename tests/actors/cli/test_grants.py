"""`tallygate grants`: what it asks, and what it shows."""

from typing import Any

import pytest

from tests.actors.cli.calling import FakeApi, asks_once, beside_up, call

MONTHLY = "/v1/customers/acme/recurring-grants/monthly"
ASKS = [
    (
        ("grants", "every", "acme", "monthly", "period", "1000", "--rollover", "50:31", "--days", "40"),
        (
            "PUT",
            MONTHLY,
            {"every": "period", "amount": "1000", "currency": "USD", "kind": "promo", "days": 40}
            | {"rollover": {"percent": 50, "days": 31}},
        ),
        "acme: 1000 USD are granted every period, as monthly (log 3/18)",
    ),
    (
        ("grants", "units", "acme", "tokens", "1000000", "--grant", "pack"),
        ("POST", "/v1/customers/acme/quantity-grants", {"price": "tokens", "quantity": "1000000", "grant": "pack"}),
        "acme: 1000000 units of tokens granted, as welcome (log 3/18)",
    ),
    (
        ("grants", "void-units", "acme", "pack"),
        ("POST", "/v1/customers/acme/quantity-grants/pack/void", {}),
        "acme: the rest of pack is void (log 3/18)",
    ),
    (
        ("grants", "stop", "acme", "monthly"),
        ("DELETE", MONTHLY, {}),
        "acme: monthly is granted no more (log 3/18)",
    ),
    (
        (
            *("grants", "add", "acme", "25", "--kind", "paid", "--lot", "card", "--from", "2026-12-01T00:00:00Z"),
            *("--price", "output", "--price", "input", "--priority", "5"),
        ),
        (
            "POST",
            "/v1/customers/acme/grants",
            {"amount": "25", "currency": "USD", "kind": "paid", "lot": "card", "effective": "2026-12-01T00:00:00Z"}
            | {"prices": ["output", "input"], "priority": 5},
        ),
        "acme: 25 USD granted, as lot welcome (log 3/18)",
    ),
    (
        ("grants", "add", "acme", "25", "--expires", "2030-01-01T00:00:00Z"),
        (
            "POST",
            "/v1/customers/acme/grants",
            {"amount": "25", "currency": "USD", "kind": "promo", "expires": "2030-01-01T00:00:00Z"},
        ),
        "acme: 25 USD granted, as lot welcome (log 3/18)",
    ),
    (
        ("grants", "add", "acme", "25", "--pays-debt", "--lot", "l", "--rollover", "50:30:200"),
        (
            "POST",
            "/v1/customers/acme/grants",
            {"amount": "25", "currency": "USD", "kind": "promo", "lot": "l", "pays_debt": True}
            | {"rollover": {"percent": 50, "days": 30, "cap": "200"}},
        ),
        "acme: 25 USD granted, as lot welcome (log 3/18)",
    ),
    (
        ("grants", "void", "acme", "card/1"),
        ("POST", "/v1/customers/acme/grants/card%2F1/void", {"currency": "USD"}),
        "acme: the rest of lot card/1 is void (log 3/18)",
    ),
    (
        ("grants", "void", "acme", "card", "50", "--currency", "EUR"),
        ("POST", "/v1/customers/acme/grants/card/void", {"currency": "EUR", "amount": "50"}),
        "acme: 50 of lot card is void (log 3/18)",
    ),
    (
        ("grants", "refund", "acme", "card", "4"),
        ("POST", "/v1/customers/acme/grants/card/refund", {"currency": "USD", "amount": "4"}),
        "acme: 4 USD are back in lot card (log 3/18)",
    ),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)


def test_lots_are_listed(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("grants", "list", "acme")
    assert (result.exit_code, "promo" in result.stdout, "24" in result.stdout) == (0, True, True)


def test_quantity_grants_are_listed(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("grants", "quantities", "acme")
    assert (result.exit_code, "pack-1" in result.stdout, "600000" in result.stdout) == (0, True, True)


def test_recurring_grants_are_listed(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("grants", "recurring", "acme")
    assert (result.exit_code, "monthly" in result.stdout, "2026-12-01" in result.stdout) == (0, True, True)


def test_a_rollover_that_cannot_be_read_is_told(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("grants", "add", "acme", "25", "--rollover", "half")
    assert (result.exit_code, "PERCENT:DAYS" in result.stderr) == (2, True)
