"""A provider's bill, held against what we said."""

from decimal import Decimal
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.cost.billed import (
    BilledUsage,
    ListPrice,
    Prices,
    RecordType,
    amount_of,
    parse_fixed,
    price_from_table,
    reconcile,
    usage_from_table,
)
from engine.cost.gpu_rates import HOUR_US
from engine.events import Malformed
from engine.money import PICO

H = 490_000 * HOUR_US
ONE = 10**18
PRICE = ListPrice("SERVING_H100", "DBU", "USD", 0, None, 7 * ONE // 100)
USAGE = BilledUsage("r-1", "SERVING_H100", "DBU", H, H + HOUR_US, 100 * ONE, "large")
ROW = {
    "account_id": "a1",
    "record_id": "r-1",
    "sku_name": "SERVING_H100",
    "cloud": "AWS",
    "usage_start_time": "2026-11-22T09:00:00.000Z",
    "usage_end_time": "2026-11-22T10:00:00.000Z",
    "usage_unit": "DBU",
    "usage_quantity": Decimal("42.500000000000000000"),
    "usage_metadata": {"endpoint_name": "large", "endpoint_id": "e1"},
    "record_type": "ORIGINAL",
    "billing_origin_product": "MODEL_SERVING",
}
PRICE_ROW = {
    "sku_name": "SERVING_H100",
    "usage_unit": "DBU",
    "currency_code": "USD",
    "price_start_time": "2026-01-01 00:00:00",
    "price_end_time": None,
    "pricing": {"default": "0.070000000000000000", "promotional": {"default": "0.05"}},
}


def test_a_bill_is_held_against_our_cost_hour_by_hour_and_endpoint_by_endpoint() -> None:
    """Worked in the README: 100 DBU at $0.07, of which 10 were too many, beside $6.25."""
    usages = [
        USAGE,
        replace(USAGE, record="r-2", quantity=-100 * ONE, type=RecordType.RETRACTION),
        replace(USAGE, record="r-3", quantity=90 * ONE, type=RecordType.RESTATEMENT),
        replace(USAGE, record="r-4", begin_us=H + HOUR_US, end_us=H + 2 * HOUR_US),
        replace(USAGE, record="r-5", endpoint="small", quantity=ONE),
    ]
    ours: dict[tuple[str, int], int | None] = {("large", H): 625 * PICO // 100, ("small", H): None, ("mini", H): 3}
    found = reconcile(usages, Prices([PRICE]), ours, "USD", H, H + 2 * HOUR_US)
    assert found.faults == []
    cent = PICO // 100
    assert [
        (each.endpoint, each.hour_us - H, each.billed, each.corrected, each.ours, each.delta) for each in found.hours
    ] == [
        ("large", 0, 630 * cent, -70 * cent, 625 * cent, 5 * cent),
        ("large", HOUR_US, 700 * cent, 0, 0, 700 * cent),
        ("mini", 0, 0, 0, 3, -3),
        ("small", 0, 7 * cent, 0, None, None),
    ]


def test_a_sku_without_a_price_is_not_known_and_never_free() -> None:
    other = replace(USAGE, record="r-2", sku="OTHER")
    found = reconcile([USAGE, other], Prices([PRICE]), {("large", H): 1}, "USD", H, H + HOUR_US)
    (hour,) = found.hours
    assert (hour.billed, hour.corrected, hour.delta) == (None, None, None)
    assert found.faults == ["sku OTHER, in DBU: no list price"]
    euro = reconcile([USAGE], Prices([replace(PRICE, currency="EUR")]), {}, "USD", H, H + HOUR_US)
    assert euro.hours[0].billed is None and "in EUR and not in USD" in euro.faults[0]


def test_the_price_in_force_where_the_usage_ended_counts() -> None:
    old = replace(PRICE, until_us=H + HOUR_US, amount=ONE)
    new = replace(PRICE, from_us=H + HOUR_US, amount=2 * ONE)
    prices = Prices([new, old])
    assert prices.of(USAGE) == new
    assert prices.of(replace(USAGE, end_us=H + HOUR_US - 1)) == old
    assert prices.of(replace(USAGE, unit="HOUR")) is None
    assert Prices([new]).of(replace(USAGE, end_us=H + 1)) is None


@given(
    st.integers(0, 10**24),
    st.integers(0, 10**20),
    st.integers(0, 3 * HOUR_US),
    st.integers(1, 30 * HOUR_US),
    st.integers(0, 1 << 32).map(Random),
)
def test_nothing_is_lost_over_hours_and_a_retraction_leaves_nothing_in_any(
    quantity: int, amount: int, offset_us: int, length_us: int, random: Random
) -> None:
    price = replace(PRICE, amount=amount)
    original = replace(USAGE, begin_us=H + offset_us, end_us=H + offset_us + length_us, quantity=quantity)
    retraction = replace(original, record="r-2", quantity=-quantity, type=RecordType.RETRACTION)
    span = (H, H + 40 * HOUR_US)
    alone = reconcile([original], Prices([price]), {}, "USD", *span)
    assert sum(hour.billed or 0 for hour in alone.hours) == amount_of(original, price)
    both = [original, retraction]
    random.shuffle(both)
    cancelled = reconcile(both, Prices([price]), {}, "USD", *span)
    assert {hour.billed for hour in cancelled.hours} == {0}
    assert [hour.corrected for hour in cancelled.hours] == [-(hour.billed or 0) for hour in alone.hours]


def test_rows_of_billing_tables_are_read_to_the_last_digit() -> None:
    usage = usage_from_table(ROW)
    assert (usage.record, usage.endpoint, usage.quantity, usage.type) == ("r-1", "large", 425 * ONE // 10, "ORIGINAL")
    assert usage.end_us - usage.begin_us == HOUR_US
    flat = ROW | {"usage_metadata": None, "endpoint_name": "flat", "usage_start_time": "2026-11-22 09:00:00"}
    assert (usage_from_table(flat).endpoint, usage_from_table(flat).begin_us) == ("flat", usage.begin_us)
    assert usage_from_table(ROW | {"usage_metadata": {"endpoint_name": None}}).endpoint == ""
    price = price_from_table(PRICE_ROW)
    assert (price.amount, price.until_us, price.currency) == (7 * ONE // 100, None, "USD")
    dated = price_from_table(PRICE_ROW | {"price_end_time": "2026-06-01T00:00:00Z"})
    assert dated.until_us is not None and dated.until_us > dated.from_us


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"record_id": None}, "record_id"),
        ({"record_id": "a\x00b"}, "record has|record is not"),
        ({"usage_quantity": "NaN"}, "usage_quantity"),
        ({"usage_quantity": "1e3"}, "usage_quantity"),
        ({"usage_quantity": Decimal("1e900")}, "usage_quantity"),
        ({"usage_quantity": "-1"}, "sign"),
        ({"record_type": "RETRACTION"}, "sign"),
        ({"record_type": "GUESS"}, "record_type"),
        ({"usage_end_time": "2026-11-22T09:00:00Z"}, "end is not behind"),
        ({"usage_end_time": "2027-11-22T09:00:00Z"}, "longer than"),
        ({"usage_end_time": "soon"}, "usage_end_time"),
    ],
)
def test_a_row_that_makes_no_sense_is_refused_by_its_field(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        usage_from_table(ROW | change)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"pricing": {"default": "-0.1"}}, "below 0"),
        ({"pricing": None}, "pricing.default"),
        ({"currency_code": "usd"}, "currency"),
        ({"price_end_time": "2025-01-01 00:00:00"}, "ends before it begins"),
    ],
)
def test_a_price_that_makes_no_sense_is_refused(change: dict[str, Any], told: str) -> None:
    with pytest.raises(Malformed, match=told):
        price_from_table(PRICE_ROW | change)


@pytest.mark.parametrize(
    ("value", "fixed"), [("0.5", ONE // 2), ("-2", -2 * ONE), (Decimal("1E+1"), 10 * ONE), (3, 3 * ONE)]
)
def test_decimals_of_eighteen_digits(value: object, fixed: int) -> None:
    assert parse_fixed("x", value) == fixed
