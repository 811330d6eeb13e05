"""What a provider charges: exact, dated, banded, negotiated, and never guessed."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cost.price_sheet import (
    BadSheet,
    Discount,
    PriceSheet,
    Rate,
    SheetDocument,
    SheetModel,
    Terms,
    UpstreamCost,
    encode_sheet,
    parse_sheet,
)
from engine.events import parse_time
from engine.money import PICO

JUNE = parse_time("2026-06-01T00:00:00Z")
PRICES = {"input_text": Rate("3"), "input_cached": Rate("0.30"), "output_text": Rate("15")}
OPENAI = {
    "usage": {"prompt_tokens": 100_000, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 90_000}}
}
ANTHROPIC = {"usage": {"input_tokens": 10_000, "cache_read_input_tokens": 90_000, "output_tokens": 0}}


def sheet(*terms: Terms, discounts: tuple[Discount, ...] = (), aliases: tuple[str, ...] = ()) -> PriceSheet:
    return PriceSheet(SheetDocument("USD", (SheetModel("p", "m", terms, aliases),), discounts))


def chat(prompt: int, output: int = 0) -> dict[str, object]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": output}}


def cost(prices: PriceSheet, data: dict[str, object], at_us: int = JUNE) -> int | None:
    return prices.cost("m", data, at_us, shape="openai_chat").pico


def test_golden_both_shapes_cost_the_same() -> None:
    """$3 and $0.30 per million, 100,000 tokens of which 90,000 are cached."""
    prices = sheet(Terms(PRICES))
    assert prices.cost("m", OPENAI, JUNE, shape="openai_chat").pico == PICO * 57 // 1_000
    assert prices.cost("m", ANTHROPIC, JUNE, shape="anthropic").pico == PICO * 57 // 1_000


def test_one_rounding_of_the_whole_request() -> None:
    """Half a pico of input and half a pico of output are one, not two zeros."""
    prices = sheet(Terms({"input_text": Rate("0.000000000001", 2), "output_text": Rate("0.000000000001", 2)}))
    assert cost(prices, chat(1, 1)) == 1
    assert cost(prices, chat(1)) == 0  # a tie goes to the even neighbour
    assert cost(prices, chat(3)) == 2


def test_a_bucket_without_a_price_is_priced_with_the_one_around_it() -> None:
    assert sheet(Terms({"input_text": Rate("3")})).cost("m", OPENAI, JUNE, shape="openai_chat").pico == PICO * 3 // 10


def test_a_band_prices_all_of_a_request_and_begins_behind_its_bound() -> None:
    prices = sheet(Terms({"input_text": Rate("3")}), Terms({"input_text": Rate("6")}, above_input_tokens=200_000))
    assert cost(prices, chat(200_000)) == PICO * 6 // 10
    assert cost(prices, chat(200_001)) == 200_001 * 6 * PICO // 1_000_000


def test_terms_hold_from_their_instant_on_and_not_before() -> None:
    prices = sheet(
        Terms({"input_text": Rate("3")}, until="2026-07-01T00:00:00Z"),
        Terms({"input_text": Rate("2")}, since="2026-06-01T00:00:00Z"),
    )
    assert cost(prices, chat(1_000_000), JUNE - 1) == 3 * PICO
    assert cost(prices, chat(1_000_000), JUNE) == 2 * PICO
    late = sheet(Terms({"input_text": Rate("3")}, until="2026-06-01T00:00:00Z"))
    assert late.cost("m", chat(1), JUNE, shape="openai_chat").why == "p/m has no terms in force then"


def test_negotiated_terms_come_before_newer_listed_ones_and_know_no_discount() -> None:
    listed = Terms({"input_text": Rate("4")}, since="2026-05-01T00:00:00Z")
    agreed = Terms({"input_text": Rate("2")}, negotiated=True, until="2026-06-01T00:00:00Z")
    tenth = Discount("p", "10")
    assert cost(sheet(listed, agreed, discounts=(tenth,)), chat(1_000_000), JUNE - 1) == 2 * PICO
    assert cost(sheet(listed, agreed, discounts=(tenth,)), chat(1_000_000), JUNE) == PICO * 36 // 10
    assert cost(sheet(listed, agreed, discounts=(Discount("q", "10"),)), chat(1_000_000), JUNE) == 4 * PICO


def test_a_request_may_have_a_price_of_its_own() -> None:
    assert cost(sheet(Terms({"input_text": Rate("1"), "request": Rate("5", 1_000)})), chat(0)) == PICO * 5 // 1_000


@pytest.mark.parametrize(
    ("model", "provider", "why"),
    [
        ("x", None, "the sheet has no model x"),
        ("m", "q", "the sheet has no model m of q"),
    ],
)
def test_a_model_that_is_not_there_has_no_cost(model: str, provider: str | None, why: str) -> None:
    found = sheet(Terms(PRICES)).cost(model, OPENAI, JUNE, provider=provider, shape="openai_chat")
    assert found == UpstreamCost(None, why)


def test_what_is_not_known_is_never_a_number() -> None:
    output_only = sheet(Terms({"output_text": Rate("1")}))
    assert output_only.cost("m", chat(1), JUNE, shape="openai_chat").why == "p/m has no price for input_text"
    assert output_only.cost("m", {}, JUNE, shape="openai_chat").pico is None
    assert "must state its shape" in str(output_only.cost("m", chat(1), JUNE).why)
    assert cost(output_only, chat(0, 1_000_000)) == PICO


def test_names_aliases_and_the_longest_prefix() -> None:
    document = SheetDocument(
        "USD",
        (
            SheetModel("p", "m", (Terms(PRICES),), ("m-latest", "m-*")),
            SheetModel("p", "m-mini", (Terms(PRICES),), ("m-mini-*",)),
            SheetModel("q", "m-mini", (Terms(PRICES),)),
        ),
    )
    prices = PriceSheet(document)

    def named(model: str, provider: str | None = None) -> object:
        found = prices.find(model, provider)
        return found if isinstance(found, str) else (found.provider, found.model)

    assert named("m") == named("m-latest") == named("m-2026") == ("p", "m")
    assert named("m-mini-2026") == ("p", "m-mini")
    assert named("m-mini", "q") == ("q", "m-mini")
    assert named("m-mini") == "the sheet has m-mini of p, q: the usage must name its provider"
    assert named("n") == "the sheet has no model n"


def of_one(rate: dict[str, object], bucket: str = "input_text") -> dict[str, object]:
    return {"models": [{"provider": "p", "model": "m", "terms": [{"prices": {bucket: rate}}]}]}


def discount(**fields: object) -> dict[str, object]:
    return {"discounts": [{"provider": "p", "percent": "5"} | fields]}


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"currency": "usd"}, "three capital letters"),
        ({"models": [{"provider": "p", "model": "m", "terms": []}]}, "terms"),
        (of_one({"amount": "1"}, "tokens"), "no bucket"),
        (of_one({"amount": 1}), "amount"),
        (of_one({"amount": "-1"}), "negative"),
        (of_one({"amount": "1", "per": 0}), "per"),
        (discount(percent="101"), "at most 100"),
        (discount(**{"from": "yesterday"}), "discount of p"),
        (discount(**{"from": "2026-01-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}), "not behind"),
        ({"more": 1}, "more"),
    ],
)
def test_what_is_no_sheet(changed: dict[str, object], told: str) -> None:
    document: dict[str, object] = msgspec.to_builtins(SheetDocument("USD", (SheetModel("p", "m", (Terms(PRICES),)),)))
    with pytest.raises(BadSheet, match=told):
        parse_sheet(msgspec.json.encode(document | changed))


def test_two_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadSheet, match="two terms begin at one instant"):
        sheet(Terms(PRICES), Terms(PRICES))
    model = SheetModel("p", "m", (Terms(PRICES),))
    with pytest.raises(BadSheet, match="stands there twice"):
        PriceSheet(SheetDocument("USD", (model, model)))


def test_a_sheet_is_read_as_it_was_written() -> None:
    terms = (Terms(PRICES), Terms(PRICES, since="2026-06-01T00:00:00Z", negotiated=True))
    document = SheetDocument("USD", (SheetModel("p", "m", terms, ("m-*",), ("web_searches",)),), (Discount("p", "5"),))
    assert msgspec.json.decode(encode_sheet(document), type=SheetDocument) == document
    assert parse_sheet(encode_sheet(document)).cost("m", OPENAI, JUNE, shape="openai_chat").not_covered == (
        "web_searches",
    )


@given(st.integers(0, 10**6), st.integers(0, 10**6), st.integers(0, 10**6), st.integers(1, 10**6))
def test_the_cost_is_the_exact_sum_rounded_once(prompt: int, output: int, pico: int, per: int) -> None:
    amount = f"0.{pico:012d}"
    prices = sheet(Terms({"input_text": Rate(amount, per), "output_text": Rate(amount, 3)}))
    found = cost(prices, chat(prompt, output))
    assert found is not None
    # |found − exact| ≤ 1/2, without a fraction
    assert abs(found * per * 3 - (prompt * pico * 3 + output * pico * per)) * 2 <= per * 3
