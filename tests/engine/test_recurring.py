"""Recurring grants by themselves: which lots are due by a log time, and what they are like."""

from msgspec.structs import replace

from engine.contract import Contract, Pause
from engine.recurring import AHEAD_US, Recurring, due, is_of, wakes_us
from tests.engine.bench import DAY, us

MARCH, APRIL, MAY = (us(f"2026-{month:02}-01T00:00:00+00:00") for month in (3, 4, 5))
SOLD = Contract("UTC", 1, "plan")
MONTHLY = Recurring("m", "period", APRIL, "promo", 10, 1, ("x",), False, True)


def test_a_lot_is_due_five_minutes_before_its_period_and_not_a_microsecond_earlier() -> None:
    assert due({"m": MONTHLY}, SOLD, {}, APRIL - AHEAD_US - 1, 0)[1] == {}
    after, lots = due({"m": MONTHLY}, SOLD, {}, APRIL - AHEAD_US, 0)
    (lot,) = lots.values()
    assert (lot.lot, lot.effective_us, lot.expires_us, lot.scope) == ("m@2026-04-01", APRIL, MAY, ("x",))
    assert (lot.kind, lot.settles, after["m"].next_us) == ("promo", False, MAY)
    assert wakes_us(after, SOLD, 0) == [MAY - AHEAD_US]


def test_all_that_was_missed_is_made_up_for() -> None:
    _, lots = due({"m": MONTHLY}, SOLD, {}, APRIL + 100 * DAY, 0)
    assert list(lots) == [f"m@2026-{month:02}-01" for month in (4, 5, 6, 7)]


def test_a_lot_lives_as_long_as_its_grant_says() -> None:
    for changed, expires_us in ((replace(MONTHLY, days=3), APRIL + 3 * DAY), (replace(MONTHLY, expires=False), None)):
        (lot,) = due({"m": changed}, SOLD, {}, APRIL, 0)[1].values()
        assert lot.expires_us == expires_us


def test_what_is_carried_is_a_lot_beside_it() -> None:
    _, lots = due({"m": replace(MONTHLY, rollover=(50, 7, 4))}, SOLD, {}, APRIL, 0)
    rest = lots["m@2026-04-01~carried"]
    assert rest.carry is not None
    assert (rest.effective_us, rest.expires_us, rest.carry.percent, rest.carry.cap) == (MAY, MAY + 7 * DAY, 50, 4)


def test_it_begins_in_the_running_period_unless_that_has_had_its_lot() -> None:
    set_now = {"m": replace(MONTHLY, next_us=MARCH + DAY)}
    after, lots = due(set_now, SOLD, {}, MARCH + DAY, 0)
    assert (after["m"].next_us, {lot.lot: lot.effective_us for lot in lots.values()}) == (
        APRIL,
        {"m@2026-03-01": MARCH + DAY},
    )
    assert due(set_now, SOLD, lots, MARCH + DAY, 0) == (after, lots)


def test_behind_usage_means_the_period_of_that_instant() -> None:
    (lot,) = due({"m": MONTHLY}, SOLD, {}, APRIL, APRIL + AHEAD_US)[1].values()
    assert (lot.effective_us, lot.expires_us) == (APRIL + AHEAD_US, MAY)
    (lot,) = due({"m": MONTHLY}, SOLD, {}, MAY - AHEAD_US, MAY)[1].values()
    assert lot.lot == "m@2026-05-01"


def test_nothing_begins_in_a_pause() -> None:
    paused = SOLD.with_pause(Pause(MARCH, paused=True))
    grants = {"m": MONTHLY}
    assert due(grants, paused, {}, MAY, 0) == (grants, {})
    assert wakes_us(grants, paused, 0) == []
    resumed = paused.with_pause(Pause(APRIL + 9 * DAY, paused=False))
    assert wakes_us(grants, resumed, 0) == [APRIL + 9 * DAY - AHEAD_US]
    (lot,) = due(grants, resumed, {}, APRIL + 9 * DAY - AHEAD_US, 0)[1].values()
    assert (lot.lot, lot.effective_us, lot.expires_us) == ("m@2026-04-01", APRIL + 9 * DAY, MAY)
    at_a_start = paused.with_pause(Pause(MAY, paused=False))
    assert list(due(grants, at_a_start, {}, MAY, 0)[1]) == ["m@2026-05-01"]


def test_what_is_not_due_yet_is_waited_for_by_the_same_reckoning() -> None:
    """Behind usage as far ahead as it may be, or in another pause: an instant that has passed would be waited for in vain."""
    resumed = SOLD.with_pause(Pause(MARCH, paused=True)).with_pause(Pause(APRIL + DAY, paused=False))
    again = resumed.with_pause(Pause(APRIL + DAY + 1, paused=True))
    grants, now, behind = {"m": MONTHLY}, APRIL + DAY, APRIL + DAY + AHEAD_US + 1
    later = again.with_pause(Pause(MAY, paused=False))
    for sold, wakes in ((resumed, [now + 1]), (again, []), (later, [MAY - AHEAD_US])):
        assert due(grants, sold, {}, now, behind) == (grants, {})
        assert wakes_us(grants, sold, behind) == wakes


def test_how_many_lots_a_year() -> None:
    weekly = replace(MONTHLY, every="week", rollover=(50, 7, None))
    assert (MONTHLY.lots_a_year, weekly.lots_a_year) == (12, 106)


def test_ids_of_a_grant_are_known() -> None:
    grants = {"m": MONTHLY}
    assert is_of("m@2026-04-01", grants) and is_of("m@2026-04-01~carried", grants)
    assert not is_of("n@2026-04-01", grants) and not is_of("m", grants)
