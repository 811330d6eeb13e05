"""What becomes of a correction: each row of README's table, and what waits."""

import json
from typing import Any

import pytest

from engine.alerts import CORRECTION_FAILED
from engine.corrections import PARKED_BYTES_MAX
from engine.holds import Bound, seal_token
from engine.money import NANO
from tests.engine.bench import DAY, DOLLAR, KEY, MINUTE, START, Bench, Store


def opened() -> Bench:
    bench = Bench()
    bench.open()
    return bench


def changed(event: bytes, **attributes: object) -> bytes:
    return json.dumps(json.loads(event) | attributes).encode()


def units(event: bytes, count: object, model: str = "x") -> bytes:
    return changed(event, data={"model": model, "units": count})


def test_a_cancel_takes_the_charge_back_and_the_event_stays_known() -> None:
    bench = opened()
    event = bench.event(15, "tiered")
    assert bench.record(b"acme", event) == "rated"
    assert bench.correct(event) == "cancelled"
    assert bench.charges() == [500 * DOLLAR, -500 * DOLLAR]
    assert bench.debt() == 0
    line = json.loads(bench.partition.outputs.lines[-1][1])
    assert (line["correction"], line["quantity"], line["tiers"]) == ("cancel", "-15", [[1, "-10"], [2, "-5"]])
    assert bench.correct(event) == "duplicate"
    assert bench.record(b"acme", event) == "duplicate"
    assert bench.record(b"acme", units(event, 1)) == "dead_lettered.id_conflict"


def test_an_amend_takes_back_and_adds_in_one_step() -> None:
    """What lies between is seen by no rule: an alert that would clear and cross again is not told twice."""
    bench = opened()
    bench.cap("10")
    bench.cap_rule(100)
    event = bench.event(12)
    bench.record(b"acme", event)
    assert bench.correct(event, units(event, 11)) == "amended"
    assert bench.charges() == [12 * DOLLAR, -12 * DOLLAR, 11 * DOLLAR]
    assert bench.told() == [("cap-100", "1772323200000000", 1, "crossed")]
    assert bench.correct(event, units(event, 11)) == "duplicate"
    assert bench.correct(event, units(event, 10)) == "dead_lettered.superseded"
    assert bench.correct(event) == "dead_lettered.superseded"
    assert bench.correct(units(event, 11), None, 1) == "cancelled"
    assert bench.told()[1:] == [("cap-100", "1772323200000000", 1, "recovered")]
    assert bench.correct(event) == "duplicate"
    assert bench.correct(event, units(event, 11)) == "duplicate"
    assert bench.correct(units(event, 11), units(event, 9), 1) == "dead_lettered.superseded"


def test_a_rule_that_crosses_again_has_the_next_ordinal() -> None:
    bench = opened()
    bench.cap("10")
    bench.cap_rule(100)
    event = bench.event(10)
    bench.record(b"acme", event)
    bench.correct(event)
    bench.use(10)
    assert [(ordinal, phase) for _, _, ordinal, phase in bench.told()] == [
        (1, "crossed"),
        (1, "recovered"),
        (2, "crossed"),
    ]


def test_other_fields_than_what_was_rated_are_refused() -> None:
    bench = opened()
    event = bench.event(3)
    bench.record(b"acme", event)
    assert bench.correct(units(event, 4)) == "dead_lettered.correction_mismatch"
    assert bench.correct(changed(event, scope="team:a")) == "dead_lettered.correction_mismatch"
    assert bench.debt() == 3 * DOLLAR


@pytest.mark.parametrize(
    ("amended", "reason"),
    [
        ({"type": "refund"}, "no_meter"),
        ({"data": {"model": "x"}}, "bad_quantity"),
        ({"data": {"units": 1}}, "bad_dimension"),
        ({"data": {"units": 1, "model": "unheard"}}, "no_price"),
        ({"time": None}, "missing_time"),
        ({"time": "2027-01-01T00:00:00Z"}, "too_far_ahead"),
        ({"time": "2026-01-01T00:00:00Z"}, "too_old"),
        ({"id": "another"}, "bad_correction"),
        ({"specversion": "0.3"}, "malformed"),
    ],
)
@pytest.mark.parametrize("rated", [True, False])
def test_an_amend_to_what_could_not_be_rated_changes_nothing(rated: bool, amended: dict[str, Any], reason: str) -> None:
    """Whether its original is there or not: it is refused when it comes, not when it is too late to mend it."""
    bench = opened()
    event = bench.event(3)
    if rated:
        bench.record(b"acme", event)
    money = bench.account().derive().running, bench.account().rated
    assert bench.correct(event, changed(event, **amended)) == f"dead_lettered.{reason}"
    assert (bench.account().derive().running, bench.account().rated) == money
    assert not bench.account().parked


def test_an_amend_that_needs_too_many_cells_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = opened()
    event = bench.event(3)
    bench.record(b"acme", event)
    monkeypatch.setattr("engine.account.CELLS_MAX", 1)
    assert bench.correct(event, units(event, 3, "y")) == "dead_lettered.too_many_cells"
    assert bench.debt() == 3 * DOLLAR
    assert bench.correct(event, units(event, 2)) == "amended"


