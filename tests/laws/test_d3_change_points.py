"""Law D3 for what does not add up: a max, min, latest, average or unique count is what it would have been without what a
correction takes back; where nobody knows what that is, the correction is refused."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import CatalogueDocument
from engine.meters.aggregates import RANKED
from engine.snapshot import account_fields, decode_account, encode_account
from tests.engine.bench import DAY, HOUR, START, Bench, Store, kept_open
from tests.laws.test_c1_conservation import conserved
from tests.laws.test_d3_correction import Chain, left_of, money
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r3_aggregations import KINDS, document

BEFORE = START - 9 * DAY


def keeping(points: int, *kinds: str, days: int = 30) -> CatalogueDocument:
    """The prices of R3's tests, with so many change points."""
    sold = kept_open(document(*kinds), days)
    meters = {
        name: replace(meter, change_points=points) if name in RANKED else meter for name, meter in sold.meters.items()
    }
    return replace(sold, meters=meters)


def opened(points: int, *kinds: str, days: int = 30) -> Bench:
    """Two periods, lots that begin and end inside them, a team, a cap and a rule."""
    bench = Bench(keeping(points, *kinds, days=days))
    bench.now = BEFORE
    bench.open(anchor_day=7)
    bench.scope("team")
    bench.cap("40")
    bench.cap_rule(50)
    bench.grant("first", "20", "promo", priority=1, expires_us=START - 2 * DAY)
    bench.grant("second", "15", effective_us=START - 4 * DAY, priority=1)
    bench.now = START
    return bench


def gauged(bench: Bench, source: random.Random, **named: str) -> bytes:
    back = source.randrange(9) * 17 * HOUR
    data = {"value": str(source.choice([0, 3, 3, 7, 11, 20, "2.5"])), "region": source.choice(["eu", "eu", "us"])}
    return bench.event(at=START - back, type="gauge", data=data, scope=source.choice(["", "team"]), **named)


def chains(bench: Bench, source: random.Random) -> list[Chain]:
    """Events of which most are amended or cancelled, each in an order of its own."""
    made: list[Chain] = []
    for _ in range(source.randrange(1, 7)):
        current = event = gauged(bench, source)
        corrections = []
        for revision in range(source.randrange(3)):
            body = json.loads(gauged(bench, source)) | {"id": json.loads(event)["id"]}
            amended = json.dumps(body).encode()
            corrections.append(("amend", bench.correction(current, amended, revision)))
            current = amended
        if source.random() < 0.5:
            corrections.append(("cancel", bench.correction(current, None, len(corrections))))
        made.append((event, corrections))
    return made


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9), st.sets(st.sampled_from(KINDS), min_size=1))
def test_corrections_leave_what_would_have_been(seed: int, kinds: set[str]) -> None:
    """In any order, parked or not: totals, tiers, wallet and charges are those of the corrected events alone."""
    source = random.Random(seed)
    bench, plain = opened(30, *sorted(kinds)), opened(30, *sorted(kinds))
    sent = chains(bench, source)
    records = [record for event, corrections in sent for record in (event, *(each for _, each in corrections))]
    source.shuffle(records)
    for record in records:
        assert bench.record(b"acme", record) in ("rated", "cancelled", "amended", "parked")
    for chain in sent:
        left = left_of(chain)
        if left is not None:
            assert plain.record(b"acme", left) == "rated"
    assert money(bench) == money(plain)
    assert sum(bench.charges()) == sum(plain.charges())
    assert bench.account().aggregates == plain.account().aggregates
    conserved(bench.account())
    assert_the_same(bench, oracle_of(bench, paranoid=len(records) < 6), str(kinds))
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9), st.integers(0, 2), st.sampled_from([1, 30]))
def test_what_cannot_be_told_is_refused_and_changes_nothing(seed: int, points: int, days: int) -> None:
    """With few change points, in periods that close meanwhile or not: what is not refused comes to what the oracle works
    out of every reading."""
    source = random.Random(seed)
    bench = opened(points, *KINDS, days=days)
    sent: list[bytes] = []
    for _ in range(40):
        bench.now += source.choice([0, HOUR, 9 * HOUR])
        if sent and source.random() < 0.45:
            original = source.choice(sent)
            before = encode_account(bench.account())
            body = json.loads(gauged(bench, source)) | {"id": json.loads(original)["id"]}
            amended = json.dumps(body).encode() if source.random() < 0.4 else None
            outcome = bench.correct(original, amended)
            if outcome == "dead_lettered.not_cancellable":
                assert encode_account(bench.account()) == before
        else:
            sent.append(gauged(bench, source))
            assert bench.record(b"acme", sent[-1]) == "rated"
    assert_the_same(bench, oracle_of(bench, paranoid=seed % 5 == 0), f"{points} points")
    conserved(bench.account())
    store, partition = Store(), bench.fresh()
    at = source.randrange(len(bench.log))
    for record in bench.log[:at]:
        partition.apply(*record)
    store.checkpoint(partition)
    resumed = store.load_into(bench.fresh())
    for record in bench.log[at:]:
        resumed.apply(*record)
    again = resumed.account("acme")
    assert again is not None
    assert encode_account(again) == encode_account(bench.account())
    assert encode_account(decode_account(encode_account(again), bench.partition._book)) == encode_account(again)


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_that_never_cancels_stays_small(kind: str) -> None:
    """10,000 readings in one cell: as large as after 10, but for the digits of how many there were."""
    bench = Bench(document(kind))
    bench.open()
    size = 0
    for number in range(10_000):
        data = {"value": str(number * 7919 % 9973 if kind != "unique_count" else number % 9), "region": "eu"}
        bench.use(at=START - number, type="gauge", data=data)
        if number == 10:
            size = len(encode_account(bench.account()))
    assert len(encode_account(bench.account())) < size + 130
    shown = [value for name, value in account_fields(encode_account(bench.account())).items() if "aggregate" in name]
    assert len(shown) == 1


