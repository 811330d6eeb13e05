"""What a provider has billed, over HTTP, held against our own costs: for the seller, never for a key that is bound to one
account."""

from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from actors.billed_usage import Imported, TooMuchBilled
from actors.web.acts import ACT_DEADLINE_S, ACT_REFUSALS, ACT_TEXT, Entry, administered
from actors.web.times import hours_asked, instant, read_instant
from actors.web.wire import Call, Example, KeyScope, Problem, QueryParameter, Reply, Route, invalid
from engine.cost.billed import (
    BilledUsage,
    Hour,
    ListPrice,
    Reconciled,
    RecordType,
    checked_price,
    checked_usage,
    parse_fixed,
)
from engine.events import Malformed
from engine.money import amount_text

RECORDS_SENT_MAX: Final = 2_000
PRICES_SENT_MAX: Final = 2_000
IMPORT_BYTES_MAX: Final = 2_097_152
DAYS_MAX: Final = 92

Name = Annotated[str, Meta(min_length=1, max_length=256)]
Fixed = Annotated[str, Meta(min_length=1, max_length=40)]


class BilledRecord(Struct, forbid_unknown_fields=True):
    """A record of a provider's bill."""

    record: Name  # its id: one that comes again adds nothing
    sku: Name
    unit: Name
    start: str  # RFC 3339
    end: str
    quantity: Fixed  # a decimal; of a retraction negative
    endpoint: Annotated[str, Meta(max_length=256)] = ""  # whose usage it is
    type: Literal["ORIGINAL", "RETRACTION", "RESTATEMENT"] = "ORIGINAL"


class BilledPrice(Struct, forbid_unknown_fields=True):
    """A list price: from an instant on a unit of the SKU costs so much."""

    sku: Name
    unit: Name
    amount: Fixed
    start: str
    end: str | None = None
    currency: Annotated[str, Meta(pattern="^[A-Z]{3}$")] = "USD"


class BilledRequest(Struct, forbid_unknown_fields=True):
    usage: Annotated[list[BilledRecord], Meta(max_length=RECORDS_SENT_MAX)] = []
    prices: Annotated[list[BilledPrice], Meta(max_length=PRICES_SENT_MAX)] = []


class BilledImported(Struct):
    added: int
    known: int  # were there, and say the same
    contradicted: list[str]  # were there, and say otherwise: they stay as they were
    prices: int


class ReconciledHour(Struct):
    """An endpoint in an hour. What is not known is null."""

    endpoint: str
    hour: str
    currency: str
    billed: str | None
    corrected: str | None  # of `billed`: retractions and restatements
    ours: str | None  # what its GPUs cost by our telemetry and rates, without overhead
    delta: str | None  # billed less ours


class ReconciledEndpoint(Struct):
    """The same of the whole stretch."""

    endpoint: str
    billed: str | None
    ours: str | None
    delta: str | None


class Reconciliation(Struct):
    items: list[ReconciledHour]
    endpoints: list[ReconciledEndpoint]
    faults: list[str]
    begin: str
    end: str


async def import_billed(call: Call, entry: Entry) -> Reply:
    """POST /v1/billed-usage."""
    asked: BilledRequest = call.body
    usages = [_usage(number, each) for number, each in enumerate(asked.usage)]
    prices = [_price(number, each) for number, each in enumerate(asked.prices)]
    done: Imported = await call.services.billed.take_in(usages, prices)
    answer = BilledImported(done.added, done.known, done.contradicted, done.prices)
    entry.subject, entry.after = f"{len(usages)} records, {len(prices)} prices", answer
    return Reply(answer)


def _usage(number: int, told: BilledRecord) -> BilledUsage:
    field = f"usage[{number}]"
    try:
        return checked_usage(
            BilledUsage(
                *(told.record, told.sku, told.unit, _instant(f"{field}.start", told.start)),
                *(_instant(f"{field}.end", told.end), parse_fixed("quantity", told.quantity), told.endpoint),
                RecordType(told.type),
            )
        )
    except Malformed as error:
        raise invalid(field, str(error)) from None


def _price(number: int, told: BilledPrice) -> ListPrice:
    field = f"prices[{number}]"
    until_us = None if told.end is None else _instant(f"{field}.end", told.end)
    try:
        return checked_price(
            ListPrice(
                *(told.sku, told.unit, told.currency, _instant(f"{field}.start", told.start), until_us),
                parse_fixed("amount", told.amount),
            )
        )
    except Malformed as error:
        raise invalid(field, str(error)) from None


def _instant(field: str, text: str) -> int:
    us = read_instant(field, text)
    assert us is not None
    return us


