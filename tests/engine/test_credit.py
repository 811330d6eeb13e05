"""Who pays for what: lots, their order, their scopes, debt and its settlement."""

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.credit import UNBOUNDED, Allocation, Carry, Lot, LotChange, allocate

Segment = tuple[int, int, Mapping[str, int]]


def lot(name: str, granted: int, **fields: Any) -> Lot:
    body: dict[str, Any] = {"kind": "paid", "priority": 100, "effective_us": 0, "expires_us": None, "scope": ()}
    return Lot(lot=name, granted=granted, **(body | fields))


def pay(segments: list[Segment], *lots: Lot, woken: int = 1_000) -> Allocation:
    return allocate(segments, {item.lot: item for item in lots}, woken)


def left(allocation: Allocation) -> dict[str, int]:
    return allocation.remaining


def test_without_a_lot_usage_is_debt_of_its_period() -> None:
    found = pay([(10, 0, {"x": 7}), (20, 15, {"x": 2, "y": 1})])
    assert (found.debt, found.balance, found.burnt) == ({0: 7, 15: 3}, -10, {})


def test_usage_that_costs_nothing_makes_no_debt() -> None:
    assert pay([(10, 0, {"x": 0})]).debt == {}


def test_a_lot_pays_within_its_validity_only() -> None:
    found = pay([(9, 0, {"x": 1}), (10, 0, {"x": 2}), (19, 0, {"x": 4}), (20, 0, {"x": 8})],
                lot("a", 100, kind="promo", effective_us=10, expires_us=20))  # fmt: skip
    assert found.burnt == {("a", 0): 6}
    assert found.debt == {0: 9}


def test_a_burn_names_the_period_of_the_usage() -> None:
    found = pay([(10, 0, {"x": 3}), (50, 40, {"x": 4})], lot("a", 100))
    assert found.burnt == {("a", 0): 3, ("a", 40): 4}


ORDER = [
    (lot("b", 5, priority=1), lot("a", 5, priority=2, expires_us=900)),
    (lot("b", 5, expires_us=800), lot("a", 5, expires_us=900, effective_us=-5)),
    (lot("b", 5, expires_us=800), lot("a", 5)),
    (lot("b", 5, effective_us=-5), lot("a", 5)),
    (lot("a", 5), lot("b", 5)),
]


@pytest.mark.parametrize(("first", "second"), ORDER)
def test_lots_pay_by_priority_then_expiry_then_effective_then_id(first: Lot, second: Lot) -> None:
    found = pay([(10, 0, {"x": 6})], second, first, woken=100)
    assert (left(found)[first.lot], left(found)[second.lot]) == (0, 4)


def test_a_lot_pays_only_the_prices_of_its_scope() -> None:
    found = pay([(10, 0, {"x": 3, "y": 5})], lot("a", 100, scope=("x",)))
    assert (found.burnt, found.debt) == ({("a", 0): 3}, {0: 5})


@pytest.mark.parametrize(("wide", "narrow"), [("a", "b"), ("b", "a")])
def test_who_has_fewer_payers_is_paid_first(wide: str, narrow: str) -> None:
    """y can only be paid by the wide lot; x, that the narrow one may pay too, does not take its money before y does."""
    found = pay([(10, 0, {"x": 10, "y": 10})], lot(wide, 10, priority=1), lot(narrow, 10, scope=("x",)))
    assert (left(found), found.debt) == ({"a": 0, "b": 0}, {})


def test_classes_of_one_size_are_paid_in_the_order_of_their_lots() -> None:
    found = pay(
        [(10, 0, {"p": 10, "q": 10})],
        lot("c", 10),
        lot("a", 4, scope=("q",), priority=200),
        lot("b", 4, scope=("p",), priority=200),
    )
    # [a, c] goes before [b, c]: q takes all of c, so p has but b's four, and a keeps its own.
    assert (left(found), found.debt) == ({"a": 4, "b": 0, "c": 0}, {0: 6})


