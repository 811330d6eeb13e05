"""`tallygate caps`: what it asks."""

from typing import Any

import pytest

from tests.actors.cli.calling import FakeApi, asks_once

ASKS = [
    (
        ("caps", "set", "acme", "a/b", "5", "--scope", "team:red", "--soft"),
        (
            "PUT",
            "/v1/customers/acme/caps/a%2Fb",
            {"amount": "5", "currency": "USD", "scope": "team:red", "hard": False, "window": "month"},
        ),
        "acme: cap a/b of team:red is 5 USD a month (log 3/18)",
    ),
    (
        ("caps", "set", "acme", "a/b", "5", "--basis", "list", "--waive"),
        (
            "PUT",
            "/v1/customers/acme/caps/a%2Fb",
            {"amount": "5", "currency": "USD", "scope": "", "hard": True, "window": "month", "basis": "list"}
            | {"beyond": "waived"},
        ),
        "acme: cap a/b of the account is 5 USD a month (log 3/18)",
    ),
    (
        ("caps", "remove", "acme", "a/b"),
        ("DELETE", "/v1/customers/acme/caps/a%2Fb", {}),
        "acme: cap a/b is gone (log 3/18)",
    ),
    (
        ("caps", "set", "acme", "tokens", "1000000", "--meter", "tokens", "--window", "first_use", "--minutes", "300"),
        (
            "PUT",
            "/v1/customers/acme/caps/tokens",
            {
                "amount": "1000000",
                "scope": "",
                "hard": True,
                "window": "first_use",
                "length_s": 18_000,
                "meter": "tokens",
            },
        ),
        "acme: cap tokens of the account is 1000000 tokens in 300 minutes from the first use on (log 3/18)",
    ),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)
