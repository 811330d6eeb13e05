"""Automatic top-up over HTTP: its terms, how it stands, and the answer to a request for credit."""

from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from actors.web.acts import COMMAND_TEXT, commanded
from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, CHANGE, READ, Amount, Currency, described, made_example
from actors.web.hot import AsOfAnswer, as_of_answer
from actors.web.money import Priority
from actors.web.times import instant_or_none
from actors.web.wire import Call, Example, KeyScope, Reply, Route
from engine.commands import LOT_DAYS_MAX
from engine.events import AnswerTopUp, Command, RemoveTopUp, SetTopUp
from engine.outcomes import Refusal
from engine.top_up_commands import ATTEMPTS_MAX, COOLDOWN_MAX_S, COOLDOWN_MIN_S


class AutoTopUpRequest(Struct, forbid_unknown_fields=True):
    """Ask for `amount` of credit whenever the balance is at or below `threshold`."""

    threshold: Amount
    amount: Amount
    currency: Currency
    cooldown_s: Annotated[int, Meta(ge=COOLDOWN_MIN_S, le=COOLDOWN_MAX_S)] = 3600  # behind a request, and its answer
    attempts: Annotated[int, Meta(ge=1, le=ATTEMPTS_MAX)] = 3  # requests in a row that may fail
    priority: Priority = 100  # of the lot that a payment makes
    days: Annotated[int, Meta(ge=1, le=LOT_DAYS_MAX)] | None = None  # how long that lot lives; absent: for ever


class TopUpAnswerRequest(Struct, forbid_unknown_fields=True):
    """What became of the payment."""

    paid: bool


class OpenRequest(Struct):
    """What was asked for and not answered."""

    request: str
    amount: str


class AutoTopUpState(Struct):
    """The terms, null where none are set, and how the account stands to them."""

    threshold: str | None
    amount: str | None
    cooldown_s: int | None
    attempts: int | None
    priority: int | None
    days: int | None
    requests: int  # made so far
    failed: int  # of the last ones, in a row; at `attempts` no more are made
    open: OpenRequest | None
    next_request: str | None  # the balance is low, and from then on credit is asked for again
    as_of: AsOfAnswer


def _terms(call: Call, key: str) -> tuple[Command, str]:
    asked: AutoTopUpRequest = call.body
    account = call.params["account"]
    command = SetTopUp(
        account,
        key,
        asked.threshold,
        asked.amount,
        asked.currency,
        asked.cooldown_s,
        asked.attempts,
        asked.priority,
        asked.days,
    )
    return command, account


def _no_terms(call: Call, key: str) -> tuple[Command, str]:
    return RemoveTopUp(call.params["account"], key), call.params["account"]


def _answer(call: Call, key: str) -> tuple[Command, str]:
    asked: TopUpAnswerRequest = call.body
    request = call.params["request"]
    return AnswerTopUp(call.params["account"], key, request, asked.paid), request


async def show_top_up(call: Call) -> Reply:
    """GET /v1/customers/{account}/auto-top-up."""
    view = await described(call)
    told = view.top_up
    return Reply(
        AutoTopUpState(
            told.threshold,
            told.amount,
            told.cooldown_s,
            told.attempts,
            told.priority,
            told.days,
            told.requests,
            told.failed,
            None if told.request is None else OpenRequest(told.request, told.asked or ""),
            instant_or_none(told.next_us),
            as_of_answer(view.as_of),
        )
    )


_PATH: Final = "/v1/customers/{account}/auto-top-up"
_REQUEST_ID: Final = "topup_9f86d081884c7d659a2feaa0c55ad015"
_CREDIT: Final[dict[str, Any]] = {**CHANGE, "scope": KeyScope.CREDIT, "tags": ("money",)}

ROUTES: Final = (
    Route(
        method="PUT",
        path=_PATH,
        handler=commanded(
            "top_up.set",
            _terms,
            {Refusal.BAD_AMOUNT: "amount", Refusal.CURRENCY_MISMATCH: "currency", Refusal.BAD_TOP_UP: "cooldown_s"},
        ),
        summary="Set or replace automatic top-up",
        description=(
            "Once the balance (booked: what is held does not count) is at or below `threshold`, a request for `amount` is "
            "told to the webhook endpoints of the account: type `top_up.requested`, rule `top_up`, with `amount`, `value` (the "
            "balance), `threshold`, `attempt`, and an id that stays the same however often it is told. Take the payment under "
            "that id, then say so by `POST .../auto-top-up/{request}`. Until then nothing else is asked for, nor within "
            "`cooldown_s` of a request or its answer; nor after `attempts` requests in a row that failed, until the balance "
            "was above the threshold, or this is set again. A balance that is low already is asked for at once."
            + COMMAND_TEXT
        ),
        example=Example(
            params=ACCOUNT,
            request={"threshold": "20", "amount": "50", "currency": "USD", "days": 365},
            response=made_example("acme"),
        ),
        request=AutoTopUpRequest,
        **_CREDIT,
    ),
    Route(
        method="DELETE",
        path=_PATH,
        handler=commanded("top_up.remove", _no_terms),
        summary="Remove automatic top-up",
        description="Nothing more is asked for. A request that is open can still be answered." + COMMAND_TEXT,
        example=Example(params=ACCOUNT, response=made_example("acme")),
        **_CREDIT,
    ),
    Route(
        path=_PATH,
        handler=show_top_up,
        summary="Show automatic top-up",
        description="Its terms, the request that is open, and when the next one is due if the balance stays low.",
        example=Example(
            params=ACCOUNT,
            response={
                "threshold": "20",
                "amount": "50",
                "cooldown_s": 3600,
                "attempts": 3,
                "priority": 100,
                "days": 365,
                "requests": 4,
                "failed": 0,
                "open": {"request": _REQUEST_ID, "amount": "50"},
                "next_request": None,
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=AutoTopUpState,
        **{**READ, "tags": ("money",)},
    ),
    Route(
        method="POST",
        path=_PATH + "/{request}",
        handler=commanded("top_up.answer", _answer, {Refusal.NOT_ASKED: "request", Refusal.LOT_EXISTS: "request"}),
        summary="Answer a request for credit",
        description=(
            "`paid`: the amount asked for becomes a lot of kind `paid` and of the request's id, exactly once; it settles debt "
            "first. Not paid: it counts as a failed attempt." + COMMAND_TEXT
        ),
        example=Example(
            params={"account": "acme", "request": _REQUEST_ID},
            request={"paid": True},
            response=made_example(_REQUEST_ID),
        ),
        request=TopUpAnswerRequest,
        **{**_CREDIT, "also": {**CHANGE["also"], 409: "The request is not open: it was answered, or never made."}},
    ),
)
