"""`tallygate rebuild`: what it needs, and which partition it takes."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from typer.testing import Result

from actors import proofs
from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.rebuild import Fold
from tests.actors.cli.calling import INCOMPLETE, beside_stored, call
from tests.actors.proof_rig import ProofRig
from tests.actors.test_rebuild import sealed
from tests.engine.bench import Bench


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


def rebuilt_from(base_too: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Result:
    """`rebuild --verify` of a small partition that skipped a record, from the beginning or from its newest checkpoint."""

    async def rebuild(*_: object) -> AsyncIterator[Fold]:
        bench = Bench()
        bench.open()
        with monkeypatch.context() as broken:
            broken.setattr("engine.account.Account.rate", lambda *_: 1 // 0)
            bench.use(5)
        rig = ProofRig(bench)
        rig.checkpoint()
        fold = await rig.fold(await sealed(rig, tmp_path) if base_too else None)
        await fold.run(lambda _: None)
        yield fold

    monkeypatch.setattr(proofs, "rebuild", rebuild)
    return call("rebuild", "--verify")


def test_a_fold_of_no_records_says_that_it_proves_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = rebuilt_from(True, monkeypatch, tmp_path)
    told = " ".join(result.stdout.split())
    assert "nothing was folded, and this proves nothing; give --base with an older base, or none" in told
    assert "equal to the last byte" not in told and "skipped" not in told


def test_what_was_skipped_is_told_beside_what_is_equal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    result = rebuilt_from(False, monkeypatch, tmp_path)
    assert result.exit_code == 0
    assert "partition 0: 1 of these records are stored as engine errors and were skipped" in result.stdout
    assert "equal to the last byte" in result.stdout
