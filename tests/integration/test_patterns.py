"""Every contender in short, on real servers. Its figures mean nothing here; what it lost and overspent does."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest

ROOT = Path(__file__).parents[2]
FIELDS = ("check_p50_ms", "balance_p50_ms", "alert_p50_ms", "overspend_requests", "after_kill")
CLEAN = {"lost_pico": 0, "doubled_pico": 0}


@pytest.mark.long
@pytest.mark.timeout(800)
def test_every_contender_is_tried(database: str, kafka: str, tmp_path: Path) -> None:
    report = tmp_path / "patterns.json"
    command = [sys.executable, "-m", "loadtest.patterns", "--smoke", "--report", str(report)]
    environment = {**os.environ, "DATABASE_URL": database, "KAFKA_BOOTSTRAP_SERVERS": kafka}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=780, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = orjson.loads(report.read_bytes())
    found: dict[str, dict[str, Any]] = figures["contenders"]
    ours = {"ours_http", "ours_door", "ours_lease"}
    assert {*ours, "sql_timer", "in_process"} <= set(found)
    assert {*found, *figures["skipped"]} == {*ours, "olap_query", "sql_timer", "redis", "in_process"}
    for name, figure in found.items():
        missing = [field for field in FIELDS if figure.get(field) is None]
        assert not missing or (name, missing) == ("ours_http", ["after_kill"]), name
    assert all(found[name]["overspend_requests"] == 0 for name in ours)
    assert found["ours_door"]["after_kill"] == found["ours_lease"]["after_kill"] == CLEAN
    assert found["sql_timer"]["overspend_requests"] > 0, "a balance of five seconds ago lets callers overspend"
    assert found["sql_timer"]["after_kill"] == CLEAN
    assert found["in_process"]["overspend_requests"] > 0
    assert found["in_process"]["after_kill"]["lost_pico"] > 0
