"""`tallygate margin floors`: what it asks, and what it shows."""

from typing import Any

import pytest

from actors.web import floor_routes
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, beside_up, call

FLOOR = "/v1/margin/floors/large-20"
LIST = floor_routes.ROUTES[2].example.response
BODY = {"of": "model", "subject": "atlas-large", "percent": "20", "level": "critical"}


@pytest.fixture(autouse=True)
def floors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANSWERS, ("PUT", FLOOR), (204, None))
    monkeypatch.setitem(ANSWERS, ("DELETE", FLOOR), (204, None))
    monkeypatch.setitem(ANSWERS, ("GET", "/v1/margin/floors"), (200, LIST))


@pytest.mark.parametrize(
    ("arguments", "asked", "told"),
    [
        (
            ("set", "large-20", "model", "atlas-large", "20", "--level", "critical"),
            ("PUT", FLOOR, BODY),
            "large-20: the model atlas-large is to leave 20 % of its revenue in every hour, as critical",
        ),
        (
            ("set", "large-20", "model", "atlas-large", "20", "--clear", "25.5", "--level", "critical"),
            ("PUT", FLOOR, BODY | {"clear_percent": "25.5"}),
            "large-20: the model atlas-large is to leave 20 % of its revenue in every hour, as critical",
        ),
        (("remove", "large-20"), ("DELETE", FLOOR, {}), "large-20: is gone"),
    ],
)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, ("margin", "floors", *arguments), asked, told)


def test_what_has_no_margin_asks_nothing(api: FakeApi) -> None:
    beside_up(api.url)
    assert call("margin", "floors", "set", "x", "colour", "red", "20").exit_code == 2
    assert not api.asked


def test_floors_are_listed_with_how_they_stand(api: FakeApi) -> None:
    beside_up(api.url)
    shown = call("margin", "floors", "list")
    assert shown.exit_code == 0
    for text in ("large-20", "atlas-large", "20.0", "25.0", "critical", "yes", "2026-11-22T10:00:00Z"):
        assert text in shown.stdout
    assert '"ordinal":1' in call("margin", "floors", "list", "--json").stdout
