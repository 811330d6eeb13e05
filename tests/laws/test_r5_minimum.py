"""Law R5: what a period's usage falls short of a minimum is a line of its own, posted when the period closes (R6: for as
long as the account had the plan in it; D2: late usage changes it as it changes the whole statement)."""

import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import BadCatalogue, CatalogueDocument, PriceDefinition, compile_catalogue
from engine.money import parse_amount, parse_quantity
from tests.engine.bench import DAY, DOLLAR, HOUR, Bench, Store, document, kept_open, us
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

APRIL, MAY, JUNE, JULY = (us(f"2026-0{month}-01T00:00:00+00:00") for month in (4, 5, 6, 7))


def least(minimum: str, **more: Any) -> CatalogueDocument:
    """x costs $1 a unit, and a month owes at least so much for it; plan `pro` has none of that."""
    plain = PriceDefinition("units", "per_unit", {"model": "x"}, "1")
    catalogue = document(x=replace(plain, minimum=minimum, **more))
    pro = catalogue.plans["pro"]
    sold = replace(pro, prices={**pro.prices, "x": plain})
    return replace(catalogue, plans={**catalogue.plans, "pro": sold})


def opened(catalogue: CatalogueDocument, at: int = APRIL) -> Bench:
    bench = Bench(catalogue)
    bench.now = at
    bench.open()
    return bench


def told(bench: Bench) -> list[tuple[str, int, bool]]:
    """(amount, the period's start, whether no event made it) of each line of a minimum."""
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines]
    return [(line["amount"], line["adjusts"], "accrued_us" in line) for line in lines if line.get("due") == "minimum"]


def agrees(bench: Bench) -> None:
    """The oracle makes the same of the log, and so does a replay, and an owner that takes over half way."""
    assert_the_same(bench, oracle_of(bench, paranoid=True), "minimum")
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
    store, partition, half = Store(), bench.fresh(), len(bench.log) // 2
    for record in bench.log[:half]:
        partition.apply(*record)
    store.checkpoint(partition)
    partition = store.load_into(bench.fresh())
    for record in bench.log[half:]:
        partition.apply(*record)
    assert partition.state_bytes() == bench.partition.state_bytes()


def test_the_shortfall_is_posted_when_the_period_closes_and_never_before() -> None:
    """At the first record behind it, whatever that is; once, although many records follow."""
    bench = opened(least("1000"))
    bench.use(700)
    bench.tick(MAY + DAY - 1000)
    assert told(bench) == []
    assert [(due.kind, pico) for due, pico in bench.account().owed_besides(APRIL).items()] == [
        ("minimum", 300 * DOLLAR)
    ]
    for _ in range(3):
        bench.tick(bench.now + 1000)
        assert told(bench) == [("300", APRIL, True)]
    assert bench.debt() == 1_000 * DOLLAR
    agrees(bench)


def test_late_usage_leaves_less_missing() -> None:
    """Golden: closed with a shortfall of $300, $100 late: the adjustment is $0. What is beyond the minimum is due."""
    bench = opened(least("1000"))
    bench.use(700)
    bench.tick(MAY + DAY)
    bench.use(100, at=MAY - 1)
    assert bench.charges()[-2:] == [100 * DOLLAR, -100 * DOLLAR]
    assert told(bench)[-1] == ("-100", APRIL, False)
    event = bench.event(300, at=MAY - 1)
    bench.record(b"acme", event)
    assert bench.debt() == 1_100 * DOLLAR
    bench.correct(event)
    assert bench.debt() == 1_000 * DOLLAR
    assert [amount for amount, *_ in told(bench)] == ["300", "-100", "-200", "200"]
    agrees(bench)


def test_a_promotion_pays_no_minimum_unless_it_pays_debt() -> None:
    """Golden: $700 of $1,000 used, a promotion of $300 is not for minimums: the shortfall is paid by paid lots only."""
    bench = opened(least("1000"))
    bench.grant("paid", "900", priority=1)
    bench.grant("promo", "300", "promo", priority=2)
    bench.grant("other", "50", priority=0, scope=["y"])
    bench.use(700)
    bench.tick(MAY + DAY)
    paid = bench.allocation()
    assert (paid.remaining, bench.debt()) == ({"other": 50 * DOLLAR, "paid": 0, "promo": 300 * DOLLAR}, 100 * DOLLAR)
    agrees(bench)


