"""Short runs of `make chaos`: kills on real servers under load; then the oracle judges every amount."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from loadtest.chaos.schedule import SHARES

ROOT = Path(__file__).resolve().parents[2]
SOON_BACK = ("shard", "controller", "replica", "postgres backend", "broker")


def killed(run_dir: Path, *options: str) -> dict[str, Any]:
    """The report of a run that holds: nothing is lost, nothing doubled, and no process outlives it."""
    report_path = run_dir.with_suffix(".json")
    command = [sys.executable, "-m", "loadtest.chaos", "--only", "kills", *options, "--per-s", "400"]
    command += ["--report-delay-s", "15", "--report", str(report_path), "--run-dir", str(run_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_400, check=False)
    assert done.returncode == 0, done.stdout[-6_000:] + done.stderr[-2_000:]
    report: dict[str, Any] = json.loads(report_path.read_text())
    assert (report["lost"], report["double"], report["overspend"]) == (0, 0, 0)
    assert report["oracle_equal"]
    assert report["wrong"] == []
    found = report["phases"]["kills"]
    assert found["accounts_identical"] == found["accounts"] > 0
    assert (found["alerts_missing"], found["alerts_extra"], found["holds_open_at_end"]) == (0, 0, 0)
    assert found["requests_allowed"]
    assert found["alerts"]
    assert found["rated"]
    assert report["takeover"]["shard"]["seconds"][0] > 0, "a shard that was killed was missed by nobody"
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(run_dir) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid()
    ]
    assert left == [], "something that the run has started outlives it"
    return report


def test_a_run_that_is_asked_for_no_fault_is_no_proof(tmp_path: Path) -> None:
    report_path = tmp_path / "chaos.json"
    command = [sys.executable, "-m", "loadtest.chaos", "--only", "kills", "--kills", "0"]
    command += ["--report", str(report_path), "--run-dir", str(tmp_path / "run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "FAILED, without kills; written to" in done.stdout
    assert json.loads(report_path.read_text())["phases"] == {"kills": {"skipped": "no fault was asked for"}}


@pytest.mark.timeout(1_500)
def test_a_kill_of_what_is_soon_back_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    """On a Ray of one node: a second one takes a minute to start, and crashes where the cores are busy."""
    kinds = [word for kind in SOON_BACK for word in ("--kind", kind)]
    report = killed(tmp_path / "run", "--nodes", "0", "--kills", str(len(SOON_BACK)), *kinds, "--events", "8000")
    assert report["faults"] == dict.fromkeys(SOON_BACK, 1)
    assert report["events"] >= 8_000


@pytest.mark.long  # minutes, of which the start of three nodes is one
@pytest.mark.timeout(1_500)
def test_a_kill_of_every_kind_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    report = killed(tmp_path / "run", "--kills", str(len(SHARES)), "--events", "20000")
    assert set(report["faults"]) == {kill.kind for kill in SHARES}
    assert report["events"] >= 20_000
