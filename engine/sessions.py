"""Sessions of meters of time: when one began, how far it goes, what of it the table has (README, "Sessions").

A session is a function of the set of its events: no order of arrival, and no repetition, makes another one of it. It is of
constant size: the events themselves are not kept.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Final, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from engine.catalog import TOO_OLD_US
from engine.meters import Cell, Heard
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
    """What is known of one. `charged` is what the table has of it."""

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
        """How it stands at an instant at which sessions accrue, as far as it is not charged."""
        is_open = self.begin_us is not None and self.stop_us is None and accrued_us <= self.seen_us + timeout_us
        return replace(self, is_open=is_open)

    def span(self, accrued_us: int) -> Span:
        """How far it goes: to its stop, else while it is open to that instant, else as far as it was heard of."""
        if self.begin_us is None:
            return NOTHING
        end_us = self.seen_us if self.stop_us is None else self.stop_us
        if self.is_open:
            end_us = max(end_us, accrued_us)
        return (self.begin_us, end_us) if end_us > self.begin_us else NOTHING

    def is_gone(self, log_time_us: int) -> bool:
        """Whether no event of it can come any more that fits those known: each would be too old."""
        return self.seen_us < log_time_us - TOO_OLD_US


class Piece(NamedTuple):
    """What a session adds to a segment, or takes back from it."""

    time_us: int  # its last microsecond
    quantity: int  # nano-units; below 0: taken back


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

    __slots__ = ("_account", "_open", "as_of_us", "by_key")

    def __init__(self, account: str, by_key: Mapping[Key, Session] | None = None, as_of_us: int = 0) -> None:
        self.by_key: dict[Key, Session] = dict(by_key or {})
        self.as_of_us = as_of_us
        self._account = account
        self._open = {key for key, session in self.by_key.items() if session.is_open}

    def wake_us(self) -> int | None:
        """The log time at which they want looking at."""
        if not self.by_key:
            return None
        step_us = ACCRUE_US if self._open else RESTING_US
        return last_accrual(self._account, self.as_of_us, step_us) + step_us

    def accruing(self) -> list[tuple[Key, Session]]:
        """Those that come to more as log time passes, in order."""
        return [(key, self.by_key[key]) for key in sorted(self._open)]

    def with_event(self, heard: Heard, time_us: int, scope: str, offset: int, log_time_us: int) -> Session:
        """The session with one event more. Raises SessionConflict and TooManySessions."""
        key = heard.meter, heard.session
        known = self.by_key.get(key)
        if known is None or known.is_gone(log_time_us):
            if len(self.by_key) >= SESSIONS_MAX and self._kept(log_time_us) >= SESSIONS_MAX:
                raise TooManySessions(f"account {self._account} would have more than {SESSIONS_MAX} sessions")
            known = Session(heard.cell, heard.weight, scope, offset, None, time_us)
        for name, before, after in (
            ("dimensions", known.cell, heard.cell),
            ("weight", known.weight, heard.weight),
            ("scope", known.scope, scope),
        ):
            if before != after:
                raise SessionConflict(f"session {heard.session!r} of meter {heard.meter} has had another {name} before")
        begin_us, stop_us = known.begin_us, known.stop_us
        if heard.state == "stop":
            stop_us = time_us if stop_us is None else max(stop_us, time_us)
        else:
            begin_us = time_us if begin_us is None else min(begin_us, time_us)
        return replace(known, begin_us=begin_us, stop_us=stop_us, seen_us=max(known.seen_us, time_us))

    def _kept(self, log_time_us: int) -> int:
        return sum(not session.is_gone(log_time_us) for session in self.by_key.values())

    def put(self, changed: Mapping[Key, Session], log_time_us: int) -> None:
        """These stand so as of this log time."""
        self.as_of_us = log_time_us
        for key, session in changed.items():
            self.by_key[key] = session
            if session.is_open:
                self._open.add(key)
            else:
                self._open.discard(key)

    def forget(self, log_time_us: int) -> None:
        """Drop those of which no event can come any more."""
        for key in [key for key, session in self.by_key.items() if session.is_gone(log_time_us)]:
            del self.by_key[key]
            self._open.discard(key)


def pieces(weight: int, before: Span, after: Span, segment_around: Callable[[int], Span]) -> Iterator[Piece]:
    """What makes of one span the other, per segment: each segment's seconds are rounded once, half-even."""
    seen: set[int] = set()
    for low, high in _unlike(before, after):
        while low < high:
            start, end = segment_around(low)
            if start not in seen:
                seen.add(start)
                old, new = _within(before, start, end), _within(after, start, end)
                quantity = _quantity(new, weight) - _quantity(old, weight)
                if quantity:
                    yield Piece(max(new[1], old[1] if quantity < 0 else 0) - 1, quantity)
            low = end


def _unlike(before: Span, after: Span) -> list[Span]:
    """Where the two differ, and perhaps some more."""
    if NOTHING in (before, after):
        return [before, after]
    return [(min(one, other), max(one, other)) for one, other in zip(before, after, strict=True)]


def _within(span: Span, start: int, end: int) -> Span:
    low, high = max(span[0], start), min(span[1], end)
    return (low, high) if low < high else NOTHING


def _quantity(span: Span, weight: int) -> int:
    return round_half_even((span[1] - span[0]) * weight, _SECOND_US)
