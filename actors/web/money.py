"""Credit and what became of it: grants, top-ups, balance, usage, the ledger, alerts. All amounts are decimal text."""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Raw, Struct
from msgspec.structs import astuple

from actors.commands import derived_name
from actors.door_wire import Balance, BalanceView, NotFound, Recovering
from actors.records import AlertRecord, BadCursor, PostingRow
from actors.web.acts import COMMAND_DEADLINE_S, COMMAND_TEXT, CommandAnswer, commanded
from actors.web.customers import (
    AS_OF_EXAMPLE,
    BALANCE_EXAMPLE,
    Amount,
    Currency,
    bad_cursor,
    balance_answer,
    described,
    made_example,
    recovering,
)
from actors.web.hot import AsOfAnswer, BalanceAnswer, Name, as_of_answer, put
from actors.web.times import instant, instant_or_none, read_instant
from actors.web.wire import Call, Example, KeyScope, QueryParameter, Reply, Route, absent, unavailable
from engine.events import Command, Grant, RefundLot, Rollover, SetOverdraft, VoidLot
from engine.outcomes import Refusal

Priority = Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]
Time = Annotated[str, Meta(max_length=64)]


# -------------------------------------------------------------------------------------------------------------- credit


class RolloverRequest(Struct, forbid_unknown_fields=True):
    """What becomes of a lot's rest when it expires: it lives on, as a lot of its own, whose id is this one's + `~carried`."""

    percent: Annotated[int, Meta(ge=1, le=100)]  # of the rest
    days: Annotated[int, Meta(ge=1, le=3660)]  # of 24 hours: how long it lives
    cap: Amount | None = None  # the most that is carried; absent: no limit


class GrantRequest(Struct, forbid_unknown_fields=True):
    """A lot of credit. It pays for usage from `effective` to `expires`, never for what was rated before."""

    amount: Amount
    currency: Currency
    kind: Literal["promo", "commit", "refund", "paid"] = "promo"
    lot: Name | None = None  # its id; absent: one that follows from the idempotency key
    priority: Priority = 100  # a smaller number is spent first
    effective: Time | None = None  # absent: at once
    expires: Time | None = None  # absent: never
    prices: Annotated[tuple[Name, ...], Meta(max_length=100)] = ()  # what it may pay for; none: everything
    pays_debt: bool | None = None  # whether it also settles debt when it becomes effective; absent: a paid one does
    rollover: RolloverRequest | None = None  # takes `expires`


class VoidRequest(Struct, forbid_unknown_fields=True):
    """Credit taken away, such as a payment that was paid back."""

    currency: Currency
    amount: Amount | None = None  # absent: all that remains, and the lot is over


class RefundRequest(Struct, forbid_unknown_fields=True):
    """Credit given back to the lot that has paid."""

    amount: Amount
    currency: Currency


class TopUpRequest(Struct, forbid_unknown_fields=True):
    """A payment that was received. It also settles debt, oldest first."""

    amount: Amount
    currency: Currency
    lot: Name | None = None  # its id, such as the payment's; absent: one that follows from the idempotency key
    priority: Priority = 100
    expires: Time | None = None


class OverdraftRequest(Struct, forbid_unknown_fields=True):
    """How far checks may take the balance below zero."""

    amount: Amount | None  # null: without limit
    currency: Currency


class LotItem(Struct):
    """One lot, and what is left of it."""

    lot: str
    kind: str
    granted: str
    remaining: str
    expired: str
    priority: int
    effective: str
    expires: str | None
    prices: list[str]
    refunded: str
    voided: str
    carried: str  # to the lot that has its rest since it expired
    pays_debt: bool


class LotList(Struct):
    items: list[LotItem]
    as_of: AsOfAnswer


def _grant(call: Call, key: str) -> tuple[Command, str]:
    asked: GrantRequest = call.body
    account = call.params["account"]
    lot = asked.lot or derived_name("lot", account, key)
    command = Grant(
        account,
        key,
        lot,
        asked.kind,
        asked.amount,
        asked.currency,
        asked.priority,
        read_instant("effective", asked.effective),
        read_instant("expires", asked.expires),
        asked.prices,
        asked.pays_debt,
        None if asked.rollover is None else Rollover(asked.rollover.percent, asked.rollover.days, asked.rollover.cap),
    )
    return command, lot


