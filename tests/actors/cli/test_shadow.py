"""`tallygate catalogue shadow`: what it asks, and what it shows."""

from typing import Any

import orjson
import pytest

from actors.web import shadow_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, beside_up, call

PATH = "/v1/catalogue/drafts/7/shadow"
STARTED, SHOWN, STOPPED = (route.example.response for route in shadow_routes.ROUTES)


@pytest.fixture(autouse=True)
def shadows_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, ("POST", PATH), (201, STARTED))
    monkeypatch.setitem(ANSWERS, ("GET", PATH), (200, SHOWN))
    monkeypatch.setitem(ANSWERS, ("DELETE", PATH), (200, STOPPED))


@pytest.mark.parametrize(
    ("what", "asked", "told"),
    [
        ("start", ("POST", PATH, {}), "draft 7: its shadow runs; look at it with `tallygate catalogue shadow show 7`"),
        ("stop", ("DELETE", PATH, {}), "draft 7: its shadow is stopped"),
    ],
)
def test_each_act_is_one_request_and_one_line(
    what: str, asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, ("catalogue", "shadow", what, "7"), asked, told)


def test_both_sides_are_shown(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up(api.url)
    monkeypatch.setenv("COLUMNS", "200")
    shown = call("catalogue", "shadow", "show", "7", "--customers", "5", "--account", "acme")
    assert shown.exit_code == 0, shown.stderr
    assert api.queries == ["account=acme&customers=5"]
    lines = shown.stdout.splitlines()
    assert lines[0] == "draft 7: shadow started by k7Hq2mPz at 2026-11-20T09:00:00Z"
    assert lines[-1] == "total 1.2 USD as published, 1.5 under the draft: difference 0.3 (25.00%)"
    assert "3 records of partition 0 are rated as published and dead_lettered.no_price under the draft" in shown.stdout
    assert any("acme" in line and "25.00" in line for line in lines)
    assert orjson.loads(call("catalogue", "shadow", "show", "7", "--json").stdout) == SHOWN


def test_what_is_not_known_yet_is_said(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    beside_up(api.url)
    (place,) = SHOWN["partitions"]
    waiting = {**place, "offset": None, "trouble": "the log was replaced"}
    monkeypatch.setitem(ANSWERS, ("GET", PATH), (200, {**STOPPED, "partitions": [waiting]}))
    shown = call("catalogue", "shadow", "show", "7")
    assert "stopped by b3Xw9nLc at 2026-11-21T09:00:00Z" in shown.stdout
    assert "partition 0 does not get on: the log was replaced" in shown.stderr
    assert "not every partition has begun" in shown.stderr
