"""Laws R5, R6 and D2: what usage falls short of a commitment is a line of its own, and what comes beyond it may cost more,
at once; of one price, or of several together."""

import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import BadCatalogue, CatalogueDocument, CommitmentDefinition, PriceDefinition, compile_catalogue
from engine.money import NANO
from engine.reasons import Reason
from tests.engine.bench import DAY, DOLLAR, HOUR, Bench, document, graduated, pico_of, us
from tests.engine.desk_bench import DeskBench
from tests.laws.test_r5_minimum import agrees, opened
from tests.laws.test_r6_fees import due

APRIL, MAY, JUNE = (us(f"2026-0{month}-01T00:00:00+00:00") for month in (4, 5, 6))


def committed(commitment: str, **more: Any) -> CatalogueDocument:
    """x costs $1 a unit, a month commits to so much of it; plan `pro` commits to nothing."""
    plain = PriceDefinition("units", "per_unit", {"model": "x"}, "1")
    catalogue = document(x=replace(plain, commitment=commitment, **more))
    pro = catalogue.plans["pro"]
    return replace(catalogue, plans={**catalogue.plans, "pro": replace(pro, prices={**pro.prices, "x": plain})})


def together(amount: str, *prices: str, **more: Any) -> CatalogueDocument:
    """Plan `plan` commits to so much of these prices."""
    catalogue = document(x=PriceDefinition("units", "per_unit", {"model": "x"}, "1", discount="50"))
    plan = replace(catalogue.plans["plan"], commitments={"all": CommitmentDefinition(amount, prices, **more)})
    return replace(catalogue, plans={**catalogue.plans, "plan": plan})


def lines(bench: Bench) -> list[tuple[str, str, int]]:
    """(name, amount, the period's start) of each line of a commitment."""
    return due(bench, "commitment")


def test_usage_beyond_it_costs_more_and_usage_below_it_is_topped_up() -> None:
    """Golden: $1,000 at a factor of 1.5, usage $1,400: $1,600. Usage $700: $1,000."""
    bench = opened(committed("1000", overage="1.5"))
    bench.use(1_400)
    assert bench.charges() == [1_600 * DOLLAR]
    bench.tick(MAY + DAY)
    assert lines(bench) == []
    bench.use(700)
    bench.tick(JUNE + DAY)
    assert lines(bench) == [("x", "300", MAY)]
    assert bench.debt() == 2_600 * DOLLAR
    bench.use(100, at=JUNE - 1)
    assert bench.charges()[-2:] == [100 * DOLLAR, -100 * DOLLAR], "golden: the adjustment is $0"
    agrees(bench)


def test_a_customer_who_comes_in_mid_period_is_committed_to_a_part_for_both() -> None:
    """20 of 30 days of $300: from $200 on usage costs twice, and less than that is topped up."""
    bench = opened(committed("300", overage="2"), APRIL + 10 * DAY)
    bench.use(250)
    assert bench.charges() == [300 * DOLLAR]
    bench.use(100, at=APRIL + DAY)  # of before it came, in the same period
    bench.tick(MAY + DAY)
    assert lines(bench) == []
    agrees(bench)
    late = opened(committed("300", overage="2"), APRIL + 10 * DAY)
    late.use(50, at=APRIL - DAY)  # of a period in which it was not there: it is committed to nothing
    late.use(400, at=APRIL - DAY)
    late.tick(MAY + DAY)
    assert late.charges()[:2] == [50 * DOLLAR, 400 * DOLLAR]
    assert lines(late) == [("x", "200", APRIL)]
    agrees(late)


@pytest.mark.parametrize(("prorate", "charged"), [(True, 250), (False, 200)])
def test_a_change_of_plan_shares_it_unless_it_is_whole(prorate: bool, charged: int) -> None:
    """Half of a month commits to half of it, for what is missing and for what is beyond."""
    bench = opened(committed("300", overage="2", **({} if prorate else {"prorate": False})))
    assert bench.sell("pro", APRIL + 15 * DAY) == "applied"
    bench.use(200)
    assert bench.charges() == [charged * DOLLAR]
    bench.tick(MAY + DAY)
    assert lines(bench) == ([] if prorate else [("x", "100", APRIL)])
    agrees(bench)


def test_it_may_be_agreed_with_one_customer() -> None:
    """But not beside a commitment of the plan for that price, nor in the middle of a period."""
    terms = {"model": "per_unit", "amount": "1", "commitment": "10", "overage": "3"}
    bench = opened(document())
    assert bench.agree("x", terms, from_us=APRIL + DAY) == "refused.mid_period"
    assert bench.agree("x", terms | {"minimum": "5"}, from_us=MAY) == "refused.bad_price"
    assert bench.agree("x", terms | {"overage": "0"}, from_us=MAY) == "refused.bad_price"
    assert bench.agree("x", {"model": "per_unit", "amount": "1", "overage": "3"}, from_us=MAY) == "refused.bad_price"
    assert bench.agree("x", terms, from_us=MAY) == "applied"
    bench.tick(MAY)
    bench.use(12)
    assert bench.charges() == [16 * DOLLAR]
    agrees(bench)
    covered = opened(together("100", "x"))
    assert covered.agree("x", terms, from_us=MAY) == "refused.bad_price"
    assert covered.agree("y", terms, from_us=MAY) == "applied"
    agrees(covered)


