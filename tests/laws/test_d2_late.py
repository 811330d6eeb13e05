"""Law D2: usage of an open period counts as if on time; of a closed one it is an adjustment, and closed totals stay."""

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.account import Account
from engine.catalog import BadCatalogue, compile_catalogue
from engine.charges import Table
from engine.contract import Contract
from engine.snapshot import decode_account, encode_account
from tests.engine.bench import DAY, DOLLAR, HOUR, MINUTE, Bench, Store, document, kept_open, us
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r3_aggregations import KINDS
from tests.laws.test_r3_aggregations import document as gauges

MARCH, APRIL = (us(f"2026-{month}-01T00:00:00+00:00") for month in ("03", "04"))
CLOSES = APRIL + DAY


def opened(*, credit: str | None = "1000", days: int = 1) -> Bench:
    bench = Bench(kept_open(document(), days))
    bench.open()
    if credit is not None:
        bench.grant("paid", credit)
    return bench


def closed_totals(bench: Bench) -> dict[Any, Any]:
    """What March comes to, as it is told of."""
    derived = bench.account().derive()
    running = {key: (run.quantity, run.amount) for key, run in derived.running.items() if key[0] == MARCH}
    return running | {"spend": derived.spend.get(MARCH, 0)}


def adjusted(bench: Bench) -> int:
    return sum(sum(posted.values()) for posted in bench.account().adjusted.values())


@pytest.mark.parametrize(("at", "late"), [(CLOSES - 1000, False), (CLOSES, True)])
def test_a_period_closes_at_its_end_and_the_grace(at: int, late: bool) -> None:
    """By the log time of a record that comes then or later, whether anything was used in it or not."""
    bench = opened()
    bench.now = at
    bench.use(5, at=APRIL - 1)
    assert (adjusted(bench) != 0) == late
    assert closed_totals(bench)["spend"] == (0 if late else 5 * DOLLAR)
    assert bench.balance() == 995 * DOLLAR
    line = json.loads(bench.partition.outputs.lines[-1][1])
    assert line.get("adjusts") == (MARCH if late else None)


@pytest.mark.parametrize(("grace_days", "late"), [(1, True), (30, False)])
def test_what_comes_thirty_days_late_counts_at_once(grace_days: int, late: bool) -> None:
    """In an open period as if on time; of a closed one it is an adjustment, and the closed totals stay."""
    bench = opened(days=grace_days)
    bench.now = APRIL - HOUR
    bench.use(60, "tiered")
    bench.now = APRIL + 29 * DAY
    before = closed_totals(bench)
    bench.use(40, "tiered", at=bench.now - 30 * DAY)
    assert bench.charges()[-1] == 2_000 * DOLLAR
    assert bench.balance() == (1_000 - 4_400) * DOLLAR
    assert (closed_totals(bench) == before) == late
    assert (adjusted(bench) == 2_000 * DOLLAR) == late


@pytest.mark.parametrize("days", [1, 2, 30])
def test_the_plan_says_how_long_a_period_stays_open(days: int) -> None:
    """In the version that is in force at the period's end."""
    bench = opened(days=days)
    bench.now = APRIL + days * DAY - 1000
    bench.use(1, at=APRIL - 1)
    assert not bench.account().adjusted
    bench.now += 1000
    bench.use(1, at=APRIL - 1)
    assert adjusted(bench) == DOLLAR


def test_a_grace_that_no_usage_could_use_or_holds_would_outlive_is_refused() -> None:
    """Usage is accepted for 35 days: a period that stays open longer than a month would outlive it. A hold is reported
    within a day: what admitted it must be what pays for it."""
    for days in (0, 31):
        with pytest.raises(BadCatalogue, match="close_after_s"):
            compile_catalogue(1, kept_open(document(), days))


