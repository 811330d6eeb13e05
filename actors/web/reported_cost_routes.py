"""Reported costs beside computed ones, over HTTP: for the seller, never for a key that is bound to one account."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from actors.reported_costs import Gap, ReportedCost
from actors.web.times import instant, read_instant
from actors.web.wire import Call, Example, KeyScope, QueryParameter, Reply, Route, invalid
from engine.cost.gpu_rates import HOUR_US
from engine.money import NotADecimal, amount_text, parse_amount

ITEMS_MAX: Final = 2_000
GAPS_MAX: Final = 2_000
_DAY_US: Final = 24 * HOUR_US

Name = Annotated[str, Meta(min_length=1, max_length=256, pattern="^[^\\x00]+$")]
Amount = Annotated[str, Meta(max_length=40)]


class ReportedItem(Struct, forbid_unknown_fields=True):
    """Of one usage event."""

    source: Name
    id: Name
    provider: Name
    model: Name
    time: str  # RFC 3339
    computed: Amount | None = None  # null: not known
    reported: Amount | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"


class ReportedRequest(Struct, forbid_unknown_fields=True):
    items: Annotated[list[ReportedItem], Meta(min_length=1, max_length=ITEMS_MAX)]


class ReportedTaken(Struct):
    recorded: int


class GapItem(Struct):
    """A provider's model on a day (UTC). Sums are of what is known; `gap` is of requests of which both are."""

    provider: str
    model: str
    day: str
    currency: str
    requests: int
    computed: str
    reported: str
    gap: str  # reported less computed
    differing: int
    without_computed: int
    without_reported: int


class GapList(Struct):
    items: list[GapItem]


async def record_costs(call: Call) -> Reply:
    """POST /v1/reported-costs."""
    asked: ReportedRequest = call.body
    costs = [_cost(number, item) for number, item in enumerate(asked.items)]
    return Reply(ReportedTaken(await call.services.reported.record(costs)))


def _cost(number: int, item: ReportedItem) -> ReportedCost:
    field = f"items[{number}]"
    time_us = read_instant(f"{field}.time", item.time)
    assert time_us is not None
    return ReportedCost(
        *(item.source, item.id, item.provider, item.model, time_us, item.currency),
        *(_amount(f"{field}.computed", item.computed), _amount(f"{field}.reported", item.reported)),
    )


def _amount(field: str, text: str | None) -> int | None:
    try:
        return None if text is None else parse_amount(text)
    except NotADecimal as error:
        raise invalid(field, str(error)) from None


async def show_gaps(call: Call) -> Reply:
    """GET /v1/reported-costs."""
    end_us = read_instant("to", call.query["to"])
    if end_us is None:
        end_us = call.services.clock.wall_us()
    begin_us = read_instant("from", call.query["from"])
    if begin_us is None:
        begin_us = end_us - 30 * _DAY_US
    if begin_us >= end_us:
        raise invalid("to", "it is not behind `from`")
    found: list[Gap] = await call.services.reported.gaps(begin_us, end_us, GAPS_MAX)
    return Reply(GapList([_item(each) for each in found]))


def _item(gap: Gap) -> GapItem:
    return GapItem(
        *(gap.provider, gap.model, instant(gap.day_us), gap.currency, gap.requests),
        *(amount_text(gap.computed), amount_text(gap.reported), amount_text(gap.gap)),
        *(gap.differing, gap.without_computed, gap.without_reported),
    )


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/reported-costs",
        scope=KeyScope.INGEST,
        handler=record_costs,
        summary="Record what a provider reported beside what was computed",
        description=(
            "By usage event: what is recorded again takes the place of what was. `tallygate costs check --record` sends it."
        ),
        tags=("margin",),
        example=Example(
            request={
                "items": [
                    {
                        "source": "gateway",
                        "id": "req-1",
                        "provider": "openai",
                        "model": "gpt-4o",
                        "time": "2026-11-22T10:00:00Z",
                        "computed": "0.0125",
                        "reported": "0.013",
                    }
                ]
            },
            response={"recorded": 1},
        ),
        request=ReportedRequest,
        response=ReportedTaken,
        body_bytes_max=1_048_576,
    ),
    Route(
        method="GET",
        path="/v1/reported-costs",
        scope=KeyScope.ADMIN,
        handler=show_gaps,
        summary="Show how far reported and computed costs are apart",
        description="By provider, model and day, of the events' own times; at most 2,000 rows.",
        tags=("margin",),
        query=(
            QueryParameter("from", "text", "RFC 3339; default: 30 days before `to`"),
            QueryParameter("to", "text", "RFC 3339; default: now"),
        ),
        example=Example(
            response={
                "items": [
                    {
                        "provider": "openai",
                        "model": "gpt-4o",
                        "day": "2026-11-22T00:00:00Z",
                        "currency": "USD",
                        "requests": 1,
                        "computed": "0.0125",
                        "reported": "0.013",
                        "gap": "0.0005",
                        "differing": 1,
                        "without_computed": 0,
                        "without_reported": 0,
                    }
                ]
            }
        ),
        response=GapList,
    ),
)
