"""The routes in the path of money: usage in, checks, holds. Everything else can wait for these.

An event is acknowledged when it is durable in the log, and goes there as the bytes that were sent. A check is answered
by the owner of the account; this file only translates.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from math import ceil
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import Meta, Struct

from actors.door_client import DoorUnavailable
from actors.door_wire import (
    Answer,
    AsOf,
    BadQuestion,
    BindingView,
    Check,
    Checked,
    Extend,
    FieldLimit,
    NotFound,
    Question,
    Recovering,
    Release,
    Released,
)
from actors.keys import Key
from actors.ports import LogUnavailable, Outgoing
from actors.web.limits import JsonRefused, check_json
from actors.web.problems import MEDIA_TYPE, ProblemBody, refused_text
from actors.web.times import instant
from actors.web.wire import Call, Example, KeyScope, Reply, Route, Services, absent, invalid, unavailable
from engine.corrections import FORMS, BadCorrection, read_correction
from engine.cost.floors import Floor, Of, percent_text
from engine.events import KEY_BYTES_MAX, TOKEN_TEXT_MAX, VALUE_BYTES_MAX, Malformed, UsageEvent, parse_usage
from engine.holds import BadToken, Hold, read_token

EVENTS_MAX: Final = 1_000
INGEST_BYTES_MAX: Final = 1 << 20
CHECK_BYTES_MAX: Final = 16_384
DOOR_WITHIN_S: Final = 1.5
APPEND_S: Final = 1.5
HOLD_TTL_S: Final = 60.0
HOLD_TTL_MAX_S: Final = 3_600.0
CAPTURE_SOURCE: Final = "tallygate/capture"

ONE: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"
LINES: Final = "application/x-ndjson"
EITHER: Final = "application/json"

_YIELD_EVERY: Final = 50  # events; so many take about a millisecond, and checks wait for no longer
_YIELD_EVERY_BYTES: Final = 16_384  # of events: a large one takes as long as many
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
Sent = TypeVar("Sent")
_list_decoder: Final = msgspec.json.Decoder(list[msgspec.Raw])
_encoder: Final = msgspec.json.Encoder()
_ATTRIBUTES: Final = frozenset(
    ["specversion", "id", "source", "type", "subject", "time", "data", "scope", "hold", "holdfinal", "seq"]
)


# ------------------------------------------------------------------------------------------------------------- events


class RefusedEvent(Struct):
    """An event that was not taken. It is not in the log: correct it, and send it again."""

    index: int  # in the order of the request, from 0
    id: str | None
    reason: Literal[
        "malformed", "too_large", "missing_subject", "missing_time", "not_found", "bad_correction", "not_allowed"
    ]
    field: str
    detail: str


class EventsAnswer(Struct):
    """What is durable in the log, and what was not taken."""

    accepted: int
    refused: list[RefusedEvent]


class NoneAccepted(ProblemBody, kw_only=True):
    """A refusal of every event of the request."""

    accepted: int = 0
    refused: list[RefusedEvent]


class Unacceptable(Exception):
    """An event that is not taken; the others are."""

    def __init__(self, reason: str, field: str, detail: str, event_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason: Any = reason
        self.field = field
        self.detail = detail
        self.event_id = event_id


async def ingest(call: Call) -> Reply:
    """POST /v1/events."""
    return await take(call, split(call), record_of)


async def take(call: Call, events: list[bytes], record: Callable[[bytes, Key | None], Outgoing]) -> Reply:
    """Put each event into the log, as `record` makes it. That raises Unacceptable for one that cannot be taken."""
    records, refused = await translated(events, record, call.key)
    if not records:
        return _none_accepted(refused, call.request_id)
    await append(call.services, records)
    return Reply(EventsAnswer(len(records), refused))


async def translated(
    events: Sequence[Sent], record: Callable[[Sent, Key | None], Outgoing], key: Key | None
) -> tuple[list[Outgoing], list[RefusedEvent]]:
    """What goes into the log, and what is not taken. Others have their turn meanwhile."""
    records: list[Outgoing] = []
    refused: list[RefusedEvent] = []
    number = size = 0  # since others had their turn
    for index, sent in enumerate(events):
        try:
            made = record(sent, key)
        except Unacceptable as error:
            refused.append(RefusedEvent(index, error.event_id, error.reason, error.field, error.detail))
            size += _YIELD_EVERY_BYTES // 8  # whatever there was to look at
        else:
            records.append(made)
            size += len(made.value or b"")
        number += 1
        if number >= _YIELD_EVERY or size >= _YIELD_EVERY_BYTES:
            number = size = 0
            await asyncio.sleep(0)
    return records, refused


async def append(services: Services, records: list[Outgoing]) -> None:
    """Return once they are durable. Raises Problem."""
    try:
        async with asyncio.timeout(APPEND_S):
            await services.appender.append(records)
    except (LogUnavailable, TimeoutError):
        raise unavailable(
            "The log took no usage in time. Some events may be in it; sent again with the same ids they count once."
        ) from None


def split(call: Call, unwrapped: Callable[[bytes], Iterable[bytes]] = lambda raw: (raw,)) -> list[bytes]:
    """The bytes of each event; `unwrapped`: those that lie in what was sent as one. Raises Problem when the whole cannot
    be read."""
    body: bytes = call.body
    media = (call.header("content-type") or "").partition(";")[0].strip().lower()
    if media == LINES:
        events = [stripped for line in body.split(b"\n") if (stripped := line.strip())]
    elif media == BATCH or (media == EITHER and body.lstrip(b" \t\r\n")[:1] == b"["):
        try:
            events = [bytes(raw) for raw in _list_decoder.decode(body)]
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise invalid("body", f"The batch is no JSON array: {str(error)[:200]}") from None
    else:
        events = [body]
    if len(events) <= EVENTS_MAX:  # else nobody looks into half a million of them
        events = [event for each in events for event in unwrapped(each)]
    if not 0 < len(events) <= EVENTS_MAX:
        raise invalid("body", f"It has {len(events)} events; 1 to {EVENTS_MAX} are taken.", "Split the batch.")
    return events


def check_event(raw: bytes) -> None:
    """Before anything of it is read: its size, and that it is JSON within the limits. Raises Unacceptable."""
    if len(raw) > VALUE_BYTES_MAX:
        raise Unacceptable("too_large", "", f"The event has {len(raw)} bytes; {VALUE_BYTES_MAX} is the limit.")
    try:
        check_json(raw)
    except JsonRefused as error:
        raise Unacceptable("malformed", "", str(error)) from None


def record_of(raw: bytes, key: Key | None) -> Outgoing:
    """The record of a CloudEvent, which goes into the log as it is. Raises Unacceptable."""
    check_event(raw)
    try:
        event = parse_usage(raw)
    except Malformed as error:
        raise Unacceptable("malformed", *_place(str(error))) from None
    subject = event.subject
    account = b"" if subject is None else subject.encode()
    if not 0 < len(account) <= KEY_BYTES_MAX:
        raise Unacceptable(
            "missing_subject", "subject", f"It names the paying account in 1 to {KEY_BYTES_MAX} bytes.", event.id
        )
    if event.type in FORMS:
        _check_correction(event, subject or "", key)
    elif event.time_us is None:
        raise Unacceptable("missing_time", "time", "It says when the usage was, as RFC 3339 with an offset.", event.id)
    if event.seq is not None and key is not None and key.account is not None:
        raise Unacceptable("not_allowed", "seq", "A key of one account may not replace its usage.", event.id)
    if key is not None and key.account is not None and subject != key.account:
        raise Unacceptable("not_found", "subject", "There is no such account, or this key may not see it.", event.id)
    return Outgoing("usage", raw, account)


def _check_correction(event: UsageEvent, account: str, key: Key | None) -> None:
    """What needs no look at what was rated. Whoever pays may not take back what there is to pay."""
    if key is not None and key.account is not None:
        raise Unacceptable("not_allowed", "type", "A key of one account may not correct its usage.", event.id)
    try:
        read_correction(account, event)
    except Malformed as error:
        raise Unacceptable("malformed", "data", str(error), event.id) from None
    except BadCorrection as error:
        raise Unacceptable("bad_correction", "data", str(error), event.id) from None


def _place(message: str) -> tuple[str, str]:
    """(field, detail) of what the engine says about an event."""
    field, detail = refused_text(message)
    if field == "body":
        first = detail.partition(" ")[0].rstrip(",")
        field = first if first in _ATTRIBUTES else ""
    return field, detail


def _none_accepted(refused: list[RefusedEvent], request_id: str) -> Reply:
    first = refused[0]
    body = NoneAccepted(
        type="/problems/no-event-accepted",
        title="No event accepted",
        status=400,
        detail=f"None of {len(refused)} events was taken; the first: {first.detail}",
        instance=request_id,
        next_step="Correct the events as `refused` says, and send them again.",
        field=f"[{first.index}].{first.field}".rstrip("."),
        refused=refused,
    )
    return Reply(body, 400, media_type=MEDIA_TYPE.decode())


# ------------------------------------------------------------------------------------------------------------- checks

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Seconds = Annotated[float, Meta(gt=0, le=HOLD_TTL_MAX_S)]
Token = Annotated[str, Meta(min_length=1, max_length=TOKEN_TEXT_MAX)]


class BoundWish(Struct, forbid_unknown_fields=True):
    """The sum of these fields of the event's `data` will be at most `up_to`."""

    fields: Annotated[tuple[Name, ...], Meta(min_length=1, max_length=16)]
    up_to: Annotated[int, Meta(ge=0)] | Annotated[str, Meta(min_length=1, max_length=64)]  # decimal text, or whole


