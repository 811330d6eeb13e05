"""Token shapes: what a provider's usage object says, as disjoint buckets of tokens (law R8).

A shape is declared, by the catalogue for an event type or by the event itself, and never guessed. Its buckets do not
overlap: `input_text` and `output_text` are what no other bucket of their side takes. A bucket that no meter reads is not
split off: its tokens stay with the bucket it is part of, so that nothing is free because nobody thought of it.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Final, Literal

from msgspec import Struct

from engine.meters.fields import value_at
from engine.money import NANO, NotADecimal, parse_quantity, quantity_text

TOKENS: Final = "tokens"  # what the buckets are found under, as in `tokens.input_cached`
DECLARED_BY: Final = "usage_shape"  # the field of `data` in which an event states its shape
BASIS: Final = "usage_basis"  # the field of `data` in which an event says whether its usage was measured
MEASURED: Final = "measured"
ESTIMATED: Final = "estimated"

ShapeName = Literal["openai_chat", "openai_responses", "anthropic", "vllm"]


class BadUsage(ValueError):
    """The usage object is missing, has no known shape, or its numbers contradict each other."""


PART_OF: Final = {
    "input_cached": "input_text",
    "input_cache_write": "input_text",
    "input_cache_write_5m": "input_cache_write",
    "input_cache_write_30m": "input_cache_write",
    "input_cache_write_1h": "input_cache_write",
    "input_cache_write_12h": "input_cache_write",
    "input_audio": "input_text",
    "input_image": "input_text",
    "input_video": "input_text",
    "output_reasoning": "output_text",
    "output_audio": "output_text",
    "output_rejected": "output_text",  # predicted tokens that were not taken; they are billed
}  # parts before the whole they may be part of: innermost last
BUCKETS: Final = (*dict.fromkeys(PART_OF.values()), *PART_OF)
SIDES: Final = ("input", "output")  # the whole of each side, stated or summed up
_PATHS: Final = {name: f"{TOKENS}.{name}" for name in (*BUCKETS, *SIDES)}


class _Shape(Struct, frozen=True):
    """Paths within the usage object. `inside`: what the side's total includes; `beside`: what it leaves out."""

    input: str
    output: str
    total: str | None
    inside: dict[str, str]
    beside: dict[str, str]


_CHAT: Final = {
    "input_cached": "prompt_tokens_details.cached_tokens",
    "input_cache_write": "prompt_tokens_details.cache_write_tokens",
    "input_audio": "prompt_tokens_details.audio_tokens",
    "input_image": "prompt_tokens_details.image_tokens",
    "output_reasoning": "completion_tokens_details.reasoning_tokens",
    "output_audio": "completion_tokens_details.audio_tokens",
    "output_rejected": "completion_tokens_details.rejected_prediction_tokens",
}
_RESPONSES: Final = {
    "input_cached": "input_tokens_details.cached_tokens",
    "input_cache_write": "input_tokens_details.cache_write_tokens",
    "input_cache_write_30m": "input_tokens_details.cache_write_tokens_details.ttl_30m_tokens",
    "input_cache_write_12h": "input_tokens_details.cache_write_tokens_details.ttl_12h_tokens",
    "output_reasoning": "output_tokens_details.reasoning_tokens",
}
_VLLM: Final = {
    "input_cached": "prompt_tokens_details.cached_tokens",
    "input_cache_write": "prompt_tokens_details.created_cache_tokens",
    "input_audio": "prompt_tokens_details.multimodal_tokens.audio",
    "input_image": "prompt_tokens_details.multimodal_tokens.image",
    "input_video": "prompt_tokens_details.multimodal_tokens.video",
    "output_reasoning": "completion_tokens_details.reasoning_tokens",
}
_ANTHROPIC: Final = {
    "input_cached": "cache_read_input_tokens",
    "input_cache_write": "cache_creation_input_tokens",
    "input_cache_write_5m": "cache_creation.ephemeral_5m_input_tokens",
    "input_cache_write_1h": "cache_creation.ephemeral_1h_input_tokens",
}
SHAPES: Final[dict[str, _Shape]] = {
    "openai_chat": _Shape("prompt_tokens", "completion_tokens", "total_tokens", _CHAT, {}),
    "openai_responses": _Shape("input_tokens", "output_tokens", "total_tokens", _RESPONSES, {}),
    "anthropic": _Shape("input_tokens", "output_tokens", None, {}, _ANTHROPIC),
    "vllm": _Shape("prompt_tokens", "completion_tokens", "total_tokens", _VLLM, {}),
}


