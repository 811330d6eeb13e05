"""FOCUS rows: what adds up into one, which period bills it, and that nothing is lost."""

from datetime import UTC, datetime
from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from actors.focus.rows import Issuer, focus_rows
from engine.money import amount_text, parse_amount
from tests.actors.focus.focus_lines import AT_US, HOUR_US, LINES, line, periods

ISSUER = Issuer("Example AI", "Inference", units={"tokens_out": "Tokens"})


def test_lines_of_one_hour_price_and_cell_are_one_row() -> None:
    first = next(row for row in focus_rows(LINES, periods, ISSUER) if row["x_Lines"] == 2)
    assert first["BilledCost"] == Decimal("0.025000000001")
    assert first["PricingQuantity"] == first["ConsumedQuantity"] == Decimal("1005.5")
    assert (first["PricingUnit"], first["SkuId"], first["Tags"]) == ("Tokens", "tokens_out", '{"model": "m"}')
    assert first["ChargePeriodStart"] == datetime(2025, 11, 29, tzinfo=UTC)
    assert first["ChargePeriodEnd"] == datetime(2025, 11, 29, 1, tzinfo=UTC)
    assert first["BillingPeriodStart"] == datetime(2025, 11, 1, tzinfo=UTC)
    assert (first["ChargeCategory"], first["ChargeClass"], first["ChargeFrequency"]) == ("Usage", None, "Usage-Based")


def test_late_usage_is_a_correction_of_its_own_time_in_the_period_that_is_open() -> None:
    (late,) = [row for row in focus_rows(LINES, periods, ISSUER) if row["ChargeClass"] == "Correction"]
    assert late["ChargePeriodStart"] == datetime(2025, 10, 20, tzinfo=UTC)
    assert late["BillingPeriodStart"] == datetime(2025, 11, 1, tzinfo=UTC)
    assert (late["BilledCost"], late["ConsumedQuantity"]) == (Decimal(-2), Decimal(-7))


def test_what_a_period_owes_besides_usage_is_a_charge_of_that_period() -> None:
    rows = focus_rows(LINES, periods, ISSUER)
    fee = next(row for row in rows if row["ChargeCategory"] == "Purchase")
    minimum = next(row for row in rows if row["ChargeCategory"] == "Adjustment")
    for row in (fee, minimum):
        assert row["BillingPeriodStart"] == row["ChargePeriodStart"] == datetime(2025, 11, 1, tzinfo=UTC)
        assert row["BillingPeriodEnd"] == row["ChargePeriodEnd"] == datetime(2025, 12, 1, tzinfo=UTC)
        assert (row["ChargeClass"], row["ConsumedQuantity"], row["PricingUnit"], row["SkuId"]) == (
            None,
            None,
            None,
            None,
        )
    assert (fee["ChargeFrequency"], minimum["ChargeFrequency"]) == ("Recurring", "One-Time")
    assert (fee["BilledCost"], minimum["BilledCost"]) == (Decimal(30), Decimal(300))


def test_an_accounts_own_periods_count() -> None:
    (row,) = focus_rows([line()], lambda account, at_us: (AT_US, AT_US + HOUR_US), ISSUER)
    assert row["BillingPeriodEnd"] == datetime(2025, 11, 29, 1, tzinfo=UTC)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["a", "b"]),
            st.integers(0, 5),
            st.sampled_from(["x", "y"]),
            st.integers(-(10**15), 10**15),
        ),
        max_size=30,
    )
)
def test_the_rows_add_up_to_the_lines_exactly(charges: list[tuple[str, int, str, int]]) -> None:
    lines = [
        line(account=account, time_us=AT_US + hour * HOUR_US, price=price, amount=amount_text(pico))
        for account, hour, price, pico in charges
    ]
    rows = focus_rows(lines, periods, ISSUER)
    assert sum(parse_amount(f"{row['BilledCost']:.12f}") for row in rows) == sum(pico for *_, pico in charges)
    assert sum(int(str(row["x_Lines"])) for row in rows) == len(charges)
    assert len(rows) == len({(account, hour, price) for account, hour, price, _ in charges})
