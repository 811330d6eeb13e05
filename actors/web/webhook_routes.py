"""Webhook endpoints over HTTP: where signed alerts go, and what came of each attempt.

A key that is bound to an account sees and changes that account's endpoints only; another's are as if they were not
there. A signing secret is in two answers only, those that make one, and in no log, list or audit row.
"""

from collections.abc import Awaitable
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from msgspec import Meta, Struct

from actors.endpoints import (
    RULES_MAX,
    AlertUnknown,
    DeliveryPage,
    Endpoint,
    EndpointDelivery,
    EndpointPage,
    EndpointRefused,
    EndpointUnknown,
    SecretUnreadable,
)
from actors.receivers import EndpointDisabled
from actors.web.acts import ACT_DEADLINE_S, ACT_REFUSALS, ACT_TEXT, Entry, administered
from actors.web.hot import Name
from actors.web.times import instant, instant_or_none
from actors.web.wire import Call, Example, KeyScope, Problem, QueryParameter, Reply, Route, absent, invalid

CALL_DEADLINE_S: Final = 20.0  # a receiver is given 15 s
_DELIVERY_DIGITS_MAX: Final = 17


class EndpointRequest(Struct, forbid_unknown_fields=True):
    """Where alerts are to go: https, port 443 or 8443, and every address of the name public."""

    url: Annotated[str, Meta(min_length=1, max_length=2048)]
    account: Annotated[str, Meta(min_length=1, max_length=128)] | None = (
        None  # whose alerts; absent: a bound key's, else all
    )
    rules: Annotated[list[Name], Meta(min_length=1, max_length=RULES_MAX)] | None = None  # absent: all


class EndpointItem(Struct):
    """An endpoint, without its secrets."""

    id: str
    url: str
    account: str | None
    rules: list[str] | None
    created: str
    enabled: bool
    disabled: str | None
    disabled_reason: str
    previous_secret_until: str | None  # until then messages are signed with the secret before as well


class EndpointMade(Struct):
    """An endpoint, and its signing secret, which is shown this once."""

    endpoint: EndpointItem
    secret: str


class EndpointList(Struct):
    items: list[EndpointItem]
    next_cursor: str | None


class DeliveryItem(Struct):
    """One attempt at one endpoint."""

    id: str
    alert_id: str
    endpoint_id: str
    cause: str  # alert, resend, test
    attempt: int
    at: str
    delivered: bool
    status: int | None
    error: str
    duration_ms: int


class DeliveryList(Struct):
    items: list[DeliveryItem]
    next_cursor: str | None


class _Trailed(Struct):
    """An endpoint in the audit trail: of its URL no more than the host, since the rest may hold a token."""

    id: str
    host: str
    account: str | None
    rules: list[str] | None
    enabled: bool


# ----------------------------------------------------------------------------------------------------------- endpoints


async def create(call: Call, entry: Entry) -> Reply:
    """POST /v1/webhook-endpoints."""
    asked: EndpointRequest = call.body
    if call.account is not None and asked.account not in (None, call.account):
        raise absent("account")
    account = call.account or asked.account
    entry.account = account
    try:
        endpoint, secret = await call.services.endpoints.create(asked.url, account, asked.rules)
    except EndpointRefused as error:
        raise _refused(error) from None
    entry.subject = endpoint.endpoint_id
    entry.after = _trailed(endpoint)
    return Reply(EndpointMade(_item(endpoint), secret.get_secret_value()))


async def page(call: Call) -> Reply:
    """GET /v1/webhook-endpoints."""
    try:
        found: EndpointPage = await call.services.endpoints.endpoints(
            call.account or call.query["account"], call.query["cursor"], call.query["limit"]
        )
    except EndpointRefused as error:
        raise _refused(error) from None
    return Reply(EndpointList([_item(endpoint) for endpoint in found.endpoints], found.cursor))


async def show(call: Call) -> Reply:
    """GET /v1/webhook-endpoints/{endpoint}."""
    return Reply(_item(await _endpoint(call)))