Bounds = Annotated[tuple[BoundWish, ...], Meta(max_length=16)]


class HoldWish(Struct, forbid_unknown_fields=True):
    """Reserve what is asked for. After `ttl_s` without usage it is free again."""

    ttl_s: Seconds = HOLD_TTL_S


class CheckRequest(Struct, forbid_unknown_fields=True):
    """May this request run?"""

    account: Name
    scope: Annotated[str, Meta(max_length=520)] = ""
    type: Name | None = None  # of the usage event to come
    data: dict[str, str] = {}  # its dimensions, as far as they are known
    reach: dict[str, Annotated[tuple[Name, ...], Meta(min_length=1, max_length=64)]] = {}  # the others' possible values
    bounds: Bounds = ()
    n: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    feature: Name | None = None
    hold: HoldWish | bool | None = None  # true: for a minute


class BindingAnswer(Struct):
    """The limit that refused, or that has the least left."""

    kind: str
    scope: str
    name: str
    remaining: str | None
    frees_in_s: float | None
    unit: str  # the meter or price whose units a cap counts; "": money, or a count of requests


class PriceAnswer(Struct):
    """What the request would add, at most."""

    amount: str
    currency: str | None
    version: int | None


class BalanceAnswer(Struct):
    """available = booked - held; null: not known now (or, of `overdraft`, without limit)."""

    booked: str | None
    held: str | None = None
    available: str | None = None
    overdraft: str | None = None
    currency: str | None = None


