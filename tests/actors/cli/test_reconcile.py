"""`tallygate reconcile`: what it needs, and how much it samples."""

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from tests.actors.cli.calling import INCOMPLETE, beside_stored, call


def test_reconciling_takes_a_share_of_the_accounts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "exit status 1" in call("reconcile", "--help").stdout.lower()
    assert call("reconcile", "--sample", "1.5").exit_code == WRONG_INPUT
    result = call("reconcile", "--all")
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert "postgres.dsn is not set" in result.stderr


@pytest.mark.parametrize(("stored", "told"), INCOMPLETE)
def test_a_partition_that_is_missing_is_no_proof(
    stored: tuple[int, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a wrong schema, or a row that is gone, nothing could be found to differ."""
    beside_stored(monkeypatch, 3, *stored)
    for command in (("reconcile",), ("reconcile", "--json")):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (FAILED, "")
        assert told in " ".join(result.stderr.split())
