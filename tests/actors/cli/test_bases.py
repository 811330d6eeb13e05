"""`tallygate base`: a seal is checked with the deployment's key."""

from pathlib import Path

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from tests.actors.cli.calling import INCOMPLETE, beside_stored, call


def test_a_base_is_checked_with_the_deployment_s_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "partition-0.tgbase"
    file.write_bytes(b"anything")
    result = call("base", "check", str(file))
    assert (result.exit_code, result.stdout) == (WRONG_INPUT, "")
    assert "control_key: is not set" in result.stderr
    monkeypatch.setenv("TALLYGATE_CONTROL_KEY", "5a" * 32)
    result = call("base", "check", str(file))
    assert (result.exit_code, result.stdout) == (FAILED, "")
    assert f"{file}: is no sealed base" in result.stderr


@pytest.mark.parametrize(("stored", "told"), INCOMPLETE)
def test_a_partition_that_is_missing_is_no_proof(
    stored: tuple[int, ...], told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a wrong schema, or a row that is gone, nothing could be found to differ."""
    beside_stored(monkeypatch, 3, *stored)
    for command in (("base", "seal", "--to", "bases"),):
        result = call(*command)
        assert (result.exit_code, result.stdout) == (FAILED, "")
        assert told in " ".join(result.stderr.split())
    assert not Path("bases").exists()
