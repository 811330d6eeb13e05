"""`tallygate dead-letters`: from a real database."""

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from tests.actors.cli.calling import call


def test_without_a_database_it_says_what_to_set() -> None:
    result = call("dead-letters")
    assert (result.exit_code, "DATABASE_URL" in result.stderr) == (WRONG_INPUT, True)


def test_there_are_none_in_new_tables(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", database)
    assert call("dead-letters").exit_code == FAILED, "there are no tables yet"
    assert call("migrate").exit_code == 0
    shown = call("dead-letters")
    assert (shown.exit_code, "Dead letters" in shown.stdout, "The newest" in shown.stdout) == (0, True, True)