def test_it_counts_in_no_cap_and_moves_the_balance_once() -> None:
    """Late usage that the minimum has paid for tells no rule of the balance of anything."""
    bench = opened(least("1000"))
    bench.grant("paid", "1200")
    bench.cap("1000")
    bench.cap_rule(80)
    bench.balance_rule("201")
    bench.use(700)
    bench.tick(MAY + DAY)
    assert bench.told() == [("low", "-", 1, "crossed")]
    bench.use(100, at=MAY - 1)
    assert bench.told() == [("low", "-", 1, "crossed")]
    assert bench.account().derive().spend == {APRIL: 700 * DOLLAR}
    agrees(bench)


@pytest.mark.parametrize(
    ("opened_at", "more", "owed"),
    [
        (APRIL, {}, "300"),
        (APRIL + 10 * DAY, {}, "200"),  # 20 of 30 days
        (APRIL + 10 * DAY, {"prorate": False}, "300"),
        (APRIL + 1_000, {}, "299.999999884259"),  # a millisecond less, rounded once
        (MAY - 1_000, {}, "0.000000115741"),
    ],
)
def test_a_customer_who_comes_in_mid_period_owes_a_part_by_time(
    opened_at: int, more: dict[str, Any], owed: str
) -> None:
    """From the instant on at which the account was opened, in exact instants, rounded once."""
    bench = opened(least("300", **more), opened_at)
    bench.tick(MAY + DAY)
    assert told(bench) == [(owed, APRIL, True)]
    agrees(bench)


def test_a_change_of_plan_shares_it_and_a_month_of_another_plan_owes_none() -> None:
    """A trial, here of 15 of 30 days, is a plan without a minimum, and the phase behind it."""
    bench = opened(least("300"))
    assert bench.sell("pro", APRIL) == "applied"
    assert bench.sell("plan", APRIL + 15 * DAY) == "applied"
    assert bench.sell("pro", MAY) == "applied"
    bench.tick(JULY)
    assert told(bench) == [("150", APRIL + 15 * DAY, True)]
    agrees(bench)


def test_what_is_sold_when_a_period_begins_binds_it() -> None:
    """A version that raises it in mid-period holds from the next one on; one that drops the minimum, too."""
    first, second = least("300"), least("500")
    bench = Bench(first, second, document())
    bench.now = APRIL
    bench.open()
    bench.publish(2, APRIL + 10 * DAY)
    bench.tick(MAY + 10 * DAY)
    bench.publish(3, MAY + 20 * DAY)
    bench.tick(JULY + DAY)
    assert told(bench) == [("300", APRIL, True), ("500", MAY, True)]
    agrees(bench)


@pytest.mark.parametrize("versions", [(document(), least("300")), (least("300"), kept_open(least("300"), 3))])
def test_a_version_wakes_the_idle_who_owe_by_it(versions: tuple[CatalogueDocument, ...]) -> None:
    """Accounts that nothing comes for, and that are bytes by then: they owe it when the period closes, as live ones do."""
    bench = Bench(*versions)
    bench.now = APRIL
    for name in ("acme", "zeta"):
        bench.open(name)
    bench.open("other", plan="calls")
    bench.tick(APRIL + DAY)
    store, frozen = Store(), bench.fresh()
    for record in bench.log:
        frozen.apply(*record)
    store.checkpoint(frozen)
    assert frozen.freeze_idle(0, 9) == 3
    bench.partition = frozen
    bench.publish(2, APRIL + 2 * DAY)
    for at in (MAY + DAY, MAY + 3 * DAY, JUNE + DAY, JUNE + 3 * DAY):
        bench.tick(at)
    assert {amount for amount, *_ in told(bench)} == {"300"}
    assert len(told(bench)) == (2 if versions[0] == document() else 4)
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
    assert bench.replay().outputs.lines == bench.partition.outputs.lines


