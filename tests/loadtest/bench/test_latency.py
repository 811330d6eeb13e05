"""The histogram: three digits of every value, whatever its size."""

import pytest

from loadtest.bench.latency import LONGEST_NS, NANOS, Latencies


def of(*seconds: float) -> Latencies:
    latencies = Latencies()
    for value in seconds:
        latencies.record(value)
    return latencies


def test_the_slowest_of_a_thousand_is_seen() -> None:
    latencies = of(*[0.001] * 999, 2.5)
    assert latencies.at(50) == pytest.approx(1.0, rel=0.001)
    assert latencies.at(99.9) == pytest.approx(1.0, rel=0.001)
    assert latencies.at(100) == pytest.approx(2_500, rel=0.001)


def test_values_from_microseconds_to_seconds_keep_three_digits() -> None:
    for seconds in (3e-6, 0.000_456, 0.123, 45.6):
        assert of(seconds).at(50) == pytest.approx(seconds * 1000, rel=0.001)


def test_what_lies_beyond_the_range_counts_as_its_end() -> None:
    assert of(0.0).at(50) == pytest.approx(1e-6)
    assert of(10 * LONGEST_NS / NANOS).at(50) == pytest.approx(3_600_000, rel=0.001)


def test_nothing_recorded_has_no_percentile() -> None:
    assert of().at(99) is None
    assert of().curve() == []
    assert of().summary((50,)) == {"count": 0, "p50": None}


def test_histograms_add_up() -> None:
    both = of(0.001)
    both.add(of(0.003, 0.004))
    assert len(both) == 3
    assert both.at(100) == pytest.approx(4.0, rel=0.001)


def test_a_curve_ascends() -> None:
    curve = of(*[number / 1000 for number in range(1, 1001)]).curve()
    assert [point for point, _ in curve] == sorted(point for point, _ in curve)
    assert [value for _, value in curve] == sorted(value for _, value in curve)


def test_what_another_process_recorded_is_what_arrives() -> None:
    recorded = Latencies()
    for milliseconds in (1, 2, 40):
        recorded.record(milliseconds / 1000)
    arrived = Latencies.unpacked(recorded.packed())
    assert arrived.summary() == recorded.summary()
    arrived.record(1.0)
    assert (len(arrived), len(recorded)) == (4, 3)
