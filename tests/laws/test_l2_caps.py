"""Law L2: caps and rates bind checks, on the whole path at once; spend caps count rated + held."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.admission import Decision
from engine.catalog import PriceDefinition
from engine.holds import seal_token
from engine.money import NANO
from engine.reasons import Binding, Reason
from tests.engine.bench import DAY, DOLLAR, HOUR, KEY, MINUTE, SECOND, document, graduated, per_unit, us
from tests.engine.desk_bench import LINGER, DeskBench

MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")


def opened(*scopes: str) -> DeskBench:
    bench = DeskBench()
    bench.open()
    bench.grant("l", "1000")
    for scope in scopes:
        bench.scope(scope)
    return bench


def binding(decision: Decision) -> tuple[str, str, str, int | None]:
    assert decision.binding is not None
    return decision.binding.kind, decision.binding.scope, decision.binding.name, decision.binding.remaining


def test_a_hard_cap_counts_what_is_rated_and_what_is_held() -> None:
    """Spend caps count rated + held."""
    bench = opened()
    bench.cap("10")
    bench.use(4)
    bench.hold_for("5")
    decision = bench.check("2")
    assert decision.reason is Reason.CAP_REACHED
    assert binding(decision) == ("cap", "", "monthly", DOLLAR)
    assert decision.retry_after_us == APRIL - bench.now
    assert bench.refused("1") is None


def test_of_a_thousand_requests_at_the_edge_of_a_cap_those_run_that_fit() -> None:
    """All of them ask before the first is settled; some use less than they held, and one more fits for each dollar left."""
    bench = opened()
    bench.cap("100")
    asked = [bench.check("1") for _ in range(1_000)]
    held = [decision.hold for decision in asked if decision.hold is not None]
    refused = [decision for decision in asked if decision.hold is None]
    assert len(held) == 100
    assert {(decision.reason, *binding(decision)) for decision in refused} == {
        (Reason.CAP_REACHED, "cap", "", "monthly", 0)
    }
    for number, hold in enumerate(held):
        assert bench.use(0 if number < 10 else 1, hold=seal_token(KEY, hold)) == "rated"
    assert sum(bench.check("1").hold is not None for _ in range(1_000)) == 10
    assert sum(bench.charges()) == 90 * DOLLAR


def test_a_soft_cap_denies_nothing() -> None:
    """Caps are hard or soft; only hard ones bind checks."""
    bench = opened()
    bench.cap("1", hard=False)
    assert binding(bench.check("100")) == ("wallet", "", "", 900 * DOLLAR)


def test_a_cap_is_free_again_when_the_month_ends() -> None:
    """A calendar window ends with its month, and the reply says when it frees."""
    bench = opened()
    bench.cap("10")
    bench.use(10)
    bench.now = APRIL - SECOND
    assert bench.refused() is Reason.CAP_REACHED
    bench.now = APRIL
    assert bench.refused("10") is None


def test_what_was_held_before_the_month_ended_counts_in_its_own_month() -> None:
    """A held event belongs to the month of its admission."""
    bench = opened()
    bench.cap("10")
    bench.now = APRIL - SECOND
    old = bench.hold_for("10")
    bench.now = APRIL
    assert bench.refused("10") is None
    bench.spend_held(old, 10)
    assert bench.account().derive().spend == {us("2026-03-01T00:00:00+00:00"): 10 * DOLLAR}


def test_one_check_tests_the_whole_path_and_a_hold_covers_all_of_it_or_none() -> None:
    """One check tests the whole path atomically."""
    bench = opened("red", "red/ann", "blue")
    bench.cap("10", "team", scope="red")
    bench.cap("3", "ann", scope="red/ann")
    bench.cap("50", "all")
    refused = bench.check("4", scope="red/ann")
    assert (refused.reason, binding(refused)) == (Reason.CAP_REACHED, ("cap", "red/ann", "ann", 3 * DOLLAR))
    assert bench.partition.desk.open_holds == 0
    assert bench.wallet() == (1000 * DOLLAR, 0)
    assert binding(bench.check("2", scope="red/ann")) == ("cap", "red/ann", "ann", DOLLAR)
    assert binding(bench.check("7", scope="red")) == ("cap", "red", "team", DOLLAR)
    assert bench.refused("1", scope="red/ann") is None
    assert bench.refused("1", scope="red") is Reason.CAP_REACHED
    assert binding(bench.check("1", scope="blue")) == ("cap", "", "all", 39 * DOLLAR)


def test_a_cap_of_a_scope_counts_its_spend_and_what_lies_below() -> None:
    """Caps stand on the account and on any scope path inside it."""
    bench = opened("red", "red/ann")
    bench.cap("10", "team", scope="red")
    bench.use(6, scope="red/ann")
    bench.use(100)
    assert bench.refused("5", scope="red") is Reason.CAP_REACHED
    hold = bench.hold_for("4", scope="red/ann")
    bench.spend_held(hold, 4)
    assert bench.refused("1", scope="red") is Reason.CAP_REACHED
    assert bench.account().scopes["red"].spend == {us("2026-03-01T00:00:00+00:00"): 10 * DOLLAR}


def test_a_cap_of_a_scope_is_kept_wherever_others_push_its_charges() -> None:
    """First 10 free, then $1. The scope may be charged for 10 units, if another uses what is free first."""
    bench = DeskBench(document(x=graduated(("10", "0"), (None, "1"), model="x")))
    bench.open()
    bench.grant("l", "1000")
    bench.scope("red")
    bench.cap("5", "team", scope="red")
    assert bench.refused("6", scope="red") is Reason.CAP_REACHED
    red = bench.hold_for("5", scope="red")
    other = bench.hold_for("10")
    bench.spend_held(other, 10)
    bench.spend_held(red, 5)
    assert list(bench.account().scopes["red"].spend.values()) == [5 * DOLLAR]


def test_what_is_released_or_used_less_is_free_for_the_cap_again() -> None:
    """Held money counts only while it is held."""
    bench = opened("red")
    bench.cap("10", "team", scope="red")
    first, second = bench.hold_for("6", scope="red"), bench.hold_for("4", scope="red")
    bench.partition.desk.release(first)
    assert bench.refused("7", scope="red") is Reason.CAP_REACHED
    bench.spend_held(second, 1)
    assert bench.refused("9", scope="red") is None


def test_a_cap_lowered_below_the_spend_denies_even_what_is_free() -> None:
    """A cap binds by spend + held, not by what a request would add."""
    bench = DeskBench(document(x=graduated(("10", "1"), (None, "0"), model="x")))
    bench.open()
    bench.grant("l", "1000")
    bench.use(10)
    bench.cap("10")
    assert bench.refused("5") is None
    bench.cap("9")
    assert bench.refused("5") is Reason.CAP_REACHED


# ------------------------------------------------------------------------------------------------------------- windows


def test_caps_stand_side_by_side_and_the_answer_names_the_one_that_binds() -> None:
    """1M per 5 h and 5M per week: parallel windows, and the reply says which binds, what remains, and when it frees."""
    bench = opened()
    bench.cap("10", "five hours", window="first_use", length_s=18_000)
    bench.cap("12", "week", window="week")
    bench.use(9)
    decision = bench.check("2")
    assert (decision.reason, binding(decision)) == (Reason.CAP_REACHED, ("cap", "", "five hours", DOLLAR))
    assert decision.retry_after_us == 5 * HOUR
    bench.tick(bench.now + 5 * HOUR)
    decision = bench.check("4")
    assert (decision.reason, binding(decision)) == (Reason.CAP_REACHED, ("cap", "", "week", 3 * DOLLAR))
    assert decision.retry_after_us == us("2026-03-16T00:00:00+00:00") - bench.now
    assert bench.refused("3") is None


def test_a_rolling_cap_says_when_enough_of_it_is_gone() -> None:
    """Rolling: 60 fixed buckets, the oldest counts until fully gone."""
    bench = opened()
    bench.cap("10", "rolling", window="rolling", length_s=3_600)
    bench.use(4)
    bench.tick(bench.now + 10 * MINUTE)
    bench.use(6)
    assert bench.check("4").retry_after_us == 51 * MINUTE
    assert bench.check("5").retry_after_us == 61 * MINUTE
    assert bench.check("11").retry_after_us is None
    bench.tick(bench.now + 51 * MINUTE - 1000)
    assert bench.refused("4") is Reason.CAP_REACHED
    bench.tick(bench.now + 1000)
    assert bench.refused("4") is None


def test_what_is_held_counts_in_the_window_of_the_moment_until_it_is_settled() -> None:
    """Spend + held never passes a cap, also where a window ends between admission and settlement."""
    bench = opened()
    bench.cap("10", "hourly", window="hour")
    bench.now += 59 * MINUTE + 30 * SECOND
    hold = bench.hold_for("8")
    bench.now += MINUTE
    assert bench.refused("3") is Reason.CAP_REACHED
    bench.spend_held(hold, 8)
    assert bench.refused("10") is None


def test_a_cap_on_units_counts_units_whatever_they_cost() -> None:
    """Money or quantity: units of a meter, or of one price of it."""
    bench = opened("red")
    bench.cap("10", "units", currency=None, meter="units", window="day")
    bench.cap("4", "y", currency=None, price="y", scope="red", window="day")
    bench.use(3, "third", scope="red")
    hold = bench.hold_for("4", "y", scope="red")
    assert binding(bench.check("1", "y", scope="red")) == ("cap", "red", "y", 0)
    decision = bench.check("4")
    assert decision.binding is not None
    assert (decision.reason, decision.binding.unit) == (Reason.CAP_REACHED, "units")
    assert binding(decision) == ("cap", "", "units", 3 * NANO)
    bench.spend_held(hold, 1, "y")
    assert bench.refused("3", "y", scope="red") is None
    assert bench.check("4", "x").binding == Binding("cap", "", "units", 3 * NANO, DAY - 12 * HOUR, "units")


def test_a_cap_on_units_binds_a_request_that_may_reach_them() -> None:
    """A bound counts in full wherever it may be used."""
    bench = opened()
    bench.cap("4", "x", currency=None, price="x")
    reach: dict[str, Any] = {"data": {}, "reach": {"model": ("x", "y")}}
    assert bench.refused("5", **reach) is Reason.CAP_REACHED
    assert bench.refused("4", **reach) is None
    assert bench.refused("5", "y") is None


def test_after_a_crash_a_slice_counts_in_every_cap_of_its_units() -> None:
    """Held usage of an owner that died never passes a cap on units."""
    bench = opened("red")
    bench.cap("10", "units", currency=None, meter="units", scope="red", window="first_use", length_s=3_600)
    hold = bench.hold_for("9", scope="red")
    bench.take_over()
    assert bench.refused("2", scope="red") is Reason.WITHHELD
    bench.spend_held(hold, 9)
    assert bench.refused("2", scope="red") is Reason.CAP_REACHED
    bench.wait(LINGER)  # the slice was a little larger than the hold
    assert bench.refused("1", scope="red") is None


# --------------------------------------------------------------------------------------------------------------- rates


def limited(per_minute: int, scope: str = "") -> DeskBench:
    bench = opened("red")
    bench.command("set_rate_limit", limit="calls", scope=scope, per_minute=per_minute)
    return bench


def test_a_rate_limit_counts_admissions_and_says_when_the_next_one_fits() -> None:
    """Rate limits count admissions; the reply says when it frees."""
    bench = limited(2)
    bench.now += 700_000
    bench.check("1")
    bench.now += 30 * SECOND
    bench.check("1", hold_us=None)
    decision = bench.check("1")
    assert (decision.reason, binding(decision)) == (Reason.RATE_LIMITED, ("rate", "", "calls", 0))
    # The first second counts until all of it is a minute ago.
    assert decision.retry_after_us == 30 * SECOND + 300_000
    bench.now += 30 * SECOND + 299_999
    assert bench.refused() is Reason.RATE_LIMITED
    bench.now += 1
    assert bench.refused() is None
    assert bench.refused() is Reason.RATE_LIMITED


def test_what_is_refused_is_not_counted() -> None:
    """Only admissions count toward a rate limit."""
    bench = limited(1)
    assert [bench.refused("2000") for _ in range(3)] == [Reason.CREDIT_DEPLETED] * 3
    assert bench.refused("1") is None


def test_a_rate_limit_of_a_scope_binds_what_lies_below_and_nothing_else() -> None:
    """A rate limit binds its scope path alone."""
    bench = limited(1, "red")
    assert bench.refused("1", scope="red") is None
    assert bench.refused("1", scope="red") is Reason.RATE_LIMITED
    assert bench.refused("1") is None


def test_a_rate_limit_that_is_gone_binds_nothing() -> None:
    """Limits bind checks for as long as they are set."""
    bench = limited(1)
    bench.check("1")
    bench.command("set_rate_limit", limit="calls", per_minute=0)
    assert bench.refused() is None


@given(st.lists(st.integers(0, 20 * SECOND), min_size=1, max_size=60), st.integers(1, 5))
def test_no_minute_ever_has_more_admissions_than_the_limit(steps: list[int], per_minute: int) -> None:
    """Sixty fixed buckets, the oldest counting until fully gone: never laxer than exact."""
    bench = limited(per_minute)
    admitted = []
    for step in steps:
        bench.now += step
        decision = bench.check(type=None, data={}, hold_us=None)
        if decision.reason is None:
            admitted.append(bench.now)
        else:
            assert decision.retry_after_us
            bench.now += decision.retry_after_us
            assert bench.check(type=None, data={}, hold_us=None).reason is None
            admitted.append(bench.now)
        assert sum(instant > bench.now - 60 * SECOND for instant in admitted) <= per_minute


def test_a_rate_limit_of_a_meter_counts_the_quantity_that_is_admitted() -> None:
    """Tokens a minute beside requests a minute: the stricter one tells."""
    bench = limited(5)
    assert bench.command("set_rate_limit", limit="units", per_minute=10, meter="units") == "applied"
    bench.check("6")
    decision = bench.check("5")
    assert (decision.reason, binding(decision)) == (Reason.RATE_LIMITED, ("rate", "", "units", 4 * NANO))
    assert decision.binding is not None and decision.binding.unit == "units"
    assert decision.retry_after_us == 61 * SECOND
    assert bench.refused("4") is None
    assert bench.refused("0.000000001") is Reason.RATE_LIMITED
    bench.now += 61 * SECOND
    assert bench.refused("10") is None


def test_a_request_above_a_minutes_quantity_will_never_fit_and_says_no_time() -> None:
    """What frees is told only if it does."""
    bench = limited(5)
    bench.command("set_rate_limit", limit="units", per_minute=10, meter="units")
    decision = bench.check("11")
    assert (decision.reason, decision.retry_after_us) == (Reason.RATE_LIMITED, None)


def test_an_extension_counts_its_quantity_but_is_no_admission() -> None:
    """An extension is a new admission of the added quantity into the same request."""
    bench = limited(1)
    bench.command("set_rate_limit", limit="units", per_minute=10, meter="units")
    hold = bench.hold_for("6")
    assert bench.more(hold, bench.bounds("5")).reason is Reason.RATE_LIMITED
    assert bench.more(hold, bench.bounds("4")).reason is None
    assert bench.more(hold, bench.bounds("1")).reason is Reason.RATE_LIMITED


@given(
    st.lists(st.tuples(st.integers(0, 20 * SECOND), st.integers(0, 12)), min_size=1, max_size=40), st.integers(1, 10)
)
def test_no_minute_ever_has_more_units_than_the_limit(steps: list[tuple[int, int]], per_minute: int) -> None:
    """Admitted quantity in any 60 seconds never passes the limit; who waits as told is let in."""
    bench = limited(1_000_000)
    bench.command("set_rate_limit", limit="units", per_minute=per_minute, meter="units")
    admitted: list[tuple[int, int]] = []
    for step, units in steps:
        bench.now += step
        decision = bench.check(str(units), hold_us=None)
        if decision.reason is not None and decision.retry_after_us is not None:
            bench.now += decision.retry_after_us
            decision = bench.check(str(units), hold_us=None)
            assert decision.reason is None
        assert (decision.reason is None) == (units <= per_minute)
        if decision.reason is None:
            admitted.append((bench.now, units))
        assert sum(each for instant, each in admitted if instant > bench.now - 60 * SECOND) <= per_minute


# ------------------------------------------------------------------------------------------------------------ ceilings


def test_a_ceiling_binds_each_request_by_itself() -> None:
    """In money and in units, on the account and on a scope; nothing counts in it."""
    bench = opened("red")
    bench.cap("5", "each", window="request")
    bench.cap("3", "each-red", currency=None, meter="units", window="request", scope="red")
    for _ in range(3):
        assert bench.refused("5") is None
    decision = bench.check("5.000000001")
    assert (decision.reason, binding(decision)) == (Reason.OVER_CEILING, ("cap", "", "each", 5 * DOLLAR))
    assert decision.retry_after_us is None
    decision = bench.check("4", scope="red")
    assert (decision.reason, binding(decision)) == (Reason.OVER_CEILING, ("cap", "red", "each-red", 3 * NANO))
    assert bench.refused("3", scope="red") is None
    assert bench.use(50) == "rated"
    bench.command("remove_cap", cap="each")
    assert bench.refused("6") is None


def test_a_request_does_not_grow_through_its_ceiling_by_extensions() -> None:
    """The whole hold is held against it, in units and in money."""
    bench = opened()
    bench.cap("5", "each", window="request")
    hold = bench.hold_for("4")
    assert bench.more(hold, bench.bounds("1.000000001")).reason is Reason.OVER_CEILING
    assert bench.more(hold, bench.bounds("1")).reason is None
    bench.cap("6", "each", currency=None, price="x", window="request")
    grown = bench.more(hold, bench.bounds("1"))
    assert grown.reason is None and grown.hold is not None
    assert bench.more(grown.hold, bench.bounds("0.000000001")).reason is Reason.OVER_CEILING


def test_a_ceiling_of_many_requests_asked_at_once_is_theirs_on_average() -> None:
    """`n` requests are bounded together."""
    bench = opened()
    bench.cap("5", "each", window="request")
    assert bench.refused("2", n=3) is None
    assert bench.refused("5", n=3) is None
    assert bench.refused("5.1", n=3) is Reason.OVER_CEILING


def test_a_ceiling_is_hard_and_no_rule_looks_at_it() -> None:
    """What nothing counts in has nothing to tell of."""
    bench = opened()
    assert bench.cap("5", "each", window="request", hard=False) == "refused.bad_cap"
    assert bench.cap("5", "each", window="request", length_s=60) == "refused.bad_cap"
    bench.cap("5", "each", window="request")
    assert bench.cap_rule(80, cap="each") == "refused.bad_rule"
    bench.cap("5", "monthly")
    bench.cap_rule(80)
    assert bench.cap("5", "monthly", window="request") == "refused.cap_in_use"
    assert bench.rule("r", "spend", threshold="5", window="request") == "refused.bad_rule"


def discounted() -> DeskBench:
    """x costs $10; y $15, less 50 %."""
    half = PriceDefinition("units", "per_unit", {"model": "y"}, amount="15", discount="50")
    bench = DeskBench(document(x=per_unit("10", model="x"), y=half))
    bench.open()
    bench.grant("l", "1000")
    return bench


def test_a_cap_on_list_prices_counts_before_discounts() -> None:
    """Money is after discount unless `basis` says list: rated and held."""
    bench = discounted()
    bench.cap("60", basis="list")
    bench.use(2, "y")
    bench.hold_for("1", "y")
    decision = bench.check("1.1", "y")
    assert decision.reason is Reason.CAP_REACHED
    assert binding(decision) == ("cap", "", "monthly", 15 * DOLLAR)
    assert bench.refused("1", "y") is None
    assert bench.balance() == 985 * DOLLAR


def test_what_is_held_may_be_dearest_at_list_prices_by_another_price_than_it_is_held_on() -> None:
    """A hold that may be used as x or y is held as x, the dearer one; before discounts that is y."""
    bench = discounted()
    bench.cap("14", basis="list")
    either: dict[str, Any] = {"data": {}, "reach": {"model": ("x", "y")}}
    assert bench.refused("1", **either) is Reason.CAP_REACHED
    bench.cap("15", basis="list")
    assert bench.refused("1", **either) is None


def test_a_cap_on_what_is_due_counts_what_credit_does_not_pay() -> None:
    """Due is after credits: usage, and what is held, beyond all lots; a payment that settles it later frees nothing."""
    bench = discounted()
    bench.command("set_overdraft", amount=None, currency="USD")
    bench.cap("30", basis="due")
    bench.use(100)
    bench.use(1)
    bench.hold_for("1")
    assert bench.refused("2") is Reason.CAP_REACHED
    assert binding(bench.check("1.1")) == ("cap", "", "monthly", 10 * DOLLAR)
    bench.now += SECOND
    bench.grant("payment", "10")
    assert bench.refused("1.1") is Reason.CAP_REACHED
    assert bench.refused("1") is None


def test_list_and_due_are_of_an_account_and_its_month_only() -> None:
    """What is due is nobody's by scope or hour, and a scope's spend is what it was charged."""
    bench = opened("red")
    for basis in ("list", "due"):
        for more in ({"scope": "red"}, {"window": "day"}, {"window": "request"}, {"meter": "units", "currency": None}):
            assert bench.cap("5", "c", **more, basis=basis) == "refused.bad_basis"
        assert bench.cap("5", "c", basis=basis) == "applied"
    assert bench.cap("5", "c", basis="net") == "refused.bad_basis"


def test_a_rule_on_another_basis_begins_anew_where_its_cap_does() -> None:
    """What a cap counts is another thing from then on: what was active recovers."""
    bench = discounted()
    bench.cap("20")
    bench.cap_rule(100)
    bench.use(2, "y")
    assert bench.told() == []
    bench.cap("20", basis="list")
    bench.cap("20")
    assert bench.told() == [("cap-100", str(MARCH), 1, "crossed"), ("cap-100", str(MARCH), 1, "recovered")]


def test_caps_bind_checks_and_never_rating() -> None:
    """Usage that happened is rated, past any cap."""
    bench = opened()
    bench.cap("1")
    assert bench.use(5) == "rated"
    assert (bench.balance(), bench.refused("0")) == (995 * DOLLAR, Reason.CAP_REACHED)
