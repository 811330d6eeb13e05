"""Spans of generative AI as OpenTelemetry writes them (OTLP, JSON), each turned into the CloudEvent that goes into the log.

Read are the semantic conventions for GenAI as they were and as they are: `gen_ai.usage.prompt_tokens` (up to 1.26, and in
vLLM and SGLang today) and `gen_ai.usage.input_tokens`; what lies in the cache is part of the input, and reasoning part of the
output, as in the usage object of OpenAI's chat API. What a span says wrongly, or not at all, goes into the log as it is: the
engine makes a dead letter of it, with the reason, which can be counted and sent again.
"""

import asyncio
import re
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec
from msgspec import Raw, Struct

from actors.web.dialects import BadDialect
from actors.web.hot import Unacceptable, record_of

SOURCE: Final = "otlp"
EVENT_TYPE: Final = "llm.usage"
ACCOUNT: Final = "tallygate.account"
SCOPE: Final = "tallygate.scope"
ANYONE: Final = "a"  # an account that may be there
# What these say of usage is the sum of the calls inside them.
SUMS: Final = frozenset({"invoke_agent", "create_agent", "execute_tool", "invoke_workflow"})

_USAGE: Final = "gen_ai.usage."
_USAGE_BYTES: Final = _USAGE.encode()
# Field of the usage object: the attributes that say it, the newest name first.
_WHOLE: Final[Mapping[str, tuple[str, ...]]] = {
    "prompt_tokens": ("input_tokens", "prompt_tokens"),
    "completion_tokens": ("output_tokens", "completion_tokens"),
    "total_tokens": ("total_tokens",),
}
_PARTS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "prompt_tokens_details": {
        "cached_tokens": ("cache_read.input_tokens", "cache_read_input_tokens", "cached_tokens"),
        "cache_write_tokens": (
            "cache_write.input_tokens",
            "cache_creation.input_tokens",
            "cache_creation_input_tokens",
        ),
    },
    "completion_tokens_details": {"reasoning_tokens": ("reasoning.output_tokens", "reasoning_tokens")},
}
SPANS_MAX: Final = 20_000  # of a request, of whatever kind
_TEXT_MAX: Final = 256
_YIELD_EVERY: Final = 200  # spans; so many take about half a millisecond
_TRACE: Final = re.compile(r"[0-9a-fA-F]{32}")
_SPAN: Final = re.compile(r"[0-9a-fA-F]{16}")
_INTEGER: Final = re.compile(r"-?[0-9]{1,21}", re.ASCII)
_EXACT: Final = 1 << 53  # below it a double is the whole number that it says
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_NANOS_MAX: Final = 10**20  # the year 5138
_encode: Final = msgspec.json.Encoder().encode

Attributes = dict[str, Any]  # texts and numbers; None: what is neither


class Identity(StrEnum):
    """What makes a usage event's id."""

    SPAN = "span"  # its trace's id and its own
    REQUEST = "request"  # the request's, as the inference server knows it: so its cost is found


class BadTraces(ValueError):
    """The request is no OTLP request."""


class _Span(Struct):
    """What says where it stands."""

    traceId: str | None = None
    spanId: str | None = None
    parentSpanId: str | None = None


class _ScopeSpans(Struct):
    spans: list[Raw] | None = None


class _ResourceSpans(Struct):
    resource: Raw = Raw(b"null")
    scopeSpans: list[_ScopeSpans] | None = None


class _Traces(Struct):
    resourceSpans: list[_ResourceSpans] | None = None


_traces: Final = msgspec.json.Decoder(_Traces)
_span: Final = msgspec.json.Decoder(_Span)

Place = tuple[str, str]  # trace, span


class Spent(Struct, frozen=True):
    """A span that says what was used, and what its resource says."""

    place: Place
    span: dict[str, Any]
    attributes: Attributes
    resource: Attributes
    around: Attributes = {}  # account and scope by the nearest span around it, where it names no account itself

    def says(self, name: str, otherwise: Any = None) -> Any:
        """What it says, or its resource."""
        return self.attributes.get(name, self.resource.get(name, otherwise))


