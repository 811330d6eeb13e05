"""Law R1: an allowance that several prices share is allotted in a declared order, whatever the order of arrival."""

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import AllowanceDefinition, CatalogueDocument
from engine.holds import seal_token
from tests.engine.bench import DAY, DOLLAR, HOUR, KEY, MINUTE, START, Bench, document, per_unit, us
from tests.engine.desk_bench import DeskBench
from tests.engine.shared_life import live
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")
NAMES = ("x", "y", "third")
LISTED = ("y", "x", "third")  # the cheapest first
REACHED = (("x",), ("y",), ("third",), ("x", "y"), ("y", "third"))  # what a request may come to use
RATES = {"x": 3, "y": 1, "third": 2}  # dollars a unit


def sharing(quantity: str = "100", order: str = "dearest_first", **changed: Any) -> CatalogueDocument:
    """x, y and `third` draw on an allowance."""
    prices = {name: per_unit(str(rate), model=name) for name, rate in RATES.items()} | changed
    whole = document(**prices)
    shared = msgspec.convert({"quantity": quantity, "prices": LISTED, "order": order}, AllowanceDefinition)
    plans = {
        name: replace(plan, allowances={"units": shared}) if name == "plan" else plan
        for name, plan in whole.plans.items()
    }
    return replace(whole, plans=plans)


def opened(*documents: CatalogueDocument) -> Bench:
    bench = Bench(*(documents or (sharing(),)))
    bench.open()
    return bench


def owed(bench: Bench) -> dict[str, int]:
    """Whole dollars by price, of all periods."""
    found = dict.fromkeys(NAMES, 0)
    for (_, name), run in bench.account().derive().running.items():
        found[name] += run.amount // DOLLAR
    return found


def by_the_book(used: dict[str, int], quantity: int, order: tuple[str, ...]) -> dict[str, int]:
    """What the law says in the plainest words: unit by unit."""
    free = [name for name in order for _ in range(used[name])][:quantity]
    return {name: RATES[name] * (used[name] - free.count(name)) for name in NAMES}


usage = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 40), st.integers(0, 27)), min_size=1, max_size=14)


@settings(max_examples=60, deadline=None)
@given(usage, st.sampled_from(("dearest_first", "as_listed")), st.randoms(use_true_random=False))
def test_the_totals_do_not_depend_on_the_order_of_arrival(
    events: list[tuple[str, int, int]], order: str, shuffled: random.Random
) -> None:
    """Per price and in the wallet; and they are what the law says, unit by unit."""
    standings = []
    for _ in range(2):
        bench = opened(sharing(order=order))
        bench.grant("money", "1000")
        bench.grant("of y", "20", scope=["y"])
        bench.now = START + 14 * DAY
        for name, units, day in events:
            bench.use(units, name, at=START + MINUTE + day * 12 * HOUR)
        paid = bench.account().derive().allocation
        standings.append((owed(bench), paid.remaining, paid.debt))
        shuffled.shuffle(events)
    assert standings[0] == standings[1]
    used = {name: sum(units for other, units, _ in events if other == name) for name in NAMES}
    served = LISTED if order == "as_listed" else ("x", "third", "y")
    assert standings[0][0] == by_the_book(used, 100, served)


def test_charges_sum_to_what_is_owed_and_a_displaced_unit_is_re_pricing() -> None:
    """90 of y are free; 20 of x are, too, and take the place of 10 of them: $10, which is no charge of x's own."""
    bench = opened()
    bench.scope("team")
    bench.use(90, "y")
    bench.use(20, "x", scope="team")
    lines = [json.loads(raw) for _, raw in bench.partition.outputs.lines]
    assert [[line[key] for key in ("price", "cell", "quantity", "amount", "tiers")] for line in lines] == [
        ["y", {"model": "y"}, "90", "0", [[-3, "90"]]],
        ["x", {"model": "x"}, "20", "0", [[-3, "20"]]],
        ["y", {}, "0", "10", [[1, "10"], [-3, "-10"]]],
    ]
    assert [line.get("repricing") for line in lines] == [None, None, "10"]
    assert sum(bench.account().scopes["team"].spend.values()) == 0
    assert owed(bench) == {"x": 0, "y": 10, "third": 0}


def test_a_correction_gives_the_room_back() -> None:
    """As if the event had never been."""
    bench = opened()
    bench.use(90, "y")
    extra = bench.event(50, "x")
    bench.record(b"acme", extra)
    assert owed(bench)["y"] == 40
    assert bench.correct(extra) == "cancelled"
    assert owed(bench) == {"x": 0, "y": 0, "third": 0}