class HoldAnswer(Struct):
    """What is reserved. The usage event repeats the token."""

    id: str
    token: str
    valid_for_s: float  # stop or extend by then
    expires_in_s: float


class AsOfAnswer(Struct):
    """The state of the account's partition that the answer was given from."""

    partition: int
    epoch: int
    offset: int
    log_time: str
    lag_records: int | None


class AdviceAnswer(Struct):
    """Such requests have earned less than a margin floor asks for, in the last hour whose costs have settled: a cheaper model
    may be the better answer."""

    advice: Literal["below_margin_floor"]
    floor: str
    of: Of
    subject: str
    percent: str  # the margin of that hour, of its revenue
    floor_percent: str
    level: str
    hour: str


class CheckAnswer(Struct):
    """The decision. A denial has a reason; a transient one may pass by itself."""

    allowed: bool
    reason: str | None = None
    transient: bool = False
    retry_after_s: float | None = None
    binding: BindingAnswer | None = None
    price: PriceAnswer | None = None
    balance: BalanceAnswer | None = None
    feature: bool | str | None = None
    hold: HoldAnswer | None = None
    as_of: AsOfAnswer | None = None
    entitlement: BindingAnswer | None = None  # what a metered feature has left behind this request, and when it frees
    advice: AdviceAnswer | None = None  # null where nothing is known, and for a key that is bound to one account


