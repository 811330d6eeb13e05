"""`tallygate base`: a seal is checked with the deployment's key."""

from pathlib import Path

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from tests.actors.cli.calling import call


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
