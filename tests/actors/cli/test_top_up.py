"""`tallygate top-up`: what it asks, and what it shows."""

from typing import Any

import pytest

from tests.actors.cli.calling import FakeApi, asks_once, beside_up, call

PATH = "/v1/customers/acme/auto-top-up"
ASKS: list[tuple[tuple[str, ...], tuple[str, str, dict[str, Any]], str]] = [
    (
        ("top-up", "set", "acme", "20", "50", "--days", "365"),
        (
            "PUT",
            PATH,
            {
                "threshold": "20",
                "amount": "50",
                "currency": "USD",
                "cooldown_s": 3600,
                "attempts": 3,
                "days": 365,
                "priority": 100,
            },
        ),
        "acme: 50 USD are asked for at 20 or below (log 3/18)",
    ),
    (("top-up", "remove", "acme"), ("DELETE", PATH, {}), "acme: nothing is asked for any more (log 3/18)"),
    (
        ("top-up", "answer", "acme", "topup_1", "--paid"),
        ("POST", f"{PATH}/topup_1", {"paid": True}),
        "acme: topup_1 was paid (log 3/18)",
    ),
    (
        ("top-up", "answer", "acme", "topup_1", "--failed"),
        ("POST", f"{PATH}/topup_1", {"paid": False}),
        "acme: topup_1 failed (log 3/18)",
    ),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)


def test_it_is_shown_with_the_open_request(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("top-up", "show", "acme")
    assert (result.exit_code, "topup_9" in result.stdout, "20" in result.stdout) == (0, True, True)
