"""The report adds up what the phases say, and holds only when nothing is wrong."""

from pathlib import Path

import orjson

from loadtest.chaos.report import Report


def test_faults_are_counted_by_kind_and_takeovers_measured() -> None:
    report = Report("make chaos")
    for takeover_s in (1.0, 3.0, None):
        report.struck("shard", takeover_s)
    report.struck("controller")
    assert report.faults == {"shard": 3, "controller": 1}
    assert report.takeover["shard"].seconds == [1.0, 3.0]
    assert report.takeover["shard"].p50 == 2.0
    assert "controller" not in report.takeover


def test_it_holds_until_a_phase_says_otherwise() -> None:
    report = Report("make chaos")
    report.add("kills", {"checks": 3}, [])
    assert not report.holds, "nobody has compared anything yet"
    report.oracle_equal = True
    assert report.holds
    report.add("cuts", {}, ["partition 2 was lost"])
    assert not report.holds
    assert report.wrong == ["cuts: partition 2 was lost"]


def test_any_lost_double_or_overspent_amount_fails_it() -> None:
    assert not Report("", lost=1, oracle_equal=True).holds
    assert not Report("", double=1, oracle_equal=True).holds
    assert not Report("", overspend=1, oracle_equal=True).holds
    assert not Report("", oracle_equal=False).holds


def test_it_is_written_with_its_circumstances(tmp_path: Path) -> None:
    report = Report("make chaos KILLS=1")
    report.struck("shard", 0.5)
    report.write(tmp_path / "build" / "chaos.json")
    read = orjson.loads((tmp_path / "build" / "chaos.json").read_bytes())
    assert read["command"] == "make chaos KILLS=1"
    assert read["faults"] == {"shard": 1}
    assert read["takeover"]["shard"] == {"seconds": [0.5], "p50": 0.5, "p99": 0.5}
    assert "cores" in read["machine"]
    assert read["written"].endswith("Z")
