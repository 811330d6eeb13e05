"""Law M1: an expression stays rational until it is fixed to nine digits, once per event, half-even."""

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import CatalogueDocument, PlanDefinition
from engine.meters import BandDefinition, DimensionDefinition, MeterDefinition
from engine.money import NANO, quantity_text
from tests.engine.bench import DOLLAR, START, Bench, per_unit
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r1_marginal import standing

FIELDS = ("a", "b", "inner.c")
NUMBERS = st.integers(0, 10**6).map(str) | st.decimals("0", "999", places=9).map(lambda number: f"{number:f}")
LEAVES = st.sampled_from(FIELDS) | NUMBERS | st.sampled_from(["default(d, 2)", "default(a, b)"])
EXPRESSIONS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda part: f"({part[0]} {part[1]} {part[2]})"),
        inner.map(lambda text: f"-{text}"),
        st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda part: f"{part[0]}({part[1]}, {part[2]})"),
        st.tuples(st.sampled_from(["floor", "ceil"]), inner).map(lambda part: f"{part[0]}({part[1]})"),
    ),
    max_leaves=6,
)
DATA = st.fixed_dictionaries(
    {"a": NUMBERS, "b": st.sampled_from([0, 1, 3, "0.000000001", "x"])},
    optional={"inner": st.fixed_dictionaries({"c": st.integers(0, 9)}), "d": st.integers(0, 9)},
)


def bench_of(expression: str, *, band: str = "0") -> Bench:
    meters = {"m": MeterDefinition("use", "sum", group_by=("size",), expression=expression)}
    bands = (BandDefinition("small", "10"), BandDefinition("large"))
    prices = {"small": per_unit("1", "3", meter="m", size="small"), "large": per_unit("0.5", meter="m", size="large")}
    sizes = {"size": DimensionDefinition(expression=band, bands=bands)}
    return Bench(CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}, sizes))


@settings(max_examples=150)
@given(EXPRESSIONS, st.lists(DATA, min_size=1, max_size=3))
def test_engine_and_oracle_make_the_same_of_every_expression(expression: str, events: list[dict[str, Any]]) -> None:
    """Quantities, bands, charges, and what cannot be told: of random expressions over random events."""
    bench = bench_of(expression, band=expression)
    bench.open()
    for data in events:
        bench.use(data=data)
    assert set(bench.partition.counts) <= {"catalogue", "applied", "rated", "dead_lettered.bad_quantity"}
    assert_the_same(bench, oracle_of(bench), expression)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_each_event_is_fixed_by_itself_so_no_order_changes_the_sum(numbers: list[int], source: Any) -> None:
    """A third of each, rounded to nine digits: the sum is of what each was fixed to, and not of the exact thirds."""
    shuffled = list(enumerate(numbers)) * 2
    source.shuffle(shuffled)
    benches = []
    for order in (list(enumerate(numbers)), shuffled):
        bench = bench_of("a / 3")
        bench.open()
        for number, a in order:
            bench.use(data={"a": quantity_text(a)}, id=str(number), at=START)
        benches.append(bench)
    (row,) = benches[0].account().table.values()
    assert sum(row.values()) == sum(round(Fraction(a, 3)) for a in numbers)
    assert standing(benches[0]) == standing(benches[1])


@pytest.mark.parametrize(
    ("expression", "nano"),
    [
        ("a / 2", 2),  # of 0.000000003: a tie goes to the even neighbour
        ("a * 1.5", 4),
        ("a * 0.5 + 1 / 3 - 1 / 3", 2),
        ("min(a, 1) / 3 * 3", 3),
        ("a - a", 0),
    ],
)
def test_the_one_rounding_is_half_even(expression: str, nano: int) -> None:
    """Nothing is rounded on the way."""
    bench = bench_of(expression)
    bench.open()
    assert bench.use(data={"a": "0.000000003"}) == "rated"
    assert [list(row.values()) for row in bench.account().table.values()] == [[nano]]


@pytest.mark.parametrize(
    ("expression", "data", "told"),
    [
        ("a + b", {"a": 1}, "meter m: data.b: "),
        ("a / b", {"a": 1, "b": 0}, "meter m: data.b: a division by zero"),
        ("a - b", {"a": 1, "b": 2}, "data.a, data.b (meter m): a - b is -1, which is negative"),
        ("a * a", {"a": 10**9}, "data.a (meter m): a * a is too large"),
        ("a", {"a": "NaN"}, "meter m: data.a: 'NaN' is not a decimal"),
        ("a", {"a": True}, "meter m: data.a: a bool"),
    ],
)
def test_what_has_no_value_is_set_aside_with_field_and_meter(expression: str, data: dict[str, Any], told: str) -> None:
    """Never guessed, never zero; and the failed event changes nothing."""
    bench = bench_of(expression)
    bench.open()
    assert bench.use(data=data) == "dead_lettered.bad_quantity"
    assert bench.letter().detail.startswith(told)
    assert (bench.account().table, bench.account().rated) == ({}, 0)
    assert_the_same(bench, oracle_of(bench), expression)


def test_a_band_may_be_of_an_expression() -> None:
    """What cannot be told of it is a dimension that cannot be told."""
    bench = bench_of("a", band="a + default(b, 0)")
    bench.open()
    for b in (None, 1, "x"):
        bench.use(data={"a": 10, "b": b})
    assert bench.charges() == [10 * DOLLAR // 3, 5 * DOLLAR]
    assert bench.letter().reason == "bad_dimension"
    assert bench.letter().detail.startswith("dimension size: data.b: ")


def test_numbers_written_as_json_or_as_text_are_the_same() -> None:
    """A Decimal of JSON, an int and a decimal text: law M1 reads all three."""
    bench = bench_of("a * 2")
    bench.open()
    for a in (3, "3.0", 3.0):
        bench.use(data={"a": a})
    assert [list(row.values()) for row in bench.account().table.values()] == [[18 * NANO]]
