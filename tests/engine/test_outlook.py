"""What an account comes to with all that is held: the short way and the long one give the same figures."""

import random

from hypothesis import example, given, settings
from hypothesis import strategies as st

from engine.catalog import compile_catalogue
from engine.holds import Bound
from engine.money import NANO
from engine.outlook import Asked, Ledger, held_by_payers, payers_of
from tests.engine.bench import DOLLAR, HOUR, MINUTE, document, graduated
from tests.engine.desk_bench import DeskBench
from tests.engine.held_life import HeldLife

X = Bound(2 * NANO, ("x",), ("x",))


def faced(bench: DeskBench) -> Ledger:
    ledger = Ledger()
    ledger.face(bench.account(), bench.partition._book, bench.now)
    return ledger


@settings(max_examples=60)
@example(27_211)  # a grant that serves another part of the period
@given(st.integers(0, 10**9))
def test_weighing_only_the_newest_segment_gives_what_weighing_everything_gives(seed: int) -> None:
    life = HeldLife(seed)
    reached = Bound(3 * NANO + 5, ("units-x", "units-y"), ("units-x",))
    for _ in range(25):
        life.step()
        life.bench.wallet()  # turns the ledger to this moment
        ledger = life.bench.partition.desk._tills["acme"].ledger
        for held, asked in ((True, None), (False, None), (True, Asked(ledger.segment, (reached,), 1))):
            if ledger._firm_ground(asked) is not None:
                short, long = ledger.look(held=held, asked=asked), ledger._look_everywhere(held, True, asked)
                assert (short.balance, short.debt, short.total) == (long.balance, long.debt, long.total)
                months = short.spend.keys() | long.spend.keys()
                assert all(short.spend.get(month, 0) == long.spend.get(month, 0) for month in months)


def test_late_usage_of_an_earlier_segment_is_seen_at_once() -> None:
    """It changes a row in place, behind the back of what was kept of it."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "100")
    bench.use(1, "tiered")
    bench.use(1, "tiered")
    bench.grant("next", "1", "promo", effective_us=bench.now + HOUR)
    bench.use(1, "tiered", at=bench.now)
    late = bench.now
    bench.wait(HOUR)
    ledger = faced(bench)
    before = ledger.look().balance
    bench.use(1, "tiered", at=late)
    bench.use(1, "tiered")
    ledger.face(bench.account(), bench.partition._book, bench.now)
    assert ledger.look().balance == bench.balance() == before - 60 * DOLLAR


def test_a_manual_line_is_seen_at_once() -> None:
    """Nothing was rated in between; what was summed up before it must not be shown again."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "100")
    bench.use(1, "tiered")
    ledger = faced(bench)
    before = ledger.look().balance
    assert bench.adjust("credit", "-5") == "applied"
    ledger.face(bench.account(), bench.partition._book, bench.now)
    assert ledger.look().balance == bench.balance() == before + 5 * DOLLAR


def test_what_is_put_and_taken_off_leaves_nothing() -> None:
    source = random.Random(1)
    ledger = Ledger()
    put = [(source.randrange(3), ("", f"s{source.randrange(3)}"), source.randrange(5)) for _ in range(50)]
    for segment, scopes, quantity in put:
        ledger.put(segment, scopes, X, quantity, 1)
    for segment, scopes, quantity in put:
        ledger.put(segment, scopes, X, -quantity, -1)
    assert ledger.piles == {}


def test_a_boundary_that_moves_is_told_once() -> None:
    bench = DeskBench()
    bench.open()
    bench.grant("l", "100")
    ledger = faced(bench)

    def moved() -> bool:
        return ledger.face(bench.account(), bench.partition._book, bench.now)

    assert not moved()
    bench.use(1)
    bench.cap("10")
    assert not moved()
    bench.grant("m", "100")
    assert (moved(), moved()) == (True, False)


def test_a_publication_moves_boundaries() -> None:
    bench = DeskBench(document(), document())
    bench.open()
    ledger = faced(bench)
    bench.publish(2, bench.now + HOUR)
    assert ledger.face(bench.account(), bench.partition._book, bench.now)


def test_what_is_withheld_lies_in_every_segment_since_it_may_have_been_approved() -> None:
    bench = DeskBench()
    bench.open()
    bench.grant("a", "1", effective_us=bench.now + MINUTE)
    bench.grant("b", "1", effective_us=bench.now + 2 * MINUTE)
    start = bench.now
    bench.wait(3 * MINUTE)
    ledger = faced(bench)
    ledger.withhold([(start + MINUTE + 1, {"x": NANO}), (bench.now, {"x": NANO, "unheard": NANO})])
    kept = {segment: sum(pile.quantity for pile in piles.values()) for segment, piles in ledger.withheld.items()}
    assert kept == {start + MINUTE: NANO, start + 2 * MINUTE: 2 * NANO}
    ledger.withhold([])
    assert ledger.withheld == {}


def test_a_charge_of_a_scope_is_the_dearest_under_every_version_of_the_period() -> None:
    """$1 now; from an hour on first 10 units free, then $5: what comes before also pushes what comes after."""
    bench = DeskBench(document(), document(x=graduated(("10", "0"), (None, "5"), model="x")))
    bench.open()
    bench.scope("red")
    ledger = faced(bench)
    month = ledger.month
    asked = Asked(ledger.segment, (X,), 1)
    assert ledger.scope_charges("red", month, withheld=False, asked=asked) == (2 * DOLLAR, 0)
    bench.publish(2, bench.now + HOUR)
    ledger.face(bench.account(), bench.partition._book, bench.now)
    assert ledger.scope_charges("red", month, withheld=False, asked=asked) == (2 * 6 * DOLLAR, 0)
    assert ledger.scope_charges("red", month + 1, withheld=False, asked=asked) == (0, 0)


def test_prices_that_different_lots_may_pay_are_held_apart() -> None:
    bench = DeskBench()
    bench.open()
    bench.grant("l", "1", scope=["x"])
    plan = compile_catalogue(1, document()).plans["plan"]
    payers = payers_of(bench.account(), bench.partition.log_time_us)
    assert held_by_payers(plan, ("x", "y", "tiered"), []) == ("tiered",)
    assert held_by_payers(plan, ("x", "y", "tiered"), payers) == ("tiered", "x")
    bench.grant_units("g", "y", "1")
    payers = payers_of(bench.account(), bench.partition.log_time_us)
    assert held_by_payers(plan, ("x", "y", "tiered"), payers) == ("tiered", "x", "y")
