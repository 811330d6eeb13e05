"""What a command changes itself stands in the audit trail, with its reason and its end; without a trail nothing happens."""

import asyncio
import getpass

import asyncpg
import pytest

from actors.audit import Audit, AuditEntry
from actors.cli import trail
from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.ports import StoreUnavailable
from tests.actors.cli.calling import call, trail_of

SCHEMA = "cli_trail"


@pytest.fixture
def dsn(database: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("DATABASE_URL", database)
    monkeypatch.setenv("TALLYGATE_POSTGRES__SCHEMA_NAME", SCHEMA)
    monkeypatch.setenv("TALLYGATE_REASON", "ticket 81")
    assert call("migrate").exit_code == 0
    return database


def test_what_commands_change_stands_there_with_who_why_and_how_it_ended(dsn: str) -> None:
    made = call("keys", "create", "ci", "--scope", "read", "--account", "acme", "--expires", "2100-01-01T00:00:00Z")
    _, _, public_id, secret, _ = made.stdout.strip().split("_")
    assert call("keys", "revoke", public_id).exit_code == 0
    assert call("keys", "revoke", "nobody").exit_code == WRONG_INPUT
    found = trail_of(dsn, SCHEMA)
    assert [(row.act, row.stage, row.account, row.subject) for row in found] == [
        ("create_key", "asked", "acme", ""),
        ("create_key", "done", "acme", public_id),
        ("revoke_key", "asked", None, public_id),
        ("revoke_key", "done", None, public_id),
        ("revoke_key", "asked", None, "nobody"),
        ("revoke_key", "refused", None, "nobody"),
    ]
    assert {row.reason for row in found} == {"ticket 81"}
    assert {row.actor for row in found} == {trail.actor()}
    assert found[0].request_id == found[1].request_id != found[2].request_id
    assert found[0].after == found[1].after and b'"read"' in (found[0].after or b"")
    assert b"nobody" in (found[5].after or b"")
    assert all(secret not in repr(row) for row in found)


def test_without_a_row_nothing_happens(dsn: str) -> None:
    async def rename(before: str, after: str) -> None:
        connection = await asyncpg.connect(dsn)
        await connection.execute(f"ALTER TABLE {SCHEMA}.{before} RENAME TO {after}")
        await connection.close()

    asyncio.run(rename("audit", "mislaid"))
    try:
        refused = call("keys", "create", "unseen", "--scope", "read")
    finally:
        asyncio.run(rename("mislaid", "audit"))
    assert (refused.exit_code, refused.stdout) == (FAILED, "")
    assert "unseen" not in call("keys", "list").stdout


def test_how_it_ended_may_be_missing_and_is_said_to_be(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    record = Audit.record

    async def record_no_end(self: Audit, entry: AuditEntry) -> None:
        if entry.stage != "asked":
            raise StoreUnavailable("away")
        await record(self, entry)

    monkeypatch.setattr(Audit, "record", record_no_end)
    made = call("keys", "create", "kept", "--scope", "read")
    assert (made.exit_code, made.stdout.startswith("tg_live_")) == (0, True), (
        "it has happened, whatever became of the row"
    )
    assert "how it ended is not in the audit trail: away" in made.stderr


def test_a_user_without_a_name_is_told_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("uid not found")

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert trail.actor().split("@")[0].removeprefix("command:").isdigit()