async def spent_in(body: bytes) -> list[Spent]:
    """The spans that say what was used. One around another that says so too, and can be taken, is left out, and so is what
    agents and tools say: what is used inside would be counted twice. Others have their turn meanwhile. Raises BadTraces."""
    try:
        traces = _traces.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadTraces(str(error)) from None
    spans = [
        (of_resource.resource, raw)
        for of_resource in traces.resourceSpans or ()
        for scope in of_resource.scopeSpans or ()
        for raw in scope.spans or ()
    ]
    if len(spans) > SPANS_MAX:
        raise BadTraces(f"it has {len(spans)} spans, and {SPANS_MAX} are taken: send smaller batches")
    found: list[Spent] = []
    parents: dict[Place, Place] = {}
    of_resource, said = Raw(b"null"), Attributes()
    for number, (resource, raw) in enumerate(spans, start=1):
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
        where = _where(raw)
        if where is None:
            continue
        place, parent = where
        if parent:
            parents[place] = place[0], parent
        if _USAGE_BYTES not in memoryview(raw).tobytes():
            continue
        span = _object(raw)
        attributes = _attributes(span)
        uses = any(name.startswith(_USAGE) for name in attributes)
        if uses and attributes.get("gen_ai.operation.name") not in SUMS:
            if resource is not of_resource:
                of_resource, said = resource, _attributes(_object(resource))
            found.append(Spent(place, span, attributes, said))
    return await _innermost(found, parents)


def _where(raw: Raw) -> tuple[Place, str] | None:
    """Its place, and the id of the span around it. None: it is no span at all."""
    try:
        span = _span.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return ((span.traceId or "").lower(), (span.spanId or "").lower()), (span.parentSpanId or "").lower()


async def _innermost(found: list[Spent], parents: Mapping[Place, Place]) -> list[Spent]:
    places = dict.fromkeys(each.place for each in found)
    outer = _nearest(places, parents, places)
    payers = {each.place: each for each in found if each.says(ACCOUNT) is not None}
    paid_by = _nearest([place for place in outer if _is_placed(place)], parents, payers)
    told: list[Spent] = []
    counted_inside: set[Place] = set()
    for number, each in enumerate(found, start=1):
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)
        if each.place in paid_by and each.says(ACCOUNT) is None:
            payer = payers[paid_by[each.place]]
            each = msgspec.structs.replace(each, around={name: payer.says(name) for name in (ACCOUNT, SCOPE)})
        told.append(each)
        around = outer.get(each.place)
        if around is None or not _can_be_taken(each):  # then what lies around it has to tell what was used in it
            continue
        while around is not None and around not in counted_inside:
            counted_inside.add(around)
            around = outer.get(around)
    return [each for each in told if each.place not in counted_inside]


def _nearest(
    places: Collection[Place], parents: Mapping[Place, Place], wanted: Collection[Place]
) -> dict[Place, Place]:
    """Of each place the nearest of those wanted that lies around it, if any does. No span is passed twice, however deep."""
    known: dict[Place, Place | None] = {}  # by the span from where it is looked for, itself included
    found: dict[Place, Place] = {}
    for place in places:
        passed: list[Place] = []
        at = parents.get(place)
        while at is not None and at not in wanted and at not in known:
            known[at] = None  # so that a circle ends
            passed.append(at)
            at = parents.get(at)
        nearest = None if at is None else at if at in wanted else known[at]
        known.update(dict.fromkeys(passed, nearest))
        if nearest is not None:
            found[place] = nearest
    return found


def _is_placed(place: Place) -> bool:
    """Whether it is a place of its own: spans of different requests may share one without digits."""
    trace, span = place
    return _TRACE.fullmatch(trace) is not None and _SPAN.fullmatch(span) is not None


def _can_be_taken(spent: Spent) -> bool:
    """By somebody, with one identity or the other."""
    for identity in Identity:
        try:
            record_of(cloud_event(spent, None if spent.around else ANYONE, identity), None)
        except (BadDialect, Unacceptable):
            continue
        return True
    return False


