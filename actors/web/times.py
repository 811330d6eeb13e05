"""Instants as callers write and read them: RFC 3339 on the wire, microseconds since 1970 UTC inside."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final

from actors.web.wire import Call, invalid
from engine.cost.gpu_rates import HOUR_US
from engine.events import Malformed, parse_time

_DAY_US: Final = 24 * HOUR_US
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


def hours_asked(call: Call, days_max: int) -> tuple[int, int]:
    """The hours that the stretch from `from` to `to` touches; by default those of a day up to now. Raises Problem (400)."""
    end_us = read_instant("to", call.query["to"])
    if end_us is None:
        end_us = call.services.clock.wall_us()
    begin_us = read_instant("from", call.query["from"])
    if begin_us is None:
        begin_us = end_us - _DAY_US
    if begin_us >= end_us:
        raise invalid("to", "it is not behind `from`")
    begin_us, end_us = begin_us // HOUR_US * HOUR_US, -(-end_us // HOUR_US) * HOUR_US
    if begin_us < 0 or end_us - begin_us > days_max * _DAY_US:
        raise invalid("from", f"a stretch of at most {days_max} days since 1970 can be asked for")
    return begin_us, end_us
