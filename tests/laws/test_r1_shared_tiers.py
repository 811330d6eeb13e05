"""Law R1: units of several prices fill shared tiers in a declared order, whatever the order of arrival."""

import json
import random
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.catalog import CatalogueDocument, PriceDefinition, SharedTiersDefinition, TierDefinition
from engine.holds import seal_token
from tests.engine.bench import DAY, DOLLAR, HOUR, KEY, MINUTE, START, Bench, document, us
from tests.engine.desk_bench import DeskBench
from tests.engine.shared_life import live
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")
NAMES = ("x", "y", "third")
LISTED = ("y", "x", "third")
REACHED = (("x",), ("y",), ("third",), ("x", "y"), ("y", "third"))  # what a request may come to use
ENDS = (100, 150)  # units; the last tier is open
RATES = {"x": (10, 8, 9), "y": (3, 1, 2), "third": (4, 5, 0)}  # dollars a unit, tier by tier
DEAREST = ("x", "third", "y")


def tiered(name: str, model: str = "graduated", rates: tuple[int | str, ...] | None = None) -> PriceDefinition:
    of = zip(rates or RATES[name], (*map(str, ENDS), None), strict=True)
    rows = tuple(TierDefinition(str(rate), "1", end) for rate, end in of)
    return PriceDefinition("units", model, {"model": name}, tiers=rows)  # type: ignore[arg-type]


def sharing(
    model: str = "graduated", order: Any = "dearest_first", changed: dict[str, PriceDefinition] | None = None
) -> CatalogueDocument:
    """x, y and `third` share their tiers."""
    whole = document(**({name: tiered(name, model) for name in NAMES} | (changed or {})))
    tiers = {"units": SharedTiersDefinition(LISTED, order)}
    plans = {name: replace(plan, shared_tiers=tiers) if name == "plan" else plan for name, plan in whole.plans.items()}
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


def lines_of(bench: Bench, last: int) -> list[list[Any]]:
    lines = [json.loads(raw) for _, raw in bench.partition.outputs.lines][-last:]
    return [[line[key] for key in ("price", "quantity", "amount", "tiers")] + [line.get("repricing")] for line in lines]


def by_the_book(used: dict[str, int], model: str, order: tuple[str, ...]) -> dict[str, int]:
    """What the law says in the plainest words: unit by unit."""
    found, place = dict.fromkeys(NAMES, 0), 0
    for name in order:
        for _ in range(used[name]):
            place += 1
            reached = place if model == "graduated" else sum(used.values())
            found[name] += RATES[name][sum(reached > end for end in ENDS)]
    return found


usage = st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 40), st.integers(0, 27)), min_size=1, max_size=14)


@settings(max_examples=80, deadline=None)
@given(
    usage,
    st.sampled_from((("graduated", "dearest_first"), ("graduated", "as_listed"), ("volume", "dearest_first"))),
    st.randoms(use_true_random=False),
)
def test_the_totals_do_not_depend_on_the_order_of_arrival(
    events: list[tuple[str, int, int]], shared: tuple[str, str], shuffled: random.Random
) -> None:
    """Per price and in the wallet; and they are what the law says, unit by unit."""
    standings = []
    for _ in range(2):
        bench = opened(sharing(*shared))
        bench.grant("money", "3000")
        bench.grant("of y", "20", scope=["y"])
        bench.now = START + 14 * DAY
        for name, units, day in events:
            bench.use(units, name, at=START + MINUTE + day * 12 * HOUR)
        paid = bench.account().derive().allocation
        standings.append((owed(bench), paid.remaining, paid.debt))
        told = [json.loads(raw) for _, raw in bench.partition.outputs.lines]
        assert sum(Fraction(line["amount"]) for line in told) == sum(standings[-1][0].values())
        shuffled.shuffle(events)
    assert standings[0] == standings[1]
    used = {name: sum(units for other, units, _ in events if other == name) for name in NAMES}
    order = LISTED if shared[1] == "as_listed" else DEAREST
    assert standings[0][0] == by_the_book(used, shared[0], order)


