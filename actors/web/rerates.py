"""Re-rating over HTTP: what past usage would come to under another published version, and the difference posted."""

from typing import Annotated, Final

import msgspec
from msgspec import Meta, Struct

from actors.door_wire import NotFound, Recovering, ReratedView, ShowRerated
from actors.web.acts import COMMAND_DEADLINE_S, COMMAND_TEXT, CommandAnswer, commanded
from actors.web.adjustments import Why
from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, Amount, Currency, made_example, recovering
from actors.web.hot import AsOfAnswer, Name, as_of_answer, put
from actors.web.times import instant, read_instant
from actors.web.wire import Call, Example, KeyScope, QueryParameter, Reply, Route, absent, invalid, unavailable
from engine.commands import INSTANT_LIMIT_US
from engine.events import Command, Rerate
from engine.money import amount_text, parse_amount
from engine.outcomes import Refusal

Time = Annotated[str, Meta(max_length=64)]
Version = Annotated[int, Meta(ge=1, le=2**63 - 1)]


class DifferenceItem(Struct):
    """One price in one billing period, with what came late. Only `difference` is posted."""

    price: str
    period: str  # its start
    rated: str  # as it was rated
    posted: str  # by earlier re-ratings
    owed: str  # under the version
    difference: str  # owed - rated - posted; above 0 it is charged


class RefusedPrice(Struct):
    price: str
    reason: str


class ReratedAnswer(Struct):
    """What posting it would charge, or below 0 give back. Nothing has changed."""

    account: str
    plan: str
    currency: str
    items: list[DifferenceItem]
    refused: list[RefusedPrice]  # prices that cannot be rated again, and why
    difference: str  # of all items
    as_of: AsOfAnswer


class PeriodDifference(Struct, forbid_unknown_fields=True):
    period: Time
    difference: Amount


class RerateRequest(Struct, forbid_unknown_fields=True):
    """What a dry run found. It is posted if it is still so, whole or not at all."""

    rerate: Name  # its id: of one id, a price is rated again once
    price: Name
    version: Version
    from_: Time = msgspec.field(name="from")
    currency: Currency
    differences: Annotated[list[PeriodDifference], Meta(min_length=1, max_length=1000)]
    reason: Why
    to: Time | None = None  # absent: all that was used since


def _range(since: str, until: str | None) -> tuple[int, int]:
    from_us, to_us = read_instant("from", since), read_instant("to", until)
    assert from_us is not None
    return from_us, INSTANT_LIMIT_US if to_us is None else to_us


async def show_rerated(call: Call) -> Reply:
    """GET /v1/customers/{account}/rerated."""
    asked = _range(call.query["from"], call.query["to"])
    question = ShowRerated(call.params["account"], call.query["price"], call.query["version"], *asked)
    answer = await put(call.services, question.account, question)
    if isinstance(answer, NotFound):
        raise absent("account")
    if isinstance(answer, Recovering):
        raise recovering(answer)
    if not isinstance(answer, ReratedView):
        raise unavailable("The owner of the account did not answer in time.")
    items = [
        DifferenceItem(each.price, instant(each.period_us), each.rated, each.posted, each.owed, each.difference)
        for each in answer.items
    ]
    total = amount_text(sum(parse_amount(each.difference) for each in answer.items))
    refused = [RefusedPrice(*each) for each in answer.refused]
    as_of = as_of_answer(answer.as_of)
    return Reply(ReratedAnswer(answer.account, answer.plan, answer.currency, items, refused, total, as_of))


def _rerate(call: Call, key: str) -> tuple[Command, str]:
    asked: RerateRequest = call.body
    differences = []
    for each in asked.differences:
        period_us = read_instant("differences.period", each.period)
        assert period_us is not None
        differences.append((period_us, each.difference))
    if len(dict(differences)) != len(differences):
        raise invalid("differences", "It has one entry for each billing period.")
    command = Rerate(
        *(call.params["account"], key, asked.rerate, asked.price, asked.version, *_range(asked.from_, asked.to)),
        asked.currency,
        tuple(differences),
        asked.reason,
        call.actor,
    )
    return command, asked.rerate


# -------------------------------------------------------------------------------------------------------------- routes

_FIELDS: Final = {
    Refusal.BAD_AMOUNT: "differences",
    Refusal.CURRENCY_MISMATCH: "currency",
    Refusal.UNKNOWN_PRICE: "price",
    Refusal.BAD_PRICE: "price",
    Refusal.UNKNOWN_VERSION: "version",
    Refusal.BAD_PERIOD: "to",
    Refusal.MID_SEGMENT: "from",
    Refusal.MID_PERIOD: "from",
    Refusal.LINE_EXISTS: "rerate",
    Refusal.RERATE_CHANGED: "differences",
    Refusal.NO_DIFFERENCE: "differences",
    Refusal.NO_REASON: "reason",
}
_ASKED: Final = {"price": "output-large", "version": 3, "from": "2026-10-01T00:00:00Z", "to": "2026-11-01T00:00:00Z"}

ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/customers/{account}/rerated",
        scope=KeyScope.READ,
        handler=show_rerated,
        summary="Dry run of a re-rating",
        description=(
            "What the usage of the customer between two instants would come to under another published version of its "
            "prices, by price and billing period, and the exact difference to what it was charged. The instants are those "
            "at which something began, such as a version or a billing period; prices agreed with the customer stay as they "
            "are. Nothing changes."
        ),
        tags=("money",),
        account_from="path",
        query=(
            QueryParameter("version", "integer", "the published version to rate by", minimum=1, required=True),
            QueryParameter("from", "text", "RFC 3339: where it begins", required=True),
            QueryParameter("to", "text", "RFC 3339: where it ends; absent: with all that was used"),
            QueryParameter("price", "text", "only this one; absent: every price of the customer's plan"),
        ),
        response=ReratedAnswer,
        example=Example(
            params=ACCOUNT,
            query={name: str(value) for name, value in _ASKED.items()},
            response={
                "account": "acme",
                "plan": "starter",
                "currency": "USD",
                "items": [
                    {
                        "price": "output-large",
                        "period": "2026-10-01T00:00:00Z",
                        "rated": "15",
                        "posted": "0",
                        "owed": "12",
                        "difference": "-3",
                    }
                ],
                "refused": [],
                "difference": "-3",
                "as_of": AS_OF_EXAMPLE,
            },
        ),
    ),
    Route(
        method="POST",
        path="/v1/customers/{account}/rerates",
        scope=KeyScope.ADMIN,
        handler=commanded("rerate.apply", _rerate, _FIELDS),
        summary="Post a re-rating",
        description=(
            "Posts the differences that a dry run found, as lines that name it: like adjustments they count in no cap and no "
            "tier, and nothing that was rated or published changes. If the dry run would find something else by now, "
            "nothing is posted. A price is rated again once under one id." + COMMAND_TEXT
        ),
        tags=("money",),
        account_from="path",
        request=RerateRequest,
        response=CommandAnswer,
        status=201,
        deadline_s=COMMAND_DEADLINE_S,
        also={
            409: "The price was rated again under this id before.",
            422: "The account's state does not allow it; `type` says why, `field` what must change.",
        },
        example=Example(
            params=ACCOUNT,
            request={
                "rerate": "wrong-october",
                **_ASKED,
                "currency": "USD",
                "differences": [{"period": "2026-10-01T00:00:00Z", "difference": "-3"}],
                "reason": "version 2 had the price of another model",
            },
            response=made_example("wrong-october"),
        ),
    ),
)
