"""`tallygate margin rates`: what it asks, and what it shows."""

from typing import Any

import pytest

from actors.web import margin_rate_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, beside_up, call

RATE = "/v1/margin/rates/2026-11-20/USD/EUR"
LIST = margin_rate_routes.ROUTES[2].example.response


@pytest.fixture(autouse=True)
def rates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, ("PUT", RATE), (204, None))
    monkeypatch.setitem(ANSWERS, ("DELETE", RATE), (204, None))
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/margin/rates"), (200, LIST))


@pytest.mark.parametrize(
    ("arguments", "asked", "told"),
    [
        (
            ("set", "2026-11-20", "USD", "EUR", "0.92"),
            ("PUT", RATE, {"rate": "0.92"}),
            "2026-11-20: 1 USD is 0.92 EUR",
        ),
        (
            ("remove", "2026-11-20", "USD", "EUR"),
            ("DELETE", RATE, {}),
            "2026-11-20: the rate from USD to EUR is gone",
        ),
    ],
)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, ("margin", "rates", *arguments), asked, told)


def test_rates_are_listed(api: FakeApi) -> None:
    beside_up(api.url)
    shown = call("margin", "rates", "list", "--target", "EUR")
    assert shown.exit_code == 0
    for text in ("2026-11-20", "USD", "EUR", "0.920000000000"):
        assert text in shown.stdout
    assert '"source":"USD"' in call("margin", "rates", "list", "--json").stdout