def test_an_adjustment_is_the_difference_of_the_whole_period() -> None:
    """60 units owe $2,400; 40 late ones bring the period to $4,400, whatever April has used, and move no tier of April."""
    bench = opened(credit=None)
    bench.use(60, "tiered")
    bench.now = CLOSES
    bench.use(10, "tiered")
    bench.use(40, "tiered", at=APRIL - 1)
    assert bench.use(10, "tiered") == "rated"
    assert [pico // DOLLAR for pico in bench.charges()] == [2400, 300, 2000, 400]


def test_an_adjustment_counts_in_no_cap_and_no_scope() -> None:
    """It moves the balance, and rules of the balance; nothing else of the open period."""
    bench = opened(credit="100")
    bench.scope("team:a")
    bench.cap("10")
    bench.cap_rule(50)
    bench.balance_rule("60")
    bench.now = CLOSES
    bench.use(50, at=APRIL - 1, scope="team:a")
    assert bench.told() == [("low", "-", 1, "crossed")]
    assert bench.account().derive().spend == {}
    assert bench.account().scopes["team:a"].spend == {}
    assert bench.balance() == 50 * DOLLAR


def test_lots_that_are_valid_at_posting_pay() -> None:
    """Not the one that was valid when it was used, and is over."""
    bench = opened(credit=None)
    bench.grant("march", "100", "promo", expires_us=APRIL)
    bench.now = CLOSES
    bench.grant("april", "100")
    bench.use(30, at=APRIL - 1)
    paid = bench.allocation()
    assert (paid.burnt, paid.expired) == ({("april", MARCH): 30 * DOLLAR}, {"march": 100 * DOLLAR})


def test_what_was_paid_too_much_goes_back_where_it_came_from() -> None:
    """First what is owed, then the last that paid; what a lot gets back that is over, expires."""
    bench = opened(credit=None)
    bench.grant("promo", "10", "promo", priority=1, expires_us=APRIL)
    bench.grant("paid", "10", priority=2)
    event = bench.event(25)
    bench.record(b"acme", event)
    bench.now = CLOSES
    less = event.replace(b'"units": 25', b'"units": 12')
    assert bench.correct(event, less) == "amended"
    paid = bench.allocation()
    assert (paid.debt, paid.remaining["paid"]) == ({}, 8 * DOLLAR)
    assert bench.correct(less, None, 1) == "cancelled"
    paid = bench.allocation()
    assert (paid.remaining["paid"], paid.expired["promo"], paid.balance) == (10 * DOLLAR, 10 * DOLLAR, 10 * DOLLAR)
    assert closed_totals(bench)["spend"] == 25 * DOLLAR


def test_the_ledger_tells_the_period_of_use_from_that_of_posting() -> None:
    """Finance sees for which month it is, and in which month it was booked."""
    bench = opened()
    store = Store()
    store.checkpoint(bench.partition)
    bench.now = CLOSES
    bench.use(3, at=APRIL - 1)
    del store.postings[:]
    store.checkpoint(bench.partition)
    (row,) = store.postings
    assert (row.kind, row.usage_period_us, row.posting_period_us, row.amount) == ("burn", MARCH, APRIL, 3 * DOLLAR)


@settings(max_examples=40)
@given(st.integers(0, 10**9))
def test_closed_totals_never_change_and_money_is_that_of_the_whole(seed: int) -> None:
    """Late events, amends and cancels in any order: the closed total stands; it and the adjustments are A of all."""
    source = random.Random(seed)
    bench, whole = opened(), opened(days=30)
    models = ["x", "tiered", "third"]
    first = [bench.event(source.randrange(40), source.choice(models)) for _ in range(4)]
    for event in first:
        bench.record(b"acme", event)
        whole.record(b"acme", event)
    totals = closed_totals(bench)
    bench.now = whole.now = CLOSES + source.randrange(20) * DAY
    for bench_of_april in (bench, whole):
        bench_of_april.use(7, "tiered", id="april")
    records = [bench.event(source.randrange(40), source.choice(models), APRIL - 1 - HOUR * n) for n in range(3)]
    for event in [*first[:2], *records[:1]]:
        body = json.loads(event)
        other = json.dumps(body | {"data": {"model": source.choice(models), "units": source.randrange(40)}}).encode()
        records.append(bench.correction(event, source.choice([other, None])))
    source.shuffle(records)
    for record in records:
        bench.record(b"acme", record)
        assert closed_totals(bench) == totals
    for record in sorted(records):
        whole.record(b"acme", record)
    assert bench.balance() == whole.balance()
    assert sum(bench.charges()) == sum(whole.charges())
    assert totals["spend"] + adjusted(bench) == closed_totals(whole)["spend"]
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_a_closed_period_is_not_derived_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it comes to is worked out once: an event of the open period walks the open segments only."""
    bench = opened()
    bench.use(3)
    bench.now = CLOSES
    bench.use(1)
    walked: list[set[int]] = []
    walk = Account._walk

    def noted(account: Account, table: Table, contract: Contract | None = None) -> object:
        walked.append(set(table))
        return walk(account, table, contract)

    monkeypatch.setattr(Account, "_walk", noted)
    bench.use(60, "tiered")  # through the ends of tiers: no guard lets it pass
    assert walked == [{APRIL}]


def gauging(days: int, *kinds: str) -> Bench:
    bench = Bench(kept_open(gauges(*kinds), days))
    bench.open()
    bench.grant("first", "20", "promo", effective_us=APRIL - 9 * DAY, expires_us=APRIL - 4 * DAY)
    bench.grant("paid", "1000", effective_us=APRIL - 4 * DAY)
    bench.now = APRIL - 1
    return bench


VALUES = st.tuples(st.integers(0, 30), st.sampled_from(["eu", "us"]), st.integers(1, 12 * 24))


@settings(max_examples=40, deadline=None)
@given(st.lists(VALUES, max_size=4), st.lists(VALUES, min_size=1, max_size=6), st.data())
def test_what_does_not_add_up_is_kept_of_a_closed_period(
    on_time: list[Any], late: list[Any], data: st.DataObject
) -> None:
    """Max, min, latest, average, unique count: the closed total stands, and with the adjustments it is that of all
    readings, in whatever order they came."""
    bench, whole = gauging(1, *KINDS), gauging(30, *KINDS)

    def use(readings: list[Any], prefix: str) -> None:
        for number in data.draw(st.permutations(range(len(readings)))):
            value, region, hours = readings[number]
            fields = {"value": str(value), "region": region}
            for each in (bench, whole):
                each.use(at=APRIL - hours * HOUR, type="gauge", data=fields, id=f"{prefix}{number}")

    use(on_time, "on time ")
    totals = closed_totals(bench)
    bench.now = whole.now = CLOSES
    use(late, "late ")
    assert closed_totals(bench) == totals
    assert totals["spend"] + adjusted(bench) == closed_totals(whole)["spend"]
    assert sum(bench.charges()) == sum(whole.charges())
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
    assert_the_same(bench, oracle_of(bench, paranoid=True), "late readings")


def test_a_latest_value_that_comes_late_counts_only_if_it_is_the_latest() -> None:
    """$3 each of the latest, which March was closed with as 4 at noon: 9 of before that changes nothing, 6 of after it does."""
    bench = gauging(1, "latest")
    noon = APRIL - 12 * HOUR

    def use(value: str, at: int) -> None:
        bench.use(at=at, type="gauge", data={"value": value, "region": "eu"})

    use("4", noon)
    bench.now = CLOSES
    use("9", noon - 1)
    use("6", noon + 1)
    found = [json.loads(line) for _, line in bench.partition.outputs.lines]
    assert [(line["amount"], line.get("adjusts")) for line in found if line["price"] == "latest"] == [
        ("12", None),
        ("0", MARCH),
        ("6", MARCH),
    ]


def test_what_late_readings_need_of_a_period_is_dropped_when_none_can_come_any_more() -> None:
    """From 35 days less 5 minutes behind its end on. So an idle account is small, whatever it counted once. What late usage
    came to stays."""
    bench = gauging(1, "unique_count")

    def use(value: int, at: int) -> str:
        return bench.use(at=at, type="gauge", data={"value": str(value), "region": "eu"})

    for value in range(300):
        use(value, APRIL - 1)
    bench.now = CLOSES
    assert use(301, APRIL - 1) == "rated"
    large = len(encode_account(bench.account()))
    gone = APRIL + 35 * DAY - 5 * MINUTE
    assert bench.account().wake_us() == gone
    bench.tick(gone - 1000)
    assert use(302, APRIL - 1) == "rated"
    money = bench.balance(), closed_totals(bench), adjusted(bench)
    bench.tick(gone)
    assert use(303, APRIL - 1) == "dead_lettered.too_old"
    account = bench.account()
    assert account.aggregates == {}
    assert [*account.late.values()] == [{("unique_count", ("eu",)): 2 * 10**9, ("events", ()): 2 * 10**9}]
    assert len(encode_account(account)) < large - 300 * 12
    assert decode_account(encode_account(account), bench.partition._book).wake_us() is None
    assert (bench.balance(), closed_totals(bench), adjusted(bench)) == money
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


def test_an_account_without_late_usage_is_no_larger_for_what_has_closed() -> None:
    """Two empty lists, one byte each."""
    bench = opened()
    bench.use(3)
    before = len(encode_account(bench.account()))
    bench.tick(CLOSES + DAY)
    assert len(encode_account(bench.account())) == before


def test_a_hold_of_a_closed_period_settles_as_an_adjustment_and_one_that_is_too_old_not_at_all() -> None:
    """Usage is rated at its hold's admission, so that is what must be within the window."""
    bench = opened()
    admitted = [bench.hold(number=number, at=APRIL - 1) for number in (1, 2)]
    bench.now = CLOSES
    assert bench.spend_held(admitted[0], 3) == "rated"
    assert (adjusted(bench), bench.balance()) == (3 * DOLLAR, 997 * DOLLAR)
    bench.now = APRIL + 36 * DAY
    assert bench.spend_held(admitted[1], 3) == "dead_lettered.too_old"
    assert "its hold is beyond" in bench.letter().detail
    assert bench.balance() == 997 * DOLLAR


def test_a_lot_that_is_granted_later_pays_for_no_adjustment() -> None:
    """Not even one that was to begin in March: what was posted before it is debt, as usage would be."""
    bench = opened(credit=None)
    bench.use(1)
    bench.now = CLOSES
    bench.use(5, at=APRIL - 1)
    bench.grant("promo", "100", "promo", effective_us=MARCH)
    assert bench.debt() == 6 * DOLLAR
    assert bench.allocation().burnt == {}
    bench.grant("paid", "100", effective_us=MARCH)
    bench.tick(CLOSES + MINUTE)
    assert bench.debt() == 0


def test_a_refused_adjustment_changes_nothing() -> None:
    """One value too many for a closed period's unique count."""
    bench = Bench(gauges("unique_count", limit="1"))
    bench.open()
    bench.now = APRIL - 1
    bench.use(at=bench.now, type="gauge", data={"value": "1", "region": "eu"})
    bench.now = CLOSES
    before = encode_account(bench.account())
    assert bench.use(at=APRIL - 1, type="gauge", data={"value": "2", "region": "eu"}) == "dead_lettered.too_many_values"
    assert encode_account(bench.account()) == before
