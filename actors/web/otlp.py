"""Spans of generative AI as OpenTelemetry writes them (OTLP, JSON), each turned into the CloudEvent that goes into the log.

Read are the semantic conventions for GenAI as they were and as they are: `gen_ai.usage.prompt_tokens` (up to 1.26, and in
vLLM and SGLang today) and `gen_ai.usage.input_tokens`; what lies in the cache is part of the input, and reasoning part of the
output, as in the usage object of OpenAI's chat API. A span's identity is its trace's id and its own.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.web.dialects import BadDialect

SOURCE: Final = "otlp"
EVENT_TYPE: Final = "llm.usage"
ACCOUNT: Final = "tallygate.account"
SCOPE: Final = "tallygate.scope"
# What other spans say of usage is the sum of the calls inside them.
CALLS: Final = frozenset({"", "chat", "completion", "text_completion", "generate_content", "embeddings"})

_USAGE: Final = "gen_ai.usage."
# Field of the usage object: the attributes that say it, the newest name first.
_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "prompt_tokens": ("input_tokens", "prompt_tokens"),
    "completion_tokens": ("output_tokens", "completion_tokens"),
}
_PROMPT: Final[Mapping[str, tuple[str, ...]]] = {
    "cached_tokens": ("cache_read.input_tokens", "cached_tokens"),
    "cache_write_tokens": ("cache_creation.input_tokens",),
}
_COMPLETION: Final[Mapping[str, tuple[str, ...]]] = {"reasoning_tokens": ("reasoning.output_tokens",)}
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANOS_MAX: Final = 10**20  # the year 5138
_encode: Final = msgspec.json.Encoder().encode

Attributes = dict[str, Any]  # texts and integers; what is neither is None


class BadTraces(ValueError):
    """The request is no OTLP request."""


class _Value(Struct, frozen=True):
    stringValue: str | None = None
    intValue: str | int | None = None


class _Attribute(Struct, frozen=True):
    key: str
    value: _Value = _Value()


class _Span(Struct, frozen=True):
    traceId: str = ""
    spanId: str = ""
    endTimeUnixNano: str | int = 0
    attributes: list[_Attribute] = []


class _ScopeSpans(Struct, frozen=True):
    spans: list[_Span] = []


class _Resource(Struct, frozen=True):
    attributes: list[_Attribute] = []


class _ResourceSpans(Struct, frozen=True):
    resource: _Resource = _Resource()
    scopeSpans: list[_ScopeSpans] = []


class _Traces(Struct, frozen=True):
    resourceSpans: list[_ResourceSpans] = []


_decoder: Final = msgspec.json.Decoder(_Traces)


class Spent(Struct, frozen=True):
    """A span of one call to a model that says what it used, with what its resource says too."""

    trace: str
    span: str
    end_ns: str | int
    attributes: Attributes


def spent_in(body: bytes) -> Iterator[Spent]:
    """The spans that say what one call used; all others are of no interest here. Raises BadTraces."""
    try:
        traces = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTraces(str(error)) from None
    for of_resource in traces.resourceSpans:
        common = _read(of_resource.resource.attributes)
        for scope in of_resource.scopeSpans:
            for span in scope.spans:
                own = _read(span.attributes)
                uses = any(name.startswith(_USAGE) for name in own)
                if uses and own.get("gen_ai.operation.name", "") in CALLS:
                    yield Spent(span.traceId, span.spanId, span.endTimeUnixNano, common | own)


def cloud_event(spent: Spent, account: str | None) -> bytes:
    """As it goes into the log. `account`: who pays where the span does not say. Raises BadDialect."""
    says = spent.attributes
    if not spent.trace or not spent.span:
        raise BadDialect("a span needs its trace's id and its own - at `$.spanId`")
    model = says.get("gen_ai.response.model") or says.get("gen_ai.request.model")
    if not isinstance(model, str):
        raise BadDialect("it names no model - at `$.gen_ai.response.model`")
    embeds = says.get("gen_ai.operation.name") == "embeddings"
    usage: dict[str, Any] = {}
    for field, names in _FIELDS.items():
        tokens = _tokens(says, names)
        if tokens is None and not (embeds and field == "completion_tokens"):
            raise BadDialect(f"it is missing - at `$.{_USAGE}{names[0]}`")
        usage[field] = tokens or 0
    for part, fields in (("prompt_tokens_details", _PROMPT), ("completion_tokens_details", _COMPLETION)):
        details = {field: _tokens(says, names) for field, names in fields.items()}
        usage |= {part: {field: tokens for field, tokens in details.items() if tokens is not None}}
    data: dict[str, Any] = {"model": model, "usage": usage, "usage_shape": "openai_chat"}
    for field, names in (
        ("provider", ("gen_ai.provider.name", "gen_ai.system")),
        ("operation", ("gen_ai.operation.name",)),
        ("service", ("service.name",)),
    ):
        said = next((says[name] for name in names if isinstance(says.get(name), str)), None)
        if said is not None:
            data[field] = said
    event: dict[str, Any] = {"specversion": "1.0", "id": f"{spent.trace}/{spent.span}", "source": SOURCE}
    event |= {"type": EVENT_TYPE, "time": _time(spent.end_ns), "data": data}
    for field, said in (("subject", says.get(ACCOUNT, account)), ("scope", says.get(SCOPE))):
        if said is not None:
            event[field] = str(said)
    return _encode(event)


def _read(attributes: list[_Attribute]) -> Attributes:
    found: Attributes = {}
    for each in attributes:
        value = each.value
        found[each.key] = value.stringValue if value.stringValue is not None else value.intValue
    return found


def _tokens(says: Attributes, names: tuple[str, ...]) -> int | None:
    """What all of these names say, if any is there. Raises BadDialect."""
    found: int | None = None
    for name in names:
        place = f"{_USAGE}{name}"
        if place not in says:
            continue
        said = says[place]
        text = str(said)
        if said is None or not text.isascii() or not text.isdigit() or len(text) > 18:
            raise BadDialect(f"it is no number of tokens - at `$.{place}`")
        if found is not None and found != int(text):
            raise BadDialect(f"two names of one number differ - at `$.{place}`")
        found = int(text)
    return found


def _time(end_ns: str | int) -> str:
    text = str(end_ns)
    if not text.isascii() or not text.isdigit() or not 0 < len(text) <= 20 or not 0 < int(text) <= _NANOS_MAX:
        raise BadDialect("it is no instant in nanoseconds since 1970 - at `$.endTimeUnixNano`")
    return (_EPOCH + timedelta(microseconds=int(text) // 1_000)).isoformat()
