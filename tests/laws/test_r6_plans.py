"""Law R6: what is agreed with an account, and changed inside a period, makes the money that the law says."""

import json
import random
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.admission import FieldBound, Question, SliceNeeded
from engine.catalog import CatalogueDocument
from engine.holds import Bound
from engine.money import NANO
from engine.reasons import Reason
from tests.engine.bench import DAY, HOUR, MINUTE, START, Bench, Store, document, kept_open, per_unit, us
from tests.engine.desk_bench import DeskBench
from tests.engine.random_catalogues import PLAN, RandomCatalogue

APRIL = us("2026-04-01T00:00:00+00:00")
PICO = 10**12


def said(document: CatalogueDocument, price: str) -> dict[str, Any]:
    """A published price as an account would agree on it."""
    stated = msgspec.to_builtins(document.plans[PLAN].prices[price])
    return {key: value for key, value in stated.items() if key not in ("meter", "where") and value is not None}


def amounts(bench: Bench) -> tuple[Any, ...]:
    derived = bench.account().derive()
    owed = {key: run.amount for key, run in derived.running.items()}
    return owed, derived.spend, derived.allocation.balance, derived.allocation.debt


def with_fees_of(first: CatalogueDocument, second: CatalogueDocument) -> CatalogueDocument:
    plans = {
        name: replace(plan, fees=first.plans[name].fees, seats=first.plans[name].seats)
        for name, plan in second.plans.items()
    }
    return replace(second, plans=plans)


def test_a_line_says_the_plan_it_was_charged_under_and_a_late_one_that_of_its_own_time() -> None:
    """Who adds up what plans earn finds it in the lines."""
    plain = document()
    bench = Bench(replace(plain, plans={**plain.plans, "pro": plain.plans["plan"]}))
    bench.now = APRIL
    bench.open()
    bench.now += HOUR
    assert bench.sell("pro", bench.now) == "applied"
    bench.now += HOUR
    bench.use(1)
    bench.use(2, at=APRIL + MINUTE)
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines]
    assert [(line["plan"], line["quantity"]) for line in lines] == [("pro", "1"), ("plan", "2")]


@pytest.mark.parametrize("block", range(4))
def test_agreed_prices_make_the_same_money_as_a_version_of_the_same_terms(block: int) -> None:
    """Of any model and meter, under any modifiers, in any order of arrival: where a period begins, and, of what is a sum of
    its units, anywhere. What may not begin inside a period is refused, and waits as a version does."""
    applied = 0
    for seed in range(block * 12, block * 12 + 12):
        source = random.Random(f"agreed {seed}")
        catalogue = RandomCatalogue(source)
        first, second = kept_open(catalogue.version(), 1), kept_open(catalogue.version(), 1)
        second = with_fees_of(first, second)  # no price has them, so nobody agrees on them
        at = source.choice((APRIL, APRIL + source.randrange(20 * DAY)))
        published, agreed = Bench(first, second), Bench(first)
        for bench in (published, agreed):
            bench.now = APRIL - 3 * DAY
            bench.open()
            bench.grant("lot", "30")
        published.publish(2, at)
        outcomes = [agreed.agree(price, said(second, price), from_us=at) for price in catalogue.prices(first)]
        if set(outcomes) - {"applied", "refused.mid_period"}:
            continue  # an event's fees cannot follow its units
        applied += outcomes.count("applied")
        events = []
        for _ in range(40):
            agreed.now += source.randrange(1, 20 * HOUR)
            events.append((agreed.now, catalogue.event(agreed, agreed.now - source.randrange(3 * DAY))))
        for now, event in source.sample(events, len(events)):
            published.now = agreed.now = max(published.now, now, START)
            assert published.record(b"acme", event) == agreed.record(b"acme", event), f"seed {seed}"
        assert amounts(published)[0] == amounts(agreed)[0], f"seed {seed}"
        if (
            "applied" in outcomes
        ):  # else a segment begins only with the version: what is posted in it is paid behind others
            assert amounts(published)[1:] == amounts(agreed)[1:], f"seed {seed}"
    assert applied > 5


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 19), st.integers(0, 9)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(1, 18), st.sampled_from(["0.5", "3", "0.000000000001", None])), max_size=3),
    st.randoms(),
)
def test_counters_run_on_through_what_is_agreed_whatever_the_order_of_arrival(
    usage: list[tuple[int, int]], changes: list[tuple[int, str | None]], order: random.Random
) -> None:
    """Owed = the sum over stretches of their own terms' A(through) − A(before), rounded once; a permutation, and an owner
    that takes over from a checkpoint in between, make the same."""
    bench = Bench(document(x=per_unit("1", model="x")))
    bench.now = APRIL - DAY
    bench.open()
    for day, amount in changes:
        terms = None if amount is None else {"model": "per_unit", "amount": amount, "per": "3", "included": "4"}
        assert bench.agree("x", terms, from_us=APRIL + day * DAY) == "applied"
    bench.now = APRIL + 20 * DAY
    events = [bench.event(units, at=APRIL + day * DAY) for day, units in usage]
    order.shuffle(events)
    for event in events:
        assert bench.record(b"acme", event) == "rated"
    exact, used = Fraction(0), 0
    in_force = {0: ("1", 1, 0)} | {day: (amount, 3, 4) if amount else ("1", 1, 0) for day, amount in changes}
    for day in range(20):
        amount, per, included = in_force[max(each for each in in_force if each <= day)]
        units = sum(units for at, units in usage if at == day)
        exact += Fraction(amount) * (max(0, used + units - included) - max(0, used - included)) / per
        used += units
    assert sum(bench.charges()) == round(exact * PICO)
    assert bench.account().derive().running[APRIL, "x"].quantity == used * NANO
    store, half = Store(), len(bench.log) // 2
    partition = bench.fresh()
    for record in bench.log[:half]:
        partition.apply(*record)
    store.checkpoint(partition)
    partition = store.load_into(bench.fresh())
    for record in bench.log[half:]:
        partition.apply(*record)
    assert partition.state_bytes() == bench.partition.state_bytes()


