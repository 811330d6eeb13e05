"""Billing periods over HTTP: what each owes besides its usage, and how that comes about."""

from typing import Final

from msgspec import Struct

from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, described
from actors.web.hot import AsOfAnswer, as_of_answer
from actors.web.times import instant
from actors.web.wire import Call, Example, KeyScope, Reply, Route


class PeriodLineItem(Struct):
    """A line of a billing period that no usage event makes."""

    period: str  # its start
    ends: str
    kind: str  # fee, seat: of the plan; minimum, commitment: what usage falls short of the least that the period owes for it
    price: str  # or the name of the plan's fee, or of its commitment
    amount: str
    closed: bool  # false: a projection, as if nothing more were used in the period; of a fee in advance, what is posted by now
    of_month: str  # what is sold for a whole month
    of_period: str  # and for this one, as long as the account had the plan in it


class PeriodLineList(Struct):
    items: list[PeriodLineItem]
    currency: str
    as_of: AsOfAnswer


async def list_period_lines(call: Call) -> Reply:
    """GET /v1/customers/{account}/period-lines."""
    view = await described(call)
    items = [
        PeriodLineItem(
            instant(each.period_us),
            instant(each.ends_us),
            each.kind,
            each.price,
            each.amount,
            each.closed,
            each.month,
            each.period,
        )
        for each in view.period_lines
    ]
    return Reply(PeriodLineList(items, view.currency, as_of_answer(view.as_of)))


# -------------------------------------------------------------------------------------------------------------- routes

_MINIMUM: Final = {"kind": "minimum", "price": "output-large"}

ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/customers/{account}/period-lines",
        scope=KeyScope.READ,
        handler=list_period_lines,
        summary="List what periods owe besides usage",
        description=(
            "Lines that no usage event makes. Of a closed period they are posted, each as far as what came late has left it; "
            "of one that is open they are a projection: what it would owe if it closed with what is used by now, but for fees "
            "in advance and seats, which are posted (`of_month` is of one seat). "
            "`of_period` is the part of `of_month` for as long as the account had the plan in the period, by its seconds (of a "
            "fee, those not paused); the `amount` of a minimum or a commitment is what the usage of what it covers, behind the "
            "discount of each price, falls short of that. "
            "Only lots that pay debt pay for such a line."
        ),
        tags=("money",),
        account_from="path",
        response=PeriodLineList,
        example=Example(
            params=ACCOUNT,
            response={
                "items": [
                    {"period": "2026-10-01T00:00:00Z", "ends": "2026-11-01T00:00:00Z"}
                    | _MINIMUM
                    | {"amount": "300", "closed": True, "of_month": "1000", "of_period": "1000"},
                    {"period": "2026-11-01T00:00:00Z", "ends": "2026-12-01T00:00:00Z"}
                    | _MINIMUM
                    | {"amount": "985.600000000000", "closed": False, "of_month": "1000", "of_period": "1000"},
                ],
                "currency": "USD",
                "as_of": AS_OF_EXAMPLE,
            },
        ),
    ),
)