async def check(call: Call) -> Reply:
    """POST /v1/check."""
    asked: CheckRequest = call.body
    return Reply(advised(call, asked, await decided(call.services, asked)))


def advised(call: Call, asked: CheckRequest, answer: CheckAnswer) -> CheckAnswer:
    """The answer, with what the seller wants gateways to know of the margin of such requests. It changes no decision."""
    advisor = call.services.advisor
    if advisor is None or call.account is not None:
        return answer
    stated = [asked.data.get("model"), *asked.reach.get("model", ())]
    floor: Floor | None = advisor.of(asked.account, [model for model in stated if type(model) is str])
    if floor is not None and floor.last_us is not None and floor.last_permille is not None:
        answer.advice = AdviceAnswer(
            *("below_margin_floor", floor.floor, floor.of, floor.subject, percent_text(floor.last_permille)),
            *(percent_text(floor.permille), floor.level, instant(floor.last_us)),
        )
    return answer


async def decided(services: Services, asked: CheckRequest, within_s: float = DOOR_WITHIN_S) -> CheckAnswer:
    """The owner's decision. Raises Problem, as `put` does."""
    hold = asked.hold
    ttl_ms = None
    if hold:
        ttl_ms = round((HOLD_TTL_S if hold is True else hold.ttl_s) * 1000) or 1
    question = Check(
        asked.account,
        asked.scope,
        asked.type,
        asked.data,
        asked.reach,
        field_limits(asked.bounds),
        asked.n,
        asked.feature,
        ttl_ms,
    )
    return decision(await put(services, asked.account, question, within_s))


def field_limits(bounds: tuple[BoundWish, ...]) -> tuple[FieldLimit, ...]:
    return tuple(FieldLimit(bound.fields, str(bound.up_to)) for bound in bounds)


async def put(services: Services, account: str, question: Question, within_s: float = DOOR_WITHIN_S) -> Answer:
    """The owner's answer. Raises Problem: 503 when there is none, 400 naming the field it cannot read."""
    try:
        answer = await services.doors.ask(account, question, within_s)
    except DoorUnavailable as error:
        raise unavailable(
            "The owner of the account gave no answer; what was asked may have happened.", ceil(error.retry_after_s)
        ) from None
    if isinstance(answer, BadQuestion):
        raise invalid(answer.field, answer.detail)
    return answer


def as_of_answer(as_of: AsOf) -> AsOfAnswer:
    log_time = instant(as_of.log_time_us)
    return AsOfAnswer(as_of.partition, as_of.epoch, as_of.offset, log_time, as_of.lag_records)


def decision(answer: Answer) -> CheckAnswer:
    if isinstance(answer, Checked):
        return _checked(answer)
    if isinstance(answer, Recovering):
        return CheckAnswer(
            allowed=False,
            reason="recovering",
            transient=True,
            retry_after_s=answer.retry_after_ms / 1000,
            balance=None if answer.booked is None else BalanceAnswer(answer.booked),
        )
    if isinstance(answer, NotFound):
        return CheckAnswer(allowed=False, reason="unknown_account", as_of=as_of_answer(answer.as_of))
    raise unavailable("The owner of the account did not answer in time; it may have taken effect.")


