"""Why an event costs what it costs: each decision and number of one charge (law A2)."""

from collections.abc import Iterable
from typing import Any, Final, Literal

import msgspec
from msgspec import Raw, Struct

from actors.door_wire import CapView, FindRated, NotFound, Payers, RatedAt, Recovering, ShowPayers
from actors.explain import Charge, EventGone, LineCharge, LinesAway, VersionLost, contract_of
from actors.records import PAGE_MAX, DeadLetterRecord, write_cursor
from actors.web.customers import AS_OF_EXAMPLE, recovering
from actors.web.hot import AsOfAnswer, as_of_answer, put
from actors.web.remedies import remedy
from actors.web.times import instant, instant_or_none
from actors.web.wire import Call, Example, KeyScope, Problem, QueryParameter, Reply, Route, absent, unavailable
from engine.catalog import load_catalogue
from engine.events import KEY_BYTES_MAX, TEXT_MAX, UsageEvent
from engine.holds import Hold, read_token
from engine.meters import BadDimension, BadUsage, Meter
from engine.money import amount_text, parse_amount

DEADLINE_S: Final = 10.0
AGAIN_S: Final = 1


class SentEvent(Struct, omit_defaults=True):
    """The event as it stands in the log, but for the token of its hold."""

    specversion: str
    id: str
    source: str
    type: str
    data: Raw
    time: str | None = None
    subject: str | None = None
    scope: str = ""
    holdfinal: bool = True
    seq: int | None = None


class RatingPeriod(Struct):
    """The billing period that the event counts in: [start, end)."""

    zone: str
    anchor_day: int
    start: str
    end: str


class RatingHold(Struct):
    """The hold that the event names. It was rated at the instant of its admission."""

    id: str
    scope: str
    admitted: str
    settled: Literal["within", "over_hold", "late"] | None


class RatingTier(Struct):
    """Of the event's `quantity` in this tier, each `per` units cost `amount`; entering it costs `flat`."""

    tier: int  # from 1; 0: what the price includes, -1: beyond its maximum, -2: a quantity grant's, -3: an allowance's
    above: str
    up_to: str | None
    amount: str
    per: str
    quantity: str
    charged: str
    flat: str


class RatingLine(Struct):
    """What one price charges for the event: `own` + `repricing` + `beyond` = `amount`."""

    price: str
    meter: str
    counts: str  # "events", or the field or expression of `data` that is summed
    where: dict[str, str]  # which cells the price is for
    cell: dict[str, str]
    quantity: str
    used_before: str | None  # in the period, by then; null where one tier takes all and the amount does not need it
    used_after: str | None  # with this quantity
    tiers: list[RatingTier]
    own: str  # what the tiers come to
    repricing: str  # what the terms that it reached (volume) change in the price of usage rated before
    beyond: str  # what usage rated before under a later version, and the rounding of the period's total, add
    amount: str
    version: int  # of the catalogue that has this price; older than the event's where it holds through the period
    agreed_since: str | None = None  # the price is agreed with this account alone, from then on; null: the catalogue's
    included: str | None = None  # what the price includes, where a short period makes it less
    due: str | None = (
        None  # "minimum", "commitment": no usage, but what the event changed in what its closed period lacks to it
    )
    commitment: str | None = None  # beyond what amount usage counts by its overage, where the period makes that less


class RatingLot(Struct):
    """A credit grant, and what it pays of the usage of a segment."""

    lot: str
    kind: str
    amount: str


class RatingCap(Struct):
    """A cap in which the event counts."""

    cap: str
    scope: str
    hard: bool  # it denies checks; no cap keeps usage from being rated
    amount: str
    spent: str  # by now, in the window that the event was rated in; of a rolling one, all since its length before
    window: str
    unit: str  # the meter or price whose units it counts; "": money


class RatingPayers(Struct):
    """Who pays. Lots pay for all usage of a segment of event time together, not event by event: what they pay of it, on
    top of all usage up to it, as things stand now. More usage in it or before it changes that, until its period closes."""

    start: str
    end: str  # the segment is [start, end)
    charged: dict[str, str]  # in the segment, by price
    lots: list[RatingLot]  # in the order in which they pay
    debt: str  # what no lot has paid so far
    refunded: str  # what was given back: neither paid nor owed
    waived: str  # what a cap takes off the segment's usage: of that, only `charged` is paid or owed


