"""The order of the parts, and what one that fails leaves."""

import sys
from collections.abc import Sequence
from pathlib import Path

import orjson
import pytest

from loadtest.bench import __main__ as bench
from loadtest.bench.__main__ import Part


def test_every_part_has_a_command_and_a_short_form(tmp_path: Path) -> None:
    whole, short = bench.commands((), False, tmp_path), bench.commands((), True, tmp_path)
    assert list(whole) == list(bench.PARTS)
    for name, line in whole.items():
        assert line[:3] == [sys.executable, "-m", bench.PARTS[name].module]
        assert len(short[name]) > len(line)
    assert list(bench.commands(["check"], False, tmp_path)) == ["check"]


def test_a_part_that_fails_leaves_nothing_and_keeps_nobody_from_running(tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    bench.report_of("check", folder).write_text('{"of": "an older run"}')

    def run(part: Part, line: Sequence[str], within_s: float) -> int:
        report = Path(line[line.index("--report") + 1])
        if "check" in report.name:
            return 1
        report.write_text('{"saturation": {"ratio_per_core": 0.5}}')
        return 0

    assert bench.main(["--folder", str(folder), "--only", "check", "--only", "one_shard"], run) == 1
    figures = orjson.loads((tmp_path / "bench.json").read_bytes())
    assert figures["failed"] == ["check"]
    assert figures["parts"] == {"one_shard": {"saturation": {"ratio_per_core": 0.5}}}
    assert figures["machine"]["cores"]
    assert "0.5" in (tmp_path / "bench.html").read_text()


def test_the_budget_bounds_every_part_and_what_one_leaves_goes_to_the_others(tmp_path: Path) -> None:
    given: dict[str, float] = {}

    def run(part: Part, line: Sequence[str], within_s: float) -> int | None:
        given[part.module] = within_s
        return None

    assert bench.main(["--folder", str(tmp_path / "bench"), "--budget", "10"], run) == 1
    within = list(given.values())
    figures = orjson.loads((tmp_path / "bench.json").read_bytes())
    assert figures["failed"] == list(bench.PARTS) == list(figures["seconds_by_part"])
    assert sum(bench.share(name, list(bench.PARTS), 600) + bench.STOP_S for name in bench.PARTS) == pytest.approx(600)
    # Here none took any time, so the last has nearly all that there was.
    assert within[-1] == pytest.approx(600 - bench.STOP_S, abs=5)
    assert within[0] < within[-1] / 2
    assert bench.share("check", ["check"], 5.0) == 0.0
    # Where there is enough for all, the first may take whatever the others leave.
    behind_s = 60 * sum(part.minutes for name, part in bench.PARTS.items() if name != "check")
    assert bench.share("check", list(bench.PARTS), behind_s + 600) == pytest.approx(600 - bench.STOP_S)
    assert sum(part.minutes for part in bench.PARTS.values()) < bench.BUDGET_MIN


def test_a_part_that_takes_too_long_is_stopped_and_cleans_up(tmp_path: Path) -> None:
    left = tmp_path / "left"
    code = f"""
import time
try:
    time.sleep(60)
finally:
    open({str(left)!r}, "w").close()
"""
    part = Part("", 1.0, (), tmp_path / "run")
    assert bench.in_a_process(part, [sys.executable, "-c", code], 1.0) is None
    assert left.exists(), "it had the time to stop in order"
    assert bench.in_a_process(part, [sys.executable, "-c", "raise SystemExit(3)"], 30.0) == 3
