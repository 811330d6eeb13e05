"""Law L4: a hold stands beside the spend, and what was admitted is paid for: overspend 0, also across a crash."""

import random
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from engine.money import NANO
from engine.outlook import Ledger
from engine.reasons import Reason
from tests.engine.bench import DOLLAR, HOUR, MINUTE, SECOND, document, graduated, per_unit
from tests.engine.desk_bench import DeskBench
from tests.engine.held_life import HeldLife

FREE_THEN_TEN = graduated(("1000000", "0"), (None, "0.00001"), model="x")
FALLING = graduated(("4", "9"), (None, "0"), model="x")


def live(seed: int, *, crashes: bool) -> str:
    """What went wrong in a random life, in words; empty: nothing."""
    life = HeldLife(seed, crashes=crashes)
    assume(life.over <= 0)
    assume(not life.beyond_caps())
    return life.went_wrong()


@settings(max_examples=150)
@given(st.integers(0, 10**9))
def test_held_usage_never_passes_the_overdraft_or_a_hard_cap(seed: int) -> None:
    """Any plan, any lots, any use within the bounds, in any order, over any boundaries."""
    assert live(seed, crashes=False) == ""


@settings(max_examples=150)
@given(st.integers(0, 10**9))
def test_nor_does_it_when_owners_die(seed: int) -> None:
    """A new owner knows nothing of the holds of the one before but its slices; their usage arrives all the same."""
    assert live(seed, crashes=True) == ""


def test_without_the_slices_of_dead_owners_it_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """The test above can fail: it finds what the closed slices are for."""
    monkeypatch.setattr(Ledger, "withhold", lambda _ledger, _slices: None)
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    old = bench.hold_for("10")
    bench.take_over()
    new = bench.hold_for("10")
    bench.spend_held(old, 10)
    bench.spend_held(new, 10)
    assert bench.debt() == 10 * DOLLAR


def test_a_new_owner_withholds_what_the_old_one_approved_until_it_is_reported() -> None:
    """Overspend of held usage is 0, also across crash and takeover."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    bench.wait(HOUR)
    old = bench.hold_for("10")
    bench.take_over()
    decision = bench.check("10")
    assert decision.reason is Reason.WITHHELD
    assert decision.retry_after_us == 10 * MINUTE
    assert bench.wallet() == (10 * DOLLAR, 10 * DOLLAR)
    bench.spend_held(old, 4)
    assert bench.wallet() == (6 * DOLLAR, 0)
    assert bench.refused("6.1") is Reason.CREDIT_DEPLETED
    assert bench.refused("6") is None


def test_what_was_approved_around_a_boundary_is_withheld_on_both_sides_of_it() -> None:
    """The new owner cannot know on which side it will be charged; the lot of the first side is gone on the other."""
    bench = DeskBench()
    bench.open()
    bench.grant("first", "10", "promo", expires_us=bench.now + HOUR)
    bench.grant("then", "10", "promo", effective_us=bench.now + HOUR)
    bench.wait(HOUR - SECOND)
    early = bench.hold_for("10")
    bench.wait()
    late = bench.hold_for("10")
    bench.take_over()
    bench.grant("new", "10", "promo")
    assert bench.refused("10") is Reason.WITHHELD
    bench.spend_held(early, 10)
    bench.spend_held(late, 10)
    assert (bench.debt(), bench.refused("10")) == (0, None)


def test_a_slice_that_nobody_reports_is_free_when_it_can_be_reported_no_more() -> None:
    """What an old owner approved is withheld for max_hold_ttl + report_delay, and no longer."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    bench.hold_for("10")
    bench.take_over()
    bench.wait(10 * MINUTE - SECOND)
    assert bench.refused("10") is Reason.WITHHELD
    bench.wait()
    assert bench.refused("10") is None


def test_the_golden_row() -> None:
    """First 1 M free, then $10 per 1 M; 0.9 M used, $1 available: of twenty holds of 0.1 M two are admitted."""
    bench = DeskBench(document(x=FREE_THEN_TEN))
    bench.open()
    bench.grant("l", "1")
    bench.use(900_000)
    answers = [bench.check("100000") for _ in range(20)]
    assert [answer.reason for answer in answers] == [None] * 2 + [Reason.CREDIT_DEPLETED] * 18
    assert [answer.price for answer in answers[:3]] == [0, DOLLAR, DOLLAR]
    assert bench.wallet() == (DOLLAR, DOLLAR)
    for answer in answers[:2]:
        assert answer.hold is not None
        bench.spend_held(answer.hold, 100_000)
    assert (bench.wallet(), bench.debt()) == ((0, 0), 0)


