"""The fast path: what it lets pass it charges as the full path does, and what it cannot know it does not let pass."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.charges import Row, Running
from engine.credit import UNBOUNDED
from engine.guard import Guard, Tallied
from engine.limits import Cap, Scope
from engine.money import NANO
from engine.prices.price import Price
from engine.windows import Counts, Window
from tests.engine.bench import HOUR, START, priced

TIERS = priced([(10 * NANO, 3, NANO), (50 * NANO, 4, NANO), (None, 5, NANO)])
MODELS = st.builds(
    priced,
    st.tuples(st.integers(1, 9), st.integers(0, 9), st.integers(0, 9), st.integers(1, 7)).map(
        lambda n: [(n[0] * NANO, n[1], n[3] * NANO), (None, n[2], n[3] * NANO)]
    ),
    model=st.sampled_from(["graduated", "volume"]),
    fees=st.lists(st.integers(0, 3), max_size=2),
) | st.builds(
    lambda amount, per, model: priced([(None, amount, per * NANO)], model=model),
    st.integers(0, 9),
    st.integers(1, 7),
    st.sampled_from(["per_unit", "package"]),
)


def guard(price: Price, run: Running | None = None, **said: Any) -> Guard:
    body: dict[str, Any] = {
        "period": 0,
        "month": 0,
        "row": {},
        "running": {} if run is None else {(0, price.name): run},
        "price_at": lambda *_: price,
        "version": 0,
        "cells": 10,
        "room": UNBOUNDED,
        "tallied": [],
        "told_at": {},
        "granted": (),
        "scopes": {},
        "zone": "UTC",
        "closes_us": START + 2 * HOUR,
    }
    return Guard(START, START + HOUR, **(body | said))


def charged(made: Guard, price: Price, quantity: int, *scopes: str, cell: str = "a") -> int | None:
    lines = made.rate(START, [(price, (cell,), quantity)], scopes, START)
    return None if lines is None else sum(line.amount for line in lines)


@settings(max_examples=200)
@given(MODELS, MODELS, st.integers(0, 12 * NANO), st.lists(st.integers(0, 5 * NANO), max_size=12))
def test_what_it_charges_is_the_difference_of_what_is_owed(
    first: Price, price: Price, used: int, quantities: list[int]
) -> None:
    """Whatever was used before, perhaps under an earlier version: rounded once, on the cumulative amount (law M2)."""
    before = first if first.marginal and price.marginal else price
    run = Running(before, used)
    run.add(before, used)
    made = guard(price, run)
    run = run.under(price)
    for quantity in quantities:
        amount = charged(made, price, quantity)
        if amount is None:
            return
        assert amount == run.add(price, quantity)


def test_most_of_what_an_even_price_charges_passes() -> None:
    """Or the law above would hold of nothing."""
    made = guard(TIERS)
    assert [charged(made, TIERS, NANO) for _ in range(11)] == [3] * 10 + [None]
    third = priced([(None, 1, 3 * NANO)])
    made = guard(third)
    assert [charged(made, third, NANO) for _ in range(6)] == [0, 1, 0, 0, 1, 0]
    package = priced([(None, 8, 3 * NANO)], model="package")
    assert [charged(guard(package), package, units * NANO) for units in (1, 3, 4)] == [8, 8, 16]


def test_what_is_due_on_entering_a_tier_does_not_pass() -> None:
    fee = priced([(None, 1, NANO)], fees=[7])
    assert charged(guard(fee), fee, NANO) is None
    assert charged(guard(fee), fee, 0) == 0


def test_a_charge_that_reaches_what_a_rule_waits_for_does_not_pass() -> None:
    made = guard(TIERS, room=10)
    assert [charged(made, TIERS, units * NANO) for units in (2, 2, 1, 0)] == [6, None, 3, 0]
    assert made.charged == 9


def test_a_cell_more_than_there_may_be_does_not_pass() -> None:
    row: Row = {}
    made = guard(TIERS, cells=1, row=row)
    assert [charged(made, TIERS, NANO, cell=cell) for cell in ("a", "b", "a")] == [3, None, 3]
    assert row == {("p", ("a",)): 2 * NANO}


def test_what_does_not_pass_has_changed_nothing() -> None:
    counts: Counts = {START - START % HOUR: 5}
    red = Scope()
    cap = Tallied(Cap("c", 100, window=Window("hour")), counts, 4)
    row: Row = {}
    made = guard(TIERS, row=row, tallied=[cap], scopes={"red": red})
    assert charged(made, TIERS, 2 * NANO, "red") is None
    assert (row, counts, red.spend, made.charged) == ({}, {START - START % HOUR: 5}, {}, 0)
    assert charged(made, TIERS, NANO, "red") == 3
    assert (row, counts, red.spend, made.charged) == ({("p", ("a",)): NANO}, {START - START % HOUR: 8}, {0: 3}, 3)


@pytest.mark.parametrize("amount", [1, 2, 5])
def test_a_half_goes_to_the_even_neighbour_of_the_cumulative_amount(amount: int) -> None:
    price = priced([(None, amount, 2 * NANO)])
    made, owed = guard(price), 0
    for used in range(1, 9):
        passed = charged(made, price, NANO)
        assert passed is not None
        owed += passed
        assert owed == round(Fraction(amount * used, 2))
