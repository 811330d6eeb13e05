"""The fee of one event."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.money import NANO
from engine.prices.per_event import PerEvent

CARD = PerEvent(Fraction("2.9"), 3 * NANO // 10, NANO // 2, 20 * NANO)


def test_a_card_fee() -> None:
    """2.9 % and $0.30, at least $0.50, at most $20: of $100, $3.20; of $1, $0.50; of $10,000, $20."""
    assert [CARD.fee(dollars * NANO) for dollars in (100, 1, 10_000)] == [32 * NANO // 10, NANO // 2, 20 * NANO]


def test_a_fee_is_fixed_to_nine_digits_half_even() -> None:
    half = PerEvent(Fraction(50), 0, None, None)
    assert [half.fee(nano) for nano in (1, 2, 3, 5)] == [0, 1, 2, 2]


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_a_larger_event_never_has_a_smaller_fee(quantity: int, more: int) -> None:
    assert CARD.fee(quantity) <= CARD.fee(quantity + more)