def _checked(checked: Checked) -> CheckAnswer:
    wallet, binding, hold = checked.wallet, checked.binding, checked.hold
    currency = None if wallet is None else wallet.currency
    return CheckAnswer(
        checked.allowed,
        checked.reason,
        checked.transient,
        _seconds(checked.retry_after_ms),
        None if binding is None else _binding(binding),
        None if checked.price is None else PriceAnswer(checked.price, currency, checked.version),
        None
        if wallet is None
        else BalanceAnswer(wallet.booked, wallet.held, wallet.available, wallet.overdraft, currency),
        checked.feature,
        None if hold is None else HoldAnswer(hold.id, hold.token, hold.valid_for_ms / 1000, hold.expires_in_ms / 1000),
        as_of_answer(checked.as_of),
        None if checked.entitlement is None else _binding(checked.entitlement),
    )


def _binding(binding: BindingView) -> BindingAnswer:
    frees_in_s = _seconds(binding.frees_in_ms)
    return BindingAnswer(binding.kind, binding.scope, binding.name, binding.remaining, frees_in_s, binding.unit)


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


# -------------------------------------------------------------------------------------------------------------- holds


class CapturedEvent(Struct, forbid_unknown_fields=True):
    """What the request has used. Sent again with the same id, it is the same event."""

    id: Name
    type: Name
    data: msgspec.Raw  # an object; its bytes go into the log as they are
    source: Name = CAPTURE_SOURCE
    time: Annotated[str, Meta(max_length=64)] | None = None  # absent: the instant at which the hold was admitted


class CaptureRequest(Struct, forbid_unknown_fields=True):
    token: Token
    event: CapturedEvent
    final: bool = True  # nothing more will come: the rest of the hold is free again


class CaptureAnswer(Struct):
    """The event is durable in the log."""

    id: str
    account: str
    hold_id: str


class ExtendRequest(Struct, forbid_unknown_fields=True):
    token: Token
    ttl_s: Seconds = HOLD_TTL_S
    bounds: Bounds = ()  # what is wanted beside what is held


class ReleaseRequest(Struct, forbid_unknown_fields=True):
    token: Token


class ReleaseAnswer(Struct):
    """`was_open` false: it had been settled, released or reclaimed before."""

    was_open: bool
    as_of: AsOfAnswer | None


class _CloudEvent(Struct, omit_defaults=True):
    specversion: str
    id: str
    source: str
    type: str
    subject: str
    time: str
    data: msgspec.Raw
    hold: str
    holdfinal: bool
    scope: str = ""
    seq: int | None = None


def hold_in(call: Call, token: str, what: str = "hold") -> Hold:
    """The hold, or the lease, in a token. One of another account is as absent as one that was never sealed here."""
    try:
        hold = read_token(call.services.settings.control_key_bytes(), token)
    except BadToken:
        raise absent(what) from None
    if call.account is not None and hold.account != call.account:
        raise absent(what)
    return hold


async def capture(call: Call) -> Reply:
    """POST /v1/holds/capture."""
    asked: CaptureRequest = call.body
    hold = hold_in(call, asked.token)
    value = held_event(hold, asked.token, asked.event, final=asked.final)
    await append(call.services, [Outgoing("usage", value, hold.account.encode())])
    return Reply(CaptureAnswer(asked.event.id, hold.account, hold.id))


def held_event(hold: Hold, token: str, sent: CapturedEvent, *, final: bool, seq: int | None = None) -> bytes:
    """The usage event of a hold. Raises Problem, naming what no such event may have."""
    if sent.type in FORMS:  # whoever may settle a hold may not take back what was rated for that
        raise invalid("event.type", "A correction is no usage of a hold.", "Send it to POST /v1/events.")
    admitted = (_EPOCH + timedelta(microseconds=hold.admitted_us)).isoformat()
    event = _CloudEvent(
        "1.0",
        sent.id,
        sent.source,
        sent.type,
        hold.account,
        # Not the clock's: a repetition must be the same event to the last field, or it would be a conflict.
        admitted if sent.time is None else sent.time,
        sent.data,
        token,
        final,
        hold.scope,
        seq,
    )
    value = _encoder.encode(event)
    if len(value) > VALUE_BYTES_MAX:
        raise invalid("event", f"It has {len(value)} bytes with its token; {VALUE_BYTES_MAX} is the limit.")
    try:
        parse_usage(value)
    except Malformed as error:
        field, detail = _place(str(error))
        raise invalid(f"event.{field}".rstrip("."), detail) from None
    return value


