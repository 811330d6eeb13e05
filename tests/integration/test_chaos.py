"""A short run of `make chaos`: six kills of six kinds on real servers, then every amount is held against the oracle."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
KINDS = {"shard", "broker", "postmaster", "controller", "postgres backend", "replica"}
EVENTS = 20_000


@pytest.mark.long  # a Ray of three nodes does not start reliably where other work shares two cores
@pytest.mark.timeout(1_500)
def test_six_kills_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    report_path, run_dir = tmp_path / "chaos.json", tmp_path / "run"
    command = [sys.executable, "-m", "loadtest.chaos", "--kills", str(len(KINDS)), "--events", str(EVENTS)]
    command += ["--per-s", "400", "--report-delay-s", "15", "--report", str(report_path), "--run-dir", str(run_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_400, check=False)
    said = done.stdout[-6_000:] + done.stderr[-2_000:]
    assert done.returncode == 0, said
    report = json.loads(report_path.read_text())
    assert set(report["faults"]) == KINDS
    assert report["events"] >= EVENTS
    assert (report["lost"], report["double"], report["overspend"]) == (0, 0, 0)
    assert report["oracle_equal"]
    assert report["wrong"] == []
    kills = report["phases"]["kills"]
    assert kills["accounts_identical"] == kills["accounts"] > 0
    assert (kills["alerts_missing"], kills["alerts_extra"], kills["holds_open_at_end"]) == (0, 0, 0)
    assert kills["requests_allowed"]
    assert kills["alerts"]
    assert report["takeover"]["shard"]["seconds"][0] > 0, "a shard that was killed was missed by nobody"
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(run_dir) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid()
    ]
    assert left == [], "something that the run has started outlives it"
