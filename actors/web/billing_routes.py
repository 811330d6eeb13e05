"""How an account is billed, over HTTP: prepaid or postpaid, its credit limit, and what is due of closed periods."""

from typing import Any, Final, Literal

from msgspec import Struct

from actors.web.acts import COMMAND_DEADLINE_S, COMMAND_TEXT, CommandAnswer, commanded
from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, Amount, Currency, described, made_example
from actors.web.hot import AsOfAnswer, as_of_answer
from actors.web.times import instant
from actors.web.wire import Call, Example, KeyScope, Reply, Route
from engine.events import Command, SetBilling
from engine.outcomes import Refusal


class BillingRequest(Struct, forbid_unknown_fields=True):
    """Postpaid: the debt of a closed period is due, and checks may take the balance as far below zero as the limit."""

    billing: Literal["prepaid", "postpaid"]
    currency: Currency
    credit_limit: Amount | None = None  # of postpaid; left out: without limit


class DueItem(Struct):
    """What a closed period still owes."""

    period: str  # its start
    ends: str
    amount: str


class BillingView(Struct):
    billing: str
    credit_limit: str | None  # how far checks may take the balance below zero; null: without limit
    due: list[DueItem]  # of closed periods, oldest first: a payment settles them in this order
    currency: str
    as_of: AsOfAnswer


def _billing(call: Call, key: str) -> tuple[Command, str]:
    asked: BillingRequest = call.body
    account = call.params["account"]
    return SetBilling(account, key, asked.billing, asked.currency, asked.credit_limit), account


async def show_billing(call: Call) -> Reply:
    """GET /v1/customers/{account}/billing."""
    view = await described(call)
    due = [DueItem(instant(start), instant(end), amount) for start, end, amount in view.due]
    shown = BillingView(view.billing, view.wallet.overdraft, due, view.currency, as_of_answer(view.as_of))
    return Reply(shown)


# -------------------------------------------------------------------------------------------------------------- routes

_OWN: Final[dict[str, Any]] = {"path": "/v1/customers/{account}/billing", "tags": ("money",), "account_from": "path"}
_FIELDS: Final = {
    Refusal.BAD_AMOUNT: "credit_limit",
    Refusal.CURRENCY_MISMATCH: "currency",
    Refusal.BAD_BILLING: "billing",
}

ROUTES: Final = (
    Route(
        method="PUT",
        scope=KeyScope.CREDIT,
        handler=commanded("billing.set", _billing, _FIELDS),
        summary="Bill an account before or behind what it uses",
        description=(
            "`postpaid`: when a billing period closes, its debt becomes due, as a posting of its own, and counts against the "
            "credit limit until it is paid: a payment (`top-ups`) settles what is owed, oldest first. `prepaid`: debt stays "
            "debt, and checks are denied below zero, unless an overdraft is set." + COMMAND_TEXT
        ),
        example=Example(
            params=ACCOUNT,
            request={"billing": "postpaid", "credit_limit": "500", "currency": "USD"},
            response=made_example("acme"),
        ),
        request=BillingRequest,
        response=CommandAnswer,
        deadline_s=COMMAND_DEADLINE_S,
        also={422: "The account's state does not allow it; `type` says why, `field` what must change."},
        **_OWN,
    ),
    Route(
        method="GET",
        scope=KeyScope.READ,
        handler=show_billing,
        summary="Show how an account is billed, and what is due",
        description="What is due is a part of the debt in `booked`. It is paid, oldest first, by the next payment.",
        response=BillingView,
        example=Example(
            params=ACCOUNT,
            response={
                "billing": "postpaid",
                "credit_limit": "500",
                "due": [{"period": "2026-10-01T00:00:00Z", "ends": "2026-11-01T00:00:00Z", "amount": "120.5"}],
                "currency": "USD",
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        **_OWN,
    ),
)
