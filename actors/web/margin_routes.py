"""What requests earned beside what they cost, over HTTP: for the seller, never for a key that is bound to one account."""

import asyncio
from collections.abc import Sequence
from typing import Final

from msgspec import Struct, structs

from actors.margin import AROUND_US, TooMuch
from actors.ports import LogUnavailable
from actors.web.times import hours_asked, instant, read_instant
from actors.web.wire import (
    Call,
    Example,
    KeyScope,
    Problem,
    QueryParameter,
    Reply,
    Route,
    absent,
    invalid,
    unavailable,
)
from engine.cost.exchange import CURRENCY, DAY_US, KEPT_DAYS, NoRate, Used, date_of, in_currency
from engine.cost.floors import percent_text
from engine.cost.margin import By, Key, Margin, summed
from engine.money import amount_text

ROWS_MAX: Final = 2_000
DAYS_MAX: Final = 366
EVENT_DEADLINE_S: Final = 10.0
CONVERTED_MAX: Final = 20_000  # rows by day that one answer is made of
OF_EVENT: Final = (By.ACCOUNT, By.MODEL, By.FEATURE, By.RUN)
_BY: Final = tuple(each for each in By if each is not By.REQUEST)


class MarginItem(Struct):
    """A sum over requests. `cost`, `margin` and `percent` are null while the cost of any of them is not known."""

    account: str | None  # null: not told apart by it; empty: not known
    model: str | None
    feature: str | None
    plan: str | None
    hour: str | None
    run: str | None
    currency: str
    requests: int
    revenue: str
    cost: str | None
    margin: str | None
    percent: str | None  # of the revenue, rounded down
    known_cost: str  # of the requests whose cost is known
    without_cost: int  # requests of which some cost is not known
    foreign_cost: int  # requests some of whose cost is in another currency: state `currency` to have it here
    without_revenue: int  # served, and nothing is charged for them
    provisional: int  # their cost may still change without a correction


class UsedRate(Struct):
    """What was of this day was converted so: 1 `source` is `rate` of `target`, as recorded for `of`."""

    day: str
    source: str
    target: str
    rate: str
    of: str


class EventMarginItem(MarginItem):
    """A request, and the sums of all requests of the run that it belongs to, or bills; null: of none, or not told yet."""

    of_run: MarginItem | None = None
    rates: list[UsedRate] = []


class BucketItem(Struct):
    """Where the price of all GPUs went. `direct` is what requests cost."""

    bucket: str
    currency: str
    cost: str | None  # null while some of it is not known


class MarginAnswer(Struct):
    items: list[MarginItem]
    gpus: list[BucketItem]  # each in its own currency
    begin: str
    end: str
    rates: list[UsedRate]  # at which items were converted; none where nothing was


async def show_margin(call: Call) -> Reply:
    """GET /v1/margin."""
    by = _by(call.query["by"])
    begin_us, end_us = hours_asked(call, DAYS_MAX)
    records, target = call.services.records, _target(call)
    account, used = call.query["account"], list[Used]()
    if target is None:
        rows = await records.margins(begin_us, end_us, by, account, ROWS_MAX + 1)
    else:
        apart = await records.margins(begin_us, end_us, by, account, CONVERTED_MAX + 1, by_day=True)
        if len(apart) > CONVERTED_MAX:
            raise _too_many(f"More than {CONVERTED_MAX:,} sums, a day each, would have to be converted.")
        rows, used = await _converted(call, apart, target, by)
    if len(rows) > ROWS_MAX:
        raise _too_many(f"More than {ROWS_MAX:,} sums are asked for.")
    buckets = [
        BucketItem(each.bucket, each.currency, None if each.unknown else amount_text(each.amount))
        for each in await records.gpu_buckets(begin_us, end_us)
    ]
    return Reply(
        MarginAnswer(
            [_item(key, sums, by) for key, sums in rows], buckets, instant(begin_us), instant(end_us), _told(used)
        )
    )


