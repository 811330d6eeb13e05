"""How long calls took: a histogram with high dynamic range, so that the slowest thousandth is as exact as the median."""

from collections.abc import Sequence
from typing import Any, Final

from hdrh.histogram import HdrHistogram

NANOS: Final = 1_000_000_000
LONGEST_NS: Final = 3_600 * NANOS
DIGITS: Final = 3  # of every value that is kept
POINTS: Final = (50.0, 90.0, 99.0, 99.9)
CURVE: Final = (0.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.99, 100.0)


class Latencies:
    """Durations from a nanosecond to an hour, each kept to three digits."""

    def __init__(self) -> None:
        self._histogram = HdrHistogram(1, LONGEST_NS, DIGITS)

    def __len__(self) -> int:
        return int(self._histogram.get_total_count())

    def record(self, seconds: float) -> None:
        """One duration; what is shorter than a nanosecond or longer than an hour counts as that."""
        self._histogram.record_value(min(max(1, round(seconds * NANOS)), LONGEST_NS))

    def packed(self) -> bytes:
        """For another process; `unpacked` reads it."""
        packed: bytes = self._histogram.encode()
        return packed

    @classmethod
    def unpacked(cls, packed: bytes) -> "Latencies":
        """What `packed` was made of."""
        found = cls()
        found._histogram = HdrHistogram.decode(packed)
        return found

    def add(self, other: "Latencies") -> None:
        """Take over all of the other's durations."""
        self._histogram.add(other._histogram)

    def at(self, percent: float) -> float | None:
        """Milliseconds that `percent` of the calls did not exceed; None where there was no call."""
        if not len(self):
            return None
        return round(float(self._histogram.get_value_at_percentile(percent)) / 1e6, 6)

    def summary(self, points: Sequence[float] = POINTS) -> dict[str, Any]:
        """{"count": ..., "p50": ms, ...}."""
        return {"count": len(self)} | {f"p{point:g}": self.at(point) for point in points}

    def curve(self) -> list[tuple[float, float]]:
        """(percent, milliseconds), for a plot; empty where there was no call."""
        return [(percent, value) for percent in CURVE if (value := self.at(percent)) is not None]