def test_prices_with_the_same_payers_share_them() -> None:
    found = pay([(10, 0, {"x": 4, "y": 4})], lot("a", 6))
    assert (left(found), found.debt) == ({"a": 0}, {0: 2})


def test_a_paid_lot_settles_the_oldest_debt_first() -> None:
    found = pay([(10, 0, {"x": 5}), (20, 15, {"x": 5})], lot("a", 7, effective_us=30))
    assert (found.debt, found.burnt) == ({15: 3}, {("a", 0): 5, ("a", 15): 2})


@pytest.mark.parametrize("kind", ["promo", "commit", "refund"])
def test_only_a_paid_lot_settles_debt(kind: str) -> None:
    found = pay([(10, 0, {"x": 5})], lot("a", 7, kind=kind, effective_us=30))
    assert (found.debt, left(found), found.balance) == ({0: 5}, {"a": 7}, 2)


@pytest.mark.parametrize("kind", ["promo", "commit", "refund"])
def test_any_lot_settles_debt_that_is_told_to(kind: str) -> None:
    found = pay([(10, 0, {"x": 5})], lot("a", 7, kind=kind, effective_us=30, pays_debt=True))
    assert (found.debt, left(found), found.balance) == ({}, {"a": 2}, 2)


def void(at_us: int, amount: int | None = None) -> LotChange:
    return LotChange(at_us, "void", amount)


def test_a_void_ends_the_lot_for_usage_of_its_instant_and_after() -> None:
    found = pay([(10, 0, {"x": 3}), (19, 0, {"x": 2}), (20, 0, {"x": 4})], lot("a", 10, changes=(void(20),)))
    assert (found.voided, left(found), found.debt) == ({"a": 5}, {"a": 0}, {0: 4})


def test_late_usage_of_before_a_void_shrinks_what_is_void() -> None:
    found = pay([(10, 0, {"x": 3}), (19, 0, {"x": 4})], lot("a", 10, changes=(void(20),)))
    assert (found.voided, found.balance) == ({"a": 3}, 0)


def test_a_void_of_an_amount_takes_the_rest_first_and_the_lot_goes_on() -> None:
    found = pay([(10, 0, {"x": 3}), (20, 0, {"x": 2})], lot("a", 10, changes=(void(20, 4),)))
    assert (found.voided, left(found), found.debt) == ({"a": 4}, {"a": 1}, {})


def test_a_void_beyond_the_rest_makes_debt_of_the_newest_usage() -> None:
    found = pay([(10, 0, {"x": 3}), (20, 15, {"x": 2})], lot("a", 6, changes=(void(30, 4),)))
    assert (found.voided, found.refunded, found.debt) == ({"a": 4}, {("a", 15): 2, ("a", 0): 1}, {15: 2, 0: 1})
    assert (found.burnt, left(found), found.balance) == ({("a", 0): 3, ("a", 15): 2}, {"a": 0}, -3)


def test_debt_of_a_void_is_settled_by_the_next_lot_that_settles() -> None:
    found = pay([(10, 0, {"x": 3})], lot("a", 3, changes=(void(20, 3),)), lot("b", 5, effective_us=30))
    assert (found.debt, left(found)) == ({}, {"a": 0, "b": 2})


def test_nothing_is_burnt_or_given_back_twice() -> None:
    changes = (LotChange(20, "refund", 3), void(30, 5), LotChange(40, "refund", 9))
    found = pay([(10, 0, {"x": 5})], lot("a", 5, kind="promo", changes=changes))
    # 3 come back; 3 and 2 of the burnt are void; nothing is left that could come back.
    assert (found.refunded, found.voided, found.debt, left(found)) == ({("a", 0): 5}, {"a": 5}, {0: 2}, {"a": 0})


def test_a_refund_waits_for_log_time_and_a_void_does_not() -> None:
    """What gives too early would let a check spend what is not there yet."""
    segments: list[Segment] = [(10, 0, {"x": 5})]
    given = lot("a", 5, kind="promo", changes=(LotChange(20, "refund", 3),))
    assert [pay(segments, given, woken=woken).balance for woken in (19, 20)] == [0, 3]
    assert pay([], lot("a", 5, changes=(void(20),)), woken=19).balance == 0


