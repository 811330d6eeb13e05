"""Curves against the slow sum over tiers, and their bounds against every position that there is."""

from fractions import Fraction
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from engine.money import NANO, PICO
from engine.prices.curve import BEYOND, INCLUDED, Curve, Rung, curve_of

QUANTITIES = st.integers(0, 10**24)


@st.composite
def rungs(draw: st.DrawFn, largest: int = 10**22, amounts: int = 10**18) -> list[Rung]:
    edges = sorted(draw(st.sets(st.integers(1, largest), max_size=5)))
    amount, per = st.integers(0, amounts), st.integers(1, largest)
    return [
        Rung(end, draw(amount), draw(per), draw(amount | st.just(0)), number=number)
        for number, end in enumerate([*edges, None], start=1)
    ]


@st.composite
def small_curves(draw: st.DrawFn) -> Curve:
    """Over a few nano-units, so that every position can be tried: tiers with fees, packages, included, capped."""
    if draw(st.booleans()):
        curve = curve_of(draw(rungs(12, 9)))
    else:
        curve = curve_of([Rung(None, draw(st.integers(0, 9)), draw(st.integers(1, 6)), begun=True, number=1)])
    curve = curve.behind(draw(st.integers(0, 4)))
    if draw(st.booleans()):
        curve = curve.capped(draw(st.integers(0, 20)))
    if draw(st.booleans()):
        curve = curve.scaled(Fraction(draw(st.integers(0, 4)), 4))
    if draw(st.booleans()):
        curve = curve.beyond(draw(st.integers(0, 20)), Fraction(draw(st.integers(1, 7)), 3))
    return curve.until(draw(st.integers(1, 15))) if draw(st.booleans()) else curve


def owed(tiers: list[Rung], quantity: int) -> Fraction:
    total, start = Fraction(0), 0
    for rung in tiers:
        inside = max(0, (quantity if rung.up_to is None else min(quantity, rung.up_to)) - start)
        total += Fraction(inside * rung.amount, rung.per) + (rung.fee if quantity > start else 0)
        start = rung.up_to or start
    return total


def exact(curve: Curve, quantity: int) -> Fraction:
    return Fraction(curve.numerator(quantity), curve.denominator)


@given(rungs(), QUANTITIES)
def test_a_curve_owes_the_sum_over_its_tiers(tiers: list[Rung], quantity: int) -> None:
    assert exact(curve_of(tiers), quantity) == owed(tiers, quantity)


@given(small_curves(), st.integers(0, 30), st.integers(0, 30))
def test_more_never_owes_less_and_nothing_owes_nothing(curve: Curve, quantity: int, more: int) -> None:
    assert 0 == curve.numerator(0) <= curve.numerator(quantity) <= curve.numerator(quantity + more)


@given(st.integers(0, 9), st.integers(1, 7), st.integers(0, 60))
def test_each_begun_package_owes_all_of_it(amount: int, size: int, quantity: int) -> None:
    curve = curve_of([Rung(None, amount, size, begun=True)])
    assert curve.numerator(quantity) == amount * len(range(0, quantity, size))


@given(rungs(), QUANTITIES, st.integers(1, 10**24))
def test_the_parts_of_a_charge_add_up_to_its_quantity_and_amount(tiers: list[Rung], before: int, more: int) -> None:
    curve = curve_of(tiers)
    parts = curve.parts(before, before + more)
    assert sum(quantity for _, quantity in parts) == more
    assert [number for number, _ in parts] == sorted({number for number, _ in parts})
    starts = [0, *(rung.up_to for rung in tiers if rung.up_to is not None)]
    entered = sum(rung.fee for rung, start in zip(tiers, starts, strict=True) if before <= start < before + more)
    amount = sum(Fraction(tiers[number - 1].amount * quantity, tiers[number - 1].per) for number, quantity in parts)
    assert amount + entered == exact(curve, before + more) - exact(curve, before)


def test_a_quantity_at_an_edge_belongs_to_the_tier_below() -> None:
    curve = curve_of([Rung(10 * NANO, 3 * PICO, NANO, number=1), Rung(None, 1 * PICO, NANO, 7, number=2)])
    assert curve.parts(0, 10 * NANO) == ((1, 10 * NANO),)
    assert curve.parts(0, 10 * NANO + 1) == ((1, 10 * NANO), (2, 1))
    assert curve.next_at(10 * NANO).tier == 2
    assert curve.owed(10 * NANO) == 30 * PICO
    assert curve.owed(10 * NANO + 1) == 30 * PICO + 7 + 1000


@given(small_curves(), st.integers(0, 9), st.integers(0, 30), st.integers(0, 40))
def test_what_is_included_owes_nothing_and_moves_the_tiers(curve: Curve, included: int, maximum: int, q: int) -> None:
    assert exact(curve.behind(included), q) == exact(curve, max(0, q - included))
    assert exact(curve.capped(maximum), q) == min(maximum, exact(curve, q))
    assert exact(curve.scaled(Fraction(3, 7)), q) == exact(curve, q) * Fraction(3, 7)
    assert exact(curve.until(9), q) == exact(curve, min(q, 9))


@given(small_curves(), st.integers(0, 30), st.integers(0, 9), st.integers(1, 4), st.integers(0, 40))
def test_what_is_owed_beyond_a_level_counts_by_the_factor(
    curve: Curve, level: int, factor: int, parts: int, q: int
) -> None:
    """Exactly, also of the unit or package that crosses it; and nothing comes at once that did not before."""
    beyond, owed = curve.beyond(level, Fraction(factor, parts)), exact(curve, q)
    above = max(Fraction(0), owed - level)
    assert exact(beyond, q) == owed - above + above * Fraction(factor, parts)
    assert beyond.is_smooth or not curve.is_smooth


def test_units_that_owe_nothing_say_why() -> None:
    curve = curve_of([Rung(None, 4, 1, number=1)]).behind(3).capped(9)
    assert curve.parts(0, 10) == ((INCLUDED, 3), (1, 2), (BEYOND, 5))
    assert [curve.numerator(q) for q in range(8)] == [0, 0, 0, 0, 4, 8, 9, 9]


@given(small_curves(), st.integers(0, 25), st.integers(0, 25), st.integers(0, 25))
def test_the_dearest_span_is_the_dearest_of_every_start(curve: Curve, low: int, more: int, quantity: int) -> None:
    every = [curve.numerator(start + quantity) - curve.numerator(start) for start in range(low, low + more + 1)]
    assert curve.dearest_span(low, low + more, quantity) == max(every)


@given(small_curves(), st.integers(0, 8), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_no_pieces_owe_more_than_the_dearest_pick(
    curve: Curve, low: int, sizes: list[int], data: st.DataObject
) -> None:
    """Wherever the pieces lie behind what is used: others use what is between them."""
    most = curve.dearest_pick(low, sum(sizes), len(sizes))
    at, total = low, 0
    for size in sizes:
        at += data.draw(st.integers(0, 9))
        total += curve.numerator(at + size) - curve.numerator(at)
        at += size
    assert total <= most


@given(rungs(8, 9), st.integers(0, 8), st.integers(1, 4))
def test_the_dearest_pick_is_no_more_than_single_units_can_owe(tiers: list[Rung], low: int, quantity: int) -> None:
    curve = curve_of(tiers)
    units = [curve.numerator(unit + 1) - curve.numerator(unit) for unit in range(low, 14)]
    assert curve.dearest_pick(low, quantity, quantity) == max(map(sum, combinations(units, quantity))) or any(
        rung.fee for rung in tiers
    )
