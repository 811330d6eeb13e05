"""What an account keeps of what does not add up: per segment its aggregate, and in the table what that adds."""

import pytest

from engine.meters import Forgotten, NotCounted, TooManyValues
from engine.meters.aggregates import Average, Ranked, Unique, mark_of
from engine.money import NANO
from engine.prices.price import Price
from engine.readings import Aggregates, Reading, observed
from tests.engine.bench import priced

PRICE: Price = priced([(None, 1, 1)], "x")
KEY = ("x", ())


def most(value: int, points: int = 1) -> Reading:
    return PRICE, (), Ranked("max", ((value,),), points)


def seen(*readings: tuple[int, Reading], is_back: bool = False, before: tuple = ({}, {})) -> tuple:  # type: ignore[type-arg]
    """Table and aggregates behind readings in segments that start at some instants, all of one period; the last moves."""
    table, aggregates = before
    moves: list = []  # type: ignore[type-arg]
    for start, reading in readings:
        table, aggregates, moves = observed(table, aggregates, start, [reading], lambda _: True, is_back=is_back)
    return table, aggregates, moves


def test_each_segment_has_what_it_adds() -> None:
    table, aggregates, moves = seen((0, most(3)), (20, most(9)), (10, most(5)))
    assert table == {0: {KEY: 3}, 10: {KEY: 2}, 20: {KEY: 4}}
    assert moves == [(PRICE, (), 0)]
    assert aggregates.keys() == {0, 10, 20}


def test_what_is_taken_back_leaves_its_cell_and_no_aggregate() -> None:
    before = seen((0, most(3)), (20, most(9)), (10, most(5)))[:2]
    table, aggregates, moves = seen((10, most(5)), is_back=True, before=before)
    assert table == {0: {KEY: 3}, 10: {KEY: 0}, 20: {KEY: 6}}
    assert moves == [(PRICE, (), 0)]
    table, aggregates, moves = seen((20, most(9)), (0, most(3)), is_back=True, before=(table, aggregates))
    assert (table, aggregates) == ({0: {KEY: 0}, 10: {KEY: 0}, 20: {KEY: 0}}, {})
    assert moves == [(PRICE, (), -3)]


def test_another_period_is_another_matter() -> None:
    table, aggregates, _ = seen((0, most(9)))
    table, _, moves = observed(table, aggregates, 10, [most(5)], lambda start: start >= 10, is_back=False)
    assert table == {0: {KEY: 9}, 10: {KEY: 5}}
    assert moves == [(PRICE, (), 5)]


def test_what_it_is_given_is_not_changed() -> None:
    before: tuple[dict, Aggregates] = seen((0, most(3)))[:2]  # type: ignore[type-arg]
    seen((0, most(9)), before=before)
    seen((0, most(3)), is_back=True, before=before)
    assert before == ({0: {KEY: 3}}, {0: {KEY: Ranked("max", ((3,),), 1)}})


def test_what_cannot_be_told_is_refused() -> None:
    before = seen((0, most(9)), (0, most(7)), (0, most(5)))[:2]
    before = seen((0, most(9)), is_back=True, before=before)[:2]
    with pytest.raises(Forgotten, match="of price x it is not known any more what would count in its place"):
        seen((0, most(7)), is_back=True, before=before)
    for start, reading in ((0, most(8)), (10, most(7)), (0, (PRICE, (), Average(7, 1)))):
        with pytest.raises(NotCounted, match="price x has no such reading there"):
            seen((start, reading), is_back=True, before=before)


def test_different_values_are_counted_over_all_of_the_period() -> None:
    readings = [(PRICE, (), Unique({mark_of(text): 1}, 2)) for text in "abc"]
    table, aggregates, _ = seen((0, readings[0]), (10, readings[1]), (20, readings[0]))
    assert table == {0: {KEY: NANO}, 10: {KEY: NANO}, 20: {KEY: 0}}
    with pytest.raises(TooManyValues, match="more than 2 different values of price x in cell -"):
        seen((20, readings[2]), before=(table, aggregates))
