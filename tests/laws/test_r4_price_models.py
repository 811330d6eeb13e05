"""Laws R4 and R5: every model, with what stands around it: the charges of the events are what the period owes."""

import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.account import Account
from engine.catalog import CatalogueDocument, MeterDefinition, PlanDefinition, PriceDefinition
from engine.guard import Guard
from engine.money import NANO, quantity_text
from engine.reasons import Reason
from tests.engine.bench import DAY, DOLLAR, HOUR, START, Bench, document, kept_open
from tests.engine.desk_bench import DeskBench
from tests.engine.price_lists import random_price
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

METERS = {"units": MeterDefinition("use", "sum", "units", ("model",)), "uses": MeterDefinition("use", "count")}
NAMES = ("x", "y", "z")
Use = tuple[int, str, int]  # nano-units, model, event time
USES = st.lists(
    st.tuples(
        st.integers(0, 12).map(lambda units: units * NANO) | st.integers(0, 12 * NANO),
        st.sampled_from(NAMES),
        st.integers(-20 * DAY, 0) | st.integers(-HOUR, 0),
    ),
    min_size=1,
    max_size=14,
)


def catalogue(source: random.Random) -> CatalogueDocument:
    prices = {name: random_price(source, "units", model=name) for name in NAMES}
    return CatalogueDocument(METERS, {"plan": PlanDefinition("USD", prices | {"uses": random_price(source, "uses")})})


def folded(seed: int, uses: list[Use], *, thaw: bool = False) -> Bench:
    """The uses, in that order, under two versions, with lots that begin and end among them."""
    source = random.Random(seed)
    bench = Bench(*(kept_open(catalogue(source), 30) for _ in range(2)))
    bench.now = START - 21 * DAY
    bench.open(anchor_day=6)
    bench.scope("red")
    bench.cap("20")
    bench.cap_rule(80)
    bench.balance_rule("-5")
    bench.publish(2, START - 6 * DAY)
    bench.grant("soon-gone", "9", "promo", expires_us=START - 4 * DAY)
    bench.grant("x-only", "12", effective_us=START - 3 * DAY, scope=["x"], priority=1)
    bench.grant("rest", "30", effective_us=START - DAY)
    bench.now = START
    for number, (nano, model, shift_us) in enumerate(uses):
        if thaw:
            bench.partition.begin_cut()
            bench.partition.end_cut()
            assert bench.partition.freeze_idle(-1, 10) == 1
        data = {"units": quantity_text(nano), "model": model}
        scope = {"scope": "red"} if number % 2 else {}
        assert bench.use(at=START + shift_us, data=data, id=str(number), **scope) == "rated"
    return bench


def money(account: Account) -> dict[str, Any]:
    derived = account.derive()
    paid = derived.allocation
    owed = {key: (run.quantity, run.amount) for key, run in derived.running.items()}
    return {"owed": owed, "spend": derived.spend, "lots": (paid.remaining, paid.burnt, paid.expired), "debt": paid.debt}


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), USES, st.randoms(use_true_random=False))
def test_no_order_of_arrival_changes_what_any_model_owes(seed: int, uses: list[Use], source: random.Random) -> None:
    """Totals per (account, price, period) and the wallet are the same for any permutation; the charges sum to them."""
    shuffled = list(uses)
    source.shuffle(shuffled)
    one, other = folded(seed, uses), folded(seed, shuffled)
    assert money(one.account()) == money(other.account())
    for bench in (one, other):
        owed = sum(run.amount for run in bench.account().derive().running.values())
        assert sum(bench.charges()) == owed == sum(bench.account().derive().spend.values())
        paid = bench.allocation()
        assert owed == sum(paid.burnt.values()) + sum(paid.debt.values())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**9), USES)
def test_a_second_implementation_agrees_on_every_model(seed: int, uses: list[Use]) -> None:
    """Charges, spend of account and scopes (and so what is re-pricing), lots and alerts are the oracle's, to the last pico."""
    bench = folded(seed, uses)
    assert_the_same(bench, oracle_of(bench, paranoid=True), f"seed {seed}")


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9), USES)
def test_frozen_thawed_or_replayed_every_model_ends_in_the_same_bytes(seed: int, uses: list[Use]) -> None:
    """The fast path, the full path and a fold from the beginning tell the same lines and leave the same state."""
    one, thawed = folded(seed, uses), folded(seed, uses, thaw=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Guard, "rate", lambda *_: None)
        slow = folded(seed, uses)
    for other in (thawed.partition, slow.partition, one.replay()):
        assert one.partition.outputs.lines == other.outputs.lines
        assert one.partition.state_bytes() == other.state_bytes()


def owed_in_turn(price: PriceDefinition, *units: int) -> list[Fraction]:
    """The charges of events, one after the other, in dollars."""
    bench = Bench(CatalogueDocument({"units": METERS["units"]}, {"plan": PlanDefinition("USD", {"p": price})}))
    bench.open()
    for each in units:
        assert bench.use(data={"units": str(each), "model": "x"}) == "rated"
    return [Fraction(charge, DOLLAR) for charge in bench.charges()]


def test_package() -> None:
    """100 @ $8: 100, 101, 250, 301 units owe $8, $16, $24, $32."""
    price = PriceDefinition("units", "package", amount="8", per="100")
    assert owed_in_turn(price, 100, 1, 149, 51) == [8, 8, 8, 8]


