"""The public sheets of others, as they are written, to the last digit."""

import msgspec
import pytest

from engine.cost.foreign_sheets import from_genai_prices, from_litellm
from engine.cost.price_sheet import BadSheet, PriceSheet, Rate, SheetModel, Terms
from engine.events import parse_time
from engine.money import PICO

LITELLM = b"""{
 "sample_spec": {"input_cost_per_token": 0.0, "litellm_provider": "one of the providers"},
 "gpt-5.6-sol": {"litellm_provider": "openai", "mode": "chat", "max_tokens": 1000,
  "input_cost_per_token": 5e-06, "input_cost_per_token_priority": 1e-05, "input_cost_per_token_batches": 2.5e-06,
  "output_cost_per_token": 3e-05, "cache_read_input_token_cost": 5e-07,
  "input_cost_per_token_above_272k_tokens": 1e-05, "output_cost_per_token_above_272k_tokens": 4.5e-05,
  "search_context_cost_per_query": {"search_context_size_low": 0.01}},
 "openai/same": {"litellm_provider": "openai", "input_cost_per_token": 7.5e-08, "output_cost_per_token": 0},
 "image-only": {"litellm_provider": "openai", "output_cost_per_image": 0.04},
 "no-provider": {"input_cost_per_token": 1e-06},
 "noise": {"litellm_provider": "openai", "input_cost_per_token": 1.00000000000000000002e-06},
 "text": {"litellm_provider": "openai", "input_cost_per_token": "1e-06"},
 "other": {"litellm_provider": "xai", "input_cost_per_token": 2e-06}
}"""
GENAI = b"""[
 {"id": "anthropic", "name": "Anthropic", "models": [
  {"id": "claude-opus-4-6", "match": {"or": [{"starts_with": "claude-opus-4-6"}, {"equals": "opus"}, {"contains": "x"}]},
   "prices": [
    {"prices": {"input_mtok": {"base": 5, "tiers": [{"start": 200000, "price": 10}]}, "cache_write_mtok": 6.25,
                "output_mtok": {"base": 25, "tiers": [{"start": 200000, "price": 37.5}]}}},
    {"constraint": {"start_date": "2026-03-13"}, "prices": {"input_mtok": 5, "cache_write_mtok": 6.25, "output_mtok": 25,
                                                            "web_searches_kcount": 10}}]},
  {"id": "hours", "match": {"equals": "hours"}, "prices": [
    {"prices": {"input_mtok": 1}},
    {"constraint": {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}, "prices": {"input_mtok": 2}}]},
  {"id": "free", "match": {"equals": "free"}, "prices": {"input_mtok": 0, "output_mtok": 0}},
  {"id": "none", "match": {"equals": "none"}, "prices": {}}]},
 {"id": "aws", "models": [{"id": "nova", "match": {"contains": "nova"}, "prices": {"input_mtok": 0.06,
                                                                                  "requests_kcount": 12}}]}
]"""


def chat(prompt: int, output: int = 0) -> dict[str, object]:
    return {"usage": {"prompt_tokens": prompt, "completion_tokens": output}}


def test_litellm() -> None:
    imported = from_litellm(LITELLM, ["openai"])
    assert imported.document.models == (
        SheetModel(
            "openai",
            "gpt-5.6-sol",
            (
                Terms({"input_text": Rate("5"), "output_text": Rate("30"), "input_cached": Rate("0.500000000000")}),
                Terms(
                    {"input_text": Rate("10"), "output_text": Rate("45"), "input_cached": Rate("0.500000000000")},
                    above_input_tokens=272_000,
                ),
            ),
            not_covered=("search_context_cost_per_query",),
        ),
        SheetModel(
            "openai",
            "same",
            (Terms({"input_text": Rate("0.075000000000"), "output_text": Rate("0")}),),
            aliases=("openai/same",),
        ),
    )
    assert dict(imported.left_out) == {
        "image-only": "it has no price of tokens or requests",
        "noise": "input_cost_per_token: 0.00000100000000000000000002 has more digits than an amount",
        "text": "input_cost_per_token is no number",
    }


def test_without_providers_all_are_taken() -> None:
    imported = from_litellm(LITELLM)
    assert {model.provider for model in imported.document.models} == {"openai", "xai"}
    assert dict(imported.left_out)["no-provider"] == "it names no provider"


def test_genai_prices() -> None:
    imported = from_genai_prices(GENAI)
    names = [(model.provider, model.model) for model in imported.document.models]
    assert names == [("anthropic", "claude-opus-4-6"), ("anthropic", "free"), ("aws", "nova")]
    assert dict(imported.left_out) == {
        "anthropic/hours": "a price of it holds at hours of the day only",
        "anthropic/none": "it has no price of tokens or requests",
    }
    opus = imported.document.models[0]
    assert opus.aliases == ("claude-opus-4-6*", "opus")
    assert opus.not_covered == ("web_searches_kcount",)


def test_what_is_imported_costs_what_its_makers_say() -> None:
    """Bands of theirs are cliffs above their start, and a price holds from midnight UTC of its date on."""
    prices = PriceSheet(from_genai_prices(GENAI).document)
    before, since = parse_time("2026-03-12T23:59:59.999999Z"), parse_time("2026-03-13T00:00:00Z")

    def cost(model: str, data: dict[str, object], at_us: int) -> int | None:
        return prices.cost(model, data, at_us, shape="openai_chat").pico

    assert cost("claude-opus-4-6-20260205", chat(200_000, 1_000), before) == PICO * 1_025 // 1_000
    assert cost("opus", chat(200_001, 1_000), before) == 200_001 * 10 * PICO // 1_000_000 + PICO * 375 // 10_000
    assert cost("opus", chat(200_001, 1_000), since) == 200_001 * 5 * PICO // 1_000_000 + PICO * 25 // 1_000
    assert cost("free", chat(5, 5), since) == 0
    assert cost("nova", chat(1_000_000), since) == PICO * 72 // 1_000


def test_the_newer_form_with_providers_inside_is_read_too() -> None:
    inside = msgspec.json.encode({"providers": msgspec.json.decode(GENAI)})
    assert len(from_genai_prices(inside).document.models) == 3


@pytest.mark.parametrize("body", [b"[]x", b"{", b"3", b'[{"name": "x"}]'])
def test_what_is_no_sheet_of_genai_prices(body: bytes) -> None:
    with pytest.raises(BadSheet):
        from_genai_prices(body)


@pytest.mark.parametrize("body", [b"[]", b'{"a": 1}', b"{"])
def test_what_is_no_sheet_of_litellm(body: bytes) -> None:
    with pytest.raises(BadSheet):
        from_litellm(body)
