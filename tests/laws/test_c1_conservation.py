"""Law C1: per lot, granted + refunded = remaining + burnt + expired + voided, always; postings are differences of that."""

import random
from collections import Counter
from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import Account
from tests.engine.bench import DOLLAR, HOUR, MINUTE, Bench, RandomLog, Store, document, kept_open, versions


def conserved(account: Account) -> None:
    derived = account.derive()
    paid = derived.allocation
    for name, lot in account.lots.items():
        burnt = sum(pico for (of, _), pico in paid.burnt.items() if of == name)
        refunded = sum(pico for (of, _), pico in paid.refunded.items() if of == name)
        gone = [burnt, paid.expired.get(name, 0), paid.carried.get(name, 0), paid.voided.get(name, 0)]
        assert lot.carry is not None or paid.granted[name] == lot.granted
        assert paid.granted[name] + refunded == paid.remaining[name] + sum(gone)
        assert min([paid.remaining[name], refunded, burnt - refunded, *gone]) >= 0
    given_on = sum(paid.granted[name] for name, lot in account.lots.items() if lot.carry is not None)
    assert given_on == sum(paid.carried.values())
    assert sum(derived.spend.values()) == sum(run.amount for run in derived.running.values())
    owed = sum(derived.spend.values()) + sum(sum(posted.values()) for posted in account.adjusted.values())
    owed -= sum(derived.waived.values())  # spent beyond a cap that waives it, and owed by nobody
    # What a void takes of the burnt is owed; what a refund gives back of it is given away, as far as it was burnt.
    refunds = [change for lot in account.lots.values() for change in lot.changes if change.kind == "refund"]
    kept = sum(paid.burnt.values()) - sum(paid.refunded.values()) + sum(paid.debt.values())
    assert kept <= owed <= kept + sum(change.amount or 0 for change in refunds)
    gives_back = any(line.amount < 0 for line in account.lines.values())  # maybe more than was ever paid
    assert min([*([] if gives_back else paid.debt.values()), *paid.burnt.values()], default=0) >= 0


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
            expected[name, lot.lot, "grant", None] += paid.granted[lot.lot]
            expected[name, lot.lot, "carry", None] += paid.carried.get(lot.lot, 0)
            expected[name, lot.lot, "expire", None] += paid.expired.get(lot.lot, 0)
            expected[name, lot.lot, "void", None] += paid.voided.get(lot.lot, 0)
        for (of, period), pico in paid.refunded.items():
            expected[name, of, "refund", period] += pico
        for (of, period), pico in paid.burnt.items():
            expected[name, of, "burn", period] += pico
        for period, pico in paid.debt.items():
            expected[name, "", "due" if period < account.billed_us else "debt", period] += pico
    assert {place: pico for place, pico in ledger.items() if pico} == {
        place: pico for place, pico in expected.items() if pico
    }
    # Debt may be below 0 where a line by hand gave back more than was paid.
    assert all(pico >= 0 for (_, _, kind, _), pico in ledger.items() if kind not in ("debt", "due"))


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
    bench = Bench(kept_open(document(), 30))
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


def test_money_paid_back_is_voided_and_what_was_burnt_of_it_is_debt() -> None:
    """Of $10 paid, $7 were burnt, $3 of them in February: all is paid back, and the newest of what was burnt is owed first."""
    bench = Bench(kept_open(document(), 30))
    bench.open()
    bench.grant("payment", "10", effective_us=bench.now - 30 * 24 * HOUR)
    bench.use(3, at=bench.now - 20 * 24 * HOUR)
    bench.use(4)
    bench.void("payment", "8")
    paid, march = bench.allocation(), bench.account().period_of(bench.now)
    assert (paid.voided, paid.remaining) == ({"payment": 8 * DOLLAR}, {"payment": 0})
    assert (paid.refunded, paid.debt) == ({("payment", march): 4 * DOLLAR, **february(bench, 1)}, owed(bench, 1))
    bench.void("payment", "2")
    assert bench.allocation().debt == owed(bench, 3)
    assert bench.void("payment", "0.000000000001") == "refused.exceeds_lot"
    conserved(bench.account())


def february(bench: Bench, dollars: int) -> dict[tuple[str, int], int]:
    return {("payment", bench.account().period_of(bench.now - 20 * 24 * HOUR)): dollars * DOLLAR}


def owed(bench: Bench, february_dollars: int) -> dict[int, int]:
    periods = (bench.account().period_of(bench.now - 20 * 24 * HOUR), bench.account().period_of(bench.now))
    return dict(zip(periods, (february_dollars * DOLLAR, 4 * DOLLAR), strict=True))


def test_a_refund_is_a_burn_reversed_and_can_be_burnt_again() -> None:
    """The lot has it to spend, the usage stays charged, and what was burnt twice is burnt twice."""
    bench = Bench()
    bench.open()
    bench.grant("l", "10", "promo")
    bench.now += MINUTE
    bench.use(10)
    bench.now += MINUTE
    bench.refund("l", "4")
    assert (bench.balance(), bench.debt()) == (4 * DOLLAR, 0)
    bench.now += MINUTE
    bench.use(5)
    paid = bench.allocation()
    assert (sum(paid.burnt.values()), sum(paid.refunded.values())) == (14 * DOLLAR, 4 * DOLLAR)
    assert (paid.remaining, bench.debt()) == ({"l": 0}, DOLLAR)
    conserved(bench.account())