class RatingWaived(Struct):
    """What a cap takes off what the account owes, because of the event or a correction of it; above 0: no longer."""

    cap: str
    offset: int
    amount: str


class SetAside(Struct):
    """A record under the same id and source that was not rated."""

    partition: int
    offset: int
    reason: str
    detail: str
    next_step: str


class RatingCorrection(Struct):
    """What an amend or a cancel changed: quantities below 0 are taken back."""

    kind: Literal["amend", "cancel"]
    offset: int
    adjusts: str | None  # as the event's own
    amount: str
    lines: list[RatingLine]


class RatingView(Struct):
    """One charge, with all that made it."""

    account: str
    source: str
    id: str
    amount: str
    currency: str
    event: SentEvent
    partition: int
    offset: int
    appended: str
    rated_at: str  # the instant whose prices and period count
    usage_basis: Literal["measured", "estimated"]  # as the event says; an estimate is priced like any other
    tags: dict[str, str]  # the event's own
    rated_by: Literal["time", "hold"]  # the event's own time, or its hold's admission
    adjusts: str | None  # start of its billing period, if that was closed when it came: what it adds was posted then
    plan: str
    version: int  # of the catalogue
    period: RatingPeriod
    hold: RatingHold | None
    lines: list[RatingLine]
    corrections: list[RatingCorrection]  # in the order in which they were applied
    waived: list[RatingWaived]  # beside `amount`: what the account's cap waives with it; mostly empty
    due: str  # what the event comes to with them: `amount`, theirs, and what is waived
    paid_by: RatingPayers | None  # null while the owner cannot say
    caps: list[RatingCap]
    set_aside: list[SetAside]  # newest first
    alerts: list[Raw]  # what the event crossed, as it is told; complete once it is final
    epoch: int  # of the owner that told the lines
    final: bool  # false: no checkpoint holds it yet, and after a crash it is rated anew, with the same result
    as_of: AsOfAnswer


def _rating_cap(cap: CapView) -> RatingCap:
    return RatingCap(cap.cap, cap.scope, cap.hard, cap.amount, cap.spent, cap.window, cap.unit)


class _Named(Struct):
    id: str
    source: str
    subject: str | None = None


_named_decoder: Final = msgspec.json.Decoder(_Named)
_sent_decoder: Final = msgspec.json.Decoder(SentEvent)


async def show_rating(call: Call) -> Reply:
    """GET /v1/events/{id}/rating."""
    account, source, event_id = call.query["account"], call.query["source"], call.params["id"]
    if call.account is not None and account != call.account:
        raise absent("account")
    asked = FindRated(account, source, event_id)
    found = await put(call.services, account, asked)
    if isinstance(found, NotFound):
        raise absent("account")
    if isinstance(found, Recovering):
        raise recovering(found)
    if not isinstance(found, RatedAt):
        raise unavailable("The owner of the account did not answer in time.")
    if found.offset is None:
        raise await _unrated(call, asked, found)
    place = found.as_of.partition, found.offset
    try:
        charge = await call.services.charges.of(asked, found)
    except EventGone:
        raise _gone(*place, "the event") from None
    except LinesAway as away:
        version, counting = await _counting(call, away.event)
        if version is not None and not counting:
            raise _not_counted(*place, version) from None
        if not found.checkpointed:
            raise unavailable("The event is rated; its lines are on their way to the topic `rated`.", AGAIN_S) from None
        if counting and all(meter.session for meter in counting):
            raise _adds_no_time(*place) from None
        raise _gone(*place, "the event's lines") from None
    except VersionLost as error:
        raise unavailable(f"The prices cannot be shown: {error}.", AGAIN_S) from None
    payers = await _payers(call, account, charge)
    alerts, letters = await _alerts(call, account, found.offset), await _letters(call, asked, found)
    return Reply(_view(call, account, found, charge, payers, alerts, letters))


async def _payers(call: Call, account: str, charge: Charge) -> Payers | None:
    """Who pays, as the owner has it now; None while it cannot say."""
    scope = charge.event.scope
    if charge.event.hold is not None:
        scope = read_token(call.services.settings.control_key_bytes(), charge.event.hold).scope
    line = charge.lines[0].line
    at_us = line.time_us if line.adjusts is None else line.log_time_us
    answer = await put(call.services, account, ShowPayers(account, at_us, scope, line.adjusts))
    return answer if isinstance(answer, Payers) else None


