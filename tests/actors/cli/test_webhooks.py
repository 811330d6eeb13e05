"""`tallygate webhooks`: what it asks, and what it shows."""

from typing import Any

import pytest

from actors.cli.terminal import FAILED
from actors.web import webhook_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, beside_up, call

ENDPOINT = "we_4f0c9d6b2a1e8f7c5d3b"
AT = f"/v1/webhook-endpoints/{ENDPOINT}"
ADDRESS = "https://hooks.example.com/alerts"
ALERT = "alert_9f86d081884c7d659a2feaa0c55ad015"


def answer(method: str, ending: str) -> Any:
    (route,) = [each for each in webhook_routes.ROUTES if each.method == method and each.path.endswith(ending)]
    return route.example.response


@pytest.fixture(autouse=True)
def endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    for method, path, ending in (
        ("POST", "/v1/webhook-endpoints", "/webhook-endpoints"),
        ("GET", "/v1/webhook-endpoints", "/webhook-endpoints"),
        ("DELETE", AT, "/{endpoint}"),
        ("POST", f"{AT}/enable", "/enable"),
        ("POST", f"{AT}/rotate-secret", "/rotate-secret"),
        ("POST", f"{AT}/test", "/test"),
        ("GET", f"{AT}/deliveries", "/deliveries"),
        ("POST", "/v1/deliveries/71/resend", "/resend"),
    ):
        monkeypatch.setitem(ANSWERS, (method, path), (200, answer(method, ending)))


@pytest.mark.parametrize(
    ("arguments", "asked", "told"),
    [
        (
            ("add", ADDRESS, "--account", "acme", "--rule", "low", "--rule", "near"),
            ("POST", "/v1/webhook-endpoints", {"url": ADDRESS, "account": "acme", "rules": ["low", "near"]}),
            f"{ENDPOINT}: hears {ADDRESS}; its secret is whsec_<base64>",
        ),
        (
            ("add", ADDRESS),
            ("POST", "/v1/webhook-endpoints", {"url": ADDRESS}),
            f"{ENDPOINT}: hears {ADDRESS}; its secret is whsec_<base64>",
        ),
        (("disable", ENDPOINT), ("DELETE", AT, {}), f"{ENDPOINT}: is told nothing more"),
        (("enable", ENDPOINT), ("POST", f"{AT}/enable", {}), f"{ENDPOINT}: is told again"),
        (
            ("rotate-secret", ENDPOINT),
            ("POST", f"{AT}/rotate-secret", {}),
            f"{ENDPOINT}: its secret is whsec_<base64>; the one before is good until 2026-11-23T10:00:00Z",
        ),
        (("test", ENDPOINT), ("POST", f"{AT}/test", {}), f"{ENDPOINT}: {ALERT} was taken with 204 after 84 ms"),
        (
            ("resend", "71"),
            ("POST", "/v1/deliveries/71/resend", {}),
            f"{ENDPOINT}: {ALERT} was taken with 204 after 84 ms",
        ),
    ],
)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, ("webhooks", *arguments), asked, told)


@pytest.mark.parametrize(
    ("error", "status", "why"), [("connection refused", None, "refused"), ("", 500, "answered 500")]
)
def test_a_message_that_is_not_taken_is_an_exit_status(
    error: str, status: int | None, why: str, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = answer("POST", "/test") | {"delivered": False, "status": status, "error": error}
    monkeypatch.setitem(ANSWERS, ("POST", f"{AT}/test"), (200, failed))
    beside_up(api.url)
    result = call("webhooks", "test", ENDPOINT)
    assert result.exit_code == FAILED and why in result.stderr


def test_endpoints_and_what_was_tried_there_are_listed(api: FakeApi) -> None:
    beside_up(api.url)
    shown = call("webhooks", "list", "--account", "acme").stdout
    assert ENDPOINT in shown and ADDRESS in shown
    tried = call("webhooks", "deliveries", ENDPOINT, "--alert", ALERT).stdout
    assert "204" in tried and "71" in tried
    assert api.queries == ["account=acme&limit=50", f"alert={ALERT}&limit=50"]
    assert '"enabled":true' in call("webhooks", "list", "--json").stdout
    assert '"attempt":1' in call("webhooks", "deliveries", ENDPOINT, "--json").stdout
