"""What is left of amounts up to a cap of the month, and what is not."""

from hypothesis import given
from hypothesis import strategies as st

from engine.waivers import Waiver, left_of, most_left, waived, waiver_at, waiving

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


@given(AMOUNTS, AMOUNTS, st.integers(0, 30), st.integers(0, 30), st.data())
def test_no_use_of_what_may_come_leaves_payers_more_to_owe_than_was_said(
    used: list[dict[str, int]], more: list[dict[str, int]], most: int, later: int, data: st.DataObject
) -> None:
    """Of x and z, which the same lots pay, and of y: whatever part of the rest is used. And what becomes sure of it makes
    neither bound higher (law L4)."""
    count = max(len(used), len(more))
    waivers = (Waiver(0, "c", most), Waiver(count // 2, "c", later))
    used, more = [[*each, *[{}] * count][:count] for each in (used, more)]

    def of(parts: list[dict[str, int]]) -> list[tuple[int, int, dict[str, int]]]:
        return [(start, 0, by_price) for start, by_price in enumerate(parts)]

    def plus(first: dict[str, int], second: dict[str, int]) -> dict[str, int]:
        return {name: first.get(name, 0) + second.get(name, 0) for name in {*first, *second}}

    def bound(sure: list[dict[str, int]], rest: list[dict[str, int]]) -> dict[tuple[int, bool], int]:
        whole = of([plus(*both) for both in zip(sure, rest, strict=True)])
        return by_payers(most_left(whole, waivers, lambda _: 0, dict(enumerate(sure)), lambda _, name: name == "y"))

    def by_payers(left: list[tuple[int, int, dict[str, int]]]) -> dict[tuple[int, bool], int]:
        found: dict[tuple[int, bool], int] = {}
        for start, _, parts in left:
            for name, pico in parts.items():
                found[start, name == "y"] = found.get((start, name == "y"), 0) + pico
        return found

    settled = [{name: data.draw(st.integers(0, pico)) for name, pico in each.items()} for each in more]
    freed = [
        {name: data.draw(st.integers(part[name], pico)) for name, pico in each.items()}
        for each, part in zip(more, settled, strict=True)
    ]
    after = [plus(*both) for both in zip(used, settled, strict=True)]
    rest = [{name: pico - part[name] for name, pico in each.items()} for each, part in zip(freed, settled, strict=True)]
    said, then = bound(used, more), bound(after, rest)
    for place, pico in by_payers(left_of(of(after), waivers, lambda _: 0)).items():
        assert pico <= then.get(place, 0) <= said[place]


def test_another_amount_counts_from_the_periods_that_are_open_and_none_leaves_them_all() -> None:
    later = waiving(waiving((), 10, "c", 5), 20, "c", 7)
    assert later == (Waiver(10, "c", 5), Waiver(20, "c", 7))
    assert waiving(later, 20, "c", None) == (Waiver(10, "c", 5), Waiver(20, "c", None))
    assert waiving(later, 10, "c", None) == ()
    assert (waiver_at(later, 9), waiver_at(later, 19), waiver_at(later, 20)) == (None, *later)
    assert waiver_at(waiving(later, 20, "c", None), 25) is None
