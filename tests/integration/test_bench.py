"""The bench in short: everything of it on real servers, and every amount right. Its figures mean nothing here."""

import os
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.long  # two minutes of servers, to see that figures are made; the parts have tests of their own
@pytest.mark.timeout(700)
def test_one_shard_is_measured_and_exact(database: str, kafka: str, tmp_path: Path) -> None:
    report = tmp_path / "one-shard.json"
    command = [sys.executable, "-m", "loadtest.bench.one_shard", "--report", str(report)]
    command += [
        "--events",
        "15000",
        "--customers",
        "200",
        "--start",
        "400",
        "--ceiling",
        "1000",
    ]
    command += ["--step-s", "2", "--half-s", "2", "--checks", "100"]
    environment = {**os.environ, "DATABASE_URL": database, "KAFKA_BOOTSTRAP_SERVERS": kafka}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=680, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = orjson.loads(report.read_bytes())
    saturation, ramp = figures["saturation"], figures["ramp"]
    # A tick may have come behind what the shard was asked to rate, in the batch that the bare loop ended with.
    assert saturation["bare"]["records"] >= saturation["shard"]["records"] > 15_000
    assert saturation["bare"]["decoded"] > 14_000
    assert 0 < saturation["ratio_per_core"] < 1
    assert ramp["saturation_per_s"] >= 400
    half = ramp["half"]
    assert half["checks"]["scheduled"] == half["check_ms"]["count"] > 100
    assert half["checks"]["failed"] == 0
    assert half["webhook_ms"]["count"] > 0
    assert figures["exact"]["rated"] > 15_000
    assert figures["exact"]["alerts"] > 0
