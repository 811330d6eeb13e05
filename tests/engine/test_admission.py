"""The desk's own memory: slices, numbers, windows, what is forgotten and when. Its laws stand in tests/laws."""

from engine.admission import (
    GIVE_BACK_US,
    LEDGERS_IDLE_MAX,
    SHAPES_MAX,
    Decision,
    FieldBound,
    Question,
    SliceNeeded,
)
from engine.catalog import CatalogueDocument, MeterDefinition, PlanDefinition
from engine.events import TOKEN_TEXT_MAX
from engine.holds import seal_token
from engine.money import NANO
from engine.reasons import Reason
from tests.engine.bench import DOLLAR, HOUR, KEY, MINUTE, SECOND, document, per_unit
from tests.engine.desk_bench import DeskBench


def opened(dollars: str = "1000", account: str = "acme") -> DeskBench:
    bench = DeskBench()
    bench.open(account)
    bench.grant("l", dollars, account=account)
    return bench


def question(units: int, account: str = "acme", **more: object) -> Question:
    fields: dict[str, object] = {
        "type": "use",
        "data": {"model": "x"},
        "bounds": (FieldBound(("units",), units * NANO),),
        "hold_us": MINUTE,
    }
    return Question(account, **(fields | more))  # type: ignore[arg-type]


def needed(bench: DeskBench, units: int) -> SliceNeeded:
    answer = bench.partition.check(question(units), bench.now)
    assert isinstance(answer, SliceNeeded)
    return answer


# -------------------------------------------------------------------------------------------------------------- slices


def test_the_first_hold_needs_a_slice_and_reserves_nothing_before_it_is_in_the_log() -> None:
    bench = opened()
    first = needed(bench, 10)
    assert first.account == "acme"
    assert first.quantities["x"] >= 20 * NANO
    assert (bench.partition.desk.open_holds, bench.wallet()) == (0, (1000 * DOLLAR, 0))
    bench.write(first)
    decision = bench.partition.check(question(10), bench.now)
    assert isinstance(decision, Decision)
    assert decision.hold is not None
    assert decision.hold.number == 1
    assert bench.partition.check(question(10), bench.now).hold.number == 2  # type: ignore[union-attr]


def test_whoever_waits_for_a_slice_that_will_do_is_told_of_the_same_one() -> None:
    bench = opened()
    assert [needed(bench, 10) for _ in range(2)][1] == needed(bench, 10)


def test_more_callers_than_a_slice_will_do_for_ask_for_a_larger_one() -> None:
    bench = opened("100000")
    asked = [needed(bench, 10) for _ in range(20)]
    sizes = [each.quantities["x"] for each in asked]
    assert sizes == sorted(sizes)
    assert sizes[-1] >= 200 * NANO
    assert len(set(sizes)) < 6


def test_near_an_empty_wallet_a_slice_is_no_larger_than_its_need() -> None:
    bench = opened("10")
    assert needed(bench, 10).quantities == {"x": 10 * NANO}
    bench = opened("100")
    assert needed(bench, 10).quantities["x"] <= (10 + 90 // 8 + 1) * NANO


def test_a_hold_without_quantity_needs_no_slice() -> None:
    bench = opened()
    assert isinstance(bench.partition.check(question(0), bench.now), Decision)


def test_a_hold_of_nothing_of_one_price_is_held_beside_what_it_holds_of_another() -> None:
    """A slice names no price that it has nothing of: a record that did would be turned away, and its caller would wait."""
    meters = {name: MeterDefinition("use", "sum", name, ("model",)) for name in ("units", "words")}
    prices = {name: per_unit("1", meter=name) for name in meters}
    bench = DeskBench(CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}))
    bench.open()
    bench.grant("l", "1000")
    bounds = (FieldBound(("units",), 10 * NANO), FieldBound(("words",), 0))
    asked = question(0, bounds=bounds)
    first = bench.partition.check(asked, bench.now)
    assert isinstance(first, SliceNeeded)
    assert set(first.quantities) == {"units"}
    for _ in range(3):
        assert bench.ask(asked).hold is not None
    assert bench.wallet() == (1000 * DOLLAR, 30 * DOLLAR)
    assert all(all(wish.values()) for _, wish in bench.settle_wishes())


def test_a_slice_asked_for_later_replaces_none_before_it_is_read() -> None:
    """What was given back is not used any more, although the log does not say so yet."""
    bench = opened()
    bench.partition.desk.release(bench.hold_for("10"))
    bench.wait(GIVE_BACK_US)
    (given_back,) = bench.partition.desk.slices_wished(bench.now)
    assert given_back.quantities == {}
    again = needed(bench, 10)
    assert again.quantities["x"] >= 10 * NANO
    bench.write(given_back)
    assert isinstance(bench.partition.check(question(10), bench.now), SliceNeeded)
    bench.write(again)
    assert isinstance(bench.partition.check(question(10), bench.now), Decision)


