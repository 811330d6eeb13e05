"""The bench of the rating core, with as many events as a test has time for."""

from pathlib import Path

import orjson
import pytest

from loadtest.engine_bench import main, name_of, prepared, rate


def test_a_short_run_writes_every_figure(tmp_path: Path) -> None:
    report = tmp_path / "made" / "report.json"
    asked = ["--events", "600", "--accounts", "5", "--rounds", "2", "--customers", "3000", "--report", str(report)]
    assert main(asked) == 0
    figures = orjson.loads(report.read_bytes())
    assert 0 < figures["ratio"] < 1
    assert min(figures["ratios"]) <= figures["ratio"] <= max(figures["ratios"])
    assert figures["events_per_s"] > 0
    profile = figures["profile_us"]
    assert [name for name, spent in profile.items() if not spent] in ([], ["cut"]), (
        "no step is free; a run this short has no cut"
    )
    assert profile.keys() == {"decode", "identify", "remember", "meter", "rate", "lines", "cut", "rest"}
    assert 0 < figures["libraries_us"] < sum(profile.values())
    assert 300 < figures["bytes_per_customer"] < 1024
    assert figures["live_bytes_per_customer"] > figures["bytes_per_customer"]
    assert figures["machine"]["cores"]


def test_nothing_to_measure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
    assert "--rounds must be at least 1" in capsys.readouterr().err


def test_a_customer_of_the_bench_has_all_that_it_says() -> None:
    account = prepared(1).account(name_of(0))
    assert account is not None
    assert (len(account.lots), len(account.caps), len(account.rules)) == (3, 2, 3)


def test_a_round_that_does_not_rate_every_event_is_no_measurement() -> None:
    key = name_of(0).encode()
    with pytest.raises(AssertionError, match="dead_lettered"):
        rate([key, key], [b"{}", b"{}"], 1)
