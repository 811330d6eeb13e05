"""Sessions become charges: on events, and as log time passes."""

import json
from typing import Any

import pytest

from engine import account as accounts
from engine.admission import FieldBound
from engine.catalog import CatalogueDocument, PlanDefinition
from engine.holds import seal_token
from engine.meters import ConditionDefinition, MeterDefinition
from engine.money import NANO
from engine.reasons import Reason
from engine.sessions import last_accrual
from engine.snapshot import encode_account
from tests.engine.bench import DAY, DOLLAR, HOUR, KEY, MINUTE, START, Bench, kept_open, per_unit, us
from tests.engine.desk_bench import DeskBench
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r3_durations import document, told

SECONDS = 1_000_000


def bench_of(*documents: CatalogueDocument) -> Bench:
    bench = Bench(*(documents or (document(),)))
    bench.open()
    return bench


def lines(bench: Bench, since: int = 0) -> list[dict[str, Any]]:
    return [json.loads(line) for _, line in bench.partition.outputs.lines[since:]]


def test_what_accrues_is_told_at_the_record_that_moved_log_time_and_is_of_no_event() -> None:
    bench = bench_of()
    told(bench, "s", "start")
    bench.use("2", at=START + MINUTE, id="u")
    bench.now += MINUTE
    bench.use("2")
    accrued = last_accrual("acme", bench.now)
    first, second = lines(bench)[1:]
    assert (first["source"], first["id"], first["accrued_us"]) == ("tallygate.accrual", str(accrued), accrued)
    assert (first["line"], second["line"], first["offset"]) == (0, 1, second["offset"])
    assert first["quantity"] == str((accrued - START) // SECONDS) and first["time_us"] == accrued - 1
    assert "accrued_us" not in second and second["id"].startswith("event-")
    assert_the_same(bench, oracle_of(bench), "accrual")


def test_all_open_sessions_of_a_price_and_cell_accrue_in_one_line() -> None:
    bench = bench_of()
    for name in ("a", "b", "c"):
        told(bench, name, "start", gpus="2")
    told(bench, "d", "start", kind="h100")
    bench.tick(START + MINUTE)
    each = (last_accrual("acme", bench.now) - START) // SECONDS
    assert [(line["price"], line["quantity"]) for line in lines(bench)] == [
        ("a100", str(6 * each)),
        ("h100", str(each)),
    ]
    assert_the_same(bench, oracle_of(bench), "one line")


def test_rules_and_caps_see_what_is_open_and_an_account_without_sessions_is_not_woken() -> None:
    bench = bench_of()
    bench.open("idle")
    bench.cap("0.30")
    bench.cap_rule(50)
    told(bench, "s", "start")
    bench.tick(START + 2 * MINUTE)
    assert not bench.told()
    bench.tick(START + 4 * MINUTE)
    assert [(row[0], row[3]) for row in bench.told()] == [("cap-50", "crossed")]
    idle = bench.partition.account("idle")
    assert idle is not None and idle.wake_us() is None
    assert_the_same(bench, oracle_of(bench), "rules")


def test_a_cap_that_counts_for_itself_keeps_what_was_accrued_and_taken_back() -> None:
    """It must never be laxer than what was used; a month's spend, which is derived, follows."""
    bench = bench_of()
    bench.cap("9", "hourly", window="hour")
    told(bench, "s", "start")
    bench.tick(START + 4 * MINUTE)
    open_for = last_accrual("acme", bench.now) - START
    bench.tick(START + 20 * MINUTE)
    (counted,) = bench.account().tallies["hourly"].values()
    assert counted >= open_for * DOLLAR // SECONDS // 1000 > 0
    assert sum(bench.account().derive().spend.values()) == 0
    assert_the_same(bench, oracle_of(bench), "caps")


def test_a_session_counts_in_the_scopes_that_were_declared_when_it_was_heard_of_first() -> None:
    bench = bench_of()
    bench.scope("team")
    told(bench, "s", "start", scope="team/ann")
    bench.scope("team/ann")
    bench.tick(START + MINUTE)
    told(bench, "s", "stop", at=START + MINUTE, scope="team/ann")
    spends = {scope: sum(each.spend.values()) for scope, each in bench.account().scopes.items() if scope}
    assert spends == {"team": 60 * DOLLAR // 1000, "team/ann": 0}
    assert_the_same(bench, oracle_of(bench), "scopes")


def test_a_stop_that_comes_when_its_period_is_closed_is_an_adjustment_of_it() -> None:
    bench = Bench(document())
    bench.now = us("2026-03-31T23:00:00+00:00")
    bench.open()
    told(bench, "s", "start")
    bench.tick(bench.now + 10 * DAY)
    assert told(bench, "s", "stop", at=us("2026-04-01T01:00:00+00:00")) == "rated"
    march, april = lines(bench)[-2:]
    assert (march["adjusts"], march["quantity"]) == (us("2026-03-01T00:00:00+00:00"), "3600")
    assert "adjusts" not in april and april["quantity"] == "3600"
    assert (
        bench.account().late and sum(sum(each.values()) for each in bench.account().adjusted.values()) == 3.6 * DOLLAR
    )
    assert_the_same(bench, oracle_of(bench), "closed")


def test_a_lot_that_is_granted_while_a_session_is_open_pays_from_then_on() -> None:
    """The segment ends where the lot begins, and is rounded by itself."""
    bench = bench_of()
    told(bench, "s", "start", gpus="0.333333333")
    bench.tick(START + 2 * MINUTE)
    bench.grant("late", "10", "promo")
    for minutes in (4, 6):
        told(bench, "s", "heartbeat", at=START + minutes * MINUTE, gpus="0.333333333")
        bench.tick(START + minutes * MINUTE)
    assert bench.allocation().burnt and len(bench.account().table) == 2
    assert sum(bench.allocation().debt.values()) == 39_999_999_960, (
        "until 12:02, when the lot began, though accrued later"
    )
    assert_the_same(bench, oracle_of(bench), "lot")


def test_a_session_that_nothing_has_a_price_for_is_not_accrued_and_its_events_are_set_aside() -> None:
    gone = document()
    plan = gone.plans["plan"]
    gone = CatalogueDocument(gone.meters, {"plan": PlanDefinition("USD", {**plan.prices, "a100": plan.prices["h100"]})})
    del gone.plans["plan"].prices["h100"]
    bench = bench_of(document(), gone)
    bench.publish(2, START + 10 * MINUTE)
    for minutes in (0, 4, 8, 9):
        bench.now = START + minutes * MINUTE
        told(bench, "s", "heartbeat")
    for minutes in (10, 13):
        bench.tick(START + minutes * MINUTE)
    assert (
        sum(row["a100", ("a100",)] for row in bench.account().table.values()) // 10**9
        == 540 + (last_accrual("acme", START + 10 * MINUTE) - START - 540 * SECONDS) // SECONDS
    )
    before = encode_account(bench.account())
    assert told(bench, "s", "stop") == "dead_lettered.no_price"
    assert encode_account(bench.account()) == before
    assert_the_same(bench, oracle_of(bench), "no price")


def test_with_too_many_cells_nothing_accrues_and_the_event_is_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = bench_of()
    told(bench, "s", "start")
    monkeypatch.setattr(accounts, "CELLS_MAX", 0)
    bench.tick(START + 2 * MINUTE)
    assert not bench.account().table and bench.account().sessions.accruing()
    before = encode_account(bench.account())
    assert told(bench, "s", "stop") == "dead_lettered.too_many_cells"
    assert encode_account(bench.account()) == before
    monkeypatch.undo()
    bench.tick(START + 3 * MINUTE)
    assert bench.account().table


def test_an_event_may_count_in_meters_of_other_kinds_besides() -> None:
    """Its own lines first, then what its session comes to; all of it or nothing."""
    meters = dict(document().meters)
    meters["starts"] = MeterDefinition("gpu", "count", when={"state": ConditionDefinition(one_of=("start",))})
    prices = document().plans["plan"].prices | {"starts": per_unit("1", meter="starts")}
    bench = bench_of(CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}))
    bench.now += 30 * MINUTE
    told(bench, "s", "stop", at=START + MINUTE)
    assert lines(bench) == []
    told(bench, "s", "start", at=START)
    assert [(line["line"], line["price"], line["quantity"], line.get("session")) for line in lines(bench)] == [
        (0, "starts", "1", None),
        (1, "a100", "60", "s"),
    ]
    assert_the_same(bench, oracle_of(bench), "besides")


