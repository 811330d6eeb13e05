"""`tallygate rebuild`: what it needs, and which partition it takes."""

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from tests.actors.cli.calling import INCOMPLETE, beside_stored, call


def test_rebuilding_needs_servers_and_the_account_s_own_partition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "5a" * 32)
    result = call("rebuild")
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert "postgres.dsn is not set; set DATABASE_URL" in result.stderr
    result = call("rebuild", "--account", "acme", "--partition", "0")
    assert result.exit_code == WRONG_INPUT
    assert "account acme lives in partition " in result.stderr
    assert call("base", "seal").exit_code == WRONG_INPUT


@pytest.mark.parametrize(("stored", "told"), INCOMPLETE)
def test_a_partition_that_is_missing_is_no_proof(
    stored: tuple[int, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a wrong schema, or a row that is gone, nothing could be found to differ."""
    beside_stored(monkeypatch, 3, *stored)
    for command in (("rebuild",), ("rebuild", "--verify")):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (FAILED, "")
        assert told in " ".join(result.stderr.split())
