"""Answers held against a log made by hand: what the log had not shown by then is a sentence."""

import msgspec
import orjson
import pytest

from engine.events import CatalogueMarker, Grant, OpenAccount, Owner, Tick, seal
from engine.holds import Bound, Hold, seal_token
from engine.placement import partition_for
from loadtest.backing import Backing, Row, back
from loadtest.journal import CheckAnswer, Decided, Journal, Sent
from loadtest.oracle.fold import Oracle
from loadtest.workload import cloud_time

KEY = b"a control key of thirty-two bytes"
START_US = 1_750_000_000_000_000
CALL = {"meter": "calls", "model": "per_unit", "where": {}, "amount": "1", "per": "1", "tiers": []}
DOCUMENT = {
    "meters": {"calls": {"event_type": "call", "aggregation": "count", "field": None, "group_by": []}},
    "plans": {"basic": {"currency": "USD", "prices": {"call": CALL}}},
}
HOME = partition_for(b"acme", 8)
UNIT, NANO = 10**12, 10**9
OPENED = 3  # the marker, the account, the grant


def control(body: msgspec.Struct | dict[str, object]) -> bytes:
    raw = orjson.dumps(body) if isinstance(body, dict) else msgspec.json.encode(body)
    return seal(KEY, "usage", HOME, raw)


def slices(epoch: int, calls: int) -> bytes:
    return control({"kind": "slices", "epoch": epoch, "linger_us": 1, "of": [["acme", {"call": str(calls)}]]})


def token(number: int, epoch: int, calls: int = 1) -> str:
    bounds = (Bound(calls * NANO, ("call",), ("call",)),)
    hold = Hold("acme", "", HOME, epoch, number, START_US, 1, START_US, START_US, START_US, bounds)
    return seal_token(KEY, hold)


def usage(number: int, epoch: int) -> bytes:
    event = {"specversion": "1.0", "id": f"e{number}", "source": "gw", "type": "call", "data": {}}
    return orjson.dumps(event | {"time": cloud_time(START_US), "hold": token(number, epoch)})


def rows(*values: bytes) -> list[Row]:
    setup = [
        control(CatalogueMarker(1, 0)),
        control(OpenAccount("acme", "open", "basic")),
        control(Grant("acme", "grant", "prepaid", "paid", "5", "USD")),
    ]
    return [(offset, START_US // 1000, b"acme", value) for offset, value in enumerate([*setup, *values])]


def allowed(number: int, epoch: int, offset: int, calls: int = 1, booked: int = 5 * UNIT) -> Decided:
    text = token(number, epoch, calls)
    return Decided(
        number, "acme",
        CheckAnswer(True, None, False, None, UNIT, booked, 0, booked, 0, HOME, epoch, offset, f"{HOME}.{epoch}.{number}", text),
    )  # fmt: skip


def judged(decided: list[Decided], *values: bytes) -> Backing:
    journal = Journal()
    journal.decided = decided
    journal.sent = [
        Sent(given.request, "acme", "gw", f"e{given.request}", given.answer.hold or "", True) for given in decided
    ]
    oracle = Oracle({1: DOCUMENT}, KEY, "usage", 8)
    return back(journal, HOME, rows(*values), oracle, KEY)


def test_a_hold_within_a_slice_that_the_log_has_shown_is_backed() -> None:
    found = judged(
        [allowed(1, 1, OPENED + 2), allowed(2, 1, OPENED + 3, booked=4 * UNIT)],
        control(Owner(1)), slices(1, 1), usage(1, 1), usage(2, 1),
    )  # fmt: skip
    assert (found.sentences, found.checked, found.holds) == ([], 2, 2)


@pytest.mark.parametrize(
    ("decided", "says"),
    [
        ([allowed(1, 1, OPENED + 1)], "a slice of 0"),
        ([allowed(1, 1, OPENED + 2, calls=3)], "a slice of 2000000000"),
        ([allowed(n, 1, OPENED + 2) for n in (1, 2, 3)], "3000000000 of call are held"),
        ([allowed(1, 2, OPENED + 2)], "of epoch 2, while the log had shown 1"),
        ([allowed(1, 1, OPENED + 2, booked=6 * UNIT)], "the oracle has 5000000000000"),
        ([allowed(1, 1, OPENED + 9, booked=6 * UNIT)], "the oracle has 4000000000000"),
    ],
)
def test_what_the_log_had_not_shown_is_a_sentence(decided: list[Decided], says: str) -> None:
    found = judged(decided, control(Owner(1)), slices(1, 2), usage(1, 1), control(Tick(1)))
    (sentence,) = found.sentences
    assert says in sentence


def test_a_slice_of_an_earlier_owner_backs_nothing() -> None:
    found = judged([allowed(1, 2, OPENED + 3)], control(Owner(1)), slices(1, 5), control(Owner(2)), slices(2, 5))
    assert "a slice of 0" in found.sentences[0]
    assert (
        judged([allowed(1, 2, OPENED + 4)], control(Owner(1)), slices(1, 5), control(Owner(2)), slices(2, 5)).sentences
        == []
    )
    assert "a slice of 0" in judged([allowed(1, 2, OPENED + 3)], control(Owner(2)), slices(1, 5)).sentences[0]


@pytest.mark.parametrize(("booked", "next_s", "wrong"), [(5, 9, 0), (7, 9, 0), (6, 9, 1), (7, 4, 1)])
def test_what_begins_before_the_next_record_may_be_counted_by_the_clock(booked: int, next_s: int, wrong: int) -> None:
    """A lot of $2 begins 5 s behind the last record; whoever answered before the next one may have known it, or not."""
    lot = control(Grant("acme", "later", "bonus", "promo", "2", "USD", effective_us=START_US + 5_000_000))
    log = rows(control(Owner(1)), slices(1, 1), lot)
    log.append((len(log), START_US // 1_000 + next_s * 1_000, None, control(Tick(1))))
    journal = Journal()
    journal.decided = [allowed(1, 1, OPENED + 3, booked=booked * UNIT)]
    found = back(journal, HOME, log, Oracle({1: DOCUMENT}, KEY, "usage", 8), KEY)
    assert len(found.sentences) == wrong


def test_a_forged_slice_backs_nothing() -> None:
    forged = slices(1, 5)[:-1] + b" "
    assert "a slice of 0" in judged([allowed(1, 1, OPENED + 2)], control(Owner(1)), forged).sentences[0]
