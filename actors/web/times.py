"""Instants as callers write and read them: RFC 3339 on the wire, microseconds since 1970 UTC inside."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from actors.web.wire import invalid
from engine.events import Malformed, parse_time

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_US: Final = (datetime(1, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US: Final = (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def instant(us: int) -> str:
    """RFC 3339 in UTC, with the digits behind the second that there are; what has no such form is its nearest instant."""
    second, fraction = divmod(min(max(us, _FIRST_US), _LAST_US), 1_000_000)
    return f"{_second(second)}.{fraction:06d}Z" if fraction else f"{_second(second)}Z"


@lru_cache(4_096)  # answers of one moment name the same second
def _second(second: int) -> str:
    return (_EPOCH + timedelta(seconds=second)).replace(tzinfo=None).isoformat()


def instant_or_none(us: int | None) -> str | None:
    """The same, of what may be absent."""
    return None if us is None else instant(us)


def read_instant(field: str, text: str | None) -> int | None:
    """Microseconds since 1970 UTC. Raises Problem (400), naming the field."""
    if text is None:
        return None
    try:
        return parse_time(text)
    except Malformed as error:
        raise invalid(field, str(error)) from None
