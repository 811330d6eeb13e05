"""Units of credit: what they are worth, and which may not be declared."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import BadCatalogue, CatalogueDocument, PlanDefinition, check_succession, compile_catalogue
from engine.units import Unit, UnitDefinition
from tests.engine.bench import DOLLAR, Bench, document

HUNDREDTH = UnitDefinition("USD", "1", "100")


def sold_in(unit: str, **units: UnitDefinition) -> CatalogueDocument:
    plain = document()
    return CatalogueDocument(plain.meters, {"plan": PlanDefinition(unit, plain.plans["plan"].prices)}, units=units)


def test_a_hundred_credits_are_worth_a_dollar() -> None:
    unit = compile_catalogue(1, sold_in("CREDITS", CREDITS=HUNDREDTH)).units["CREDITS"]
    assert unit.worth(100 * DOLLAR) == DOLLAR
    assert unit.worth(-50 * DOLLAR) == -DOLLAR // 2


@given(st.integers(-(10**30), 10**30), st.integers(1, 10**6), st.integers(1, 10**15), st.integers(1, 10**12))
def test_worth_is_exact_and_rounded_once(pico: int, parts: int, amount: int, per: int) -> None:
    exact = Fraction(pico, parts) * Fraction(amount, 10**12) / Fraction(per, 10**9)
    assert Unit("USD", amount, per).worth(pico, parts) == round(exact)


@pytest.mark.parametrize(
    ("name", "unit", "path"),
    [
        ("USD", HUNDREDTH, ("units", "USD")),
        ("credits", HUNDREDTH, ("units", "credits")),
        ("CREDITS", UnitDefinition("CREDITS", "1"), ("units", "CREDITS", "currency")),
        ("CREDITS", UnitDefinition("USD", "0"), ("units", "CREDITS", "amount")),
        ("CREDITS", UnitDefinition("USD", "1e3"), ("units", "CREDITS", "amount")),
        ("CREDITS", UnitDefinition("USD", "1", "0"), ("units", "CREDITS", "per")),
    ],
)
def test_a_unit_that_is_none_is_refused_and_says_where(name: str, unit: UnitDefinition, path: tuple[str, ...]) -> None:
    with pytest.raises(BadCatalogue) as refused:
        compile_catalogue(1, sold_in("USD", **{name: unit}))
    assert [fault.path for fault in refused.value.faults] == [path]


def test_a_plan_is_sold_in_a_currency_or_in_a_unit_that_is_declared() -> None:
    with pytest.raises(BadCatalogue, match="nor one of `units`"):
        compile_catalogue(1, sold_in("CREDITS"))


@pytest.mark.parametrize("after", [{}, {"CREDITS": UnitDefinition("USD", "2", "100")}])
def test_what_a_unit_is_worth_never_changes(after: dict[str, UnitDefinition]) -> None:
    before = sold_in("CREDITS", CREDITS=HUNDREDTH)
    with pytest.raises(BadCatalogue, match="declare another unit"):
        check_succession(before, sold_in("USD", **after))
    check_succession(before, sold_in("CREDITS", CREDITS=HUNDREDTH, MORE=HUNDREDTH))


def test_an_account_has_credits_or_money_and_never_both() -> None:
    """Law M3: what is granted, capped or owed in another currency, its unit's too, is refused."""
    bench = Bench(sold_in("CREDITS", CREDITS=HUNDREDTH))
    bench.open()
    assert (bench.account().currency, bench.account().unit) == ("CREDITS", Unit("USD", DOLLAR, 100 * 10**9))
    assert bench.grant("dollars", "5", currency="USD") == "refused.currency_mismatch"
    assert bench.cap("5", currency="USD") == "refused.currency_mismatch"
    assert bench.grant("credits", "5", currency="CREDITS") == "applied"
    bench.use(2)
    assert bench.balance() == 3 * DOLLAR
