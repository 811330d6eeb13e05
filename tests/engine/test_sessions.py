"""How far a session goes, and what that makes of each segment."""

import pytest

from engine import sessions
from engine.catalog import TOO_OLD_US
from engine.gauges import Gauge, Point
from engine.meters import Heard
from engine.meters.sessions import State
from engine.money import NANO
from engine.sessions import (
    ACCRUE_US,
    FORGET_US,
    NOTHING,
    RESTING_US,
    Piece,
    Session,
    SessionConflict,
    Sessions,
    Span,
    Telling,
    Timed,
    TooManySessions,
    last_accrual,
    pieces,
)
from tests.engine.bench import MINUTE, SECOND, START

TIMEOUT = 5 * MINUTE


def heard(state: State = "start", session: str = "s", weight: int = NANO, cell: tuple[str, ...] = ("a100",)) -> Heard:
    return Heard("gpu", session, state, cell, weight)


def of(*events: tuple[State, int], accrued: int = START) -> tuple[Span, bool]:
    """What a session of these events comes to, and whether it goes on."""
    kept = Sessions("acme")
    for state, time_us in events:
        session = kept.with_event(heard(state), telling(time_us), START)[1].at(accrued, TIMEOUT)
        kept.put({("gpu", "s"): session}, START)
    assert isinstance(session, Session)
    return session.charged, session.is_open


def telling(time_us: int = START, scope: str = "", offset: int = 1, event_id: str = "e") -> Telling:
    return Telling(time_us, "gateway", event_id, scope, offset)


def put(kept: Sessions, said: Heard, event: Telling, log_time_us: int = START) -> Timed:
    """An event of a session, charged as far as that goes."""
    session = kept.with_event(said, event, log_time_us)[1].at(log_time_us, TIMEOUT)
    kept.put({(said.meter, said.session): session}, log_time_us)
    return session


def test_an_open_session_goes_to_the_last_accrual_and_no_less_far_than_it_was_heard_of() -> None:
    assert of(("start", START - 90)) == ((START - 90, START), True)
    assert of(("start", START - 90), ("heartbeat", START + 7)) == ((START - 90, START + 7), True)
    assert of(("start", START + 7)) == (NOTHING, True)


def test_one_that_was_silent_for_too_long_goes_to_its_last_heartbeat() -> None:
    begin = START - TIMEOUT - 1
    assert of(("start", begin + 1)) == ((begin + 1, START), True)
    assert of(("start", begin)) == (NOTHING, False)
    assert of(("start", begin - 50), ("heartbeat", begin)) == ((begin - 50, begin), False)


def test_a_stop_ends_it_whenever_it_is_heard_of() -> None:
    expected = (START - 90, START - 20), False
    assert of(("start", START - 90), ("stop", START - 20)) == expected
    assert of(("stop", START - 20), ("heartbeat", START - 5), ("start", START - 90)) == expected
    assert of(("start", START - 90), ("stop", START - 40), ("stop", START - 20), ("stop", START - 30)) == expected


def test_a_stop_alone_owes_nothing_and_a_heartbeat_alone_begins() -> None:
    assert of(("stop", START)) == (NOTHING, False)
    assert of(("stop", START - 10), ("start", START - 5)) == (NOTHING, False)
    assert of(("heartbeat", START - 60)) == ((START - 60, START), True)


