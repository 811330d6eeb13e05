"""What is left of amounts up to a cap of the month, and what is not."""

from hypothesis import given
from hypothesis import strategies as st

from engine.waivers import Waiver, left_of, waived, waiver_at, waiving

MOST = (Waiver(0, "c", 10),)
AMOUNTS = st.lists(st.dictionaries(st.sampled_from("xyz"), st.integers(0, 12), max_size=3), max_size=6)


def month_of(start: int) -> int:
    return start // 10 * 10


def test_the_first_of_a_month_are_owed_in_the_order_of_the_names() -> None:
    amounts = [(1, 0, {"b": 4, "a": 3}), (2, 0, {"b": 5, "a": 1}), (11, 0, {"a": 12})]
    left = left_of(amounts, MOST, month_of)
    assert left == [(1, 0, {"a": 3, "b": 4}), (2, 0, {"a": 1, "b": 2}), (11, 0, {"a": 10})]
    assert waived(amounts, left) == {2: 3, 11: 2}


@given(AMOUNTS, st.integers(0, 40))
def test_what_is_waived_is_what_is_beyond_the_cap(parts: list[dict[str, int]], most: int) -> None:
    amounts = [(start, 0, by_price) for start, by_price in enumerate(parts)]
    left = left_of(amounts, (Waiver(0, "c", most),), lambda _: 0)
    assert sum(waived(amounts, left).values()) == max(0, sum(sum(each.values()) for each in parts) - most)


@given(AMOUNTS, AMOUNTS, st.integers(0, 30))
def test_what_may_come_before_leaves_no_more_to_owe_than_was_said(
    used: list[dict[str, int]], more: list[dict[str, int]], most: int
) -> None:
    """With what is used for sure, the bound holds for whatever part of the rest is used."""
    waivers = (Waiver(0, "c", most),)
    count = max(len(used), len(more))
    used, more = [[*each, *[{}] * count][:count] for each in (used, more)]
    whole = [
        (start, 0, {name: here.get(name, 0) + maybe.get(name, 0) for name in {*here, *maybe}})
        for start, (here, maybe) in enumerate(zip(used, more, strict=True))
    ]
    bound = left_of(whole, waivers, lambda _: 0, dict(enumerate(used)))
    for some in range(2**count):
        amounts = [(start, 0, whole[start][2] if some >> start & 1 else dict(used[start])) for start in range(count)]
        for (_, _, parts), (_, _, said) in zip(left_of(amounts, waivers, lambda _: 0), bound, strict=True):
            assert all(pico <= said[name] for name, pico in parts.items())


def test_another_amount_counts_from_the_periods_that_are_open_and_none_leaves_them_all() -> None:
    later = waiving(waiving((), 10, "c", 5), 20, "c", 7)
    assert later == (Waiver(10, "c", 5), Waiver(20, "c", 7))
    assert waiving(later, 20, "c", None) == (Waiver(10, "c", 5), Waiver(20, "c", None))
    assert waiving(later, 10, "c", None) == ()
    assert (waiver_at(later, 9), waiver_at(later, 19), waiver_at(later, 20)) == (None, *later)
    assert waiver_at(waiving(later, 20, "c", None), 25) is None
