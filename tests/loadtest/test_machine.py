"""The facts beside a figure."""

import os
from pathlib import Path

import pytest

from loadtest import machine as module
from loadtest.machine import commit, machine


def test_the_facts_say_where_and_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["some/where/bench.py", "--trials", "3"])
    facts = machine()
    assert facts["command"] == ["bench.py", "--trials", "3"]
    assert (facts["cores"], len(facts["load_before"])) == (os.cpu_count(), 3)
    assert facts["memory_mib"] > 100


def test_a_tree_without_git_has_no_commit(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_ROOT", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit() is None