async def extend(call: Call) -> Reply:
    """POST /v1/holds/extend."""
    asked: ExtendRequest = call.body
    hold = hold_in(call, asked.token)
    question = Extend(asked.token, round(asked.ttl_s * 1000) or 1, field_limits(asked.bounds))
    return Reply(decision(await put(call.services, hold.account, question)))


async def release(call: Call) -> Reply:
    """POST /v1/holds/release."""
    asked: ReleaseRequest = call.body
    hold = hold_in(call, asked.token)
    answer = await put(call.services, hold.account, Release(asked.token))
    if isinstance(answer, Released):
        return Reply(ReleaseAnswer(answer.was_open, as_of_answer(answer.as_of)))
    if isinstance(answer, NotFound):
        return Reply(ReleaseAnswer(False, as_of_answer(answer.as_of)))
    raise unavailable("The owner of the account is not ready; the hold is still there.")


# ------------------------------------------------------------------------------------------------------------- routes

AS_OF: Final = {
    "partition": 3,
    "epoch": 7,
    "offset": 18250,
    "log_time": "2026-11-22T10:00:00.120000Z",
    "lag_records": 0,
}
_BALANCE: Final = {
    "booked": "12.5",
    "held": "0.03",
    "available": "12.47",
    "overdraft": "0",
    "currency": "USD",
}
_HOLD: Final = {"id": "3.7.41", "token": "<token>", "valid_for_s": 60.0, "expires_in_s": 65.0}
_BINDING: Final = {"kind": "wallet", "scope": "", "name": "", "remaining": "12.47", "frees_in_s": None, "unit": ""}
ALLOWED: Final = {
    "allowed": True,
    "reason": None,
    "transient": False,
    "retry_after_s": None,
    "binding": _BINDING,
    "price": {"amount": "0.03", "currency": "USD", "version": 1},
    "balance": _BALANCE,
    "feature": None,
    "hold": _HOLD,
    "as_of": AS_OF,
    "entitlement": None,
    "advice": None,
}
TOO_SOON: Final = {503: "The log or the account's owner is away for now; `Retry-After` says when to try again."}
NO_TOKEN: Final = {404: "The token is none of this deployment, or of an account that the key may not see.", **TOO_SOON}
NONE_TAKEN: Final = {400: "No event was taken; `refused` says why.", **TOO_SOON}


