"""`tallygate reconcile`: what it needs, and how much it samples."""

import pytest

from actors.cli.terminal import WRONG_INPUT
from tests.actors.cli.calling import call


def test_reconciling_takes_a_share_of_the_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "exit status 1" in call("reconcile", "--help").stdout.lower()
    assert call("reconcile", "--sample", "1.5").exit_code == WRONG_INPUT
    result = call("reconcile", "--all")
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert "postgres.dsn is not set" in result.stderr