def test_a_refund_of_a_lot_that_settles_pays_debt() -> None:
    found = pay([(10, 0, {"x": 5}), (15, 0, {"x": 4})], lot("a", 5, changes=(LotChange(20, "refund", 3),)))
    assert (found.debt, left(found)) == ({0: 1}, {"a": 0})


def test_paid_back_after_the_expiry_what_had_expired_is_void() -> None:
    found = pay([(10, 0, {"x": 3})], lot("a", 10, expires_us=20, changes=(void(30, 8),)))
    assert (found.voided, found.expired, found.debt) == ({"a": 8}, {"a": 0}, {0: 1})


def rolled(granted: int, percent: int, cap: int | None = None, **fields: Any) -> tuple[Lot, Lot]:
    """A lot that expires at 20, and the one that has its rest until 50."""
    source = lot("a", granted, kind="promo", expires_us=20, **fields)
    return source, lot("c", 0, kind="promo", effective_us=20, expires_us=50, carry=Carry("a", percent, cap))


@pytest.mark.parametrize(
    ("used", "percent", "cap", "carried"),
    [(600, 50, None, 200), (600, 50, 150, 150), (1000, 50, None, 0), (1, 33, None, 329)],
)
def test_what_is_left_at_the_expiry_is_carried(used: int, percent: int, cap: int | None, carried: int) -> None:
    """Law C3: min(remainder x percent, cap), as a lot of its own; the golden case is 1,000 granted, 400 left, 50 %: 200."""
    found = pay([(10, 0, {"x": used})], *rolled(1000, percent, cap), woken=20)
    assert (found.granted["c"], found.carried, found.balance) == (carried, {"a": carried}, carried)
    assert found.expired["a"] == 1000 - used - carried


def test_until_the_expiry_there_is_nothing_to_carry() -> None:
    found = pay([(10, 0, {"x": 600})], *rolled(1000, 50), woken=19)
    assert (found.granted["c"], left(found), found.balance) == (0, {"a": 400, "c": 0}, 400)


def test_late_usage_shrinks_what_was_carried_and_what_was_spent_of_it_is_debt() -> None:
    segments: list[Segment] = [(10, 0, {"x": 600}), (30, 25, {"x": 150})]
    found = pay(segments, *rolled(1000, 50), woken=40)
    assert (left(found)["c"], found.debt) == (50, {})
    late = pay([(10, 0, {"x": 800}), segments[1]], *rolled(1000, 50), woken=40)
    assert (late.granted["c"], late.burnt["c", 25], late.debt) == (100, 100, {25: 50})


def test_what_was_carried_expires_at_its_age_and_is_not_carried_again() -> None:
    found = pay([(10, 0, {"x": 600}), (49, 0, {"x": 30}), (50, 0, {"x": 5})], *rolled(1000, 50), woken=50)
    assert (found.expired, found.debt, found.balance) == ({"a": 200, "c": 170}, {0: 5}, -5)


def test_usage_ahead_of_the_log_is_paid_by_what_was_carried_and_the_balance_does_not_move() -> None:
    """Law C2: the segment is behind the expiry, which log time has not reached."""
    found = pay([(10, 0, {"x": 600}), (21, 0, {"x": 0})], *rolled(1000, 50), woken=19)
    assert (left(found), found.balance) == ({"a": 200, "c": 200}, 400)


def test_of_a_lot_whose_rest_was_voided_nothing_is_carried() -> None:
    found = pay([(10, 0, {"x": 600})], *rolled(1000, 50, changes=(void(15),)), woken=20)
    assert (found.granted["c"], found.voided, found.expired["a"]) == (0, {"a": 400}, 0)


def test_what_was_carried_can_be_voided() -> None:
    source, carried = rolled(1000, 50)
    changed = lot("c", 0, kind="promo", effective_us=20, expires_us=50, carry=carried.carry, changes=(void(30, 120),))
    found = pay([(10, 0, {"x": 600}), (25, 0, {"x": 90})], source, changed, woken=40)
    # 200 carried, 90 burnt, 110 left: they are void, and 10 of the burnt.
    assert (found.voided, left(found)["c"], found.debt) == ({"c": 120}, 0, {0: 10})


