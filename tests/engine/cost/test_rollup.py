"""Rows of cost, and what of them was told."""

from engine.cost.rollup import Key, Rollup, RowChange, Sums
from engine.cost.window import Bucket

KEY = Key(0, "r", "m", Bucket.DIRECT, "acme", "chat")
IDLE = Key(0, "r", "m", Bucket.HARD_IDLE)


def test_only_what_differs_is_told() -> None:
    rollup = Rollup()
    rollup.touch(rollup.row(KEY)).amount += 5
    rollup.touch(rollup.row(IDLE))
    assert rollup.changes() == [RowChange(KEY, Sums(5), 5)]
    rollup.touch(rollup.row(KEY)).amount += 2
    rollup.touch(rollup.row(KEY)).amount -= 2
    assert rollup.changes() == []
    rollup.touch(rollup.row(KEY)).amount -= 5
    assert rollup.changes() == [RowChange(KEY, Sums(0), -5)]
    assert rollup.all() == []


def test_what_an_earlier_owner_told_is_taken_back_unless_it_is_found_again() -> None:
    rollup = Rollup()
    rollup.told([(KEY, Sums(5)), (IDLE, Sums(7))])
    rollup.touch(rollup.row(KEY)).amount += 5
    assert rollup.changes() == [RowChange(IDLE, Sums(0), -7)]


def test_what_is_forgotten_is_not_told() -> None:
    rollup = Rollup()
    rollup.touch(rollup.row(KEY)).amount += 5
    rollup.forget(1)
    assert rollup.changes() == []
    assert rollup.all() == []