def corrected(kind: str, points: int, *values: str) -> tuple[Bench, list[bytes]]:
    bench = Bench(keeping(points, kind))
    bench.open()
    events = [bench.event(type="gauge", data={"value": value, "region": "eu"}) for value in values]
    for event in events:
        assert bench.record(b"acme", event) == "rated"
    return bench, events


def test_the_answer_may_leave_as_often_as_points_are_kept() -> None:
    """One point behind the greatest of 9, 7 and 5: 9 goes, and 7 counts; 7 cannot, as of 5 nothing is known but that there
    is one. When that has gone, it can."""
    bench, (nine, seven, five) = corrected("max", 1, "9", "7", "5")
    assert bench.correct(nine) == "cancelled"
    assert bench.correct(seven) == "dead_lettered.not_cancellable"
    detail = bench.letter().detail
    assert "price max it is not known any more what would count in its place" in detail
    assert "change_points" in detail
    assert bench.correct(five) == "cancelled"
    assert bench.correct(seven) == "cancelled"
    assert bench.debt() == 0
    assert bench.account().aggregates == {}
    assert_the_same(bench, oracle_of(bench, paranoid=True), "points")


def test_without_points_only_what_does_not_count_is_taken_back() -> None:
    """Of 2 and 5 the least cannot go while 5 is there, of which nothing is kept; behind it, it can."""
    bench, (least, other) = corrected("min", 0, "2", "5")
    assert bench.correct(least) == "dead_lettered.not_cancellable"
    assert bench.correct(other) == "cancelled"
    assert bench.correct(least) == "cancelled"
    assert_the_same(bench, oracle_of(bench, paranoid=True), "points")


def test_an_amend_has_no_more_different_values_than_the_limit() -> None:
    """Two are allowed: one of two b may not become c, the only a may."""
    bench = Bench(document("unique_count", limit="2"))
    bench.open()
    events = [bench.event(type="gauge", data={"value": value, "region": "eu"}) for value in ("a", "b", "b")]
    for event in events:
        bench.record(b"acme", event)

    def becomes(event: bytes, value: str) -> bytes:
        return json.dumps(json.loads(event) | {"data": {"value": value, "region": "eu"}}).encode()

    assert bench.correct(events[1], becomes(events[1], "c")) == "dead_lettered.too_many_values"
    assert bench.correct(events[0], becomes(events[0], "c")) == "amended"
    assert_the_same(bench, oracle_of(bench, paranoid=True), "limit")


def test_a_reading_that_was_never_there_is_a_mismatch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fingerprint has 32 bits, so two events may have the same: the table, not the fingerprint, says what can be taken."""
    bench, (event, _) = corrected("max", 1, "9", "7")
    body: dict[str, Any] = json.loads(event)
    other = json.dumps(body | {"data": {"value": "12", "region": "eu"}}).encode()
    monkeypatch.setattr("engine.partition.rated_at", lambda correction, known, *more: known[1])
    assert bench.correct(other) == "dead_lettered.correction_mismatch"
