"""Which price an account pays at an instant: its plan's, or one that was agreed with it."""

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import BadCatalogue, Catalogue, Plan, PriceBook, compile_catalogue
from engine.contract import Agreement, Contract, Pause, Phase, read_terms
from engine.prices.price import Price
from tests.engine.bench import document, graduated, per_unit, us

APRIL, MAY = us("2026-04-01T00:00:00+00:00"), us("2026-05-01T00:00:00+00:00")
EARLY, LATE, VERSION = APRIL + 100, APRIL + 500, APRIL + 300


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
    plan = contract.plan_at(book(), time_us)
    assert plan is not None
    return plan.prices[price].owed(10**9) // 10**12


def test_without_agreements_the_plan_is_the_books_own() -> None:
    prices, contract = book(), Contract("UTC", 1, "plan")
    for time_us in (0, VERSION, 9_999):
        assert contract.plan_at(prices, time_us) is prices.plan_at("plan", time_us, contract.period_of(time_us))
        assert stated(contract, prices, time_us) is in_force(prices, time_us).plans["plan"]
    assert contract.around(5) == (None, None)


def test_the_latest_agreement_holds_whatever_version_is_in_force_until_the_plans_own_comes_back() -> None:
    contract = Contract("UTC", 1, "plan", (), [agreed(LATE, None), agreed(EARLY, "7")])
    times = (EARLY - 1, EARLY, VERSION, LATE - 1, LATE)
    assert [owed(contract, time_us) for time_us in times] == [1, 7, 7, 7, 3]
    assert owed(contract, EARLY, "y") == 1
    assert contract.around(EARLY) == (EARLY, LATE)
    assert contract.around(EARLY - 1) == (None, EARLY)


def test_an_agreement_keeps_the_cells_of_the_plans_price_and_says_since_when_it_holds() -> None:
    plan = stated(Contract("UTC", 1, "plan", (), [agreed(EARLY, "7")]), book(), EARLY)
    assert (plan.prices["x"].where, plan.prices["x"].agreed_us) == ({"model": "x"}, EARLY)
    assert plan.prices["y"].agreed_us is None


def test_what_is_agreed_of_another_plan_or_of_a_price_that_is_gone_has_no_effect() -> None:
    calls = Contract(
        "UTC", 1, "calls", (), [agreed(EARLY, "7", "calls"), agreed(EARLY, "7", "tokens")]
    )  # of the plan `plan`
    assert [price.owed(10**9) for price in sold(calls).values()] == [0, 0]
    other = Contract(
        "UTC", 1, "plan", (), [agreed(EARLY, "7", "unheard"), agreed(EARLY, "7", "calls")]
    )  # of meter units
    assert {price.agreed_us for price in sold(other).values()} == {None}


def sold(contract: Contract) -> dict[str, Price]:
    return stated(contract, book(), EARLY).prices


def in_force(prices: PriceBook, time_us: int) -> Catalogue:
    found = prices.at(time_us)
    assert found is not None
    return found


def stated(contract: Contract, prices: PriceBook, time_us: int) -> Plan:
    plan = contract.stated_in(in_force(prices, time_us), time_us)
    assert plan is not None
    return plan


def test_the_same_terms_for_the_same_instant_take_the_place_of_the_first() -> None:
    contract = Contract("UTC", 1, "plan").with_agreed(agreed(EARLY, "7")).with_agreed(agreed(EARLY, "8"))
    assert len(contract.agreed) == 1
    assert owed(contract, EARLY) == 8


def test_a_package_waits_for_the_next_period_and_says_so() -> None:
    package = agreed(EARLY, "7", model="package")
    contract = Contract("UTC", 1, "plan", (), [package])
    assert owed(contract, EARLY) == 1
    assert not contract.begins(book(), package)
    plan = contract.plan_at(book(), MAY)
    assert plan is not None and plan.prices["x"].agreed_us == EARLY
    assert Contract("UTC", 1, "plan", (), [agreed(MAY, "7", model="package")]).begins(book(), package)


def test_what_holds_at_an_instant_is_the_same_object_each_time() -> None:
    """A derivation tells versions apart by that."""
    prices, contract = book(), Contract("UTC", 1, "plan", (), [agreed(EARLY, "7")])
    first, again = (contract.plan_at(prices, EARLY + 1) for _ in range(2))
    later = contract.plan_at(prices, VERSION)
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


# --------------------------------------------------------------------------------------------------------------- phases


def test_a_phase_sells_another_plan_and_begins_a_period() -> None:
    contract = Contract("UTC", 1, "plan", [Phase(LATE, "pro")])
    assert [contract.plan_name_at(time_us) for time_us in (EARLY, LATE - 1, LATE)] == ["plan", "plan", "pro"]
    assert [contract.period_around(time_us) for time_us in (EARLY, LATE)] == [(APRIL, LATE), (LATE, MAY)]
    assert contract.period_around(MAY) == Contract("UTC", 1, "pro").period_around(MAY)
    assert contract.around(EARLY) == (None, LATE)


def test_a_phase_with_the_plan_before_it_is_none() -> None:
    contract = Contract("UTC", 1, "plan", [Phase(LATE, "pro")])
    assert contract.with_phase(Phase(LATE, "plan")).phases == ()
    assert contract.with_phase(Phase(LATE + 1, "pro")).phases == contract.phases
    assert contract.with_phase(Phase(EARLY, "pro")).phases == (Phase(EARLY, "pro"),)


def test_a_short_period_includes_less_to_the_ninth_digit() -> None:
    """A third of a month of 20 units: 6.666666667; the rest of it: 13.333333333."""
    third = APRIL + (MAY - APRIL) // 3
    contract = Contract("UTC", 1, "pro", [Phase(third, "plan")])
    back = Contract("UTC", 1, "plan", [Phase(third, "pro")])
    found = [owner.plan_at(book(), at) for owner, at in ((contract, APRIL), (back, third), (back, MAY))]
    assert [plan.prices["x"].curves[0].included for plan in found if plan] == [
        6_666_666_667,
        13_333_333_333,
        20 * 10**9,
    ]
    assert [plan.prices["x"].is_published for plan in found if plan] == [False, False, True]


def test_what_is_agreed_belongs_to_its_plan() -> None:
    contract = Contract("UTC", 1, "plan", [Phase(LATE, "pro")], [agreed(EARLY, "7")])
    plan = contract.plan_at(book(), LATE)
    assert plan is not None and plan.prices["x"].agreed_us is None
    assert owed(contract, LATE - 1) == 7


@given(st.dictionaries(st.integers(0, 20), st.booleans(), max_size=8), st.integers(0, 20), st.integers(0, 20))
def test_it_is_paused_for_as_long_as_its_stretches_are(turns: dict[int, bool], one: int, other: int) -> None:
    contract = Contract("UTC", 1, "plan", pauses=[Pause(at, paused) for at, paused in turns.items()])
    low, high = sorted((one, other))
    assert contract.paused_us(low, high) == sum(contract.paused_at(instant) for instant in range(low, high))
    for before, after in pairwise(sorted(turns)):
        assert contract.paused_us(before, after) == (after - before if turns[before] else 0)
