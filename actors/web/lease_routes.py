"""Leases over HTTP: so many requests of an account that a gateway then decides by itself (docs/leases.md)."""

from collections.abc import Iterator
from typing import Annotated, Final

from msgspec import Meta, Struct

from actors.door_wire import (
    Answer,
    Check,
    CloseLease,
    ExtendLease,
    LeaseAnswered,
    LeaseClosed,
    LeaseView,
    TakeLease,
)
from actors.web.hot import (
    ALLOWED,
    AS_OF,
    CHECK_BYTES_MAX,
    HOLD_TTL_S,
    NO_TOKEN,
    TOO_SOON,
    AsOfAnswer,
    BalanceAnswer,
    BindingAnswer,
    Bounds,
    CheckAnswer,
    Name,
    PriceAnswer,
    Seconds,
    Token,
    as_of_answer,
    decision,
    field_limits,
    hold_in,
    put,
)
from actors.web.wire import Call, Example, KeyScope, Reply, Route, unavailable

Number = Annotated[int, Meta(ge=1, le=1_000_000)]


class LeaseRequest(Struct, forbid_unknown_fields=True):
    """So many requests, each of at most these bounds."""

    account: Name
    type: Name  # of the usage events to come
    requests: Number
    scope: Annotated[str, Meta(max_length=520)] = ""
    data: dict[str, str] = {}  # their dimensions, as far as they are the same
    reach: dict[str, Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]] = {}  # the others' possible values
    bounds: Bounds = ()  # of one request
    least: Number = 1  # fewer are of no use
    ttl_s: Seconds = HOLD_TTL_S


class ExtendLeaseRequest(Struct, forbid_unknown_fields=True):
    token: Token
    requests: Annotated[int, Meta(ge=0, le=1_000_000)] = 0  # more, of the same size; 0: only time
    least: Number = 1
    ttl_s: Seconds = HOLD_TTL_S


class CloseLeaseRequest(Struct, forbid_unknown_fields=True):
    token: Token
    events: Annotated[int, Meta(ge=0, le=1_000_000_000)]  # sent, or still in the spool


class LeasedBoundAnswer(Struct):
    """What the requests may use of these fields: one of them, and all together. No fields: they are counted."""

    fields: tuple[str, ...]
    up_to: str
    granted: str


class UnitCeilingAnswer(Struct):
    """The most that a unit of a price can cost under the lease; null: it comes in steps."""

    price: str
    meter: str
    fields: tuple[str, ...]
    unit: str | None


class LeaseGranted(Struct):
    """What its holder may decide alone. Each usage event carries the token in `hold`."""

    id: str
    token: str
    requests: int
    bounds: list[LeasedBoundAnswer]
    prices: list[UnitCeilingAnswer]
    owner_decides: list[str]  # scopes below the lease's whose requests must be checked one by one
    valid_for_s: float  # decide no longer, counted from when the question was sent
    expires_in_s: float
    report_within_s: float  # usage must be in the log by then


class LeaseAnswer(Struct):
    """The decision. A denial has a reason; `strict`: check each request."""

    allowed: bool
    reason: str | None = None
    transient: bool = False
    retry_after_s: float | None = None
    binding: BindingAnswer | None = None
    price: PriceAnswer | None = None
    balance: BalanceAnswer | None = None
    lease: LeaseGranted | None = None
    as_of: AsOfAnswer | None = None


class LeaseClosedAnswer(Struct):
    """`open`: its rest waits until as many events as were stated have been rated. `events_rated` null: not remembered."""

    open: bool
    events_rated: int | None
    as_of: AsOfAnswer | None


async def take_lease(call: Call) -> Reply:
    """POST /v1/leases."""
    asked: LeaseRequest = call.body
    of = Check(
        asked.account,
        asked.scope,
        asked.type,
        asked.data,
        asked.reach,
        field_limits(asked.bounds),
        ttl_ms=round(asked.ttl_s * 1000) or 1,
    )
    return Reply(_answer(await put(call.services, asked.account, TakeLease(of, asked.requests, asked.least))))


async def extend_lease(call: Call) -> Reply:
    """POST /v1/leases/extend."""
    asked: ExtendLeaseRequest = call.body
    lease = hold_in(call, asked.token, "lease")
    least = min(asked.least, max(1, asked.requests))
    question = ExtendLease(asked.token, asked.requests, least, round(asked.ttl_s * 1000) or 1)
    return Reply(_answer(await put(call.services, lease.account, question)))


async def close_lease(call: Call) -> Reply:
    """POST /v1/leases/close."""
    asked: CloseLeaseRequest = call.body
    lease = hold_in(call, asked.token, "lease")
    answer = await put(call.services, lease.account, CloseLease(asked.token, asked.events))
    if isinstance(answer, LeaseClosed):
        return Reply(LeaseClosedAnswer(answer.is_open, answer.events_rated, as_of_answer(answer.as_of)))
    raise unavailable("The owner of the account is not ready; close the lease again.")


