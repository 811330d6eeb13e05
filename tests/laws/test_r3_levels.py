"""Law R3: levels weighted by the time they hold, whatever order they are told in; those that hold accrue in log time."""

import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import gauges
from engine.catalog import CatalogueDocument, PlanDefinition
from engine.meters import MeterDefinition
from engine.money import NANO
from engine.sessions import last_accrual
from engine.snapshot import account_fields, encode_account
from tests.engine.bench import DAY, HOUR, MINUTE, SECOND, START, Bench, graduated, kept_open, per_unit
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r1_marginal import standing
from tests.laws.test_r3_durations import assert_cuts_leave_no_trace, used

KINDS = {"one": "ssd", "two": "hdd", "six": "ssd"}
LEVELS = st.lists(
    st.tuples(
        st.sampled_from(sorted(KINDS)),
        st.sampled_from(["0", "0", "1", "40", "0.333333333"]),
        st.integers(0, 40).map(lambda step: step * 17 * MINUTE) | st.integers(0, 3 * HOUR),
    ),
    min_size=1,
    max_size=10,
)


def document(amount: str = "0.36") -> CatalogueDocument:
    """Gigabyte-seconds by kind of disk; beside them units of another meter."""
    meters = {
        "disk": MeterDefinition("disk", "time_weighted_sum", "gb", ("kind",), session="volume"),
        "units": MeterDefinition("use", "sum", "units", ("model",)),
    }
    prices = {
        "ssd": per_unit(amount, "3600", meter="disk", kind="ssd"),
        "hdd": graduated(("100000", "0.00002"), (None, "0.00001"), meter="disk", kind="hdd"),
        "units": per_unit("1", meter="units"),
    }
    return CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)})


def told(bench: Bench, volume: str, gb: str, at: int | None = None, kind: str = "ssd", **more: Any) -> str:
    return bench.use(at=at, type="disk", data={"volume": volume, "gb": gb, "kind": kind}, **more)


def folded(levels: list[tuple[str, str, int]], order: list[int]) -> Bench:
    """The levels, all told at one moment, over two periods and with lots that begin and end inside; then an hour goes by."""
    bench = Bench(kept_open(document(), 30), kept_open(document("0.77"), 30))
    bench.now = START - DAY
    bench.open(anchor_day=10)
    bench.scope("team")
    bench.cap("40")
    bench.cap_rule(50)
    bench.cap("3", "team", scope="team", window="hour")
    bench.cap_rule(50, "team", cap="team")
    bench.publish(2, START - 5 * HOUR)
    bench.grant("first", "2", "promo", priority=1, expires_us=START - 2 * HOUR)
    bench.grant("second", "1.5", effective_us=START - 4 * HOUR, priority=1)
    bench.now = START
    for number in order:
        volume, gb, back = levels[number]
        outcome = told(bench, volume, gb, START - back, KINDS[volume], id=str(number), scope="team")
        assert outcome in ("rated", "duplicate")
    for minutes in (7, 61):
        bench.tick(START + minutes * MINUTE)
    return bench


@settings(max_examples=40)
@given(LEVELS, st.randoms(use_true_random=False))
def test_no_order_and_no_repetition_changes_what_is_owed_or_who_pays(
    levels: list[tuple[str, str, int]], source: random.Random
) -> None:
    """The same table, amounts and wallet, of what holds too; and the oracle's, charge by charge."""
    order = list(range(len(levels)))
    shuffled = order * 2
    source.shuffle(shuffled)
    first, second = folded(levels, order), folded(levels, shuffled)
    assert used(first) == used(second)
    assert_the_same(first, oracle_of(first), str(levels))
    assert_the_same(second, oracle_of(second, paranoid=len(levels) < 4), str(levels))


