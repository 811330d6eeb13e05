"""Law R6: what is agreed with an account, and changed inside a period, makes the money that the law says."""

import json
import random
from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import CatalogueDocument
from engine.holds import Bound
from engine.money import NANO
from tests.engine.bench import DAY, HOUR, MINUTE, START, Bench, Store, document, per_unit, us
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


@pytest.mark.parametrize("block", range(4))
def test_agreed_prices_make_the_same_money_as_a_version_of_the_same_terms(block: int) -> None:
    """Of any model and meter, under any modifiers, in any order of arrival: where a period begins, and, of what is a sum of
    its units, anywhere. What may not begin inside a period is refused, and waits as a version does."""
    applied = 0
    for seed in range(block * 8, block * 8 + 8):
        source = random.Random(f"agreed {seed}")
        catalogue = RandomCatalogue(source)
        first, second = catalogue.version(), catalogue.version()
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
