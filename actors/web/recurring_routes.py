"""Recurring grants over HTTP: set, removed, listed. Their lots are lots like any other."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from actors.web.acts import COMMAND_TEXT, commanded
from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, CHANGE, READ, Amount, Currency, described, made_example
from actors.web.hot import AsOfAnswer, Name, as_of_answer
from actors.web.money import Priority, RolloverRequest
from actors.web.times import instant
from actors.web.wire import Call, Example, KeyScope, Reply, Route
from engine.commands import LOT_DAYS_MAX
from engine.events import Command, RemoveRecurringGrant, Rollover, SetRecurringGrant
from engine.outcomes import Refusal


class RecurringGrantRequest(Struct, forbid_unknown_fields=True):
    """A lot in this period, and in each to come."""

    every: Literal["period", "month", "week"]  # billing period; or calendar month or week of the account's zone
    amount: Amount
    currency: Currency
    kind: Literal["promo", "commit", "refund", "paid"] = "promo"
    priority: Priority = 100
    prices: Annotated[tuple[Name, ...], Meta(max_length=100)] = ()  # what it may pay for; none: everything
    pays_debt: bool = False  # whether it also settles debt when it becomes effective
    expires: bool = True  # at the end of its period, or after `days`; false: never
    days: Annotated[int, Meta(ge=1, le=LOT_DAYS_MAX)] | None = None
    rollover: RolloverRequest | None = None


class RecurringGrantItem(Struct):
    grant: str
    every: str
    kind: str
    amount: str
    priority: int
    prices: list[str]
    pays_debt: bool
    expires: bool
    days: int | None
    rollover: RolloverRequest | None
    next: str | None  # when its next lot begins; none while the account is paused and nobody has said until when


class RecurringGrantList(Struct):
    items: list[RecurringGrantItem]
    as_of: AsOfAnswer


def _set(call: Call, key: str) -> tuple[Command, str]:
    asked: RecurringGrantRequest = call.body
    grant = call.params["grant"]
    rolled = asked.rollover
    command = SetRecurringGrant(
        call.params["account"],
        key,
        grant,
        asked.every,
        asked.kind,
        asked.amount,
        asked.currency,
        asked.priority,
        asked.prices,
        asked.pays_debt,
        asked.expires,
        asked.days,
        None if rolled is None else Rollover(rolled.percent, rolled.days, rolled.cap),
    )
    return command, grant


def _remove(call: Call, key: str) -> tuple[Command, str]:
    return RemoveRecurringGrant(call.params["account"], key, call.params["grant"]), call.params["grant"]


async def list_recurring(call: Call) -> Reply:
    """GET /v1/customers/{account}/recurring-grants."""
    view = await described(call)
    items = [
        RecurringGrantItem(
            each.grant,
            each.every,
            each.kind,
            each.amount,
            each.priority,
            list(each.scope),
            each.pays_debt,
            each.expires,
            each.days,
            None if each.rollover is None else RolloverRequest(*each.rollover),
            None if each.next_us is None else instant(each.next_us),
        )
        for each in view.recurring
    ]
    return Reply(RecurringGrantList(items, as_of_answer(view.as_of)))


_PATH: Final = "/v1/customers/{account}/recurring-grants/{grant}"
_ONE: Final = {"account": "acme", "grant": "monthly"}
_CREDIT: Final[dict[str, Any]] = {**CHANGE, "scope": KeyScope.CREDIT, "tags": ("money",)}

ROUTES: Final = (
    Route(
        method="PUT",
        path=_PATH,
        handler=commanded(
            "recurring_grant.set",
            _set,
            {
                Refusal.BAD_AMOUNT: "amount",
                Refusal.CURRENCY_MISMATCH: "currency",
                Refusal.BAD_ROLLOVER: "rollover",
                Refusal.UNKNOWN_PRICE: "prices",
                Refusal.BAD_RECURRING: "days",
                Refusal.TOO_MANY_RECURRING: "grant",
            },
        ),
        summary="Set or replace a recurring grant",
        description=(
            "The lot of the period that is running begins at once, whole; that of each further period with it, for ever. "
            "A lot's id is the grant's, `@`, and the day on which its period begins (`monthly@2026-12-01`), made five "
            "minutes before. Setting it again changes what is granted from the next period on. A period has one lot of a "
            "grant, and none that begins while the account is paused. All of an account make at most 120 lots a year (a week "
            "53, else 12; twice that with `rollover`), as its lots stay." + COMMAND_TEXT
        ),
        example=Example(
            params=_ONE,
            request={"every": "period", "amount": "1000", "currency": "USD", "rollover": {"percent": 50, "days": 31}},
            response=made_example("monthly"),
        ),
        request=RecurringGrantRequest,
        **_CREDIT,
    ),
    Route(
        method="DELETE",
        path=_PATH,
        handler=commanded("recurring_grant.remove", _remove),
        summary="Remove a recurring grant",
        description="Lots that there are stay." + COMMAND_TEXT,
        example=Example(params=_ONE, response=made_example("monthly")),
        **_CREDIT,
    ),
    Route(
        path="/v1/customers/{account}/recurring-grants",
        handler=list_recurring,
        summary="List recurring grants",
        description="And when the next lot of each begins. The lots stand in `GET .../grants`.",
        example=Example(
            params=ACCOUNT,
            response={
                "items": [
                    {
                        "grant": "monthly",
                        "every": "period",
                        "kind": "promo",
                        "amount": "1000",
                        "priority": 100,
                        "prices": [],
                        "pays_debt": False,
                        "expires": True,
                        "days": None,
                        "rollover": {"percent": 50, "days": 31, "cap": None},
                        "next": "2026-12-01T00:00:00Z",
                    }
                ],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=RecurringGrantList,
        **{**READ, "tags": ("money",)},
    ),
)
