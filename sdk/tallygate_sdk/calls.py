"""Each operation of the service as bytes to send and an answer to read: what the clients, sync and async, have in common."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, Generic, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Struct

from tallygate_sdk.answers import (
    AccountBalance,
    Captured,
    Decision,
    LeaseClosed,
    LeaseDecision,
    Outcome,
    RefusedEvent,
    Released,
    Reported,
    RoutingTable,
    Running,
)
from tallygate_sdk.errors import BadKey, NotFound, Refused, Unavailable
from tallygate_sdk.questions import Bound, Check, Usage, plain_numbers, quantity_text

T = TypeVar("T")

EVENTS_MAX: Final = 1_000  # of one request
EVENTS_BYTES_MAX: Final = 1 << 20  # likewise
CHECKS_MAX: Final = 100  # likewise
CAPTURE_SOURCE: Final = "tallygate/capture"

_JSON: Final = "application/json"
_NOBODY_THERE: Final = frozenset({408, 429, 500, 502, 503, 504})  # a proxy may say 500 where the service would say 503
_encoder: Final = msgspec.json.Encoder(decimal_format="number")


class Call(Generic[T]):
    """One request, and how its answer is read."""

    __slots__ = ("_answer", "body", "method", "path")

    def __init__(self, method: str, path: str, body: bytes | None, answer: type[T]) -> None:
        self.method = method
        self.path = path
        self.body = body
        self._answer = msgspec.json.Decoder(answer)

    @property
    def headers(self) -> dict[str, str]:
        """Of this call, beside those of the client."""
        return {} if self.body is None else {"content-type": _JSON}

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> T:
        """The answer. Raises Unavailable, Refused."""
        if not 200 <= status < 300:
            raise _refusal(status, headers, body)
        try:
            return self._answer.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Refused(
                status,
                "",
                f"what answers there is not tallygate, or another version of it: {error}",
                field=None,
                next_step="Check the address.",
                request_id=headers.get("x-request-id", ""),
            ) from None


class _Problem(Struct):
    type: str = ""
    title: str = ""
    detail: str = ""
    instance: str = ""
    next_step: str = ""
    field: str | None = None
    refused: tuple[RefusedEvent, ...] | None = None


def _refusal(status: int, headers: Mapping[str, str], body: bytes) -> Unavailable | Refused:
    try:
        problem = msgspec.json.decode(body, type=_Problem)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        problem = _Problem()
    said = problem.detail or problem.title or f"the service answered with status {status}"
    if status in _NOBODY_THERE:
        return Unavailable(f"{said} (status {status})", _seconds(headers.get("retry-after")))
    kind = BadKey if status in (401, 403) else NotFound if status == 404 else Refused
    return kind(
        status,
        problem.type,
        said,
        field=problem.field,
        next_step=problem.next_step,
        request_id=problem.instance or headers.get("x-request-id", ""),
    )


def _seconds(text: str | None) -> float | None:
    return float(text) if text is not None and text.isascii() and text.isdecimal() else None


def _body(document: Any) -> bytes:
    return _encoder.encode(document)


def _bounds(bounds: Sequence[Bound]) -> list[dict[str, Any]]:
    return [{"fields": bound.fields, "up_to": quantity_text(bound.up_to)} for bound in bounds]


def _check(check: Check) -> dict[str, Any]:
    asked: dict[str, Any] = {"account": check.account}
    if check.scope:
        asked["scope"] = check.scope
    if check.type is not None:
        asked["type"] = check.type
    if check.data:
        asked["data"] = check.data
    if check.reach:
        asked["reach"] = check.reach
    if check.bounds:
        asked["bounds"] = _bounds(check.bounds)
    if check.n != 1:
        asked["n"] = check.n
    if check.feature is not None:
        asked["feature"] = check.feature
    if check.hold_s is not None:
        asked["hold"] = {"ttl_s": check.hold_s}
    return asked


def check_call(check: Check) -> Call[Decision]:
    return Call("POST", "/v1/check", _body(_check(check)), Decision)


class Outcomes(Struct):
    outcomes: list[Outcome]


def checks_call(checks: Sequence[Check]) -> Call[Outcomes]:
    return Call("POST", "/v1/checks", _body({"checks": [_check(check) for check in checks]}), Outcomes)


def capture_call(usage: Usage) -> Call[Captured]:
    """Of usage that names its hold: rated at the instant at which that was admitted."""
    body = {"token": usage.hold, "event": _event(usage), "final": usage.final}
    return Call("POST", "/v1/holds/capture", _body(body), Captured)


def _event(usage: Usage) -> dict[str, Any]:
    data = plain_numbers(usage.data)
    return {"id": usage.id, "source": usage.source, "type": usage.type, "time": usage.time, "data": data}


def carry_on_call(
    usage: Usage, ahead: Sequence[Bound], cheaper: Sequence[Mapping[str, str]], hold_s: float
) -> Call[Running]:
    """Of usage that names its hold: all that its stream has used by now."""
    body = {"token": usage.hold, "event": _event(usage), "ahead": _bounds(ahead), "cheaper": cheaper, "ttl_s": hold_s}
    if usage.seq is not None:
        body["seq"] = usage.seq
    return Call("POST", "/v1/holds/meter", _body(body), Running)


def extend_call(token: str, hold_s: float, bounds: Sequence[Bound]) -> Call[Decision]:
    body = {"token": token, "ttl_s": hold_s, "bounds": _bounds(bounds)}
    return Call("POST", "/v1/holds/extend", _body(body), Decision)


def release_call(token: str) -> Call[Released]:
    return Call("POST", "/v1/holds/release", _body({"token": token}), Released)


def take_lease_call(check: Check, requests: int, least: int, ttl_s: float) -> Call[LeaseDecision]:
    """`check` is one of the requests."""
    body = _check(check) | {"requests": requests, "least": least, "ttl_s": ttl_s}
    return Call("POST", "/v1/leases", _body(body), LeaseDecision)


def close_lease_call(token: str, events: int) -> Call[LeaseClosed]:
    return Call("POST", "/v1/leases/close", _body({"token": token, "events": events}), LeaseClosed)


def balance_call(account: str) -> Call[AccountBalance]:
    return Call("GET", f"/v1/customers/{quote(account, safe='')}/balance", None, AccountBalance)


def routes_call() -> Call[RoutingTable]:
    return Call("GET", "/v1/routes", None, RoutingTable)


class EventsCall(Call[Reported]):
    """Usage events as their bytes. That none of them can be taken is an answer too, and says which and why."""

    def __init__(self, events: Sequence[bytes]) -> None:
        super().__init__("POST", "/v1/events", b"[" + b",".join(events) + b"]", Reported)

    def read(self, status: int, headers: Mapping[str, str], body: bytes) -> Reported:
        if status == 400:
            try:
                refused = msgspec.json.decode(body, type=_Problem).refused
            except (msgspec.MsgspecError, UnicodeDecodeError):
                refused = None
            if refused is not None:
                return Reported(0, refused)
        return super().read(status, headers, body)
