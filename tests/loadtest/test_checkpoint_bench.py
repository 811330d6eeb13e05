"""The bench's own sums. The whole of it is `make bench-checkpoint`."""

from loadtest.checkpoint_bench import Run, figures_of


def one_round(on: float, no_op: float, off: float) -> dict[str, Run]:
    return {"on": Run(on, 5, 500), "no-op": Run(no_op, 6, 600), "off": Run(off, 0, 0)}


def test_a_ratio_is_taken_within_its_round_and_the_median_counts() -> None:
    found = figures_of([one_round(80, 100, 160), one_round(9, 10, 10), one_round(50, 100, 100)])
    assert (found["on_to_no_op"], found["on_to_no_op_each"]) == (0.8, [0.8, 0.9, 0.5])
    assert (found["on_to_off"], found["on_to_off_each"]) == (0.5, [0.5, 0.9, 0.5])
    assert found["records_per_s"] == {"on": 50, "no-op": 100, "off": 100}