async def disable(call: Call, entry: Entry) -> Reply:
    """DELETE /v1/webhook-endpoints/{endpoint}."""
    before = await _endpoint(call)
    after = await call.services.endpoints.disable(before.endpoint_id, call.account)
    _tell(entry, before, after)
    return Reply(_item(after))


async def enable(call: Call, entry: Entry) -> Reply:
    """POST /v1/webhook-endpoints/{endpoint}/enable."""
    before = await _endpoint(call)
    try:
        after = await call.services.endpoints.enable(before.endpoint_id, call.account)
    except EndpointRefused as error:
        raise _refused(error) from None
    _tell(entry, before, after)
    return Reply(_item(after))


async def rotate(call: Call, entry: Entry) -> Reply:
    """POST /v1/webhook-endpoints/{endpoint}/rotate-secret."""
    before = await _endpoint(call)
    after, secret = await call.services.endpoints.rotate_secret(before.endpoint_id, call.account)
    _tell(entry, before, after)
    return Reply(EndpointMade(_item(after), secret.get_secret_value()))


async def test(call: Call, entry: Entry) -> Reply:
    """POST /v1/webhook-endpoints/{endpoint}/test."""
    endpoint = await _endpoint(call)
    entry.account = endpoint.account
    return Reply(await _called(call, call.services.courier.test(endpoint.endpoint_id, call.account)))


async def _endpoint(call: Call) -> Endpoint:
    try:
        endpoint: Endpoint = await call.services.endpoints.get(call.params["endpoint"], call.account)
    except EndpointUnknown:
        raise absent("endpoint") from None
    return endpoint


def _tell(entry: Entry, before: Endpoint, after: Endpoint) -> None:
    entry.account = after.account
    entry.before, entry.after = _trailed(before), _trailed(after)


def _trailed(endpoint: Endpoint) -> _Trailed:
    host = urlsplit(endpoint.url).hostname or ""
    return _Trailed(endpoint.endpoint_id, host, endpoint.account, endpoint.rules, endpoint.disabled_us is None)


def _item(endpoint: Endpoint) -> EndpointItem:
    return EndpointItem(
        endpoint.endpoint_id,
        endpoint.url,
        endpoint.account,
        endpoint.rules,
        instant(endpoint.created_us),
        endpoint.disabled_us is None,
        instant_or_none(endpoint.disabled_us),
        endpoint.disabled_reason,
        instant_or_none(endpoint.previous_until_us),
    )


def _refused(error: EndpointRefused) -> Problem:
    return invalid(error.field, error.message)


# ---------------------------------------------------------------------------------------------------------- deliveries


async def deliveries(call: Call) -> Reply:
    """GET /v1/webhook-endpoints/{endpoint}/deliveries."""
    endpoint = await _endpoint(call)
    try:
        found: DeliveryPage = await call.services.endpoints.deliveries(
            endpoint_id=endpoint.endpoint_id,
            alert_id=call.query["alert"],
            cursor=call.query["cursor"],
            limit=call.query["limit"],
        )
    except EndpointRefused as error:
        raise _refused(error) from None
    return Reply(DeliveryList([_delivery(delivery) for delivery in found.deliveries], found.cursor))


async def resend(call: Call, entry: Entry) -> Reply:
    """POST /v1/deliveries/{delivery}/resend."""
    first = await _first(call)
    if first.cause == "test":
        raise Problem(
            422,
            "not-an-alert",
            "Not an alert",
            "This delivery was a test, which no outbox keeps.",
            next_step="Send another with POST /v1/webhook-endpoints/{endpoint}/test.",
        )
    entry.account, entry.subject = first.account, f"{first.alert_id} to {first.endpoint_id}"
    resending = call.services.courier.resend(first.alert_id, first.endpoint_id, call.account)
    # A bound key's alerts also go to endpoints that hear all accounts: of those it is to learn nothing.
    return Reply(await _called(call, resending, "delivery"))


