"""Margin floors over HTTP: for the seller, never for a key that is bound to one account."""

import re
from typing import Annotated, Final

from msgspec import Meta, Struct

from actors.margin_floors import KeptFloor, TooManyFloors
from actors.web.acts import ACT_DEADLINE_S, ACT_REFUSALS, ACT_TEXT, Entry, administered
from actors.web.times import instant
from actors.web.wire import Call, Example, KeyScope, Problem, Reply, Route, absent, invalid
from engine.alerts import Level
from engine.cost.floors import FLOORS_MAX, PERMILLE_MIN, Floor, Of, percent_text
from engine.cost.gpu_rates import HOUR_US

_PERCENT: Final = re.compile(r"-?\d{1,5}(\.\d)?")

Percent = Annotated[str, Meta(max_length=8)]
Subject = Annotated[str, Meta(min_length=1, max_length=256)]


class FloorRequest(Struct, forbid_unknown_fields=True):
    """What the margin of a model, a plan or an account must not fall below, in any hour."""

    of: Of
    subject: Subject  # the model's, plan's or account's name
    percent: Percent  # of the revenue, with at most one digit behind the point
    clear_percent: Percent | None = None  # from here on it has recovered; default: `percent`
    level: Level = "warning"


class FloorItem(Struct):
    floor: str
    of: Of
    subject: str
    percent: str
    clear_percent: str
    level: str
    active: bool  # the last hour that says something was below
    ordinal: int  # how often it has been crossed
    next_hour: str  # is looked at when its costs have settled


class FloorList(Struct):
    items: list[FloorItem]


async def put_floor(call: Call, entry: Entry) -> Reply:
    """PUT /v1/margin/floors/{floor}."""
    asked: FloorRequest = call.body
    permille = _permille("percent", asked.percent)
    clear = permille if asked.clear_percent is None else _permille("clear_percent", asked.clear_percent)
    if clear < permille:
        raise invalid("clear_percent", "it is below `percent`")
    hour_us = call.services.clock.wall_us() // HOUR_US * HOUR_US
    name = call.params["floor"]
    entry.subject, entry.after = name, asked
    try:
        await call.services.floors.put(
            Floor(name, asked.of, asked.subject, permille, clear, asked.level, next_us=hour_us)
        )
    except TooManyFloors:
        raise Problem(
            422,
            "too-many-floors",
            "Too many margin floors",
            f"There are {FLOORS_MAX:,} floors already.",
            next_step="Remove one that is not needed any more.",
            field="floor",
        ) from None
    return Reply()


async def remove_floor(call: Call, entry: Entry) -> Reply:
    """DELETE /v1/margin/floors/{floor}."""
    entry.subject = call.params["floor"]
    if not await call.services.floors.remove(call.params["floor"]):
        raise absent("floor")
    return Reply()


async def list_floors(call: Call) -> Reply:
    """GET /v1/margin/floors."""
    found: list[KeptFloor] = await call.services.floors.all()
    return Reply(FloorList([_item(each.floor) for each in found]))


def _item(floor: Floor) -> FloorItem:
    return FloorItem(
        *(floor.floor, floor.of, floor.subject, percent_text(floor.permille), percent_text(floor.clear_permille)),
        *(floor.level, floor.standing.active, floor.standing.ordinal, instant(floor.next_us)),
    )


def _permille(field: str, text: str) -> int:
    if _PERCENT.fullmatch(text) is None:
        raise invalid(field, f"{text!r} is no decimal with at most one digit behind the point")
    whole, _, tenth = text.partition(".")
    permille = int(whole) * 10 + (-1 if text.startswith("-") else 1) * int(tenth or 0)
    if not PERMILLE_MIN <= permille <= 1_000:
        raise invalid(field, "a margin lies between -99999.9 and 100 per cent of the revenue")
    return permille


_FLOOR: Final = {"floor": "large-20"}

ROUTES: Final = (
    Route(
        method="PUT",
        path="/v1/margin/floors/{floor}",
        scope=KeyScope.ADMIN,
        handler=administered("margin_floor.set", put_floor, "floor"),
        summary="Set or replace a margin floor",
        description=(
            "Each hour is looked at once, when its costs have settled (`cost.settle_s` behind its end): below `percent` is a "
            "crossing, from `clear_percent` on a recovery. An hour without revenue, or with a cost that is not known, says "
            "nothing. Told to the webhook endpoints that hear all accounts, as `margin.crossed` and `margin.recovered`, with "
            "one id each." + ACT_TEXT
        ),
        tags=("margin",),
        example=Example(
            params=_FLOOR,
            request={
                "of": "model",
                "subject": "atlas-large",
                "percent": "20",
                "clear_percent": "25",
                "level": "critical",
            },
        ),
        request=FloorRequest,
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
    ),
    Route(
        method="DELETE",
        path="/v1/margin/floors/{floor}",
        scope=KeyScope.ADMIN,
        handler=administered("margin_floor.remove", remove_floor, "floor"),
        summary="Remove a margin floor",
        description="Nothing is told of it any more. Should it come again, its crossings go on with the next ordinal."
        + ACT_TEXT,
        tags=("margin",),
        example=Example(params=_FLOOR),
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also={404: "There is no such floor.", **ACT_REFUSALS},
    ),
    Route(
        method="GET",
        path="/v1/margin/floors",
        scope=KeyScope.ADMIN,
        handler=list_floors,
        summary="List margin floors",
        description="And how each stands.",
        tags=("margin",),
        example=Example(
            response={
                "items": [
                    {
                        "floor": "large-20",
                        "of": "model",
                        "subject": "atlas-large",
                        "percent": "20.0",
                        "clear_percent": "25.0",
                        "level": "critical",
                        "active": True,
                        "ordinal": 1,
                        "next_hour": "2026-11-22T10:00:00Z",
                    }
                ]
            }
        ),
        response=FloorList,
    ),
)
