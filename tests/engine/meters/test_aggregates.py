"""Aggregates: the same whatever the order and grouping, and what a segment adds is never below nothing."""

import random
from functools import reduce
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.meters.aggregates import (
    Aggregate,
    Average,
    Latest,
    Least,
    Most,
    Unique,
    kept,
    mark_of,
    merged,
    read_kept,
    spread,
)
from engine.money import NANO

VALUES = st.integers(0, 5) | st.integers(0, 10**12)


def aggregates(kind: str) -> st.SearchStrategy[Any]:
    return {
        "max": st.builds(Most, VALUES),
        "min": st.builds(Least, VALUES),
        "latest": st.builds(Latest, st.integers(0, 3), st.sampled_from("ab"), st.text(max_size=1), VALUES),
        "average": st.builds(Average, VALUES, st.just(1)),
        "unique_count": st.builds(
            Unique, st.sampled_from("abc").map(lambda text: frozenset([mark_of(text)])), st.just(9)
        ),
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
    if kind == "latest":
        assert whole == max(parts)
    assert shuffled[0].quantity == whole.quantity
    assert [each.quantity for each in merged(parts)] == [
        reduce(lambda one, other: merged([one, other])[-1], parts[: place + 1]).quantity for place in range(len(parts))
    ]


def test_what_each_kind_comes_to() -> None:
    assert merged([Most(3), Most(5), Most(4)])[-1].quantity == 5
    assert merged([Least(3), Least(2), Least(4)])[-1].quantity == 2
    assert merged([Average(3, 1), Average(4, 1)])[-1].quantity == 4  # 3.5: half-even
    assert merged([Average(2, 1), Average(3, 1)])[-1].quantity == 2
    assert merged([Latest(2, "a", "x", 7), Latest(1, "z", "z", 9)])[-1].quantity == 7
    assert merged([Latest(2, "a", "x", 7), Latest(2, "b", "a", 9)])[-1].quantity == 9  # the greater source
    assert merged([Latest(2, "a", "x", 7), Latest(2, "a", "y", 5)])[-1].quantity == 5  # then the greater id
    seen = [Unique(frozenset([mark_of(text)]), 9) for text in ("a", "b", "a")]
    assert [each.quantity for each in merged(seen)] == [NANO, 2 * NANO, 2 * NANO]


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
    for parts in ([], ["sum", "1"], ["max"], ["latest", "1", "a", "b"]):
        with pytest.raises(ValueError, match="is no aggregate"):
            read_kept(list(parts))
