"""What measures come to at their edges, how far the guard lets usage go, and when an account wakes for a rule."""

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import CommitmentDefinition
from engine.money import NANO
from tests.engine.bench import DAY, HOUR, START, Bench, document, per_unit, us

HOUR_START = START - START % HOUR


def opened(**prices: Any) -> Bench:
    bench = Bench(document(**prices))
    bench.open()
    return bench


def phases(bench: Bench, rule: str = "r") -> list[str]:
    return [phase for name, _, _, phase in bench.told() if name == rule]


def test_an_included_quantity_is_told_to_the_nano_unit_on_the_fast_path() -> None:
    """Usage that is included costs nothing, so no guard on money would see it."""
    bench = opened(x=msgspec.structs.replace(per_unit("1", model="x"), included="10"))
    bench.rule("r", "included_percent", price="x", percent=80)
    bench.use("3")
    bench.use("4.999999999")
    assert not bench.account().unguarded
    assert not phases(bench)
    bench.use("0.000000001")
    assert phases(bench) == ["crossed"]
    assert bench.told()[0][1] == str(bench.account().period_of(START))


def test_a_price_that_includes_nothing_has_no_share_to_tell_of() -> None:
    bench = opened()
    bench.rule("r", "included_percent", price="x", percent=1)
    bench.use(100)
    assert not phases(bench)


def test_a_spike_is_measured_against_the_average_of_24_whole_buckets() -> None:
    bench = opened()
    bench.now = HOUR_START
    bench.rule("r", "spike", percent=300, minimum="2", bucket_s=3600)
    for number in range(24):
        bench.tick(HOUR_START + number * HOUR)
        bench.use(1)
    bench.tick(HOUR_START + 24 * HOUR)
    bench.use("2.999999999")
    assert not phases(bench)
    bench.use("0.000000001")
    assert phases(bench) == ["crossed"]
    bench.tick(HOUR_START + 26 * HOUR - 1)
    assert phases(bench) == ["crossed"]
    assert bench.partition.next_wake_us() == HOUR_START + 26 * HOUR
    bench.tick(HOUR_START + 26 * HOUR)
    assert phases(bench) == ["crossed", "recovered"]


def test_a_late_event_counts_in_the_bucket_of_its_arrival_and_a_correction_in_none() -> None:
    bench = opened()
    bench.rule("r", "spike", percent=300, minimum="5", bucket_s=3600)
    original = bench.event(4, at=START - 3 * DAY)
    bench.record(b"acme", original)
    assert list(bench.account().tallies["\0r"].items()) == [(HOUR_START, 4 * 10**12)]
    assert bench.correct(original) == "cancelled"
    assert list(bench.account().tallies["\0r"].values()) == [4 * 10**12]
    bench.use(1)
    assert phases(bench) == ["crossed"]


def test_a_spike_keeps_no_more_than_it_compares() -> None:
    bench = opened()
    bench.now = HOUR_START
    bench.rule("r", "spike", percent=300, minimum="5", bucket_s=3600, meter="units")
    for number in range(60):
        bench.tick(HOUR_START + number * HOUR)
        bench.use(1)
    counts = bench.account().tallies["\0r"]
    assert sorted(counts) == [HOUR_START + number * HOUR for number in range(34, 60)]
    assert set(counts.values()) == {NANO}


def test_usage_that_stops_is_told_when_the_last_of_it_has_sunk() -> None:
    """Downwards, in a rolling window: it wakes by itself, without an event."""
    bench = opened()
    bench.now = HOUR_START
    bench.rule("r", "spend", threshold="1", clear="3", window="rolling", length_s=3600, direction="down")
    assert phases(bench) == ["crossed"]
    bench.use(3)
    assert phases(bench) == ["crossed"]
    bench.use("0.000000001")
    assert phases(bench) == ["crossed", "recovered"]
    due = bench.partition.next_wake_us()
    assert due == HOUR_START + 61 * HOUR // 60
    bench.tick(due - 1)
    assert phases(bench) == ["crossed", "recovered"]
    bench.tick(due)
    assert phases(bench) == ["crossed", "recovered", "crossed"]


def test_a_lot_is_told_of_from_the_instant_on_and_until_it_has_expired() -> None:
    bench = opened()
    bench.grant("l", "10", expires_us=START + 10 * DAY)
    bench.rule("r", "expiring", threshold="5", clear="2", within_s=7 * 86_400)
    assert bench.partition.next_wake_us() == START + 3 * DAY
    bench.tick(START + 3 * DAY - 1)
    assert not phases(bench)
    bench.tick(START + 3 * DAY)
    assert [row[1:] for row in bench.told()] == [("lot:l", 1, "crossed")]
    bench.use(8)
    assert phases(bench) == ["crossed"]  # $2 is not below $2
    bench.use("0.000000001")
    assert phases(bench) == ["crossed", "recovered"]
    bench.grant("m", "5", expires_us=START + 8 * DAY)
    assert bench.told()[-1][1:] == ("lot:m", 1, "crossed")
    bench.tick(START + 8 * DAY)
    assert bench.told()[-1][1:] == ("lot:m", 1, "recovered")


