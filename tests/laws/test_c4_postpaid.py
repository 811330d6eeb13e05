"""Law C4: postpaid debt goes to the statement at period end; prepaid debt stays and counts. L3: overdraft = credit limit."""

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from engine.reasons import Reason
from tests.engine.bench import DAY, DOLLAR, HOUR, Bench, us
from tests.engine.desk_bench import DeskBench
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

MARCH, APRIL, MAY = (us(f"2026-0{month}-01T00:00:00+00:00") for month in (3, 4, 5))


def postpaid(limit: str | None = "20") -> DeskBench:
    bench = DeskBench()
    bench.open()
    assert bench.command("set_billing", billing="postpaid", credit_limit=limit, currency="USD") == "applied"
    return bench


def postings(bench: Bench) -> list[tuple[str, str, int | None, int]]:
    """(lot, kind, usage period, dollars) since the last look."""
    settled = bench.account().settle(bench.account().period_of(bench.now))
    return [(row.lot, row.kind, row.usage_period_us, row.amount // DOLLAR) for row in settled.postings]


def test_the_debt_of_a_closed_period_becomes_due_and_a_payment_settles_it() -> None:
    """Postpaid debt goes to the statement at period end; a paid lot settles it, oldest first."""
    bench = postpaid()
    bench.use(12)
    assert postings(bench) == [("", "debt", MARCH, 12)]
    bench.now = APRIL + DAY - HOUR
    bench.tick(bench.now)
    assert (postings(bench), bench.account().due) == ([], {})
    bench.tick(APRIL + DAY)
    assert bench.account().due == {MARCH: 12 * DOLLAR}
    assert postings(bench) == [("", "debt", MARCH, -12), ("", "due", MARCH, 12)]
    bench.now = APRIL + DAY + HOUR
    bench.use(3)
    assert postings(bench) == [("", "debt", APRIL, 3)]
    bench.now += HOUR
    bench.grant("payment", "13")
    assert postings(bench) == [
        *(("payment", "grant", None, 13), ("payment", "burn", MARCH, 12), ("payment", "burn", APRIL, 1)),
        *(("", "debt", APRIL, -1), ("", "due", MARCH, -12)),
    ]
    assert (bench.account().due, bench.balance()) == ({}, -2 * DOLLAR)


def test_what_is_due_counts_against_the_credit_limit_until_it_is_paid() -> None:
    """Overdraft = credit limit."""
    bench = postpaid("20")
    assert bench.refused("21") is Reason.CREDIT_DEPLETED
    bench.use(15)
    assert bench.refused("6") is Reason.CREDIT_DEPLETED
    assert bench.refused("5", hold_us=None) is None
    bench.now = APRIL + 2 * DAY
    bench.tick(bench.now)
    assert bench.account().due == {MARCH: 15 * DOLLAR}
    assert bench.refused("6") is Reason.CREDIT_DEPLETED
    bench.grant("payment", "15")
    bench.now += HOUR
    assert bench.refused("20", hold_us=None) is None


def test_without_a_credit_limit_checks_are_never_short_of_credit() -> None:
    """Overdraft = credit limit, or none."""
    bench = postpaid(None)
    bench.use(10_000)
    assert bench.refused("100000") is None


def test_late_usage_of_a_closed_period_is_due_at_once() -> None:
    """Its statement is out already."""
    bench = postpaid()
    bench.use(1)
    bench.now = APRIL + 2 * DAY
    bench.use(2, at=APRIL - DAY)
    assert bench.account().due == {MARCH: 3 * DOLLAR}


def test_prepaid_debt_stays_debt() -> None:
    """And becomes that again, where an account is prepaid again."""
    bench = postpaid()
    bench.use(5)
    bench.now = APRIL + 2 * DAY
    bench.tick(bench.now)
    postings(bench)
    bench.command("set_billing", billing="prepaid", currency="USD")
    assert postings(bench) == [("", "debt", MARCH, 5), ("", "due", MARCH, -5)]
    assert (bench.account().due, bench.refused("0")) == ({}, Reason.CREDIT_DEPLETED)


@given(st.integers(0, 10**9))
def test_debt_and_what_is_due_are_what_no_lot_has_paid_and_postings_add_up(seed: int) -> None:
    """Whatever is used, paid, and looked at in between; a replay and the oracle come to the same."""
    source = random.Random(seed)
    bench = Bench()
    bench.open(anchor_day=source.choice((1, 15)))
    sums: Counter[tuple[str, str, int | None]] = Counter()
    for number in range(16):
        bench.now += source.randrange(9 * DAY)
        roll = source.random()
        if roll < 0.2:
            limit = source.choice((None, "30"))
            bench.command("set_billing", billing="postpaid", credit_limit=limit, currency="USD")
        elif roll < 0.25:
            bench.command("set_billing", billing="prepaid", currency="USD")
        elif roll < 0.4:
            bench.grant(f"payment-{number}", str(source.randrange(1, 30)))
        else:
            late = source.choice((0, 0, source.randrange(34 * DAY)))
            bench.use(source.randrange(1, 9), at=bench.now - late)
        if source.random() < 0.5:
            for row in bench.account().settle(0).postings:
                sums[row.lot, row.kind, row.usage_period_us] += row.amount
    for row in bench.account().settle(0).postings:
        sums[row.lot, row.kind, row.usage_period_us] += row.amount
    account = bench.account()
    due = {period: pico for (_, kind, period), pico in sums.items() if kind == "due" and pico}
    assert due == account.due
    debts = Counter({period: pico for (_, kind, period), pico in sums.items() if kind in ("debt", "due") and pico})
    for (_, kind, period), pico in sums.items():
        assert kind != "debt" or not account.postpaid or not pico or (period or 0) >= account.billed_us
    assert sum(debts.values()) == sum(bench.allocation().debt.values())
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
    assert_the_same(bench, oracle_of(bench), f"seed {seed}")
