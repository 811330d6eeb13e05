"""The order of the parts, and what one that fails leaves."""

import sys
from collections.abc import Sequence
from pathlib import Path

import orjson

from loadtest.bench import __main__ as bench


def test_every_part_has_a_command_and_a_short_form(tmp_path: Path) -> None:
    whole, short = bench.commands((), False, tmp_path), bench.commands((), True, tmp_path)
    assert list(whole) == list(bench.MODULES) == list(bench.SMOKE)
    for name, line in whole.items():
        assert line[:3] == [sys.executable, "-m", bench.MODULES[name]]
        assert len(short[name]) > len(line)
    assert list(bench.commands(["check"], False, tmp_path)) == ["check"]


def test_a_part_that_fails_leaves_nothing_and_keeps_nobody_from_running(tmp_path: Path) -> None:
    folder = tmp_path / "bench"
    folder.mkdir()
    bench.report_of("check", folder).write_text('{"of": "an older run"}')

    def run(line: Sequence[str]) -> int:
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