async def show_event_margin(call: Call) -> Reply:
    """GET /v1/events/{id}/margin."""
    account, request = call.query["account"], call.params["id"]
    at_us = read_instant("at", call.query["at"])
    if at_us is None:
        at_us = call.services.clock.wall_us() - AROUND_US
    try:
        found = await call.services.request_margins.of(account, request, at_us)
    except TooMuch as error:
        raise Problem(
            422,
            "too-much-to-read",
            "Too much to read",
            f"{str(error).capitalize()}.",
            next_step="Ask for it with `tallygate margin --by request`, which reads on.",
            field="at",
        ) from None
    except LogUnavailable:
        raise unavailable("The topics cannot be read.") from None
    if not found:
        raise absent("event")
    target, used = _target(call), list[Used]()
    if target is None:
        rows = summed(found, OF_EVENT)
    else:
        rows, used = await _converted(call, found, target, OF_EVENT)
    key, sums = max(rows, key=lambda row: row[1].requests)
    charged_in = max(found, key=lambda row: row[1].requests)[0].currency  # before it was converted
    item = EventMarginItem(**structs.asdict(_item(key, sums, OF_EVENT)), rates=_told(used))
    if key.run:
        runs = await call.services.records.margin_of_run(account, key.run)
        ours = [row for row in runs if row[0].currency == charged_in] or runs
        if ours:
            of_run, run_sums = ours[0]
            item.of_run = _item(of_run, run_sums, [By.ACCOUNT, By.RUN])
    return Reply(item)


def _too_many(detail: str) -> Problem:
    return Problem(
        422,
        "too-many-rows",
        "Too many rows",
        detail,
        next_step="Ask for fewer hours, for one `account`, or tell apart by less.",
        field="by",
    )


def _target(call: Call) -> str | None:
    target: str | None = call.query["currency"]
    if target is not None and CURRENCY.fullmatch(target) is None:
        raise invalid("currency", f"{target[:20]!r} is no currency, nor a unit of the catalogue")
    return target


