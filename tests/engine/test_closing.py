"""Which billing periods are open, and what came late of a closed one, apart from what it was closed with."""

from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import TOO_OLD_US
from engine.charges import Table
from engine.closing import Closing, apart, cells, posted, whole, with_adjustments
from engine.periods import month_around
from tests.engine.bench import DAY, us

JANUARY, FEBRUARY, MARCH, APRIL, MAY = (us(f"2026-0{month}-01T00:00:00+00:00") for month in range(1, 6))
ROWS = st.dictionaries(
    st.tuples(st.sampled_from(["x", "y"]), st.sampled_from([("a",), ("b",)])), st.integers(0, 3), min_size=1, max_size=3
)
TABLES = st.dictionaries(st.integers(0, 3), ROWS, max_size=3)


def closing(graces: dict[int, int]) -> Closing:
    """Calendar months; a period that ends at an instant stays open for so long, else for a day."""
    return Closing(lambda time_us: month_around("UTC", 1, time_us), lambda end_us: graces.get(end_us, DAY))


def test_a_period_is_open_until_its_grace_is_over() -> None:
    found = closing({})
    assert [found.open_from(at) for at in (APRIL - 1, APRIL, APRIL + DAY - 1, APRIL + DAY)] == [
        *(MARCH, MARCH, MARCH, APRIL),
    ]


def test_it_is_looked_at_anew_when_the_next_one_closes() -> None:
    found = closing({APRIL: 20 * DAY})
    assert (found.open_from(APRIL + DAY), found.until_us) == (MARCH, APRIL + 20 * DAY)
    assert (found.open_from(APRIL + 20 * DAY), found.until_us) == (APRIL, MAY + DAY)
    found.look_again()
    assert found.until_us == 0


def test_a_period_does_not_close_before_those_before_it() -> None:
    """January stays open until 3 March: February, over on the 1st, waits for it beyond its own day."""
    found = closing({FEBRUARY: 30 * DAY})
    assert [found.open_from(at) for at in (MARCH + DAY, FEBRUARY + 30 * DAY - 1)] == [JANUARY, JANUARY]
    assert (found.open_from(FEBRUARY + 30 * DAY), found.until_us) == (MARCH, APRIL + DAY)


def test_what_late_usage_needs_is_gone_when_no_event_can_come() -> None:
    assert closing({}).gone_us(MARCH + 5) == APRIL + TOO_OLD_US


@given(TABLES, TABLES)
def test_the_whole_is_what_it_was_closed_with_and_what_came_late(table: Table, late: Table) -> None:
    """Taken apart again, it is the same; a cell that nothing was added to, or is told of, is not kept twice."""
    rows = whole(table, late, lambda _: True)
    again = apart(rows, table)
    assert whole(table, again, lambda _: True) == rows
    assert cells(table, again) == sum(map(len, rows.values()))
    assert whole(table, late, lambda start: start == 1) == {start: row for start, row in rows.items() if start == 1}


def test_what_is_posted_in_one_place_is_one_sum() -> None:
    once = posted({}, (APRIL, MARCH), {"x": 3})
    assert posted(once, (APRIL, MARCH), {"x": -5, "y": 1}) == {(APRIL, MARCH): {"x": -2, "y": 1}}
    assert once == {(APRIL, MARCH): {"x": 3}}


def test_adjustments_are_paid_behind_the_usage_of_their_segment() -> None:
    amounts = [(MARCH, MARCH, {"x": 1}), (APRIL, APRIL, {"x": 2}), (MAY, MAY, {"x": 3})]
    adjusted = {(APRIL, MARCH): {"x": 7}, (APRIL, FEBRUARY): {"x": 6}}
    paid = with_adjustments(amounts, adjusted)
    assert [by_price["x"] for _, _, by_price in paid] == [1, 2, 7, 6, 3]
    assert [period for _, period, _ in paid] == [MARCH, APRIL, MARCH, FEBRUARY, MAY]
    own = with_adjustments(amounts, {(APRIL, APRIL): {"x": 5, "": -1}})
    assert own[1] == (APRIL, APRIL, {"x": 7, "": -1})
    assert with_adjustments(amounts, {}) == amounts
