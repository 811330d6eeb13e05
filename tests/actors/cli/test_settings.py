"""`tallygate settings`: a file that can be saved; wrong settings, a line each."""

import tomllib
from pathlib import Path

import pytest

from actors.cli.terminal import WRONG_INPUT
from config.settings import Settings
from tests.actors.cli.calling import call


def test_settings_prints_a_file_that_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "12")
    monkeypatch.setenv("TALLYGATE_LEASE__LEASE_S", "2.5")
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "a:1,b:2")
    monkeypatch.setenv("TRACE", 'odd "name".csv')
    monkeypatch.setenv("DATABASE_URL", "postgresql://u:hunter2@h/db")
    result = call("settings")
    assert result.exit_code == 0
    assert "hunter2" not in result.stdout
    read = Settings.model_validate(tomllib.loads(result.stdout))
    assert (read.kafka.partitions, read.lease.lease_s) == (12, 2.5)
    assert (read.kafka.bootstrap_servers, read.trace) == ("a:1,b:2", Path('odd "name".csv'))


def test_wrong_settings_are_wrong_input_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TALLYGATE_KAFKA__PARTITIONS", "0")
    monkeypatch.setenv("TALLYGATE_NONSENSE", "1")
    result = call("settings")
    assert result.exit_code == WRONG_INPUT
    assert [line.split(":")[0] for line in result.stderr.splitlines()] == ["TALLYGATE_NONSENSE", "kafka.partitions"]