def _routes() -> Iterator[Route]:
    yield Route(
        method="POST",
        path="/v1/events",
        scope=KeyScope.INGEST,
        handler=ingest,
        summary="Send usage events",
        description=(
            "Takes one CloudEvent, a batch (a JSON array), or newline-delimited JSON: at most "
            f"{EVENTS_MAX} events and {INGEST_BYTES_MAX} bytes. `subject` is the paying account; `time` is required. Each "
            "event is judged by itself: one that cannot be taken is listed in `refused`, the others are durable in the log "
            "when the answer comes. When none can be taken the answer is 400, with the same list. Sending an event again, "
            "with the same `source` and `id`, is harmless. An event of type `tallygate.cancel` takes back the one that its "
            "`data.original` carries whole, as it was sent; `tallygate.amend` also says, in `data.amended`, what it should "
            "have been. They need no `time`, and may come first. Of a type that the catalogue has as streams, events of one "
            "`source` and `id` may carry a `seq`: the highest one counts, and those before it no longer do. A batch that is "
            "no JSON array is refused whole; newline-delimited JSON has no such whole."
        ),
        tags=("usage",),
        example=Example(
            request={
                "specversion": "1.0",
                "id": "req-8812",
                "source": "gateway/eu-1",
                "type": "llm.tokens",
                "subject": "acme",
                "time": "2026-11-22T10:00:00Z",
                "data": {"model": "small", "input_tokens": 812, "output_tokens": 96},
            },
            response={"accepted": 1, "refused": []},
        ),
        response=EventsAnswer,
        status=202,
        confines=True,
        raw_body=(EITHER, ONE, BATCH, LINES),
        body_bytes_max=INGEST_BYTES_MAX,
        also=NONE_TAKEN,
    )
    yield Route(
        method="POST",
        path="/v1/check",
        scope=KeyScope.CHECK,
        handler=check,
        summary="Ask whether a request may run, and reserve what it may use",
        description=(
            "The owner of the account answers from memory. A denial is an answer, not an error: 200 with `allowed` false, "
            "so that no client library takes it for a fault and no proxy retries it. `reason` is stable, to branch on; a "
            "`transient` one may pass by itself, and `retry_after_s` says when to ask again. With `hold` an admitted request "
            "reserves what its `bounds` allow: settle it by /v1/holds/capture (or by a usage event that carries the token), "
            "or release it. Until the owner is ready after a takeover the answer is a denial, `recovering`. 503 means that "
            "nobody answered: whoever lets requests run nevertheless does so at his own risk."
        ),
        tags=("checks",),
        example=Example(
            request={
                "account": "acme",
                "scope": "team:red/user:ann",
                "type": "llm.tokens",
                "data": {"model": "small"},
                "bounds": [{"fields": ["input_tokens"], "up_to": 1000}, {"fields": ["output_tokens"], "up_to": "4096"}],
                "hold": {"ttl_s": 60},
            },
            response=ALLOWED,
        ),
        request=CheckRequest,
        response=CheckAnswer,
        account_from="body",
        body_bytes_max=CHECK_BYTES_MAX,
        also=TOO_SOON,
    )
    yield Route(
        method="POST",
        path="/v1/holds/capture",
        scope=KeyScope.CHECK,
        handler=capture,
        summary="Settle a hold with what was used",
        description=(
            "Appends the usage event with the hold's token; when the answer comes it is durable. It is rated at the "
            "instant at which the hold was admitted. With `final` false the rest stays reserved and more may follow, each "
            "with an id of its own. Sending a capture again unchanged is harmless."
        ),
        tags=("holds",),
        example=Example(
            request={
                "token": "<token>",
                "event": {
                    "id": "req-8812",
                    "source": "gateway/eu-1",
                    "type": "llm.tokens",
                    "data": {"model": "small", "input_tokens": 812, "output_tokens": 96},
                },
                "final": True,
            },
            response={"id": "req-8812", "account": "acme", "hold_id": "3.7.41"},
        ),
        request=CaptureRequest,
        response=CaptureAnswer,
        status=202,
        confines=True,
        also=NO_TOKEN,
    )
    yield Route(
        method="POST",
        path="/v1/holds/extend",
        scope=KeyScope.CHECK,
        handler=extend,
        summary="Reserve more, or for longer, in an open hold",
        description=(
            "A new admission of what is added, answered like a check. The answer's token replaces the one sent. "
            "Without `bounds` only the time is extended."
        ),
        tags=("holds",),
        example=Example(
            request={"token": "<token>", "ttl_s": 60, "bounds": [{"fields": ["output_tokens"], "up_to": 4096}]},
            response=ALLOWED,
        ),
        request=ExtendRequest,
        response=CheckAnswer,
        confines=True,
        body_bytes_max=CHECK_BYTES_MAX,
        also=NO_TOKEN,
    )
    yield Route(
        method="POST",
        path="/v1/holds/release",
        scope=KeyScope.CHECK,
        handler=release,
        summary="Give a hold back unused",
        description="The caller asserts that nothing (more) was used. What was reserved is free at once. Again is harmless.",
        tags=("holds",),
        example=Example(request={"token": "<token>"}, response={"was_open": True, "as_of": AS_OF}),
        request=ReleaseRequest,
        response=ReleaseAnswer,
        confines=True,
        body_bytes_max=CHECK_BYTES_MAX,
        also=NO_TOKEN,
    )


ROUTES: Final = tuple(_routes())
