"""The columns of our FOCUS 1.2 export, and what each may hold. Every row is held against this before it is written.

FOCUS is the FinOps Open Cost and Usage Specification. Its own validator says more, and needs a newer Python than we do
(tests/actors/focus/test_validator.py).
"""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Final

from msgspec import Struct

VERSION: Final = "1.2"
Value = str | Decimal | datetime | None
Row = Mapping[str, Value]


class Kind(Enum):
    """What a column holds."""

    AMOUNT = "amount"  # money, or a price: 12 digits
    QUANTITY = "quantity"  # 9 digits
    TEXT = "text"
    INSTANT = "instant"  # UTC, whole seconds
    TAGS = "tags"  # a JSON object of texts


DIGITS: Final = {Kind.AMOUNT: 12, Kind.QUANTITY: 9}  # behind the point


class Column(Struct, frozen=True):
    """`allowed`: the only texts there are."""

    kind: Kind
    nullable: bool = False
    allowed: tuple[str, ...] = ()


USAGE, PURCHASE, ADJUSTMENT = "Usage", "Purchase", "Adjustment"
CORRECTION: Final = "Correction"
_CATEGORIES: Final = (USAGE, PURCHASE, "Tax", "Credit", ADJUSTMENT)
_FREQUENCIES: Final = ("One-Time", "Recurring", "Usage-Based")

COLUMNS: Final[dict[str, Column]] = {
    "BilledCost": Column(Kind.AMOUNT),
    "BillingAccountId": Column(Kind.TEXT),
    "BillingAccountName": Column(Kind.TEXT, nullable=True),
    "BillingAccountType": Column(Kind.TEXT),
    "BillingCurrency": Column(Kind.TEXT),
    "BillingPeriodEnd": Column(Kind.INSTANT),
    "BillingPeriodStart": Column(Kind.INSTANT),
    "ChargeCategory": Column(Kind.TEXT, allowed=_CATEGORIES),
    "ChargeClass": Column(Kind.TEXT, nullable=True, allowed=(CORRECTION,)),
    "ChargeDescription": Column(Kind.TEXT, nullable=True),
    "ChargeFrequency": Column(Kind.TEXT, allowed=_FREQUENCIES),
    "ChargePeriodEnd": Column(Kind.INSTANT),
    "ChargePeriodStart": Column(Kind.INSTANT),
    "ConsumedQuantity": Column(Kind.QUANTITY, nullable=True),
    "ConsumedUnit": Column(Kind.TEXT, nullable=True),
    "ContractedCost": Column(Kind.AMOUNT),
    "ContractedUnitPrice": Column(Kind.AMOUNT, nullable=True),
    "EffectiveCost": Column(Kind.AMOUNT),
    "InvoiceId": Column(Kind.TEXT, nullable=True),
    "InvoiceIssuerName": Column(Kind.TEXT),
    "ListCost": Column(Kind.AMOUNT),
    "ListUnitPrice": Column(Kind.AMOUNT, nullable=True),
    "PricingCategory": Column(Kind.TEXT, nullable=True, allowed=("Standard", "Dynamic", "Committed", "Other")),
    "PricingQuantity": Column(Kind.QUANTITY, nullable=True),
    "PricingUnit": Column(Kind.TEXT, nullable=True),
    "ProviderName": Column(Kind.TEXT),
    "PublisherName": Column(Kind.TEXT),
    "ResourceId": Column(Kind.TEXT, nullable=True),
    "ResourceType": Column(Kind.TEXT, nullable=True),
    "ServiceCategory": Column(Kind.TEXT, allowed=("AI and Machine Learning",)),
    "ServiceName": Column(Kind.TEXT),
    "ServiceSubcategory": Column(Kind.TEXT, allowed=("Generative AI",)),
    "SkuId": Column(Kind.TEXT, nullable=True),
    "SkuMeter": Column(Kind.TEXT, nullable=True),
    "SkuPriceId": Column(Kind.TEXT, nullable=True),
    "SubAccountId": Column(Kind.TEXT, nullable=True),
    "Tags": Column(Kind.TAGS, nullable=True),
    # ours
    "x_CostRole": Column(Kind.TEXT, nullable=True),  # of costs: the bucket (engine/README.md, "Cost")
    "x_Feature": Column(Kind.TEXT, nullable=True),
    "x_Lines": Column(Kind.QUANTITY),  # that the row adds up
    "x_Model": Column(Kind.TEXT, nullable=True),
    "x_PriceVersion": Column(Kind.TEXT, nullable=True),  # of the catalogue
}


class BadRow(ValueError):
    """A row that FOCUS would not take; the message names the column. It is a fault of the export, not of the reader."""


def check_row(row: Row) -> None:
    """Raises BadRow."""
    if row.keys() != COLUMNS.keys():
        raise BadRow(f"columns: {', '.join(sorted(row.keys() ^ COLUMNS.keys()))}")
    for name, column in COLUMNS.items():
        _check_value(name, column, row[name])
    for what in ("BillingPeriod", "ChargePeriod"):
        start, end = row[f"{what}Start"], row[f"{what}End"]
        if not (isinstance(start, datetime) and isinstance(end, datetime) and start < end):
            raise BadRow(f"{what}End {end} is not behind {what}Start {start}")
    if (row["ConsumedQuantity"] is None) is not (row["ConsumedUnit"] is None):
        raise BadRow("ConsumedQuantity and ConsumedUnit: one without the other")
    if (row["PricingQuantity"] is None) is not (row["PricingUnit"] is None):
        raise BadRow("PricingQuantity and PricingUnit: one without the other")
    if row["ChargeCategory"] != USAGE and row["ConsumedQuantity"] is not None:
        raise BadRow(f"ConsumedQuantity: nothing is consumed by a charge of the category {row['ChargeCategory']}")


def _check_value(name: str, column: Column, value: Value) -> None:
    if value is None:
        if not column.nullable:
            raise BadRow(f"{name} is null")
        return
    if column.kind in DIGITS:
        digits = DIGITS[column.kind]
        if not isinstance(value, Decimal) or not value.is_finite() or value != round(value, digits):
            raise BadRow(f"{name}: {value!r} is no number of at most {digits} digits behind the point")
    elif column.kind is Kind.INSTANT:
        if not isinstance(value, datetime) or value.tzinfo is not UTC or value.microsecond:
            raise BadRow(f"{name}: {value!r} is no whole second of UTC")
    elif not isinstance(value, str) or not value:
        raise BadRow(f"{name}: {value!r} is no text")
    elif column.allowed and value not in column.allowed:
        raise BadRow(f"{name}: {value!r} is none of {', '.join(column.allowed)}")
    elif column.kind is Kind.TAGS and not _is_tags(value):
        raise BadRow(f"{name}: {value!r} is no JSON object of texts")


def _is_tags(text: str) -> bool:
    tags = json.loads(text)
    return isinstance(tags, dict) and all(isinstance(value, str) for value in tags.values())
