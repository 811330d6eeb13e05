"""What a customer is sold, over HTTP: its plans, and prices that were agreed with it alone."""

from typing import Annotated, Any, Final

import msgspec
from msgspec import Meta, Struct

from actors.web.acts import COMMAND_TEXT, commanded
from actors.web.customers import ACCOUNT, AS_OF_EXAMPLE, CHANGE, READ, Currency, described, made_example
from actors.web.hot import AsOfAnswer, Name, as_of_answer
from actors.web.times import instant, read_instant
from actors.web.wire import Call, Example, Reply, Route, invalid
from engine.catalog import BadCatalogue, agreed_price
from engine.contract import read_terms
from engine.events import Command, SetPause, SetPlan, SetPrice, SetSeats
from engine.outcomes import Refusal

Time = Annotated[str, Meta(max_length=64)]

_AHEAD_TEXT: Final = (
    "State `from` six minutes ahead or more where a wallet must not fall below zero by it: nothing that was approved gets "
    "dearer then. Sooner, or at once, what an owner approves before it has read of the change is charged as changed."
)


class PriceRequest(Struct, forbid_unknown_fields=True):
    """Other terms of a price of the account's plan, from an instant on."""

    terms: (
        dict[str, Any] | None
    )  # as a price stands in a catalogue, without `meter` and `where`; null: the plan's own again
    currency: Currency
    from_: Time | None = msgspec.field(default=None, name="from")  # absent: behind all usage rated so far


class AgreedItem(Struct):
    """A price that was agreed with the account."""

    price: str
    plan: str
    from_: str = msgspec.field(name="from")
    terms: dict[str, Any] | None  # null: from then on the plan's own


class AgreedList(Struct):
    items: list[AgreedItem]
    as_of: AsOfAnswer


def _set(call: Call, key: str) -> tuple[Command, str]:
    asked: PriceRequest = call.body
    price = call.params["price"]
    if asked.terms is not None:
        try:
            agreed_price(price, read_terms(asked.terms, "-"), 0, adds_up=True)
        except BadCatalogue as error:
            fault = error.faults[0]
            raise invalid(".".join(map(str, fault.path)), fault.message) from None
    from_us = read_instant("from", asked.from_)
    return SetPrice(call.params["account"], key, price, asked.currency, asked.terms, from_us), price


async def list_agreed(call: Call) -> Reply:
    """GET /v1/customers/{account}/prices."""
    view = await described(call)
    items = [AgreedItem(each.price, each.plan, instant(each.from_us), each.terms) for each in view.agreed]
    return Reply(AgreedList(items, as_of_answer(view.as_of)))


class PlanRequest(Struct, forbid_unknown_fields=True):
    """Another plan, from an instant on."""

    plan: Name
    from_: Time | None = msgspec.field(default=None, name="from")  # absent: behind all usage rated so far


class PhaseItem(Struct):
    """A plan that the account has, from `from` until the next phase; null: from when it was opened."""

    plan: str
    from_: str | None = msgspec.field(name="from")


class PauseRequest(Struct, forbid_unknown_fields=True):
    """The account is paused from an instant on, or no longer."""

    paused: bool
    from_: Time | None = msgspec.field(default=None, name="from")  # absent: at once


class PauseItem(Struct):
    """From `from` on the account is paused, or is not."""

    paused: bool
    from_: str = msgspec.field(name="from")


class SeatsRequest(Struct, forbid_unknown_fields=True):
    """So many seats, from an instant on."""

    count: Annotated[int, Meta(ge=0, le=1_000_000)]
    from_: Time | None = msgspec.field(default=None, name="from")  # absent: at once


class SeatsItem(Struct):
    """From `from` on there are so many seats of this name."""

    seat: str
    count: int
    from_: str = msgspec.field(name="from")


class PhaseList(Struct):
    items: list[PhaseItem]
    pauses: list[PauseItem]
    seats: list[SeatsItem]
    as_of: AsOfAnswer


def _sell(call: Call, key: str) -> tuple[Command, str]:
    asked: PlanRequest = call.body
    return SetPlan(call.params["account"], key, asked.plan, read_instant("from", asked.from_)), asked.plan


def _pause(call: Call, key: str) -> tuple[Command, str]:
    asked: PauseRequest = call.body
    word = "paused" if asked.paused else "resumed"
    return SetPause(call.params["account"], key, asked.paused, read_instant("from", asked.from_)), word


def _seat(call: Call, key: str) -> tuple[Command, str]:
    asked: SeatsRequest = call.body
    seat = call.params["seat"]
    return SetSeats(call.params["account"], key, seat, asked.count, read_instant("from", asked.from_)), seat


async def list_phases(call: Call) -> Reply:
    """GET /v1/customers/{account}/phases."""
    view = await described(call)
    items = [PhaseItem(view.first_plan, None), *(PhaseItem(plan, instant(from_us)) for from_us, plan in view.phases)]
    pauses = [PauseItem(paused, instant(from_us)) for from_us, paused in view.pauses]
    seats = [SeatsItem(seat, count, instant(from_us)) for from_us, seat, count in view.seats]
    return Reply(PhaseList(items, pauses, seats, as_of_answer(view.as_of)))


