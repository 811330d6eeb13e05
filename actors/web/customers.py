"""Customers over HTTP: opened, described, limited. A customer is an account; its scopes are teams, users, keys within.

Every change is a command in the account's own log; every description comes from the account's owner, as of now. Only
the list of all customers is read from checkpoints.
"""

import math
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from actors.door_wire import AccountView, CapView, Describe, NotFound, Recovering, WalletView
from actors.records import BadCursor, CustomerRow
from actors.web.acts import COMMAND_DEADLINE_S, COMMAND_EXAMPLE, COMMAND_TEXT, CommandAnswer, commanded
from actors.web.hot import AsOfAnswer, BalanceAnswer, Name, as_of_answer, put
from actors.web.times import instant_or_none
from actors.web.wire import Call, Example, KeyScope, Problem, Reply, Route, Services, absent, invalid, unavailable
from engine.events import (
    KEY_BYTES_MAX,
    Command,
    OpenAccount,
    RemoveCap,
    SetCap,
    SetScope,
)
from engine.outcomes import Refusal

Amount = Annotated[str, Meta(min_length=1, max_length=32)]  # decimal text; the engine judges it
Currency = Annotated[str, Meta(pattern="^[A-Z][A-Z0-9]{2,11}$")]  # or a unit of the catalogue
ScopePath = Annotated[str, Meta(max_length=520)]
Standing = Literal["active", "past_due", "suspended"]
WindowKind = Literal["month", "week", "day", "hour", "first_use", "rolling", "request"]
Basis = Literal["charged", "list", "due"]


async def described(call: Call) -> AccountView:
    """All that its owner knows of the account in the path. Raises Problem."""
    return await described_by_owner(call.services, call.params["account"])


async def described_by_owner(services: Services, account: str) -> AccountView:
    """All that the owner of an account knows of it. Raises Problem."""
    answer = await put(services, account, Describe(account))
    if isinstance(answer, AccountView):
        return answer
    if isinstance(answer, NotFound):
        raise absent("account")
    if isinstance(answer, Recovering):
        raise recovering(answer)
    raise unavailable("The owner of the account did not answer in time.")


def recovering(answer: Recovering) -> Problem:
    """503: a new owner of the account is catching up with the log."""
    return unavailable(
        "The account's owner has just changed, and is not ready yet.", math.ceil(answer.retry_after_ms / 1000)
    )


def balance_answer(wallet: WalletView) -> BalanceAnswer:
    return BalanceAnswer(wallet.booked, wallet.held, wallet.available, wallet.overdraft, wallet.currency)


def bad_cursor() -> Problem:
    """400, naming the cursor."""
    return invalid("cursor", "It is no cursor of this list.", "Take `next_cursor` of the page before, unchanged.")


# ------------------------------------------------------------------------------------------------------------ accounts


class CustomerRequest(Struct, forbid_unknown_fields=True):
    """The account wanted. Its currency is the plan's."""

    account: Annotated[str, Meta(min_length=1, max_length=KEY_BYTES_MAX)]
    plan: Name
    zone: Name = "UTC"  # IANA: billing periods and calendar months follow it
    anchor_day: Annotated[int, Meta(ge=1, le=31)] = 1  # on which day a billing period starts


class CustomerItem(Struct):
    """One account as its last checkpoint has it, seconds ago at most."""

    account: str
    partition: int
    currency: str
    balance: str
    spend: str  # of the newest calendar month with usage


class CustomerPage(Struct):
    items: list[CustomerItem]
    next_cursor: str | None


class CustomerView(Struct):
    """An account as its owner has it now."""

    account: str
    plan: str
    currency: str
    zone: str
    anchor_day: int
    standing: str
    events_rated: int
    open_holds: int
    balance: BalanceAnswer
    as_of: AsOfAnswer


def _open(call: Call, key: str) -> tuple[Command, str]:
    asked: CustomerRequest = call.body
    if len(asked.account.encode()) > KEY_BYTES_MAX or not asked.account.isprintable():
        raise invalid("account", f"It has 1 to {KEY_BYTES_MAX} bytes of printable characters.")
    return OpenAccount(asked.account, key, asked.plan, asked.zone, asked.anchor_day), asked.account