def _answer(answer: Answer) -> LeaseAnswer:
    checked = answer.checked if isinstance(answer, LeaseAnswered) else answer
    decided: CheckAnswer = decision(checked)
    lease = answer.lease if isinstance(answer, LeaseAnswered) else None
    return LeaseAnswer(
        *(decided.allowed, decided.reason, decided.transient, decided.retry_after_s, decided.binding, decided.price),
        *(decided.balance, None if lease is None else _granted(lease), decided.as_of),
    )


def _granted(lease: LeaseView) -> LeaseGranted:
    return LeaseGranted(
        lease.id,
        lease.token,
        lease.requests,
        [LeasedBoundAnswer(bound.fields, bound.up_to, bound.granted) for bound in lease.bounds],
        [UnitCeilingAnswer(each.price, each.meter, each.fields, each.unit) for each in lease.prices],
        list(lease.owner_decides),
        *(each / 1000 for each in (lease.valid_for_ms, lease.expires_in_ms, lease.report_within_ms)),
    )


# ------------------------------------------------------------------------------------------------------------- routes

_LEASE: Final = {
    "id": "3.7.41",
    "token": "<token>",
    "requests": 250,
    "bounds": [
        {"fields": ["input_tokens"], "up_to": "4000", "granted": "1000000"},
        {"fields": ["output_tokens"], "up_to": "1000", "granted": "250000"},
    ],
    "prices": [
        {"price": "large_out", "meter": "output_tokens", "fields": ["output_tokens"], "unit": "0.000015"},
        {"price": "small_in", "meter": "input_tokens", "fields": ["input_tokens"], "unit": "0.00000015"},
    ],
    "owner_decides": ["team:red/user:ann"],
    "valid_for_s": 60.0,
    "expires_in_s": 65.0,
    "report_within_s": 125.0,
}
_GRANTED: Final = {
    name: _LEASE if name == "lease" else ALLOWED[name]
    for name in LeaseAnswer.__struct_fields__
    if name in {*ALLOWED, "lease"}
}


def _routes() -> Iterator[Route]:
    yield Route(
        method="POST",
        path="/v1/leases",
        scope=KeyScope.CHECK,
        handler=take_lease,
        summary="Take a lease: requests that a gateway decides by itself",
        description=(
            "Debits `requests` requests of at most `bounds` from the wallet and from every cap on the path, writes that "
            "into the log, and answers like a check. Near a limit there are fewer, as a lease takes at most half of what "
            "is left; below `least` there is none: `strict`, check each request. Within the lease the holder decides "
            "without asking, as long as it is valid, in its scope and in those below it that are not in `owner_decides`. "
            "503 means that nobody answered; the lease may be in the log nevertheless, and then ends by itself."
        ),
        tags=("leases",),
        example=Example(
            request={
                "account": "acme",
                "scope": "team:red",
                "type": "llm.tokens",
                "reach": {"model": ["small", "large"]},
                "bounds": [{"fields": ["input_tokens"], "up_to": 4000}, {"fields": ["output_tokens"], "up_to": 1000}],
                "requests": 500,
                "least": 10,
                "ttl_s": 60,
            },
            response=_GRANTED,
        ),
        request=LeaseRequest,
        response=LeaseAnswer,
        account_from="body",
        body_bytes_max=CHECK_BYTES_MAX,
        also=TOO_SOON,
    )
    yield Route(
        method="POST",
        path="/v1/leases/extend",
        scope=KeyScope.CHECK,
        handler=extend_lease,
        summary="More requests, or more time, in an open lease",
        description=(
            "A new admission of what is added, answered like the grant. The answer's token replaces the one sent, which "
            "still settles. `boundary_passed`: prices, credit or the billing period have changed since the grant; close "
            "the lease and take another."
        ),
        tags=("leases",),
        example=Example(request={"token": "<token>", "requests": 250, "ttl_s": 60}, response=_GRANTED),
        request=ExtendLeaseRequest,
        response=LeaseAnswer,
        confines=True,
        body_bytes_max=CHECK_BYTES_MAX,
        also=NO_TOKEN,
    )
    yield Route(
        method="POST",
        path="/v1/leases/close",
        scope=KeyScope.CHECK,
        handler=close_lease,
        summary="Give back what is left of a lease",
        description=(
            "The holder decides nothing by it any more. Once `events` usage events that name it have been rated, what is "
            "left is free; until then it stays held. Sent again it is harmless; the first number stands."
        ),
        tags=("leases",),
        example=Example(
            request={"token": "<token>", "events": 231}, response={"open": False, "events_rated": 231, "as_of": AS_OF}
        ),
        request=CloseLeaseRequest,
        response=LeaseClosedAnswer,
        confines=True,
        body_bytes_max=CHECK_BYTES_MAX,
        also=NO_TOKEN,
    )


ROUTES: Final = tuple(_routes())