@settings(max_examples=40, deadline=None)
@given(usage, st.sampled_from(("dearest_first", "as_listed")))
def test_of_equal_rates_all_owe_what_one_price_with_all_the_units_would(
    events: list[tuple[str, int, int]], order: str
) -> None:
    """So sharing moves no money by itself."""
    alike = {name: tiered(name, rates=(4, 1, 3)) for name in NAMES}
    bench, alone = opened(sharing(order=order, changed=alike)), opened(document(x=tiered("x", rates=(4, 1, 3))))
    for name, units, _ in events:
        bench.use(units, name)
        alone.use(units, "x")
    assert sum(owed(bench).values()) == owed(alone)["x"]


def test_the_worked_values() -> None:
    """80 of y are $240. 40 of x lie before them: $400, and 20 of y are behind 100 now: $40 less, no charge of x's own."""
    bench = opened()
    bench.scope("team")
    bench.use(80, "y")
    bench.use(40, "x", scope="team")
    assert lines_of(bench, 3) == [
        ["y", "80", "240", [[1, "80"]], None],
        ["x", "40", "400", [[1, "40"]], None],
        ["y", "0", "-40", [[1, "-20"], [2, "20"]], "-40"],
    ]
    assert sum(bench.account().scopes["team"].spend.values()) == 400 * DOLLAR
    assert owed(bench) == {"x": 400, "y": 200, "third": 0}
    other = opened()
    other.use(40, "x")
    other.use(80, "y")
    assert owed(other) == owed(bench)
    summed = opened(sharing("volume"))
    summed.use(80, "y")
    summed.use(40, "x")
    assert lines_of(summed, 2) == [
        ["x", "40", "320", [[2, "40"]], None],
        ["y", "0", "-160", [[1, "-80"], [2, "80"]], "-160"],
    ]
    assert owed(summed) == {"x": 320, "y": 80, "third": 0}


def test_an_allowance_is_a_first_tier_of_nothing() -> None:
    """The same quantities owe the same, in any order, in both ways to say it."""
    free = {name: tiered(name, rates=(0, RATES[name][0], RATES[name][0])) for name in NAMES}
    bench = opened(sharing(changed=free))
    for name, units in (("y", 90), ("x", 20), ("third", 30)):
        bench.use(units, name)
    assert owed(bench) == {"x": 0, "y": 40 * 3, "third": 0}


def test_a_correction_moves_the_others_back() -> None:
    """As if the event had never been."""
    bench = opened()
    bench.use(80, "y")
    extra = bench.event(40, "x")
    bench.record(b"acme", extra)
    assert bench.correct(extra) == "cancelled"
    assert owed(bench) == {"x": 0, "y": 240, "third": 0}