@pytest.mark.parametrize("amended", [False, True])
def test_an_event_of_a_session_is_not_cancelled_or_amended(amended: bool) -> None:
    bench = bench_of()
    data = {"session": "s", "state": "start", "gpus": "1", "kind": "a100"}
    original, other = (bench.event(type="gpu", id="a", data=data | {"session": name}) for name in ("s", "t"))
    assert bench.record(b"acme", original) == "rated"
    before = encode_account(bench.account())
    assert bench.correct(original, other if amended else None) == "dead_lettered.not_cancellable"
    assert "session 's' of gpu; a later stop, or another level, corrects" in bench.letter().detail
    assert encode_account(bench.account()) == before
    plain = bench.event("1", id="p")
    bench.record(b"acme", plain)
    assert bench.correct(plain, bench.event(type="gpu", id="p", data=data)) == "dead_lettered.not_cancellable"
    assert_the_same(bench, oracle_of(bench), "correction")


def test_a_check_is_bounded_by_the_meter_and_a_hold_is_refused() -> None:
    """A hold is rated where it was admitted; a session goes on behind that."""
    bench = DeskBench(document())
    bench.open()
    bench.grant("l", "1")
    asked: dict[str, Any] = {"type": "gpu", "data": {"kind": "a100"}, "bounds": (FieldBound(("gpu",), 1000 * NANO),)}
    assert bench.check(hold_us=None, **asked).reason is None
    held = bench.check(hold_us=MINUTE, **asked)
    assert held.reason is Reason.UNBOUNDED and held.binding is not None and held.binding.name == "gpu"
    by_field = asked | {"bounds": (FieldBound(("gpus",), 1000 * NANO),)}
    assert bench.check(hold_us=None, **by_field).reason is Reason.UNBOUNDED
    told(bench, "s", "start")
    told(bench, "s", "heartbeat", at=START + 4 * MINUTE)
    bench.tick(START + 5 * MINUTE)
    assert bench.check(hold_us=None, **asked).reason is Reason.CREDIT_DEPLETED, "what is open counts"
    assert told(bench, "s", "stop", hold=seal_token(KEY, bench.hold())) == "dead_lettered.bad_hold"
    assert "draws on no hold" in bench.letter().detail