def test_it_may_be_agreed_with_one_customer_from_a_period_on() -> None:
    """Its line says from when on it is agreed. Terms that could not begin there are refused, as are those of no catalogue."""
    bench = Bench()
    bench.open()
    terms = {"model": "per_unit", "amount": "1", "minimum": "300"}
    assert bench.agree("x", terms, from_us=APRIL + DAY) == "refused.mid_period"
    assert bench.agree("x", terms | {"minimum": "0"}, from_us=APRIL) == "refused.bad_price"
    assert bench.agree("x", terms | {"maximum": "200"}, from_us=APRIL) == "refused.bad_price"
    assert bench.agree("x", terms, from_us=APRIL) == "applied"
    assert bench.agree("x", None, from_us=MAY) == "applied"
    bench.tick(JULY)
    assert told(bench) == [("300", APRIL, True)]
    assert json.loads(bench.partition.outputs.lines[-1][1])["agreed_us"] == APRIL
    agrees(bench)


@pytest.mark.parametrize(
    ("terms", "key"),
    [
        ({"minimum": "0"}, "minimum"),
        ({"minimum": "-1"}, "minimum"),
        ({"minimum": "a lot"}, "minimum"),
        ({"minimum": "91", "maximum": "100", "discount": "10"}, "minimum"),
        ({"prorate": False}, "prorate"),
    ],
)
def test_what_no_usage_could_come_to_is_refused_at_publication(terms: dict[str, Any], key: str) -> None:
    """By the key that must change."""
    with pytest.raises(BadCatalogue) as refused:
        compile_catalogue(1, document(x=PriceDefinition("units", "per_unit", {"model": "x"}, "1", **terms)))
    assert [fault.path for fault in refused.value.faults] == [("plans", "plan", "prices", "x", key)]
    compile_catalogue(1, document(x=PriceDefinition("units", "per_unit", {"model": "x"}, "1", minimum="90")))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_a_period_owes_the_greater_of_usage_and_minimum_in_any_order_of_arrival(seed: int) -> None:
    """Of what is used, late and taken back, across plans and with a graduated price: what its lines come to in the end."""
    source = random.Random(seed)
    minimum = source.randrange(1, 3_000)
    tiered = replace(document().plans["plan"].prices["tiered"], minimum=str(minimum))
    bench = opened(document(tiered=tiered))
    bench.grant("promo", "500", "promo", priority=source.randrange(3), expires_us=MAY + 9 * DAY)
    bench.grant("paid", "900", priority=1)
    cut = APRIL + source.randrange(1, 30 * 24) * HOUR
    if source.random() < 0.5:
        assert bench.sell(source.choice(["pro", "plan"]), cut) == "applied"
    for _ in range(source.randrange(8)):
        bench.now = min(bench.now + source.randrange(9 * DAY), MAY + 25 * DAY)
        event = bench.event(source.randrange(30), "tiered", max(APRIL, bench.now - source.randrange(20 * DAY)))
        if bench.record(b"acme", event) == "rated" and source.random() < 0.3:
            bench.correct(event)
    bench.tick(max(bench.now, JUNE + DAY))
    account = bench.account()
    units: dict[int, int] = {}
    owed: dict[int, int] = {}
    for _, line in bench.partition.outputs.lines:
        body = json.loads(line)
        start = account.period_of(body["time_us"])
        units[start] = units.get(start, 0) + parse_quantity(body["quantity"])
        owed[start] = owed.get(start, 0) + parse_amount(body["amount"])
    for start in {APRIL, account.period_of(MAY - 1), MAY}:
        terms = account.period_terms(start)
        assert terms is not None
        ((_, for_period),) = terms.sold.values()
        assert for_period == round(Fraction(minimum * DOLLAR * (terms.end - start), (30 if start < MAY else 31) * DAY))
        assert owed.get(start, 0) == max(terms.plan.prices["tiered"].owed(units.get(start, 0)), for_period)
    agrees(bench)
