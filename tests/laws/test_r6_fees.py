"""Law R6: a plan's fee is due for each period, by seconds where it is short or paused; whatever is used."""

import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import BadCatalogue, CatalogueDocument, FeeDefinition, compile_catalogue
from engine.money import parse_amount
from tests.engine.bench import DAY, DOLLAR, HOUR, Bench, document, us
from tests.laws.test_r5_minimum import agrees

APRIL, MAY, JUNE = (us(f"2026-0{month}-01T00:00:00+00:00") for month in (4, 5, 6))


def with_fees(**fees: FeeDefinition) -> CatalogueDocument:
    """Plan `plan` has them; the other plans have none."""
    catalogue = document()
    return replace(catalogue, plans={**catalogue.plans, "plan": replace(catalogue.plans["plan"], fees=fees)})


def due(bench: Bench, kind: str = "fee") -> list[tuple[str, str, int]]:
    """(name, amount, the period's start) of each line of a kind."""
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines]
    return [(line["price"], line["amount"], line["adjusts"]) for line in lines if line.get("due") == kind]


def test_a_fee_is_due_at_each_close_used_or_not() -> None:
    """Beside the minimum's and usage's lines, at the record that closes the period, in the order of kind and name."""
    bench = Bench(with_fees(base=FeeDefinition("30"), audit=FeeDefinition("5")))
    bench.now = APRIL
    bench.open()
    bench.use(3)
    bench.tick(JUNE + DAY)
    assert due(bench) == [("audit", "5", APRIL), ("base", "30", APRIL), ("audit", "5", MAY), ("base", "30", MAY)]
    assert bench.account().derive().spend == {APRIL: 3 * DOLLAR}
    bench.use(1, at=MAY - 1)  # late usage changes no fee
    assert len(due(bench)) == 4
    agrees(bench)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_it_is_shared_by_seconds_over_plans_and_pauses(seed: int) -> None:
    """What is posted for a month is the fee for the time in the plan and unpaused, each period of it rounded once."""
    source = random.Random(seed)
    bench = Bench(with_fees(base=FeeDefinition("0.000000000031"), whole=FeeDefinition("7", prorate=False)))
    bench.now = opened = APRIL + source.randrange(20 * 24) * HOUR
    bench.open()
    pauses = [(opened, False)]
    for _ in range(source.randrange(5)):
        bench.now = min(bench.now + source.randrange(12 * DAY), MAY + 20 * DAY) // 1000 * 1000
        if source.random() < 0.5:
            assert bench.sell(source.choice(["plan", "pro"])) == "applied"
        else:
            pauses.append((bench.now, source.random() < 0.5))
            assert bench.pause(paused=pauses[-1][1]) == "applied"
    bench.tick(JUNE + DAY)
    owed = {(start, name): parse_amount(amount) for name, amount, start in due(bench)}
    account = bench.account()
    start = account.period_of(opened)
    while start < JUNE:
        _, end = account.period_around(start)
        since, month = max(start, opened), (30 if start < MAY else 31) * DAY
        ends = [*(at for at, _ in pauses[1:]), end]
        stretches = [
            (max(since, at), min(end, until)) for (at, off), until in zip(pauses, ends, strict=True) if not off
        ]
        active = sum(max(0, until - at) for at, until in stretches)
        sold = account.contract.plan_name_at(since) == "plan"
        assert owed.get((start, "base"), 0) == (round(Fraction(31 * active, month)) if sold else 0)
        assert owed.get((start, "whole"), 0) == (7 * DOLLAR if sold else 0)
        start = end
    agrees(bench)


def test_a_pause_stops_a_fee_for_as_long_as_it_lasts() -> None:
    """One that is paused all of a period owes nothing of it, and one of whose resuming nobody knows goes on."""
    bench = Bench(with_fees(base=FeeDefinition("30")))
    bench.now = APRIL
    bench.open()
    assert bench.pause(APRIL + 10 * DAY) == "applied"
    assert bench.pause(APRIL + 15 * DAY, paused=False) == "applied"
    assert bench.pause(APRIL + 25 * DAY) == "applied"
    bench.tick(JUNE + DAY)
    assert due(bench) == [("base", "20", APRIL)]
    agrees(bench)


@pytest.mark.parametrize(
    ("fees", "path"),
    [
        ({"base": FeeDefinition("0")}, ("base", "amount")),
        ({"base": FeeDefinition("-1")}, ("base", "amount")),
        ({"x": FeeDefinition("1")}, ("x",)),
        ({"": FeeDefinition("1")}, ("",)),
        ({f"fee {number}": FeeDefinition("1") for number in range(101)}, ()),
    ],
)
def test_what_is_no_fee_is_refused_at_publication(fees: dict[str, Any], path: tuple[str, ...]) -> None:
    """By the key that must change: no amount, a price's name (whose credit would pay for it), no name, or too many."""
    with pytest.raises(BadCatalogue) as refused:
        compile_catalogue(1, with_fees(**fees))
    assert [fault.path for fault in refused.value.faults] == [("plans", "plan", "fees", *path)]


@pytest.mark.parametrize("how", ["plan", "price", "version"])
def test_what_begins_in_a_thousand_years_is_no_months_to_count(how: str) -> None:
    """An account of a plan without fees, of which something changes so late, or by a version that is in force beyond every
    calendar, looks again in a year. From the day on which it has a fee, it is due all the same."""
    bench = Bench(with_fees(base=FeeDefinition("30")), with_fees(base=FeeDefinition("31")))
    bench.now = APRIL
    bench.open(plan="pro")
    late = us("3000-01-01T00:00:00+00:00")
    if how == "plan":
        assert bench.sell("plan", from_us=late) == "applied"
    elif how == "price":
        assert bench.agree("x", {"model": "per_unit", "amount": "1"}, from_us=late) == "applied"
    else:
        assert bench.publish(2, 1 << 62) == "catalogue"
    bench.use(1)
    bench.command("set_scope", scope="team")
    for _ in range(2):
        wakes = bench.partition.next_wake_us()
        assert wakes is not None and bench.now + 300 * DAY < wakes < bench.now + 500 * DAY
        bench.tick(wakes)
    assert bench.sell("plan") == "applied"
    bench.tick(bench.now + 70 * DAY)
    assert "30" in [amount for _, amount, _ in due(bench)]