@settings(max_examples=100)
@example(4387672)  # settles what can be reported no more
@example(470)
@example(755)
@given(st.integers(0, 10**9))
def test_settling_within_a_hold_never_lowers_what_is_available(seed: int) -> None:
    """Settling within holds can never lower available, also where a cap waives what is beyond it (seeds 470 and 755)."""
    life = HeldLife(seed)
    assume(life.over <= 0)
    for step in range(40):
        life.step()
        if life.open and step % 3 == 0:
            request = life.source.choice(life.open)
            booked, held = life.bench.wallet()
            if request.events > 1:
                life.spend(request, final=False)
            else:
                life.settle(request)
            after, held_after = life.bench.wallet()
            if request.hold.report_until_us >= life.bench.now:  # else it has been reclaimed by now
                assert after - held_after >= booked - held
            assert min(held, held_after) >= 0


def test_units_behind_a_hold_are_priced_as_if_it_may_leave_them_in_the_dearest_tier() -> None:
    """4 units of $9, then free. A hold of 4 in one segment; in the next, 2 more are free only if it is used."""
    bench = DeskBench(document(x=FALLING))
    bench.open()
    bench.grant("early", "36", "promo", expires_us=bench.now + HOUR)
    bench.grant("late", "17", "promo", effective_us=bench.now + HOUR)
    bench.now += HOUR - SECOND
    bench.hold_for("4")
    bench.wait()
    assert bench.check("2").price == 18 * DOLLAR
    assert bench.refused("2") is Reason.CREDIT_DEPLETED
    bench.grant("more", "2")
    assert bench.refused("2") is None


def test_what_rounds_apart_is_held_with_what_rounding_may_add() -> None:
    """Half a pico per unit of x and of y: 6 units come to 3 pico, but 3 of each to 2 + 2."""
    half = {model: per_unit("0.000000000001", "2", model=model) for model in ("x", "y")}
    reach: dict[str, Any] = {"data": {}, "reach": {"model": ("x", "y")}}
    bench = DeskBench(document(**half))
    bench.open()
    bench.grant("l", "0.000000000004")
    assert bench.check("6", **reach).reason is Reason.CREDIT_DEPLETED
    bench.grant("m", "0.000000000001")
    decision = bench.check("6", n=1, **reach)
    assert (decision.reason, decision.price) == (None, 3)


def test_a_dear_price_stands_for_a_cheap_one_only_if_the_same_lots_may_pay_both() -> None:
    """The hold of either model lies on both, as the lot may pay x only."""
    bench = DeskBench()
    bench.open()
    bench.grant("only-x", "10", scope=["x"])
    assert bench.check("1", data={}, reach={"model": ("x", "y")}).reason is Reason.CREDIT_DEPLETED
    bench.grant("any", "1")
    decision = bench.check("1", data={}, reach={"model": ("x", "y")})
    assert decision.hold is not None
    assert decision.hold.bounds[0].held == ("x", "y")


def test_a_stream_draws_on_its_hold_and_leaves_the_rest() -> None:
    """`final: false` draws on the hold and leaves the rest."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    hold = bench.hold_for("10")
    bench.spend_held(hold, 4, final=False)
    assert bench.wallet() == (6 * DOLLAR, 6 * DOLLAR)
    assert bench.refused() is Reason.CREDIT_DEPLETED
    bench.spend_held(hold, 1)
    assert bench.wallet() == (5 * DOLLAR, 0)


def test_what_a_hold_uses_beyond_its_bounds_takes_nothing_from_other_holds() -> None:
    """Above the hold the difference is debited as over_hold; other holds keep theirs."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    hold, other = bench.hold_for("3"), bench.hold_for("5")
    bench.spend_held(hold, 4, final=False)
    assert bench.wallet() == (6 * DOLLAR, 5 * DOLLAR)
    bench.spend_held(hold, 2)
    assert bench.wallet() == (4 * DOLLAR, 5 * DOLLAR)
    bench.spend_held(other, 5)
    assert bench.debt() == DOLLAR


def test_a_release_frees_all_of_a_hold_once() -> None:
    """`release` asserts zero usage."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    hold = bench.hold_for("10")
    assert bench.partition.desk.release(hold)
    assert not bench.partition.desk.release(hold)
    assert bench.wallet() == (10 * DOLLAR, 0)


def test_usage_that_comes_behind_a_release_is_rated_all_the_same() -> None:
    """Settling is never refused."""
    bench = DeskBench()
    bench.open()
    hold = bench.hold_for("0")
    bench.partition.desk.release(hold)
    assert bench.spend_held(hold, 2) == "rated"
    assert bench.debt() == 2 * DOLLAR


def test_an_expired_hold_is_kept_until_both_clocks_have_passed_what_may_still_be_reported() -> None:
    """An expired hold is reclaimed only when the log has been consumed past expires_at + report_delay."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    hold = bench.hold_for("10")
    desk = bench.partition.desk
    assert hold.valid_until_us == bench.now + MINUTE
    assert hold.expires_us == hold.valid_until_us + 5 * SECOND
    assert hold.report_until_us == hold.expires_us + desk.report_delay_us
    late = hold.report_until_us + 2 * SECOND
    assert desk.reclaim(hold.report_until_us, late) == 0
    assert desk.reclaim(late, hold.report_until_us) == 0
    assert desk.next_reclaim_us() == hold.report_until_us // SECOND * SECOND + SECOND
    assert (desk.reclaim(late, late), desk.open_holds, desk.next_reclaim_us()) == (1, 0, None)
    assert bench.wallet() == (10 * DOLLAR, 0)