def test_a_line_says_since_when_its_price_is_agreed_on_either_way_through_the_engine() -> None:
    """The short way, and the one that derives everything anew, tell the same line."""
    lines = []
    for guarded in (True, False):
        bench = Bench()
        bench.open()
        bench.agree("x", {"model": "per_unit", "amount": "0.5"})
        bench.use(1)
        bench.now += MINUTE
        if not guarded:
            bench.scope("team:a")  # whatever is set makes the next event take the long way
        bench.use(4)
        lines.append([json.loads(raw) for _, raw in bench.partition.outputs.lines])
        for line in lines[-1]:
            del line["offset"], line["id"]
    assert lines[0] == lines[1]
    assert [(line["agreed_us"], line["version"], line["amount"]) for line in lines[0]] == [
        (START, 1, "0.500000000000"),
        (START, 1, "2"),
    ]


def test_held_usage_is_rated_by_what_was_agreed_when_it_was_admitted() -> None:
    """A held event belongs to its hold's admission instant, whatever began since."""
    bench = Bench()
    bench.open()
    bench.agree("x", {"model": "per_unit", "amount": "5"}, from_us=bench.now + HOUR)
    hold = bench.hold(Bound(9 * NANO, ("x",), ("x",)), ttl_us=3 * HOUR)
    bench.now += 2 * HOUR
    bench.spend_held(hold, 2)
    assert bench.charges() == [2 * PICO]


