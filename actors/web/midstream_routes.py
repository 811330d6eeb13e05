"""Streams that run on a hold: told, while they run, whether to go on, to stop, or what would cost less."""

from collections.abc import Iterator
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from actors.door_wire import CarriedOn, CarryOn, NotFound
from actors.ports import Outgoing
from actors.web.hot import (
    ALLOWED,
    CHECK_BYTES_MAX,
    HOLD_TTL_S,
    NO_TOKEN,
    Bounds,
    CapturedEvent,
    CheckAnswer,
    Seconds,
    Token,
    append,
    decision,
    field_limits,
    held_event,
    hold_in,
    put,
)
from actors.web.wire import Call, Example, KeyScope, Problem, Reply, Route, invalid, unavailable


class MeterRequest(Struct, forbid_unknown_fields=True):
    """What a running stream has used so far, and what it wants to use next."""

    token: Token  # the newest of its hold
    event: CapturedEvent  # all that was used by now, not only since the last call
    ahead: Bounds = ()  # what shall be covered beyond that
    cheaper: Annotated[tuple[dict[str, str], ...], Meta(max_length=8)] = ()  # dimensions of requests that cost less
    ttl_s: Seconds = HOLD_TTL_S
    seq: Annotated[int, Meta(ge=0, le=1_000_000_000)] | None = (
        None  # present: the event goes into the log, as far as it is
    )
    final: bool = False  # the stream is over: the event settles the hold


class CoveredAnswer(Struct):
    """What may still be used of these fields before the hold is used up. No fields: events."""

    fields: tuple[str, ...]
    left: str


class MeterAnswer(Struct):
    """`continue`: on with the token of `check.hold`, if there is one. `stop`: use at most what is covered, then end, and
    settle. `cheaper`: likewise, but a request with the dimensions of `alternative` would still run. `settled`."""

    action: Literal["continue", "stop", "cheaper", "settled"]
    covered: list[CoveredAnswer]
    alternative: dict[str, str] | None = None
    check: CheckAnswer | None = None  # how the extension of the hold was decided


async def meter(call: Call) -> Reply:
    """POST /v1/holds/meter."""
    asked: MeterRequest = call.body
    hold = hold_in(call, asked.token)
    if asked.seq is not None and call.account is not None:
        raise Problem(
            403,
            "key-bound",
            "Key is bound to an account",
            "With `seq` an event takes the place of the one before it, and a key of one account may not replace its usage.",
            next_step="Leave `seq` out, or use a key that is not bound to an account.",
            field="seq",
        )
    value = held_event(hold, asked.token, asked.event, final=asked.final, seq=asked.seq)
    answer = MeterAnswer("settled", [])
    if not asked.final:
        question = CarryOn(
            asked.token, value, round(asked.ttl_s * 1000) or 1, field_limits(asked.ahead), tuple(asked.cheaper)
        )
        answer = _told(await put(call.services, hold.account, question))
    elif asked.ahead or asked.cheaper:
        raise invalid("final", "A stream that is over has nothing ahead.")
    if asked.final or asked.seq is not None:
        await append(call.services, [Outgoing("usage", value, hold.account.encode())])
    return Reply(answer)


def _told(answer: object) -> MeterAnswer:
    if isinstance(answer, CarriedOn):
        covered = [CoveredAnswer(each.fields, each.left) for each in answer.covered]
        return MeterAnswer(answer.action, covered, answer.alternative, decision(answer.checked))
    if isinstance(answer, NotFound):
        return MeterAnswer("stop", [], None, decision(answer))
    raise unavailable("The owner of the account is not ready, or late; what the last answer covered still is.")


def _routes() -> Iterator[Route]:
    yield Route(
        method="POST",
        path="/v1/holds/meter",
        scope=KeyScope.CHECK,
        handler=meter,
        summary="Whether a running stream may go on, and for how much",
        description=(
            "`event` says what the stream has used so far, in all. What of `ahead` the hold does not cover any more is "
            "asked for anew, and its time is extended: `continue`, with the new token in `check.hold`. Where the account "
            "cannot bear it: `cheaper`, with the first of the alternatives that it could bear so much of, else `stop`; "
            "`covered` says how much may still be used before the end. With `seq` the event also goes into the log (of a "
            "type that the catalogue has as streams), so that a gateway that dies has been paid up to there; a key that is "
            "bound to one account may not send it, as it may not replace its usage. With `final` it settles the hold, exactly. "
            "503: the owner is not ready; what the last answer covered may be used all the "
            "same, until the hold is no longer valid."
        ),
        tags=("holds",),
        example=Example(
            request={
                "token": "<token>",
                "event": {
                    "id": "req-8812",
                    "source": "gateway/eu-1",
                    "type": "llm.tokens",
                    "data": {"model": "large", "input_tokens": 812, "output_tokens": 3900},
                },
                "seq": 4,
                "ahead": [{"fields": ["output_tokens"], "up_to": 1000}],
                "cheaper": [{"model": "small"}],
            },
            response={
                "action": "continue",
                "covered": [
                    {"fields": ["input_tokens"], "left": "188"},
                    {"fields": ["output_tokens"], "left": "1000"},
                ],
                "alternative": None,
                "check": ALLOWED,
            },
        ),
        request=MeterRequest,
        response=MeterAnswer,
        confines=True,
        body_bytes_max=65_536 + CHECK_BYTES_MAX,
        also=NO_TOKEN,
    )


ROUTES: Final = tuple(_routes())