def test_a_session_over_many_segments_and_hours_is_kept_open_by_its_heartbeats() -> None:
    bench = Bench(kept_open(document(), 30), kept_open(document("9"), 30))
    bench.now = us("2026-03-31T22:30:00+00:00")
    bench.open(zone="Europe/Berlin")
    bench.publish(2, bench.now + HOUR)
    begin = bench.now
    for minutes in range(0, 180, 4):
        bench.now = begin + minutes * MINUTE
        told(bench, "s", "heartbeat" if minutes else "start")
    told(bench, "s", "stop", at=bench.now)
    seconds = sum(sum(row.values()) for row in bench.account().table.values()) // 10**9
    assert seconds == 176 * 60 and len(bench.account().table) == 3 - 1
    assert_the_same(bench, oracle_of(bench), "segments")


def test_a_session_over_a_change_of_plan_pays_each_plan_for_its_time() -> None:
    """A period ends where the plan changes; the session goes on, at what the new plan asks in its cell."""
    catalogue = document()
    plans = {"plan": catalogue.plans["plan"], "other": document("36").plans["plan"]}
    bench = bench_of(CatalogueDocument(catalogue.meters, plans))
    told(bench, "s", "start")
    change = START + 10 * MINUTE
    assert bench.command("set_plan", plan="other", from_us=change) == "applied"
    for minutes in (4, 8, 12, 16):
        bench.now = START + minutes * MINUTE
        told(bench, "s", "heartbeat")
    told(bench, "s", "stop", at=START + 16 * MINUTE)
    seconds = {start: sum(row.values()) // NANO for start, row in bench.account().table.items()}
    assert sorted(seconds.values()) == [360, 600] and seconds[change] == 360
    assert sum(bench.charges()) == (600 + 3600) * DOLLAR // 1000
    assert_the_same(bench, oracle_of(bench), "plans")
