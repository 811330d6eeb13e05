"""What a provider has billed for GPUs or endpoints, hour by hour, held against what we said they cost while they ran.

A bill comes as records of usage, of which an original may be retracted and stated again, and a list of prices. Records add up:
a retraction has the negative quantity of what it takes back. Wire format: README.md, "Billed usage"."""

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct

from engine.cost.gpu_rates import HOUR_US
from engine.cost.served import TIME_US_MAX
from engine.cost.split import largest_remainder
from engine.events import TEXT_MAX, Malformed, is_text, parse_time
from engine.money import PICO, round_half_even

SPAN_US_MAX: Final = 32 * 24 * HOUR_US  # of one record: a month in one line is the longest that anybody bills
_DIGITS: Final = 18  # behind the point, of quantities and prices, as billing tables have them
_SCALE: Final = 10**_DIGITS
_NUMBER: Final = re.compile(rf"(-?)(\d{{1,18}})(?:\.(\d{{1,{_DIGITS}}}))?")
_CURRENCY: Final = re.compile(r"[A-Z]{3}")


class RecordType(StrEnum):
    """What a record is of. A correction is a retraction and a restatement."""

    ORIGINAL = "ORIGINAL"
    RETRACTION = "RETRACTION"
    RESTATEMENT = "RESTATEMENT"


class BilledUsage(Struct, frozen=True):
    """One record. Instants are microseconds since 1970 UTC; `quantity` in 10^-18 of its unit."""

    record: str
    sku: str
    unit: str
    begin_us: int
    end_us: int
    quantity: int
    endpoint: str = ""  # "": it is of none
    type: RecordType = RecordType.ORIGINAL


class ListPrice(Struct, frozen=True):
    """A unit of the SKU costs so much, in 10^-18 of the currency, in [from_us, until_us)."""

    sku: str
    unit: str
    currency: str
    from_us: int
    until_us: int | None
    amount: int


class Hour(Struct, frozen=True):
    """An endpoint in an hour. All in pico; None: not known, never 0."""

    endpoint: str
    hour_us: int
    currency: str
    billed: int | None  # originals, retractions and restatements together
    corrected: int | None  # of it, retractions and restatements
    ours: int | None  # what our telemetry and rates come to

    @property
    def delta(self) -> int | None:
        """What was billed less what we said."""
        return None if self.billed is None or self.ours is None else self.billed - self.ours


class Reconciled(Struct, frozen=True):
    """The hours in the order of endpoint and time, and what is not known, a line each."""

    hours: list[Hour]
    faults: list[str]


def parse_fixed(field: str, value: object) -> int:
    """A decimal with at most 18 digits on either side of the point, in 10^-18. Raises Malformed, naming the field."""
    if type(value) is Decimal and value.is_finite() and -_DIGITS * 3 < value.adjusted() < _DIGITS * 3:
        text = f"{value:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
    else:
        text = str(value)[:60]
    match = _NUMBER.fullmatch(text)
    if match is None:
        raise Malformed(f"{field}: {text!r} is no decimal of at most {_DIGITS} digits on either side of the point")
    scaled = int(match[2]) * _SCALE + int((match[3] or "").ljust(_DIGITS, "0"))
    return -scaled if match[1] else scaled


def checked_usage(usage: BilledUsage) -> BilledUsage:
    """The same. Raises Malformed, naming the record and the field, for what makes no sense."""
    where = f"record {usage.record[:60]!r}"
    for field, text in (("record", usage.record), ("sku", usage.sku), ("unit", usage.unit)):
        if not is_text(text):
            raise Malformed(f"{where}: {field} is not a text of 1 to {TEXT_MAX} characters without NUL")
    if usage.endpoint and not is_text(usage.endpoint):
        raise Malformed(f"{where}: endpoint is not a text of at most {TEXT_MAX} characters without NUL")
    if not 0 <= usage.begin_us < usage.end_us <= TIME_US_MAX:
        raise Malformed(f"{where}: its end is not behind its start")
    if usage.end_us - usage.begin_us > SPAN_US_MAX:
        raise Malformed(f"{where}: it is longer than {SPAN_US_MAX // (24 * HOUR_US)} days")
    if (usage.quantity > 0) if usage.type is RecordType.RETRACTION else (usage.quantity < 0):
        raise Malformed(f"{where}: a {usage.type} of this sign: a retraction takes away, all else adds")
    return usage


def checked_price(price: ListPrice) -> ListPrice:
    """The same. Raises Malformed for what makes no sense."""
    where = f"price of {price.sku[:60]!r}"
    if not is_text(price.sku) or not is_text(price.unit):
        raise Malformed(f"{where}: sku and unit are texts of 1 to {TEXT_MAX} characters without NUL")
    if _CURRENCY.fullmatch(price.currency) is None:
        raise Malformed(f"{where}: {price.currency[:20]!r} is no currency: three capitals")
    if price.amount < 0:
        raise Malformed(f"{where}: it is below 0")
    if not 0 <= price.from_us <= TIME_US_MAX or (price.until_us is not None and price.until_us <= price.from_us):
        raise Malformed(f"{where}: it ends before it begins")
    return price


# ------------------------------------------------------------------------------------------------- tables of others


