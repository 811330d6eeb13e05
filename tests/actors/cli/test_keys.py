"""`tallygate keys`: over HTTP, and in a real database."""

from typing import Any

import pytest

from actors.cli.terminal import WRONG_INPUT
from actors.door_wire import door_token
from tests.actors.cli.calling import FakeApi, asks_once, call

ASKS = [
    (
        ("keys", "create", "ci", "--scope", "ingest", "--scope", "check", "--account", "acme"),
        ("POST", "/v1/keys", {"name": "ci", "scopes": ["ingest", "check"], "account": "acme"}),
        "tg_live_made",
    ),
    (("keys", "revoke", "abc"), ("DELETE", "/v1/keys/abc", {}), "abc is revoked"),
]


@pytest.mark.parametrize(("arguments", "asked", "told"), ASKS)
def test_each_change_is_one_request_and_one_line(
    arguments: tuple[str, ...], asked: tuple[str, str, dict[str, Any]], told: str, api: FakeApi
) -> None:
    asks_once(api, arguments, asked, told)


@pytest.mark.parametrize(
    "wrong", [("--scope", "root"), ("--scope", "read", "--expires", "tomorrow")], ids=["scope", "expires"]
)
def test_a_wrong_key_is_not_even_asked_for(wrong: tuple[str, ...]) -> None:
    result = call("keys", "create", "ci", *wrong)
    assert (result.exit_code, wrong[-1] in result.stderr) == (WRONG_INPUT, True)


def test_keys_are_made_listed_and_ended_in_a_real_database(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("TALLYGATE_POSTGRES__SCHEMA_NAME", "cli_keys")
    assert call("migrate").exit_code == 0
    made = call("keys", "create", "ci", "--scope", "ingest", "--account", "acme", "--expires", "2100-01-01T00:00:00Z")
    assert (made.exit_code, made.stdout.count("\n"), made.stdout.startswith("tg_live_")) == (0, 1, True)
    public_id = made.stdout.split("_")[2]
    listed = call("keys", "list")
    assert public_id in listed.stdout
    assert made.stdout.split("_")[3] not in listed.stdout, "no secret is shown twice"
    assert call("keys", "revoke", public_id).stdout == f"{public_id} is revoked\n"
    unknown = call("keys", "revoke", "nobody")
    assert (unknown.exit_code, "tallygate keys list" in unknown.stderr) == (WRONG_INPUT, True)


def test_the_token_of_the_doors_follows_from_the_control_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "5a" * 32)
    shown = call("keys", "door")
    assert (shown.exit_code, shown.stdout.strip()) == (0, door_token(bytes.fromhex("5a" * 32)))
    assert "5a5a" not in shown.stdout
    monkeypatch.delenv("TALLYGATE_CONTROL_KEY")
    missing = call("keys", "door")
    assert missing.exit_code != 0 and "TALLYGATE_CONTROL_KEY" in missing.stderr
