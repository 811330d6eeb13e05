"""Law C3: a lot pays within its validity and never before; what it leaves lives on in part, and late usage shrinks that."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.engine.bench import DAY, DOLLAR, SECOND, START, Bench
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

USES = st.lists(st.tuples(st.integers(0, 3 * DAY), st.integers(0, 60)), min_size=1, max_size=6)


def wallet(uses: list[tuple[int, int]], percent: int, cap: str | None) -> tuple[object, ...]:
    """What has become of $100 of the first day, with a rollover of a day, after usage in this order of arrival."""
    bench = Bench()
    bench.open()
    rollover = {"percent": percent, "days": 1} | ({} if cap is None else {"cap": cap})
    bench.grant("day", "100", "promo", expires_us=START + DAY, rollover=rollover)
    bench.tick(START + 4 * DAY)
    for after_us, units in uses:
        bench.use(units, at=START + after_us)
    paid = bench.allocation()
    return paid.granted, paid.remaining, paid.expired, paid.carried, paid.burnt, paid.debt, paid.balance


@settings(max_examples=30, deadline=None)
@given(USES, st.integers(1, 100), st.sampled_from([None, "7", "40"]), st.data())
def test_what_is_carried_and_who_pays_depend_on_no_order_of_arrival(
    uses: list[tuple[int, int]], percent: int, cap: str | None, data: st.DataObject
) -> None:
    """And it is min(what was left at the expiry x percent, cap), whatever came when."""
    found = wallet(uses, percent, cap)
    assert found == wallet(data.draw(st.permutations(uses)), percent, cap)
    left = max(0, 100 - sum(units for after_us, units in uses if after_us < DAY)) * DOLLAR
    carried = min(left * percent // 100, left if cap is None else int(cap) * DOLLAR)
    assert found[0] == {"day": 100 * DOLLAR, "day~carried": carried}


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3 * DAY), st.lists(st.tuples(st.integers(0, DAY), st.integers(0, 9)), min_size=1, max_size=5))
def test_pending_credit_never_spends(pending_us: int, uses: list[tuple[int, int]]) -> None:
    """A lot of tomorrow pays no usage and no debt of today, and is in no balance; so a check sees none of it."""
    bench = Bench()
    bench.open()
    effective_us = START + DAY + pending_us
    bench.grant("pending", "100", effective_us=effective_us)
    bench.tick(START + DAY)
    for after_us, units in uses:
        bench.use(units, at=START + after_us)
    used = sum(units for _, units in uses) * DOLLAR
    assert (bench.allocation().remaining, bench.debt(), bench.balance()) == ({"pending": 100 * DOLLAR}, used, -used)
    wallet = bench.partition.wallet("acme", bench.now)
    assert wallet is not None
    assert wallet.available == -used
    bench.tick(effective_us + 999)
    assert (bench.debt(), bench.balance()) == (0, 100 * DOLLAR - used)


@settings(max_examples=30, deadline=None)
@given(st.integers(61, 290), st.lists(st.integers(0, 295), min_size=1, max_size=5))
def test_usage_ahead_of_log_time_moves_credit_on_and_raises_no_balance(ends_s: int, uses: list[int]) -> None:
    """A lot that begins behind usage ahead of log time is in no balance yet, and neither is what it carries, though usage
    behind its expiry is paid from that. By then all of it is there."""
    bench = Bench()
    bench.open()
    bench.balance_rule("0")
    assert bench.use(1, at=START + 60 * SECOND) == "rated"
    rollover = {"percent": 50, "days": 1}
    assert bench.grant("soon", "100", "promo", expires_us=START + ends_s * SECOND, rollover=rollover) == "applied"
    balance = bench.balance()
    for after_s in uses:
        assert bench.use(2, at=START + after_s * SECOND) == "rated"
        assert bench.balance() <= balance
        balance = bench.balance()
    assert not bench.partition.counts.get("alert_recovered")
    assert_the_same(bench, oracle_of(bench, paranoid=True), "ahead")
    bench.tick(START + 300 * SECOND)
    early = 2 * sum(after_s <= 60 for after_s in uses) + 1
    first = 2 * sum(60 < after_s < ends_s for after_s in uses)
    left = (100 - first) * DOLLAR // 2
    assert bench.balance() == left - (early + 2 * sum(after_s >= ends_s for after_s in uses)) * DOLLAR
