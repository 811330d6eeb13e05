"""Law M1: money and quantities are integers of a declared unit, and no float ever touches them."""

import ast
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.charges import Running
from engine.money import NANO, PICO, NotADecimal, amount_text, parse_amount, parse_quantity
from engine.prices.price import Price
from tests.engine.bench import Bench, document, priced
from tests.engine.bench import per_unit as sold_per_unit

ENGINE = Path(__file__).parents[2] / "engine"


def per_unit(amount: str, per: str) -> Price:
    return priced([(None, parse_amount(amount), parse_quantity(per))])


def owed(price: Price, quantity: str) -> str:
    return amount_text(Running(price).add(price, parse_quantity(quantity)))


def test_a_hundred_million_tokens_at_15_cents_a_million_owe_15_dollars() -> None:
    """A price is an amount per N units and is never divided beforehand."""
    assert owed(per_unit("0.15", "1000000"), "100000000") == "15"


def test_one_token_at_15_cents_a_million_owes_150_nano_dollars() -> None:
    """The smallest charge of a real price is exact, not rounded away."""
    assert owed(per_unit("0.15", "1000000"), "1") == "0.000000150000"


def test_a_gpu_hour_at_2_49_owes_what_its_seconds_owe() -> None:
    """$2.49 per 3,600 s has no finite price per second, and still an hour of it costs $2.49."""
    price = per_unit("2.49", "3600")
    run = Running(price)
    for _ in range(3_600):
        run.add(price, NANO)
    assert run.amount == parse_amount("2.49")


@given(st.integers(0, 10**18 - 1), st.integers(0, 10**12 - 1))
def test_an_amount_of_twelve_digits_is_held_exactly(whole: int, fraction: int) -> None:
    """Every amount with at most 12 fractional digits is itself, beyond what a double could hold."""
    assert parse_amount(f"{whole}.{fraction:012d}") == whole * PICO + fraction


@given(st.integers(1, 10**18), st.integers(1, 10**18), st.integers(0, 10**24))
def test_what_is_owed_differs_from_the_exact_amount_by_half_a_pico_at_most(
    amount: int, per: int, quantity: int
) -> None:
    """The only deviation from exact arithmetic is the one rounding."""
    price = priced([(None, amount, per)])
    assert abs(Running(price).add(price, quantity) - Fraction(amount * quantity, per)) <= Fraction(1, 2)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e2", "1E-2", "0.0000000000001", "1" + "0" * 18])
def test_what_is_not_a_plain_decimal_is_refused(text: str) -> None:
    """NaN, infinities, exponents and excess digits are refused, never approximated."""
    with pytest.raises(NotADecimal):
        parse_amount(text)


@pytest.mark.parametrize("number", [0.1, 1.0, float("nan")])
def test_a_binary_float_is_refused(number: float) -> None:
    """A float has lost what was written, so it is no quantity."""
    with pytest.raises(NotADecimal):
        parse_quantity(number)


@pytest.mark.parametrize("file", sorted(ENGINE.rglob("*.py")), ids=lambda path: path.name)
def test_no_float_stands_in_the_engine(file: Path) -> None:
    """The engine holds no float literal, no call of float and no true division of numbers."""
    for node in ast.walk(ast.parse(file.read_text())):
        assert not (isinstance(node, ast.Constant) and isinstance(node.value, float)), node.lineno
        assert not (isinstance(node, ast.Name) and node.id == "float"), node.lineno
        assert not (isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div)), node.lineno


@pytest.mark.parametrize(
    ("tokens", "amount"),
    [
        (b"100000000", "15"),
        (b"1", "0.000000150000"),
        (b"0.1", "0.000000015000"),
        (b'"0.3"', "0.000000045000"),
        (b"999999999999999999", "149999999999.999999850000"),
    ],
)
def test_an_event_is_billed_for_the_number_as_it_was_written(tokens: bytes, amount: str) -> None:
    """From the bytes of the event to the bytes of the line, through the whole fold: 0.1 is a tenth, not its double."""
    bench = Bench(document(x=sold_per_unit("0.15", "1000000", model="x")))
    bench.open()
    assert bench.record(b"acme", bench.event("@").replace(b'"@"', tokens)) == "rated"
    assert f'"amount":"{amount}"'.encode() in bench.partition.outputs.lines[0][1]


@pytest.mark.parametrize(
    ("tokens", "outcome"),
    [
        (b"NaN", "malformed"),
        (b"Infinity", "malformed"),
        (b"1e3", "bad_quantity"),
        (b"1E-1", "bad_quantity"),
        (b"0.0000000001", "bad_quantity"),
        (b"1000000000000000000", "bad_quantity"),
        (b"9" * 5000, "malformed"),
        (b"9" * 5000 + b".0", "bad_quantity"),
        (b"9" * 4300 + b"e40", "bad_quantity"),
    ],
)
def test_an_event_with_another_number_is_not_billed(tokens: bytes, outcome: str) -> None:
    """What M1 does not read as a number is dead-lettered by the fold, never rounded into one."""
    bench = Bench()
    bench.open()
    assert bench.record(b"acme", bench.event("@").replace(b'"@"', tokens)) == f"dead_lettered.{outcome}"