class TokenUsage(Struct, frozen=True):
    """How the events of one type say what they used. `split`: the buckets that some meter reads."""

    shape: str | None  # None: each event states it
    object: str  # path of the usage object
    split: frozenset[str]

    def normalised(self, data: dict[str, Any]) -> dict[str, Any]:
        """The event's data with its buckets under `tokens`, and each by its path, so that no field of that name is read in
        its place. Raises BadUsage."""
        buckets = self._buckets(self._shape(data), self._usage(data))
        return {**data, **{_PATHS[name]: tokens for name, tokens in buckets.items()}, TOKENS: buckets}

    def _shape(self, data: Mapping[str, Any]) -> _Shape:
        stated = value_at(data, DECLARED_BY)
        name = self.shape if stated is None else stated
        if name is None:
            raise BadUsage(f"data.{DECLARED_BY} is missing: the event must state its shape, {_any_of(SHAPES)}")
        if type(name) is not str or name not in SHAPES:
            raise BadUsage(f"data.{DECLARED_BY} {name!s:.40} is no shape; there are {_any_of(SHAPES)}")
        if self.shape not in (None, name):
            raise BadUsage(f"data.{DECLARED_BY} is {name}, where the catalogue says {self.shape}")
        return SHAPES[name]

    def _usage(self, data: Mapping[str, Any]) -> Mapping[str, Any]:
        found = value_at(data, self.object)
        if type(found) is list:
            # Of a stream: each chunk's usage includes those before it, so the last one counts, and never their sum.
            found = next((each for each in reversed(found) if each is not None), None)
        if type(found) is not dict:
            raise BadUsage(f"data.{self.object} is no usage object")
        return found

    def _tokens(self, usage: Mapping[str, Any], path: str) -> int | None:
        """Nano-tokens; None where the object does not say."""
        value = value_at(usage, path)
        if value is None:
            return None
        try:
            tokens = parse_quantity(value)
        except NotADecimal as error:
            raise BadUsage(f"data.{self.object}.{path}: {error}") from error
        if tokens < 0:
            raise BadUsage(f"data.{self.object}.{path}: {value!s:.40} is negative")
        return tokens

    def _buckets(self, shape: _Shape, usage: Mapping[str, Any]) -> dict[str, int | Decimal]:
        stated_input = self._tokens(usage, shape.input)
        stated_output = self._tokens(usage, shape.output)
        total = None if shape.total is None else self._tokens(usage, shape.total)
        if stated_input is None:
            raise BadUsage(f"data.{self.object}.{shape.input} is missing")
        if stated_output is None and (total is None or total != stated_input):
            raise BadUsage(f"data.{self.object}.{shape.output} is missing, and no total says that it is 0")
        output = stated_output or 0
        if total is not None and total != stated_input + output:
            raise BadUsage(
                f"data.{self.object}.{shape.total} is {quantity_text(total)}, and {shape.input} + {shape.output} is "
                f"{quantity_text(stated_input + output)}"
            )
        parts = {bucket: self._tokens(usage, path) or 0 for bucket, path in (shape.inside | shape.beside).items()}
        self._take_out_lifetimes(shape, usage, parts)
        sides = {
            "input": stated_input + sum(parts[bucket] for bucket in shape.beside),
            "output": output,
        }
        for bucket, around in reversed(PART_OF.items()):
            if bucket in parts and bucket not in self.split:
                tokens = parts.pop(bucket)
                if around in PART_OF:
                    parts[around] = parts.get(around, 0) + tokens
        for side, whole in sides.items():
            apart = sum(tokens for bucket, tokens in parts.items() if bucket.startswith(side))
            if apart > whole:
                raise BadUsage(
                    f"data.{self.object}: the parts of the {side} come to {quantity_text(apart)} tokens, more than the "
                    f"{quantity_text(whole)} that are stated for all of it"
                )
            parts[f"{side}_text"] = whole - apart
        return {name: _number(nano) for name, nano in (dict.fromkeys(BUCKETS, 0) | parts | sides).items()}

    def _take_out_lifetimes(self, shape: _Shape, usage: Mapping[str, Any], parts: dict[str, int]) -> None:
        """Leave of the cache writes only those whose time to live is not stated."""
        path = (shape.inside | shape.beside)["input_cache_write"]
        whole = self._tokens(usage, path)
        if whole is None:
            return
        stated = sum(tokens for bucket, tokens in parts.items() if PART_OF[bucket] == "input_cache_write")
        if stated > whole:
            raise BadUsage(
                f"data.{self.object}.{path} is {quantity_text(whole)}, less than the {quantity_text(stated)} that are "
                "stated by time to live"
            )
        parts["input_cache_write"] = whole - stated


def _number(nano: int) -> int | Decimal:
    return nano // NANO if nano % NANO == 0 else Decimal(nano).scaleb(-9)


def _any_of(names: Iterable[str]) -> str:
    return ", ".join(names)


def is_estimated(data: Mapping[str, Any]) -> bool:
    """Whether the event says that its usage was not measured. Raises BadUsage when it says something else."""
    basis = data.get(BASIS)
    if basis is None or basis == MEASURED:
        return False
    if basis != ESTIMATED:
        raise BadUsage(f"data.{BASIS} {basis!s:.40} is neither {MEASURED} nor {ESTIMATED}")
    return True
