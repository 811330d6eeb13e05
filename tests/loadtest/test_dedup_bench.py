"""The bench of the memory of rated events, with as many identities as a test has time for."""

from pathlib import Path

import orjson
import pytest

from engine import dedup as dedup_module
from loadtest.dedup_bench import Spent, batch_of, main


def test_a_short_run_writes_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dedup_module, "RUN_MIN", 20_000)
    report = tmp_path / "made" / "report.json"
    assert main(["--ids", "100000", "--report", str(report)]) == 0
    figures = orjson.loads(report.read_bytes())
    assert figures["ids"] == 100_000
    assert figures["memory"]["runs"] >= 4
    assert 16 < figures["memory"]["at_rest_bytes_per_id"] <= 20.1  # small runs: the outline is not packed
    assert figures["known"]["asked"] > 10_000
    assert figures["takeover"]["load_s"] > 0
    assert list(report.parent.iterdir()) == [report], "the runs are gone"


def test_too_few_identities_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--ids", "10"])
    assert "--ids must be at least" in capsys.readouterr().err


def test_a_batch_is_the_same_every_time_and_unlike_the_next() -> None:
    assert batch_of(3, 10) == batch_of(3, 10)
    assert len({*batch_of(3, 10), *batch_of(4, 10)}) == 20


def test_what_was_spent_is_told_by_part_and_in_all() -> None:
    spent = Spent()
    with spent.on("one"):
        sum(range(10_000))
    with spent.on("other"):
        pass
    told = spent.each(10)
    assert list(told["cpu_us"]) == ["one", "other"]
    assert told["wall_us_all"] > 0