def test_what_comes_for_a_closed_period_is_the_difference_of_the_whole_of_it() -> None:
    """80 of y in March. 40 of x come when it is closed: $400, and $40 less for y."""
    bench = opened()
    bench.use(80, "y")
    bench.now = APRIL + 3 * DAY
    bench.use(40, "x", at=START + MINUTE)
    posted = {name: pico // DOLLAR for of in bench.account().adjusted.values() for name, pico in of.items()}
    assert posted == {"x": 400, "y": -40}
    assert owed(bench) == {"x": 0, "y": 240, "third": 0}


def test_a_new_version_holds_from_the_next_period_on() -> None:
    """Tiers are shared as they were when the period began; a price that is new stands alone until the next."""
    bench = opened(sharing(), sharing("volume", changed={"x": tiered("x", "volume", (1, 1, 1))}))
    bench.now += DAY
    assert bench.publish(2, bench.now + 6 * MINUTE) == "catalogue"
    bench.now += DAY
    bench.use(4, "x")
    bench.use(100, "y")
    assert owed(bench) == {"x": 40, "y": 96 * 3 + 4 * 1, "third": 0}
    bench.now = APRIL + DAY
    bench.use(4, "x")
    bench.use(100, "y")
    assert owed(bench) == {"x": 44, "y": 96 * 3 + 4 + 100, "third": 0}


def test_what_is_agreed_with_an_account_shares_nothing() -> None:
    """It takes the place of all terms of the price."""
    bench = opened()
    assert bench.agree("x", {"model": "per_unit", "amount": "2"}) == "refused.mid_period"
    assert bench.agree("x", {"model": "per_unit", "amount": "2"}, from_us=APRIL) == "applied"
    bench.now = APRIL + DAY
    bench.use(70, "x")
    bench.use(100, "y")
    assert owed(bench) == {"x": 140, "y": 300, "third": 0}


@pytest.mark.parametrize("model", ["graduated", "volume"])
def test_most_usage_takes_the_fast_path(model: str) -> None:
    """As long as no price lies in two tiers, and none comes to the end of its own."""
    bench = opened(sharing(model))
    full = 0
    for number in range(300):
        bench.use("0.1", NAMES[number % 3])
        full += bench.account().unguarded
    assert full < 30


def lived(seed: int) -> Bench:
    """Late and cancelled usage, quantity grants, scoped lots, other plans, caps of a scope, two versions."""
    source = random.Random(f"tiers {seed}")
    order = source.choice(("dearest_first", "as_listed"))
    rough = PriceDefinition(
        "units",
        "graduated",
        {"model": "y"},
        tiers=tuple(TierDefinition(f"0.00000000000{1 + n}", "3", end) for n, end in enumerate((*map(str, ENDS), None))),
        discount="12.5",
    )
    first = sharing("graduated", order) if source.random() < 0.6 else sharing("volume")
    second = sharing("graduated", order, {"y": rough}) if source.random() < 0.6 else sharing("volume")
    bench = opened(first, second)
    bench.grant("of y", "30", scope=["y"])
    bench.grant("money", "100")
    bench.scope("team")
    bench.cap("400", account="acme", scope="team")
    bench.cap("90", "listed", basis="list")
    bench.cap_rule(50, "listed", cap="listed")
    live(bench, source, 80, NAMES, (1, 17, 45, "2.5"))
    return bench


@pytest.mark.parametrize("seed", range(16))
def test_engine_and_oracle_agree_on_lives_of_them(seed: int) -> None:
    """Whatever happened in them; frozen and cut."""
    bench = lived(seed)
    assert_the_same(bench, oracle_of(bench, paranoid=seed % 4 == 0), f"tiers {seed}")
    assert bench.replay().state_bytes() == bench.partition.state_bytes()


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(NAMES), st.integers(1, 80)), max_size=6),
    st.lists(st.tuples(st.sampled_from(REACHED), st.integers(1, 120)), min_size=1, max_size=6),
    st.randoms(use_true_random=False),
    st.sampled_from((("graduated", "dearest_first"), ("graduated", "as_listed"), ("volume", "dearest_first"))),
)
def test_what_is_settled_within_holds_never_takes_more_than_there_is(
    used: list[tuple[str, int]],
    asked: list[tuple[tuple[str, ...], int]],
    source: random.Random,
    shared: tuple[str, str],
) -> None:
    """Holds on prices that push each other into other tiers, some on one or another of them, tiers that rise and fall: no
    debt, whatever is used; and no settlement makes less available (law L4)."""
    bench = DeskBench(sharing(*shared))
    bench.open()
    bench.grant("money", "900")
    bench.grant("of y", "60", scope=["y"])
    bench.grant_units("given", "x", "9")
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
        before = bench.wallet()
        bench.use(source.randint(0, units), name, hold=seal_token(KEY, hold))
        after = bench.wallet()
        assert after[0] - after[1] >= before[0] - before[1]
    assert not sum(bench.account().derive().allocation.debt.values())


@pytest.mark.parametrize(
    ("shared", "dearest"),
    [
        (("graduated", "dearest_first"), {"x": 10 + 1 + 1, "third": 5 + 1, "y": 3}),
        (("volume", "dearest_first"), {"x": None, "third": None, "y": None}),
    ],
)
def test_what_a_unit_may_cost_under_a_lease_knows_whom_it_moves(
    shared: tuple[str, str], dearest: dict[str, int | None]
) -> None:
    """A unit of x costs $10, and moves one of `third` from $4 to $5, and one of y from $1 to $2. Of a sum nobody knows."""
    bench = DeskBench(sharing(*shared))
    bench.open()
    bench.grant("money", "900")
    found = {}
    for name in NAMES:
        terms = bench.partition.lease_terms(bench.leased(2, "1", name))
        assert terms is not None
        (ceiling,) = terms.ceilings
        found[name] = None if ceiling.pico is None else ceiling.pico // DOLLAR
    assert found == dearest