async def _first(call: Call) -> EndpointDelivery:
    """The delivery in the path. Raises Problem."""
    text = call.params["delivery"]
    if not (text.isascii() and text.isdecimal() and len(text) <= _DELIVERY_DIGITS_MAX):
        raise absent("delivery")
    found: DeliveryPage = await call.services.endpoints.deliveries(
        account=call.account, cursor=str(int(text) + 1), limit=1
    )
    if not found.deliveries or found.deliveries[0].delivery_id != int(text):
        raise absent("delivery")
    return found.deliveries[0]


async def _called(call: Call, calling: Awaitable[EndpointDelivery], what: str = "endpoint") -> DeliveryItem:
    """What came of it, as the list has it from now on. Raises Problem; `what` is absent where the endpoint is."""
    try:
        delivery = await calling
    except EndpointUnknown:
        raise absent(what) from None
    except AlertUnknown:
        raise absent("alert") from None
    except EndpointDisabled:
        raise Problem(
            409,
            "endpoint-disabled",
            "Endpoint is disabled",
            "Nothing is sent to a disabled endpoint.",
            next_step="Enable it first: POST /v1/webhook-endpoints/{endpoint}/enable.",
        ) from None
    except SecretUnreadable:
        raise Problem(
            409,
            "secret-unreadable",
            "Signing secret cannot be opened",
            "The endpoint's secret was sealed under another control key.",
            next_step="Rotate it: POST /v1/webhook-endpoints/{endpoint}/rotate-secret.",
        ) from None
    except EndpointRefused as error:
        raise _refused(error) from None
    found: DeliveryPage = await call.services.endpoints.deliveries(
        endpoint_id=delivery.endpoint_id, alert_id=delivery.alert_id, limit=1
    )
    return _delivery(found.deliveries[0] if found.deliveries else delivery)


def _delivery(delivery: EndpointDelivery) -> DeliveryItem:
    return DeliveryItem(
        str(delivery.delivery_id),
        delivery.alert_id,
        delivery.endpoint_id,
        delivery.cause,
        delivery.attempt,
        instant(delivery.at_us),
        delivery.delivered,
        delivery.status,
        delivery.error,
        delivery.duration_ms,
    )


# -------------------------------------------------------------------------------------------------------------- routes