async def show_reconciliation(call: Call) -> Reply:
    """GET /v1/billed-usage/reconciliation."""
    begin_us, end_us = hours_asked(call, DAYS_MAX)
    models = _models(call.query["models"] or "")
    try:
        found: Reconciled = await call.services.billed.reconciled(begin_us, end_us, call.query["currency"], models)
    except TooMuchBilled as error:
        raise Problem(
            422,
            "too-much-to-read",
            "Too much to read",
            f"{str(error).capitalize()}.",
            next_step="Ask for fewer hours.",
            field="from",
        ) from None
    return Reply(
        Reconciliation(
            [_hour(each) for each in found.hours],
            _endpoints(found.hours),
            found.faults,
            instant(begin_us),
            instant(end_us),
        )
    )


def _models(text: str) -> dict[str, str]:
    models: dict[str, str] = {}
    for part in filter(None, text.split(",")):
        endpoint, equals, model = part.partition("=")
        if not equals or not endpoint or not model or endpoint in models or model in models.values():
            raise invalid("models", f"{part[:40]!r} is no ENDPOINT=MODEL, or names one a second time")
        models[endpoint] = model
    return models


def _hour(hour: Hour) -> ReconciledHour:
    return ReconciledHour(
        *(hour.endpoint, instant(hour.hour_us), hour.currency, _amount(hour.billed), _amount(hour.corrected)),
        *(_amount(hour.ours), _amount(hour.delta)),
    )


def _endpoints(hours: list[Hour]) -> list[ReconciledEndpoint]:
    found = []
    for endpoint in sorted({hour.endpoint for hour in hours}):
        own = [hour for hour in hours if hour.endpoint == endpoint]
        billed, ours, delta = (_total([getattr(hour, name) for hour in own]) for name in ("billed", "ours", "delta"))
        found.append(ReconciledEndpoint(endpoint, _amount(billed), _amount(ours), _amount(delta)))
    return found


def _total(amounts: list[int | None]) -> int | None:
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if len(known) == len(amounts) else None


def _amount(pico: int | None) -> str | None:
    return None if pico is None else amount_text(pico)


ROUTES: Final = (
    Route(
        method="POST",
        path="/v1/billed-usage",
        scope=KeyScope.ADMIN,
        handler=administered("billed_usage.import", import_billed, shown=False),
        summary="Import a provider's bill",
        description=(
            "Records of billed usage, originals and their corrections, and list prices. Records add up: what a retraction "
            "takes away it has as a negative quantity. All of the request is taken, or nothing." + ACT_TEXT
        ),
        tags=("margin",),
        example=Example(
            request={
                "usage": [
                    {
                        "record": "r-1",
                        "sku": "SERVING_H100",
                        "unit": "DBU",
                        "start": "2026-11-22T09:00:00Z",
                        "end": "2026-11-22T10:00:00Z",
                        "quantity": "42.5",
                        "endpoint": "atlas-large",
                    }
                ],
                "prices": [{"sku": "SERVING_H100", "unit": "DBU", "amount": "0.07", "start": "2026-01-01T00:00:00Z"}],
            },
            response={"added": 1, "known": 0, "contradicted": [], "prices": 1},
        ),
        request=BilledRequest,
        response=BilledImported,
        body_bytes_max=IMPORT_BYTES_MAX,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
    ),
    Route(
        method="GET",
        path="/v1/billed-usage/reconciliation",
        scope=KeyScope.ADMIN,
        handler=show_reconciliation,
        summary="Hold a provider's bill against our costs",
        description=(
            "Hour by hour and endpoint by endpoint, what was billed at list prices (those in force where the usage ended), "
            "beside what the endpoint's GPUs cost by our telemetry and rates. An endpoint is the model of its own name, unless "
            "`models` names another."
        ),
        tags=("margin",),
        query=(
            QueryParameter("from", "text", "RFC 3339; default: a day before `to`"),
            QueryParameter("to", "text", "RFC 3339; default: now"),
            QueryParameter("models", "text", "ENDPOINT=MODEL, separated by commas", None, 0, 2_000),
            QueryParameter("currency", "text", "of both", "USD", 3, 3),
        ),
        example=Example(
            response={
                "items": [
                    {
                        "endpoint": "atlas-large",
                        "hour": "2026-11-22T09:00:00Z",
                        "currency": "USD",
                        "billed": "2.975",
                        "corrected": "0",
                        "ours": "2.95",
                        "delta": "0.025",
                    }
                ],
                "endpoints": [{"endpoint": "atlas-large", "billed": "2.975", "ours": "2.95", "delta": "0.025"}],
                "faults": [],
                "begin": "2026-11-22T09:00:00Z",
                "end": "2026-11-22T10:00:00Z",
            }
        ),
        response=Reconciliation,
        deadline_s=ACT_DEADLINE_S,
    ),
)
