"""Adjustments: what late usage of closed billing periods changed, and what a person charges or gives back, with a reason."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from actors.commands import derived_name
from actors.web.acts import COMMAND_DEADLINE_S, COMMAND_TEXT, CommandAnswer, commanded
from actors.web.customers import AS_OF_EXAMPLE, Amount, Currency, described, made_example
from actors.web.hot import AsOfAnswer, Name, as_of_answer
from actors.web.times import instant, read_instant
from actors.web.wire import Call, Example, KeyScope, Reply, Route
from engine.events import Adjust, Command
from engine.outcomes import Refusal

Why = Annotated[str, Meta(min_length=1, max_length=500)]


class AdjustmentRequest(Struct, forbid_unknown_fields=True):
    """A manual line: an amount above 0 is charged, one below 0 given back."""

    amount: Amount
    currency: Currency
    reason: Why
    line: Name | None = None  # its id; absent: one that follows from the idempotency key
    price: Name | None = None  # whose credit pays for it; absent: only lots that may pay for everything
    period: Annotated[str, Meta(max_length=64)] | None = None  # an instant of the billing period it is for; absent: now


class AdjustmentItem(Struct):
    """What was posted for a billing period. It counts in no cap and no tier."""

    line: str | None  # null: the sum of what late usage, and corrections, of a closed period changed
    period: str  # start of the billing period that it is for
    posted: str  # of late usage: the start of the segment that it was posted in
    price: str  # "": no price's
    amount: str
    reason: str
    by: str


class AdjustmentList(Struct):
    items: list[AdjustmentItem]
    currency: str
    as_of: AsOfAnswer


def _adjust(call: Call, key: str) -> tuple[Command, str]:
    asked: AdjustmentRequest = call.body
    account = call.params["account"]
    line = asked.line or derived_name("line", account, key)
    used_us = read_instant("period", asked.period)
    why = (asked.reason, call.actor)
    return Adjust(account, key, line, asked.amount, asked.currency, *why, asked.price, used_us), line


async def list_adjustments(call: Call) -> Reply:
    """GET /v1/customers/{account}/adjustments."""
    view = await described(call)
    items = [
        AdjustmentItem(
            each.line,
            instant(each.period_us),
            instant(each.posted_us),
            each.price,
            each.amount,
            each.reason,
            each.by,
        )
        for each in view.adjustments
    ]
    return Reply(AdjustmentList(items, view.currency, as_of_answer(view.as_of)))


# -------------------------------------------------------------------------------------------------------------- routes

_ACCOUNT: Final = {"account": "acme"}
_FIELDS: Final = {
    Refusal.BAD_AMOUNT: "amount",
    Refusal.CURRENCY_MISMATCH: "currency",
    Refusal.UNKNOWN_PRICE: "price",
    Refusal.LINE_EXISTS: "line",
    Refusal.NO_REASON: "reason",
    Refusal.BAD_PERIOD: "period",
}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/customers/{account}/adjustments",
        scope=KeyScope.CREDIT,
        handler=commanded("adjustment.add", _adjust, _FIELDS),
        summary="Charge or give back by hand",
        description=(
            "A line of its own, with its reason and the key that asked. It is posted now, for the billing period of "
            "`period`: above 0 it is paid by credit that is valid now, and the rest is debt; below 0 it goes back where "
            "it came from: off the period's debt first, then to the lots that paid for the period, and what is left is "
            "owed to the customer. It counts in no cap and no tier, and nothing that was rated changes." + COMMAND_TEXT
        ),
        tags=("money",),
        account_from="path",
        request=AdjustmentRequest,
        response=CommandAnswer,
        status=201,
        deadline_s=COMMAND_DEADLINE_S,
        also={
            409: "The account has a line of this id.",
            422: "The account's state does not allow it; `type` says why, `field` what must change.",
        },
        example=Example(
            params=_ACCOUNT,
            request={"amount": "-12.5", "currency": "USD", "reason": "goodwill for the outage", "line": "case-881"},
            response=made_example("case-881"),
        ),
    ),
    Route(
        method="GET",
        path="/v1/customers/{account}/adjustments",
        scope=KeyScope.READ,
        handler=list_adjustments,
        summary="List adjustments",
        description=(
            "Manual lines, and for each closed billing period what late usage of it changed since, by price and by when it was "
            "posted. `usage` and what a period was closed with stay as they are."
        ),
        tags=("money",),
        account_from="path",
        response=AdjustmentList,
        example=Example(
            params=_ACCOUNT,
            response={
                "items": [
                    {
                        "line": None,
                        "period": "2026-10-01T00:00:00Z",
                        "posted": "2026-11-01T00:00:00Z",
                        "price": "output-large",
                        "amount": "0.300000000000",
                        "reason": "",
                        "by": "",
                    },
                    {
                        "line": "case-881",
                        "period": "2026-11-01T00:00:00Z",
                        "posted": "2026-11-22T10:00:00Z",
                        "price": "",
                        "amount": "-12.500000000000",
                        "reason": "goodwill for the outage",
                        "by": "key:7f3a",
                    },
                ],
                "currency": "USD",
                "as_of": AS_OF_EXAMPLE,
            },
        ),
    ),
)
