"""Law R2: an event is rated in the period and version in force at its own time; intervals are half-open."""

import json
import random
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import (
    CatalogueDocument,
    MeterDefinition,
    PlanDefinition,
    PriceBook,
    PriceDefinition,
    compile_catalogue,
)
from engine.periods import EPOCH, MICROSECOND, month_around
from tests.engine.bench import DOLLAR, HOUR, START, Bench, document, graduated, per_unit


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - EPOCH) // MICROSECOND


def starts(zone: str, anchor_day: int, first: str, count: int) -> list[str]:
    """The starts of successive periods, as UTC text."""
    found = []
    instant, _ = month_around(zone, anchor_day, us(first))
    for _ in range(count):
        found.append((EPOCH + instant * MICROSECOND).strftime("%Y-%m-%dT%H:%M"))
        _, instant = month_around(zone, anchor_day, instant)
    return found


def test_an_anchor_of_31_comes_back_after_a_short_month() -> None:
    """The day is min(anchor, length of the month), always from the original anchor."""
    assert starts("UTC", 31, "2024-01-31T00:00:00+00:00", 5) == [
        "2024-01-31T00:00",
        "2024-02-29T00:00",
        "2024-03-31T00:00",
        "2024-04-30T00:00",
        "2024-05-31T00:00",
    ]


def test_a_midnight_in_a_gap_moves_forward() -> None:
    """Where the clock jumps over midnight, the period starts at the first instant that exists: Beirut, 31 March 2024."""
    assert starts("Asia/Beirut", 31, "2024-03-31T12:00:00+00:00", 2) == ["2024-03-30T22:00", "2024-04-29T21:00"]
    assert starts("America/Sao_Paulo", 4, "2018-11-04T12:00:00+00:00", 1) == ["2018-11-04T03:00"]


def test_a_day_that_never_was_starts_where_the_clock_jumped() -> None:
    """Samoa went from 29 to 31 December 2011 in one step; a period anchored on the 30th starts at that step."""
    assert starts("Pacific/Apia", 30, "2011-12-30T11:00:00+00:00", 1) == ["2011-12-30T10:00"]


def test_a_midnight_that_comes_twice_counts_the_first_time() -> None:
    """In an overlap the first of the two midnights starts the period: Havana, 3 November 2024."""
    assert starts("America/Havana", 3, "2024-11-03T12:00:00+00:00", 1) == ["2024-11-03T04:00"]


def test_a_period_follows_its_zone_through_the_year() -> None:
    """Local midnight, not a fixed offset, bounds a month: Berlin's March 2026 has an hour less."""
    start, end = month_around("Europe/Berlin", 1, us("2026-03-15T00:00:00+00:00"))
    assert (start, end) == (us("2026-03-01T00:00:00+01:00"), us("2026-04-01T00:00:00+02:00"))
    assert end - start == (31 * 24 - 1) * 3_600_000_000


@pytest.mark.parametrize(("offset_us", "month"), [(-1, "2026-10"), (0, "2026-11")])
def test_the_instant_of_a_boundary_belongs_to_what_starts_there(offset_us: int, month: str) -> None:
    """Periods are half-open: [start, end)."""
    start, _ = month_around("UTC", 1, us("2026-11-01T00:00:00+00:00") + offset_us)
    assert start == us(f"{month}-01T00:00:00+00:00")


def test_a_price_change_at_t_leaves_what_happened_before_t_alone() -> None:
    """An event is rated in the version at its own time, however late it comes: T − 1 ms is old, T is new."""
    book = PriceBook()
    change = us("2026-11-15T00:00:00+00:00")
    meters = {"calls": MeterDefinition("call", "count")}
    for version, amount in ((1, "1"), (2, "2")):
        plans = {"p": PlanDefinition("USD", {"calls": PriceDefinition("calls", "per_unit", amount=amount)})}
        book.publish(change, compile_catalogue(version, CatalogueDocument(meters, plans)))
    in_force = [found.version for instant in (change - 1_000, change) if (found := book.at(instant))]
    assert in_force == [1, 2]


# x is $1 and becomes $3; `tiered` is $30 up to 10 and $40 up to 50, and becomes $7 up to 11 and $2 beyond.
CHANGE = START + HOUR
DEARER = document(x=per_unit("3", model="x"), tiered=graduated(("11", "7"), (None, "2"), model="tiered"))


def changed() -> Bench:
    """An hour after a price change, at which nothing has arrived yet."""
    bench = Bench(document(), DEARER)
    bench.open()
    bench.publish(2, CHANGE)
    bench.now = CHANGE + HOUR
    return bench


@pytest.mark.parametrize(("shift_us", "dollars"), [(-1_000, 1), (-1, 1), (0, 3), (1, 3)])
def test_usage_of_before_a_price_change_is_old_however_late_it_comes(shift_us: int, dollars: int) -> None:
    """Golden: own time T − 1 ms, arriving after T, pays the old price; own time T pays the new one."""
    bench = changed()
    bench.use(1, at=CHANGE + shift_us)
    assert bench.charges() == [dollars * DOLLAR]


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (1, 0, 2)])
def test_counters_go_on_across_a_price_change(order: tuple[int, ...]) -> None:
    """Owed = A1(q1) + A2(q1 + q2) − A2(q1), whatever the order of arrival: q1 = 8, q2 = 5."""
    bench = changed()
    uses = [(6, CHANGE - HOUR), (2, CHANGE - 1), (5, CHANGE)]
    for index in order:
        bench.use(uses[index][0], "tiered", uses[index][1])
    owed = 8 * 30 + (11 * 7 + 2 * 2) - 8 * 7
    assert sum(bench.charges()) == owed * DOLLAR
    assert sum(bench.account().derive().spend.values()) == owed * DOLLAR