def cloud_event(spent: Spent, account: str | None, identity: Identity) -> bytes:
    """As it goes into the log. `account`: who pays where neither the span nor its resource says so; without it that is whoever
    pays for the span around. Raises BadDialect for what cannot be told apart from others, or has no time."""
    says = spent.attributes
    named = {
        "model": _text(says, "gen_ai.response.model", "gen_ai.request.model"),
        "provider": _text(says, "gen_ai.provider.name", "gen_ai.system"),
        "operation": _text(says, "gen_ai.operation.name"),
        "service": _text(says, "service.name") or _text(spent.resource, "service.name"),
    }
    data: dict[str, Any] = {field: text for field, text in named.items() if text is not None}
    data |= {"usage": _usage(says), "usage_shape": "openai_chat"}
    event: dict[str, Any] = {"specversion": "1.0", "id": _id(spent, identity), "source": SOURCE, "type": EVENT_TYPE}
    event |= {"time": _time(spent.span.get("endTimeUnixNano")), "data": data}
    around = spent.around if account is None else {ACCOUNT: account}
    for field, name in (("subject", ACCOUNT), ("scope", SCOPE)):
        found = spent.says(name, around.get(name))
        if found is not None:
            event[field] = str(found)
    return _encode(event)


def _id(spent: Spent, identity: Identity) -> str:
    if identity is Identity.REQUEST:
        found = _text(spent.attributes, "gen_ai.request.id", "gen_ai.response.id")
        if found is None:
            raise BadDialect("it names no request - at `$.gen_ai.request.id`")
        return found
    trace, span = spent.place
    if not _is_placed(spent.place):
        raise BadDialect("a span is known by 32 digits of its trace and 16 of its own - at `$.spanId`")
    return f"{trace}/{span}"


def _usage(says: Attributes) -> dict[str, Any]:
    usage = {field: _number(says, names) for field, names in _WHOLE.items()}
    if usage["completion_tokens"] is None and says.get("gen_ai.operation.name") == "embeddings":
        usage["completion_tokens"] = 0
    found: dict[str, Any] = {field: said for field, said in usage.items() if said is not None}
    for part, fields in _PARTS.items():
        details = {field: _number(says, names) for field, names in fields.items()}
        found |= {part: {field: said for field, said in details.items() if said is not None}}
    return found


def _number(says: Attributes, names: tuple[str, ...]) -> int | str | None:
    """What all of these names say, if any is there. A text where they differ, or say no number: the engine refuses that."""
    found = [says[f"{_USAGE}{name}"] for name in names if f"{_USAGE}{name}" in says]
    if not found:
        return None
    if all(isinstance(each, int) for each in found) and len(set(found)) == 1:
        number: int = found[0]
        return number
    return " and ".join(str(each)[:40] for each in found)


def _text(says: Attributes, *names: str) -> str | None:
    found = (says.get(name) for name in names)
    return next((each[:_TEXT_MAX] for each in found if isinstance(each, str) and each), None)


def _object(raw: Raw) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _attributes(of: Mapping[str, Any]) -> Attributes:
    """As protobuf's mapping to JSON has them, which knows several ways to write a number, and leaves out what is empty."""
    said = of.get("attributes")
    pairs = [each for each in said if isinstance(each, dict)] if isinstance(said, list) else []
    return {str(each.get("key", "")): _value(each.get("value")) for each in pairs}


def _value(value: Any) -> str | int | float | None:
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("stringValue"), str):
        text: str = value["stringValue"]
        return text
    number = value.get("intValue", value.get("doubleValue"))
    if isinstance(number, str):
        return int(number) if _INTEGER.fullmatch(number) else number
    if isinstance(number, float):
        return int(number) if number.is_integer() and abs(number) < _EXACT else number
    return number if isinstance(number, int) and not isinstance(number, bool) else None


def _time(end_ns: Any) -> str:
    text = str(end_ns)
    if isinstance(end_ns, bool) or _INTEGER.fullmatch(text) is None or not 0 < int(text) <= _NANOS_MAX:
        raise BadDialect("it is no instant in nanoseconds since 1970 - at `$.endTimeUnixNano`")
    return (_EPOCH + timedelta(microseconds=int(text) // 1_000)).isoformat()
