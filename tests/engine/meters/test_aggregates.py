"""Aggregates: the same whatever the order and grouping, and what a segment adds is never below nothing."""

import random
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.meters.aggregates import (
    KINDS,
    Aggregate,
    Average,
    Forgotten,
    NotCounted,
    Ranked,
    Unique,
    kept,
    mark_of,
    merged,
    read_kept,
    spread,
    without,
)
from engine.money import NANO

VALUES = st.integers(0, 5) | st.integers(0, 10**12)
POINTS = 2


def most(value: int, points: int = POINTS) -> Ranked:
    return Ranked("max", ((value,),), points)


def least(value: int) -> Ranked:
    return Ranked("min", ((-value,),), POINTS)


def latest(time_us: int, source: str, event_id: str, value: int) -> Ranked:
    return Ranked("latest", ((time_us, source, event_id, value),), POINTS)


def unique(text: str) -> Unique:
    return Unique({mark_of(text): 1}, 9)


def aggregates(kind: str) -> st.SearchStrategy[Any]:
    return {
        "max": st.builds(most, VALUES),
        "min": st.builds(least, VALUES),
        "latest": st.builds(latest, st.integers(0, 3), st.sampled_from("ab"), st.text(max_size=1), VALUES),
        "average": st.builds(Average, VALUES, st.just(1)),
        "unique_count": st.builds(unique, st.sampled_from("abc")),
    }[kind]


@pytest.mark.parametrize("kind", ["max", "min", "latest", "average", "unique_count"])
@given(st.data(), st.randoms(use_true_random=False))
def test_any_order_and_any_grouping_come_to_the_same(kind: str, data: st.DataObject, source: random.Random) -> None:
    parts = data.draw(st.lists(aggregates(kind), min_size=1, max_size=6))
    whole = merged(parts)[-1]
    shuffled: list[Aggregate] = list(parts)
    while len(shuffled) > 1:
        source.shuffle(shuffled)
        one, other = shuffled.pop(), shuffled.pop()
        shuffled.append(merged([one, other])[-1])
    if isinstance(whole, Ranked):
        assert whole.known[0] == max(part.known[0] for part in parts if isinstance(part, Ranked))
    assert shuffled == [whole]
    assert [each.quantity for each in merged(parts)] == [
        reduce(lambda one, other: merged([one, other])[-1], parts[: place + 1]).quantity for place in range(len(parts))
    ]


def test_what_each_kind_comes_to() -> None:
    assert merged([most(3), most(5), most(4)])[-1].quantity == 5
    assert merged([least(3), least(2), least(4)])[-1].quantity == 2
    assert merged([Average(3, 1), Average(4, 1)])[-1].quantity == 4  # 3.5: half-even
    assert merged([Average(2, 1), Average(3, 1)])[-1].quantity == 2
    assert merged([latest(2, "a", "x", 7), latest(1, "z", "z", 9)])[-1].quantity == 7
    assert merged([latest(2, "a", "x", 7), latest(2, "b", "a", 9)])[-1].quantity == 9  # the greater source
    assert merged([latest(2, "a", "x", 7), latest(2, "a", "y", 5)])[-1].quantity == 5  # then the greater id
    seen = [unique(text) for text in ("a", "b", "a")]
    assert [each.quantity for each in merged(seen)] == [NANO, 2 * NANO, 2 * NANO]


@pytest.mark.parametrize("kind", KINDS)
@given(st.data())
def test_what_is_taken_back_leaves_what_was_there_without_it(kind: str, data: st.DataObject) -> None:
    """With as many points as there are readings nothing is forgotten, and nothing is left of what is taken back."""
    parts = list(data.draw(st.lists(aggregates(kind), min_size=1, max_size=POINTS + 1)))
    gone = data.draw(st.integers(0, len(parts) - 1))
    left = parts[:gone] + parts[gone + 1 :]
    assert without(merged(parts)[-1], parts[gone]) == (merged(left)[-1] if left else None)


