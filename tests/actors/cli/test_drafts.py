"""`tallygate catalogue drafts`: what it asks, and what it shows."""

from typing import Any

import msgspec
import orjson
import pytest

from actors.cli.terminal import WRONG_INPUT
from actors.web import draft_routes
from config.catalogue import load_file
from tests.actors.cli.calling import ANSWERS, EXAMPLE, FakeApi, asks_once, beside_up, call

DRAFTS = "/v1/catalogue/drafts"
PAGE, WHOLE, MADE, APPROVED, DISCARDED = (route.example.response for route in draft_routes.ROUTES)
ASKS: list[tuple[tuple[str, ...], tuple[str, str, dict[str, Any]], str]] = [
    (
        ("catalogue", "drafts", "approve", "7"),
        ("POST", f"{DRAFTS}/7/approve", {}),
        "draft 7: version 2, in force for event times from 2026-12-01T00:00:00Z on",
    ),
    (("catalogue", "drafts", "discard", "7"), ("POST", f"{DRAFTS}/7/discard", {}), "draft 7 is discarded"),
]


@pytest.fixture(autouse=True)
def drafts_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, ("GET", DRAFTS), (200, PAGE))
    monkeypatch.setitem(ANSWERS, ("POST", DRAFTS), (201, MADE))
    monkeypatch.setitem(ANSWERS, ("GET", f"{DRAFTS}/7"), (200, WHOLE))
    monkeypatch.setitem(ANSWERS, ("POST", f"{DRAFTS}/7/approve"), (200, APPROVED))
    monkeypatch.setitem(ANSWERS, ("POST", f"{DRAFTS}/7/discard"), (200, DISCARDED))


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_decision_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)


def test_a_file_is_sent_whole_and_what_it_changes_is_told(api: FakeApi) -> None:
    beside_up(api.url)
    result = call("catalogue", "drafts", "add", str(EXAMPLE))
    assert result.exit_code == 0, result.stderr
    assert result.stdout.splitlines() == [
        "draft 7, made from version 1 by k7Hq2mPz at 2026-11-20T09:00:00Z: draft",
        "plan starter, USD: changed",
        "  price output-large: 12 per 1000000 -> 15 per 1000000 (+25%)",
    ]
    ((method, path, body, _),) = api.asked
    assert (method, path, body) == ("POST", DRAFTS, orjson.loads(msgspec.json.encode(load_file(EXAMPLE))))


def test_a_draft_is_shown_and_listed(api: FakeApi) -> None:
    beside_up(api.url)
    assert orjson.loads(call("catalogue", "drafts", "show", "7", "--json").stdout) == WHOLE
    listed = call("catalogue", "drafts", "list").stdout
    for text in ("approved", "b3Xw9nLc", "2026-12-01T00:00:00Z"):
        assert text in listed


def test_an_approval_states_its_instant(api: FakeApi) -> None:
    beside_up(api.url)
    call("catalogue", "drafts", "approve", "7", "--effective", "2026-12-01T00:00:00Z")
    assert api.queries == ["effective=2026-12-01T00:00:00Z"]


def test_a_file_with_faults_is_not_sent(api: FakeApi, tmp_path: Any) -> None:
    beside_up(api.url)
    bad = tmp_path / "bad.yaml"
    bad.write_text("meters: {}\nplans: {}\n")
    result = call("catalogue", "drafts", "add", str(bad))
    assert (result.exit_code, api.asked) == (WRONG_INPUT, [])