def test_a_slice_like_one_that_was_given_back_is_not_taken_for_it() -> None:
    bench = opened("10")
    bench.partition.desk.release(bench.hold_for("10"))
    bench.wait(GIVE_BACK_US)
    (given_back,) = bench.partition.desk.slices_wished(bench.now)
    again = needed(bench, 10)
    assert again.quantities != bench.account().slices[1].quantities
    assert isinstance(bench.partition.check(question(10), bench.now), SliceNeeded)
    bench.write(given_back)
    bench.write(again)
    assert isinstance(bench.partition.check(question(10), bench.now), Decision)


def test_a_slice_that_never_reached_the_log_is_asked_for_again() -> None:
    bench = opened()
    lost = needed(bench, 10)
    assert needed(bench, 10) == lost
    bench.write(lost)
    assert isinstance(bench.partition.check(question(10), bench.now), Decision)


def test_an_unused_slice_goes_back_once() -> None:
    bench = opened()
    hold = bench.hold_for("10")
    bench.wait(GIVE_BACK_US)
    assert bench.settle_wishes() == []
    bench.spend_held(hold, 1)
    bench.wait(GIVE_BACK_US - 1)
    assert bench.settle_wishes() == []
    bench.wait(1)
    assert bench.settle_wishes() == [("acme", {})]
    assert bench.account().slices == {}
    assert bench.settle_wishes() == []


def test_a_slice_that_nobody_came_back_for_goes_back_too() -> None:
    bench = opened()
    bench.write(needed(bench, 10))
    bench.wait(GIVE_BACK_US)
    assert bench.settle_wishes() == [("acme", {})]