async def _counting(call: Call, event: UsageEvent) -> tuple[int | None, list[Meter]]:
    """The catalogue version of the event, and the meters that count it; None where that is not known."""
    time_us = event.time_us
    if event.hold is not None:
        time_us = read_token(call.services.settings.control_key_bytes(), event.hold).admitted_us
    row = None if time_us is None else await call.services.records.catalogue_at(time_us)
    if time_us is None or row is None or row.body is None:
        return None, []
    catalogue = load_catalogue(row.version, row.body)
    try:
        data = catalogue.fields_of(event.type, event.data, time_us)
        return row.version, [meter for meter in catalogue.meters_of.get(event.type, ()) if meter.counts(data)]
    except (BadDimension, BadUsage):
        return None, []


def _adds_no_time(partition: int, offset: int) -> Problem:
    return Problem(
        404,
        "adds-no-time",
        "Rated, and adds no time",
        f"The event was taken, at partition {partition}, offset {offset}: it tells of a session, and adds no time to what was "
        "charged of it by then.",
        next_step="An open session is charged as time passes: those lines of the topic `rated` bear `accrued_us`.",
    )


def _not_counted(partition: int, offset: int, version: int) -> Problem:
    return Problem(
        404,
        "not-counted",
        "Rated, and not counted",
        f"The event was taken, at partition {partition}, offset {offset}; no meter of catalogue version {version} counts "
        "it, so nothing is owed for it.",
        next_step=f"GET /v1/catalogue/versions/{version} shows under `when` what each meter counts.",
    )


async def _alerts(call: Call, account: str, offset: int) -> list[Raw]:
    """What the event has crossed, as it is told."""
    rows, _ = await call.services.records.alerts(account, PAGE_MAX, write_cursor("alerts", offset + 1, ""))
    return [Raw(row.body) for row in rows if row.offset == offset]


async def _unrated(call: Call, asked: FindRated, found: RatedAt) -> Problem:
    """Why there is no charge, as far as that is known."""
    for letter in await _letters(call, asked, found):
        return Problem(
            404,
            "dead-lettered",
            "Set aside unrated",
            f"The event was not rated ({letter.reason}): {letter.detail} (partition {letter.partition}, offset "
            f"{letter.offset}).",
            next_step=remedy(letter.reason, asked.account, letter.partition, letter.offset),
        )
    lag = found.as_of.lag_records
    waiting = f" {lag} records of its partition are still to be rated." if lag else ""
    return Problem(
        404,
        "not-rated",
        "Not rated",
        f"No event of this id and source was rated for the account in the last 35 days.{waiting}",
        next_step="Check id, source and account. GET /v1/dead-letters lists what could not be rated, and why.",
    )


async def _letters(call: Call, asked: FindRated, found: RatedAt) -> list[DeadLetterRecord]:
    """What was set aside under the event's identity, newest first, as far as it is looked for."""
    written = msgspec.json.encode(asked.id)[1:-1]
    letters = await call.services.records.dead_letters_holding(found.as_of.partition, written)
    return [letter for letter in letters if _named(letter) == asked]


def _named(letter: DeadLetterRecord) -> FindRated | None:
    """The event that the record names, as far as it can be read."""
    try:
        named = _named_decoder.decode(letter.value or b"")
    except msgspec.MsgspecError:
        return None
    account = (named.subject or "") if letter.key is None else letter.key.decode("utf-8", "replace")
    return FindRated(account, named.source, named.id)


def _gone(partition: int, offset: int, what: str) -> Problem:
    return Problem(
        410,
        "gone",
        "No longer kept",
        f"The event was rated, at partition {partition}, offset {offset}; but Kafka does not hold {what} any more.",
        next_step="The account's usage by period and its ledger go on holding the amount; a longer kafka.retention_days "
        "keeps more of the log from now on.",
    )


