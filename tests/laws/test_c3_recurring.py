"""Law C3: recurring grants keep their anchor: one lot for each period, whenever its account is woken."""

import random
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.bench import DAY, DOLLAR, MINUTE, START, Bench, us


def lots(bench: Bench) -> dict[str, tuple[int, int | None]]:
    """[effective, expires) of each lot, in order of time."""
    found = {lot.lot: (lot.effective_us, lot.expires_us) for lot in bench.account().lots.values()}
    return dict(sorted(found.items(), key=lambda each: each[1][0]))


def opened(**account: Any) -> Bench:
    bench = Bench()
    bench.open(**account)
    return bench


def test_the_running_period_has_its_lot_at_once_and_each_further_one_at_its_start() -> None:
    """Set in the middle of March: from behind all usage on; April's and May's with their months."""
    bench = opened()
    bench.use(3)
    assert bench.recurring("m", "10") == "applied"
    first = bench.account().newest_event_us + 1
    april, may, june = (us(f"2026-{month:02}-01T00:00:00+00:00") for month in (4, 5, 6))
    assert lots(bench) == {"m@2026-03-01": (first, april)}
    bench.tick(may)
    assert lots(bench) == {"m@2026-03-01": (first, april), "m@2026-04-01": (april, may), "m@2026-05-01": (may, june)}


@pytest.mark.parametrize("month_end", ["2026-04-30", "2026-05-31", "2026-06-30", "2026-07-31"])
def test_an_anchor_of_the_31st_comes_back_to_it(month_end: str) -> None:
    """Behind a short month the next lot is not moved for ever; in the account's zone, over a change of its clock."""
    bench = opened(anchor_day=31, zone="Europe/Berlin")
    bench.recurring("m", "10")
    bench.tick(us("2026-08-05T00:00:00+00:00"))
    offset = "+02:00"
    assert lots(bench)[f"m@{month_end}"][0] == us(f"{month_end}T00:00:00{offset}")


@pytest.mark.parametrize(("every", "expected"), [("month", 10), ("week", 40), ("period", 10)])
def test_there_are_as_many_lots_as_periods(every: str, expected: int) -> None:
    """From 10 March to the evening of 9 December: calendar weeks from Monday, months; billing periods from the 12th."""
    bench = opened(zone="America/New_York", anchor_day=12)
    bench.recurring("m", "1", every=every)
    bench.tick(us("2026-12-10T04:00:00+00:00"))
    granted = lots(bench)
    assert len(granted) == expected
    starts = list(granted.values())
    assert all(ends == begins for (_, ends), (begins, _) in pairwise(starts))


def test_a_lot_is_there_before_usage_can_be_ahead_of_log_time() -> None:
    """An event five minutes ahead lies in the next week, and the next week's lot pays for it."""
    bench = opened()
    bench.recurring("w", "10", every="week")
    monday = us("2026-03-16T00:00:00+00:00")
    bench.now = monday - 5 * MINUTE - 1000
    bench.use(1)
    assert list(lots(bench)) == ["w@2026-03-09"]
    bench.now = monday - 5 * MINUTE
    assert bench.use(4, at=monday) == "rated"
    assert list(lots(bench)) == ["w@2026-03-09", "w@2026-03-16"]
    bench.tick(monday)
    assert (bench.balance(), bench.debt()) == (6 * DOLLAR, 0)


def test_late_usage_of_a_past_period_is_paid_by_its_lot() -> None:
    """$4 of March that come in April take from what expired."""
    bench = opened()
    bench.recurring("m", "10")
    bench.tick(us("2026-04-01T12:00:00+00:00"))
    bench.use(4, at=START + DAY)
    paid = bench.allocation()
    assert {lot: pico for (lot, _), pico in paid.burnt.items()} == {"m@2026-03-01": 4 * DOLLAR}
    assert (paid.expired["m@2026-03-01"], bench.balance()) == (6 * DOLLAR, 10 * DOLLAR)


@pytest.mark.parametrize("pays_debt", [False, True])
def test_it_settles_no_debt_unless_it_pays_debt(pays_debt: bool) -> None:
    """Law C4, whatever its kind."""
    bench = opened()
    bench.use(4)
    bench.recurring("m", "10", lot_kind="paid", pays_debt=pays_debt)
    bench.tick(bench.now + MINUTE)
    assert bench.debt() == (0 if pays_debt else 4 * DOLLAR)
    assert bench.balance() == 6 * DOLLAR


def test_f13_half_of_what_is_left_lives_on_as_its_own_lot() -> None:
    """1,000 granted, 400 left, 50 %: 200 carried."""
    bench = opened()
    bench.recurring("m", "1000", rollover={"percent": 50, "days": 30})
    bench.now += MINUTE
    bench.use(600)
    bench.tick(us("2026-04-01T00:00:00+00:00"))
    paid = bench.allocation()
    assert (paid.granted["m@2026-03-01~carried"], paid.expired["m@2026-03-01"]) == (200 * DOLLAR, 200 * DOLLAR)
    assert bench.balance() == 1200 * DOLLAR


