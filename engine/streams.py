"""Streams: events of one id, each of which says all that there is to say by then; the highest `seq` counts (law D3; README,
"Streams").

An account keeps of each open stream what the table has of it, so that its next event can take its place.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec import Struct

from engine.meters import Cell
from engine.sessions import last_accrual

STREAMS_MAX: Final = 10_000  # open ones of one account
LOOK_US: Final = 7 * 86_400_000_000  # how often an idle account drops those that are over


class Name(NamedTuple):
    """By which the events of a stream are known."""

    event_type: str
    source: str
    id: str


class Part(NamedTuple):
    """What the table has of a stream."""

    price: str
    cell: Cell
    quantity: int  # nano-units


class Stream(Struct, frozen=True):
    """What counts of one: that of the event with the highest `seq`."""

    seq: int
    revision: int  # how many events have taken the place of another
    mark: bytes  # fingerprint of the event
    until_us: int  # log time at which it is over
    time_us: int  # the instant that it is rated at
    offset: int  # where it was rated: what counts caps since then has nothing of it
    scopes: tuple[str, ...]  # declared ones below the root that it counts in
    parts: tuple[Part, ...]
    hold: str | None = None  # id of the hold that it draws on
    estimated: bool = False
    tags: dict[str, str] | None = None


class TooManyStreams(ValueError):
    """The account has as many open ones as it may."""


class Streams:
    """Those of one account. `as_of_us`: the log time at which they were looked at last."""

    __slots__ = ("_account", "as_of_us", "by_type")

    def __init__(self, account: str) -> None:
        self.by_type: dict[str, dict[Name, Stream]] = {}  # in the order in which they were opened
        self.as_of_us = 0
        self._account = account

    def __iter__(self) -> Iterator[tuple[Name, Stream]]:
        for of_type in self.by_type.values():
            yield from of_type.items()

    def open_one(self, name: Name, log_time_us: int) -> Stream | None:
        """The stream, if it is not over."""
        stream = self.by_type.get(name.event_type, {}).get(name)
        return None if stream is None or stream.until_us <= log_time_us else stream

    def need_room(self, log_time_us: int) -> None:
        """Raises TooManyStreams if one more would be too many."""
        if (
            sum(map(len, self.by_type.values())) >= STREAMS_MAX
            and sum(stream.until_us > log_time_us for _, stream in self) >= STREAMS_MAX
        ):
            raise TooManyStreams(f"account {self._account} would have more than {STREAMS_MAX} open streams")

    def put(self, name: Name, stream: Stream, log_time_us: int) -> None:
        """The stream stands so now. The oldest of its type that are over are dropped."""
        self.as_of_us = log_time_us
        of_type = self.by_type.setdefault(name.event_type, {})
        of_type[name] = stream
        while (oldest := next(iter(of_type))) != name and of_type[oldest].until_us <= log_time_us:
            del of_type[oldest]

    def wake_us(self) -> int | None:
        """The log time at which those that are over want dropping."""
        return last_accrual(self._account, self.as_of_us, LOOK_US) + LOOK_US if self.by_type else None

    def drop(self, log_time_us: int) -> None:
        """Forget those that are over."""
        self.as_of_us = log_time_us
        for event_type, of_type in list(self.by_type.items()):
            kept = {name: stream for name, stream in of_type.items() if stream.until_us > log_time_us}
            if kept:
                self.by_type[event_type] = kept
            else:
                del self.by_type[event_type]
