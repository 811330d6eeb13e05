"""Law R1: what is owed is a function of quantities; charges are its differences, so no order of arrival changes totals."""

import random
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.money import NANO
from tests.engine.bench import DAY, DOLLAR, HOUR, MINUTE, START, Bench, document, per_unit, versions

MODELS = ("x", "y", "third", "tiered")
Use = tuple[int, str, int]  # nano-units, model, event time
USES = st.lists(
    st.tuples(
        st.integers(0, 40 * NANO) | st.integers(0, 40).map(lambda units: units * NANO),
        st.sampled_from(MODELS),
        st.integers(-9 * DAY, 0) | st.integers(-90 * MINUTE, 4 * MINUTE),
    ),
    min_size=1,
    max_size=14,
)


def folded(uses: list[Use], *, late_grant: bool = True) -> Bench:
    """The uses, in that order, between the same commands: lots with scopes and expiries, and a new price version."""
    bench = Bench(*versions())
    bench.now = START - 10 * DAY
    bench.open(anchor_day=6)
    bench.cap("300")
    bench.cap_rule(80)
    bench.publish(2, START - DAY)
    bench.grant("welcome", "25", "promo", priority=1, expires_us=START - 2 * DAY)
    bench.grant("only-x", "60", effective_us=START - 3 * DAY, scope=["x"], priority=1)
    bench.grant("soon", "40", effective_us=START - HOUR, expires_us=START + 10 * HOUR)
    bench.now = START
    for number, (nano, model, shift_us) in enumerate(uses):
        units = f"{nano // NANO}.{nano % NANO:09d}"
        assert bench.use(units, model, START + shift_us, id=str(number)) == "rated"
    if late_grant:
        bench.tick(START + HOUR)
        bench.grant("top-up", "30")
    return bench


def standing(bench: Bench) -> dict[str, Any]:
    """Everything about the account that money depends on."""
    derived = bench.account().derive()
    paid = derived.allocation
    return {
        "table": bench.account().table,
        "spend": derived.spend,
        "owed": {key: (run.quantity, run.amount) for key, run in derived.running.items()},
        "lots": (paid.remaining, paid.expired, paid.burnt),
        "debt": paid.debt,
        "balance": paid.balance,
    }


@settings(max_examples=60)
@given(USES, st.randoms(use_true_random=False))
def test_no_order_of_arrival_changes_what_is_owed_or_who_pays(uses: list[Use], source: random.Random) -> None:
    """Any permutation between the same commands ends in the same table, amounts, lots and debt."""
    numbered = sorted(uses, key=lambda use: use[2])
    shuffled = list(uses)
    source.shuffle(shuffled)
    assert standing(folded(uses)) == standing(folded(numbered)) == standing(folded(shuffled))


@settings(max_examples=60)
@given(USES)
def test_the_charges_of_the_events_sum_to_what_is_owed(uses: list[Use]) -> None:
    """Incremental equals batch: the sum of A(after) − A(before) is A of the whole, to the last pico."""
    bench = folded(uses, late_grant=False)
    adjusted = sum(sum(posted.values()) for posted in bench.account().adjusted.values())
    assert sum(bench.charges()) == sum(bench.account().derive().spend.values()) + adjusted
    paid = bench.allocation()
    assert sum(bench.charges()) == sum(paid.burnt.values()) + sum(paid.debt.values())


@settings(max_examples=60)
@given(st.lists(st.integers(0, 60 * NANO), min_size=1, max_size=12), st.sampled_from(["x", "third", "tiered"]))
def test_one_event_of_the_whole_owes_what_its_parts_owe(parts: list[int], model: str) -> None:
    """However usage is cut into events, a period owes A(q): here worked out from the tiers alone."""
    rates: dict[str, list[tuple[int | None, Fraction]]] = {
        "x": [(None, Fraction(DOLLAR))],
        "third": [(None, Fraction(1, 3))],
        "tiered": [(10, Fraction(30 * DOLLAR)), (50, Fraction(40 * DOLLAR)), (None, Fraction(50 * DOLLAR))],
    }
    units, floor, exact = Fraction(sum(parts), NANO), 0, Fraction(0)
    for up_to, rate in rates[model]:
        top = units if up_to is None else min(units, Fraction(up_to))
        exact += max(top - floor, Fraction(0)) * rate
        floor = up_to or 0
    for cut in (parts, [sum(parts)]):
        bench = Bench()
        bench.open()
        for nano in cut:
            bench.use(f"{nano // NANO}.{nano % NANO:09d}", model)
        assert sum(bench.charges()) == round(exact)


def test_graduated_tiers_charge_sixty_then_forty_as_they_charge_a_hundred() -> None:
    """The worked example: $2,400 and $2,000 are the $4,400 of a hundred units."""
    bench = Bench()
    bench.open()
    for units in (60, 40):
        bench.use(units, "tiered")
    assert bench.charges() == [2_400 * DOLLAR, 2_000 * DOLLAR]


def test_cells_of_one_price_are_one_quantity() -> None:
    """A is a function of the vector of cells: two models share a price's tiers."""
    bench = Bench()
    bench.open()
    for model in ("a", "b"):
        bench.use(type="llm.request", data={"model": model, "tokens": 600})
    tokens = [charge for charge in bench.charges() if charge != DOLLAR // 4]
    assert tokens == [600 * DOLLAR // 500, 400 * DOLLAR // 500 + 200 * DOLLAR // 1000]


def test_a_late_event_moves_the_tiers_of_its_own_period_only() -> None:
    """Usage of last month that comes today does not make today's usage dearer."""
    bench = Bench()
    bench.open()
    bench.use(10, "tiered", START - 12 * DAY)
    bench.use(10, "tiered")
    bench.use(10, "tiered", START - 12 * DAY)
    assert bench.charges() == [300 * DOLLAR, 300 * DOLLAR, 400 * DOLLAR]


def test_free_is_an_explicit_price_of_nothing() -> None:
    """A price of 0 charges 0 and counts all the same."""
    bench = Bench(document(x=per_unit("0", model="x")))
    bench.open()
    bench.use(5)
    assert (bench.charges(), bench.account().rated) == ([0], 1)
