"""What a meter takes from an event: a quantity and a cell, or a refusal that names the field."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.meters import DIMENSION_TEXT_MAX, BadDimension, BadQuantity, Meter
from engine.meters.aggregates import KINDS, Aggregate, Average, Kind, Ranked, Unique, mark_of
from engine.meters.expressions import compile_expression
from engine.money import NANO

TOKENS = Meter("tokens", "llm.request", "tokens", ("model", "region"))
CALLS = Meter("calls", "llm.request", None, ())


@given(st.dictionaries(st.text(), st.integers() | st.text() | st.none()))
def test_a_count_counts_every_event_once(data: dict[str, Any]) -> None:
    assert CALLS.quantity(data) == NANO
    assert CALLS.cell(data) == ()


@pytest.mark.parametrize(
    ("value", "nano"), [(0, 0), (3, 3 * NANO), (Decimal("0.5"), NANO // 2), ("0.000000001", 1), ("12", 12 * NANO)]
)
def test_a_sum_reads_numbers_and_decimal_text(value: object, nano: int) -> None:
    assert TOKENS.quantity({"tokens": value}) == nano


@pytest.mark.parametrize("value", [None, "", "x", -1, Decimal("-0.1"), "-3", True, [], {}, 10**18, "1e3"])
def test_a_sum_never_guesses(value: object) -> None:
    with pytest.raises(BadQuantity, match=r"data\.tokens \(meter tokens\)"):
        TOKENS.quantity({"tokens": value})


def test_a_missing_field_is_not_zero() -> None:
    with pytest.raises(BadQuantity):
        TOKENS.quantity({})


def test_the_cell_holds_the_dimensions_in_the_order_of_group_by() -> None:
    assert TOKENS.cell({"region": "eu", "model": "a", "other": 1}) == ("a", "eu")
    assert TOKENS.cell({"region": "e" * DIMENSION_TEXT_MAX, "model": "a"})[1] == "e" * DIMENSION_TEXT_MAX


@pytest.mark.parametrize("value", [None, "", 3, True, "x" * (DIMENSION_TEXT_MAX + 1), "a\x00", ["a"]])
def test_a_dimension_must_be_a_short_string(value: object) -> None:
    with pytest.raises(BadDimension, match=r"data\.region \(meter tokens\)"):
        TOKENS.cell({"model": "a", "region": value})


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("max", Ranked("max", ((5 * NANO,),), 4)),
        ("min", Ranked("min", ((-5 * NANO,),), 4)),
        ("latest", Ranked("latest", ((7, "s", "i", 5 * NANO),), 4)),
        ("average", Average(5 * NANO, 1)),
        ("unique_count", Unique({mark_of(5 * NANO): 1}, 3)),
    ],
)
def test_one_event_is_an_aggregate(kind: Kind, found: Aggregate) -> None:
    meter = Meter("m", "e", "v", (), kind=kind, limit=3, points=4)
    assert meter.aggregate({"v": 5}, 7, "s", "i") == found
    with pytest.raises(BadQuantity, match=r"data\.v \(meter m\)"):
        meter.aggregate({}, 7, "s", "i")


def test_what_a_check_must_bound() -> None:
    by_kind = {kind: Meter("m", "e", "v", (), kind=kind) for kind in KINDS}
    assert [meter.bounded_by for meter in by_kind.values()] == ["v", "v", "v", "v", None]
    assert by_kind["unique_count"].measured == "unique count of v"
    worked_out = Meter("m", "e", None, (), expression=compile_expression("a + b"), kind="max")
    assert (worked_out.bounded_by, worked_out.measured) == ("m", "max of a + b")
    assert (CALLS.bounded_by, CALLS.measured, TOKENS.measured) == (None, "events", "tokens")
