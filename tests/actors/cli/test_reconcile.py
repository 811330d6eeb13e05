"""`tallygate reconcile`: what it needs, and how much it samples."""

from collections.abc import AsyncIterator

import pytest

from actors import proofs
from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.reconcile.run import Report
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


def test_what_drift_0_does_not_prove_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reconcile(*_: object, **__: object) -> AsyncIterator[Report]:
        yield Report(0, 5, 5)
        yield Report(1, 0, 9, records=9, forwarded=2, skipped=1)

    monkeypatch.setattr(proofs, "reconcile", reconcile)
    result = call("reconcile", "--seed", "7")
    assert result.exit_code == 0
    nothing, empty, skipped, told, total = result.stdout.splitlines()
    assert nothing.startswith(
        "partition 0: no record lies between the start and the checkpoint's end at offset 5: nothing"
    )
    assert empty.startswith("partition 0: offsets 5 to 5: 0 records, ")
    assert skipped.startswith("partition 1: 1 of these records are stored as engine errors and were skipped")
    assert told.startswith("partition 1: offsets 0 to 9: 9 records, 2 of them forwarded, 0 rated lines")
    assert total == "drift 0 (sample 0.01, seed 7)"
