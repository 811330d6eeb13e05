"""Usage events as other systems write them, each turned into the CloudEvent that goes into the log.

Nothing is rounded on the way: a number stays the text it was sent as. What two vendors' clients send twice keeps one
identity, and what differs in anything that the vendor tells events apart by has another.
"""

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any, Final, TypeVar

import msgspec
from msgspec import Meta, Raw, Struct

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLIS_MAX: Final = 10**14  # the year 5138
_encode: Final = msgspec.json.Encoder().encode
T = TypeVar("T")

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Millis = Annotated[int, Meta(ge=0, le=_MILLIS_MAX)]


class BadDialect(ValueError):
    """The event is not as its vendor writes them. The message names the field, as a typed decoder's does."""


class _CloudEvent(Struct):
    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    data: dict[str, Any]


class _AmberfloEvent(Struct):
    meter: Name = msgspec.field(name="meterApiName")
    value: Raw = msgspec.field(name="meterValue")
    time_ms: Millis = msgspec.field(name="meterTimeInMillis")
    customer: Name | None = msgspec.field(name="customerId", default=None)
    unique_id: Annotated[str, Meta(max_length=200)] | None = msgspec.field(name="uniqueId", default=None)
    dimensions: dict[str, str] = {}


class _FlexpriceEvent(Struct):
    event_name: Name
    event_id: Name
    timestamp: Name
    external_customer_id: Name | None = None
    customer_id: Name | None = None
    properties: dict[str, Raw] = {}


class _LagoEvent(Struct):
    transaction_id: Name
    code: Name
    external_subscription_id: Name
    timestamp: Raw
    properties: dict[str, Raw] = {}
    precise_total_amount_cents: Raw = Raw()


class _StripeEvent(Struct):
    event_name: Name
    identifier: Name
    timestamp: Raw
    payload: dict[str, Raw]


class _Wrapped(Struct):
    event: Raw = Raw()
    events: list[Raw] | None = None


_wrapped: Final = msgspec.json.Decoder(_Wrapped)
_amberflo: Final = msgspec.json.Decoder(_AmberfloEvent)
_flexprice: Final = msgspec.json.Decoder(_FlexpriceEvent)
_lago: Final = msgspec.json.Decoder(_LagoEvent)
_stripe: Final = msgspec.json.Decoder(_StripeEvent)


def amberflo(raw: bytes) -> bytes:
    """A meter event. The vendor tells two apart by customer, meter, time, `uniqueId` and dimensions; without a `uniqueId`
    also by the value. So all of these make the id. The account is `customerId`, or as the vendor's LiteLLM callback has
    it, the dimension `business_unit_id`."""
    event = _decoded(_amberflo, raw)
    account = event.customer or event.dimensions.get("business_unit_id")
    if account is None:
        raise BadDialect("It names the account that pays, or the dimension business_unit_id does. - at `$.customerId`")
    parts = [event.meter, event.time_ms, event.unique_id, sorted(event.dimensions.items())]
    if event.unique_id is None:
        parts.append(bytes(event.value).decode())
    mark = hashlib.sha256(_encode(parts)).hexdigest()[:32]
    return _cloud_event(
        "amberflo",
        event_id=f"{event.unique_id or ''}~{mark}",
        event_type=event.meter,
        account=account,
        time=(_EPOCH + timedelta(milliseconds=event.time_ms)).isoformat(),
        data={"meterValue": event.value, "dimensions": event.dimensions},
    )


def flexprice(raw: bytes) -> bytes:
    """An event. `event_id` and `timestamp` are needed: without them an event that is sent twice would count twice. The
    fields of `data` are its properties."""
    event = _decoded(_flexprice, raw)
    account = event.external_customer_id or event.customer_id
    if account is None:
        raise BadDialect("It names the account that pays. - at `$.external_customer_id`")
    return _cloud_event(
        "flexprice",
        event_id=event.event_id,
        event_type=event.event_name,
        account=account,
        time=event.timestamp,
        data=event.properties,
    )


def lago(raw: bytes) -> bytes:
    """An event. The account is the external subscription; an amount that the event carries is the field
    `precise_total_amount_cents` beside the properties."""
    event = _decoded(_lago, raw)
    data = dict(event.properties)
    if bytes(event.precise_total_amount_cents):
        data["precise_total_amount_cents"] = event.precise_total_amount_cents
    return _cloud_event(
        "lago",
        event_id=event.transaction_id,
        event_type=event.code,
        account=event.external_subscription_id,
        time=_time_of(event.timestamp),
        data=data,
    )


def stripe(raw: bytes) -> bytes:
    """A meter event, of either version. The account is `payload.stripe_customer_id`, the fields of `data` are the rest of
    the payload. `identifier` and `timestamp` are needed, as of Flexprice."""
    event = _decoded(_stripe, raw)
    data = dict(event.payload)
    try:
        account = msgspec.json.decode(data.pop("stripe_customer_id"), type=Name)
    except (KeyError, msgspec.MsgspecError):
        raise BadDialect("It names the account that pays. - at `$.payload.stripe_customer_id`") from None
    return _cloud_event(
        "stripe",
        event_id=event.identifier,
        event_type=event.event_name,
        account=account,
        time=_time_of(event.timestamp),
        data=data,
    )


DIALECTS: Final[dict[str, Callable[[bytes], bytes]]] = {
    "amberflo": amberflo,
    "flexprice": flexprice,
    "lago": lago,
    "stripe": stripe,
}


def unwrapped(raw: bytes) -> Iterator[bytes]:
    """The events in what was sent as one: `event` or the list `events` of it, where it has that; else itself."""
    try:
        wrapped = _wrapped.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        yield raw  # to be refused by itself
        return
    event = bytes(wrapped.event)
    if not event and wrapped.events is None:
        yield raw
        return
    if event:
        yield event
    for each in wrapped.events or ():
        yield bytes(each)


def _decoded(decoder: msgspec.json.Decoder[T], raw: bytes) -> T:
    try:
        return decoder.decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadDialect(str(error)) from None


def _time_of(stamp: Raw) -> str:
    """RFC 3339: of seconds since 1970, as a number or a text that reads as one, or of a text that is a time already."""
    text = bytes(stamp).decode().strip('"')
    try:
        seconds = Decimal(text)
    except InvalidOperation:
        return text
    if not seconds.is_finite() or not 0 <= seconds <= _MILLIS_MAX // 1000:
        raise BadDialect("Expected seconds since 1970 - at `$.timestamp`")
    return (_EPOCH + timedelta(microseconds=int(seconds * 1_000_000))).isoformat()


def _cloud_event(
    vendor: str, *, event_id: str, event_type: str, account: str, time: str, data: dict[str, Any]
) -> bytes:
    return _encode(_CloudEvent("1.0", event_id, vendor, event_type, account, time, data))
