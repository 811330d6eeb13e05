"""What made a charge (law A2): the event in the log, its lines in the topic `rated`, and the prices that they name.

The owner of the account says at which offset the event lies (`door_wire.FindRated`). When that record was appended says
where its lines begin to be looked for; they were told behind it, in the order of the log but for what a successor told
again. Of these the lines of the highest epoch count, as everywhere.
"""

from contextlib import aclosing
from fractions import Fraction
from typing import Any, Final, Protocol

import msgspec
from msgspec import UNSET, Struct

from actors.door_wire import FindRated, RatedAt
from actors.ports import Record
from actors.rebuild import Reader
from actors.reconcile.rated import CLOCKS_APART_MS, RatedSet, sets_of
from engine.catalog import (
    Catalogue,
    CatalogueDocument,
    PriceDefinition,
    agreed_price,
    compile_catalogue,
    read_document,
)
from engine.contract import Contract, Phase
from engine.events import Malformed, UsageEvent, parse_usage
from engine.meters import Meter
from engine.money import amount_text, parse_amount, parse_quantity, quantity_text, round_half_even
from engine.outcomes import RatedLine
from engine.prices.curve import INCLUDED
from engine.prices.price import Price
from engine.prices.shared import SHARED
from engine.quantity_grants import GRANTED
from engine.waivers import WAIVED

LOOK_BACK_MS: Final = (1_000, CLOCKS_APART_MS)  # how far two brokers' clocks may lie apart: mostly, and at all
LOOKED_THROUGH_MAX: Final = 32 << 20  # bytes of blocks; a hundred thousand lines
VERSIONS_KEPT: Final = 4  # catalogues, compiled


class EventGone(Exception):
    """The log does not hold the event any more."""


class LinesAway(Exception):
    """The event's lines are not in the topic: not yet, not any more, or there are none, as no meter counts it."""

    def __init__(self, event: UsageEvent) -> None:
        super().__init__(event.id)
        self.event = event


class VersionLost(Exception):
    """A line names a price that the store does not have (any more)."""


class Shelf(Protocol):
    """Published catalogues (`actors/records.py`)."""

    async def catalogue(self, version: int) -> Any:
        """With `body`, its JSON; None when there is no such version."""


class TierCharge(Struct, frozen=True):
    """What one tier adds to a line: `quantity` of the units above `start`, at `amount` for `per` of them; `flat` is due
    on entering it."""

    number: (
        int  # from 1; 0: what the price includes, -1: beyond its maximum, -2: a quantity grant's, -3: an allowance's
    )
    start: str
    end: str | None  # None: the last tier has none
    amount: str
    per: str
    quantity: str
    charged: str  # with modifiers: included quantity, maximum, discount
    flat: str = "0"


class LineCharge(Struct, frozen=True):
    """A rated line, and what its price says. `own` + `repricing` + `beyond` is the line's amount."""

    line: RatedLine
    meter: Meter | None  # None: it is of several prices together, and no usage
    where: dict[str, str]
    tiers: list[TierCharge]
    own: str  # what its tiers come to, rounded once
    repricing: str  # what the terms that it reached change in usage rated before: law R9
    beyond: str  # what usage rated before under a later version, and rounding of the period's total, add to it
    used_before: str | None  # of the price in the period; known where the tiers tell it, or the amount needs it
    used_after: str | None  # with the line's own quantity; None together with used_before


class Corrected(Struct, frozen=True):
    """What an amend or a cancel changed: lines that take back, then those of what the event was amended to."""

    kind: str  # "amend" or "cancel"
    offset: int  # of the record that changed it
    lines: list[LineCharge]


class Charge(Struct, frozen=True):
    """One rated event."""

    event: UsageEvent
    value: bytes  # the event as it stands in the log
    append_ms: int
    lines: list[LineCharge]  # at least one
    corrections: list[Corrected]  # in the order in which they were applied
    waived: list[RatedLine]  # what a cap takes off, or no longer does, with the event or a correction of it


_line_decoder: Final = msgspec.json.Decoder(RatedLine)
_terms_decoder: Final = msgspec.json.Decoder(PriceDefinition)
_Version = tuple[CatalogueDocument, Catalogue]


