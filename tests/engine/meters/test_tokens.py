"""Token shapes: which bucket each number of a usage object lands in, and which objects contradict themselves."""

from typing import Any

import pytest

from engine.meters.tokens import BUCKETS, SHAPES, BadUsage, TokenUsage, is_estimated

ALL = frozenset(BUCKETS)

# The recorded form of each provider, and what is in it.
CHAT = {
    "prompt_tokens": 1000,
    "completion_tokens": 300,
    "total_tokens": 1300,
    "prompt_tokens_details": {
        "cached_tokens": 600,
        "cache_write_tokens": 100,
        "audio_tokens": 50,
        "image_tokens": None,
    },
    "completion_tokens_details": {
        "reasoning_tokens": 120,
        "audio_tokens": 30,
        "accepted_prediction_tokens": 10,
        "rejected_prediction_tokens": 20,
    },
}
RESPONSES = {
    "input_tokens": 1000,
    "input_tokens_details": {
        "cached_tokens": 600,
        "cache_write_tokens": 100,
        "cache_write_tokens_details": {"ttl_30m_tokens": 70, "ttl_12h_tokens": 20},
    },
    "output_tokens": 300,
    "output_tokens_details": {"reasoning_tokens": 120},
    "total_tokens": 1300,
}
ANTHROPIC = {
    "input_tokens": 300,
    "cache_read_input_tokens": 600,
    "cache_creation_input_tokens": 100,
    "cache_creation": {"ephemeral_5m_input_tokens": 60, "ephemeral_1h_input_tokens": 40},
    "output_tokens": 300,
    "service_tier": "standard",
}
VLLM = {
    "prompt_tokens": 100,
    "total_tokens": 120,
    "completion_tokens": 20,
    "prompt_tokens_details": {"cached_tokens": 60, "created_cache_tokens": None, "multimodal_tokens": None},
    "completion_tokens_details": {"reasoning_tokens": 5},
}


def buckets(shape: str | None, usage: Any, split: frozenset[str] = ALL, **data: Any) -> dict[str, Any]:
    """Those that are not zero."""
    found = TokenUsage(shape, "usage", split).normalised({"usage": usage} | data)["tokens"]
    return {name: tokens for name, tokens in found.items() if tokens}


@pytest.mark.parametrize(
    ("shape", "usage", "found"),
    [
        (
            "openai_chat",
            CHAT,
            {
                "input": 1000, "input_text": 250, "input_cached": 600, "input_cache_write": 100, "input_audio": 50,
                "output": 300, "output_text": 130, "output_reasoning": 120, "output_audio": 30, "output_rejected": 20,
            },
        ),
        (
            "openai_responses",
            RESPONSES,
            {
                "input": 1000, "input_text": 300, "input_cached": 600, "input_cache_write": 10,
                "input_cache_write_30m": 70, "input_cache_write_12h": 20,
                "output": 300, "output_text": 180, "output_reasoning": 120,
            },
        ),
        (
            "anthropic",
            ANTHROPIC,
            {
                "input": 1000, "input_text": 300, "input_cached": 600,
                "input_cache_write_5m": 60, "input_cache_write_1h": 40, "output": 300, "output_text": 300,
            },
        ),
        (
            "vllm",
            VLLM,
            {
                "input": 100, "input_text": 40, "input_cached": 60,
                "output": 20, "output_text": 15, "output_reasoning": 5,
            },
        ),
    ],
)  # fmt: skip
def test_every_token_lands_in_one_bucket(shape: str, usage: dict[str, Any], found: dict[str, int]) -> None:
    assert buckets(shape, usage) == found
    for side in ("input", "output"):
        assert found[side] == sum(tokens for name, tokens in found.items() if name.startswith(f"{side}_"))


@pytest.mark.parametrize("shape", SHAPES)
def test_details_that_are_missing_make_no_negative_bucket(shape: str) -> None:
    chat = shape in ("openai_chat", "vllm")
    usage = {"prompt_tokens" if chat else "input_tokens": 7, "completion_tokens" if chat else "output_tokens": "3"}
    assert buckets(shape, usage) == {"input": 7, "input_text": 7, "output": 3, "output_text": 3}


