"""Law M3: an account has one currency, that of its plan; a plan without one is refused at publication."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import (
    BadCatalogue,
    CatalogueDocument,
    MeterDefinition,
    PlanDefinition,
    PriceDefinition,
    compile_catalogue,
    load_catalogue,
)
from engine.snapshot import encode_account
from tests.engine.bench import Bench

METERS = {"calls": MeterDefinition("call", "count")}
PRICES = {"calls": PriceDefinition("calls", "per_unit", amount="1")}


def test_a_plan_without_a_currency_is_refused() -> None:
    """There is no default currency to fall back on."""
    body = b'{"meters":{"calls":{"event_type":"call","aggregation":"count"}},"plans":{"p":{"prices":{}}}}'
    with pytest.raises(msgspec.ValidationError, match="currency"):
        load_catalogue(1, body)


@pytest.mark.parametrize("currency", ["", "$", "usd", "DOLLAR", "€€€", "US1"])
def test_a_currency_is_a_code_of_three_letters(currency: str) -> None:
    """Only an ISO 4217 code names a currency."""
    with pytest.raises(BadCatalogue, match="law M3"):
        compile_catalogue(1, CatalogueDocument(METERS, {"p": PlanDefinition(currency, PRICES)}))


def test_a_price_has_no_currency_of_its_own() -> None:
    """The plan alone names it, so no account can owe in two currencies."""
    assert "currency" not in PriceDefinition.__struct_fields__
    plans = {"eu": PlanDefinition("EUR", PRICES), "us": PlanDefinition("USD", PRICES)}
    compiled = compile_catalogue(1, CatalogueDocument(METERS, plans))
    assert {name: plan.currency for name, plan in compiled.plans.items()} == {"eu": "EUR", "us": "USD"}


def test_an_account_owes_in_the_currency_of_its_plan_alone() -> None:
    """Lots and caps in another currency are refused; lines and accounts name the plan's."""
    bench = Bench()
    bench.open("us")
    bench.open("eu", plan="calls")
    for account, own, other in (("us", "USD", "EUR"), ("eu", "EUR", "USD")):
        assert bench.account(account).currency == own
        assert bench.grant("l", "1", account=account, currency=other) == "refused.currency_mismatch"
        assert bench.cap("1", account=account, currency=other) == "refused.currency_mismatch"
        assert bench.grant("l", "1", account=account, currency=own) == "applied"
        assert bench.cap("1", account=account, currency=own) == "applied"
        bench.use(account=account, type="llm.request", data={"model": "m", "tokens": 1})
        assert f'"currency":"{own}"'.encode() in bench.partition.outputs.lines[-1][1]


@given(
    st.text(st.sampled_from("ADEGRSU"), min_size=3, max_size=4), st.sampled_from(("grant", "cap", "overdraft", "line"))
)
def test_no_amount_of_another_currency_ever_enters_an_account(currency: str, command: str) -> None:
    """Whatever the command and the currency: refused, and nothing of the account has changed."""
    bench = Bench()
    bench.open()
    said = {
        "grant": ("grant", {"lot": "l", "lot_kind": "paid", "amount": "1"}),
        "cap": ("set_cap", {"cap": "c", "amount": "1"}),
        "overdraft": ("set_overdraft", {"amount": "1"}),
        "line": ("adjust", {"line": "a", "amount": "1", "reason": "r", "by": "b"}),
    }
    before = encode_account(bench.account())
    kind, fields = said[command]
    outcome = bench.command(kind, **fields, currency=currency)
    assert (outcome == "refused.currency_mismatch") == (currency != "USD")
    assert (encode_account(bench.account()) == before) == (currency != "USD")