def _void(call: Call, key: str) -> tuple[Command, str]:
    asked: VoidRequest = call.body
    lot = call.params["lot"]
    return VoidLot(call.params["account"], key, lot, asked.currency, asked.amount), lot


def _refund(call: Call, key: str) -> tuple[Command, str]:
    asked: RefundRequest = call.body
    lot = call.params["lot"]
    return RefundLot(call.params["account"], key, lot, asked.amount, asked.currency), lot


def _top_up(call: Call, key: str) -> tuple[Command, str]:
    asked: TopUpRequest = call.body
    account = call.params["account"]
    lot = asked.lot or derived_name("topup", account, key)
    expires_us = read_instant("expires", asked.expires)
    command = Grant(account, key, lot, "paid", asked.amount, asked.currency, asked.priority, expires_us=expires_us)
    return command, lot


def _overdraft(call: Call, key: str) -> tuple[Command, str]:
    asked: OverdraftRequest = call.body
    return SetOverdraft(call.params["account"], key, asked.amount, asked.currency), call.params["account"]


async def list_lots(call: Call) -> Reply:
    """GET /v1/customers/{account}/grants."""
    view = await described(call)
    items = [
        LotItem(
            lot.lot,
            lot.kind,
            lot.granted,
            lot.remaining,
            lot.expired,
            lot.priority,
            instant(lot.effective_us),
            instant_or_none(lot.expires_us),
            list(lot.scope),
            lot.refunded,
            lot.voided,
            lot.carried,
            lot.pays_debt,
        )
        for lot in view.lots
    ]
    return Reply(LotList(items, as_of_answer(view.as_of)))


# ------------------------------------------------------------------------------------------------------------- balance


class WorthAnswer(Struct):
    """What credits are worth: `per` of them, `amount` of the currency; and the figures of the balance in it."""

    currency: str
    amount: str
    per: str
    booked: str
    held: str
    available: str


class BalanceReport(Struct):
    """What the account has. `recovering`: its owner has just changed; `booked` is then the last checkpoint's."""

    account: str
    balance: BalanceAnswer
    recovering: bool
    as_of: AsOfAnswer | None
    worth: WorthAnswer | None = None  # of an account that is billed in a unit of credit


class UsageItem(Struct):
    """What one price has counted in one cell in one billing period."""

    period: str  # its start
    price: str
    cell: list[str]  # values of the meter's dimensions
    quantity: str
    amount: str | None  # of the whole price in the period, on its first cell; null on the others
    worth: str | None = None  # of that, where the account is billed in a unit of credit: exact, and rounded once


class UsageList(Struct):
    items: list[UsageItem]
    currency: str
    as_of: AsOfAnswer
    worth_currency: str | None = None  # of a unit of credit


async def show_balance(call: Call) -> Reply:
    """GET /v1/customers/{account}/balance."""
    account = call.params["account"]
    answer = await put(call.services, account, Balance(account))
    if isinstance(answer, BalanceView):
        worth = None if answer.worth is None else WorthAnswer(*astuple(answer.worth))
        return Reply(BalanceReport(account, balance_answer(answer.wallet), False, as_of_answer(answer.as_of), worth))
    if isinstance(answer, NotFound):
        raise absent("account")
    if isinstance(answer, Recovering):
        return await _checkpointed(call, account, answer)
    raise unavailable("The owner of the account did not answer in time.")


async def _checkpointed(call: Call, account: str, answer: Recovering) -> Reply:
    """Better an old figure that says so than none; and none rather than "no such account" of one just opened."""
    row = await call.services.records.customer(account)
    booked = answer.booked if answer.booked is not None else row and row.balance
    if booked is None:
        raise recovering(answer)
    return Reply(BalanceReport(account, BalanceAnswer(booked, currency=row and row.currency), True, None))


