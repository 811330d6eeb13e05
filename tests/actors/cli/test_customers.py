"""`tallygate customers`: what it asks, and what it shows."""

from typing import Any

import pytest

from actors.web import money
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, beside_up, call

ASKS = [
    (
        ("customers", "overdraft", "acme", "20"),
        ("PUT", "/v1/customers/acme/overdraft", {"amount": "20", "currency": "USD"}),
        "acme: overdraft of 20 USD (log 3/18)",
    ),
    (
        ("customers", "overdraft", "acme", "none", "--currency", "EUR"),
        ("PUT", "/v1/customers/acme/overdraft", {"amount": None, "currency": "EUR"}),
        "acme: overdraft without limit (log 3/18)",
    ),
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


def test_usage_postings_and_alerts_are_listed(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {route.path.rpartition("/")[2]: route.example.response for route in money.ROUTES if route.method == "GET"}
    for name in ("usage", "ledger", "alerts"):
        monkeypatch.setitem(ANSWERS, ("GET", f"/v1/customers/acme/{name}"), (200, answers[name]))
    beside_up(api.url)
    for name, told in (
        ("usage", ("Usage, USD", "tokens-large", "250000", "37.5")),
        ("ledger", ("Postings", "burn", "welcome", "3.912.0")),
        ("alerts", ("Alerts", "alert.crossed", "low", "4.2", "2026-11-22T10:00:00.2Z")),
    ):
        shown = call("customers", name, "acme")
        assert shown.exit_code == 0 and all(text in shown.stdout for text in told), shown.output
        (line,) = call("customers", name, "acme", "--json").stdout.splitlines()
        assert line.startswith("{")
    assert "since=2026-11-01T00:00:00Z" in _query(api, "customers", "usage", "acme", "--since", "2026-11-01T00:00:00Z")
    monkeypatch.setitem(
        ANSWERS, ("GET", "/v1/customers/acme/ledger"), (200, answers["ledger"] | {"next_cursor": "older"})
    )
    assert "more: --cursor older" in call("customers", "ledger", "acme").stderr
    assert "cursor=older" in _query(api, "customers", "ledger", "acme", "--cursor", "older")


def _query(api: FakeApi, *arguments: str) -> str:
    assert call(*arguments).exit_code == 0
    return api.queries[-1]