def test_other_terms_hold_from_the_next_period_on_and_a_removed_grant_leaves_its_lots() -> None:
    """$10, then $25 for five days; removed, there is no third lot."""
    bench = opened()
    bench.recurring("m", "10")
    bench.recurring("m", "25", days=5)
    april = us("2026-04-01T00:00:00+00:00")
    bench.tick(april)
    granted = {lot.lot: lot.granted // DOLLAR for lot in bench.account().lots.values()}
    assert granted == {"m@2026-03-01": 10, "m@2026-04-01": 25}
    assert lots(bench)["m@2026-04-01"] == (april, april + 5 * DAY)
    assert bench.command("remove_recurring_grant", grant="m") == "applied"
    bench.tick(april + 70 * DAY)
    assert len(lots(bench)) == 2
    assert bench.partition.next_wake_us() is None


def test_a_period_has_one_lot_of_a_grant_however_often_it_is_set() -> None:
    """Removed and set again: the next lot is the next period's. Nobody else may take its ids."""
    bench = opened()
    bench.recurring("m", "10")
    bench.command("remove_recurring_grant", grant="m")
    bench.recurring("m", "10")
    assert list(lots(bench)) == ["m@2026-03-01"]
    for lot in ("m@2026-03-01", "m@2027-01-01", "m@2027-01-01~carried"):
        assert bench.grant(lot, "1") == "refused.lot_exists"
    assert bench.grant("n@2027-01-01", "1") == "applied"


@settings(max_examples=15)
@given(st.integers(0, 10**9), st.sampled_from(["period", "month", "week"]))
def test_the_lots_do_not_depend_on_when_the_account_is_woken(seed: int, every: str) -> None:
    """One record behind three months, or any number between them: the same lots, and the same wallet; paused or not."""
    source = random.Random(seed)
    zone = source.choice(["UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"])
    pauses = [(START + source.randrange(1, 90 * DAY), source.random() < 0.5) for _ in range(source.randrange(5))]
    found = []
    for steps in (1, source.randrange(2, 60)):
        bench = opened(zone=zone, anchor_day=seed % 31 + 1)
        bench.recurring("g", "7", every=every, rollover={"percent": 50, "days": 3})
        for at, paused in pauses:
            bench.pause(at, paused=paused)
        for end in sorted(START + source.randrange(90 * DAY) for _ in range(steps - 1)):
            bench.tick(end)
        bench.tick(START + 90 * DAY)
        bench.use(3, at=START + 89 * DAY)
        found.append((lots(bench), bench.balance(), bench.allocation().postings()))
    assert found[0] == found[1]
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_a_period_without_a_midnight_still_has_its_lot() -> None:
    """Where the clock jumps at midnight, the period begins where it lands."""
    bench = opened(zone="Asia/Beirut", anchor_day=29)
    bench.now = us("2026-03-10T12:00:00+00:00")
    bench.recurring("p", "1")
    bench.tick(us("2026-05-01T12:00:00+00:00"))
    granted = lots(bench)
    assert list(granted) == ["p@2026-02-28", "p@2026-03-29", "p@2026-04-29"]
    assert granted["p@2026-03-29"][0] == us("2026-03-29T01:00:00+03:00")


def test_r6_a_pause_stops_grants_and_its_end_gives_the_running_period_its_lot() -> None:
    """Paused from 22 March to 10 May: April has none, and May's begins on the 10th."""
    bench = opened()
    bench.recurring("m", "10")
    april, may, june, july = (us(f"2026-{month:02}-01T00:00:00+00:00") for month in (4, 5, 6, 7))
    bench.pause(april - 10 * DAY)
    bench.pause(may + 9 * DAY, paused=False)
    bench.tick(may + 9 * DAY - 6 * MINUTE)
    assert list(lots(bench)) == ["m@2026-03-01"]
    bench.tick(june)
    assert lots(bench) == {
        "m@2026-03-01": (START, april),
        "m@2026-05-01": (may + 9 * DAY, june),
        "m@2026-06-01": (june, july),
    }
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_r6_resumed_at_once_the_lot_begins_behind_what_was_used_in_the_pause() -> None:
    """Usage of the pause is debt; it was rated without the lot, and stays so."""
    bench = opened()
    bench.pause()
    bench.recurring("m", "10")
    assert lots(bench) == {}
    bench.use(3, at=bench.now + MINUTE)
    used = bench.account().newest_event_us
    bench.pause(paused=False)
    assert lots(bench) == {"m@2026-03-01": (used + 1, us("2026-04-01T00:00:00+00:00"))}
    bench.tick(bench.now + 2 * MINUTE)
    assert (bench.debt(), bench.balance()) == (3 * DOLLAR, 7 * DOLLAR)


def test_r6_a_lot_that_came_into_being_stays_when_the_account_is_paused_then() -> None:
    """Paused three minutes before April, whose lot was there for two; May has none, nor does anything wake for it."""
    bench = opened()
    bench.recurring("m", "10")
    april = us("2026-04-01T00:00:00+00:00")
    bench.now = april - 3 * MINUTE
    bench.pause()
    assert list(lots(bench)) == ["m@2026-03-01", "m@2026-04-01"]
    bench.tick(april + 40 * DAY)
    assert list(lots(bench)) == ["m@2026-03-01", "m@2026-04-01"]
    assert bench.partition.next_wake_us() is None


@pytest.mark.parametrize("again", [False, True])
def test_r6_resumed_with_usage_ahead_the_account_sleeps_until_its_lot_may_begin(again: bool) -> None:
    """Usage five minutes ahead of the end of the pause, or that lies in the next pause: the lot begins behind it, and until
    then there is nothing to wake for."""
    bench = opened()
    bench.recurring("m", "10")
    april = us("2026-04-01T00:00:00+00:00")
    bench.pause(april - DAY)
    bench.tick(april + DAY)
    bench.use(1, at=bench.now + 5 * MINUTE)
    if again:
        bench.pause(bench.now + MINUTE)
        bench.pause(bench.now + DAY, paused=False)
    used = bench.account().newest_event_us
    begins = bench.now + DAY if again else used + 1
    bench.pause(paused=False)
    due = bench.partition.next_wake_us()
    assert due is not None and due == begins - 5 * MINUTE > bench.now
    bench.tick(begins)
    assert lots(bench)["m@2026-04-01"] == (begins, us("2026-05-01T00:00:00+00:00"))
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