def test_a_bucket_that_no_meter_reads_stays_where_it_belongs() -> None:
    assert buckets("openai_chat", CHAT, frozenset(["input_cached"])) == {
        "input": 1000, "input_text": 400, "input_cached": 600, "output": 300, "output_text": 300,
    }  # fmt: skip
    one_hour = buckets("anthropic", ANTHROPIC, frozenset(["input_cache_write", "input_cache_write_1h"]))
    assert (one_hour["input_cache_write"], one_hour["input_cache_write_1h"]) == (60, 40)
    assert buckets("anthropic", ANTHROPIC, frozenset()) == {
        "input": 1000, "input_text": 1000, "output": 300, "output_text": 300,
    }  # fmt: skip


def test_embeddings_have_no_output_if_the_total_says_so() -> None:
    found = {"input": 9, "input_text": 9}
    assert buckets("vllm", {"prompt_tokens": 9, "total_tokens": 9}) == found
    assert buckets("vllm", {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": None}) == found


def test_the_writes_of_the_cache_may_be_stated_by_lifetime_alone() -> None:
    usage = {"input_tokens": 5, "output_tokens": 1, "cache_creation": {"ephemeral_1h_input_tokens": 4}}
    assert buckets("anthropic", usage)["input_cache_write_1h"] == 4
    assert buckets("anthropic", usage)["input"] == 9


def test_of_a_stream_the_last_usage_counts_and_never_the_sum() -> None:
    chunks: list[Any] = [{"prompt_tokens": 9, "completion_tokens": count} for count in (1, 2, 3)]
    assert buckets("vllm", chunks)["output"] == 3
    assert buckets("vllm", [*chunks[:2], None])["output"] == 2  # cut after the second chunk


def test_the_event_may_state_its_shape() -> None:
    assert buckets(None, ANTHROPIC, usage_shape="anthropic") == buckets("anthropic", ANTHROPIC)
    assert buckets("vllm", VLLM, usage_shape="vllm") == buckets("vllm", VLLM)


@pytest.mark.parametrize(
    ("shape", "usage", "data", "told"),
    [
        (None, CHAT, {}, "data.usage_shape is missing"),
        (None, CHAT, {"usage_shape": "cohere"}, "cohere is no shape"),
        (None, CHAT, {"usage_shape": ["vllm"]}, "is no shape"),
        ("vllm", VLLM, {"usage_shape": "anthropic"}, "is anthropic, where the catalogue says vllm"),
        ("vllm", None, {}, "data.usage is no usage object"),
        ("vllm", [], {}, "data.usage is no usage object"),
        ("vllm", [None], {}, "data.usage is no usage object"),
        ("vllm", "100", {}, "data.usage is no usage object"),
        ("vllm", VLLM | {"prompt_tokens": None}, {}, "data.usage.prompt_tokens is missing"),
        ("vllm", {"prompt_tokens": 5}, {}, "completion_tokens is missing"),
        ("vllm", {"prompt_tokens": 5, "total_tokens": 6}, {}, "completion_tokens is missing"),
        ("vllm", VLLM | {"total_tokens": 121}, {}, "total_tokens is 121, and prompt_tokens + completion_tokens is 120"),
        ("vllm", VLLM | {"prompt_tokens": -100}, {}, "prompt_tokens: -100 is negative"),
        ("vllm", VLLM | {"prompt_tokens": "many"}, {}, "data.usage.prompt_tokens: 'many'"),
        ("vllm", VLLM | {"prompt_tokens_details": {"cached_tokens": 101}}, {}, "parts of the input come to 101"),
        ("vllm", VLLM | {"prompt_tokens_details": {"cached_tokens": -1}}, {}, "cached_tokens: -1 is negative"),
        ("vllm", VLLM | {"completion_tokens_details": {"reasoning_tokens": 21}}, {}, "parts of the output come to 21"),
        ("anthropic", ANTHROPIC | {"cache_creation_input_tokens": 99}, {}, "is 99, less than the 100"),
        ("anthropic", ANTHROPIC | {"cache_creation_input_tokens": 0}, {}, "is 0, less than the 100"),
    ],
)
def test_what_contradicts_itself_is_not_guessed_at(shape: str, usage: Any, data: dict[str, Any], told: str) -> None:
    with pytest.raises(BadUsage) as caught:
        buckets(shape, usage, **data)
    assert told in str(caught.value)


def test_an_event_says_whether_its_usage_was_measured() -> None:
    assert [is_estimated(data) for data in ({}, {"usage_basis": None}, {"usage_basis": "measured"})] == [False] * 3
    assert is_estimated({"usage_basis": "estimated"})
    for basis in ("guessed", 1, True, ["estimated"]):
        with pytest.raises(BadUsage, match=r"data\.usage_basis"):
            is_estimated({"usage_basis": basis})