def test_debt_is_settled_whatever_the_scope() -> None:
    assert pay([(10, 0, {"x": 5})], lot("a", 7, effective_us=30, scope=("y",))).debt == {}


def test_a_lot_settles_debt_before_it_pays_the_usage_of_its_own_time() -> None:
    found = pay([(10, 0, {"x": 5}), (30, 25, {"x": 5})], lot("a", 7, effective_us=30))
    assert found.debt == {25: 3}


def test_debt_that_comes_after_a_lot_became_effective_is_not_settled_by_it() -> None:
    found = pay([(10, 0, {"x": 1}), (40, 25, {"x": 5})], lot("a", 7, effective_us=30, expires_us=35), woken=32)
    assert (found.debt, left(found)) == ({25: 5}, {"a": 6})


@pytest.mark.parametrize(("woken", "debt"), [(29, {0: 5}), (30, {})])
def test_a_lot_settles_only_once_log_time_has_reached_it(woken: int, debt: dict[int, int]) -> None:
    assert pay([(10, 0, {"x": 5})], lot("a", 7, effective_us=30), woken=woken).debt == debt


def test_lots_settle_in_the_order_in_which_they_become_effective() -> None:
    found = pay([(10, 0, {"x": 5})], lot("a", 4, effective_us=40, priority=1), lot("b", 4, effective_us=30, priority=2))
    assert left(found) == {"a": 3, "b": 0}


def test_lots_that_become_effective_together_settle_in_the_order_in_which_they_pay() -> None:
    found = pay([(10, 0, {"x": 5})], lot("a", 4, effective_us=30, priority=2), lot("b", 4, effective_us=30, priority=1))
    assert left(found) == {"a": 3, "b": 0}


@pytest.mark.parametrize(("woken", "expired", "balance"), [(9, 0, 0), (10, 0, 10), (19, 0, 10), (20, 10, 0)])
def test_a_lot_counts_from_effective_until_expiry(woken: int, expired: int, balance: int) -> None:
    found = pay([], lot("a", 10, effective_us=10, expires_us=20), woken=woken)
    assert (found.expired.get("a", 0), left(found)["a"], found.balance) == (expired, 10 - expired, balance)


def test_late_usage_of_an_expired_lot_shrinks_what_expired() -> None:
    found = pay([(15, 0, {"x": 4})], lot("a", 10, effective_us=10, expires_us=20), woken=30)
    assert (found.burnt, found.expired, found.balance) == ({("a", 0): 4}, {"a": 6}, 0)


LOTS = st.builds(
    lot,
    st.uuids().map(str),
    st.integers(1, 50),
    kind=st.sampled_from(["paid", "promo"]),
    priority=st.integers(0, 2),
    effective_us=st.integers(0, 40),
    expires_us=st.none() | st.integers(41, 60),
    scope=st.sampled_from([(), ("x",), ("y",)]),
    pays_debt=st.sampled_from([None, True]),
    changes=st.lists(
        st.builds(LotChange, st.integers(1, 60), st.sampled_from(["void", "refund"]), st.integers(1, 40)), max_size=2
    ).map(lambda changes: tuple(sorted(changes, key=lambda change: change.at_us))),
)


def commanded(lots: list[Lot], segments: list[Segment]) -> list[Lot]:
    """The lots with those of their changes that a command would have made: behind usage, and of no more than there is."""
    made = {each.lot: replace(each, changes=()) for each in lots}
    asked = [(change.at_us, each.lot, change) for each in lots for change in each.changes]
    for at_us, name, change in sorted(asked, key=lambda one: one[:2]):
        used = [segment for segment in segments if segment[0] < at_us]
        found = pay(used, *made.values(), woken=at_us)
        there = found.unreturned(name)
        if change.kind == "void":
            there += found.remaining[name] + found.expired.get(name, 0)
        elif made[name].expired(at_us):
            continue
        if there:
            kept = LotChange(at_us, change.kind, min(there, change.amount or there))
            made[name] = replace(made[name], changes=(*made[name].changes, kept))
    return list(made.values())


