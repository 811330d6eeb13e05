"""Sessions of meters of time: when one began, how far it goes, what of it the table has (README, "Sessions").

A session is a function of the set of its events: no order of arrival, and no repetition, makes another one of it. One that
starts and stops is of constant size: its events are not kept. One that has levels is a gauge (`engine/gauges.py`).
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from engine.catalog import TOO_OLD_US
from engine.gauges import Gauge, Point, Step, TooManyPoints
from engine.meters import LEVEL, Cell, Heard, State
from engine.money import round_half_even

SESSIONS_MAX: Final = 10_000  # of one account, of which events may still come
ACCRUE_US: Final = 60_000_000  # how often those that are open come to more, in log time
FORGET_US: Final = 86_400_000_000  # how often those are dropped of which no event can come, while one is open
RESTING_US: Final = 35 * FORGET_US  # and how often an account of which none is open is woken for it
_SECOND_US: Final = 1_000_000

Key = tuple[str, str]  # meter, session
Span = tuple[int, int]  # [from, to); nothing where both are the same
NOTHING: Final[Span] = (0, 0)


class SessionConflict(ValueError):
    """An event says something else of its session than those before it. The message is for a person."""


class TooManySessions(ValueError):
    """The account has as many as it may."""


class Session(Struct, frozen=True):
    """What is known of one that starts and stops. `charged` is what the table has of it."""

    cell: Cell
    weight: int  # nano-units that each second counts as
    scope: str
    since: int  # offset of its first event: scopes that were declared by then count it
    begin_us: int | None  # least time of a start or heartbeat; None: only a stop is known
    seen_us: int  # greatest time of any of its events
    stop_us: int | None = None  # greatest time of a stop
    is_open: bool = False  # whether it comes to more as log time passes
    charged: Span = NOTHING

    def at(self, accrued_us: int, timeout_us: int) -> "Session":
        """How it stands at an instant at which what is open accrues, charged as far as it goes: to its stop, else while
        it is open to that instant, else as far as it was heard of."""
        is_open = self.begin_us is not None and self.stop_us is None and accrued_us <= self.seen_us + timeout_us
        end_us = self.seen_us if self.stop_us is None else self.stop_us
        if is_open:
            end_us = max(end_us, accrued_us)
        goes = self.begin_us is not None and end_us > self.begin_us
        return replace(self, is_open=is_open, charged=(self.begin_us, end_us) if goes else NOTHING)

    def steps(self, from_us: int) -> list[Step]:
        """What the table has of it."""
        return [] if self.charged == NOTHING else [Step(*self.charged, self.weight)]

    @property
    def end_us(self) -> int:
        """How far the table has it."""
        return self.charged[1]

    def kept(self, log_time_us: int) -> "Session":
        """As it is kept: no event adds to it."""
        return self

    def with_state(self, state: State, time_us: int) -> "Session":
        """The same with one event more, as far as it was charged before."""
        begin_us, stop_us = self.begin_us, self.stop_us
        if state == "stop":
            stop_us = time_us if stop_us is None else max(stop_us, time_us)
        else:
            begin_us = time_us if begin_us is None else min(begin_us, time_us)
        return replace(self, begin_us=begin_us, stop_us=stop_us, seen_us=max(self.seen_us, time_us))

    def is_gone(self, log_time_us: int) -> bool:
        """Whether it has come to its end, and no event of it can come any more that fits those known: each is too old."""
        return not self.is_open and self.seen_us < log_time_us - TOO_OLD_US


Timed = Session | Gauge


class Telling(NamedTuple):
    """The event that tells of sessions: when, who says so, in which scope, and its place in the log."""

    time_us: int
    source: str
    id: str
    scope: str
    offset: int


class Piece(NamedTuple):
    """What a session adds to a cell of a segment, or takes back from it."""

    time_us: int  # its last microsecond
    cell: Cell
    quantity: int  # nano-units; below 0: taken back


CellsOf = Callable[[Cell, int, int], Iterable[tuple[int, int, Cell]]]  # of a session from one instant to another


@lru_cache(4096)
def _phase_us(account: str) -> int:
    """So that not all accounts accrue at the same moment: a whole second of the minute, by the account's id."""
    digest = hashlib.sha256(account.encode()).digest()
    return int.from_bytes(digest[:8], "big") % (ACCRUE_US // _SECOND_US) * _SECOND_US


def last_accrual(account: str, log_time_us: int, step_us: int = ACCRUE_US) -> int:
    """The last instant at or before this one at which the open sessions of an account accrue."""
    return log_time_us - (log_time_us - _phase_us(account)) % step_us


class Sessions:
    """Those of one account. `as_of_us`: the log time at which they were looked at last."""

    __slots__ = ("_account", "_later_us", "_open", "as_of_us", "by_key")

    def __init__(self, account: str, by_key: Mapping[Key, Timed] | None = None, as_of_us: int = 0) -> None:
        self.by_key: dict[Key, Timed] = dict(by_key or {})
        self.as_of_us = as_of_us
        self._account = account
        self._later_us: int | None = None  # the accrual that was waited for instead; never between two records
        self._open = {key for key, session in self.by_key.items() if session.is_open}

    def wake_us(self) -> int | None:
        """The log time at which they want looking at."""
        if not self.by_key:
            return None
        if self._later_us is not None:
            return self._later_us
        return last_accrual(self._account, self.as_of_us, self._step_us) + self._step_us

    @property
    def _step_us(self) -> int:
        return ACCRUE_US if self._open else RESTING_US

    def wait(self, instant_us: int, log_time_us: int) -> bool:
        """Whether they accrue later than at this instant all the same, log time having gone further than that: then the
        last accrual says it all, and they wait for it."""
        last_us = last_accrual(self._account, log_time_us, self._step_us)
        self._later_us = last_us if last_us > instant_us else None
        return self._later_us is not None

    def accruing(self) -> list[tuple[Key, Timed]]:
        """Those that come to more as log time passes, in order."""
        return [(key, self.by_key[key]) for key in sorted(self._open)]

    def with_event(self, heard: Heard, event: Telling, log_time_us: int) -> tuple[Timed | None, Timed]:
        """The session before an event, if there was one, and with it, as far as it was charged before.

        Raises SessionConflict, TooManySessions and TooManyPoints."""
        known = self.by_key.get((heard.meter, heard.session))
        if known is None or known.is_gone(log_time_us):
            if len(self.by_key) >= SESSIONS_MAX and self._kept(log_time_us) >= SESSIONS_MAX:
                raise TooManySessions(f"account {self._account} would have more than {SESSIONS_MAX} sessions")
            return None, _begun(heard, event)
        for name, same in (
            ("dimensions", known.cell == heard.cell),
            ("weight", isinstance(known, Gauge) or known.weight == heard.weight),
            ("scope", known.scope == event.scope),
        ):
            if not same:
                raise SessionConflict(f"session {heard.session!r} of meter {heard.meter} has had another {name} before")
        if isinstance(known, Session):
            return known, known.with_state(heard.state, event.time_us)
        try:
            return known, known.with_point(_point(heard, event))
        except TooManyPoints as error:
            raise TooManyPoints(f"session {heard.session!r} of meter {heard.meter}: {error}") from None

    def _kept(self, log_time_us: int) -> int:
        return sum(not session.is_gone(log_time_us) for session in self.by_key.values())

    def put(self, changed: Mapping[Key, Timed], log_time_us: int) -> None:
        """These stand so as of this log time."""
        self.as_of_us, self._later_us = log_time_us, None
        for key, session in changed.items():
            self.by_key[key] = session.kept(log_time_us)
            if session.is_open:
                self._open.add(key)
            else:
                self._open.discard(key)

    def forget(self, log_time_us: int) -> None:
        """Drop those of which no event can come any more."""
        for key in [key for key, session in self.by_key.items() if session.is_gone(log_time_us)]:
            del self.by_key[key]
            self._open.discard(key)


def _begun(heard: Heard, event: Telling) -> Timed:
    if heard.state == LEVEL:
        return Gauge(heard.cell, event.scope, event.offset, (_point(heard, event),))
    begun = Session(heard.cell, heard.weight, event.scope, event.offset, None, event.time_us)
    return begun.with_state(heard.state, event.time_us)


def _point(heard: Heard, event: Telling) -> Point:
    return Point(event.time_us, event.source, event.id, heard.weight)


def pieces(
    before: Timed | None, after: Timed, from_us: int, segment_around: Callable[[int], Span], cells_of: CellsOf
) -> Iterator[Piece]:
    """What makes of one the other, which differ from an instant on, per segment and cell: a step's seconds in each are
    rounded once, half-even."""
    old_end = 0 if before is None else before.end_us
    old, new = [] if before is None else before.steps(from_us), after.steps(from_us)
    old, new = _apart(old, new)
    if not old and not new:
        return
    begin, until = min(steps[0].from_us for steps in (old, new) if steps), max(after.end_us, old_end)
    low, high = _unlike(old, new)
    while low < high:
        start, end = segment_around(low)
        spans = list(cells_of(after.cell, max(start, begin), min(end, until)))
        for cell in dict.fromkeys(cell for start, end, cell in spans if start < high and end > low):
            here = [(start, end) for start, end, other in spans if other == cell]
            quantity = _quantity(new, here) - _quantity(old, here)
            if quantity:
                goes_to = until if quantity < 0 else after.end_us
                yield Piece(max(min(end, goes_to) for start, end in here if start < goes_to) - 1, cell, quantity)
        low = end


def _apart(old: list[Step], new: list[Step]) -> tuple[list[Step], list[Step]]:
    """Both without the steps that they begin, and end, with alike."""
    most = min(len(old), len(new))
    first = next((place for place in range(most) if old[place] != new[place]), most)
    most -= first
    last = next((place for place in range(most) if old[-1 - place] != new[-1 - place]), most)
    return old[first : len(old) - last], new[first : len(new) - last]


def _unlike(old: list[Step], new: list[Step]) -> Span:
    """From where to where the two may differ."""
    low = min(steps[0].from_us for steps in (old, new) if steps)
    high = max(steps[-1].to_us for steps in (old, new) if steps)
    if old and new and old[0].from_us == new[0].from_us and old[0].weight == new[0].weight:
        low = min(old[0].to_us, new[0].to_us)
    return low, high


def _quantity(steps: list[Step], spans: list[Span]) -> int:
    """Nano-units of the steps in all of the spans."""
    return sum(
        round_half_even(
            sum(max(0, min(step.to_us, end) - max(step.from_us, start)) for start, end in spans) * step.weight,
            _SECOND_US,
        )
        for step in steps
    )
