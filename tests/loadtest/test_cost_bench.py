"""The bench of cost attribution, with as many requests as a test has time for."""

from pathlib import Path

import orjson
import pytest

from loadtest.batching import drawn, serve
from loadtest.cost_bench import attributed, main, misallocated, records


def test_a_short_run_writes_every_figure(tmp_path: Path) -> None:
    report = tmp_path / "made" / "report.json"
    said: list[str] = []
    asked = ["--requests", "2000", "--rows", "200", "--rounds", "1", "--live-seconds", "0"]
    asked += ["--traces", str(tmp_path), "--report", str(report)]
    assert main(asked, said.append) == 0
    figures = orjson.loads(report.read_bytes())
    assert figures["arrivals"] == "drawn" and "drawn" in said[0]
    assert set(figures["misallocated"]) == {f"{kind}_{speed}x" for kind in ("conv", "code") for speed in (1, 2, 4)}
    for found in figures["misallocated"].values():
        # Of known truth: by attribution nearly all is where it belongs, by tokens a good part is not.
        assert found["attribution"] <= 0.06 < found["tokens_1_2"]
    conserved = figures["conservation"]
    assert conserved["shares"] > 2_000 and conserved["bill_pico"] > 0
    assert [conserved[error] for error in conserved if error.endswith("_error_pico")] == [0, 0, 0]
    assert figures["speed"]["ends_per_s"] > 0
    assert figures["machine"]["cores"]


def test_what_is_in_the_right_place_is_not_misallocated() -> None:
    served = serve(drawn(50, 1, seed=2))
    assert misallocated([ran.truth_ns * 7 for ran in served], served) == pytest.approx(0)
    assert misallocated([1.0] + [0.0] * 49, served) > 0.9


def test_without_a_profile_more_is_misallocated() -> None:
    served = serve(drawn(200, 1, seed=2))
    by_profile = misallocated(attributed(served, (20_000_000, 50_000_000, 43_000)), served)
    assert by_profile < misallocated(attributed(served, None), served)


def test_the_records_of_the_bench_come_in_the_order_of_their_ends() -> None:
    given = records(3_000, None)
    assert len(given) == 3_000
    assert [at_us for _, _, at_us in given] == sorted(at_us for _, _, at_us in given)
    assert len({value for _, value, _ in given}) == 3_000


def test_nothing_to_measure_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--rounds", "0"])
    assert "--rounds and --requests must be at least 1" in capsys.readouterr().err
