"""The pace in the middle of a run."""

import pytest

from loadtest.bench.saturation import Sample, middle_of, pace_of, rates_of

# Slow to start and idle at the end; in between 1,000 records a second at 80 % of a core.
SAMPLES = [
    Sample(0.0, 0, 0, 1.0),
    Sample(3.0, 50, 40, 1.5),
    *(Sample(4.0 + step, 1_000 * (step + 1), 900 * (step + 1), 2.0 + 0.8 * step) for step in range(9)),
    Sample(13.0, 9_990, 9_000, 9.0),
    Sample(20.0, 10_000, 9_000, 9.5),
]


def test_the_pace_is_taken_where_the_shard_does_nothing_else() -> None:
    pace = pace_of(SAMPLES, 10_000)
    assert pace["records_per_s"] == 1_000
    assert pace["records_per_core_s"] == 1_250
    assert pace["rated_per_s"] == 900
    assert pace["shard_cores"] == pytest.approx(0.8)
    assert pace["measured_records"] == 8_000


def test_a_run_that_nobody_could_watch_is_refused() -> None:
    with pytest.raises(ValueError, match="give more events"):
        middle_of([Sample(0.0, 0, 0, 0.0), Sample(1.0, 100, 90, 0.1)], 100)
    standing = [Sample(0.0, 50, 50, 0.1), Sample(1.0, 50, 50, 0.2)]
    with pytest.raises(ValueError, match="give more events"):
        middle_of(standing, 100)


def test_a_pace_that_nobody_saw_is_none() -> None:
    assert rates_of(SAMPLES[:2]) == {"events_per_s": None, "events_per_core_s": None}
    assert rates_of(SAMPLES) == {"events_per_s": 1_000, "events_per_core_s": 1_250}
