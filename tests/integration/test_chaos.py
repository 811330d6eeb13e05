"""A short run of `make chaos`: a kill of every kind on real servers; then the oracle judges every amount."""

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from loadtest.chaos.schedule import SHARES

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 20_000


@pytest.mark.long  # minutes, of which the start of three nodes is one: `make test` has pauses, cuts and a full disk
@pytest.mark.timeout(1_500)
def test_a_kill_of_every_kind_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    report_path, run_dir = tmp_path / "chaos.json", tmp_path / "run"
    command = [sys.executable, "-m", "loadtest.chaos", "--only", "kills", "--kills", str(len(SHARES))]
    command += ["--events", str(EVENTS), "--per-s", "400", "--report-delay-s", "15"]
    command += ["--report", str(report_path), "--run-dir", str(run_dir)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1_400, check=False)
    said = done.stdout[-6_000:] + done.stderr[-2_000:]
    assert done.returncode == 0, said
    report = json.loads(report_path.read_text())
    assert set(report["faults"]) == {kill.kind for kill in SHARES}
    assert report["events"] >= EVENTS
    assert (report["lost"], report["double"], report["overspend"]) == (0, 0, 0)
    assert report["oracle_equal"]
    assert report["wrong"] == []
    found = report["phases"]["kills"]
    assert found["accounts_identical"] == found["accounts"] > 0
    assert (found["alerts_missing"], found["alerts_extra"], found["holds_open_at_end"]) == (0, 0, 0)
    assert found["requests_allowed"]
    assert found["alerts"]
    assert report["takeover"]["shard"]["seconds"][0] > 0, "a shard that was killed was missed by nobody"
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline"])
        if str(run_dir) in " ".join(process.info["cmdline"] or []) and process.pid != os.getpid()
    ]
    assert left == [], "something that the run has started outlives it"