def test_more_than_the_table_has_is_not_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two events may have one fingerprint of 32 bits: what is in no cell is not taken out of it."""
    bench = opened()
    event = bench.event(3)
    bench.record(b"acme", event)
    monkeypatch.setattr("engine.partition.fingerprint", lambda event, time_us: b"same")
    known = bench.partition.dedup
    monkeypatch.setattr(known, "find", lambda key: (b"same", 2) if key in known._recent else None)
    assert bench.correct(units(event, 4)) == "dead_lettered.correction_mismatch"
    assert bench.correct(units(event, 1, "y")) == "dead_lettered.correction_mismatch"
    assert bench.debt() == 3 * DOLLAR


def test_a_held_event_is_taken_back_where_it_was_rated() -> None:
    """At the hold's admission, in its scope; the hold stays settled."""
    bench = opened()
    bench.scope("team:a")
    hold = bench.hold(Bound(5 * NANO, ("x",), ("x",)), scope="team:a")
    event = bench.event(3, hold=seal_token(KEY, hold), scope="team:a")
    bench.now += 10 * MINUTE
    bench.record(b"acme", event)
    assert bench.correct(event) == "cancelled"
    assert [set(row.values()) for row in bench.account().table.values()] == [{0}]
    assert bench.account().scopes["team:a"].spend == {1772323200000000: 0}
    forged = changed(event, hold="bm90IGEgdG9rZW4")
    assert bench.correct(forged) == "dead_lettered.bad_hold"


def test_a_scope_that_was_declared_later_gets_nothing_back() -> None:
    """What it never counted is not taken from it; what replaces it counts."""
    bench = opened()
    first, second = bench.event(3, scope="team:a"), bench.event(4, scope="team:a")
    bench.record(b"acme", first)
    bench.scope("team:a")
    bench.record(b"acme", second)
    assert bench.correct(first) == "cancelled"
    assert bench.account().scopes["team:a"].spend == {1772323200000000: 4 * DOLLAR}
    assert bench.correct(second, units(second, 5)) == "amended"
    assert bench.account().scopes["team:a"].spend == {1772323200000000: 5 * DOLLAR}
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


# ---------------------------------------------------------------------------------------------------------------- parked


def test_a_correction_waits_for_its_original() -> None:
    bench = opened()
    event = bench.event(3)
    better = units(event, 5)
    assert bench.correct(better, None, 1) == "parked"
    assert bench.correct(event, better) == "parked"
    assert bench.correct(event, better) == "duplicate"
    assert bench.correct(event) == "dead_lettered.superseded"
    assert bench.record(b"acme", event) == "rated"
    assert bench.charges() == [3 * DOLLAR, -3 * DOLLAR, 5 * DOLLAR, -5 * DOLLAR]
    assert [json.loads(line)["line"] for _, line in bench.partition.outputs.lines] == [0, 1, 2, 3]
    assert bench.debt() == 0
    assert not bench.account().parked
    assert bench.correct(event, better) == bench.correct(better, None, 1) == "duplicate"


def test_a_parked_correction_survives_a_takeover() -> None:
    bench = opened()
    event = bench.event(3)
    bench.correct(event)
    store = Store()
    store.checkpoint(bench.partition)
    bench.partition = store.load_into(bench.fresh())
    assert bench.record(b"acme", event) == "rated"
    assert bench.debt() == 0


def test_a_parked_correction_of_another_event_than_what_comes_is_told() -> None:
    bench = opened()
    event = bench.event(3)
    assert bench.correct(units(event, 4)) == "parked"
    assert bench.record(b"acme", event) == "rated"
    window = f"gateway-1\n{json.loads(event)['id']}"
    assert bench.told() == [(CORRECTION_FAILED, window, 1, "crossed")]
    assert bench.debt() == 3 * DOLLAR
    assert bench.correct(event) == "cancelled"


def test_a_correction_waits_until_its_original_would_be_too_old() -> None:
    bench = opened()
    event = bench.event(3)
    assert bench.correct(event) == "parked"
    until = START + 35 * DAY - 5 * MINUTE
    assert bench.partition.next_wake_us() == until + 1
    bench.now = until
    bench.tick(until)
    assert bench.account().parked
    bench.tick(until + 1000)
    assert not bench.account().parked
    assert [row[0] for row in bench.told()] == [CORRECTION_FAILED]
    assert bench.record(b"acme", event) == "dead_lettered.too_old"
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_what_waits_is_bounded() -> None:
    bench = opened()
    fill = "n" * 60_000
    for _ in range(PARKED_BYTES_MAX // 60_000):
        assert bench.correct(bench.event(data={"model": "x", "units": 1, "note": fill})) == "parked"
    assert bench.correct(bench.event(data={"model": "x", "units": 1, "note": fill})) == "dead_lettered.too_many_parked"
    assert sum(len(parked.value) for parked in bench.account().parked.values()) <= PARKED_BYTES_MAX


def test_a_correction_of_nobody_is_of_an_unknown_account() -> None:
    bench = opened()
    assert bench.correct(bench.event(), account="nobody") == "dead_lettered.unknown_account"