# --------------------------------------------------------------------------------------------------------------- phases


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 29), st.integers(0, 9)), min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(1, 28), st.sampled_from(["plan", "pro"])), max_size=4, unique_by=lambda row: row[0]),
    st.booleans(),
    st.randoms(),
)
def test_phases_make_short_periods_that_include_their_part_whatever_the_order_of_arrival(
    usage: list[tuple[int, int]], phases: list[tuple[int, str]], prorate: bool, order: random.Random
) -> None:
    """Each stretch of one plan is a period with counters of its own, and includes its part of 20 units, to the ninth
    digit; an owner that takes over in between makes the same bytes."""
    bench = Bench(prorated(prorate))
    bench.now = APRIL - DAY
    bench.open()
    for day, plan in sorted(phases):
        assert bench.sell(plan, APRIL + day * DAY) == "applied"
    bench.now = APRIL + 30 * DAY - MINUTE
    events = [bench.event(units, at=APRIL + day * DAY + HOUR) for day, units in usage]
    order.shuffle(events)
    for event in events:
        assert bench.record(b"acme", event) == "rated"
    in_force = {0: "plan"} | dict(phases)
    starts = [0]
    for day in sorted(in_force):
        if in_force[day] != in_force[starts[-1]]:
            starts.append(day)
    owed = Fraction(0)
    for start, end in zip(starts, [*starts[1:], 30], strict=True):
        units = sum(units for day, units in usage if start <= day < end)
        if in_force[start] == "plan":
            owed += units
            continue
        included = round(Fraction(20 * (end - start), 30) * NANO) if prorate else 20 * NANO
        owed += 2 * max(Fraction(0), units - Fraction(included, NANO))
    assert sum(bench.charges()) == round(owed * PICO)
    store, half = Store(), len(bench.log) // 2
    partition = bench.fresh()
    for record in bench.log[:half]:
        partition.apply(*record)
    store.checkpoint(partition)
    partition.freeze_idle(0, 9)
    for record in bench.log[half:]:
        partition.apply(*record)
    assert partition.state_bytes() == bench.partition.state_bytes()
    taken_over = store.load_into(bench.fresh())
    for record in bench.log[half:]:
        taken_over.apply(*record)
    assert taken_over.state_bytes() == bench.partition.state_bytes()


def prorated(prorate: bool) -> CatalogueDocument:
    """Where prices of a plan are not shared by a short period's seconds, each says so."""
    body = document()
    if prorate:
        return body
    pro = body.plans["pro"]
    whole = msgspec.structs.replace(pro.prices["x"], prorate=False)
    plans = body.plans | {"pro": msgspec.structs.replace(pro, prices=pro.prices | {"x": whole})}
    return msgspec.structs.replace(body, plans=plans)


def test_a_period_that_a_phase_ends_closes_as_its_own_plan_says() -> None:
    """`pro` says four days, and includes 10 of its 20 units in the first half of April; `plan`, behind it, says one, and the
    second half does not close before the first. Late usage of the first half is an adjustment of that half."""
    body = document()
    slow = msgspec.structs.replace(body.plans["pro"], close_after_s=4 * 86_400)
    bench = Bench(msgspec.structs.replace(body, plans=body.plans | {"pro": slow}))
    change = APRIL + 15 * DAY
    bench.now = APRIL - DAY
    bench.open(plan="pro")
    assert [bench.sell("plan", change), bench.sell("pro", change + DAY)] == ["applied", "applied"]
    bench.now = change + 4 * DAY - 1
    bench.use(8, at=change - 1)
    bench.use(1, at=change)
    bench.now += 1
    bench.use(3, at=change - 1, id="late")
    bench.use(2, at=change, id="late too")
    charges = [
        (line["amount"], line.get("adjusts")) for line in map(json.loads, dict(bench.partition.outputs.lines).values())
    ]
    assert charges == [("0", None), ("1", None), ("2", APRIL), ("2", change)]
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_tiers_are_not_shortened_and_caps_keep_their_calendar() -> None:
    """Half a month of `tiered` still has 10 units at $30; the month's spend is that of both halves."""
    bench = Bench()
    bench.now = APRIL
    bench.open()
    bench.cap("1000")
    bench.cap_rule(100)
    bench.sell("pro", APRIL + 15 * DAY)
    bench.use(11, "tiered")
    bench.now = APRIL + 15 * DAY
    bench.use(11, "tiered")
    assert bench.charges() == [340 * PICO, 340 * PICO]
    assert bench.account().derive().spend == {APRIL: 680 * PICO}
    bench.use(8, "tiered")
    assert [rule for rule, *_ in bench.told()] == ["cap-100"]