def test_a_slice_that_is_nearly_used_up_is_refilled_before_anybody_waits() -> None:
    bench = opened()
    bench.hold_for("10")
    size = bench.account().slices[1].quantities["x"]
    assert bench.settle_wishes() == []
    bench.hold_for(str((size * 3 // 4 - 10 * NANO) // NANO + 1))
    ((_, wish),) = bench.settle_wishes()
    assert wish["x"] > size
    assert bench.settle_wishes() == []
    written = bench.slices_written
    bench.hold_for("10")
    assert bench.slices_written == written


def test_a_refill_that_credit_does_not_allow_is_not_written() -> None:
    bench = opened("10")
    bench.hold_for("10")
    assert bench.settle_wishes() == []


def test_an_extension_needs_its_slice_as_well() -> None:
    bench = opened("10")
    hold = bench.hold_for("4")
    answer = bench.partition.extend(hold, bench.bounds("6"), MINUTE, bench.now)
    assert isinstance(answer, SliceNeeded)
    assert answer.quantities["x"] >= 10 * NANO
    assert bench.wallet() == (10 * DOLLAR, 4 * DOLLAR)


# ------------------------------------------------------------------------------------------------------- open holds


def test_a_hold_says_what_it_reserves_and_under_which_version() -> None:
    bench = opened()
    decision = bench.check("2.5", n=3)
    hold = decision.hold
    assert hold is not None
    assert (hold.account, hold.epoch, hold.version, hold.admitted_us) == ("acme", 1, 1, bench.now)
    assert hold.held() == {"x": 7_500_000_000}
    assert decision.price == 75 * DOLLAR // 10


def test_a_new_owner_starts_with_an_empty_desk_and_its_own_numbers() -> None:
    bench = opened()
    old = bench.hold_for("1")
    bench.take_over()
    desk = bench.partition.desk
    assert (desk.epoch, desk.open_holds, desk.next_reclaim_us()) == (2, 0, None)
    new = bench.hold_for("1")
    assert (old.id, new.id) == ("0.1.1", "0.2.1")
    assert not desk.release(old)
    bench.spend_held(old, 1)
    assert desk.open_holds == 1


def test_holds_move_with_the_boundaries_that_a_grant_adds() -> None:
    """A promotion that begins before the hold was admitted pays for it, and so takes nothing from the other lot."""
    bench = opened("10")
    bench.wait(MINUTE)
    hold = bench.hold_for("10")
    bench.grant("promo", "10", "promo", priority=1, effective_us=bench.now - SECOND)
    other = bench.hold_for("10")
    assert bench.refused() is Reason.CREDIT_DEPLETED
    bench.spend_held(hold, 10)
    bench.spend_held(other, 10)
    assert bench.debt() == 0


def test_holds_with_nothing_left_are_settled_like_others() -> None:
    bench = opened()
    holds = [bench.hold_for("0"), bench.hold_for("0"), bench.hold_for("1")]
    for hold in holds:
        bench.spend_held(hold, 0)
    assert (bench.partition.desk.open_holds, bench.wallet()) == (0, (1000 * DOLLAR, 0))


def test_what_a_bound_draws_is_the_sum_over_the_prices_it_reaches() -> None:
    bench = opened("10")
    hold = bench.hold_for("10", data={}, reach={"model": ("x", "y")})
    bench.spend_held(hold, 3, "y", final=False)
    bench.spend_held(hold, 3, "x", final=False)
    assert bench.wallet() == (4 * DOLLAR, 4 * DOLLAR)


def test_a_hold_whose_token_no_event_could_carry_is_refused() -> None:
    names = [f"{number:03d}-{'n' * 60}" for number in range(100)]
    meters = {"units": MeterDefinition("use", "sum", "units", ("model",))}
    prices = {name: per_unit("1", model=name) for name in names}
    bench = DeskBench(CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}))
    bench.open()
    bench.grant("l", "1000")
    admitted = 0
    for count in (1, 10, 20, 30, 40, 50, 100):
        decision = bench.check("1", data={}, reach={"model": tuple(names[:count])})
        if decision.hold is None:
            assert decision.reason is Reason.UNBOUNDED
            break
        admitted = count
        assert len(seal_token(KEY, decision.hold)) <= TOKEN_TEXT_MAX
    assert admitted >= 20
    assert bench.check("1", data={}, reach={"model": tuple(names)}, hold_us=None).reason is None


# ------------------------------------------------------------------------------------------------- what is forgotten


def test_nothing_is_left_of_an_account_that_nobody_asks_about_any_more() -> None:
    bench = opened()
    desk = bench.partition.desk
    bench.spend_held(bench.hold_for("1"), 1)
    bench.wait(GIVE_BACK_US)
    bench.settle_wishes()
    for number in range(LEDGERS_IDLE_MAX + 10):
        account = bench.account()
        account.account = f"other-{number}"
        desk.check(account, bench.partition._book, Question(account.account), bench.now)
        account.account = "acme"
    assert "acme" not in desk._tills
    assert len(desk._tills) <= LEDGERS_IDLE_MAX


def test_an_account_with_holds_a_slice_or_admissions_is_not_forgotten() -> None:
    bench = opened()
    bench.command("set_rate_limit", limit="one", per_minute=1)
    desk = bench.partition.desk
    bench.hold_for("1")
    account = bench.account()
    for number in range(LEDGERS_IDLE_MAX + 10):
        account.account = f"other-{number}"
        desk.check(account, bench.partition._book, Question(account.account), bench.now)
    account.account = "acme"
    assert "acme" in desk._tills
    assert bench.refused() is Reason.RATE_LIMITED


def test_settled_holds_leave_nothing_due() -> None:
    bench = opened()
    desk = bench.partition.desk
    for _ in range(50):
        bench.spend_held(bench.hold_for("1"), 1)
        bench.now += SECOND
    assert (desk._due, desk._open) == ({}, {})
    assert desk.next_reclaim_us() is None
    assert desk._due_seconds == []


def test_questions_are_remembered_by_what_matters_of_them_and_not_for_ever() -> None:
    bench = opened()
    desk = bench.partition.desk
    for number in range(50):
        bench.check("1", data={"model": "x", "request": str(number)}, hold_us=None)
    assert len(desk._shapes) == 1
    for number in range(SHAPES_MAX):
        bench.check("1", data={"model": f"unheard-{number}"}, hold_us=None)
    assert len(desk._shapes) <= SHAPES_MAX


def test_a_new_version_is_priced_anew() -> None:
    bench = DeskBench(document(), document(x=per_unit("5", model="x")))
    bench.open()
    bench.grant("l", "1000")
    assert bench.check("1").price == DOLLAR
    bench.publish(2, bench.now + HOUR)
    bench.wait(HOUR)
    decision = bench.check("1")
    assert (decision.price, decision.version) == (5 * DOLLAR, 2)


def test_an_account_that_is_not_open_has_no_wallet() -> None:
    bench = opened()
    decision = bench.ask(question(1, "nobody"))
    assert decision == Decision(Reason.UNKNOWN_ACCOUNT, None, None, 0, None, None, None, None)
    assert bench.partition.wallet("nobody", bench.now) is None


def test_a_quantity_that_no_slice_can_say_is_refused() -> None:
    bench = DeskBench(document(x=per_unit("0", model="x")))
    bench.open()
    assert bench.check(str(10**18 - 1)).reason is None
    assert bench.check(str(10**18 - 1)).reason is Reason.TOO_MANY_HOLDS


def test_beside_what_a_later_lot_need_not_settle_nothing_remains() -> None:
    """Usage that nobody held has taken from the lot that open holds stand on; a gift that came since pays none of that debt."""
    bench = opened("10")
    bench.hold_for("10")
    bench.use(5)
    bench.wait()
    bench.grant("gift", "6", kind="promo", effective_us=bench.now)
    bench.wait()
    denied = bench.check("1")
    assert denied.reason is Reason.CREDIT_DEPLETED
    assert denied.binding is not None and denied.binding.remaining == 0