async def list_usage(call: Call) -> Reply:
    """GET /v1/customers/{account}/usage."""
    since_us = read_instant("since", call.query["since"])
    view = await described(call)
    items = [
        UsageItem(instant(usage.period_us), usage.price, list(usage.cell), usage.quantity, usage.amount, usage.worth)
        for usage in view.usage
        if since_us is None or usage.period_us >= since_us
    ]
    worth_currency = None if view.worth is None else view.worth.currency
    return Reply(UsageList(items, view.currency, as_of_answer(view.as_of), worth_currency))


# --------------------------------------------------------------------------------------------------- ledger and alerts


class PostingItem(Struct):
    """A signed change of one lot, or of debt (`lot` is empty)."""

    lot: str
    lot_kind: str
    kind: str  # grant, burn, refund, void, expire, carry, debt, due
    amount: str
    usage_period: str | None  # start of the billing period of the usage, of burn, refund and debt; else null
    posting_period: str
    id: str


class PostingPage(Struct):
    items: list[PostingItem]
    next_cursor: str | None


class AlertItem(Struct):
    """An alert, as it is told, and how far the telling has come."""

    alert: Raw
    created: str
    attempts: int
    delivered: str | None
    given_up: str | None
    error: str  # of the last attempt, by endpoint; empty for a bound key, which asks its own endpoints' deliveries


class AlertPage(Struct):
    items: list[AlertItem]
    next_cursor: str | None


async def list_ledger(call: Call) -> Reply:
    """GET /v1/customers/{account}/ledger."""
    try:
        rows, cursor = await call.services.records.ledger(
            call.params["account"], call.query["limit"], call.query["cursor"]
        )
    except BadCursor:
        raise bad_cursor() from None
    await _not_absent(call, bool(rows))
    return Reply(PostingPage([_posting(row) for row in rows], cursor))


async def list_alerts(call: Call) -> Reply:
    """GET /v1/customers/{account}/alerts."""
    try:
        rows, cursor = await call.services.records.alerts(
            call.params["account"], call.query["limit"], call.query["cursor"]
        )
    except BadCursor:
        raise bad_cursor() from None
    await _not_absent(call, bool(rows))
    # It names endpoints and how they fail, and those that hear all accounts are no business of a bound key.
    return Reply(AlertPage([_alert(row, "" if call.account else row.error) for row in rows], cursor))


async def _not_absent(call: Call, found: bool) -> None:
    """An empty list is of an account that exists; its owner knows it before any checkpoint does."""
    if not found:
        await described(call)


def _posting(row: PostingRow) -> PostingItem:
    return PostingItem(
        row.lot,
        row.lot_kind,
        row.kind,
        row.amount,
        instant_or_none(row.usage_period_us),
        instant(row.posting_period_us),
        f"{row.partition}.{row.ckpt_seq}.{row.line}",
    )


def _alert(row: AlertRecord, error: str) -> AlertItem:
    return AlertItem(
        Raw(row.body),
        instant(row.created_us),
        row.attempts,
        instant_or_none(row.delivered_us),
        instant_or_none(row.given_up_us),
        error,
    )


# -------------------------------------------------------------------------------------------------------------- routes

