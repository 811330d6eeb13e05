"""The command line as a whole: what commands there are, and the demo, which is above all packages."""

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from actors.cli.terminal import FAILED, WRONG_INPUT
from config.settings import Settings
from tests.actors.cli.calling import call, without_settings


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    without_settings(monkeypatch, tmp_path)


def test_help_names_every_command() -> None:
    result = call("--help")
    assert result.exit_code == 0
    for command in (
        "up",
        "customers",
        "keys",
        "balance",
        "explain",
        "tail",
        "catalogue",
        "topics",
        "migrate",
        "dead-letters",
        "limits",
        "webhooks",
        "audit",
        "shards",
        "base",
        "rebuild",
        "reconcile",
        "demo",
    ):
        assert command in result.stdout


def test_an_unknown_command_is_wrong_input() -> None:
    assert call("nothing").exit_code == WRONG_INPUT


def test_the_demo_gets_settings_and_options_and_gives_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Settings, SimpleNamespace]] = []

    def run(settings: Settings, options: SimpleNamespace) -> int:
        asked.append((settings, options))
        return FAILED

    demo = ModuleType("loadtest.demo")
    vars(demo).update(DemoOptions=SimpleNamespace, run=run)
    monkeypatch.setitem(sys.modules, "loadtest.demo", demo)
    monkeypatch.setattr("loadtest.demo", demo, raising=False)
    assert call("demo", "--events", "5000", "--no-kill").exit_code == FAILED
    ((settings, options),) = asked
    assert settings == Settings()
    assert (options.events, options.kill, options.report) == (5_000, False, Path("build/demo.json"))
