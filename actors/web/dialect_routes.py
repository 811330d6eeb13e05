"""Usage in, as other systems write it: whoever reports to one of them today changes the address and the key.

Each format is turned into the CloudEvent of `actors/web/dialects.py`, and taken like any other.
"""

from collections.abc import Iterator
from typing import Any, Final

from actors.keys import Key
from actors.ports import Outgoing
from actors.web.dialects import DIALECTS, BadDialect, unwrapped
from actors.web.hot import (
    EITHER,
    EVENTS_MAX,
    INGEST_BYTES_MAX,
    LINES,
    NONE_TAKEN,
    EventsAnswer,
    Unacceptable,
    check_event,
    record_of,
    split,
    take,
)
from actors.web.problems import refused_text
from actors.web.wire import Call, Example, Handler, KeyScope, Reply, Route

_NAMES: Final = {"amberflo": "Amberflo", "flexprice": "Flexprice", "lago": "Lago", "stripe": "Stripe"}
_SAYS: Final = {
    "amberflo": (
        "Takes meter events. The type is `meterApiName`, the account `customerId` or the dimension `business_unit_id`; a "
        "meter of the catalogue sums `meterValue` and groups by `dimensions.<name>`. Events that share a `uniqueId` and "
        "differ in meter, time or a dimension are several events, as the vendor's LiteLLM callback means them."
    ),
    "flexprice": (
        "Takes events, or `events` of a bulk request. The type is `event_name`, the account `external_customer_id`, else "
        "`customer_id`; the fields of `data` are the `properties`. `event_id` and `timestamp` are required: without them "
        "an event that is sent twice would count twice."
    ),
    "lago": (
        "Takes `event` or `events`. The type is `code`, the account `external_subscription_id`; the fields of `data` are "
        "the `properties` and `precise_total_amount_cents`. The id is `transaction_id`. `timestamp` is required."
    ),
    "stripe": (
        "Takes meter events of either version, or `events` of a stream. The type is `event_name`, the account "
        "`payload.stripe_customer_id`; the fields of `data` are the rest of the payload. `identifier` and `timestamp` are "
        "required."
    ),
}
_EXAMPLES: Final[dict[str, Any]] = {
    "amberflo": {
        "uniqueId": "chatcmpl-8812",
        "meterApiName": "llm_tokens",
        "meterValue": 812,
        "customerId": "acme",
        "meterTimeInMillis": 1795341600000,
        "dimensions": {"model": "small", "type": "input"},
    },
    "flexprice": {
        "event_name": "llm_tokens",
        "event_id": "req-8812",
        "external_customer_id": "acme",
        "timestamp": "2026-11-22T10:00:00Z",
        "properties": {"model": "small", "input_tokens": 812},
    },
    "lago": {
        "event": {
            "transaction_id": "req-8812",
            "code": "llm_tokens",
            "external_subscription_id": "acme",
            "timestamp": 1795341600,
            "properties": {"model": "small", "input_tokens": 812},
        }
    },
    "stripe": {
        "event_name": "llm_tokens",
        "identifier": "req-8812",
        "timestamp": 1795341600,
        "payload": {"stripe_customer_id": "acme", "model": "small", "value": "812"},
    },
}


def _ingest(dialect: str) -> Handler:
    translate = DIALECTS[dialect]

    def record(raw: bytes, key: Key | None) -> Outgoing:
        check_event(raw)
        try:
            translated = translate(raw)
        except BadDialect as error:
            field, detail = refused_text(str(error))
            raise Unacceptable("malformed", field, detail) from None
        return record_of(translated, key)

    async def ingest(call: Call) -> Reply:
        return await take(call, split(call, unwrapped), record)

    return ingest


def _routes() -> Iterator[Route]:
    for dialect, name in _NAMES.items():
        yield Route(
            method="POST",
            path=f"/v1/events/{dialect}",
            scope=KeyScope.INGEST,
            handler=_ingest(dialect),
            summary=f"Send usage events as {name} takes them",
            description=(
                f"{_SAYS[dialect]} One, a JSON array, or newline-delimited JSON: at most {EVENTS_MAX} events and "
                f"{INGEST_BYTES_MAX} bytes. Each becomes a CloudEvent of the source `{dialect}`, and is taken or refused as "
                "by POST /v1/events."
            ),
            tags=("usage",),
            example=Example(request=_EXAMPLES[dialect], response={"accepted": 1, "refused": []}),
            response=EventsAnswer,
            status=202,
            confines=True,
            raw_body=(EITHER, LINES),
            body_bytes_max=INGEST_BYTES_MAX,
            also=NONE_TAKEN,
        )


ROUTES: Final[tuple[Route, ...]] = tuple(_routes())