_ACCOUNT: Final = {"account": "acme"}
_OWN: Final[dict[str, Any]] = {"tags": ("money",), "account_from": "path"}
_READ: Final[dict[str, Any]] = {**_OWN, "method": "GET", "scope": KeyScope.READ}
_CREDIT: Final[dict[str, Any]] = {
    **_OWN,
    "scope": KeyScope.CREDIT,
    "response": CommandAnswer,
    "deadline_s": COMMAND_DEADLINE_S,
    "also": {
        409: "The account has a lot of this id.",
        422: "The account's state does not allow it; `type` says why, `field` what must change.",
    },
}
_LOT_FIELDS: Final = {
    Refusal.BAD_AMOUNT: "amount",
    Refusal.BAD_LOT: "expires",
    Refusal.CURRENCY_MISMATCH: "currency",
    Refusal.LOT_EXISTS: "lot",
    Refusal.UNKNOWN_PRICE: "prices",
    Refusal.EXPIRES_TOO_SOON: "expires",
    Refusal.BAD_ROLLOVER: "rollover",
}
_CHANGED: Final[dict[str, Any]] = {
    **_CREDIT,
    "also": {
        404: "There is no account or no lot of this id.",
        409: "The lot is over: it has expired, or its rest was voided.",
        422: "The lot does not have that much, or was changed a hundred times; `type` says why.",
    },
}
_CHANGE_FIELDS: Final = {
    Refusal.BAD_AMOUNT: "amount",
    Refusal.CURRENCY_MISMATCH: "currency",
    Refusal.LOT_OVER: "lot",
    Refusal.EXCEEDS_LOT: "amount",
    Refusal.TOO_MANY_CHANGES: "lot",
}

ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/customers/{account}/grants",
        handler=commanded("credit.grant", _grant, _LOT_FIELDS),
        summary="Grant credit",
        description=(
            "A lot never pays for usage that was rated before it; one that is paid, or has `pays_debt`, settles debt when it "
            "becomes effective." + COMMAND_TEXT
        ),
        example=Example(
            params=_ACCOUNT,
            request={
                "amount": "100",
                "currency": "USD",
                "kind": "promo",
                "lot": "welcome",
                "expires": "2027-03-01T00:00:00Z",
            },
            response=made_example("welcome"),
        ),
        request=GrantRequest,
        **{**_CREDIT, "status": 201},
    ),
    Route(
        method="POST",
        path="/v1/customers/{account}/top-ups",
        handler=commanded("credit.top_up", _top_up, _LOT_FIELDS),
        summary="Book a payment",
        description="A lot of kind `paid`: it settles debt first, and checks are allowed again at once." + COMMAND_TEXT,
        example=Example(
            params=_ACCOUNT,
            request={"amount": "50", "currency": "USD", "lot": "payment-981"},
            response=made_example("payment-981"),
        ),
        request=TopUpRequest,
        **{**_CREDIT, "status": 201},
    ),
    Route(
        path="/v1/customers/{account}/grants",
        handler=list_lots,
        summary="List lots of credit",
        description="With what is left of each; used-up and expired ones too.",
        example=Example(
            params=_ACCOUNT,
            response={
                "items": [
                    {
                        "lot": "welcome",
                        "kind": "promo",
                        "granted": "100",
                        "remaining": "62.5",
                        "expired": "0",
                        "priority": 100,
                        "effective": "2026-11-01T00:00:00Z",
                        "expires": "2027-03-01T00:00:00Z",
                        "prices": [],
                        "refunded": "0",
                        "voided": "0",
                        "carried": "0",
                        "pays_debt": False,
                    }
                ],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=LotList,
        **_READ,
    ),
    Route(
        method="POST",
        path="/v1/customers/{account}/grants/{lot}/void",
        handler=commanded("credit.void", _void, _CHANGE_FIELDS),
        summary="Void credit",
        description=(
            "Without `amount`, what remains of the lot is gone. With it, that much is: first what remains, then what was "
            "burnt, which becomes debt; so a payment that was paid back is voided by its amount." + COMMAND_TEXT
        ),
        example=Example(
            params={"account": "acme", "lot": "payment-981"},
            request={"currency": "USD", "amount": "50"},
            response=made_example("payment-981"),
        ),
        request=VoidRequest,
        **_CHANGED,
    ),
    Route(
        method="POST",
        path="/v1/customers/{account}/grants/{lot}/refund",
        handler=commanded("credit.refund", _refund, _CHANGE_FIELDS),
        summary="Refund burnt credit",
        description=(
            "The lot gets back what it has paid for, that of the newest usage first, and can be spent again. The usage "
            "stays charged." + COMMAND_TEXT
        ),
        example=Example(
            params={"account": "acme", "lot": "payment-981"},
            request={"currency": "USD", "amount": "12.5"},
            response=made_example("payment-981"),
        ),
        request=RefundRequest,
        **_CHANGED,
    ),
    Route(
        method="PUT",
        path="/v1/customers/{account}/overdraft",
        handler=commanded(
            "overdraft.set", _overdraft, {Refusal.BAD_AMOUNT: "amount", Refusal.CURRENCY_MISMATCH: "currency"}
        ),
        summary="Set the overdraft",
        description="0 until set: a prepaid account. `null`: no limit, as for one that pays by invoice." + COMMAND_TEXT,
        example=Example(params=_ACCOUNT, request={"amount": "20", "currency": "USD"}, response=made_example("acme")),
        request=OverdraftRequest,
        **{**_CREDIT, "also": {422: _CREDIT["also"][422]}},
    ),
    Route(
        path="/v1/customers/{account}/balance",
        handler=show_balance,
        summary="Show the balance",
        description=(
            "`available` = `booked` − `held`. While the account's owner is being replaced, the last checkpoint's `booked` "
            "is shown, and `recovering` is true."
        ),
        example=Example(
            params=_ACCOUNT,
            response={
                "account": "acme",
                "balance": BALANCE_EXAMPLE,
                "recovering": False,
                "as_of": AS_OF_EXAMPLE,
                "worth": None,
            },
        ),
        response=BalanceReport,
        **_READ,
    ),
    Route(
        path="/v1/customers/{account}/usage",
        handler=list_usage,
        summary="List usage by billing period",
        description=(
            "Quantities by price and cell. What a price owes for the period is the `amount` of its first cell, and null on its "
            "others, so that amounts add up. What a period owes besides usage is in `.../period-lines`, what late usage of a "
            "closed period changed in `.../adjustments`."
        ),
        example=Example(
            params=_ACCOUNT,
            response={
                "items": [
                    {
                        "period": "2026-11-01T00:00:00Z",
                        "price": "tokens-large",
                        "cell": ["large"],
                        "quantity": "250000",
                        "amount": "37.5",
                        "worth": None,
                    }
                ],
                "currency": "USD",
                "as_of": AS_OF_EXAMPLE,
                "worth_currency": None,
            },
        ),
        response=UsageList,
        query=(
            QueryParameter("since", "text", "only periods that start at this instant (RFC 3339) or later", None, 1, 64),
        ),
        **_READ,
    ),
    Route(
        path="/v1/customers/{account}/ledger",
        handler=list_ledger,
        summary="List postings",
        description=(
            "Every change of a lot or of debt, newest first, as checkpoints wrote it: about a second behind, and up to "
            "`shard.checkpoint_interval_max_s` where many accounts change. `kind` says which "
            "sum `amount` changes: of a lot `grant`, `burn`, `refund`, `void`, `expire` or `carry` (a burn above 0 takes from "
            "it), of the account (`lot` is empty) `debt` or `due`. Per lot, always: granted + refunded = remaining + burnt + "
            "voided + expired + carried."
        ),
        example=Example(
            params=_ACCOUNT,
            response={
                "items": [
                    {
                        "lot": "welcome",
                        "lot_kind": "promo",
                        "kind": "burn",
                        "amount": "37.5",
                        "usage_period": "2026-11-01T00:00:00Z",
                        "posting_period": "2026-11-01T00:00:00Z",
                        "id": "3.912.0",
                    }
                ],
                "next_cursor": None,
            },
        ),
        response=PostingPage,
        paginated=True,
        **_READ,
    ),
    Route(
        path="/v1/customers/{account}/alerts",
        handler=list_alerts,
        summary="List alerts",
        description=(
            "Newest first, with the very body that webhooks carry, and how far the telling has come. A bound key is shown "
            "no `error`, which may be of an endpoint that hears all accounts: the deliveries of its own have theirs."
        ),
        example=Example(
            params=_ACCOUNT,
            response={
                "items": [
                    {
                        "alert": {
                            "id": "alert_9f86d081884c7d659a2feaa0c55ad015",
                            "type": "alert.crossed",
                            "data": {"account": "acme", "rule": "low", "window": "-", "ordinal": 1, "value": "4.2"},
                        },
                        "created": "2026-11-22T10:00:00Z",
                        "attempts": 1,
                        "delivered": "2026-11-22T10:00:00.2Z",
                        "given_up": None,
                        "error": "",
                    }
                ],
                "next_cursor": None,
            },
        ),
        response=AlertPage,
        paginated=True,
        **_READ,
    ),
)