_OWN: Final[dict[str, Any]] = {"tags": ("webhooks",), "scope": KeyScope.ADMIN, "confines": True}
_DISABLED: Final = "The endpoint is disabled, its secret cannot be opened, or the idempotency key is busy."
_ID: Final = "we_4f0c9d6b2a1e8f7c5d3b"
_ENDPOINT: Final = {
    "id": _ID,
    "url": "https://hooks.example.com/alerts",
    "account": "acme",
    "rules": ["low"],
    "created": "2026-11-22T10:00:00Z",
    "enabled": True,
    "disabled": None,
    "disabled_reason": "",
    "previous_secret_until": None,
}
_DELIVERY: Final = {
    "id": "71",
    "alert_id": "alert_9f86d081884c7d659a2feaa0c55ad015",
    "endpoint_id": _ID,
    "cause": "alert",
    "attempt": 1,
    "at": "2026-11-22T10:00:00.2Z",
    "delivered": True,
    "status": 204,
    "error": "",
    "duration_ms": 84,
}
_MADE: Final = {"endpoint": _ENDPOINT, "secret": "whsec_<base64>"}
_PARAMS: Final = {"endpoint": _ID}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/webhook-endpoints",
        handler=administered("endpoint.create", create, shown=False),
        summary="Make a webhook endpoint",
        description=(
            "The answer shows the signing secret, once (Standard Webhooks: `webhook-id`, `webhook-timestamp`, "
            "`webhook-signature`). Alerts are told to it from about a second later, at least once, always under the same id."
            + ACT_TEXT
        ),
        example=Example(
            request={"url": "https://hooks.example.com/alerts", "account": "acme", "rules": ["low"]}, response=_MADE
        ),
        request=EndpointRequest,
        response=EndpointMade,
        status=201,
        deadline_s=ACT_DEADLINE_S,
        also={404: "The account is none that the key may see.", **ACT_REFUSALS},
        **_OWN,
    ),
    Route(
        method="GET",
        path="/v1/webhook-endpoints",
        handler=page,
        summary="List webhook endpoints",
        description="Disabled ones too, without secrets.",
        example=Example(response={"items": [_ENDPOINT], "next_cursor": None}),
        response=EndpointList,
        paginated=True,
        query=(QueryParameter("account", "text", "only those of this account", None, 1, 128),),
        **_OWN,
    ),
    Route(
        method="GET",
        path="/v1/webhook-endpoints/{endpoint}",
        handler=show,
        summary="Show a webhook endpoint",
        description="Without its secret.",
        example=Example(params=_PARAMS, response=_ENDPOINT),
        response=EndpointItem,
        **_OWN,
    ),
    Route(
        method="DELETE",
        path="/v1/webhook-endpoints/{endpoint}",
        handler=administered("endpoint.disable", disable, "endpoint"),
        summary="Disable a webhook endpoint",
        description="It is told of nothing more, from about a second later. Its history stays." + ACT_TEXT,
        example=Example(
            params=_PARAMS,
            response={
                **_ENDPOINT,
                "enabled": False,
                "disabled": "2026-11-22T10:00:00Z",
                "disabled_reason": "by request",
            },
        ),
        response=EndpointItem,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
        **_OWN,
    ),
    Route(
        method="POST",
        path="/v1/webhook-endpoints/{endpoint}/enable",
        handler=administered("endpoint.enable", enable, "endpoint"),
        summary="Enable a webhook endpoint again",
        description="Its URL is examined anew." + ACT_TEXT,
        example=Example(params=_PARAMS, response=_ENDPOINT),
        response=EndpointItem,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
        **_OWN,
    ),
    Route(
        method="POST",
        path="/v1/webhook-endpoints/{endpoint}/rotate-secret",
        handler=administered("endpoint.rotate_secret", rotate, "endpoint"),
        summary="Make a new signing secret",
        description=(
            "Shown once. For 24 hours messages are signed with both, the new one first; rotating again within that time "
            "ends the oldest." + ACT_TEXT
        ),
        example=Example(
            params=_PARAMS,
            response={**_MADE, "endpoint": {**_ENDPOINT, "previous_secret_until": "2026-11-23T10:00:00Z"}},
        ),
        response=EndpointMade,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
        **_OWN,
    ),
    Route(
        method="POST",
        path="/v1/webhook-endpoints/{endpoint}/test",
        handler=administered("endpoint.test", test, "endpoint"),
        summary="Send a signed test message",
        description="Once, now; the answer says what came of it. A receiver that fails is an answer, not an error."
        + ACT_TEXT,
        example=Example(params=_PARAMS, response={**_DELIVERY, "cause": "test"}),
        response=DeliveryItem,
        deadline_s=CALL_DEADLINE_S,
        also={409: _DISABLED, 422: ACT_REFUSALS[422]},
        **_OWN,
    ),
    Route(
        method="GET",
        path="/v1/webhook-endpoints/{endpoint}/deliveries",
        handler=deliveries,
        summary="List attempts at a webhook endpoint",
        description="Of the last 30 days, newest first.",
        example=Example(params=_PARAMS, response={"items": [_DELIVERY], "next_cursor": None}),
        response=DeliveryList,
        paginated=True,
        query=(QueryParameter("alert", "text", "only attempts to tell this alert", None, 1, 128),),
        **_OWN,
    ),
    Route(
        method="POST",
        path="/v1/deliveries/{delivery}/resend",
        handler=administered("delivery.resend", resend, "delivery"),
        summary="Send an alert again",
        description="To the endpoint of this delivery, under the same id and with the same bytes." + ACT_TEXT,
        example=Example(params={"delivery": "71"}, response={**_DELIVERY, "id": "72", "cause": "resend"}),
        response=DeliveryItem,
        deadline_s=CALL_DEADLINE_S,
        also={409: _DISABLED, 422: "It was a test, or the idempotency key came with another request before."},
        **_OWN,
    ),
)
