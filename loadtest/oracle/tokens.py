"""What a usage object says, as disjoint buckets of tokens: shape by shape, written out."""

from collections.abc import Mapping
from typing import Any

from loadtest.oracle.expressions import field_of
from loadtest.oracle.records import DeadLetterError, Number, fixed_point

SHAPES = ("openai_chat", "openai_responses", "anthropic", "vllm")


def with_tokens(data: Mapping[str, Any], body: Mapping[str, Any], read: set[str]) -> dict[str, Any]:
    """The data with its buckets by their paths, as numbers, whatever it says itself there. `read`: the buckets that some
    meter reads."""
    stated = field_of(data, "usage_shape")
    shape = body.get("shape", stated)
    if not isinstance(shape, str) or shape not in SHAPES or stated not in (None, shape):
        raise DeadLetterError("bad_usage")
    usage = field_of(data, body.get("object", "usage"))
    if isinstance(usage, list):
        told = [chunk for chunk in usage if chunk is not None]
        usage = told[-1] if told else None
    if not isinstance(usage, dict):
        raise DeadLetterError("bad_usage")
    buckets = _buckets(shape, usage, read)
    numbers = {name: Number(f"{nano // 10**9}.{nano % 10**9:09d}") for name, nano in buckets.items()}
    return {**data, **{f"tokens.{name}": number for name, number in numbers.items()}}


def _buckets(shape: str, usage: Mapping[str, Any], read: set[str]) -> dict[str, int]:
    def stated(path: str) -> int | None:
        value = field_of(usage, path)
        if value is None:
            return None
        number = fixed_point(value, 9) if isinstance(value, str) else None
        if number is None or number < 0:
            raise DeadLetterError("bad_usage")
        return number

    def of(path: str) -> int:
        return stated(path) or 0

    chat = shape in ("openai_chat", "vllm")
    whole_in = stated("prompt_tokens" if chat else "input_tokens")
    whole_out = stated("completion_tokens" if chat else "output_tokens")
    total = None if shape == "anthropic" else stated("total_tokens")
    if whole_in is None or (whole_out is None and total != whole_in):
        raise DeadLetterError("bad_usage")
    whole_out = whole_out or 0
    if total is not None and total != whole_in + whole_out:
        raise DeadLetterError("bad_usage")

    found: dict[str, int] = {}
    written: int | None = None  # to the cache, whatever for how long
    if shape == "openai_chat":
        found["input_cached"] = of("prompt_tokens_details.cached_tokens")
        found["input_audio"] = of("prompt_tokens_details.audio_tokens")
        found["input_image"] = of("prompt_tokens_details.image_tokens")
        found["output_reasoning"] = of("completion_tokens_details.reasoning_tokens")
        found["output_audio"] = of("completion_tokens_details.audio_tokens")
        found["output_rejected"] = of("completion_tokens_details.rejected_prediction_tokens")
        written = stated("prompt_tokens_details.cache_write_tokens")
    elif shape == "vllm":
        found["input_cached"] = of("prompt_tokens_details.cached_tokens")
        found["input_audio"] = of("prompt_tokens_details.multimodal_tokens.audio")
        found["input_image"] = of("prompt_tokens_details.multimodal_tokens.image")
        found["input_video"] = of("prompt_tokens_details.multimodal_tokens.video")
        found["output_reasoning"] = of("completion_tokens_details.reasoning_tokens")
        written = stated("prompt_tokens_details.created_cache_tokens")
    elif shape == "openai_responses":
        found["input_cached"] = of("input_tokens_details.cached_tokens")
        found["output_reasoning"] = of("output_tokens_details.reasoning_tokens")
        found["input_cache_write_30m"] = of("input_tokens_details.cache_write_tokens_details.ttl_30m_tokens")
        found["input_cache_write_12h"] = of("input_tokens_details.cache_write_tokens_details.ttl_12h_tokens")
        written = stated("input_tokens_details.cache_write_tokens")
    else:
        found["input_cached"] = of("cache_read_input_tokens")
        found["input_cache_write_5m"] = of("cache_creation.ephemeral_5m_input_tokens")
        found["input_cache_write_1h"] = of("cache_creation.ephemeral_1h_input_tokens")
        written = stated("cache_creation_input_tokens")
    lasting = sum(tokens for name, tokens in found.items() if name.startswith("input_cache_write_"))
    if written is not None and written < lasting:
        raise DeadLetterError("bad_usage")
    found["input_cache_write"] = 0 if written is None else written - lasting
    if shape == "anthropic":  # its input leaves out what the cache gave and took
        whole_in += found["input_cached"] + found["input_cache_write"] + lasting

    # What nobody asks for by name stays with what it is part of.
    for name in list(found):
        if name.startswith("input_cache_write_") and name not in read:
            found["input_cache_write"] += found.pop(name)
    buckets = {name: tokens for name, tokens in found.items() if name in read}
    buckets["input_text"] = whole_in - sum(tokens for name, tokens in buckets.items() if name.startswith("input_"))
    buckets["output_text"] = whole_out - sum(tokens for name, tokens in buckets.items() if name.startswith("output_"))
    if min(buckets.values()) < 0:
        raise DeadLetterError("bad_usage")
    absent = {name: 0 for name in read if name not in buckets}
    return absent | buckets | {"input": whole_in, "output": whole_out}