def usage_from_table(row: Mapping[str, Any]) -> BilledUsage:
    """A row of the billing table `system.billing.usage`, as it is exported. Raises Malformed."""
    metadata = row.get("usage_metadata")
    endpoint = metadata.get("endpoint_name") if isinstance(metadata, Mapping) else row.get("endpoint_name")
    kind = str(row.get("record_type") or RecordType.ORIGINAL).upper()
    if kind not in list(RecordType):
        raise Malformed(f"record_type: {kind[:40]!r} is none of {', '.join(RecordType)}")
    return checked_usage(
        BilledUsage(
            _text(row, "record_id"),
            _text(row, "sku_name"),
            _text(row, "usage_unit"),
            _instant(row, "usage_start_time"),
            _instant(row, "usage_end_time"),
            parse_fixed("usage_quantity", row.get("usage_quantity")),
            str(endpoint or ""),
            RecordType(kind),
        )
    )


def price_from_table(row: Mapping[str, Any]) -> ListPrice:
    """A row of the billing table `system.billing.list_prices`, as it is exported. Raises Malformed."""
    pricing = row.get("pricing")
    amount = pricing.get("default") if isinstance(pricing, Mapping) else row.get("pricing.default", pricing)
    until = row.get("price_end_time")
    return checked_price(
        ListPrice(
            _text(row, "sku_name"),
            _text(row, "usage_unit"),
            _text(row, "currency_code"),
            _instant(row, "price_start_time"),
            None if until in (None, "") else _instant(row, "price_end_time"),
            parse_fixed("pricing.default", amount),
        )
    )


def _text(row: Mapping[str, Any], field: str) -> str:
    value = row.get(field)
    if type(value) is not str or not value:
        raise Malformed(f"{field}: missing, or no text")
    return value


def _instant(row: Mapping[str, Any], field: str) -> int:
    text = _text(row, field).replace(" ", "T", 1)
    try:
        # Exports leave the zone out; what the tables hold is UTC.
        return parse_time(text if re.search(r"(Z|[+-]\d\d:?\d\d)\Z", text) else text + "Z")
    except Malformed as error:
        raise Malformed(f"{field}: {error}") from error


# ---------------------------------------------------------------------------------------------------- reconciliation


class Prices:
    """List prices, to be asked for one record."""

    def __init__(self, prices: Iterable[ListPrice]) -> None:
        """Of several that hold at an instant the one that began last counts."""
        self._found: dict[tuple[str, str], list[ListPrice]] = {}
        for price in sorted(prices, key=lambda each: each.from_us, reverse=True):
            self._found.setdefault((price.sku, price.unit), []).append(price)

    def of(self, usage: BilledUsage) -> ListPrice | None:
        """The one in force where the record's usage ended, as providers join them."""
        for price in self._found.get((usage.sku, usage.unit), ()):
            if price.from_us <= usage.end_us and (price.until_us is None or usage.end_us < price.until_us):
                return price
        return None


def amount_of(usage: BilledUsage, price: ListPrice) -> int:
    """What the record comes to, in pico: exact, and rounded half-even once. A retraction cancels its original exactly."""
    return round_half_even(usage.quantity * price.amount * PICO, _SCALE * _SCALE)


def reconcile(
    usages: Iterable[BilledUsage],
    prices: Prices,
    ours: Mapping[tuple[str, int], int | None],
    currency: str,
    begin_us: int,
    end_us: int,
) -> Reconciled:
    """The hours of [begin_us, end_us) in which anything was billed or cost, by endpoint. `ours`: what we said an endpoint cost
    in an hour, in `currency`; None: not known. A record over several hours is split over them by their lengths."""
    billed: dict[tuple[str, int], int] = {}
    corrected: dict[tuple[str, int], int] = {}
    unknown: set[tuple[str, int]] = set()
    faults: set[str] = set()
    for usage in usages:
        price = prices.of(usage)
        hours = _hours(usage)
        if price is None or price.currency != currency:
            what = "no list price" if price is None else f"a list price in {price.currency} and not in {currency}"
            faults.add(f"sku {usage.sku}, in {usage.unit}: {what}")
            unknown.update((usage.endpoint, hour_us) for hour_us, _ in hours)
            continue
        amount = amount_of(usage, price)
        # Of what takes away the remainders are those of what it takes away: so both cancel out in every hour.
        shares = largest_remainder(abs(amount), [length for _, length in hours])
        for (hour_us, _), share in zip(hours, shares, strict=True):
            signed = share if amount >= 0 else -share
            key = usage.endpoint, hour_us
            billed[key] = billed.get(key, 0) + signed
            if usage.type is not RecordType.ORIGINAL:
                corrected[key] = corrected.get(key, 0) + signed
    found = []
    for key in sorted(billed.keys() | unknown | ours.keys()):
        endpoint, hour_us = key
        if not begin_us <= hour_us < end_us:
            continue
        known = key not in unknown
        found.append(
            Hour(
                *(endpoint, hour_us, currency),
                billed.get(key, 0) if known else None,
                corrected.get(key, 0) if known else None,
                ours.get(key, 0),
            )
        )
    return Reconciled(found, sorted(faults))


def _hours(usage: BilledUsage) -> list[tuple[int, int]]:
    """(hour, how much of it) in which it was used."""
    found = []
    hour_us = usage.begin_us // HOUR_US * HOUR_US
    while hour_us < usage.end_us:
        found.append((hour_us, min(usage.end_us, hour_us + HOUR_US) - max(usage.begin_us, hour_us)))
        hour_us += HOUR_US
    return found
