"""Law M2: A is computed exactly and rounded half-even to a pico once, so charges sum to it to the last digit."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.charges import Running
from engine.money import NANO, PICO, amount_text, parse_amount, parse_quantity
from engine.prices.price import Price
from tests.engine.bench import DAY, START, Bench, priced

GRADUATED = [(10 * NANO, 30 * PICO, NANO), (50 * NANO, 40 * PICO, NANO), (None, 50 * PICO, NANO)]


def charges(price: Price, quantities: list[int]) -> list[int]:
    run = Running(price)
    return [run.add(price, quantity) for quantity in quantities]


def test_graduated_charges_each_unit_at_the_rate_of_its_tier() -> None:
    """(0,10] $30, (10,50] $40, (50,∞) $50: a hundred units owe $4,400."""
    price = priced(list(GRADUATED), "seats")
    assert sum(charges(price, [100 * NANO])) == 4_400 * PICO


def test_per_unit_charges_every_unit_alike() -> None:
    """$50 per unit: a hundred units owe $5,000."""
    price = priced([(None, 50 * PICO, NANO)], "seats")
    assert sum(charges(price, [100 * NANO])) == 5_000 * PICO


def test_a_charge_is_the_difference_that_its_event_makes() -> None:
    """Sixty units, then forty, owe $2,400 and $2,000 of the same $4,400."""
    price = priced(list(GRADUATED), "seats")
    assert charges(price, [60 * NANO, 40 * NANO]) == [2_400 * PICO, 2_000 * PICO]


def test_thirds_of_a_pico_are_not_lost() -> None:
    """At 1 pico per 3 units, one unit at a time: the charges are 0, 1, 0, and their sum is what three units owe."""
    price = priced([(None, 1, 3 * NANO)])
    assert charges(price, [NANO, NANO, NANO]) == [0, 1, 0]


@pytest.mark.parametrize(("halves", "rounded"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_a_tie_goes_to_the_even_pico(halves: int, rounded: int) -> None:
    """Half a pico rounds to the even neighbour, so that many customers do not all round up."""
    price = priced([(None, 1, 2 * NANO)])
    assert charges(price, [halves * NANO]) == [rounded]


@given(
    st.lists(st.integers(0, 10**20), min_size=1, max_size=12),
    st.integers(0, 10**16),
    st.integers(1, 10**13),
    st.randoms(use_true_random=False),
)
def test_charges_sum_to_a_in_any_order_and_cut(quantities: list[int], amount: int, per: int, rng: object) -> None:
    """However a quantity is cut into events, and in whatever order they come, the charges sum to A of the whole."""
    tiers = [(10**19, amount, per), (None, amount + 7, 3 * per)]
    price = priced(list(tiers))
    total = sum(quantities)
    exact = Fraction(min(total, 10**19) * amount, per) + Fraction(max(0, total - 10**19) * (amount + 7), 3 * per)
    shuffled = list(quantities)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]  # hypothesis gives a random.Random
    assert (
        sum(charges(price, quantities)) == sum(charges(price, shuffled)) == sum(charges(price, [total])) == round(exact)
    )


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.integers(1, 10**6), st.integers(1, 10**6))
def test_a_new_price_version_rounds_on_the_cumulative_amount(q1: int, q2: int, one: int, two: int) -> None:
    """With a new version in mid-period the exact owed is A1(q1) + A2(q1+q2) − A2(q1), rounded once."""
    first = priced([(None, one, 7)])
    second = priced([(10**14, two, 11), (None, one, 13)])
    run = Running(first)
    charged = run.add(first, q1) + run.add(second, q2)

    def a2(quantity: int) -> Fraction:
        return Fraction(min(quantity, 10**14) * two, 11) + Fraction(max(0, quantity - 10**14) * one, 13)

    assert charged == round(Fraction(q1 * one, 7) + a2(q1 + q2) - a2(q1))


def test_large_periods_stay_exact() -> None:
    """A trillion tokens one way or in two halves owe the same to the last pico."""
    price = priced([(None, parse_amount("0.000000000007"), parse_quantity("3"))])
    whole = charges(price, [10**12 * NANO])
    assert sum(charges(price, [10**12 * NANO // 2] * 2)) == whole[0]
    assert amount_text(whole[0]) == "2.333333333333"


def test_a_period_is_rounded_once_however_many_segments_it_has() -> None:
    """Two units either side of a lot's boundary owe 4/3 of a pico, which is 1: not 2/3 and 2/3, which would be 2."""
    bench = Bench()
    bench.open()
    bench.grant("l", "1", "promo", effective_us=START - DAY, expires_us=START + 1)
    bench.now = START + 1000
    for at in (START, START + 1):
        bench.use(2, "third", at)
    derived = bench.account().derive()
    assert sum(bench.charges()) == sum(derived.spend.values()) == 1
    assert len(bench.account().table) == 2


def test_two_periods_are_rounded_apart() -> None:
    """M2 rounds per period: 2/3 in February and 2/3 in March are a pico each."""
    bench = Bench()
    bench.open()
    for at in (START - 20 * DAY, START):
        bench.use(2, "third", at)
    assert bench.charges() == [1, 1]


def test_two_prices_are_rounded_apart() -> None:
    """M2 rounds per price: one price's third does not fill up another's."""
    bench = Bench()
    bench.open()
    bench.use(1, "third")
    bench.use("0.000000001", "x")
    assert bench.charges() == [0, 1_000]
