"""The bench's own sums. The whole of it is `make bench-takeover`."""

from loadtest.takeover_bench import Trial, summary


def test_a_trial_counts_by_its_last_partition_and_the_summary_by_its_worst_trial() -> None:
    found = summary([Trial(1.0, 0.2, 0.9, 4), Trial(3.0, 0.4, 2.9, 4), Trial(2.0, 0.3, 1.9, 4)])
    assert (found["trials"], found["worst_s"]) == (3, 3.0)
    assert found["right_answers_s"]["p50"] == 2.0
    assert found["claimed_s"]["p50"] == 0.3
    assert found["ready_s"]["p50"] == 1.9
    assert [trial["partitions"] for trial in found["each"]] == [4, 4, 4]