def test_an_extension_adds_to_the_hold_and_keeps_its_instant_and_id() -> None:
    """An extension is a new admission for the added quantity."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    hold = bench.hold_for("4")
    bench.now += 30 * SECOND
    decision = bench.more(hold, bench.bounds("6"))
    longer = decision.hold
    assert longer is not None
    assert (longer.id, longer.admitted_us, longer.held()) == (hold.id, hold.admitted_us, {"x": 10 * NANO})
    assert longer.valid_until_us == hold.valid_until_us + 30 * SECOND
    assert decision.price == 6 * DOLLAR
    assert bench.more(hold, bench.bounds("1")).reason is Reason.CREDIT_DEPLETED
    bench.spend_held(longer, 10)
    assert (bench.wallet(), bench.partition.desk.open_holds) == ((0, 0), 0)


def test_an_extension_of_time_alone_needs_no_credit_and_is_never_shorter() -> None:
    """Before valid_until the holder extends or stops; time alone adds no quantity."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    hold = bench.hold_for("10")
    longer = bench.more(hold, hold_us=10 * MINUTE).hold
    assert longer is not None
    assert longer.valid_until_us == bench.now + 10 * MINUTE
    again = bench.more(hold, hold_us=SECOND).hold
    assert again is not None
    assert again.valid_until_us == longer.valid_until_us
    late = hold.report_until_us + 2 * SECOND
    assert bench.partition.desk.reclaim(late, late) == 0


def test_a_boundary_ends_what_can_be_extended() -> None:
    """A hold is rated at its one admission instant, so its quantity grows only in that segment."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    bench.grant("promo", "5", "promo", effective_us=bench.now + 30 * SECOND)
    hold = bench.hold_for("4")
    bench.wait(30 * SECOND)
    assert bench.more(hold).reason is Reason.BOUNDARY_PASSED


def test_a_hold_that_is_not_open_here_cannot_be_extended() -> None:
    """A hold is never silently made again."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    settled, expired, strange = bench.hold_for("1"), bench.hold_for("1"), bench.hold_for("1")
    bench.spend_held(settled, 1)
    assert bench.more(settled).reason is Reason.HOLD_NOT_OPEN
    bench.now = expired.expires_us
    assert bench.more(expired).reason is Reason.HOLD_NOT_OPEN
    bench.take_over()
    bench.now -= MINUTE
    assert bench.more(strange).reason is Reason.HOLD_NOT_OPEN


def test_late_usage_is_covered_until_its_hold_is_reclaimed() -> None:
    """Usage reported within the report delay is covered, though it is late."""
    bench = DeskBench()
    bench.open()
    bench.grant("l", "10")
    hold = bench.hold_for("10")
    bench.wait(hold.expires_us - bench.now + 30 * SECOND)
    assert bench.refused() is Reason.CREDIT_DEPLETED
    bench.spend_held(hold, 10)
    assert (bench.wallet(), bench.debt()) == ((0, 0), 0)


@given(st.integers(0, 10**9))
@settings(max_examples=30)
def test_open_holds_never_exceed_the_slice_in_the_log(seed: int) -> None:
    """Whatever was asked for, given back and grown in between."""
    source = random.Random(seed)
    bench = DeskBench()
    bench.open()
    bench.grant("l", "1000")
    holds = []
    for _ in range(60):
        if source.random() < 0.5:
            holds.append(bench.hold_for(str(source.randrange(1, 15))))
        elif holds and source.random() < 0.7:
            bench.spend_held(holds.pop(source.randrange(len(holds))), 0)
        else:
            bench.wait(source.choice([SECOND, 40 * SECOND]))
            bench.settle_wishes()
        holds = [hold for hold in holds if hold.report_until_us >= bench.now]  # what may be reclaimed is no longer held
        slice_ = bench.account().slices.get(bench.epoch)
        held = sum(hold.held()["x"] for hold in holds)
        assert held <= (slice_.quantities.get("x", 0) if slice_ else 0)