def test_a_late_unit_under_the_old_price_moves_the_tiers_of_the_new_one() -> None:
    """Its charge is its own $30 and what it re-prices: one unit of the new version slips from $7 to $2."""
    bench = changed()
    bench.use(8, "tiered", CHANGE - HOUR)
    bench.use(3, "tiered", CHANGE)
    bench.use(1, "tiered", CHANGE - 1)
    assert bench.charges() == [240 * DOLLAR, 21 * DOLLAR, (30 - 7 + 2) * DOLLAR]


def test_a_price_change_on_a_period_boundary_starts_from_nothing() -> None:
    """In a new period both the version and the counters are new."""
    april = us("2026-04-01T00:00:00+00:00")
    bench = Bench(document(), DEARER)
    bench.open()
    bench.publish(2, april)
    bench.now = april
    bench.use(10, "tiered", april - 1)
    bench.use(10, "tiered", april)
    assert bench.charges() == [300 * DOLLAR, 70 * DOLLAR]


def test_each_event_is_rated_in_the_period_of_its_own_time_in_the_zone_of_its_account() -> None:
    """Midnight in Berlin, not in Greenwich, ends March: the hour has tiers of its own on either side."""
    bench = Bench()
    bench.open(zone="Europe/Berlin")
    midnight = us("2026-04-01T00:00:00+02:00")
    bench.now = midnight + HOUR
    for shift_us in (-1, 0):
        bench.use(10, "tiered", midnight + shift_us)
    assert bench.charges() == [300 * DOLLAR, 300 * DOLLAR]
    assert bench.account().derive().spend == {
        us("2026-03-01T00:00:00+01:00"): 300 * DOLLAR,
        midnight: 300 * DOLLAR,
    }


def test_a_period_is_anchored_and_a_month_is_not() -> None:
    """Tiers count from the anchor day; spend against a cap counts from the first."""
    bench = Bench()
    bench.open(anchor_day=31)
    for day in ("2026-03-30", "2026-03-31", "2026-04-29"):
        bench.now = us(f"{day}T12:00:00+00:00")
        bench.use(10, "tiered")
    # 30 March ends the period from 28 February; 31 March starts the one that 29 April is still in.
    assert bench.charges() == [300 * DOLLAR, 300 * DOLLAR, 400 * DOLLAR]
    assert list(bench.account().derive().spend.values()) == [600 * DOLLAR, 400 * DOLLAR]


def test_a_price_change_published_amid_usage_splits_it_at_its_instant() -> None:
    """An account that was being rated just now is charged the new price from T on, and the old one until T."""
    bench = Bench(document(), DEARER)
    bench.open()
    bench.use(1)
    bench.publish(2, CHANGE)
    for at in (START, CHANGE - 1, CHANGE, CHANGE + 1):
        bench.now = max(START, at)
        bench.use(1, at=at)
    assert bench.charges() == [DOLLAR, DOLLAR, DOLLAR, 3 * DOLLAR, 3 * DOLLAR]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(-20 * 24, 20 * 24), st.integers(-1, 1), st.integers(1, 9)), min_size=1, max_size=9),
    st.sampled_from(("UTC", "America/New_York", "Asia/Beirut")),
    st.sampled_from((1, 15, 31)),
    st.randoms(use_true_random=False),
)
def test_whenever_it_comes_an_event_is_rated_by_its_own_time(
    events: list[tuple[int, int, int]], zone: str, anchor_day: int, source: random.Random
) -> None:
    """Hours before or behind a price change, to the microsecond, in any order of arrival: version, period, amount."""
    change = START + 3 * HOUR
    bench = Bench(document(), document(x=per_unit("2", model="x")))
    bench.open(zone=zone, anchor_day=anchor_day)
    assert bench.publish(2, change) == "catalogue"
    bench.now = START + 25 * 24 * HOUR
    times = [
        (min(bench.now, max(change + hours * HOUR, bench.now - 34 * 24 * HOUR)) + us, units)
        for hours, us, units in events
    ]
    source.shuffle(times)
    expected: dict[int, int] = {}
    for time_us, units in times:
        lines = len(bench.partition.outputs.lines)
        bench.use(units, "x", time_us)
        told = [json.loads(raw) for _, raw in bench.partition.outputs.lines[lines:]]
        rate = 1 if time_us < change else 2
        assert [(line["version"], line["amount"]) for line in told] == [(rate, str(rate * units))]
        if "adjusts" not in told[0]:
            period = month_around(zone, anchor_day, time_us)[0]
            expected[period] = expected.get(period, 0) + rate * units * DOLLAR
    running = bench.account().derive().running
    assert {period: run.amount for (period, _), run in running.items()} == expected
