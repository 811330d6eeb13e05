"""Usage in as traces: what a collector of OpenTelemetry exports already, told once more to us."""

from typing import Final

from msgspec import Struct

from actors.keys import Key
from actors.ports import Outgoing
from actors.web.dialects import BadDialect
from actors.web.hot import EITHER, INGEST_BYTES_MAX, Unacceptable, append, record_of, translated
from actors.web.otlp import ACCOUNT, EVENT_TYPE, SCOPE, SOURCE, BadTraces, Spent, cloud_event, spent_in
from actors.web.problems import refused_text
from actors.web.wire import Call, Example, KeyScope, Reply, Route, invalid


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
        spent = list(spent_in(call.body))
    except BadTraces as error:
        raise invalid("body", f"It is no OTLP request in JSON: {str(error)[:200]}") from None
    records, refused = await translated(spent, _record, call.key)
    if records:
        await append(call.services, records)
    if not refused:
        return Reply(TracesAnswer())
    first = refused[0]
    what = ": ".join(part for part in (first.id, first.field, first.detail) if part)
    return Reply(TracesAnswer(PartialSuccess(str(len(refused)), what)))


def _record(spent: Spent, key: Key | None) -> Outgoing:
    try:
        return record_of(cloud_event(spent, None if key is None else key.account), key)
    except BadDialect as error:
        field, detail = refused_text(str(error))
        raise Unacceptable("malformed", field, detail, f"{spent.trace}/{spent.span}"[:200]) from None


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/otlp/traces",
        scope=KeyScope.INGEST,
        handler=take_traces,
        summary="Send usage as spans of OpenTelemetry",
        description=(
            "Takes an OTLP request in JSON, uncompressed (in a collector: `traces_endpoint`, `encoding: json`, `compression: "
            f"none`), of at most {INGEST_BYTES_MAX} bytes. Each span of one call to a model that says what it used "
            "(`gen_ai.usage.*`, under its names of today or of before) becomes a usage event of the type "
            f"`{EVENT_TYPE}` and the source `{SOURCE}`, whose id is that of the trace and of the span; all other spans are "
            "passed over, and so are those of agents and tools, whose usage is that of the calls inside them. `data` has "
            "`model`, `usage` and `usage_shape` as OpenAI's chat API, `provider`, `operation` and `service`. The span, or its "
            f"resource, names who pays in `{ACCOUNT}` (a key that is bound to one account need not), and a scope in "
            f"`{SCOPE}`. What cannot be taken is told in `partialSuccess`. Report a request once: here, or by another way."
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
        body_bytes_max=INGEST_BYTES_MAX,
    ),
)