def halves(time_us: int) -> Span:
    """Segments of 10 seconds."""
    return time_us - time_us % (10 * SECOND), time_us - time_us % (10 * SECOND) + 10 * SECOND


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (NOTHING, (3 * SECOND, 8 * SECOND), [(8 * SECOND, 5)]),
        (NOTHING, (3 * SECOND, 24 * SECOND), [(10 * SECOND, 7), (20 * SECOND, 10), (24 * SECOND, 4)]),
        ((3 * SECOND, 8 * SECOND), NOTHING, [(8 * SECOND, -5)]),
        ((3 * SECOND, 8 * SECOND), (3 * SECOND, 12 * SECOND), [(10 * SECOND, 2), (12 * SECOND, 2)]),
        (
            (3 * SECOND, 24 * SECOND),
            (3 * SECOND, 8 * SECOND),
            [(10 * SECOND, -2), (20 * SECOND, -10), (24 * SECOND, -4)],
        ),
        ((12 * SECOND, 14 * SECOND), (11 * SECOND, 13 * SECOND), []),
        ((32 * SECOND, 34 * SECOND), (5 * SECOND, 8 * SECOND), [(8 * SECOND, 3), (34 * SECOND, -2)]),
        ((12 * SECOND, 14 * SECOND), (12 * SECOND, 14 * SECOND), []),
    ],
)
def test_what_makes_of_one_span_the_other(before: Span, after: Span, found: list[tuple[int, int]]) -> None:
    """Each piece with the end of its time in the segment."""
    assert [(each.time_us + 1, each.quantity // NANO) for each in moved(before, after)] == found


def moved(before: Span, after: Span, weight: int = NANO) -> list[Piece]:
    old, new = (Session((), weight, "", 1, None, 0, charged=span) for span in (before, after))
    return list(pieces(old, new, 0, halves, lambda cell, start, end: [(start, end, cell)]))


def test_each_segment_is_rounded_once_however_often_it_changes() -> None:
    """A third of a microsecond's seconds, told one by one, are what they are all at once."""
    weight, total = 333, 0
    for step in range(1, 2000):
        total += sum(each.quantity for each in moved((0, step - 1) if step > 1 else NOTHING, (0, step), weight))
    assert total == sum(each.quantity for each in moved(NOTHING, (0, 1999), weight)) == 1


@pytest.mark.parametrize(
    ("other", "scope", "said"),
    [
        (heard("stop", cell=("h100",)), "team", "another dimensions"),
        (heard("stop", weight=2 * NANO), "team", "another weight"),
        (heard("stop"), "", "another scope"),
    ],
)
def test_every_event_of_a_session_says_the_same_of_it(other: Heard, scope: str, said: str) -> None:
    kept = Sessions("acme")
    put(kept, heard(), telling(scope="team"))
    with pytest.raises(SessionConflict, match=f"session 's' of meter gpu has had {said} before"):
        kept.with_event(other, telling(scope=scope, offset=2), START)


def test_an_account_has_so_many_sessions_of_which_events_may_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "SESSIONS_MAX", 2)
    kept = Sessions("acme")
    for name in ("a", "b"):
        put(kept, heard(session=name), telling(), START + TIMEOUT + 1)
    kept.with_event(heard("stop", session="a"), telling(START + 1), START)
    with pytest.raises(TooManySessions, match="account acme would have more than 2 sessions"):
        kept.with_event(heard(session="c"), telling(), START)
    assert kept.with_event(heard(session="c"), telling(), START + TOO_OLD_US + 1)[0] is None


def test_a_session_is_forgotten_when_no_event_of_it_can_come() -> None:
    kept = Sessions("acme")
    put(kept, heard(), telling())
    kept.forget(START + TOO_OLD_US + 1)
    assert kept.by_key, "it has not come to its end: what accrued behind its last heartbeat is to be taken back"
    put(kept, heard(), telling(), START + TOO_OLD_US)
    kept.forget(START + TOO_OLD_US)
    assert kept.by_key
    before, _ = kept.with_event(heard("stop"), telling(START + TOO_OLD_US + 1), START + TOO_OLD_US + 1)
    assert before is None, "a new session of the same id"
    kept.forget(START + TOO_OLD_US + 1)
    assert not kept.by_key and kept.wake_us() is None and not kept.accruing()


def test_open_sessions_want_looking_at_each_minute_and_others_once_in_35_days() -> None:
    """At a second of the minute that is the account's own, so that not all accounts accrue at once."""
    kept = Sessions("acme")
    assert kept.wake_us() is None
    put(kept, heard(), telling())
    due = kept.wake_us()
    assert due is not None and START < due <= START + ACCRUE_US and last_accrual("acme", due) == due
    put(kept, heard("stop"), telling(), due)
    later = kept.wake_us()
    assert later is not None and due < later <= due + RESTING_US and last_accrual("acme", later, FORGET_US) == later
    assert len({last_accrual(f"cus_{number}", START) for number in range(500)}) == 60


def test_a_late_level_is_worked_out_where_it_makes_a_difference_and_nowhere_else() -> None:
    """Of a thousand levels, one a second through a hundred segments, another is told late: one segment is looked at, and
    none of those that come behind."""
    kept = Gauge((), "", 1, tuple(Point(at * SECOND, "s", str(at), NANO) for at in range(1_000))).at(1_000 * SECOND, 0)
    late = kept.with_point(Point(15 * SECOND + SECOND // 2, "s", "late", 3 * NANO)).at(1_000 * SECOND, 0)
    looked: list[int] = []

    def tens(time_us: int) -> Span:
        looked.append(time_us)
        return time_us - time_us % (10 * SECOND), time_us - time_us % (10 * SECOND) + 10 * SECOND

    made = list(pieces(kept, late, 15 * SECOND + SECOND // 2, tens, lambda cell, start, end: [(start, end, cell)]))
    assert [(each.time_us + 1, each.quantity) for each in made] == [(20 * SECOND, NANO)]
    assert len(looked) == 1