class Charges:
    """Looked up one at a time: the topics have one reader."""

    def __init__(self, topics: Reader, shelf: Shelf, usage: str, rated: str) -> None:
        """`usage` and `rated` are the names of the topics."""
        self._topics = topics
        self._shelf = shelf
        self._usage = usage
        self._rated = rated
        self._versions: dict[int, _Version] = {}

    async def of(self, asked: FindRated, found: RatedAt) -> Charge:
        """The charge of an event that its owner has found.

        Raises EventGone, LinesAway, VersionLost, LogUnavailable, StoreUnavailable and StoreRefused."""
        assert found.offset is not None
        partition, offset = found.as_of.partition, found.offset
        record = await self._topics.read_one(self._usage, partition, offset)
        event = None if record is None else _event(record)
        if record is None or event is None or _asked_for(record, event) != asked:
            raise EventGone
        told = await self._told(partition, offset, record.timestamp, found.as_of.epoch)
        if told is None:
            raise LinesAway(event)
        lines = _lines(told)
        for place in dict.fromkeys(found.corrected):
            if place != offset:
                lines += await self._lines_at(event, partition, place, found.as_of.epoch)
        if not lines:
            raise LinesAway(event)
        waived = [line for line in lines if line.due == WAIVED]
        lines = [line for line in lines if line.due != WAIVED]
        charged = [await self._explained(line, found) for line in lines if line.correction is None]
        corrections: list[Corrected] = []
        for line in lines:
            if line.correction is not None:
                if not corrections or (corrections[-1].kind, corrections[-1].offset) != (line.correction, line.offset):
                    corrections.append(Corrected(line.correction, line.offset, []))
                corrections[-1].lines.append(await self._explained(line, found))
        return Charge(event, record.value or b"", record.timestamp, charged, corrections, waived)

    async def _lines_at(self, event: UsageEvent, partition: int, offset: int, epoch: int) -> list[RatedLine]:
        """Of a correction of the event. Raises EventGone or LinesAway."""
        record = await self._topics.read_one(self._usage, partition, offset)
        if record is None:
            raise EventGone
        told = await self._told(partition, offset, record.timestamp, epoch)
        if told is None:
            raise LinesAway(event)
        return _lines(told)

    async def _explained(self, line: RatedLine, found: RatedAt) -> LineCharge:
        document, catalogue = await self._version(line.version)
        plan = contract_of(found).plan_name_at(line.time_us)
        if line.due is not None and line.price not in catalogue.plans[plan].prices:
            return LineCharge(line, None, {}, [], "0", "0", line.amount, None, None)
        try:
            price = catalogue.plans[plan].prices[line.price]
            definition = document.plans[plan].prices[line.price]
        except KeyError as error:
            raise VersionLost(f"catalogue version {line.version} has no {error} for plan {plan}") from None
        if line.agreed_us is not None:
            terms = {(from_us, name): terms for from_us, name, terms in found.agreed}.get((line.agreed_us, line.price))
            if terms is None:
                raise VersionLost(f"the account has agreed on no price {line.price} from {line.agreed_us} on")
            definition = _terms_decoder.decode(terms)
        if line.included is not None:
            definition = msgspec.structs.replace(definition, included=line.included)
        if line.commitment is not None:
            bound = bool(parse_amount(line.commitment))
            overage = definition.overage if bound else UNSET
            commitment = line.commitment if bound else UNSET
            definition = msgspec.structs.replace(definition, commitment=commitment, overage=overage)
        if any(said is not None for said in (line.agreed_us, line.included, line.commitment)):
            price = agreed_price(line.price, definition, line.agreed_us or 0, adds_up=True).placed(price.where)
        return explained(line, definition, price, catalogue.meters[price.meter])

    async def _told(self, partition: int, offset: int, append_ms: int, epoch: int) -> RatedSet | None:
        """The lines of the offset, as the highest epoch told them."""
        for apart_ms in LOOK_BACK_MS:
            start = await self._topics.offset_from(self._rated, partition, max(0, append_ms - apart_ms))
            _, end = await self._topics.bounds(self._rated, partition)
            found = await self._look_through(partition, start, end, offset, epoch)
            if found is not None:
                return found
        return None

    async def _look_through(self, partition: int, start: int, end: int, offset: int, epoch: int) -> RatedSet | None:
        """Until an owner has told of what lies behind, and no later one began before it (or there is none)."""
        found: RatedSet | None = None
        telling: list[bytes] = []
        mark = b'"offset":%d,' % offset
        looked_through = 0
        async with aclosing(self._topics.read(self._rated, partition, start, end)) as blocks:
            async for record in blocks:
                block = record.value or b""
                if mark in block:  # many times faster than to decode what is of no interest
                    telling.append(block)
                    found = sets_of(telling, offset, offset + 1).get(offset, found)
                if found is not None:
                    last = _last_line(block)
                    if last and last.offset > offset and (found.epoch >= epoch or last.epoch > found.epoch):
                        break
                looked_through += len(block)
                if looked_through > LOOKED_THROUGH_MAX:
                    break
        return found

    async def _version(self, number: int) -> _Version:
        known = self._versions.get(number)
        if known is None:
            row = await self._shelf.catalogue(number)
            if row is None:
                raise VersionLost(f"catalogue version {number} is not in the store; restore its row")
            document = read_document(row.body)
            known = document, compile_catalogue(number, document)
            if len(self._versions) >= VERSIONS_KEPT:
                self._versions.clear()
            self._versions[number] = known
        return known


def contract_of(found: RatedAt) -> Contract:
    """Which plan the account has when, and for which periods."""
    return Contract(found.zone, found.anchor_day, found.plan, [Phase(*each) for each in found.phases])


