"""`tallygate rebuild`: what it needs, and which partition it takes."""

import pytest

from actors.cli.terminal import WRONG_INPUT
from tests.actors.cli.calling import call


def test_rebuilding_needs_servers_and_the_account_s_own_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "5a" * 32)
    result = call("rebuild")
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert "postgres.dsn is not set; set DATABASE_URL" in result.stderr
    result = call("rebuild", "--account", "acme", "--partition", "0")
    assert result.exit_code == WRONG_INPUT
    assert "account acme lives in partition " in result.stderr
    assert call("base", "seal").exit_code == WRONG_INPUT
