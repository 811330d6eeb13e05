"""What the engine asks of a price, against every quantity that there is."""

from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from engine.prices.modifiers import Modifiers
from engine.prices.price import Price
from tests.engine.bench import priced

MODELS = st.sampled_from(["per_unit", "graduated", "package", "volume", "step", "flat"])


@st.composite
def small_prices(draw: st.DrawFn) -> Price:
    """Any model, over a few nano-units."""
    model = draw(MODELS)
    tiered = model in ("graduated", "volume", "step")
    ends = sorted(draw(st.sets(st.integers(1, 12), max_size=3))) if tiered else []
    tiers = [(end, draw(st.integers(0, 9)), draw(st.integers(1, 4))) for end in [*ends, None]]
    if model == "step":
        tiers = [
            (end, amount, per) for (end, _, per), amount in zip(tiers, sorted(row[1] for row in tiers), strict=True)
        ]
    fees = [draw(st.integers(0, 5)) for _ in tiers] if model in ("graduated", "volume") else []
    maximum = draw(st.none() | st.integers(0, 25))
    modifiers = Modifiers(draw(st.integers(0, 3)), maximum, Fraction(draw(st.integers(0, 100))))
    return priced(tiers, "p", model, fees, modifiers)


@given(small_prices(), st.integers(0, 20), st.integers(0, 12))
def test_the_most_that_a_period_can_owe_is_the_most_of_every_quantity(price: Price, low: int, more: int) -> None:
    """Falling volume prices, too: held money is the maximum over every use of a hold."""
    assert price.most_owed(low, low + more) == max(price.owed(low + step) for step in range(more + 1))


@given(small_prices(), st.integers(0, 20))
def test_terms_hold_up_to_their_end(price: Price, quantity: int) -> None:
    end = price.end_at(quantity)
    assert (end is None) == (price.curve_at(quantity) is price.curves[-1])
    if end is not None:
        assert price.curve_at(end) is price.curve_at(quantity) is not price.curve_at(end + 1)
    assert price.curves_between(quantity, quantity) == (price.curve_at(quantity),)


@given(small_prices(), st.integers(0, 20), st.integers(1, 6))
def test_no_units_cost_more_than_the_dearest_rate_or_less_than_the_cheapest(
    price: Price, used: int, quantity: int
) -> None:
    charge = price.exact(used + quantity) - price.exact(used)
    if price.dearest_rate is not None:
        assert charge <= price.dearest_rate * quantity
    if len(price.terms) == 1:
        assert charge >= price.cheapest_rate * quantity


@given(small_prices(), st.integers(0, 6), st.lists(st.integers(1, 4), min_size=1, max_size=3), st.data())
def test_no_events_are_charged_more_of_their_own_than_was_foreseen(
    price: Price, used: int, sizes: list[int], data: st.DataObject
) -> None:
    """Own is what the units add by the terms that they reach (law R9)."""
    most = price.most_own(used, sum(sizes), len(sizes))
    at, total = used, Fraction(0)
    for size in sizes:
        at += data.draw(st.integers(0, 9))
        curve = price.curve_at(at + size)
        total += Fraction(curve.numerator(at + size) - curve.numerator(at), curve.denominator)
        at += size
    assert total <= most


@given(small_prices())
def test_a_price_is_like_itself_in_other_cells_and_unlike_a_dearer_one(price: Price) -> None:
    moved = price.placed({"model": "x"})
    assert moved.terms is price.terms
    assert moved.is_like(price)
    assert not price.is_like(priced([(None, 10, 1)], "p", "per_unit"))


def test_only_what_each_unit_costs_by_itself_is_even() -> None:
    assert priced([(3, 2, 1), (None, 1, 1)]).is_even
    assert not priced([(3, 2, 1), (None, 1, 1)], fees=[0, 1]).is_even
    assert not priced([(None, 8, 100)], model="package").is_even
    assert not priced([(3, 2, 1), (None, 1, 1)], model="volume").is_even
