"""`tallygate audit`: what it asks, and what it shows."""

import pytest

from actors.web import operations
from tests.actors.cli.calling import ANSWERS, FakeApi, beside_up, call


def test_acts_are_shown_with_who_did_what_and_why(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    (route,) = [each for each in operations.ROUTES if each.path == "/v1/audit"]
    response = route.example.response
    changed = response["items"][0] | {"after": {"amount": "5"}}
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/audit"), (200, response | {"items": [changed]}))
    beside_up(api.url)
    shown = call("audit", "--account", "acme", "--act", "account.open", "--request", "0af3c1-2")
    assert shown.exit_code == 0, shown.stderr
    for text in ("key:k3x9a0b1c2d4", "account.open", "contract 17", '{"amount":"5"}'):
        assert text in shown.stdout
    assert api.queries == ["account=acme&act=account.open&request_id=0af3c1-2&limit=50"]
    assert '"actor":"key:k3x9a0b1c2d4"' in call("audit", "--json").stdout
