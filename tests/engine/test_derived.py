"""What follows from a table: the spend of months, what each price owes, and who pays, worked out only when asked for."""

from engine.bases import Bases
from engine.catalog import PriceBook
from engine.contract import Contract
from engine.credit import Lot
from engine.derived import Derived
from tests.engine.bench import START

UNASKED = Bases({}, Contract("UTC", 1, "plan"), PriceBook(), (), int)


def test_who_pays_is_worked_out_when_it_is_asked_for_and_only_once() -> None:
    lot = Lot("l", "paid", 30, 1, START, None, ())
    derived = Derived({START: 50}, {}, [(START, START, {"x": 50})], {"l": lot}, START, {}, {}, UNASKED)
    assert derived.allocation is derived.allocation
    assert (derived.allocation.remaining["l"], derived.allocation.balance) == (0, -20)


def test_who_pays_for_a_segment_is_what_it_adds_on_top_of_those_before_it() -> None:
    lot = Lot("l", "paid", 30, 1, START, None, ())
    amounts = [(START, START, {"x": 20}), (START + 5, START, {"x": 20})]
    derived = Derived({START: 40}, {}, amounts, {"l": lot}, START, {}, {}, UNASKED)
    assert derived.paid(START, START) == ({"x": 20}, {"l": 20}, 0)
    assert derived.paid(START + 5, START) == ({"x": 20}, {"l": 10}, 10)
    assert derived.paid(START + 9, START) is None