def _view(
    call: Call,
    account: str,
    found: RatedAt,
    charge: Charge,
    payers: Payers | None,
    alerts: list[Raw],
    letters: list[DeadLetterRecord],
) -> RatingView:
    line = charge.lines[0].line
    hold = None
    if charge.event.hold is not None:
        hold = read_token(call.services.settings.control_key_bytes(), charge.event.hold)
    contract = contract_of(found)
    start_us, end_us = contract.period_around(line.time_us)
    changed = [each for correction in charge.corrections for each in correction.lines]
    return RatingView(
        account,
        charge.event.source,
        charge.event.id,
        _sum(charge.lines),
        line.currency,
        _sent_decoder.decode(charge.value),
        line.partition,
        line.offset,
        instant(charge.append_ms * 1000),
        instant(line.time_us),
        "estimated" if line.usage_basis == "estimated" else "measured",
        line.tags or {},
        "time" if hold is None else "hold",
        _adjusts(charge.lines),
        contract.plan_name_at(line.time_us),
        max(each.line.version for each in charge.lines),
        RatingPeriod(found.zone, found.anchor_day, instant(start_us), instant(end_us)),
        None if hold is None else _hold(hold, line.settled),
        [_line(each) for each in charge.lines],
        [
            RatingCorrection(
                each.kind,  # type: ignore[arg-type]
                each.offset,
                _adjusts(each.lines),
                _sum(each.lines),
                [_line(line) for line in each.lines],
            )
            for each in charge.corrections
        ],
        [RatingWaived(each.price, each.offset, each.amount) for each in charge.waived],
        amount_text(
            parse_amount(_sum([*charge.lines, *changed])) + sum(parse_amount(each.amount) for each in charge.waived)
        ),
        None if payers is None else _paid_by(payers),
        [] if payers is None else [_rating_cap(cap) for cap in payers.caps],
        [_set_aside(account, letter) for letter in letters],
        alerts,
        line.epoch,
        found.checkpointed,
        as_of_answer(found.as_of),
    )


def _paid_by(payers: Payers) -> RatingPayers:
    lots = [RatingLot(*each) for each in payers.lots]
    return RatingPayers(
        instant(payers.start_us),
        instant(payers.end_us),
        payers.charged,
        lots,
        payers.debt,
        payers.refunded,
        payers.waived,
    )


def _set_aside(account: str, letter: DeadLetterRecord) -> SetAside:
    place = letter.partition, letter.offset
    return SetAside(*place, letter.reason, letter.detail, remedy(letter.reason, account, *place))


def _adjusts(lines: Iterable[LineCharge]) -> str | None:
    return next((instant(each.line.adjusts) for each in lines if each.line.adjusts is not None), None)


def _sum(lines: Iterable[LineCharge]) -> str:
    return amount_text(sum(parse_amount(each.line.amount) for each in lines))


def _hold(hold: Hold, settled: Any) -> RatingHold:
    return RatingHold(hold.id, hold.scope, instant(hold.admitted_us), settled)


def _line(charge: LineCharge) -> RatingLine:
    line, meter = charge.line, charge.meter
    tiers = [
        RatingTier(tier.number, tier.start, tier.end, tier.amount, tier.per, tier.quantity, tier.charged, tier.flat)
        for tier in charge.tiers
    ]
    return RatingLine(
        line.price,
        "" if meter is None else meter.name,
        "" if meter is None else meter.measured,
        charge.where,
        line.cell,
        line.quantity,
        charge.used_before,
        charge.used_after,
        tiers,
        charge.own,
        charge.repricing,
        charge.beyond,
        line.amount,
        line.version,
        instant_or_none(line.agreed_us),
        line.included,
        line.due,
        line.commitment,
    )


# -------------------------------------------------------------------------------------------------------------- routes

