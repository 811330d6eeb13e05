"""What a month comes to before discounts, and behind credit."""

import random

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET
from msgspec.structs import replace

from engine.bases import DUE, LIST
from engine.catalog import CatalogueDocument, PlanDefinition, PriceDefinition
from tests.engine.bench import DAY, DOLLAR, HOUR, START, Bench, document, us
from tests.engine.held_life import METERS, MODELS, free
from tests.engine.price_lists import random_price

MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")


def sold_at_random(source: random.Random) -> tuple[CatalogueDocument, CatalogueDocument]:
    """Prices with every kind of discount, and the same ones without."""
    prices = {f"units-{model}": random_price(source, "units", model=model) for model in MODELS}
    prices |= {f"out-{model}": random_price(source, "out", model=model) for model in MODELS}
    prices |= {"also": free("also"), "uses": random_price(source, "uses")}
    told = {name: replace(price, discount="0", overage=UNSET) for name, price in prices.items()}
    return (
        CatalogueDocument(METERS, {"plan": PlanDefinition("USD", prices)}),
        CatalogueDocument(METERS, {"plan": PlanDefinition("USD", told)}),
    )


@given(st.integers(0, 10**9))
def test_list_spend_is_what_the_same_usage_would_be_charged_without_any_discount(seed: int) -> None:
    """Of any models, over two versions, with grants of units, in any order."""
    source = random.Random(seed)
    first, second = sold_at_random(source), sold_at_random(source)
    benches = [Bench(first[number], second[number]) for number in range(2)]
    for bench in benches:
        bench.open(anchor_day=10)
        bench.grant_units("u", "units-x", "5")
        bench.publish(2, START + 3 * DAY)
    for _ in range(12):
        later, at = source.randrange(2 * DAY), source.randrange(DAY)
        data = {"model": source.choice(MODELS), "units": str(source.randrange(30)), "out": str(source.randrange(9))}
        for bench in benches:
            bench.now += later
            bench.use(data=data, at=bench.now - at)
    sold, undiscounted = (bench.account() for bench in benches)
    assert sold.derive().on(LIST) == undiscounted.derive().spend
    assert undiscounted.derive().on(LIST) == undiscounted.derive().spend


def test_what_is_due_is_what_no_lot_paid_whatever_settles_it_later() -> None:
    bench = Bench()
    bench.open()
    bench.grant("l", "10")
    bench.use(14)
    bench.now = APRIL + HOUR
    bench.use(3)
    assert bench.account().derive().on(DUE) == {MARCH: 4 * DOLLAR, APRIL: 3 * DOLLAR}
    bench.now += HOUR
    bench.grant("m", "100")
    assert bench.debt() == 0
    assert bench.account().derive().on(DUE) == {MARCH: 4 * DOLLAR, APRIL: 3 * DOLLAR}


def test_what_was_posted_for_a_closed_period_is_due_in_no_month() -> None:
    bench = Bench()
    bench.open()
    bench.use(1)
    bench.now = APRIL + 2 * DAY
    bench.use(1, at=APRIL - DAY)  # March is closed
    assert bench.account().adjusted
    bench.use(2)
    assert bench.account().derive().on(DUE) == {MARCH: DOLLAR, APRIL: 2 * DOLLAR}


def test_a_short_period_is_listed_by_what_it_includes() -> None:
    """A price that includes less in a short period does so before its discount, too."""
    price = PriceDefinition("units", "per_unit", {"model": "x"}, amount="1", included="3100", discount="50")
    bench = Bench(document(x=price))
    bench.open()
    bench.sell("pro", us("2026-03-16T12:00:00+00:00"))
    bench.use(1600)
    assert bench.account().derive().spend == {MARCH: 25 * DOLLAR}
    assert bench.account().derive().on(LIST) == {MARCH: 50 * DOLLAR}
