"""Rated lines of every kind, as the topic has them."""

from typing import Any

from engine.outcomes import RatedLine
from engine.partition import PERIOD
from engine.periods import month_around

HOUR_US = 3_600_000_000
DAY_US = 24 * HOUR_US
AT_US = 1_764_374_400_000_000  # 2025-11-29 00:00 UTC
DECEMBER_US = AT_US + 2 * DAY_US
OCTOBER_US = AT_US - 40 * DAY_US
NOVEMBER = month_around("UTC", 1, AT_US)


def line(**changed: Any) -> RatedLine:
    fields: dict[str, Any] = {
        "partition": 0,
        "offset": 1,
        "line": 0,
        "epoch": 1,
        "account": "acme",
        "source": "gateway",
        "id": "e1",
        "time_us": AT_US + 1,
        "log_time_us": AT_US + 2,
        "price": "tokens_out",
        "version": 3,
        "cell": {"model": "m"},
        "quantity": "1000",
        "amount": "0.015000000000",
        "currency": "USD",
        "tiers": ((1, "1000"),),
    }
    return RatedLine(**fields | changed)


def of_period(due: str, price: str, amount: str) -> RatedLine:
    """Posted when November closes."""
    return line(
        due=due,
        price=price,
        source=PERIOD,
        quantity="0",
        amount=amount,
        cell={},
        tiers=(),
        adjusts=NOVEMBER[0],
        time_us=NOVEMBER[1] - 1,
        log_time_us=DECEMBER_US + DAY_US,
        accrued_us=DECEMBER_US + DAY_US,
    )


LINES = [
    line(),
    line(offset=2, amount="0.010000000001", quantity="5.5"),
    line(price="tokens_in", cell={}),
    line(offset=3, time_us=AT_US + HOUR_US),
    line(offset=4, account="zeta"),
    # late usage of October, posted in November
    line(offset=5, time_us=OCTOBER_US, adjusts=month_around("UTC", 1, OCTOBER_US)[0], amount="-2", quantity="-7"),
    of_period("fee", "base", "30"),
    of_period("minimum", "tokens_out", "300"),
]


def periods(account: str, at_us: int) -> tuple[int, int]:
    return month_around("UTC", 1, at_us)