@given(st.lists(VALUES, min_size=1, max_size=9), st.lists(st.tuples(st.booleans(), VALUES), max_size=12))
def test_of_what_is_forgotten_nothing_is_guessed(values: list[int], steps: list[tuple[bool, int]]) -> None:
    """Readings come and are taken back: the greatest is the greatest of all that are there, or the step is refused."""
    whole: Aggregate = merged([most(value) for value in values])[-1]
    there = list(values)
    for is_added, value in steps:
        if is_added:
            there.append(value)
            whole = merged([whole, most(value)])[-1]
        else:
            gone = there[value % len(there)]
            try:
                less = without(whole, most(gone))
            except Forgotten:
                continue
            there.remove(gone)
            if less is None:
                assert there == []
                return
            whole = less
        assert isinstance(whole, Ranked)
        assert list(whole.known) == [(each,) for each in sorted(there, reverse=True)[: len(whole.known)]]
        assert len(whole.known) + whole.others == len(there)
        assert len(whole.known) <= POINTS + 1


def test_the_points_are_the_readings_that_would_count_next() -> None:
    whole = merged([most(value) for value in (5, 9, 7, 3, 8)])[-1]
    assert isinstance(whole, Ranked)
    assert (whole.known, whole.others, whole.bar) == (((9,), (8,), (7,)), 2, (5,))
    for taken, left in ((9, 8), (3, 8), (8, 7)):
        less = without(whole, most(taken))
        assert less is not None
        assert less.quantity == left
        whole = less
    with pytest.raises(Forgotten):  # one that came before may be 5 or less
        without(whole, most(7))
    more = merged([whole, most(4), most(6)])[-1]  # 4 is behind what was forgotten, 6 is not
    assert isinstance(more, Ranked)
    assert (more.known, more.others) == (((7,), (6,)), 2)
    for taken in (7, 5, 4):
        less = without(more, most(taken))
        assert isinstance(less, Ranked)
        more = less
    assert (more.known, more.others, more.bar) == (((6,),), 0, None)  # nothing is forgotten any more


@pytest.mark.parametrize(
    ("whole", "one"),
    [
        (most(5), most(6)),
        (None, most(6)),
        (Average(5, 2), Average(6, 1)),
        (Average(5, 1), Average(4, 1)),
        (unique("a"), unique("b")),
        (most(5), Average(5, 1)),
    ],
)
def test_what_was_never_counted_is_not_taken_back(whole: Aggregate | None, one: Aggregate) -> None:
    with pytest.raises(NotCounted):
        without(whole, one)


def test_a_text_and_a_number_are_two_values() -> None:
    assert len({mark_of("5"), mark_of(5 * NANO), mark_of("5000000000")}) == 3


@given(st.lists(VALUES, min_size=1, max_size=8))
def test_what_segments_add_is_never_below_nothing_and_in_all_the_last(through: list[int]) -> None:
    added = spread(through)
    assert min(added) >= 0
    assert sum(added) == through[-1]
    assert len(added) == len(through)


def test_what_is_taken_back_is_taken_from_the_latest_before_it() -> None:
    assert spread([10, 30, 20]) == [10, 10, 0]
    assert spread([10, 4]) == [4, 0]
    assert spread([3, 5, 5, 9]) == [3, 2, 0, 4]


@pytest.mark.parametrize("kind", ["max", "min", "latest", "average", "unique_count"])
@given(st.data())
def test_what_is_stored_is_read_back(kind: str, data: st.DataObject) -> None:
    whole = merged(data.draw(st.lists(aggregates(kind), min_size=1, max_size=4)))[-1]
    assert read_kept(kept(whole)) == whole
    assert kept(whole)[0] == kind


def test_what_is_no_aggregate_is_not_read() -> None:
    for parts in ([], ["sum", "1"], ["max"], ["latest", "2", "0", "1", "a", "b"]):
        with pytest.raises(ValueError, match="is no aggregate"):
            read_kept(list(parts))