async def list_customers(call: Call) -> Reply:
    """GET /v1/customers."""
    try:
        rows, cursor = await call.services.records.customers(call.query["limit"], call.query["cursor"])
    except BadCursor:
        raise bad_cursor() from None
    return Reply(CustomerPage([_item(row) for row in rows], cursor))


def _item(row: CustomerRow) -> CustomerItem:
    return CustomerItem(row.account, row.partition, row.currency, row.balance, row.spend)


async def show_customer(call: Call) -> Reply:
    """GET /v1/customers/{account}."""
    view = await described(call)
    standing = next((scope.standing for scope in view.scopes if scope.scope == ""), "active")
    return Reply(
        CustomerView(
            view.account,
            view.plan,
            view.currency,
            view.zone,
            view.anchor_day,
            standing,
            view.rated,
            view.open_holds,
            balance_answer(view.wallet),
            as_of_answer(view.as_of),
        )
    )


# -------------------------------------------------------------------------------------------------- scopes and standing


class ScopeRequest(Struct, forbid_unknown_fields=True):
    """A scope to be declared, or whose standing changes."""

    scope: Annotated[str, Meta(min_length=1, max_length=520)]  # "team:red/user:ann"; those above it come first
    standing: Standing


class StandingRequest(Struct, forbid_unknown_fields=True):
    """All but `active` deny checks; usage that arrives is rated all the same."""

    standing: Standing
    scope: ScopePath = ""  # "": the whole account


class ScopeItem(Struct):
    scope: str  # "": the account itself
    standing: str
    spent: str  # in the calendar month of the account
    allowed: dict[str, list[str]]  # field of an event -> the only values that checks admit here


class ScopeList(Struct):
    items: list[ScopeItem]
    as_of: AsOfAnswer


def _declare(call: Call, key: str) -> tuple[Command, str]:
    asked: ScopeRequest = call.body
    return SetScope(call.params["account"], key, asked.scope, asked.standing), asked.scope


def _stand(call: Call, key: str) -> tuple[Command, str]:
    asked: StandingRequest = call.body
    return SetScope(call.params["account"], key, asked.scope, asked.standing), asked.scope


async def list_scopes(call: Call) -> Reply:
    """GET /v1/customers/{account}/scopes."""
    view = await described(call)
    items = [
        ScopeItem(
            scope.scope, scope.standing, scope.spent, {name: list(values) for name, values in scope.allowed.items()}
        )
        for scope in view.scopes
    ]
    return Reply(ScopeList(items, as_of_answer(view.as_of)))


# ------------------------------------------------------------------------------------------------ caps, rules and rates


class CapRequest(Struct, forbid_unknown_fields=True):
    """The most that may be spent in a window, or the most units of a meter or a price that may be used in it."""

    amount: Amount
    currency: Currency | None = None  # of money; absent for units
    scope: ScopePath = ""  # "": the whole account
    hard: bool = True  # denies checks; else it only feeds rules
    window: WindowKind = "month"  # of the account's zone; first_use opens with the first usage; request: each by itself
    length_s: Annotated[int, Meta(ge=60, le=2_592_000)] | None = None  # of rolling and first_use: whole minutes
    meter: Name | None = None  # count its units instead of money
    price: Name | None = None  # likewise
    beyond: Literal["owed", "waived"] = "owed"  # waived: what is spent beyond it in a month is not owed
    basis: Basis = (
        "charged"  # of money: behind the discount and before credit; list: before the discount; due: becomes debt
    )


class CapItem(Struct):
    cap: str
    scope: str
    hard: bool
    amount: str
    spent: str  # in the window of this moment
    window: str
    length_s: int | None
    unit: str  # the meter or price whose units it counts; "": money
    resets_at: str | None  # when the window ends, or a rolling one begins to sink; null: nothing is counted in it
    basis: str  # which money it counts: charged, list or due
    beyond: str  # owed, or waived: what is spent beyond it in a month


class CapList(Struct):
    items: list[CapItem]
    as_of: AsOfAnswer


