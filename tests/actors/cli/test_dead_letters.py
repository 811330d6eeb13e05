"""`tallygate dead-letters`: from a real database."""

import pytest

from actors.cli import dead_letters
from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.postgres import StoredDeadLetter
from config.settings import Settings
from engine.outcomes import DeadLetterReason, DeadLetterRow
from tests.actors.cli.calling import ANSWERS, FakeApi, asks_once, call


def test_without_a_database_it_says_what_to_set() -> None:
    result = call("dead-letters")
    assert (result.exit_code, "DATABASE_URL" in result.stderr) == (WRONG_INPUT, True)


def test_each_reason_among_the_newest_comes_with_its_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def letter(offset: int, reason: str, key: bytes | None) -> StoredDeadLetter:
        return StoredDeadLetter(3, DeadLetterRow(offset, 0, reason, "why", key, b"{}"))

    async def stored(settings: Settings, newest: int) -> tuple[dict[str, int], list[StoredDeadLetter]]:
        told = [letter(9, DeadLetterReason.NO_PRICE, b"acme"), letter(8, DeadLetterReason.NO_PRICE, b"acme")]
        return {"no_price": 2, "malformed": 1}, [*told, letter(7, DeadLetterReason.MALFORMED, None)]

    monkeypatch.setattr(dead_letters, "_dead_letters", stored)
    shown = call("dead-letters")
    assert shown.exit_code == 0 and "acme" in shown.stdout
    malformed, no_price = shown.stdout.splitlines()[-2:]
    assert malformed.startswith("malformed, such as 3/7: Correct it")
    assert no_price.startswith("no_price, such as 3/9: Publish a catalogue")
    assert "POST /v1/dead-letters/3/9/redrive" in no_price


def test_one_is_sent_again_over_the_api(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    path = "/v1/dead-letters/3/18244/redrive"
    sent = {"account": "acme", "partition": 3, "offset": 18_260, "corrected": False}
    monkeypatch.setitem(ANSWERS, ("POST", path), (202, sent))
    asks_once(api, ("dead-letters", "redrive", "3", "18244"), ("POST", path, {}), "acme: sent again (log 3/18260)")


def test_there_are_none_in_new_tables(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    assert call("dead-letters").exit_code == FAILED, "there are no tables yet"
    assert call("migrate").exit_code == 0
    shown = call("dead-letters")
    assert (shown.exit_code, "Dead letters" in shown.stdout, "The newest" in shown.stdout) == (0, True, True)