@settings(max_examples=40)
@given(LEVELS)
def test_every_second_counts_the_level_that_held_in_it(levels: list[tuple[str, str, int]]) -> None:
    """Worked out here from the events alone, to half a nano-unit for each step and segment."""
    bench = folded(levels, list(range(len(levels))))
    account, accrued = bench.account(), last_accrual("acme", bench.now)
    expected = {"ssd": Fraction(0), "hdd": Fraction(0)}
    for name, kind in KINDS.items():
        points = sorted(
            (START - back, str(number), Fraction(gb))
            for number, (volume, gb, back) in enumerate(levels)
            if volume == name
        )
        ends = [*(point[0] for point in points[1:]), accrued]
        for (begin, _, level), end in zip(points, ends, strict=False):
            expected[kind] += Fraction((max(end, begin) - begin) * NANO, SECOND) * level
    found = {"ssd": 0, "hdd": 0}
    for row in account.table.values():
        for (price, _), nano in row.items():
            assert nano >= 0
            found[price] += nano
    for kind, exact in expected.items():
        assert abs(found[kind] - exact) <= len(levels) * (len(account.table) + 1)
    assert sum(bench.charges()) == sum(account.derive().spend.values())


@settings(max_examples=20)
@given(LEVELS, st.integers(0, 12))
def test_cuts_freezing_and_replay_end_in_the_same_bytes(levels: list[tuple[str, str, int]], at: int) -> None:
    """A checkpoint anywhere, loaded and gone on with, is the replay from the start: state and lines."""
    bench = folded(levels, list(range(len(levels))))
    assert_cuts_leave_no_trace(bench, len(bench.log) - min(at, len(levels) + 2))
    assert any("level at" in name for name in account_fields(encode_account(bench.account())))


def test_a_level_that_is_told_late_holds_until_the_next_one_and_no_longer() -> None:
    """2 GB from 10:00, 1 GB from 12:00; that it was 8 GB at 11:00 is told last: 6 more for an hour."""
    bench = Bench(document())
    bench.open()
    for gb, hours in (("2", 2), ("1", 0), ("8", 1)):
        told(bench, "v", gb, START - hours * HOUR)
    quantities = [quantity for row in bench.account().table.values() for quantity in row.values()]
    assert quantities == [(2 * 3600 + 8 * 3600) * NANO]
    assert_the_same(bench, oracle_of(bench), "late")


def test_of_one_that_has_many_levels_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A level older than those kept is set aside: what it would take the place of is not known any more."""
    monkeypatch.setattr(gauges, "POINTS_MAX", 3)
    monkeypatch.setattr("loadtest.oracle.sessions.POINTS_MAX", 3)
    bench = Bench(document())
    bench.open()
    for minute in range(5):
        assert told(bench, "v", "1", START - 10 * MINUTE + minute * MINUTE) == "rated"
    assert told(bench, "v", "5", START - 9 * MINUTE) == "dead_lettered.too_many_values"
    assert "older than the last" in bench.letter().detail
    assert told(bench, "v", "5", START - 8 * MINUTE, id="z") == "rated"
    assert_the_same(bench, oracle_of(bench), "many")


def test_a_volume_at_nothing_is_forgotten_and_one_that_holds_something_never_is() -> None:
    """An account keeps what may still come to more, and nothing else."""
    bench = Bench(kept_open(document(), 30))
    bench.open()
    told(bench, "gone", "1", START - HOUR)
    told(bench, "gone", "0", START)
    told(bench, "kept", "1", START)
    for days in (1, 2, 34, 36, 37, 80):
        bench.tick(START + days * DAY)
    (key,) = bench.account().sessions.by_key
    assert key == ("disk", "kept") and bench.account().sessions.wake_us() is not None
    assert sum(standing(bench)["spend"].values()) > 0
    assert_the_same(bench, oracle_of(bench), "kept")


def test_when_log_time_has_gone_past_many_accruals_the_last_one_says_it_all() -> None:
    """A year's minutes in one record: one line for each segment, at that record."""
    bench = Bench(kept_open(document(), 30))
    bench.open()
    told(bench, "v", "1", START)
    before = len(bench.partition.outputs.lines)
    bench.tick(START + 40 * DAY)
    accrued = last_accrual("acme", bench.now)
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines[before:]]
    assert [line["accrued_us"] for line in lines] == [accrued] * len(bench.account().table)
    assert sum(Fraction(line["quantity"]) for line in lines) == Fraction(accrued - START, SECOND)
    assert_the_same(bench, oracle_of(bench), "jump")
