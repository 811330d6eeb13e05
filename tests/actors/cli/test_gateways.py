"""`tallygate gateways`: what it asks, and what it shows."""

from typing import Any

import pytest

from actors.cli.gateways import TOKEN_VARIABLE
from actors.web import gateway_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, beside_up, call

PROXY = "/v1/gateways/proxy"
KEY = f"{PROXY}/keys/hash-1"


@pytest.fixture(autouse=True)
def gateways(monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("PUT", "DELETE"):
        for path in (PROXY, KEY):
            monkeypatch.setitem(ANSWERS, (method, path), (204, None))
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/gateways"), (200, gateway_routes.ROUTES[2].example.response))
    monkeypatch.setitem(ANSWERS, ("GET", f"{PROXY}/keys"), (200, gateway_routes.ROUTES[5].example.response))
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)


@pytest.mark.parametrize(
    ("arguments", "asked", "told"),
    [
        (
            ("set", "proxy", "litellm_block", "https://llm.example.com"),
            ("PUT", PROXY, {"kind": "litellm_block", "url": "https://llm.example.com", "token": "sk-1"}),
            "proxy: its keys are looked after as litellm_block",
        ),
        (("remove", "proxy"), ("DELETE", PROXY, {}), "proxy: is gone"),
        (
            ("keys", "set", "proxy", "hash-1", "acme", "--scope", "team", "--budget", "100"),
            ("PUT", KEY, {"account": "acme", "scope": "team", "budget": "100"}),
            "proxy: key hash-1 is acme's",
        ),
        (("keys", "remove", "proxy", "hash-1"), ("DELETE", KEY, {}), "proxy: key hash-1 is looked after no more"),
    ],
)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...],
    asked: tuple[str, str, dict[str, Any]],
    told: str,
    api: FakeApi,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "sk-1")
    asks_once(api, ("gateways", *arguments), asked, told)


def test_without_a_token_nothing_is_asked(api: FakeApi) -> None:
    beside_up(api.url)
    refused = call("gateways", "set", "proxy", "litellm_block", "https://llm.example.com")
    assert refused.exit_code != 0
    assert not api.asked


def test_gateways_and_their_keys_are_listed(api: FakeApi) -> None:
    beside_up(api.url)
    assert "litellm_budget" in call("gateways", "list").stdout
    shown = call("gateways", "keys", "list", "proxy").stdout
    for text in ("acme", "team-red", "credit_depleted", "yes"):
        assert text in shown
    assert '"told":true' in call("gateways", "keys", "list", "proxy", "--json").stdout
    assert '"kind":"litellm_budget"' in call("gateways", "list", "--json").stdout
