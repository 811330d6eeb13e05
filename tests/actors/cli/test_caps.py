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
            {"amount": "5", "currency": "USD", "scope": "team:red", "hard": False},
        ),
        "acme: cap a/b of team:red is 5 USD a month (log 3/18)",
    ),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)