def test_several_prices_meet_one_together() -> None:
    """What counts is what each charges behind its discount; late usage of any of them leaves less missing."""
    bench = opened(together("100"))
    bench.grant("paid", "500", scope=["x"])  # a commitment of the plan is of no price
    bench.use(40)
    bench.use(30, "y")
    bench.use(1, "tiered")
    bench.tick(MAY)
    bench.use(5_000, "y")  # of the next period
    bench.tick(MAY + DAY)
    assert lines(bench) == [("all", "20", APRIL)]
    assert bench.account().owed_besides(MAY) == {}
    assert bench.allocation().remaining == {"paid": 480 * DOLLAR}
    bench.use(10, at=MAY - 1)
    event = bench.event(100, "y", at=MAY - 1)
    bench.record(b"acme", event)
    assert [amount for _, amount, _ in lines(bench)] == ["20", "-5", "-15"]
    bench.correct(event)
    assert lines(bench)[-1] == ("all", "15", APRIL)
    agrees(bench)


def test_what_is_held_beyond_it_is_held_at_what_it_will_cost() -> None:
    """$10 of credit, a commitment of $4 at a factor of 2: 4 units and 3 more, and not one beyond."""
    bench = DeskBench(committed("4", overage="2"))
    bench.now = APRIL
    bench.open()
    bench.grant("l", "10")
    held = [bench.hold_for("1") for _ in range(7)]
    assert bench.refused("0.5") == Reason.CREDIT_DEPLETED
    for hold in held:
        assert bench.spend_held(hold, 1) == "rated"
    assert (bench.debt(), bench.allocation().balance) == (0, 0)


COVERED = CommitmentDefinition("9", ("x",))


@pytest.mark.parametrize(
    ("commitments", "path"),
    [
        ({"c": CommitmentDefinition("0")}, ("c", "amount")),
        ({"x": CommitmentDefinition("1", ("y",))}, ("x",)),
        ({"c": CommitmentDefinition("1", ("unheard",))}, ("c", "prices")),
        ({"c": CommitmentDefinition("1", overage="1.5")}, ("c", "overage")),
        ({"c": CommitmentDefinition("1", ("x",)), "d": CommitmentDefinition("1", ("y", "x"))}, ("d", "prices")),
        ({"c": CommitmentDefinition("1", ("least",))}, ("c", "prices")),
        ({f"c{number}": CommitmentDefinition("1", ("x",)) for number in range(101)}, ()),
    ],
)
def test_what_would_be_missed_twice_is_refused_at_publication(
    commitments: dict[str, Any], path: tuple[str, ...]
) -> None:
    """By the key that must change."""
    catalogue = document(least=PriceDefinition("units", "per_unit", {"model": "least"}, "1", minimum="1"))
    plan = replace(catalogue.plans["plan"], commitments=commitments)
    with pytest.raises(BadCatalogue) as refused:
        compile_catalogue(1, replace(catalogue, plans={"plan": plan}))
    assert ("plans", "plan", "commitments", *path) in [fault.path for fault in refused.value.faults]
    plan = replace(catalogue.plans["plan"], commitments={"c": COVERED})
    compile_catalogue(1, replace(catalogue, plans={"plan": plan}))


@pytest.mark.parametrize(
    ("terms", "key"),
    [
        ({"commitment": "0"}, "commitment"),
        ({"commitment": "91", "maximum": "100", "discount": "10"}, "commitment"),
        ({"commitment": "5", "minimum": "5"}, "minimum"),
        ({"overage": "1.5"}, "overage"),
        ({"commitment": "5", "overage": "0"}, "overage"),
        ({"commitment": "5", "overage": "much"}, "overage"),
    ],
)
def test_what_no_usage_could_meet_is_refused_at_publication(terms: dict[str, Any], key: str) -> None:
    """By the key that must change."""
    with pytest.raises(BadCatalogue) as refused:
        compile_catalogue(1, document(x=PriceDefinition("units", "per_unit", {"model": "x"}, "1", **terms)))
    assert [fault.path for fault in refused.value.faults] == [("plans", "plan", "prices", "x", key)]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_a_period_owes_what_its_units_come_to_in_any_order_of_arrival(seed: int) -> None:
    """With a graduated price, late, taken back, across a change of plan and in the month of the opening: at least the
    commitment, and by the factor what is beyond it."""
    source = random.Random(seed)
    commitment, factor = source.randrange(1, 3_000), source.choice(("1.5", "0.3", "1"))
    tiered = graduated(("10", "30"), ("50", "40"), (None, "50"), model="tiered")
    plain = document()
    plan = document(tiered=replace(tiered, commitment=str(commitment), overage=factor)).plans["plan"]
    bench = opened(
        replace(plain, plans={**plain.plans, "plan": plan}), APRIL + source.choice((0, 0, source.randrange(200))) * HOUR
    )
    came = bench.now
    bench.grant("paid", "900", priority=1)
    cut = came + source.randrange(1, 10 * 24) * HOUR
    if source.random() < 0.5:
        assert bench.sell("pro", cut) == "applied"
    else:
        cut = MAY
    units = 0
    for _ in range(source.randrange(9)):
        bench.now = min(bench.now + source.randrange(9 * DAY), MAY + 25 * DAY)
        at = max(came, bench.now - source.randrange(20 * DAY))
        used = source.randrange(30)
        event = bench.event(used, "tiered", at)
        if bench.record(b"acme", event) == "rated":
            kept = source.random() > 0.3 or bench.correct(event) != "cancelled"
            units += used if kept and at < cut else 0
    bench.tick(max(bench.now, JUNE + DAY))
    rated = [json.loads(line) for _, line in bench.partition.outputs.lines]
    period = bench.account().period_of(came)
    owed = sum(pico_of(line["amount"]) for line in rated if bench.account().period_of(line["time_us"]) == period)
    own = Fraction(compile_catalogue(1, plain).plans["plan"].prices["tiered"].owed(units * NANO))
    share = round(Fraction(commitment * DOLLAR * (cut - came), 30 * DAY))
    exact = max(Fraction(share), own) if own <= share else share + (own - share) * Fraction(factor)
    assert owed == round(exact)
    agrees(bench)
