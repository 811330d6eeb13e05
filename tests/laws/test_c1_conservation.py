"""Law C1: per lot, granted = remaining + burnt + expired, always, and the postings are the differences of exactly that."""

import random
from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import Account
from tests.engine.bench import HOUR, MINUTE, Bench, RandomLog, Store, versions


def conserved(account: Account) -> None:
    derived = account.derive()
    paid = derived.allocation
    for name, lot in account.lots.items():
        burnt = sum(pico for (of, _), pico in paid.burnt.items() if of == name)
        assert lot.granted == paid.remaining[name] + burnt + paid.expired.get(name, 0)
        assert min(paid.remaining[name], burnt, paid.expired.get(name, 0)) >= 0
    owed = sum(derived.spend.values())
    assert owed == sum(run.amount for run in derived.running.values())
    assert owed == sum(paid.burnt.values()) + sum(paid.debt.values())
    assert min([*paid.debt.values(), *paid.burnt.values()], default=0) >= 0


@settings(max_examples=12)
@given(st.integers(0, 10**9))
def test_money_is_conserved_after_every_record(seed: int) -> None:
    """At no offset of a random log does a lot lose or gain a pico, or usage go unpaid and unowed."""
    bench = Bench(*versions())
    log = RandomLog(bench, random.Random(seed), stride_us=4 * HOUR, accounts=2)
    for _ in range(100):
        log.step()
        for account in log.accounts:
            conserved(bench.account(account))


@settings(max_examples=15)
@given(st.integers(0, 10**9))
def test_the_postings_of_any_cuts_sum_to_the_allocation(seed: int) -> None:
    """However often a checkpoint is cut, slowly or at once, with accounts frozen and taken over in between."""
    source = random.Random(seed)
    bench = Bench(*versions())
    log = RandomLog(bench, source, stride_us=source.choice([20 * MINUTE, 6 * HOUR]))
    store = Store()
    for _ in range(source.randrange(1, 12)):
        for _ in range(source.randrange(25)):
            log.step()
        cut = bench.partition.begin_cut()
        while not cut.encode(1):
            log.step()
        bench.partition.end_cut()
        store.take(cut)
        bench.partition.freeze_idle(source.choice([0, HOUR]), source.randrange(4))
        if source.random() < 0.2:
            at = len(bench.log)
            store.checkpoint(bench.partition)
            bench.partition = store.load_into(bench.fresh())
            assert at == len(bench.log)
    store.checkpoint(bench.partition)

    ledger: Counter[tuple[str, str, str, int | None]] = Counter()
    for row in store.postings:
        ledger[row.account, row.lot, row.kind, row.usage_period_us] += row.amount
    expected: Counter[tuple[str, str, str, int | None]] = Counter()
    for name in log.accounts:
        account = bench.account(name)
        paid = account.derive().allocation
        for lot in account.lots.values():
            expected[name, lot.lot, "grant", None] += lot.granted
            expected[name, lot.lot, "expire", None] += paid.expired.get(lot.lot, 0)
        for (of, period), pico in paid.burnt.items():
            expected[name, of, "burn", period] += pico
        for period, pico in paid.debt.items():
            expected[name, "", "debt", period] += pico
    assert +ledger == +expected
    assert all(amount >= 0 for amount in ledger.values())


def test_each_posting_names_lot_kind_and_periods() -> None:
    """Finance recognises revenue from it: which lot, of what kind, for usage of which period, posted in which."""
    bench = Bench()
    bench.open()
    bench.grant("gift", "5", "promo", priority=1)
    bench.grant("paid", "5")
    bench.use(7)
    store = Store()
    store.checkpoint(bench.partition)
    burns = {(row.lot, row.lot_kind, row.amount // 10**12) for row in store.postings if row.kind == "burn"}
    assert burns == {("gift", "promo", 5), ("paid", "paid", 2)}
    (period,) = {row.usage_period_us for row in store.postings if row.kind == "burn"}
    assert {row.posting_period_us for row in store.postings} == {period}


def test_late_usage_is_posted_in_the_period_of_the_posting() -> None:
    """Usage of February that comes in March burns in February's name and is posted in March."""
    bench = Bench()
    bench.open()
    bench.use(7, at=bench.now - 20 * 24 * HOUR)
    store = Store()
    store.checkpoint(bench.partition)
    (row,) = store.postings
    assert (row.kind, row.lot, row.lot_kind) == ("debt", "", "")
    account = bench.account()
    assert row.usage_period_us == account.period_of(bench.now - 20 * 24 * HOUR)
    assert row.posting_period_us == account.period_of(bench.now) != row.usage_period_us


def test_what_is_posted_can_be_taken_back() -> None:
    """Late usage of February takes the lot from March, and a paid lot takes away the debt: the ledger follows."""
    bench = Bench()
    bench.open()
    bench.grant("l", "10", effective_us=bench.now - 30 * 24 * HOUR)
    store = Store()
    ledger = []
    steps: list[Callable[[], str]] = [
        lambda: bench.use(10),
        lambda: bench.use(10, at=bench.now - 20 * 24 * HOUR),
        lambda: bench.tick(bench.now + HOUR),
        lambda: bench.grant("top-up", "10"),
    ]
    for step in steps:
        step()
        store.checkpoint(bench.partition)
        sums: Counter[str] = Counter()
        for row in store.postings:
            sums[f"{row.kind} {row.lot} {row.usage_period_us == bench.account().period_of(bench.now)}"] += row.amount
        ledger.append({name: amount // 10**12 for name, amount in sums.items() if amount and "grant" not in name})
    assert ledger == [
        {"burn l True": 10},
        {"burn l False": 10, "debt  True": 10},
        {"burn l False": 10, "debt  True": 10},
        {"burn l False": 10, "burn top-up True": 10},
    ]
