"""Law R8: whatever its shape, a usage object is split into disjoint buckets that sum to what it states."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import BadCatalogue, CatalogueDocument, PlanDefinition, compile_catalogue
from engine.meters import BandDefinition, DimensionDefinition, MeterDefinition, TokenShapeDefinition
from tests.engine.bench import DOLLAR, START, Bench, per_unit
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r1_marginal import standing

PRICED = {
    "input_text": "3",
    "input_cached": "0.30",
    "input_cache_write": "3.75",
    "input_cache_write_1h": "6",
    "input_image": "4",
    "output_text": "15",
    "output_reasoning": "12",
}


def document(shapes: dict[str, TokenShapeDefinition], *left_out: str) -> CatalogueDocument:
    """Dollars per million tokens of each bucket; a long context is told apart by all of the input."""
    buckets = [bucket for bucket in PRICED if bucket not in left_out]
    meters = {
        f"{event_type}-{bucket}": MeterDefinition(event_type, "sum", f"tokens.{bucket}", ("context",))
        for event_type in shapes
        for bucket in buckets
    }
    prices = {
        f"{meter}-{context}": per_unit(PRICED[meter.rpartition("-")[2]], per, meter=meter, context=context)
        for meter in meters
        for context, per in (("short", "1000000"), ("long", "500000"))
    }
    context = DimensionDefinition("tokens.input", (BandDefinition("short", "200000"), BandDefinition("long")))
    return CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}, {"context": context}, shapes)


STATED = {"any": TokenShapeDefinition()}
COUNTS = st.integers(0, 3) | st.integers(0, 150_000)


@st.composite
def usages(draw: st.DrawFn) -> tuple[str, dict[str, Any], dict[str, int]]:
    """(shape, usage object, how many tokens of each bucket are in it), from the buckets outwards."""
    tokens = {bucket: draw(COUNTS) for bucket in PRICED}
    shape = draw(st.sampled_from(["openai_chat", "openai_responses", "anthropic", "vllm"]))
    if shape != "anthropic":
        tokens["input_cache_write_1h"] = 0
    if shape not in ("openai_chat", "vllm"):
        tokens["input_image"] = 0
    if shape == "anthropic":
        tokens["output_reasoning"] = 0
    whole_in = sum(count for bucket, count in tokens.items() if bucket.startswith("input"))
    whole_out = tokens["output_text"] + tokens["output_reasoning"]
    reasoning = {"reasoning_tokens": tokens["output_reasoning"]}
    details: dict[str, Any]
    if shape == "openai_chat":
        details = {
            "cached_tokens": tokens["input_cached"],
            "cache_write_tokens": tokens["input_cache_write"],
            "image_tokens": tokens["input_image"],
        }
        usage = {
            "prompt_tokens": whole_in, "completion_tokens": whole_out, "total_tokens": whole_in + whole_out,
            "prompt_tokens_details": details, "completion_tokens_details": reasoning,
        }  # fmt: skip
    elif shape == "vllm":
        details = {
            "cached_tokens": tokens["input_cached"],
            "created_cache_tokens": tokens["input_cache_write"],
            "multimodal_tokens": {"image": tokens["input_image"]},
        }
        usage = {
            "prompt_tokens": whole_in, "completion_tokens": whole_out, "total_tokens": whole_in + whole_out,
            "prompt_tokens_details": details, "completion_tokens_details": reasoning,
        }  # fmt: skip
    elif shape == "openai_responses":
        half_hour = draw(st.integers(0, tokens["input_cache_write"]))
        details = {
            "cached_tokens": tokens["input_cached"],
            "cache_write_tokens": tokens["input_cache_write"],
            "cache_write_tokens_details": {"ttl_30m_tokens": half_hour},
        }
        usage = {
            "input_tokens": whole_in, "output_tokens": whole_out, "total_tokens": whole_in + whole_out,
            "input_tokens_details": details, "output_tokens_details": reasoning,
        }  # fmt: skip
    else:
        lifetimes = {
            "ephemeral_5m_input_tokens": tokens["input_cache_write"],
            "ephemeral_1h_input_tokens": tokens["input_cache_write_1h"],
        }
        usage = {
            "input_tokens": tokens["input_text"], "output_tokens": whole_out,
            "cache_read_input_tokens": tokens["input_cached"],
            "cache_creation_input_tokens": sum(lifetimes.values()), "cache_creation": lifetimes,
        }  # fmt: skip
    return shape, usage, tokens


def used(bench: Bench) -> dict[str, int]:
    """Whole tokens per bucket, of all bands."""
    found: dict[str, int] = {}
    for row in bench.account().table.values():
        for (price, _), nano in row.items():
            bucket = price.split("-")[1]
            found[bucket] = found.get(bucket, 0) + nano // 10**9
    return found


@settings(max_examples=80)
@given(st.lists(usages(), min_size=1, max_size=4), st.randoms(use_true_random=False))
def test_the_buckets_are_what_went_into_the_object_in_any_order_and_once(
    sent: list[tuple[str, dict[str, Any], dict[str, int]]], source: random.Random
) -> None:
    """Built from the buckets outwards, each shape is taken apart into the same buckets; the oracle says the same."""
    order = list(range(len(sent)))
    again = order * 2
    source.shuffle(again)
    benches = []
    for numbers in (order, again):
        bench = Bench(document(STATED))
        bench.open()
        for number in numbers:
            shape, usage, _ = sent[number]
            outcome = bench.use(type="any", data={"usage_shape": shape, "usage": usage}, id=str(number), at=START)
            assert outcome in ("rated", "duplicate")
        benches.append(bench)
    assert used(benches[0]) == {bucket: sum(tokens[bucket] for _, _, tokens in sent) for bucket in PRICED}
    assert standing(benches[0]) == standing(benches[1])
    assert_the_same(benches[1], oracle_of(benches[1]), "shapes")


@settings(max_examples=80)
@given(usages(), st.sets(st.sampled_from(sorted(PRICED))), st.data())
def test_what_is_broken_is_set_aside_by_engine_and_oracle_alike(
    sent: tuple[str, dict[str, Any], dict[str, int]], left_out: set[str], data: st.DataObject
) -> None:
    """One number of the object changed at random, and buckets that nobody reads: no bucket is ever negative."""
    shape, usage, _ = sent
    usage = json.loads(json.dumps(usage))
    place = usage
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict):
            place[key] = data.draw(st.integers(-5, 300_000) | st.sampled_from([None, "7", "x", []]))
            break
        place = place[key]
    bench = Bench(document(STATED, *(left_out - {"input_text"})))
    bench.open()
    outcome = bench.use(type="any", data={"usage_shape": shape, "usage": usage})
    assert outcome in ("rated", "dead_lettered.bad_usage")
    assert all(nano >= 0 for row in bench.account().table.values() for nano in row.values())
    if outcome != "rated":
        assert bench.account().table == {}
    assert_the_same(bench, oracle_of(bench), "broken")


GOLDEN = [
    (
        "openai_chat",
        {"prompt_tokens": 100_000, "completion_tokens": 0, "prompt_tokens_details": {"cached_tokens": 90_000}},
    ),
    (
        "openai_responses",
        {"input_tokens": 100_000, "output_tokens": 0, "input_tokens_details": {"cached_tokens": 90_000}},
    ),
    ("anthropic", {"input_tokens": 10_000, "output_tokens": 0, "cache_read_input_tokens": 90_000}),
    ("vllm", {"prompt_tokens": 100_000, "total_tokens": 100_000, "prompt_tokens_details": {"cached_tokens": 90_000}}),
]


@pytest.mark.parametrize(("shape", "usage"), GOLDEN)
def test_ten_thousand_fresh_and_ninety_thousand_cached_cost_the_same_in_every_shape(
    shape: str, usage: dict[str, Any]
) -> None:
    """$3 and $0.30 per million: $0.057."""
    bench = Bench(document({"any": TokenShapeDefinition(shape)}))  # type: ignore[arg-type]
    bench.open()
    assert bench.use(type="any", data={"usage": usage}) == "rated"
    assert sum(bench.charges()) == 57 * DOLLAR // 1000


@pytest.mark.parametrize(("shape", "usage"), GOLDEN)
def test_what_the_data_calls_a_bucket_is_none(shape: str, usage: dict[str, Any]) -> None:
    """What is priced comes of the usage object, whose numbers were held against each other, and of nothing beside it."""
    bench = Bench(document({"any": TokenShapeDefinition(shape)}))  # type: ignore[arg-type]
    bench.open()
    names = [*PRICED, "input", "output"]
    beside = {f"tokens.{name}": 0 for name in names} | {"tokens": dict.fromkeys(names, 7)}
    assert bench.use(type="any", data={"usage": usage} | beside) == "rated"
    assert sum(bench.charges()) == 57 * DOLLAR // 1000
    assert_the_same(bench, oracle_of(bench), "beside")


def test_an_estimate_is_priced_like_any_other_and_told_as_one() -> None:
    """Measured is not said; estimated is, on every line. Free tags go along."""
    bench = Bench(document(STATED))
    bench.open()
    usage = {"input_tokens": 5, "output_tokens": 1}
    for more in ({}, {"usage_basis": "estimated", "tags": {"team": "red"}}, {"tags": ["red"]}):
        assert bench.use(type="any", data={"usage_shape": "anthropic", "usage": usage} | more) == "rated"
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines]
    assert {line["offset"]: (line.get("usage_basis"), line.get("tags")) for line in lines} == {
        2: (None, None), 3: ("estimated", {"team": "red"}), 4: (None, None),
    }  # fmt: skip
    assert bench.use(data={"usage_basis": "guessed", "units": 1}, type="any") == "dead_lettered.bad_usage"
    assert "data.usage_basis guessed is neither measured nor estimated" in bench.letter().detail
    assert_the_same(bench, oracle_of(bench), "estimated")


@pytest.mark.parametrize(
    ("field", "paths"),
    [("tokens.input_txt", ["meters.m"]), ("units", ["token_shapes.any"]), ("tokens", ["meters.m"])],
)
def test_a_shape_that_nobody_reads_or_a_bucket_that_is_none_is_refused(field: str, paths: list[str]) -> None:
    """Where a meter would wait for tokens that never come, publication says so."""
    meters = {"m": MeterDefinition("any", "sum", field)}
    plans = {"plan": PlanDefinition("USD", {"m": per_unit("1", meter="m")})}
    with pytest.raises(BadCatalogue) as caught:
        compile_catalogue(1, CatalogueDocument(meters, plans, token_shapes=STATED))
    assert [".".join(map(str, fault.path)) for fault in caught.value.faults] == paths


def test_a_measured_amend_replaces_an_estimate() -> None:
    """The true-up takes the estimate back and adds what was measured; the lines say which is which."""
    bench = Bench(document(STATED))
    bench.open()
    estimate = {
        "usage_shape": "anthropic",
        "usage": {"input_tokens": 500, "output_tokens": 9},
        "usage_basis": "estimated",
    }
    measured = {"usage_shape": "anthropic", "usage": {"input_tokens": 450, "output_tokens": 10}}
    original, amended = (bench.event(type="any", id="r", data=data) for data in (estimate, measured))
    assert bench.record(b"acme", original) == "rated"
    assert bench.correct(original, amended) == "amended"
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines]
    by_basis: dict[str, int] = {}
    for line in lines:
        if line["price"] == "any-input_text-short":
            basis = line.get("usage_basis", "measured")
            by_basis[basis] = by_basis.get(basis, 0) + int(line["quantity"])
    assert by_basis == {"estimated": 0, "measured": 450}
    assert used(bench) == dict.fromkeys(PRICED, 0) | {"input_text": 450, "output_text": 10}
    assert_the_same(bench, oracle_of(bench), "true-up")
