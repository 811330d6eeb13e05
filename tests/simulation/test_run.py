"""Many seeds at once: every one of them is answered for, whatever becomes of the processes that run them."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import orjson
import pytest

from tests.simulation import run as run_module
from tests.simulation.run import INTERRUPTED, main
from tests.simulation.simulate import Outcome, lost
from tests.simulation.workers import DEATHS_MAX, Run, WorkersDie, outcomes


def _unharmed(seed: int) -> Outcome:
    outcome = lost(seed, "")
    outcome.violations.clear()
    return outcome


def _dies_at_25(seed: int) -> Outcome:
    if seed == 25:
        os.kill(os.getpid(), signal.SIGKILL)
    return _unharmed(seed)


def _dies(seed: int) -> Outcome:
    raise SystemExit(seed)


@pytest.mark.parametrize("jobs", [1, 2, 3])
def test_every_seed_is_run_once(jobs: int) -> None:
    assert sorted(outcome.seed for outcome in outcomes(range(7, 70), jobs, _unharmed)) == list(range(7, 70))


def test_a_process_that_dies_costs_the_seed_it_was_at_and_no_other() -> None:
    found = {outcome.seed: outcome.violations for outcome in outcomes(range(60), 2, _dies_at_25)}
    assert sorted(found) == list(range(60))
    assert {seed: violations for seed, violations in found.items() if violations} == {
        25: ["the process that ran it ended with -9"]
    }


def test_processes_that_all_die_end_the_run() -> None:
    with pytest.raises(WorkersDie, match=f"{DEATHS_MAX} processes died"):
        list(outcomes(range(1000), 2, _dies))


def test_what_is_broken_off_reports_what_it_has(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken_off(seeds: range, _jobs: int, _run: Run) -> Iterator[Outcome]:
        yield from map(_unharmed, seeds[:3])
        raise KeyboardInterrupt

    monkeypatch.setattr(run_module, "outcomes", broken_off)
    report = tmp_path / "build" / "sim.json"
    assert main(["--seeds", "10", "--start", "5", "--report", str(report)]) == INTERRUPTED
    found = orjson.loads(report.read_bytes())
    assert (found["start"], found["seeds"], found["seeds_asked"], found["complete"]) == (5, 3, 10, False)
    assert found["machine"]["cores"] == os.cpu_count()
    assert "broken off" in capsys.readouterr().out


def test_a_seed_that_fails_is_named_at_once_and_in_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def one_fails(seeds: range, _jobs: int, _run: Run) -> Iterator[Outcome]:
        yield lost(seeds[1], "it was lost")
        said.append(capsys.readouterr().out)
        yield _unharmed(seeds[0])

    said: list[str] = []
    monkeypatch.setattr(run_module, "outcomes", one_fails)
    report = tmp_path / "sim.json"
    assert main(["--seeds", "2", "--start", "8", "--report", str(report)]) == 1
    assert "it was lost" in said[0] and "python -m tests.simulation.run --seed 9" in said[0]
    found = orjson.loads(report.read_bytes())
    assert (found["violations"], found["failed_seeds"], found["complete"]) == (1, [9], True)