def _cap(call: Call, key: str) -> tuple[Command, str]:
    asked: CapRequest = call.body
    cap = call.params["cap"]
    command = SetCap(
        call.params["account"],
        key,
        cap,
        asked.amount,
        asked.currency,
        asked.scope,
        asked.hard,
        asked.window,
        asked.length_s,
        asked.meter,
        asked.price,
        asked.basis,
        asked.beyond,
    )
    return command, cap


def _no_cap(call: Call, key: str) -> tuple[Command, str]:
    return RemoveCap(call.params["account"], key, call.params["cap"]), call.params["cap"]


async def list_caps(call: Call) -> Reply:
    """GET /v1/customers/{account}/caps."""
    view = await described(call)
    return Reply(CapList([_cap_item(cap) for cap in view.caps], as_of_answer(view.as_of)))


def _cap_item(cap: CapView) -> CapItem:
    window = cap.window, cap.length_s, cap.unit, instant_or_none(cap.resets_us)
    return CapItem(cap.cap, cap.scope, cap.hard, cap.amount, cap.spent, *window, cap.basis, cap.beyond)


# -------------------------------------------------------------------------------------------------------------- routes

AS_OF_EXAMPLE: Final = {
    "partition": 3,
    "epoch": 7,
    "offset": 18250,
    "log_time": "2026-11-22T10:00:00Z",
    "lag_records": 0,
}
BALANCE_EXAMPLE: Final = {
    "booked": "12.5",
    "held": "0.03",
    "available": "12.47",
    "overdraft": "0",
    "currency": "USD",
}
_OWN: Final[dict[str, Any]] = {"tags": ("customers",), "account_from": "path"}
CHANGE: Final[dict[str, Any]] = {
    **_OWN,
    "scope": KeyScope.ADMIN,
    "response": CommandAnswer,
    "deadline_s": COMMAND_DEADLINE_S,
    "also": {422: "The account's state does not allow it; `type` says why, `field` what must change."},
}
READ: Final[dict[str, Any]] = {**_OWN, "method": "GET", "scope": KeyScope.READ}
ACCOUNT: Final = {"account": "acme"}


