"""Compiled prices against the slow sum over tiers."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.money import NANO, PICO
from engine.prices import Price, compile_price

Tiers = list[tuple[int | None, int, int]]

QUANTITIES = st.integers(0, 10**24)


@st.composite
def tier_lists(draw: st.DrawFn) -> Tiers:
    edges = sorted(draw(st.sets(st.integers(1, 10**22), max_size=5)))
    ends: list[int | None] = [*edges, None]
    return [(end, draw(st.integers(0, 10**18)), draw(st.integers(1, 10**16))) for end in ends]


def owed(tiers: Tiers, quantity: int) -> Fraction:
    total, start = Fraction(0), 0
    for end, amount, per in tiers:
        inside = max(0, (quantity if end is None else min(quantity, end)) - start)
        total += Fraction(inside * amount, per)
        start = end or start
    return total


def compiled(tiers: Tiers) -> Price:
    return compile_price("p", "m", {}, tiers)


@given(tier_lists(), QUANTITIES)
def test_a_compiled_price_owes_the_sum_over_its_tiers(tiers: Tiers, quantity: int) -> None:
    price = compiled(tiers)
    assert Fraction(price.numerator(quantity), price.denominator) == owed(tiers, quantity)


@given(tier_lists(), QUANTITIES, QUANTITIES)
def test_more_never_owes_less(tiers: Tiers, quantity: int, more: int) -> None:
    price = compiled(tiers)
    assert price.numerator(quantity) <= price.numerator(quantity + more)


@given(tier_lists(), QUANTITIES, st.integers(1, 10**24))
def test_the_lines_of_a_charge_add_up_to_its_quantity_and_amount(tiers: Tiers, before: int, more: int) -> None:
    price = compiled(tiers)
    lines = price.lines(before, before + more)
    assert sum(quantity for _, quantity in lines) == more
    assert [number for number, _ in lines] == sorted({number for number, _ in lines})
    amount = sum(price.tiers[number - 1].rate * quantity for number, quantity in lines)
    assert amount == price.numerator(before + more) - price.numerator(before)


@given(tier_lists(), QUANTITIES)
def test_the_next_unit_falls_in_the_tier_that_charges_it(tiers: Tiers, quantity: int) -> None:
    price = compiled(tiers)
    assert price.tier_at(quantity).rate == price.numerator(quantity + 1) - price.numerator(quantity)


@given(tier_lists())
def test_a_whole_price_per_unit_needs_no_division(tiers: Tiers) -> None:
    price = compiled(tiers)
    for tier, (_, amount, per) in zip(price.tiers, tiers, strict=True):
        exact = Fraction(amount, per) * NANO
        assert tier.unit_pico == (exact if exact.denominator == 1 else None)


def test_a_quantity_at_an_edge_belongs_to_the_tier_below() -> None:
    price = compiled([(10 * NANO, 3 * PICO, NANO), (None, 1 * PICO, NANO)])
    assert price.lines(0, 10 * NANO) == ((1, 10 * NANO),)
    assert price.lines(0, 10 * NANO + 1) == ((1, 10 * NANO), (2, 1))
    assert price.tier_at(10 * NANO) is price.tiers[1]


def test_nothing_owes_nothing() -> None:
    price = compiled([(None, PICO, NANO)])
    assert (price.numerator(0), price.lines(5, 5)) == (0, ())


SMALL_TIERS = st.lists(st.tuples(st.integers(1, 6), st.integers(0, 9)), max_size=4)


def small(edges: list[tuple[int, int]], last: int) -> Price:
    """A price over a few nano-units, so that every position can be tried."""
    reached = 0
    tiers: Tiers = []
    for length, amount in edges:
        reached += length
        tiers.append((reached, amount, 3))
    return compiled([*tiers, (None, last, 2)])


@given(SMALL_TIERS, st.integers(0, 9), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_the_dearest_span_is_the_dearest_of_every_start(
    edges: list[tuple[int, int]], last: int, low: int, more: int, quantity: int
) -> None:
    price = small(edges, last)
    every = [price.numerator(start + quantity) - price.numerator(start) for start in range(low, low + more + 1)]
    assert price.dearest_span(low, low + more, quantity) == max(every)


@given(SMALL_TIERS, st.integers(0, 9), st.integers(0, 20), st.integers(0, 20), st.integers(0, 20))
def test_the_dearest_pick_is_the_dearest_units_wherever_they_lie(
    edges: list[tuple[int, int]], last: int, low: int, more: int, quantity: int
) -> None:
    price = small(edges, last)
    units = [price.numerator(unit + 1) - price.numerator(unit) for unit in range(low, low + more)]
    assert price.dearest_pick(low, low + more, min(quantity, more)) == sum(sorted(units)[-min(quantity, more) :]) * (
        min(quantity, more) > 0
    )


@given(SMALL_TIERS, st.integers(0, 9))
def test_no_unit_costs_more_than_the_dearest_rate_or_less_than_the_cheapest(
    edges: list[tuple[int, int]], last: int
) -> None:
    price = small(edges, last)
    units = {
        Fraction(price.numerator(unit + 1) - price.numerator(unit), price.denominator)
        for unit in range(sum(length for length, _ in edges) + 1)
    }
    assert (price.cheapest_rate, price.dearest_rate) == (min(units), max(units))
