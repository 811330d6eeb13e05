"""Sessions become charges: when an event tells of one, and as log time passes while one is open (README, "Sessions").

What a session has come to is compared with what the table has of it, and the difference is a change of the table like any
other: all of it is made, or nothing.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

from msgspec import Struct

from engine.account import Account, Change, TooManyCells
from engine.alerts import Crossing
from engine.catalog import NoPrice, PriceBook
from engine.limits import scope_path
from engine.meters import Cell, Heard
from engine.outcomes import Line
from engine.prices.price import Price
from engine.sessions import FORGET_US, Key, Telling, Timed, last_accrual, pieces


class Stretch(Struct, frozen=True):
    """What a session, or several that accrue, add to a segment or take back from it, and what that is charged."""

    time_us: int  # the last microsecond of it
    version: int  # in force then
    dimensions: tuple[str, ...]  # names of the cell's
    lines: tuple[Line, ...]
    session: str | None  # None: several may be in it


class _Kind(NamedTuple):
    """What of the changes of one instant is made together. The fields are in the order in which changes are made."""

    segment: int
    is_added: bool
    scopes: tuple[str, ...]
    price: str
    cell: Cell
    session: str


class _Sum(NamedTuple):
    price: Price
    version: int
    dimensions: tuple[str, ...]
    time_us: int
    quantity: int


class _Changes:
    """What sessions come to more or less than is charged, summed up by what is made together."""

    def __init__(self, account: Account, book: PriceBook) -> None:
        self._account = account
        self._book = book
        self._sums: dict[_Kind, _Sum] = {}
        self._here = (0, 0)  # the segment that was looked up last

    def add(self, meter: str, before: Timed | None, after: Timed, from_us: int, name: str) -> None:
        """What makes of a session what it is now; they differ from an instant on. Raises NoPrice, having added nothing."""
        scopes = tuple(
            scope
            for scope in scope_path(after.scope)[1:]
            if scope in self._account.scopes and self._account.scopes[scope].since < after.since
        )
        found = []
        for piece in pieces(before, after, from_us, self._segment_around, partial(self._cells_of, meter)):
            start, _ = self._segment_around(piece.time_us)
            price, version, dimensions = self._price(meter, piece.cell, piece.time_us)
            kind = _Kind(start, piece.quantity > 0, scopes, price.name, piece.cell, name)
            found.append((kind, _Sum(price, version, dimensions, piece.time_us, piece.quantity)))
        for kind, more in found:
            had = self._sums.get(kind)
            if had is not None:
                more = more._replace(time_us=max(had.time_us, more.time_us), quantity=had.quantity + more.quantity)
            self._sums[kind] = more

    def made(self) -> list[tuple[_Kind, _Sum, Change]]:
        """In the order in which they are made: by segment, and what is taken back first."""
        return [
            # A cap that counts for itself goes on counting what is taken back: it must never be laxer than what was used.
            (
                kind,
                each,
                Change(
                    each.time_us, [(each.price, kind.cell, each.quantity)], kind.scopes, None if kind.is_added else -1
                ),
            )
            for kind, each in sorted(self._sums.items(), key=lambda item: item[0])
        ]

    def _segment_around(self, time_us: int) -> tuple[int, int]:
        if not self._here[0] <= time_us < self._here[1]:
            self._here = self._account.segment_around(time_us)
        return self._here

    def _cells_of(self, meter: str, cell: Cell, from_us: int, to_us: int) -> Iterable[tuple[int, int, Cell]]:
        """In one segment: the version in force says what the hours are."""
        catalogue = self._book.at(from_us)
        counting = None if catalogue is None else catalogue.meters.get(meter)
        if counting is None or len(counting.group_by) != len(cell):
            return [(from_us, to_us, cell)]  # it has no price
        return counting.cells_of(cell, from_us, to_us)

    def _price(self, meter: str, cell: Cell, time_us: int) -> tuple[Price, int, tuple[str, ...]]:
        catalogue = self._book.at(time_us)
        plan = None if catalogue is None else self._account.contract.stated_in(catalogue, time_us)
        counting = None if catalogue is None else catalogue.meters.get(meter)
        if catalogue is None or plan is None or counting is None or len(counting.group_by) != len(cell):
            raise NoPrice(f"plan {self._account.plan} has no price for meter {meter} at {time_us}")
        return plan.price_of(counting, cell), catalogue.version, counting.group_by


def rate_heard(
    account: Account,
    book: PriceBook,
    heard: Iterable[Heard],
    own: Change,
    event: Telling,
    log_time_us: int,
) -> tuple[tuple[Line, ...], list[Stretch], list[Crossing]]:
    """Charge an event that tells of sessions: the lines of what else it counts (`own`), then what its sessions come to.

    Raises NoPrice, SessionConflict, TooManySessions, TooManyPoints, TooManyCells and TooManyValues, having changed
    nothing."""
    accrued_us = last_accrual(account.account, log_time_us)
    changed: dict[Key, Timed] = {}
    changes = _Changes(account, book)
    for each in heard:
        before, after = account.sessions.with_event(each, event, log_time_us)
        after = after.at(accrued_us, _timeout_us(book, each.meter, after))
        changes.add(each.meter, before, after, event.time_us, each.session)
        changed[each.meter, each.session] = after
    made = changes.made()
    (lines, *charged), crossings = account.change([own, *(change for *_, change in made)], log_time_us)
    account.sessions.put(changed, log_time_us)
    return lines, _stretches(made, charged), crossings


def accrue(account: Account, book: PriceBook, instant_us: int) -> tuple[list[Stretch], list[Crossing]]:
    """Log time has reached the instant at which the account's sessions want looking at: what the open ones come to.

    One that nothing has a price for stays as it is, and so do all where the account would hold too many cells: they are
    tried again, and an event of theirs is set aside until that has changed."""
    sessions = account.sessions
    a_day_is_over = sessions.as_of_us < last_accrual(account.account, instant_us, FORGET_US)
    changed: dict[Key, Timed] = {}
    changes = _Changes(account, book)
    for (meter, name), before in sessions.accruing():
        after = before.at(instant_us, _timeout_us(book, meter, before))
        try:
            changes.add(meter, before, after, before.seen_us, "")
        except NoPrice:
            continue
        changed[meter, name] = after
    made = changes.made()
    charged: Sequence[tuple[Line, ...]] = ()
    crossings: list[Crossing] = []
    if made:
        try:
            charged, crossings = account.change([change for *_, change in made], instant_us)
        except TooManyCells:
            made, changed = [], {}
    sessions.put(changed, instant_us)
    if a_day_is_over:
        sessions.forget(instant_us)
    return _stretches(made, charged), crossings


def _timeout_us(book: PriceBook, meter: str, session: Timed) -> int:
    """How long the session goes on of which nothing is heard: by the version in force where it was heard of last."""
    catalogue = book.at(session.seen_us)
    counting = None if catalogue is None else catalogue.meters.get(meter)
    return 0 if counting is None or counting.session is None else counting.session.timeout_us


def _stretches(made: list[tuple[_Kind, _Sum, Any]], charged: Iterable[tuple[Line, ...]]) -> list[Stretch]:
    return [
        Stretch(each.time_us, each.version, each.dimensions, lines, kind.session or None)
        for (kind, each, _), lines in zip(made, charged, strict=True)
    ]
