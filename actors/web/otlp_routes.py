"""Usage in as traces: what a collector of OpenTelemetry exports already, told once more to us."""

import logging
from typing import Final

from msgspec import Struct

from actors.keys import Key
from actors.ports import Outgoing
from actors.web.dialects import BadDialect
from actors.web.hot import EITHER, EVENTS_MAX, Unacceptable, append, record_of, translated
from actors.web.otlp import (
    ACCOUNT,
    EVENT_TYPE,
    SCOPE,
    SOURCE,
    SPANS_MAX,
    BadTraces,
    Identity,
    Spent,
    cloud_event,
    spent_in,
)
from actors.web.problems import refused_text
from actors.web.wire import Call, Example, KeyScope, QueryParameter, Reply, Route, invalid

BYTES_MAX: Final = 2 << 20  # a batch of a collector, most of which may be no call at all

_log: Final = logging.getLogger(__name__)


class PartialSuccess(Struct):
    """Spans that were not taken, as OTLP has it: a number as text, and the first reason."""

    rejectedSpans: str
    errorMessage: str


class TracesAnswer(Struct, omit_defaults=True):
    """Empty where all was taken."""

    partialSuccess: PartialSuccess | None = None


async def take_traces(call: Call) -> Reply:
    """POST /v1/otlp/traces."""
    try:
        spent = await spent_in(call.body)
    except BadTraces as error:
        raise invalid("body", f"It is no OTLP request in JSON: {str(error)[:200]}") from None
    identity = Identity(call.query["identity"])
    records, refused = await translated(spent, lambda each, key: _record(each, key, identity), call.key)
    for begin in range(0, len(records), EVENTS_MAX):
        await append(call.services, records[begin : begin + EVENTS_MAX])
    if not refused:
        return Reply(TracesAnswer())
    first = refused[0]
    what = ": ".join(part for part in (first.id, first.field, first.detail) if part)
    # Nobody sends again what is refused here: a collector notes it, and goes on.
    # No word of the request gets into our log: it could be a line of its own there.
    _log.warning("of %d spans %d are refused, the first as %s", len(spent), len(refused), first.reason)
    return Reply(TracesAnswer(PartialSuccess(str(len(refused)), what)))


def _record(spent: Spent, key: Key | None, identity: Identity) -> Outgoing:
    try:
        return record_of(cloud_event(spent, None if key is None else key.account, identity), key)
    except BadDialect as error:
        field, detail = refused_text(str(error))
        raise Unacceptable("malformed", field, detail, "/".join(spent.place)[:200]) from None


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/otlp/traces",
        scope=KeyScope.INGEST,
        handler=take_traces,
        summary="Send usage as spans of OpenTelemetry",
        description=(
            "Takes an OTLP request in JSON, uncompressed (in a collector: `traces_endpoint`, `encoding: json`, `compression: "
            f"none`), of at most {SPANS_MAX:,} spans and {BYTES_MAX >> 20} MiB: a collector drops what is too large. Each span "
            "that says what a call to a model used (`gen_ai.usage.*`, under its names of today or of before) becomes a usage "
            f"event of the type `{EVENT_TYPE}` and the source `{SOURCE}`; `data` has `model`, `usage` and `usage_shape` as "
            "OpenAI's chat API, `provider`, `operation` and `service`. A number that is missing or wrong makes a dead letter "
            "of it. Passed over are all other spans, those of agents, tools and workflows, and one that lies around another "
            "one of the request: what is used inside would be counted twice. So export one layer: the gateway's spans or the "
            f"inference server's. The span, or its resource, names who pays in `{ACCOUNT}` (a key that is bound to one account "
            f"need not), and a scope in `{SCOPE}`. What cannot be taken is told in `partialSuccess` and logged; it is not "
            "sent again by itself. Report a request once: here, or by another way."
        ),
        tags=("usage",),
        example=Example(
            request={
                "resourceSpans": [
                    {
                        "resource": {"attributes": [{"key": ACCOUNT, "value": {"stringValue": "acme"}}]},
                        "scopeSpans": [
                            {
                                "spans": [
                                    {
                                        "traceId": "5b8efff798038103d269b633813fc60c",
                                        "spanId": "eee19b7ec3c1b174",
                                        "name": "chat atlas-large",
                                        "endTimeUnixNano": "1795341600000000000",
                                        "attributes": [
                                            {"key": "gen_ai.operation.name", "value": {"stringValue": "chat"}},
                                            {"key": "gen_ai.response.model", "value": {"stringValue": "atlas-large"}},
                                            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "374"}},
                                            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "44"}},
                                        ],
                                    }
                                ]
                            }
                        ],
                    }
                ]
            },
            response={},
        ),
        response=TracesAnswer,
        confines=True,
        raw_body=(EITHER,),
        body_bytes_max=BYTES_MAX,
        query=(
            QueryParameter(
                "identity",
                "text",
                "what is the event's id: `span` (the ids of trace and span), or `request` (`gen_ai.request.id`, else "
                "`gen_ai.response.id`), which the cost of the request is found by; then ids must never come twice",
                "span",
                choices=tuple(each.value for each in Identity),
            ),
        ),
    ),
)
