"""Manual lines: charged or given back with a reason, conserved like all money, counted in nothing else."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.manual_lines import LINES_MAX, REASON_MAX, ManualLine, says_why
from engine.snapshot import account_fields, decode_account, encode_account
from tests.engine.bench import DAY, DOLLAR, HOUR, Bench, us
from tests.laws.test_c1_conservation import conserved
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")


@pytest.mark.parametrize(
    ("reason", "by", "says"),
    [
        ("goodwill", "ann", True),
        ("r" * REASON_MAX, "a" * REASON_MAX, True),
        ("", "ann", False),
        (" ", "ann", False),
        ("goodwill", " ", False),
        ("r" * (REASON_MAX + 1), "ann", False),
        ("a\0b", "ann", False),
    ],
)
def test_a_line_says_why_and_who(reason: str, by: str, says: bool) -> None:
    assert says_why(reason, by) == says


def test_a_line_is_kept_with_all_that_was_said() -> None:
    bench = Bench()
    bench.open()
    bench.adjust("case-1", "-2.5", "outage", price="x", used_us=MARCH + HOUR)
    line = ManualLine(bench.now, MARCH, MARCH, "x", -5 * DOLLAR // 2, "outage", "ann")
    assert bench.account().lines == {"case-1": line}
    again = decode_account(encode_account(bench.account()), bench.partition._book)
    assert (again.lines, again.adjusted) == ({"case-1": line}, {(MARCH, MARCH): {"x": line.amount}})
    assert account_fields(encode_account(again))["lines case-1: reason"] == "outage"


def test_it_counts_in_no_cap_no_scope_and_no_tier() -> None:
    bench = Bench()
    bench.open()
    bench.cap("10")
    bench.cap_rule(50)
    bench.balance_rule("-20")
    bench.use(5, "tiered")
    bench.adjust("l", "500", price="tiered")
    assert [rule for rule, *_ in bench.told()] == ["cap-50", "low"]
    bench.use(5, "tiered")
    assert bench.charges() == [150 * DOLLAR, 150 * DOLLAR]
    assert bench.account().derive().spend == {MARCH: 300 * DOLLAR}


def test_lots_of_its_price_pay_or_those_that_pay_for_everything() -> None:
    bench = Bench()
    bench.open()
    bench.grant("scoped", "10", "promo", scope=["x"])
    bench.grant("wide", "10", "promo")
    bench.now += HOUR
    bench.adjust("one", "4")
    bench.adjust("two", "12", price="x")
    assert bench.allocation().burnt == {("wide", MARCH): 6 * DOLLAR, ("scoped", MARCH): 10 * DOLLAR}


def test_a_lot_granted_later_pays_for_no_line() -> None:
    bench = Bench()
    bench.open()
    bench.adjust("l", "4")
    bench.grant("promo", "10", "promo", effective_us=MARCH)
    bench.tick(bench.now + HOUR)
    assert (bench.debt(), bench.allocation().burnt) == (4 * DOLLAR, {})


def test_the_same_line_is_posted_once() -> None:
    bench = Bench()
    bench.open()
    assert bench.adjust("l", "4") == "applied"
    bench.now += 60 * DAY  # when no command key is remembered any more
    assert bench.adjust("l", "4") == "refused.line_exists"
    assert bench.debt() == 4 * DOLLAR


def test_an_account_has_a_thousand_lines() -> None:
    bench = Bench()
    bench.open()
    for number in range(LINES_MAX):
        assert bench.adjust(f"l-{number}", "1") == "applied"
    assert bench.adjust("more", "1") == "refused.too_many_lines"
    assert bench.debt() == LINES_MAX * DOLLAR


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9))
def test_lines_among_usage_late_usage_and_lots_are_conserved(seed: int) -> None:
    """Both signs, for this period and the last: money is conserved, the oracle agrees, and a replay is the same."""
    source = random.Random(seed)
    bench = Bench()
    bench.open()
    bench.grant("promo", "30", "promo", priority=1, expires_us=APRIL + 10 * DAY, scope=source.choice([[], ["x"]]))
    bench.grant("paid", "50", priority=2)
    bench.use(source.randrange(30), "tiered")
    bench.now = APRIL + 2 * DAY
    for number in range(12):
        bench.now += source.randrange(2 * DAY)
        at = source.choice([bench.now, APRIL - DAY])
        roll = source.random()
        if roll < 0.5:
            amount = source.choice(["7", "-7", "35", "-90"])
            bench.adjust(f"l-{number}", amount, price=source.choice([None, "x"]), used_us=at)
        elif roll < 0.9:
            bench.use(source.randrange(9), source.choice(["x", "tiered"]), at)
        else:
            bench.grant(f"more-{number}", "20")
        conserved(bench.account())
    assert_the_same(bench, oracle_of(bench, paranoid=True), "manual lines")
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_what_a_customer_is_owed_is_set_off_with_what_the_period_owes_next() -> None:
    """So a lot that settles debt pays for what is left of it only: engine and oracle agree."""
    bench = Bench()
    bench.open()
    start = bench.now
    bench.grant("another", "1", effective_us=start + HOUR, scope=["y"])  # another segment begins
    bench.grant("later", "10", effective_us=start + 3 * HOUR)
    bench.adjust("apology", "-5", "an apology")
    bench.tick(start + 2 * HOUR)
    assert bench.use(8, at=start + 2 * HOUR) == "rated"
    assert bench.debt() == 3 * DOLLAR
    bench.tick(start + 4 * HOUR)
    assert (bench.debt(), bench.balance()) == (0, 8 * DOLLAR)
    assert_the_same(bench, oracle_of(bench, paranoid=True), "set off")
