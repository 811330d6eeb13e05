"""Our own schema of the export: what it refuses."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from actors.focus.columns import COLUMNS, BadRow, Row, check_row
from actors.focus.rows import Issuer, focus_rows
from tests.actors.focus.focus_lines import LINES, periods

# What FOCUS 1.2 has in every dataset of costs and usage.
MANDATORY = [
    "BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd", "BillingPeriodStart",
    "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd", "ChargePeriodStart", "ContractedCost",
    "EffectiveCost", "InvoiceIssuerName", "ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName",
    "ServiceCategory", "ServiceName",
]  # fmt: skip


def good() -> Row:
    return focus_rows(LINES[:1], periods, Issuer("p", "s"))[0]


def test_every_row_of_ours_passes_and_has_what_is_mandatory() -> None:
    check_row(good())
    assert set(MANDATORY) <= COLUMNS.keys()
    assert [name for name in COLUMNS if name.startswith("x_")] == list(COLUMNS)[-5:]  # ours stand last


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"BilledCost": None}, "BilledCost is null"),
        ({"BilledCost": Decimal("0.0000000000001")}, "BilledCost"),
        ({"BilledCost": Decimal("NaN")}, "BilledCost"),
        ({"BilledCost": 1.5}, "BilledCost"),
        ({"ChargeCategory": "Refund"}, "none of Usage"),
        ({"ChargeClass": "Late"}, "ChargeClass"),
        ({"ServiceName": ""}, "ServiceName"),
        ({"BillingPeriodStart": datetime(2025, 11, 1)}, "no whole second of UTC"),  # noqa: DTZ001
        ({"ChargePeriodEnd": datetime(2025, 11, 29, tzinfo=UTC)}, "is not behind ChargePeriodStart"),
        ({"Tags": '["m"]'}, "Tags"),
        ({"Tags": '{"m": 1}'}, "Tags"),
        ({"ConsumedUnit": None}, "ConsumedQuantity and ConsumedUnit"),
        ({"PricingQuantity": None}, "PricingQuantity and PricingUnit"),
        ({"ChargeCategory": "Purchase"}, "nothing is consumed"),
        ({"More": "x"}, "columns: More"),
    ],
)
def test_what_is_no_row(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(BadRow, match=told):
        check_row({**good(), **changed})
