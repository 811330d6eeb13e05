"""What an account keeps of streams, and for how long."""

import pytest

from engine import streams
from engine.streams import LOOK_US, Name, Stream, Streams, TooManyStreams


def stream(until_us: int, seq: int = 0) -> Stream:
    return Stream(seq, 0, b"mark", until_us, 0, 0, (), ())


def name(number: int, event_type: str = "use") -> Name:
    return Name(event_type, "gateway", f"e{number}")


def test_a_stream_is_open_until_its_window_ends() -> None:
    kept = Streams("acme")
    kept.put(name(1), stream(100), 0)
    assert kept.open_one(name(1), 99) == stream(100)
    assert kept.open_one(name(1), 100) is None
    assert kept.open_one(name(1, "other"), 0) is None


def test_the_oldest_of_a_type_go_when_they_are_over_and_others_come() -> None:
    kept = Streams("acme")
    for number, event_type, until_us in ((1, "use", 10), (2, "outcome", 10), (3, "use", 20), (4, "use", 30)):
        kept.put(name(number, event_type), stream(until_us), 5)
    kept.put(name(5), stream(40), 20)
    assert [each.id for each, _ in kept] == ["e4", "e5", "e2"]
    kept.drop(30)
    assert [each.id for each, _ in kept] == ["e5"]
    kept.drop(40)
    assert (list(kept), kept.wake_us()) == ([], None)


def test_only_open_ones_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "STREAMS_MAX", 2)
    kept = Streams("acme")
    kept.put(name(1), stream(30), 0)
    kept.put(name(2), stream(20), 0)
    with pytest.raises(TooManyStreams):
        kept.need_room(19)
    kept.need_room(20)


def test_an_idle_account_wants_waking_once_a_week() -> None:
    kept = Streams("acme")
    kept.put(name(1), stream(10 * LOOK_US), LOOK_US)
    first = kept.wake_us()
    assert first is not None and LOOK_US < first <= 2 * LOOK_US
    kept.drop(first)
    assert kept.wake_us() == first + LOOK_US
