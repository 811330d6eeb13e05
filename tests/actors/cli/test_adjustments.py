"""`tallygate adjustments`: what it asks, and what it shows."""

from typing import Any

import pytest

from tests.actors.cli.calling import FakeApi, asks_once, beside_up, call

ASKS = [
    (
        ("adjustments", "add", "acme", "--reason", "outage", "--", "-12.5"),
        ("POST", "/v1/customers/acme/adjustments", {"amount": "-12.5", "currency": "USD", "reason": "outage"}),
        "acme: -12.5 USD posted, as line welcome (log 3/18)",
    ),
    (
        (
            *("adjustments", "add", "acme", "3", "--reason", "call", "--line", "l", "--price", "p"),
            *("--period", "2026-10-01T00:00:00Z", "--currency", "EUR"),
        ),
        (
            "POST",
            "/v1/customers/acme/adjustments",
            {"amount": "3", "currency": "EUR", "reason": "call", "line": "l", "price": "p"}
            | {"period": "2026-10-01T00:00:00Z"},
        ),
        "acme: 3 EUR posted, as line welcome (log 3/18)",
    ),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_a_line_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)


def test_adjustments_are_listed_with_their_reason(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("adjustments", "list", "acme")
    assert (result.exit_code, "goodwill" in result.stdout, "-12.5" in result.stdout) == (0, True, True)


def test_without_a_reason_nothing_is_asked(api: FakeApi) -> None:
    beside_up(api.url)
    assert call("adjustments", "add", "acme", "3").exit_code == 2
    assert api.queries == []
