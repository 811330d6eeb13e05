"""`tallygate limits`: what it asks, and what it shows."""

from typing import Any

import pytest

from actors.cli.terminal import WRONG_INPUT
from actors.web import customers, limit_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, beside_up, call

BURST, MODEL = "/v1/customers/acme/rate-limits/burst", "/v1/customers/acme/allow-lists/model"
ASKS = [
    (
        ("rate", "acme", "burst", "600"),
        ("PUT", BURST, {"per_minute": 600, "scope": ""}),
        "acme: rate limit burst of the account is 600 checks a minute (log 3/18)",
    ),
    (
        ("rate", "acme", "burst", "100000", "--meter", "output_tokens", "--scope", "team:red"),
        ("PUT", BURST, {"per_minute": 100_000, "scope": "team:red", "meter": "output_tokens"}),
        "acme: rate limit burst of team:red is 100000 output_tokens a minute (log 3/18)",
    ),
    (
        ("rate", "acme", "burst", "0"),
        ("PUT", BURST, {"per_minute": 0, "scope": ""}),
        "acme: rate limit burst of the account is gone (log 3/18)",
    ),
    (
        ("allow", "acme", "model", "atlas-1", "atlas-mini", "--scope", "team:red"),
        ("PUT", MODEL, {"values": ["atlas-1", "atlas-mini"], "scope": "team:red"}),
        "acme: model of team:red is one of atlas-1, atlas-mini (log 3/18)",
    ),
    (
        ("allow", "acme", "model", "--any"),
        ("PUT", MODEL, {"values": None, "scope": ""}),
        "acme: model of the account may be any (log 3/18)",
    ),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, ("limits", *arguments), asked, told)


@pytest.mark.parametrize("values", [(), ("atlas-1", "--any")])
def test_an_allow_list_names_values_or_any(values: tuple[str, ...], api: FakeApi) -> None:
    beside_up(api.url)
    refused = call("limits", "allow", "acme", "model", *values)
    assert (refused.exit_code, api.asked) == (WRONG_INPUT, [])
    assert "VALUES" in refused.stderr


def test_both_are_listed(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    for path, module in (("rate-limits", limit_routes), ("scopes", customers)):
        (route,) = [each for each in module.ROUTES if (each.method, each.path.rpartition("/")[2]) == ("GET", path)]
        monkeypatch.setitem(ANSWERS, ("GET", f"/v1/customers/acme/{path}"), (200, route.example.response))
    beside_up(api.url)
    shown = call("limits", "list", "acme").stdout
    for text in ("burst", "600", "team:red", "model", "atlas-1"):
        assert text in shown