@given(st.lists(LOTS, max_size=5), st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=6), st.data())
def test_more_usage_never_leaves_more_and_lowers_the_balance_by_no_more_than_it_costs(
    lots: list[Lot], usage: list[tuple[int, int]], data: st.DataObject
) -> None:
    """What the guard of the fast path rests on (engine/account.py)."""
    rests = [each for each in lots if each.expires_us is not None]
    lots = [
        *lots,
        *(
            lot(f"{each.lot} rest", 0, effective_us=each.expires_us, expires_us=70, carry=Carry(each.lot, 50, 9))
            for each in rests
        ),
    ]
    segments: list[Segment] = [(10 * index, 0, {"x": x, "y": y}) for index, (x, y) in enumerate(usage)]
    last = 10 * len(usage)
    more = {"x": data.draw(st.integers(0, 30)), "y": data.draw(st.integers(0, 30))}
    woken = data.draw(st.integers(0, 70))
    lots = commanded(lots, [*segments, (last, 0, {})])
    before = pay([*segments, (last, 0, {})], *lots, woken=woken)
    after = pay([*segments, (last, 0, more)], *lots, woken=woken)
    assert 0 <= before.balance - after.balance <= sum(more.values())
    assert all(after.remaining[name] <= before.remaining[name] for name in before.remaining)


@settings(max_examples=300)
@given(st.lists(LOTS, max_size=4), st.lists(st.integers(0, 9), max_size=4), st.data())
def test_the_next_payer_pays_all_that_it_can_and_nothing_else_changes(
    lots: list[Lot], usage: list[int], data: st.DataObject
) -> None:
    """What a guard's payment rests on (engine/guard.py): whoever is named burns, or owes, exactly what more is charged."""
    rests = [each for each in lots if each.expires_us is not None and data.draw(st.booleans())]
    lots = [
        *(each if data.draw(st.booleans()) else replace(each, scope=()) for each in lots),
        *(
            lot(f"{each.lot} rest", 0, effective_us=each.expires_us, expires_us=70, carry=Carry(each.lot, 50, 9))
            for each in rests
        ),
    ]
    segments: list[Segment] = [(10 * index, 0, {"x": x}) for index, x in enumerate(usage)]
    last = 10 * len(usage)
    woken = data.draw(st.integers(0, 75))
    lots = commanded(lots, [*segments, (last, 1, {})])
    before = pay([*segments, (last, 1, {})], *lots, woken=woken)
    payer = before.next_payer(last)
    if payer is None:
        return
    name, room = payer
    more = data.draw(st.integers(0, min(room, 60)))
    after = pay([*segments, (last, 1, {"x": more})], *lots, woken=woken)
    place = (name, "burn" if name else "debt", 1)
    expected = before.postings()
    expected[place] = expected.get(place, 0) + more
    assert {key: pico for key, pico in after.postings().items() if pico} == {k: v for k, v in expected.items() if v}
    assert after.balance == before.balance - more


def test_the_next_payer_is_named_in_the_plain_cases() -> None:
    """Or the law above would hold of nothing."""
    used: list[Segment] = [(0, 0, {"x": 5})]
    assert pay(used, lot("a", 5), lot("b", 7)).next_payer(0) == ("b", 7)
    assert pay(used).next_payer(0) == ("", UNBOUNDED)
    assert pay(used, lot("a", 9), lot("later", 9, effective_us=20)).next_payer(0) is None, "it settles debt behind it"
    assert pay(used, lot("a", 9), lot("later", 9, effective_us=20), woken=10).next_payer(0) == ("a", 4)
    assert pay(used, lot("a", 9, scope=("x",))).next_payer(0) is None
    assert pay(used, lot("a", 9, expires_us=10), woken=10).next_payer(0) is None
    assert pay(used, lot("a", 9), woken=-1).next_payer(0) is None, "the balance does not count it yet"
