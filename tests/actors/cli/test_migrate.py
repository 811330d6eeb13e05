"""`tallygate migrate`: tables, and the engine's password."""

from pathlib import Path

import pytest

from actors.cli.terminal import WRONG_INPUT
from tests.actors.cli.calling import call


def test_an_empty_password_file_is_wrong_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://owner:secret@127.0.0.1:1/none")
    empty = tmp_path / "password"
    empty.write_text("")
    result = call("migrate", "--engine-password-file", str(empty))
    assert (result.exit_code, "1 to 128 characters" in result.stderr) == (WRONG_INPUT, True)