def _lines(told: RatedSet) -> list[RatedLine]:
    """Those of the record: beside them may stand what open sessions, of anybody, accrued when it moved log time."""
    lines = [_line_decoder.decode(line) for _, line in sorted(told.lines.items())]
    return [line for line in lines if line.accrued_us is None]


def _event(record: Record) -> UsageEvent | None:
    try:
        return parse_usage(record.value or b"")
    except Malformed:
        return None


def _asked_for(record: Record, event: UsageEvent) -> FindRated:
    """What has to be asked for to be told this event."""
    account = (event.subject or "") if record.key is None else record.key.decode("utf-8", "replace")
    return FindRated(account, event.source, event.id)


def _last_line(block: bytes) -> RatedLine | None:
    try:
        return _line_decoder.decode(block[block.rfind(b"\n") + 1 :])
    except msgspec.MsgspecError:
        return None


def explained(line: RatedLine, definition: PriceDefinition, price: Price, meter: Meter) -> LineCharge:
    """The line beside its price."""
    published = _published(definition)
    # A price that began inside the period shares nothing in it, and says what was used if its tiers do not tell the amount.
    alone = price.shared is None or (line.used is not None and not price.shared.free)
    before = _used_before(line, published) if alone else None
    granted = sum(parse_quantity(text) for number, text in line.tiers if number == GRANTED)
    used, taken = 0 if line.used is None else parse_quantity(line.used), parse_quantity(line.quantity) - granted
    curve = price.curve_at(max(used, used + taken))
    at = min(used, used + taken)
    rates = {each.tier: rate for of in price.curves for each, rate in zip(of.stretches, of.rates, strict=True)}
    tiers = []
    exact = Fraction(0)
    for number, text in line.tiers:
        quantity = parse_quantity(text)
        if number in (GRANTED, SHARED):
            tiers.append(TierCharge(number, "0", None, "0", "1", text, "0", "0"))
            continue
        owed = quantity * rates[number]
        if line.used is not None and alone:
            steps = curve.numerator(at + abs(quantity)) - curve.numerator(at)
            owed = Fraction(steps if quantity > 0 else -steps, curve.denominator)
        at += abs(quantity)
        exact += owed
        tier = published.get(number, _NOTHING)
        end = None if tier.end is None else quantity_text(tier.end)
        charged = amount_text(_rounded(owed))
        start = quantity_text(tier.start)
        tiers.append(TierCharge(number, start, end, tier.amount, tier.per, text, charged, tier.flat))
    repricing = parse_amount(line.repricing or "0")
    # Of what is shared, all units that have come to lie in other tiers are among these.
    own = _rounded(exact) - (0 if alone else repricing)
    return LineCharge(
        line,
        meter,
        dict(price.where),
        tiers,
        amount_text(own),
        amount_text(repricing),
        amount_text(parse_amount(line.amount) - own - repricing),
        None if before is None else quantity_text(before),
        None if before is None else quantity_text(before + taken),
    )


class _Tier(Struct, frozen=True):
    start: int
    end: int | None
    amount: str
    per: str
    flat: str


_NOTHING: Final = _Tier(0, None, "0", "1", "0")  # beyond a maximum


def rate_of(definition: PriceDefinition) -> tuple[str, str]:
    """(amount, per) of a price without tiers. Where fees of events are counted, they are owed as they are."""
    if isinstance(definition.factor, str):
        return definition.factor, "1"
    if isinstance(definition.percent, str):
        each = (definition.per_event, definition.event_minimum, definition.event_maximum)
        return ("1", "1") if any(isinstance(text, str) for text in each) else (definition.percent, "100")
    return definition.amount or "0", definition.per


def _published(definition: PriceDefinition) -> dict[int, _Tier]:
    """The tiers by number, as published; what is included comes before the first."""
    start = parse_quantity(definition.included) if isinstance(definition.included, str) else 0
    found = {INCLUDED: _Tier(0, start, "0", "1", "0")}
    if not definition.tiers:
        found[1] = _Tier(start, None, *rate_of(definition), "0")
    included = start
    for number, tier in enumerate(definition.tiers, start=1):
        end = None if tier.up_to is None else parse_quantity(tier.up_to) + included
        flat = tier.flat if isinstance(tier.flat, str) else "0"
        found[number] = _Tier(start, end, tier.amount, tier.per, flat)
        start = end or start
    return found


def _rounded(exact: Fraction) -> int:
    return round_half_even(exact.numerator, exact.denominator)


def _used_before(line: RatedLine, published: dict[int, _Tier]) -> int | None:
    if line.used is not None:
        return parse_quantity(line.used)
    if len(line.tiers) < 2:
        return None
    number, text = line.tiers[0]
    end = published[number].end
    assert end is not None, "what goes on in a next tier has left one that ends"
    low = end - abs(parse_quantity(text))
    return max(low, low - parse_quantity(line.quantity))
