import pytest

from actors.web.times import instant, instant_or_none, read_instant
from actors.web.wire import Problem


def test_instants_are_told_in_utc_and_read_back() -> None:
    assert instant(1_795_341_600_000_000) == "2026-11-22T10:00:00Z"
    assert instant(1) == "1970-01-01T00:00:00.000001Z"
    assert read_instant("f", instant(1_795_341_600_123_456)) == 1_795_341_600_123_456
    assert (instant_or_none(None), read_instant("f", None)) == (None, None)


def test_what_no_calendar_has_is_its_nearest_instant() -> None:
    assert instant(1 << 60) == "9999-12-31T23:59:59Z"
    assert instant(-(1 << 60)) == "0001-01-01T00:00:00Z"


def test_what_is_no_instant_is_refused_by_field() -> None:
    with pytest.raises(Problem) as refused:
        read_instant("expires", "2026-02-30T00:00:00Z")
    assert (refused.value.status, refused.value.field) == (400, "expires")
