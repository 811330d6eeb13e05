"""Margin in one currency: exact until it is told, at recorded rates alone."""

from datetime import date
from random import Random

import pytest
from msgspec.structs import replace

from engine.cost.exchange import DAY_US, KEPT_DAYS, NoRate, Rate, Rates, Used, date_of, day_of, in_currency
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import By, Key, Margin, summed
from engine.money import PICO
from tests.engine.cost.test_margin import H, cost, fold_of, rated

DAY = H // DAY_US
EURO = Rate(DAY, "USD", "EUR", 92 * PICO // 100)
KEY = Key(H, "acme", "m", "chat", "growth", "EUR")


def test_a_day_is_a_date() -> None:
    assert (day_of(date(1970, 1, 2)), date_of(20_000)) == (1, date(2024, 10, 4))


def test_what_cost_dollars_and_was_charged_in_euros_has_a_margin() -> None:
    rows = fold_of(rated(1, "a", 100 * PICO, currency="EUR"), cost("a", 50 * PICO)).sums([By.HOUR])
    ((key, sums),), used = in_currency(rows, "EUR", Rates([EURO]), [])
    assert (key.currency, sums.revenue, sums.cost, sums.margin) == ("EUR", 100 * PICO, 46 * PICO, 54 * PICO)
    assert (sums.requests, sums.foreign_cost, used) == (1, 0, [Used(DAY, EURO)])


def test_a_day_without_a_rate_has_that_of_the_last_day_before_for_a_week() -> None:
    friday = replace(EURO, day=DAY - KEPT_DAYS)
    rates = Rates([friday, replace(EURO, day=DAY - KEPT_DAYS - 1, pico=1)])
    assert rates.of(DAY, "USD", "EUR") == friday
    with pytest.raises(NoRate, match="no rate from USD to EUR"):
        rates.of(DAY + 1, "USD", "EUR")
    with pytest.raises(NoRate):
        rates.of(DAY, "EUR", "USD")  # nobody recorded it this way round
    with pytest.raises(NoRate):
        Rates([replace(EURO, day=DAY + 1)]).of(DAY, "USD", "EUR")  # no rate of tomorrow


def test_each_day_has_its_own_rate_and_all_of_it_is_rounded_once() -> None:
    dollars = replace(KEY, currency="USD")
    third = replace(EURO, pico=PICO // 2 + 1)
    rows = [(dollars, Margin(3, 1, 1)), (replace(dollars, hour_us=H + DAY_US), Margin(3, 1, 1))]
    ((_, sums),), used = in_currency(rows, "EUR", Rates([third, replace(third, day=DAY + 1)]), [])
    assert (sums.revenue, sums.known_cost, sums.requests) == (3, 1, 2)
    assert [each.day for each in used] == [DAY, DAY + 1]


def test_what_needs_no_rate_asks_for_none() -> None:
    rows = [(KEY, Margin(5, 2, 1)), (replace(KEY, currency="JPY"), Margin(requests=1, without_cost=1))]
    ((_, sums),), used = in_currency(rows, "EUR", Rates([]), [])
    assert (sums.revenue, sums.cost, sums.without_cost, sums.requests, used) == (5, None, 1, 2, [])


def test_in_a_currency_of_which_all_is_nothing_changes() -> None:
    random = Random(3)
    rows = [
        (replace(KEY, hour_us=H + random.randrange(50) * HOUR_US, feature=random.choice("ab")), Margin(*counts))
        for counts in ([random.randrange(-9, 10**15), random.randrange(10**15), 1, 0, 1, 1] for _ in range(200))
    ]
    for by in ([], [By.FEATURE], [By.HOUR, By.ACCOUNT]):
        assert in_currency(rows, "EUR", Rates([]), by) == (summed(rows, by), [])
