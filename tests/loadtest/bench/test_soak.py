"""What a soak may be asked for; that it runs is shown by `make bench-long`, in short with ARGS='--hours 0.01'."""

import pytest

from loadtest.bench.soak import SHAPE, Soak, options_of


def test_hours_and_rate_are_bounded_by_what_the_oracle_can_hold() -> None:
    assert options_of(["--hours", "1", "--rate", "1000"]) == Soak(hours=1.0, events_per_s=1_000.0)
    for arguments in (["--hours", "10", "--rate", "1000"], ["--hours", "0"]):
        with pytest.raises(SystemExit):
            options_of(arguments)


def test_its_traffic_has_everything_in_it() -> None:
    assert SHAPE.hot_share == 0.3
    assert min(SHAPE.burst_factor - 1, SHAPE.late_share, SHAPE.duplicate_share) > 0