# -------------------------------------------------------------------------------------------------------------- routes

ROUTES: Final = (
    Route(
        method="PUT",
        path="/v1/customers/{account}/plan",
        handler=commanded(
            "plan.set",
            _sell,
            {
                Refusal.UNKNOWN_PLAN: "plan",
                Refusal.CURRENCY_MISMATCH: "plan",
                Refusal.BAD_START: "from",
                Refusal.TOO_MANY_PHASES: "plan",
                Refusal.WOULD_REPRICE: "from",
            },
        ),
        summary="Sell an account another plan",
        description=(
            "From an instant on the account has this plan: its next phase. Inside a billing period that ends the period, and "
            "begins another: what prices include is shared by the seconds of both (not with `prorate: false`); tiers begin "
            "anew, caps keep their calendar. A trial is a first plan, and the phase behind it. "
            + _AHEAD_TEXT
            + COMMAND_TEXT
        ),
        example=Example(
            params=ACCOUNT,
            request={"plan": "growth", "from": "2026-12-01T00:00:00Z"},
            response=made_example("growth"),
        ),
        request=PlanRequest,
        **CHANGE,
    ),
    Route(
        method="PUT",
        path="/v1/customers/{account}/pause",
        handler=commanded("account.pause", _pause, {Refusal.BAD_START: "from", Refusal.TOO_MANY_PAUSES: "paused"}),
        summary="Pause or resume an account",
        description=(
            "While an account is paused its checks are denied (`paused`, and when it ends, if that is known). What is used "
            "all the same is rated as ever. State `false` to resume it." + COMMAND_TEXT
        ),
        example=Example(
            params=ACCOUNT,
            request={"paused": True, "from": "2026-12-20T00:00:00Z"},
            response=made_example("paused"),
        ),
        request=PauseRequest,
        **CHANGE,
    ),
    Route(
        method="PUT",
        path="/v1/customers/{account}/seats/{seat}",
        handler=commanded(
            "seats.set",
            _seat,
            {
                Refusal.UNKNOWN_SEAT: "seat",
                Refusal.BAD_SEATS: "count",
                Refusal.BAD_START: "from",
                Refusal.TOO_MANY_SEATS: "seat",
            },
        ),
        summary="Set a number of seats",
        description=(
            "From an instant on the account has so many seats of this name, which its plan must sell. What the change makes "
            "of the billing period, to its end and by the second, is charged or given back when it begins; it is listed under "
            "`/period-lines`." + COMMAND_TEXT
        ),
        example=Example(
            params=ACCOUNT | {"seat": "editor"},
            request={"count": 5, "from": "2026-12-01T00:00:00Z"},
            response=made_example("editor"),
        ),
        request=SeatsRequest,
        **CHANGE,
    ),
    Route(
        path="/v1/customers/{account}/phases",
        handler=list_phases,
        summary="List an account's plans",
        description="One behind the other: those that were, the one of now, and those to come; its pauses, and its seats.",
        example=Example(
            params=ACCOUNT,
            response={
                "items": [{"plan": "starter", "from": None}, {"plan": "growth", "from": "2026-12-01T00:00:00Z"}],
                "pauses": [
                    {"paused": True, "from": "2026-12-20T00:00:00Z"},
                    {"paused": False, "from": "2027-01-02T00:00:00Z"},
                ],
                "seats": [{"seat": "editor", "count": 5, "from": "2026-12-01T00:00:00Z"}],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=PhaseList,
        **READ,
    ),
    Route(
        method="PUT",
        path="/v1/customers/{account}/prices/{price}",
        handler=commanded(
            "price.set",
            _set,
            {
                Refusal.CURRENCY_MISMATCH: "currency",
                Refusal.UNKNOWN_PRICE: "price",
                Refusal.BAD_START: "from",
                Refusal.BAD_PRICE: "terms",
                Refusal.TOO_MANY_PRICES: "price",
                Refusal.MID_PERIOD: "from",
            },
        ),
        summary="Agree on a price with one account",
        description=(
            "From an instant on the account pays this instead of what its plan says under that name; `terms` of null bring "
            "the plan's own price back. Usage of before keeps its price, also when it comes late. What is no sum of its "
            "units (a package, volume, a step, a maximum) can only begin where a billing period does. "
            + _AHEAD_TEXT
            + COMMAND_TEXT
        ),
        example=Example(
            params={"account": "acme", "price": "output"},
            request={
                "terms": {"model": "per_unit", "amount": "8", "per": "1000000"},
                "currency": "USD",
                "from": "2026-12-01T00:00:00Z",
            },
            response=made_example("output"),
        ),
        request=PriceRequest,
        **CHANGE,
    ),
    Route(
        path="/v1/customers/{account}/prices",
        handler=list_agreed,
        summary="List agreed prices",
        description="All that were agreed with the account, in order of the instant. What is not here is the plan's.",
        example=Example(
            params=ACCOUNT,
            response={
                "items": [
                    {
                        "price": "output",
                        "plan": "starter",
                        "from": "2026-12-01T00:00:00Z",
                        "terms": {"model": "per_unit", "amount": "8", "per": "1000000"},
                    }
                ],
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=AgreedList,
        **READ,
    ),
)