def test_a_lot_is_no_calendar_window_whatever_it_is_called() -> None:
    """What is forgotten with a window that is gone would come again under the same id."""
    bench = opened()
    bench.cap("100", window="hour")
    for name in ("day:0", "day:first"):
        bench.grant(name, "10", expires_us=START + DAY)
    bench.rule("r", "expiring", threshold="5", within_s=30 * 86_400)
    bench.use(1)
    told = bench.told()
    bench.now += 3 * HOUR
    assert bench.use(1) == "rated"  # opens an hour, and forgets what is gone
    assert len(told) == 2
    assert bench.told() == told


@pytest.mark.parametrize("rollover", [None, {"percent": 50, "days": 30}, {"percent": 100, "days": 30}])
def test_what_expires_or_is_carried_is_no_use_of_a_lot(rollover: dict[str, int] | None) -> None:
    bench = opened()
    bench.grant("l", "10", expires_us=START + DAY, rollover=rollover)
    bench.rule("r", "lot_percent", lot="l", percent=50)
    bench.use(4)
    bench.tick(START + DAY)
    assert not phases(bench)
    bench.use(6)
    assert not phases(bench), "the other lot pays"
    bench.use(1, at=START)
    assert phases(bench) == ["crossed"]


def test_a_scope_without_usage_this_month_is_guarded_from_its_first_on() -> None:
    """Its month has no row yet when the newest segment is watched."""
    bench = opened()
    bench.scope("team:red")
    bench.rule("r", "spend", threshold="5", scope="team:red")
    for _ in range(3):
        bench.use(1)
    assert not bench.account().unguarded
    bench.use("4.5", scope="team:red")
    bench.use("0.5", scope="team:red")
    assert phases(bench) == ["crossed"]


@settings(max_examples=40)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=20), st.sampled_from([20, 50, 100, 150]), st.booleans())
def test_an_included_share_crosses_where_exact_arithmetic_says(units: list[int], percent: int, fresh: bool) -> None:
    price = msgspec.structs.replace(per_unit("1", model="x"), included="7")
    bench = opened(x=price)
    bench.rule("r", "included_percent", price="x", percent=percent)
    used, crossed = 0, 0
    for each in units:
        if fresh:
            bench.account().reprice()
        bench.use(each)
        used += each
        crossed = crossed or (used * 100 >= 7 * percent)
        assert phases(bench) == ["crossed"] * crossed


def test_a_price_that_is_published_with_another_share_is_told_of_by_the_new_one() -> None:
    first = document(x=msgspec.structs.replace(per_unit("1", model="x"), included="100"))
    plan = first.plans["plan"]
    second = msgspec.structs.replace(
        first,
        plans=first.plans
        | {
            "plan": msgspec.structs.replace(
                plan, prices=plan.prices | {"x": msgspec.structs.replace(plan.prices["x"], included="10")}
            )
        },
    )
    bench = Bench(first, second)
    bench.open()
    bench.rule("r", "included_percent", price="x", percent=100)
    bench.publish(2, START + DAY)
    bench.use(10)
    assert not phases(bench)
    bench.now = START + DAY
    bench.use(0)
    assert phases(bench) == ["crossed"]


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, 9)), min_size=1, max_size=20),
    st.sampled_from([20, 50, 100, 150]),
    st.booleans(),
)
def test_a_share_of_a_commitment_crosses_where_exact_arithmetic_says(
    used: list[tuple[str, int]], percent: int, fresh: bool
) -> None:
    """One of x alone, and one of the plan for y and `third`: on the fast path as on the full one."""
    whole = document(x=msgspec.structs.replace(per_unit("1", model="x"), commitment="13"))
    plan = whole.plans["plan"]
    shared = msgspec.structs.replace(plan, commitments={"rest": CommitmentDefinition("7", ("y", "third"))})
    bench = Bench(msgspec.structs.replace(whole, plans=whole.plans | {"plan": shared}))
    bench.now = us("2026-04-01T00:00:00+00:00")
    bench.open()
    bench.rule("of x", "commitment_percent", commitment="x", percent=percent)
    bench.rule("of rest", "commitment_percent", commitment="rest", percent=percent)
    spent = {"x": 0, "y": 0}
    for price, units in used:
        if fresh:
            bench.account().reprice()
        bench.use(units, price)
        spent[price] += units
        assert phases(bench, "of x") == ["crossed"] * (spent["x"] * 100 >= 13 * percent)
        assert phases(bench, "of rest") == ["crossed"] * (spent["y"] * 100 >= 7 * percent)