ROUTES: Final = (
    Route(
        method="GET",
        path="/v1/events/{id}/rating",
        scope=KeyScope.READ,
        handler=show_rating,
        summary="Explain what an event costs",
        description=(
            "Each decision and number of one charge: the event as it was sent, where it lies in the log, the catalogue "
            "version and billing period of the instant it was rated at, and for each price the meter, the cell, the "
            "quantity, and what each tier charges. `tier` counts from 1; 0 is what the price includes, -1 what lies beyond its "
            "maximum, -2 what a quantity grant took, -3 what an allowance took. Of an event that was sent more than once, the "
            "first counts: it is the one "
            "shown, and `set_aside` has what came under its id and source with other content. `paid_by` says which lots pay "
            "for the segment of event time it lies in, and `caps` where it counts. `own` is "
            "what the tiers come to, as the price's included quantity, maximum and discount leave it; `repricing` is what the "
            "event changed in the price of usage rated before it, as it reached another tier of a volume price, or took units "
            "of a tier or an allowance that several prices share; `beyond` is what "
            "late usage under an older version changed, and the rounding of the period's total, which is rounded once; of a "
            "line with `due`, which no units make, it is all. "
            "`corrections` says what amends and a cancel changed since, and `due` what the event comes to with them. Where "
            "`adjusts` is no null, the event (or correction) came when its billing period was closed: its amount is the "
            "difference that it makes to all of that period, was posted when it came, counts in no cap, and `paid_by` says who "
            "pays all that was posted for that period in that segment. Events are remembered for 35 days."
        ),
        tags=("usage",),
        example=Example(
            params={"id": "req-8812"},
            query={"account": "acme", "source": "gateway/eu-1"},
            response={
                "account": "acme",
                "source": "gateway/eu-1",
                "id": "req-8812",
                "amount": "0.740000000000",
                "currency": "USD",
                "event": {
                    "specversion": "1.0",
                    "id": "req-8812",
                    "source": "gateway/eu-1",
                    "type": "llm.request",
                    "data": {"model": "large", "output_tokens": 80000},
                    "time": "2026-11-22T10:00:00Z",
                    "subject": "acme",
                },
                "partition": 3,
                "offset": 18244,
                "appended": "2026-11-22T10:00:00.120000Z",
                "rated_at": "2026-11-22T10:00:00Z",
                "usage_basis": "measured",
                "tags": {},
                "rated_by": "time",
                "adjusts": None,
                "plan": "starter",
                "version": 2,
                "period": {
                    "zone": "UTC",
                    "anchor_day": 1,
                    "start": "2026-11-01T00:00:00Z",
                    "end": "2026-12-01T00:00:00Z",
                },
                "hold": None,
                "lines": [
                    {
                        "price": "output-large",
                        "meter": "output",
                        "counts": "output_tokens",
                        "where": {"model": "large"},
                        "cell": {"model": "large"},
                        "quantity": "80000",
                        "used_before": "1950000",
                        "used_after": "2030000",
                        "tiers": [
                            {
                                "tier": 1,
                                "above": "0",
                                "up_to": "2000000",
                                "amount": "10",
                                "per": "1000000",
                                "quantity": "50000",
                                "charged": "0.500000000000",
                                "flat": "0",
                            },
                            {
                                "tier": 2,
                                "above": "2000000",
                                "up_to": None,
                                "amount": "8",
                                "per": "1000000",
                                "quantity": "30000",
                                "charged": "0.240000000000",
                                "flat": "0",
                            },
                        ],
                        "own": "0.740000000000",
                        "repricing": "0",
                        "beyond": "0",
                        "amount": "0.740000000000",
                        "version": 2,
                        "agreed_since": None,
                        "included": None,
                        "due": None,
                        "commitment": None,
                    }
                ],
                "corrections": [],
                "waived": [],
                "due": "0.740000000000",
                "paid_by": {
                    "start": "2026-11-01T00:00:00Z",
                    "end": "2026-12-01T00:00:00Z",
                    "charged": {"output-large": "19.740000000000"},
                    "lots": [{"lot": "welcome", "kind": "promo", "amount": "19.740000000000"}],
                    "debt": "0",
                    "refunded": "0",
                    "waived": "0",
                },
                "caps": [
                    {
                        "cap": "monthly",
                        "scope": "",
                        "hard": True,
                        "amount": "500",
                        "spent": "19.740000000000",
                        "window": "month",
                        "unit": "",
                    },
                ],
                "set_aside": [],
                "alerts": [
                    {
                        "id": "alert_9f86d081884c7d659a2feaa0c55ad015",
                        "type": "alert.crossed",
                        "data": {"account": "acme", "rule": "low", "window": "-", "ordinal": 1, "value": "4.2"},
                    }
                ],
                "epoch": 7,
                "final": True,
                "as_of": AS_OF_EXAMPLE,
            },
        ),
        response=RatingView,
        confines=True,
        query=(
            QueryParameter("account", "text", "the paying account", None, 1, KEY_BYTES_MAX, required=True),
            QueryParameter("source", "text", "the event's `source`", None, 1, TEXT_MAX, required=True),
        ),
        deadline_s=DEADLINE_S,
        also={
            404: "Not rated: set aside with a reason, never seen, or not for this key.",
            410: "Rated, but Kafka's retention has taken the event or its lines.",
        },
    ),
)
