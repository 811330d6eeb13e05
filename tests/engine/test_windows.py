"""Windows: what counts where, for how long, and that a rolling one is never laxer than exact."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.windows import Counts, Window, is_named_gone
from tests.engine.bench import DAY, HOUR, MINUTE, START, us

HOURLY = Window("rolling", HOUR)
OPENED = Window("first_use", 5 * HOUR)
STEPS = st.lists(st.tuples(st.integers(0, 40 * MINUTE), st.integers(0, 90 * MINUTE), st.integers(0, 9)), max_size=60)


def counted(window: Window, *usages: tuple[int, int], log_time_us: int = START) -> Counts:
    counts: Counts = {}
    for time_us, amount in usages:
        counts = window.count("UTC", counts, time_us, amount, log_time_us)
    return counts


@pytest.mark.parametrize(
    ("window", "valid"),
    [
        (Window(), True),
        (Window("hour"), True),
        (Window("day", MINUTE), False),
        (Window("rolling", MINUTE), True),
        (Window("rolling"), False),
        (Window("rolling", MINUTE - 1), False),
        (Window("rolling", 30 * DAY), True),
        (Window("first_use", 30 * DAY + MINUTE), False),
        (Window("first_use", 5 * HOUR), True),
        (Window("fortnight"), False),
    ],
)
def test_which_windows_there_are(window: Window, valid: bool) -> None:
    assert window.valid is valid


@given(STEPS)
def test_a_rolling_window_is_never_laxer_than_exact_and_forgets_all_that_is_gone(
    steps: list[tuple[int, int, int]],
) -> None:
    now, counts = START, Counts()
    usages: list[tuple[int, int]] = []
    for passed, late, amount in steps:
        now += passed
        usages.append((now - late, amount))
        counts = HOURLY.count("UTC", counts, now - late, amount, now)
        for later in (now, now + 7 * MINUTE):
            exact = sum(n for time_us, n in usages if later - HOUR < time_us)
            widest = sum(n for time_us, n in usages if later - HOUR - MINUTE < time_us)
            assert exact <= HOURLY.counted("UTC", counts, later) <= widest
        assert len(counts) <= 61


@given(STEPS)
def test_a_window_that_usage_opens_counts_at_least_what_lies_in_it_and_there_is_one_at_a_time(
    steps: list[tuple[int, int, int]],
) -> None:
    now, counts = START, Counts()
    usages: list[tuple[int, int]] = []
    for passed, late, amount in steps:
        now += passed
        usages.append((now - late, amount))
        counts = OPENED.count("UTC", counts, now - late, amount, now)
        ((opened, total),) = counts.items()
        assert total >= sum(n for time_us, n in usages if opened <= time_us < opened + 5 * HOUR)
        assert now < opened + 10 * HOUR


def test_a_window_opens_with_the_first_usage_and_the_next_one_with_the_next() -> None:
    counts = counted(OPENED, (START, 3), (START + 5 * HOUR - 1, 4))
    assert counts == {START: 7}
    assert OPENED.ends_us("UTC", counts, START) == START + 5 * HOUR
    assert OPENED.counted("UTC", counts, START + 5 * HOUR) == 0
    assert OPENED.ends_us("UTC", counts, START + 5 * HOUR) is None
    assert OPENED.count("UTC", counts, START + 6 * HOUR, 1, START) == {START + 6 * HOUR: 1}


def test_late_usage_counts_in_an_open_window_that_it_may_belong_to_and_in_no_other() -> None:
    counts = counted(OPENED, (START, 3))
    assert OPENED.count("UTC", counts, START - 5 * HOUR, 1, START) == {START: 4}
    assert OPENED.count("UTC", counts, START - 5 * HOUR - 1, 1, START) == counts
    assert OPENED.count("UTC", counts, START - 1, -1, START) == counts  # taken back from a window that is over


def test_a_calendar_window_counts_late_usage_until_a_day_after_its_end_and_is_then_forgotten() -> None:
    window, noon = Window("hour"), us("2026-03-10T12:00:00+00:00")
    counts = counted(window, (noon, 2), (noon + HOUR, 3), log_time_us=noon + HOUR)
    assert counts == {noon: 2, noon + HOUR: 3}
    assert window.count("UTC", counts, noon, 1, noon + 25 * HOUR - 1) == {noon: 3, noon + HOUR: 3}
    assert window.count("UTC", counts, noon, 1, noon + 25 * HOUR) == counts
    later = noon + 25 * HOUR
    assert window.count("UTC", counts, later, 1, later) == {noon + HOUR: 3, later: 1}
    assert window.named("UTC", counts, later) == [(f"hour:{noon + HOUR}", 3)]
    assert is_named_gone("UTC", f"hour:{noon}", later)
    assert not is_named_gone("UTC", f"hour:{noon + HOUR}", later)
    assert not is_named_gone("UTC", "rolling", later)


def test_when_so_much_of_a_rolling_window_is_gone() -> None:
    counts = counted(HOURLY, (START, 3), (START + 10 * MINUTE, 4))
    now = START + 20 * MINUTE
    assert HOURLY.fits_us("UTC", counts, now, 3) == START + HOUR + MINUTE
    assert HOURLY.fits_us("UTC", counts, now, 4) == START + HOUR + 11 * MINUTE
    assert HOURLY.fits_us("UTC", counts, now, 8) is None
    assert Window("day").fits_us("UTC", {}, now, 8) == us("2026-03-11T00:00:00+00:00")


@pytest.mark.parametrize("change", ["2026-04-04T15:00:00+00:00", "2026-10-03T15:30:00+00:00"])
def test_an_hour_in_which_the_clock_is_set_by_half_an_hour_is_kept_a_day_behind_its_end(change: str) -> None:
    """On Lord Howe Island two o'clock becomes half past one, or half past two: the hour goes on for half an hour from
    there, and late usage of it counts for a day."""
    zone, hour, counts = "Australia/Lord_Howe", Window("hour"), Counts()
    later = us(change) + 5 * MINUTE
    counts = hour.count(zone, counts, later, 3, later)
    ends = hour.ends_us(zone, counts, later)
    assert ends == us(change) + 30 * MINUTE
    counts = hour.count(zone, counts, later, 4, ends + DAY - 1)
    assert hour.counted(zone, counts, later) == 7
    assert hour.count(zone, counts, later, 5, ends + DAY) == counts
    assert [is_named_gone(zone, name, ends + DAY - 1) for name, _ in hour.named(zone, counts, later)] == [False]