def made_example(name: str) -> dict[str, Any]:
    """A command's answer, for the documents."""
    return {**COMMAND_EXAMPLE, "id": name}


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/customers",
        handler=commanded(
            "account.open",
            _open,
            {
                Refusal.ACCOUNT_EXISTS: "account",
                Refusal.UNKNOWN_PLAN: "plan",
                Refusal.UNKNOWN_ZONE: "zone",
                Refusal.BAD_ANCHOR: "anchor_day",
            },
        ),
        summary="Open an account",
        description="The account can be charged as soon as the answer is there. It has no credit yet." + COMMAND_TEXT,
        example=Example(
            request={"account": "acme", "plan": "starter", "zone": "Europe/Berlin", "anchor_day": 1},
            response=made_example("acme"),
        ),
        request=CustomerRequest,
        **{
            **CHANGE,
            "status": 201,
            "account_from": "body",
            "also": {**CHANGE["also"], 409: "There is such an account already."},
        },
    ),
    Route(
        method="GET",
        path="/v1/customers",
        scope=KeyScope.READ,
        handler=list_customers,
        summary="List accounts",
        description="From the last checkpoints, as the ledger: an account appears about a second after it was opened.",
        tags=("customers",),
        example=Example(
            response={
                "items": [{"account": "acme", "partition": 3, "currency": "USD", "balance": "12.5", "spend": "37.5"}],
                "next_cursor": None,
            }
        ),
        response=CustomerPage,
        paginated=True,
    ),
    Route(
        path="/v1/customers/{account}",
        handler=show_customer,
        summary="Show one account",
        description="From the account's owner, as of now.",
        example=Example(
            params=ACCOUNT,
            response={
                "account": "acme",
                "plan": "starter",
                "currency": "USD",
                "zone": "Europe/Berlin",
                "anchor_day": 1,
                "standing": "active",
                "events_rated": 1024,
                "open_holds": 1,
                "balance": BALANCE_EXAMPLE,
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=CustomerView,
        **READ,
    ),
    Route(
        method="PUT",
        path="/v1/customers/{account}/scopes",
        handler=commanded(
            "scope.set",
            _declare,
            {
                Refusal.BAD_SCOPE: "scope",
                Refusal.UNKNOWN_SCOPE: "scope",
                Refusal.TOO_MANY_SCOPES: "scope",
                Refusal.BAD_STANDING: "standing",
            },
        ),
        summary="Declare a scope, or change its standing",
        description=(
            "A scope is a path inside the account, such as `team:red/user:ann`; it stands in the body, since it holds "
            "slashes. Those above it must be declared first. Usage of an undeclared scope counts for those above it only."
            + COMMAND_TEXT
        ),
        example=Example(
            params=ACCOUNT,
            request={"scope": "team:red", "standing": "active"},
            response=made_example("team:red"),
        ),
        request=ScopeRequest,
        **CHANGE,
    ),
    Route(
        path="/v1/customers/{account}/scopes",
        handler=list_scopes,
        summary="List declared scopes",
        description='With what each has spent this calendar month. The scope `""` is the account itself.',
        example=Example(
            params=ACCOUNT,
            response={
                "items": [
                    {"scope": "", "standing": "active", "spent": "37.5", "allowed": {}},
                    {"scope": "team:red", "standing": "active", "spent": "12", "allowed": {"model": ["atlas-1"]}},
                ],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=ScopeList,
        **READ,
    ),
    Route(
        method="PUT",
        path="/v1/customers/{account}/standing",
        handler=commanded(
            "standing.set",
            _stand,
            {
                Refusal.BAD_SCOPE: "scope",
                Refusal.UNKNOWN_SCOPE: "scope",
                Refusal.TOO_MANY_SCOPES: "scope",
                Refusal.BAD_STANDING: "standing",
            },
        ),
        summary="Suspend an account or a scope, or let it go on",
        description="`past_due` and `suspended` deny every check below; what was used is rated all the same."
        + COMMAND_TEXT,
        example=Example(params=ACCOUNT, request={"standing": "suspended"}, response=made_example("")),
        request=StandingRequest,
        **CHANGE,
    ),
    Route(
        method="PUT",
        path="/v1/customers/{account}/caps/{cap}",
        handler=commanded(
            "cap.set",
            _cap,
            {
                Refusal.BAD_AMOUNT: "amount",
                Refusal.CURRENCY_MISMATCH: "currency",
                Refusal.UNKNOWN_PRICE: "price",
                Refusal.UNKNOWN_SCOPE: "scope",
                Refusal.UNKNOWN_METER: "meter",
                Refusal.BAD_CAP: "window",
                Refusal.BAD_BASIS: "basis",
                Refusal.BAD_BEYOND: "beyond",
                Refusal.TOO_MANY_CAPS: "cap",
            },
        ),
        summary="Set or replace a cap",
        description=(
            "A cap binds checks, never rating: usage that happened is always rated. Caps stand side by side, each with its "
            "window; all but that of a month's spend count from the moment they are set." + COMMAND_TEXT
        ),
        example=Example(
            params={"account": "acme", "cap": "monthly"},
            request={"amount": "500", "currency": "USD", "scope": "team:red"},
            response=made_example("monthly"),
        ),
        request=CapRequest,
        **CHANGE,
    ),
    Route(
        method="DELETE",
        path="/v1/customers/{account}/caps/{cap}",
        handler=commanded("cap.remove", _no_cap, {Refusal.UNKNOWN_CAP: "cap", Refusal.CAP_IN_USE: "cap"}),
        summary="Remove a cap",
        description="It binds no check from then on, and what it counted is forgotten." + COMMAND_TEXT,
        example=Example(params={"account": "acme", "cap": "monthly"}, response=made_example("monthly")),
        **CHANGE,
    ),
    Route(
        path="/v1/customers/{account}/caps",
        handler=list_caps,
        summary="List caps",
        description="With what is spent of each in its window as of now.",
        example=Example(
            params=ACCOUNT,
            response={
                "items": [
                    {
                        "cap": "monthly",
                        "scope": "team:red",
                        "hard": True,
                        "amount": "500",
                        "spent": "12",
                        "window": "month",
                        "length_s": None,
                        "unit": "",
                        "resets_at": "2026-12-01T00:00:00Z",
                        "basis": "charged",
                        "beyond": "owed",
                    }
                ],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=CapList,
        **READ,
    ),
)
