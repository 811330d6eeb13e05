"""Rates between currencies over HTTP: for the seller, who records one a day."""

import re
from datetime import date
from typing import Annotated, Final

from msgspec import Meta, Struct

from actors.margin_rates import RecordedRate
from actors.web.acts import ACT_DEADLINE_S, ACT_REFUSALS, ACT_TEXT, Entry, administered
from actors.web.times import instant
from actors.web.wire import Call, Example, KeyScope, QueryParameter, Reply, Route, absent, invalid
from engine.cost.exchange import CURRENCY, DAY_US, KEPT_DAYS, Rate, date_of, day_of
from engine.money import NotADecimal, amount_text, parse_amount

LIST_MAX: Final = 1_000
RATE_MAX_PICO: Final = 10**12 * 10**12
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}")


class RateRequest(Struct, forbid_unknown_fields=True):
    """What one unit of `source` is in `target` on that day."""

    rate: Annotated[str, Meta(max_length=40)]


class RateItem(Struct):
    day: str
    source: str
    target: str
    rate: str
    recorded: str


class RateList(Struct):
    items: list[RateItem]


async def put_rate(call: Call, entry: Entry) -> Reply:
    """PUT /v1/margin/rates/{day}/{source}/{target}."""
    day, source, target = _place(call)
    if day > call.services.clock.wall_us() // DAY_US + 1:
        raise invalid("day", "it has not begun anywhere yet")
    asked: RateRequest = call.body
    try:
        pico = parse_amount(asked.rate)
    except NotADecimal as error:
        raise invalid("rate", str(error)) from None
    if not 0 < pico <= RATE_MAX_PICO:
        raise invalid("rate", "it is not above 0, or above a million millions")
    entry.subject, entry.after = f"{call.params['day']} {source}/{target}", asked
    await call.services.rates.put(Rate(day, source, target, pico))
    return Reply()


async def remove_rate(call: Call, entry: Entry) -> Reply:
    """DELETE /v1/margin/rates/{day}/{source}/{target}."""
    day, source, target = _place(call)
    entry.subject = f"{call.params['day']} {source}/{target}"
    if not await call.services.rates.remove(day, source, target):
        raise absent("rate")
    return Reply()


async def list_rates(call: Call) -> Reply:
    """GET /v1/margin/rates."""
    last = day_asked("to", call.query["to"]) if call.query["to"] else call.services.clock.wall_us() // DAY_US + 1
    first = day_asked("from", call.query["from"]) if call.query["from"] else last - 30
    if first > last:
        raise invalid("to", "it lies before `from`")
    found: list[RecordedRate] = await call.services.rates.recorded(first, last, call.query["target"], LIST_MAX)
    return Reply(RateList([_item(each) for each in found]))


def day_asked(field: str, text: str) -> int:
    """Days since 1970. Raises Problem (400)."""
    if _DAY.fullmatch(text) is None:
        raise invalid(field, f"{text[:20]!r} is no day, as in 2026-11-22")
    try:
        day = day_of(date.fromisoformat(text))
    except ValueError:
        raise invalid(field, f"there is no day {text}") from None
    if day < 0:
        raise invalid(field, "it lies before 1970")
    return day


def _place(call: Call) -> tuple[int, str, str]:
    source, target = call.params["source"], call.params["target"]
    for field, name in (("source", source), ("target", target)):
        if CURRENCY.fullmatch(name) is None:
            raise invalid(field, f"{name[:20]!r} is no currency, nor a unit of the catalogue")
    if source == target:
        raise invalid("target", "it is the currency that is converted")
    return day_asked("day", call.params["day"]), source, target


def _item(found: RecordedRate) -> RateItem:
    rate = found.rate
    recorded_us = round(found.recorded_at.timestamp() * 1_000_000)
    return RateItem(
        date_of(rate.day).isoformat(), rate.source, rate.target, amount_text(rate.pico), instant(recorded_us)
    )


_RATE: Final = {"day": "2026-11-20", "source": "USD", "target": "EUR"}

ROUTES: Final = (
    Route(
        method="PUT",
        path="/v1/margin/rates/{day}/{source}/{target}",
        scope=KeyScope.ADMIN,
        handler=administered("margin_rate.set", put_rate, "day"),
        summary="Record a day's rate between two currencies",
        description=(
            "One unit of `source` is so much of `target`, on that day of UTC. Margin that is asked for in one currency is "
            f"made at these. A day without one has that of the last day before, at most {KEPT_DAYS} back: so a weekend needs "
            "none. A rate that is recorded anew replaces the one before; the audit trail keeps both. No charge depends on it."
            + ACT_TEXT
        ),
        tags=("margin",),
        example=Example(params=_RATE, request={"rate": "0.92"}),
        request=RateRequest,
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
    ),
    Route(
        method="DELETE",
        path="/v1/margin/rates/{day}/{source}/{target}",
        scope=KeyScope.ADMIN,
        handler=administered("margin_rate.remove", remove_rate, "day"),
        summary="Remove a day's rate",
        description="The day has that of the last day before it then, if there is one." + ACT_TEXT,
        tags=("margin",),
        example=Example(params=_RATE),
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also={404: "No such rate is recorded.", **ACT_REFUSALS},
    ),
    Route(
        method="GET",
        path="/v1/margin/rates",
        scope=KeyScope.ADMIN,
        handler=list_rates,
        summary="List recorded rates",
        description=f"The latest day first, {LIST_MAX:,} at most.",
        tags=("margin",),
        query=(
            QueryParameter("from", "text", "the first day, as 2026-11-22; default: 30 days before `to`"),
            QueryParameter("to", "text", "the last day; default: up to tomorrow"),
            QueryParameter("target", "text", "only rates into this currency"),
        ),
        example=Example(
            response={"items": [_RATE | {"rate": "0.920000000000", "recorded": "2026-11-20T16:02:11.000231Z"}]}
        ),
        response=RateList,
    ),
)
