"""`tallygate customers`: what it asks, and what it shows."""

from typing import Any

import pytest

from tests.actors.cli.calling import FakeApi, asks_once, beside_up, call

ASKS = [
    (
        ("customers", "open", "acme", "--plan", "starter"),
        ("POST", "/v1/customers", {"account": "acme", "plan": "starter", "zone": "UTC", "anchor_day": 1}),
        "acme: opened, with the plan starter (log 3/18)",
    ),
    (
        ("customers", "agree", "acme", "output", '{"model": "flat", "amount": "9"}', "--from", "2026-12-01T00:00:00Z"),
        (
            "PUT",
            "/v1/customers/acme/prices/output",
            {"terms": {"model": "flat", "amount": "9"}, "currency": "USD", "from": "2026-12-01T00:00:00Z"},
        ),
        'acme: price output is {"model": "flat", "amount": "9"} from 2026-12-01T00:00:00Z on (log 3/18)',
    ),
    (
        ("customers", "pause", "acme", "--from", "2026-12-20T00:00:00Z"),
        ("PUT", "/v1/customers/acme/pause", {"paused": True, "from": "2026-12-20T00:00:00Z"}),
        "acme: paused from 2026-12-20T00:00:00Z on (log 3/18)",
    ),
    (
        ("customers", "seats", "acme", "editor", "5", "--from", "2026-12-20T00:00:00Z"),
        ("PUT", "/v1/customers/acme/seats/editor", {"count": 5, "from": "2026-12-20T00:00:00Z"}),
        "acme: 5 seats editor from 2026-12-20T00:00:00Z on (log 3/18)",
    ),
    (
        ("customers", "resume", "acme"),
        ("PUT", "/v1/customers/acme/pause", {"paused": False}),
        "acme: resumed from now on (log 3/18)",
    ),
    (
        ("customers", "billing", "acme", "postpaid", "--credit-limit", "500"),
        ("PUT", "/v1/customers/acme/billing", {"billing": "postpaid", "currency": "USD", "credit_limit": "500"}),
        "acme: postpaid, up to 500 USD (log 3/18)",
    ),
    (
        ("customers", "plan", "acme", "growth", "--from", "2026-12-01T00:00:00Z"),
        ("PUT", "/v1/customers/acme/plan", {"plan": "growth", "from": "2026-12-01T00:00:00Z"}),
        "acme: plan growth from 2026-12-01T00:00:00Z on (log 3/18)",
    ),
    (
        ("customers", "agree", "acme", "output"),
        ("PUT", "/v1/customers/acme/prices/output", {"terms": None, "currency": "USD"}),
        "acme: price output is the plan's from now on (log 3/18)",
    ),
    (
        ("customers", "scope", "acme", "team:red"),
        ("PUT", "/v1/customers/acme/scopes", {"scope": "team:red", "standing": "active"}),
        "acme: scope team:red is active (log 3/18)",
    ),
    (
        ("customers", "standing", "acme", "suspended"),
        ("PUT", "/v1/customers/acme/standing", {"standing": "suspended", "scope": ""}),
        "acme: the account is suspended (log 3/18)",
    ),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)


def test_an_account_is_shown_with_its_scopes_and_caps(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("customers", "show", "acme")
    assert result.exit_code == 0
    for text in ("starter", "available 24.5 USD", "team:red", "Caps: none"):
        assert text in result.stdout