def test_included_quantity_comes_before_the_model() -> None:
    """1,400 calls, 1,000 of them included: 400 are priced."""
    price = PriceDefinition("units", "per_unit", amount="1", included="1000")
    assert owed_in_turn(price, 900, 500) == [0, 400]


def test_the_maximum_comes_before_the_discount() -> None:
    """At most $100, less a tenth: $90 however much is used."""
    price = PriceDefinition("units", "per_unit", amount="1", maximum="100", discount="10")
    assert owed_in_turn(price, 50, 100, 1000) == [45, 45, 0]


def test_a_percentage_with_terms_for_each_event() -> None:
    """2.9 % and $0.30, at least $0.50, at most $20 each: $100, $1 and $10,000 owe $3.20, $0.50 and $20."""
    each: Any = {"per_event": "0.30", "event_minimum": "0.50", "event_maximum": "20"}
    price = PriceDefinition("units", "percentage", percent="2.9", **each)
    assert owed_in_turn(price, 100, 1, 10_000) == [Fraction("3.2"), Fraction("0.5"), 20]
    assert owed_in_turn(replace(price, maximum="5"), 100, 1, 10_000) == [
        Fraction("3.2"),
        Fraction("0.5"),
        Fraction("1.3"),
    ]


def test_a_percentage_alone_is_exact() -> None:
    """Of the sum, rounded once; not of each event."""
    assert owed_in_turn(PriceDefinition("units", "percentage", percent="2.9"), 1, 2) == [
        Fraction("0.029"),
        Fraction("0.058"),
    ]


def test_a_dynamic_price_takes_the_amount_that_the_event_carries_and_flags_what_it_estimates() -> None:
    """Cost x 1.2; without a cost the catalogue's estimate counts, as an estimate. A cost that is no number is refused."""
    meter = MeterDefinition("use", "sum", "cost")
    price = PriceDefinition("cost", "dynamic", factor="1.2", estimate="0.5")
    bench = Bench(CatalogueDocument({"cost": meter}, {"plan": PlanDefinition("USD", {"p": price})}))
    bench.open()
    assert [bench.use(data=data) for data in ({"cost": "2"}, {}, {"cost": None})] == ["rated"] * 3
    assert [Fraction(charge, DOLLAR) for charge in bench.charges()] == [
        Fraction("2.4"),
        Fraction("0.6"),
        Fraction("0.6"),
    ]
    told = [json.loads(line).get("usage_basis", "measured") for _, line in bench.partition.outputs.lines]
    assert told == ["measured", "estimated", "estimated"]
    assert bench.use(data={"cost": "much"}) == "dead_lettered.bad_quantity"
    assert_the_same(bench, oracle_of(bench, paranoid=True), "dynamic")


def test_without_an_estimate_nothing_is_guessed() -> None:
    """Unknown is not zero (R7): the missing amount sets the event aside, and that is told first."""
    meter = MeterDefinition("use", "sum", "cost", ("model",))
    price = PriceDefinition("cost", "dynamic", {"model": "x"}, factor="1.2")
    bench = Bench(CatalogueDocument({"cost": meter}, {"plan": PlanDefinition("USD", {"p": price})}))
    bench.open()
    for data in ({"model": "x"}, {"model": "y"}, {}):
        assert bench.use(data=data) == "dead_lettered.bad_quantity"
    assert_the_same(bench, oracle_of(bench, paranoid=True), "no estimate")


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 10**12), min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_fees_of_events_are_summed_in_any_order_and_taken_back_whole(amounts: list[int], source: random.Random) -> None:
    """The charges are the fees; what is cancelled takes its own fee with it; the oracle agrees."""
    each: Any = {"per_event": "0.30", "event_minimum": "0.50", "event_maximum": "20"}
    price = PriceDefinition("units", "percentage", percent="2.9", discount="10", **each)
    bench = Bench(CatalogueDocument({"units": METERS["units"]}, {"plan": PlanDefinition("USD", {"p": price})}))
    bench.open()
    events = [bench.event(quantity_text(amount), "x", id=str(number)) for number, amount in enumerate(amounts)]
    for event in events:
        assert bench.record(b"acme", event) == "rated"
    fees = [min(max(round(Fraction(29, 1000) * amount) + 3 * 10**8, 5 * 10**8), 20 * 10**9) for amount in amounts]
    owed = sum(run.amount for run in bench.account().derive().running.values())
    assert owed == sum(bench.charges()) == round(Fraction(9, 10) * 1000 * sum(fees))
    source.shuffle(events)
    for event in events:
        assert bench.correct(event) == "cancelled"
    assert {run.amount for run in bench.account().derive().running.values()} == {0}
    assert_the_same(bench, oracle_of(bench, paranoid=True), "fees")


def test_a_request_whose_fee_depends_on_how_many_events_come_cannot_be_bounded() -> None:
    """A hold keeps a quantity; a fee per event has none: the check says so, and names the price."""
    price = PriceDefinition("units", "percentage", {"model": "x"}, percent="2.9", per_event="0.30")
    bench = DeskBench(document(x=price))
    bench.open()
    bench.grant("l", "10")
    decision = bench.check("1")
    assert decision.reason is Reason.UNBOUNDED
    assert decision.binding is not None
    assert decision.binding.name == "x"
