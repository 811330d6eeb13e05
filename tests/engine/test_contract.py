"""Which price an account pays at an instant: its plan's, or one that was agreed with it."""

import msgspec
import pytest

from engine.catalog import BadCatalogue, PriceBook, compile_catalogue
from engine.contract import Agreement, Contract, read_terms
from engine.prices.price import Price
from tests.engine.bench import document, graduated, per_unit

PERIOD, EARLY, LATE, VERSION = 1_000, 1_100, 1_500, 1_300


def book() -> PriceBook:
    """Version 2 sells x for $3."""
    found = PriceBook()
    found.publish(0, compile_catalogue(1, document()))
    found.publish(VERSION, compile_catalogue(2, document(x=per_unit("3", model="x"))))
    return found


def agreed(from_us: int, amount: str | None, price: str = "x", model: str = "per_unit") -> Agreement:
    terms = None
    if amount is not None:
        terms = msgspec.json.encode(read_terms({"model": model, "amount": amount}, "units")).decode()
    return Agreement(from_us, "plan", price, terms)


def owed(contract: Contract, time_us: int, price: str = "x") -> int:
    """Dollars for one unit."""
    plan = contract.plan_at(book(), time_us, PERIOD)
    assert plan is not None
    return plan.prices[price].owed(10**9) // 10**12


def test_without_agreements_the_plan_is_the_books_own() -> None:
    prices, contract = book(), Contract("plan")
    for time_us in (0, VERSION, 9_999):
        assert contract.plan_at(prices, time_us, PERIOD) is prices.plan_at("plan", time_us, PERIOD)
        assert contract.stated_at(prices, time_us) is prices.at(time_us).plans["plan"]  # type: ignore[union-attr]
    assert contract.around(5) == (None, None)


def test_the_latest_agreement_holds_whatever_version_is_in_force_until_the_plans_own_comes_back() -> None:
    contract = Contract("plan", [agreed(LATE, None), agreed(EARLY, "7")])
    times = (EARLY - 1, EARLY, VERSION, LATE - 1, LATE)
    assert [owed(contract, time_us) for time_us in times] == [1, 7, 7, 7, 3]
    assert owed(contract, EARLY, "y") == 1
    assert contract.around(EARLY) == (EARLY, LATE)
    assert contract.around(EARLY - 1) == (None, EARLY)


def test_an_agreement_keeps_the_cells_of_the_plans_price_and_says_since_when_it_holds() -> None:
    plan = Contract("plan", [agreed(EARLY, "7")]).stated_at(book(), EARLY)
    assert plan is not None
    assert (plan.prices["x"].where, plan.prices["x"].agreed_us) == ({"model": "x"}, EARLY)
    assert plan.prices["y"].agreed_us is None


def test_what_is_agreed_of_another_plan_or_of_a_price_that_is_gone_has_no_effect() -> None:
    calls = Contract("calls", [agreed(EARLY, "7", "calls"), agreed(EARLY, "7", "tokens")])  # of the plan `plan`
    assert [price.owed(10**9) for price in sold(calls).values()] == [0, 0]
    other = Contract("plan", [agreed(EARLY, "7", "unheard"), agreed(EARLY, "7", "calls")])  # of meter units
    assert {price.agreed_us for price in sold(other).values()} == {None}


def sold(contract: Contract) -> dict[str, Price]:
    plan = contract.stated_at(book(), EARLY)
    assert plan is not None
    return plan.prices


def test_the_same_terms_for_the_same_instant_take_the_place_of_the_first() -> None:
    contract = Contract("plan").with_agreed(agreed(EARLY, "7")).with_agreed(agreed(EARLY, "8"))
    assert len(contract.agreed) == 1
    assert owed(contract, EARLY) == 8


def test_a_package_waits_for_the_next_period_and_says_so() -> None:
    package = agreed(EARLY, "7", model="package")
    contract = Contract("plan", [package])
    assert owed(contract, EARLY) == 1
    assert not contract.begins(book(), package, PERIOD)
    assert contract.begins(book(), package, EARLY)
    plan = contract.plan_at(book(), EARLY, EARLY)
    assert plan is not None and plan.prices["x"].agreed_us == EARLY


def test_what_holds_at_an_instant_is_the_same_object_each_time() -> None:
    """A derivation tells versions apart by that."""
    prices, contract = book(), Contract("plan", [agreed(EARLY, "7")])
    first, again = (contract.plan_at(prices, EARLY + 1, PERIOD) for _ in range(2))
    later = contract.plan_at(prices, VERSION, PERIOD)
    assert first is again
    assert first is not None and later is not None
    assert first.prices["x"].terms is later.prices["x"].terms


@pytest.mark.parametrize("stated", [{"meter": "units"}, {"where": {}}, {}, {"model": "magic"}, {"model": 1}])
def test_terms_that_are_no_price_are_refused(stated: dict[str, object]) -> None:
    with pytest.raises(BadCatalogue):
        read_terms({"model": "per_unit", "amount": "1"} | stated if stated else {}, "units")


def test_tiers_are_read_as_in_a_catalogue() -> None:
    definition = graduated(("10", "30"), (None, "40"), model="x")
    stated = msgspec.to_builtins(definition)
    del stated["meter"], stated["where"]
    assert read_terms(stated, "units") == msgspec.structs.replace(definition, where={})
