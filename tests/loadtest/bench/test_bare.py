"""The bare loop's figures; that it reads a real topic is shown by tests/integration/test_bench.py."""

from loadtest.bench.bare import Pass, summary


def test_rates_are_medians_of_the_passes() -> None:
    passes = [Pass(1_000, 900, seconds, cpu_s) for seconds, cpu_s in ((1.0, 0.5), (0.5, 0.4), (2.0, 0.25))]
    told = summary(passes)
    assert told["records_per_s"] == 1_000
    assert told["records_per_core_s"] == 2_500
    assert (told["records"], told["decoded"], len(told["passes"])) == (1_000, 900, 3)
