"""Parsing, printing and the one rounding of integer money."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.money import (
    NANO,
    PICO,
    NotADecimal,
    amount_text,
    parse_amount,
    parse_quantity,
    quantity_text,
    round_half_even,
)

AMOUNTS = st.integers(-(10**30) + 1, 10**30 - 1)
QUANTITIES = st.integers(-(10**27) + 1, 10**27 - 1)


@given(AMOUNTS)
def test_an_amount_survives_printing_and_parsing(pico: int) -> None:
    assert parse_amount(amount_text(pico)) == pico


@given(QUANTITIES)
def test_a_quantity_survives_printing_and_parsing(nano: int) -> None:
    assert parse_quantity(quantity_text(nano)) == nano


@given(QUANTITIES)
def test_a_json_number_means_what_its_text_means(nano: int) -> None:
    assert parse_quantity(Decimal(quantity_text(nano))) == nano


@pytest.mark.parametrize(
    ("text", "pico"),
    [
        ("0", 0),
        ("-0", 0),
        ("0.15", 150_000_000_000),
        ("0.000000000001", 1),
        ("007", 7 * PICO),
        ("-2.5", -5 * PICO // 2),
    ],
)
def test_amounts_that_are_read(text: str, pico: int) -> None:
    assert parse_amount(text) == pico


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1\n",
        "+1",
        ".5",
        "1.",
        "1e3",
        "1,000",
        "1_000",
        "0x1",
        "NaN",
        "inf",
        "--1",
        "٣",
        "0." + "0" * 13,
        "1" * 19,
    ],
)
def test_amounts_that_are_refused(text: str) -> None:
    with pytest.raises(NotADecimal):
        parse_amount(text)


@pytest.mark.parametrize("value", ["0.0000001", "0.000000001", "-0.00000001", "0.0000000"])
def test_small_json_numbers_are_read_although_python_prints_them_with_an_exponent(value: str) -> None:
    assert parse_quantity(Decimal(value)) == Fraction(value) * NANO


@pytest.mark.parametrize(
    "value",
    [
        Decimal("1E+3"),
        Decimal("1E-10"),
        Decimal("NaN"),
        Decimal("Infinity"),
        Decimal("1E-999999"),
        Decimal("5.0000000000"),
        10**18,
        -(10**18),
        True,
        None,
        1.5,
        [],
        "1e3",
        "0." + "0" * 10,
    ],
)
def test_quantities_that_are_refused(value: object) -> None:
    with pytest.raises(NotADecimal):
        parse_quantity(value)


@given(AMOUNTS, st.integers(1, 10**15))
def test_rounding_is_half_even_of_the_exact_quotient(numerator: int, denominator: int) -> None:
    assert round_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@pytest.mark.parametrize(("numerator", "rounded"), [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2)])
def test_a_tie_goes_to_the_even_neighbour(numerator: int, rounded: int) -> None:
    assert round_half_even(numerator, 2) == rounded
