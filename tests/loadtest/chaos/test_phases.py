"""What the phases put into the report; what they do is tested on real servers, in tests/integration."""

from pathlib import Path
from random import Random
from types import SimpleNamespace

import pytest

from actors.deployment import NotReady
from loadtest.chaos import phases
from loadtest.chaos.phases import Counts, Phase, run_phases
from loadtest.chaos.report import Report


def silent(_line: str) -> None:
    pass


def test_a_phase_that_reports_twice_adds_up() -> None:
    report = Report("make chaos")
    phases._add(report, Phase.DISK, {"checkpoints": 3, "full": ["tables"]}, [])
    phases._add(report, Phase.DISK, {"checkpoints": 4, "full": ["tables", "log"]}, ["a sentence"])
    assert report.phases["disk"] == {"checkpoints": 7, "full": ["tables", "log"]}
    assert report.wrong == ["disk: a sentence"]


async def test_no_phase_starts_no_server(tmp_path: Path) -> None:
    await run_phases([], Counts(), 1, tmp_path / "run", Report("make chaos"), silent)
    assert not (tmp_path / "run").exists()


async def test_where_no_disk_can_be_mounted_the_report_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(phases, "why_not", lambda: "only root may")
    report, said = Report("make chaos"), list[str]()
    servers = phases.Servers(None, "", None)  # type: ignore[arg-type]  # nothing may be asked of them
    await phases._disk(servers, Counts(), Random(1), report, said.append)
    assert report.phases["disk"] == {"skipped": "only root may"}
    assert said == ["disk: SKIPPED, only root may"]
    assert report.faults == {}


async def test_a_phase_that_breaks_off_is_a_sentence_and_not_the_end_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def breaks(*_: object) -> None:
        raise NotReady("waited 120 s for a checkpoint")

    monkeypatch.setitem(phases._PHASES, Phase.CUTS, breaks)
    monkeypatch.setattr(phases, "start_postgres", lambda _: SimpleNamespace(superuser_dsn=""))
    monkeypatch.setattr(phases, "start_kafka", lambda _, listeners: None)
    report = Report("make chaos")
    await run_phases([Phase.CUTS], Counts(), 1, tmp_path / "run", report, silent)
    assert report.wrong == ["cuts: NotReady: waited 120 s for a checkpoint"]
