"""Law D1: an event counts once per (account, source, id) for the window, and an identity is taken only by a rated event."""

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.bench import DAY, DOLLAR, START, Bench, Store

BUCKET_END = (START // (7 * DAY) + 1) * 7 * DAY


def opened() -> Bench:
    bench = Bench()
    bench.open()
    return bench


@settings(max_examples=60)
@given(st.lists(st.integers(0, 5), max_size=30))
def test_however_often_events_come_each_is_billed_once(sent: list[int]) -> None:
    """The first of each is rated, the others are duplicates, and a replay of all adds nothing."""
    bench = opened()
    values = [bench.event(1 + number, id=f"e{number}") for number in range(6)]
    for turn in (sent, sent):
        for number in turn:
            bench.record(b"acme", values[number])
    assert sum(bench.charges()) == sum((1 + number) * DOLLAR for number in set(sent))
    assert bench.partition.counts.get("duplicate", 0) == 2 * len(sent) - len(set(sent))


def test_ten_thousand_duplicates_in_any_order_never_show_in_a_balance() -> None:
    """Whoever reads at any moment, between any two of them, finds each event once."""
    bench = opened()
    random = Random(2)
    values = [bench.event(1 + number % 7, id=f"e{number}") for number in range(500)]
    sent = list(range(500)) + random.choices(range(500), k=10_000)
    random.shuffle(sent)
    rated: set[int] = set()
    owed = 0
    for number in sent:
        owed += 0 if number in rated else (1 + number % 7) * DOLLAR
        assert bench.record(b"acme", values[number]) == ("duplicate" if number in rated else "rated")
        rated.add(number)
        assert bench.balance() == -owed
    assert bench.partition.counts["duplicate"] == 10_000


def test_an_identity_is_of_account_source_and_id() -> None:
    """The same id of another source, or for another account, is another event."""
    bench = opened()
    bench.open("other")
    assert bench.use(1, id="e") == "rated"
    assert bench.use(1, id="e", source="gateway-2") == "rated"
    assert bench.use(1, id="e", account="other") == "rated"
    assert bench.use(1, id="e") == "duplicate"


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"units": 5, "model": "x"}},
        {"data": {"model": "x", "units": 5.0}},
        {"subject": "somebody"},
        {"more": "attributes"},
    ],
)
def test_the_same_billing_fields_in_another_dress_are_a_duplicate(other: dict[str, Any]) -> None:
    """Key order, the way a number is written, and attributes that do not bill make no difference."""
    bench = opened()
    assert bench.use(5, id="e") == "rated"
    assert bench.use(5, id="e", **other) == "duplicate"


@pytest.mark.parametrize(
    "other",
    [
        {"data": {"model": "x", "units": 6}},
        {"data": {"model": "x", "units": "5"}},
        {"data": {"model": "x", "units": 5, "note": "n"}},
        {"type": "llm.request"},
        {"time": "2026-03-10T12:00:00.000001Z"},
    ],
)
def test_the_same_id_with_other_billing_fields_is_quarantined_and_told(other: dict[str, Any]) -> None:
    """Not billed, dead-lettered, and an alert says which event it was."""
    bench = opened()
    assert bench.use(5, id="e") == "rated"
    assert bench.use(5, id="e", **other) == "dead_lettered.id_conflict"
    assert bench.told() == [("id_conflict", "gateway-1\ne", 1, "crossed")]
    assert bench.charges() == [5 * DOLLAR]
    data = json.loads(bench.partition.outputs.alerts[0].body)["data"]
    assert (data["value"], data["threshold"]) == (None, None)


def test_a_mended_dead_letter_is_accepted_under_its_own_id() -> None:
    """An id is recorded only when its event is rated."""
    bench = opened()
    for units in (None, -1, "many"):
        assert bench.use(units, id="e") == "dead_lettered.bad_quantity"
    assert bench.use(3, id="e") == "rated"
    assert bench.use(3, id="e") == "duplicate"


@pytest.mark.parametrize(("log_time", "outcome"), [(-1000, "dead_lettered.id_conflict"), (0, "rated")])
def test_an_id_is_remembered_for_35_days_after_its_bucket(log_time: int, outcome: str) -> None:
    """A bucket of seven days of log time is forgotten exactly when log time is 35 days behind its end."""
    bench = opened()
    bench.use(1, id="e")
    bench.now = BUCKET_END + 35 * DAY + log_time
    assert bench.use(1, id="e") == outcome


def test_the_timestamp_does_not_matter_to_the_memory() -> None:
    """An event of 30 days ago is remembered as long as one of now."""
    bench = opened()
    bench.use(1, id="old", at=START - 30 * DAY)
    bench.now = BUCKET_END + 35 * DAY - 1000
    assert bench.use(1, id="old") == "dead_lettered.id_conflict"


def test_no_event_is_accepted_that_could_have_been_forgotten() -> None:
    """An event's time is refused before its identity's bucket goes: a replay of a month-old topic bills nothing twice."""
    bench = opened()
    value = bench.event(1, id="e", at=START + 299_000_000)  # as far ahead as it may be
    bench.record(b"acme", value)
    outcomes = set()
    for days in range(1, 60):
        bench.now = START + days * DAY
        outcomes.add(bench.record(b"acme", value))
    assert outcomes == {"duplicate", "dead_lettered.too_old"}


def test_a_checkpoint_carries_the_memory() -> None:
    """After a takeover a duplicate is a duplicate."""
    bench = opened()
    value = bench.event(1)
    bench.record(b"acme", value)
    store = Store()
    store.checkpoint(bench.partition)
    loaded = store.load_into(bench.fresh())
    loaded.apply(99, START // 1000, b"acme", value)
    assert loaded.counts["duplicate"] == 1
    assert loaded.outputs.lines == []
