"""Sums of cost by hour, customer, model and feature, and what of them was told already."""

from collections.abc import Iterable
from operator import attrgetter
from typing import Final

from msgspec import Struct

from engine.cost.window import Bucket


class Key(Struct, frozen=True):
    """What a row sums up. Only the rows of `direct` have a customer."""

    hour_us: int
    replica: str
    model: str
    bucket: Bucket
    account: str | None = None
    feature: str | None = None


class Sums(Struct, gc=False):
    """What a row has come to."""

    amount: int = 0  # pico, of what has a known cost
    unknown: int = 0  # shares without one; while there are any, the cost of the row is not known
    requests: int = 0  # executions that ended in the hour, and their tokens
    computed: int = 0  # of their prompts
    cached: int = 0
    output: int = 0

    def copied(self) -> "Sums":
        """The same, to be kept."""
        return Sums(self.amount, self.unknown, self.requests, self.computed, self.cached, self.output)


_NOTHING: Final = Sums()


class RowChange(Struct, frozen=True):
    """A row as it is now, and by how much its amount differs from what was told before."""

    key: Key
    sums: Sums
    change: int


class Row:
    """A key, what it has come to, and what of it was told. To be changed through `Rollup.touch`."""

    __slots__ = ("key", "now", "order", "told", "touched")

    def __init__(self, key: Key) -> None:
        self.key = key
        # One text, in the order of the parts: no name holds a NUL, which comes before every other character.
        parts = (key.replica, key.model, key.bucket.value, key.account or "", key.feature or "")
        self.order = "\x00".join((f"{key.hour_us:016d}", *parts))
        self.now = Sums()
        self.told = _NOTHING
        self.touched = False


class Rollup:
    """The rows of all hours that are not closed."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}
        self._touched: list[Row] = []

    def row(self, key: Key) -> Row:
        """The one row of this key, until its hour is forgotten."""
        row = self._rows.get(key)
        if row is None:
            row = self._rows[key] = Row(key)
        return row

    def touch(self, row: Row) -> Sums:
        """What the row has come to, to be changed."""
        if not row.touched:
            row.touched = True
            self._touched.append(row)
        return row.now

    def told(self, rows: Iterable[tuple[Key, Sums]]) -> None:
        """What an earlier owner has told of these hours: all that it told and we do not find is taken back."""
        for key, sums in rows:
            row = self.row(key)
            row.told = sums
            self.touch(row)

    def changes(self) -> list[RowChange]:
        """What differs from what was told, in the order of the keys; it counts as told from here on."""
        found = []
        for row in sorted(self._touched, key=_order):
            row.touched = False
            if row.now != row.told:
                now = row.now.copied()
                found.append(RowChange(row.key, now, now.amount - row.told.amount))
                row.told = now
        self._touched.clear()
        return found

    def all(self) -> list[tuple[Key, Sums]]:
        """Every row that has come to something, in the order of the keys."""
        rows = [row for row in self._rows.values() if row.now != _NOTHING]
        return [(row.key, row.now.copied()) for row in sorted(rows, key=_order)]

    def forget(self, before_us: int) -> None:
        """Drop the rows of hours that begin before the instant."""
        self._rows = {key: row for key, row in self._rows.items() if key.hour_us >= before_us}
        self._touched = [row for row in self._touched if row.key.hour_us >= before_us]


_order: Final = attrgetter("order")