async def _converted(
    call: Call, rows: list[tuple[Key, Margin]], target: str, by: Sequence[By]
) -> tuple[list[tuple[Key, Margin]], list[Used]]:
    days = [key.hour_us // DAY_US for key, _ in rows]
    rates = await call.services.rates.into(target, min(days, default=0), max(days, default=0))
    try:
        return await asyncio.to_thread(in_currency, rows, target, rates, by)  # of so many, beside checks
    except NoRate as error:
        day = date_of(error.day)
        raise Problem(
            422,
            "no-currency-rate",
            "No rate is recorded",
            f"No rate from {error.source} to {error.target} is recorded for {day}, nor for the {KEPT_DAYS} days before it.",
            next_step=f"Record it: PUT /v1/margin/rates/{day}/{error.source}/{error.target}.",
            field="currency",
        ) from None


def _told(used: Sequence[Used]) -> list[UsedRate]:
    return [
        UsedRate(
            date_of(each.day).isoformat(),
            *(each.rate.source, each.rate.target, amount_text(each.rate.pico), date_of(each.rate.day).isoformat()),
        )
        for each in used
    ]


def _by(text: str) -> list[By]:
    known = {each.value: each for each in _BY}
    names = text.split(",")
    for name in names:
        if name not in known:
            raise invalid("by", f"{name[:40]!r} is none of {', '.join(known)}")
    return [known[name] for name in names]


def _item(key: Key, sums: Margin, by: Sequence[By]) -> MarginItem:
    permille = sums.permille
    return MarginItem(
        account=key.account if By.ACCOUNT in by else None,
        model=key.model if By.MODEL in by else None,
        feature=key.feature if By.FEATURE in by else None,
        plan=key.plan if By.PLAN in by else None,
        hour=instant(key.hour_us) if By.HOUR in by else None,
        run=key.run if By.RUN in by else None,
        currency=key.currency,
        requests=sums.requests,
        revenue=amount_text(sums.revenue),
        cost=None if sums.cost is None else amount_text(sums.cost),
        margin=None if sums.margin is None else amount_text(sums.margin),
        percent=None if permille is None else percent_text(permille),
        known_cost=amount_text(sums.known_cost),
        without_cost=sums.without_cost,
        foreign_cost=sums.foreign_cost,
        without_revenue=sums.without_revenue,
        provisional=sums.provisional,
    )


_ITEM: Final = {
    "account": "acme",
    "model": "atlas-large",
    "feature": None,
    "plan": None,
    "hour": None,
    "run": None,
    "currency": "USD",
    "requests": 3,
    "revenue": "0.9",
    "cost": "0.3",
    "margin": "0.6",
    "percent": "66.6",
    "known_cost": "0.3",
    "without_cost": 0,
    "foreign_cost": 0,
    "without_revenue": 0,
    "provisional": 1,
}

_CURRENCY: Final = QueryParameter(
    "currency", "text", "have all of it in this currency, at the rates recorded by day; default: each in its own"
)

ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/events/{id}/margin",
        scope=KeyScope.ADMIN,
        handler=show_event_margin,
        summary="What one request earned beside what it cost",
        description=(
            "From the lines of the topics `rated` and `costs` that were appended within half an hour of `at`: whatever is "
            "charged under the id, and every execution of it. `cost` is null while some of it is not known, and "
            "`provisional` 1 until it has settled. A request of a run, or an event that bills one (an outcome, with the run in "
            "`tags.run`), has in `of_run` what the whole run was charged and cost, whenever that was (never converted). A key "
            "that is bound to one account is refused."
        ),
        tags=("margin",),
        query=(
            QueryParameter("account", "text", "who paid", minimum=1, required=True),
            QueryParameter(
                "at", "text", "RFC 3339: when it was served, to half an hour; default: within the last hour"
            ),
            _CURRENCY,
        ),
        response=EventMarginItem,
        deadline_s=EVENT_DEADLINE_S,
        also={
            404: "Neither topic says anything of it in this time.",
            422: "Too much was appended in this time, or a day has no rate.",
        },
        example=Example(
            params={"id": "req-8812"},
            query={"account": "acme", "at": "2026-11-22T10:00:00Z"},
            response=_ITEM
            | {"feature": "chat", "run": "talk-3", "requests": 1}
            | {"of_run": _ITEM | {"model": None, "run": "talk-3", "requests": 4}, "rates": []},
        ),
    ),
    Route(
        method="GET",
        path="/v1/margin",
        scope=KeyScope.ADMIN,
        handler=show_margin,
        summary="What requests earned beside what they cost",
        description=(
            "Sums over the requests of whole hours, from Postgres, at most seconds old. Each charge and each cost counts in "
            "its own hour. What a charge changes in the price of usage before it (`volume`, shared tiers) is the account's "
            "alone: under no model, feature or run. By `run` there are only requests that belong to one, and only as far back "
            "as the setting `cost.run_rows_days` keeps them. What is not known is null, and so is every sum with it. `gpus` "
            "says where the price of all GPUs went in these hours: of `direct`, requests cost it. With `currency` what was "
            "charged, or cost, in another one is converted at its day's rate, and `rates` says which were used; without, a "
            "request that cost in another currency than it was charged in stands in two items, and is counted in "
            "`foreign_cost` of the one (of hours that had closed before the migration 0022, in `without_cost`). Customers must "
            "not see costs: a key that is bound to one account is refused."
        ),
        tags=("margin",),
        query=(
            QueryParameter(
                "by",
                "text",
                "what sums are told apart by, commas between: account, model, feature, plan, hour, run",
                "account",
            ),
            QueryParameter("account", "text", "only this account's requests"),
            QueryParameter(
                "from", "text", "RFC 3339; the hour that it lies in is the first; default: a day before `to`"
            ),
            QueryParameter("to", "text", "RFC 3339; the hour that it lies in is the last; default: now"),
            _CURRENCY,
        ),
        response=MarginAnswer,
        also={422: "More rows than one answer has, or a day without a rate; `field` says which to change."},
        example=Example(
            query={"by": "account,model", "from": "2026-11-22T10:00:00Z", "to": "2026-11-22T11:00:00Z"},
            response={
                "items": [_ITEM],
                "gpus": [
                    {"bucket": "direct", "currency": "USD", "cost": "0.3"},
                    {"bucket": "hard_idle", "currency": "USD", "cost": "0.1"},
                ],
                "begin": "2026-11-22T10:00:00Z",
                "end": "2026-11-22T11:00:00Z",
                "rates": [],
            },
        ),
    ),
)
