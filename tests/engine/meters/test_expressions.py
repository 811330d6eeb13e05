"""Expressions: what they come to, exactly; what is no expression, and where; what has no value, and of which field."""

from fractions import Fraction
from typing import Any

import pytest

from engine.meters.expressions import (
    DEPTH_MAX,
    PARTS_MAX,
    TEXT_MAX,
    BadExpression,
    NoValue,
    compile_expression,
)

DATA: dict[str, Any] = {
    "a": 7,
    "b": "0.5",
    "usage": {"cached": 3},
    "odd-name": 2,
    "text": "x",
    "none": None,
    "big": 10**17,
}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("a", 7),
        ("a + b", Fraction(15, 2)),
        ("a - b - 1", Fraction(11, 2)),
        ("1 + 2 * 3", 7),
        ("(1 + 2) * 3", 9),
        ("12 / 3 / 2", 2),
        ("1 / 3", Fraction(1, 3)),
        ("1 / 3 * 3", 1),  # a division is exact
        ("-a + 8", 1),
        ("2 * -3 + 7", 1),
        ("--a", 7),
        ("usage.cached * 0.1", Fraction(3, 10)),
        ('"odd-name" * 2', 4),
        ("min(a, b, 3)", Fraction(1, 2)),
        ("max(a, 9)", 9),
        ("floor(a / 2) + ceil(a / 2)", 7),
        ("floor(-0.5)", -1),
        ("default(missing, 4) + default(none, 1) + default(a, text)", 12),
        ("big * big * big", 10**51),
        ("  a\n+ 1 ", 8),
    ],
)
def test_what_it_comes_to(text: str, value: Fraction | int) -> None:
    assert compile_expression(text).of(DATA) == value


def test_it_names_the_fields_that_it_reads() -> None:
    assert compile_expression('a + default(usage.cached, "x y")').fields == {"a", "usage.cached", "x y"}


@pytest.mark.parametrize(
    ("text", "position", "told"),
    [
        ("", 1, "ends too early"),
        ("a +", 4, "ends too early"),
        ("a b", 3, "'b' is not expected"),
        ("(a", 3, "ends too early"),
        ("a)", 2, "')' is not expected"),
        ("a $ b", 3, "'$' has no meaning"),
        ("a ** 2", 4, "'*' is not expected"),
        ("1e5", 2, "'e5' is not expected"),
        ("1..2", 1, "'1..2' is not a decimal"),
        ("0.0000000001", 1, "is not a decimal"),
        ("sqrt(a)", 1, "there is no function 'sqrt'"),
        ("__import__(a)", 1, "there is no function '__import__'"),
        ("floor(a, b)", 1, "floor takes one argument"),
        ("min()", 5, "')' is not expected"),
        ("default(3, 4)", 9, "default takes a field"),
        ("default(a)", 10, "')' is not expected"),
        ("a.", 2, "'.' has no meaning"),
        ('"a', 1, "'\"' has no meaning"),
        ("a[0]", 2, "'[' has no meaning"),
        ("(" * DEPTH_MAX + "a" + ")" * DEPTH_MAX, DEPTH_MAX + 1, "nested deeper"),
        ("-" * DEPTH_MAX + "a", DEPTH_MAX + 1, "nested deeper"),
        ("1" + "+1" * (PARTS_MAX // 2), PARTS_MAX + 1, "at most 100 parts"),
        ("a" * (TEXT_MAX + 1), TEXT_MAX + 1, "at most 1000 characters"),
    ],
)
def test_what_is_no_expression_is_refused_with_its_position(text: str, position: int, told: str) -> None:
    with pytest.raises(BadExpression) as caught:
        compile_expression(text)
    assert str(caught.value).startswith(f"at character {position}: ") and told in str(caught.value)
    assert caught.value.position == position


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a + missing", "data.missing"),
        ("none * 0", "data.none"),
        ("text + 1", "data.text"),
        ("a / (b - 0.5)", "data.b: a division by zero"),
        ("a / 0", "0: a division by zero"),
        ("default(text, 0)", "data.text"),
        ("usage + 1", "data.usage"),
    ],
)
def test_what_has_no_value_names_the_field(text: str, told: str) -> None:
    with pytest.raises(NoValue) as caught:
        compile_expression(text).of(DATA)
    assert str(caught.value).startswith(told)


def test_as_deep_and_as_long_as_may_be_is_still_worked_out() -> None:
    deep = "(" * (DEPTH_MAX - 1) + "a" + ")" * (DEPTH_MAX - 1)
    assert compile_expression(deep).of(DATA) == 7
    assert compile_expression("1" + "+1" * (PARTS_MAX // 2 - 1)).of(DATA) == PARTS_MAX // 2
