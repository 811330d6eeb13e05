"""Fees in advance: what has begun by a log time counts, and an account wakes when that changes."""

from collections.abc import Mapping

from engine.catalog import FeeDefinition, PriceBook, compile_catalogue
from engine.contract import Contract, Pause, Phase
from engine.in_advance import LOOK_AHEAD_US, owed_in_advance, wakes_us
from engine.period_lines import Due, period_terms
from tests.engine.bench import DAY, DOLLAR, us
from tests.laws.test_r6_fees import with_fees

APRIL, MAY = us("2026-04-01T00:00:00+00:00"), us("2026-05-01T00:00:00+00:00")
CUT, OFF, ON = APRIL + 20 * DAY, APRIL + 5 * DAY, APRIL + 8 * DAY
SOLD = Contract("UTC", 1, "plan", [Phase(CUT, "pro")], (), [Pause(OFF, True), Pause(ON, False)], APRIL)


def book(*, in_advance: bool = True) -> PriceBook:
    fees = {"base": FeeDefinition("30", in_advance=in_advance), "late": FeeDefinition("9")}
    found = PriceBook()
    found.publish(0, compile_catalogue(1, with_fees(**fees)))
    return found


def owed_at(prices: PriceBook, start: int, now_us: int) -> Mapping[Due, int]:
    return owed_in_advance(period_terms(SOLD, prices, start), SOLD, prices, start, now_us)


def test_what_has_not_begun_changes_nothing() -> None:
    def owed(now_us: int) -> list[tuple[str, int]]:
        return [(due.price, pico) for due, pico in owed_at(book(), APRIL, now_us).items()]

    assert [owed(now) for now in (APRIL, OFF - 1)] == [[("base", 30 * DOLLAR)]] * 2
    assert [owed(now) for now in (OFF, ON, CUT)] == [[("base", days * DOLLAR)] for days in (5, 27, 17)]
    assert owed_at(book(), CUT, MAY) == {}, "the other plan has none"
    assert owed_at(book(in_advance=False), APRIL, APRIL) == {}


def test_an_account_wakes_for_periods_of_a_plan_with_such_a_fee_and_for_pauses() -> None:
    assert [wakes_us(SOLD, book(), now) for now in (APRIL, OFF, ON)] == [OFF, ON, None]
    back = SOLD.with_phase(Phase(MAY + DAY, "plan"))
    assert [wakes_us(back, book(), now) for now in (ON, MAY, MAY + DAY)] == [MAY + DAY, MAY + DAY, MAY + 31 * DAY]


def test_what_is_sold_in_a_thousand_years_is_looked_for_from_year_to_year() -> None:
    """Nothing is due in advance until then, nor does anybody count the months."""
    far = SOLD.with_phase(Phase(us("3000-01-01T00:00:00+00:00"), "plan"))
    woken = MAY + DAY
    due = wakes_us(far, book(), woken)
    assert due is not None and woken + LOOK_AHEAD_US < due < woken + LOOK_AHEAD_US + 32 * DAY
