"""FOCUS rows out of rated lines: one per account, hour, price, cell and kind of charge, never one per request."""

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final

from msgspec import Struct

from actors.focus.columns import ADJUSTMENT, COLUMNS, CORRECTION, PURCHASE, USAGE, Row, Value, check_row
from engine.money import amount_text, parse_amount, parse_quantity, quantity_text
from engine.outcomes import RatedLine
from engine.partition import PERIOD

HOUR_US: Final = 3_600_000_000
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# [start, end) of an account's billing period around an instant
Periods = Callable[[str, int], tuple[int, int]]


class Issuer(Struct, frozen=True):
    """Who sells: the names that the lines do not know."""

    provider: str
    service: str
    unit: str = "Units"  # of the prices' quantities, where `units` does not say it
    units: Mapping[str, str] = {}  # by price


class _Key(Struct, frozen=True, gc=False):
    account: str
    currency: str
    price: str
    version: int
    cell: tuple[tuple[str, str], ...]
    category: str
    frequency: str
    correction: bool
    billing: tuple[int, int]
    charge: tuple[int, int]
    due: str | None


class _Sum(Struct):
    pico: int = 0
    nano: int = 0
    lines: int = 0


def focus_rows(lines: Iterable[RatedLine], periods: Periods, issuer: Issuer) -> list[Row]:
    """In the order of accounts, then time. The sum of `BilledCost` is that of the lines' amounts, exactly."""
    sums: dict[_Key, _Sum] = {}
    for line in lines:
        into = sums.setdefault(_key(line, periods), _Sum())
        into.pico += parse_amount(line.amount)
        into.nano += parse_quantity(line.quantity)
        into.lines += 1
    ordered = sorted(
        sums.items(),
        key=lambda item: (
            item[0].account,
            item[0].charge,
            item[0].price,
            item[0].cell,
            item[0].version,
            item[0].billing,
        ),
    )
    rows = [_row(key, total, issuer) for key, total in ordered]
    for row in rows:
        check_row(row)
    return rows


def _key(line: RatedLine, periods: Periods) -> _Key:
    of_period = line.due is not None and line.source == PERIOD
    if of_period:
        # What a period owes besides usage, posted when it closes: a charge of that period, and no correction of it.
        billing = charge = periods(line.account, line.time_us)
    else:
        hour = line.time_us - line.time_us % HOUR_US
        charge = (hour, hour + HOUR_US)
        # What comes for a closed period is billed in the one that is open when it is posted.
        billing = periods(line.account, line.time_us if line.adjusts is None else line.log_time_us)
    category, frequency = USAGE, "Usage-Based"
    if line.due == "fee":
        category, frequency = PURCHASE, "Recurring"
    elif line.due is not None:
        category, frequency = ADJUSTMENT, "One-Time"
    return _Key(
        line.account,
        line.currency,
        line.price,
        line.version,
        tuple(sorted(line.cell.items())),
        category,
        frequency,
        line.adjusts is not None and not of_period,
        billing,
        charge,
        line.due,
    )


def _row(key: _Key, total: _Sum, issuer: Issuer) -> Row:
    used = key.category == USAGE
    quantity = Decimal(quantity_text(total.nano)) if used else None
    unit = issuer.units.get(key.price, issuer.unit) if used else None
    return plain_row(issuer, Decimal(amount_text(total.pico)), key.billing, key.charge) | {
        "BillingAccountId": key.account,
        "BillingAccountName": key.account,
        "BillingCurrency": key.currency,
        "ChargeCategory": key.category,
        "ChargeClass": CORRECTION if key.correction else None,
        "ChargeDescription": _description(key),
        "ChargeFrequency": key.frequency,
        "ConsumedQuantity": quantity,
        "ConsumedUnit": unit,
        "PricingCategory": "Standard" if used else None,
        "PricingQuantity": quantity,
        "PricingUnit": unit,
        "SkuId": key.price if used else None,
        "SkuMeter": key.price if used else None,
        "Tags": json.dumps(dict(key.cell), ensure_ascii=False, sort_keys=True) if key.cell else None,
        "x_Lines": Decimal(total.lines),
        "x_PriceVersion": str(key.version),
    }


def plain_row(issuer: Issuer, cost: Decimal, billing: tuple[int, int], charge: tuple[int, int]) -> dict[str, Value]:
    """Every column, with what all rows have; the rest is null.

    What a price comes to depends on all units of its period; lines do not say what a list, or a contract without tiers,
    would have charged. So all four costs are the amount, and there is no unit price."""
    return dict.fromkeys(COLUMNS) | {
        "BilledCost": cost,
        "BillingAccountType": "Account",
        "BillingPeriodEnd": instant_of(billing[1]),
        "BillingPeriodStart": instant_of(billing[0]),
        "ChargePeriodEnd": instant_of(charge[1]),
        "ChargePeriodStart": instant_of(charge[0]),
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "InvoiceIssuerName": issuer.provider,
        "ListCost": cost,
        "ProviderName": issuer.provider,
        "PublisherName": issuer.provider,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": issuer.service,
        "ServiceSubcategory": "Generative AI",
    }


def _description(key: _Key) -> str:
    what = "" if key.due is None else f"{key.due}, "
    return what + " ".join([key.price, *(value for _, value in key.cell)])


def instant_of(us: int) -> datetime:
    """To the second: a boundary inside one is that of the second it lies in."""
    return _EPOCH + timedelta(seconds=us // 1_000_000)