def test_what_comes_for_a_closed_period_is_the_difference_of_the_whole_of_it() -> None:
    """100 of y in March. 10 of x come when it is closed: free, but 10 of y are not any more."""
    bench = opened()
    bench.use(100, "y")
    bench.now = APRIL + 3 * DAY
    bench.use(10, "x", at=START + MINUTE)
    account = bench.account()
    assert sum(sum(charges.values()) for charges in account.adjusted.values()) == 10 * DOLLAR
    assert {name for charges in account.adjusted.values() for name in charges} == {"x", "y"}
    assert owed(bench) == {"x": 0, "y": 0, "third": 0}


def test_a_new_version_holds_from_the_next_period_on() -> None:
    """The allowance and the prices that draw on it are those that the period began with; a price that is new has none of it."""
    bench = opened(document(third=None, x=per_unit("3", model="x")), sharing("5"))
    bench.now += DAY
    assert bench.publish(2, bench.now + 6 * MINUTE) == "catalogue"
    bench.now += DAY
    bench.use(4, "x")
    bench.use(4, "third")
    assert owed(bench) == {"x": 12, "y": 0, "third": 8}
    bench.now = APRIL + DAY
    bench.use(4, "x")
    bench.use(4, "third")
    assert owed(bench) == {"x": 12, "y": 0, "third": 14}


def test_what_is_agreed_with_an_account_draws_on_no_allowance() -> None:
    """It takes the place of all terms of the price."""
    bench = opened()
    assert bench.agree("x", {"model": "per_unit", "amount": "2"}) == "refused.mid_period"
    assert bench.agree("x", {"model": "per_unit", "amount": "2"}, from_us=APRIL) == "applied"
    bench.now = APRIL + DAY
    bench.use(7, "x")
    bench.use(100, "y")
    assert owed(bench) == {"x": 14, "y": 0, "third": 0}


def test_a_price_that_shares_an_allowance_is_not_rated_again_alone() -> None:
    """What it owes depends on what else was used."""
    bench = opened(sharing(), sharing())
    bench.use(5, "x")
    bench.publish(2, bench.now + 6 * MINUTE)
    bench.now = APRIL + 3 * DAY
    asked: dict[str, Any] = {
        "price": "x",
        "version": 2,
        "from_us": MARCH,
        "to_us": APRIL,
        "differences": [[MARCH, "1"]],
    }
    why = {"reason": "r", "by": "b", "currency": "USD"}
    assert bench.command("rerate", rerate="again", **asked, **why) == "refused.bad_price"


def lived(seed: int) -> Bench:
    """Late and cancelled usage, quantity grants, scoped lots, other plans, caps of a scope, two versions."""
    source = random.Random(f"sharing {seed}")
    order = source.choice(("dearest_first", "as_listed"))
    bench = opened(sharing("60", order), sharing("30.5", y=per_unit("0.000000000001", "3", model="y")))
    bench.grant("of y", "30", scope=["y"])
    bench.grant("money", "100")
    bench.scope("team")
    bench.cap("40", account="acme", scope="team")
    live(bench, source, 70, NAMES, (1, 7, 25, "2.5"))
    return bench


@pytest.mark.parametrize("seed", range(12))
def test_engine_and_oracle_agree_on_lives_of_one(seed: int) -> None:
    """Whatever happened in them; frozen and cut."""
    bench = lived(seed)
    assert_the_same(bench, oracle_of(bench, paranoid=seed % 4 == 0), f"sharing {seed}")
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 30)), max_size=6),
    st.lists(st.tuples(st.sampled_from(REACHED), st.integers(1, 60)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.sampled_from(("dearest_first", "as_listed")),
)
def test_what_is_settled_within_holds_never_takes_more_than_there_is(
    used: list[tuple[str, int]], asked: list[tuple[tuple[str, ...], int]], source: random.Random, order: str
) -> None:
    """Holds on prices that push each other out of the allowance, some on one or another of them: no debt, whatever is used."""
    bench = DeskBench(sharing("50", order))
    bench.open()
    bench.grant("money", "60")
    bench.grant("of y", "10", scope=["y"])
    bench.now += MINUTE
    for name, units in used:
        if bench.check(str(units), name, hold_us=None).reason is None:
            bench.use(units, name)
    held = []
    for names, units in asked:
        hold = bench.check(str(units), data={}, reach={"model": names}).hold
        held += [(source.choice(names), units, hold)] if hold is not None else []
    source.shuffle(held)
    for name, units, hold in held:
        bench.use(source.randint(0, units), name, hold=seal_token(KEY, hold))
    assert not sum(bench.account().derive().allocation.debt.values())
