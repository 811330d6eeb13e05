"""Closed billing periods: which are open, and what comes for one that is not (law D2; README, "Late usage, closed periods").

What a period was closed with stays in the account's table and never changes there again. What comes later lies in a table
of its own, *late*, with quantities that may be below 0; both together are the *whole* of the period, and the difference
that an event makes to what the whole owes is posted as an adjustment.
"""

from collections.abc import Callable, Iterator, Mapping

from engine.catalog import CLOSE_AFTER_MAX_US, TOO_OLD_US
from engine.charges import Row, Table

Amounts = list[tuple[int, int, dict[str, int]]]  # (segment start, period start, pico per price), in time order
Adjusted = dict[tuple[int, int], dict[str, int]]  # (segment it was posted in, closed period) -> {price name: pico}


class Closing:
    """Which billing periods of an account are open, by log time. Looked at anew when the next one closes."""

    __slots__ = ("_close_after_us", "_looked_us", "_period_around", "since_us", "until_us")

    def __init__(self, period_around: Callable[[int], tuple[int, int]], close_after_us: Callable[[int], int]) -> None:
        """`period_around`: [start, end) of the period of an instant. `close_after_us`: how long a period stays open that
        ends at an instant."""
        self._period_around = period_around
        self._close_after_us = close_after_us
        self.since_us = 0  # start of the oldest period that is open, as it was found last
        self.until_us = 0  # log time at which that is to be looked at again
        self._looked_us = 0

    def open_from(self, log_time_us: int) -> int:
        """Start of the oldest period that is open: what lies before it is closed. None closes before those before it, which
        may have longer."""
        if log_time_us >= self.until_us:
            self.since_us, self.until_us = self.oldest_open(log_time_us)
            self._looked_us = log_time_us
        return self.since_us

    def oldest_open(self, log_time_us: int) -> tuple[int, int]:
        """The start of the oldest period that is open at a log time, and when it closes."""
        start, end = self._period_around(log_time_us)
        found = start, end + self._close_after_us(end)
        while start + CLOSE_AFTER_MAX_US > log_time_us:
            closes_us = start + self._close_after_us(start)
            start, _ = self._period_around(start - 1)
            if closes_us > log_time_us:
                found = start, closes_us
        return found

    def closings(self, after_us: int) -> Iterator[tuple[int, int]]:
        """(when it closes, its start) of each period that closes behind an instant, in order, without end."""
        start, closes_us = self.since_us, self.until_us
        if not self._looked_us <= after_us < closes_us:
            start, closes_us = self.oldest_open(after_us)
        while True:
            yield closes_us, start
            _, start = self._period_around(start)
            _, end = self._period_around(start)
            closes_us = max(closes_us, end + self._close_after_us(end))

    def look_again(self) -> None:
        """How long a period stays open may have changed."""
        self.until_us = 0

    def gone_us(self, start: int) -> int:
        """Log time from which no event of a segment's period can come any more: each would be too old."""
        _, end = self._period_around(start)
        return end + TOO_OLD_US


def whole(table: Table, late: Table, inside: Callable[[int], bool]) -> Table:
    """A closed period with what came late; `inside` tells its segments by their start."""
    rows: Table = {start: dict(row) for start, row in table.items() if inside(start)}
    for start, row in late.items():
        if inside(start):
            rows[start] = _sum(rows.get(start, {}), row, 1)
    return rows


def apart(rows: Table, table: Table) -> Table:
    """What came late of a whole period. A cell that the period was not closed with is kept, whatever is in it."""
    late: Table = {}
    for start, row in rows.items():
        closed = table.get(start, {})
        rest = {place: units for place, units in _sum(row, closed, -1).items() if units or place not in closed}
        if rest:
            late[start] = rest
    return late


def _sum(row: Row, other: Row, sign: int) -> Row:
    return row | {place: row.get(place, 0) + sign * units for place, units in other.items()}


def cells(table: Table, late: Table) -> int:
    """How many (segment, price, cell) are kept."""
    extra = sum(len(row.keys() - table.get(start, {}).keys()) for start, row in late.items())
    return sum(map(len, table.values())) + extra


def posted(adjusted: Adjusted, place: tuple[int, int], charges: Mapping[str, int]) -> Adjusted:
    """The adjustments with these, pico per price, in this place: (segment, closed period)."""
    before = adjusted.get(place, {})
    return {**adjusted, place: before | {name: before.get(name, 0) + pico for name, pico in charges.items()}}


def with_adjustments(amounts: Amounts, adjusted: Adjusted) -> Amounts:
    """What the wallet pays, in order: of each segment its own period, then what was posted in it for others, the newest
    first. What was posted for a segment's own period is paid together with its usage."""
    if not adjusted:
        return amounts
    found = {(start, period): by_price for start, period, by_price in amounts}
    for place, charges in adjusted.items():
        own = found.get(place, {})
        found[place] = own | {name: own.get(name, 0) + pico for name, pico in charges.items()}
    ordered = sorted(found, key=lambda place: (place[0], -place[1]))
    return [(start, period, dict(found[start, period])) for start, period in ordered]