@pytest.mark.parametrize("seed", range(8))
def test_a_check_knows_the_plan_of_its_moment(seed: int) -> None:
    """What is admitted just before a phase costs the old plan's price, just behind it the new one's."""
    bench = DeskBench()
    bench.open()
    bench.grant("lot", "10")
    change = bench.now + HOUR + seed
    assert bench.sell("pro", change) == "applied"
    question = Question("acme", "", "use", {"model": "y"}, {}, (FieldBound(("units",), 7 * NANO),), 1)
    prices = []
    for at in (change - 1, change):
        bench.now = at
        decision = bench.partition.check(question, at)
        assert not isinstance(decision, SliceNeeded)
        prices.append(decision.price)
    assert prices == [7 * PICO, 7 * PICO]
    short = Question("acme", "", "use", {"model": "x"}, {}, (FieldBound(("units",), 20 * NANO),), 1)
    decision = bench.partition.check(short, change)
    assert not isinstance(decision, SliceNeeded)
    exact = 20 - round(Fraction(20 * (APRIL - change), APRIL - us("2026-03-01T00:00:00+00:00")) * NANO) / Fraction(NANO)
    assert decision.price == 2 * exact * PICO


# --------------------------------------------------------------------------------------------------------------- pauses


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=6), st.lists(st.integers(0, 12), min_size=1))
def test_a_pause_denies_checks_and_what_is_used_all_the_same_is_rated(
    said: list[tuple[int, bool]], uses: list[int]
) -> None:
    """At each instant what was said last for an instant that is past holds; charges are those without any pause, and an
    owner that takes over answers the same."""
    bench = DeskBench()
    bench.open()
    bench.grant("lot", "1000")
    start = bench.now
    for hour, paused in said:
        assert bench.pause(start + hour * HOUR, paused=paused) == "applied"
    turns = sorted(dict(said).items())
    for hour in sorted(uses):
        bench.now = start + hour * HOUR
        bench.tick(bench.now)
        paused = next((paused for at, paused in reversed(turns) if at <= hour), False)
        assert bench.refused("1") is (Reason.PAUSED if paused else None)
        ends = next((at for at, later in turns if at > hour and not later), None)
        if paused:
            assert bench.account().contract.turns_us(bench.now) == (None if ends is None else start + ends * HOUR)
        bench.use(1)
    assert bench.charges() == [PICO] * len(uses)
    store = Store()
    store.checkpoint(bench.partition)
    again = store.load_into(bench.fresh()).account("acme")
    assert again is not None
    assert again.contract.is_like(bench.account().contract)
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_a_check_in_a_pause_says_when_it_ends_and_a_hold_of_before_is_not_extended() -> None:
    """Pause denies checks and extensions; what was admitted before is settled and charged."""
    bench = DeskBench()
    bench.open()
    bench.grant("lot", "1000")
    hold = bench.hold_for("1")
    bench.pause()
    assert bench.more(hold, bench.bounds("1")).reason is Reason.PAUSED
    bench.spend_held(hold, 1)
    assert bench.charges() == [PICO]
    denied = bench.check("1")
    assert (denied.reason, denied.binding and denied.binding.frees_in_us) == (Reason.PAUSED, None)
    bench.pause(bench.now + HOUR, paused=False)
    denied = bench.check("1")
    assert (denied.reason, denied.binding and denied.binding.frees_in_us) == (Reason.PAUSED, HOUR)


@pytest.mark.parametrize(
    ("reason", "fields"),
    [
        ("unknown_account", {"account": "nobody"}),
        ("bad_start", {"from_us": START - HOUR}),
        ("bad_start", {"from_us": 2**61}),
    ],
)
def test_a_pause_that_cannot_be_is_refused_and_nothing_changes(reason: str, fields: dict[str, Any]) -> None:
    """An answer that was given becomes no other: a pause does not begin before log time."""
    bench = Bench()
    bench.open()
    before = bench.account().contract
    assert bench.pause(**fields) == f"refused.{reason}"
    assert bench.account().contract is before


def test_an_account_is_paused_and_resumed_a_hundred_times_at_most() -> None:
    """Each instant is kept, as any of them may be said anew."""
    bench = Bench()
    bench.open()
    for number in range(100):
        assert bench.pause(START + number * HOUR, paused=number % 2 == 0) == "applied"
    assert bench.pause(START + 100 * HOUR) == "refused.too_many_pauses"
    assert bench.pause(START + 99 * HOUR) == "applied"  # in place of what was said for that instant
