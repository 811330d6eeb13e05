"""Law R5: a quantity grant serves units of one price behind what the price includes, and before its model."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.holds import seal_token
from engine.money import NANO
from engine.reasons import Reason
from tests.engine.bench import DAY, DOLLAR, KEY, MINUTE, START, Bench, document, graduated, per_unit, us
from tests.engine.desk_bench import DeskBench

MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")


def opened(bench: Bench | None = None) -> Bench:
    bench = Bench() if bench is None else bench
    bench.open()
    return bench


def owed(bench: Bench, price: str = "x") -> int:
    """Pico, of all periods."""
    return sum(run.amount for (_, name), run in bench.account().derive().running.items() if name == price)


def taken(bench: Bench) -> dict[str, int]:
    """Whole units that each grant has served."""
    return {grant: units // NANO for grant, units in bench.account().derive().taken.items()}


def test_golden_1400_calls_with_a_grant_of_1000_are_400_priced() -> None:
    """LAWS, golden values."""
    bench = opened()
    assert bench.grant_units("pack", "x", "1000") == "applied"
    bench.now += MINUTE
    bench.use(1400)
    assert (owed(bench), taken(bench)) == (400 * DOLLAR, {"pack": 1000})


@pytest.mark.parametrize(("used", "served", "charged"), [(100, 0, 0), (150, 50, 0), (180, 60, 20), (300, 60, 80)])
def test_what_is_included_goes_first_then_the_grant_then_the_models_tiers(used: int, served: int, charged: int) -> None:
    """100 included, 60 granted; the first 20 units behind both are $1 each, further ones half of it."""
    terms = replace(graduated(("20", "1"), (None, "0.5"), model="x"), included="100")
    bench = opened(Bench(document(x=terms)))
    bench.grant_units("pack", "x", "60")
    bench.now += MINUTE
    bench.use(used)
    assert (owed(bench), taken(bench).get("pack", 0)) == (charged * DOLLAR, served)


def test_it_serves_its_own_price_alone() -> None:
    """A thousand units of x are nothing to y."""
    bench = opened()
    bench.grant_units("pack", "x", "1000")
    bench.now += MINUTE
    bench.use(3, "y")
    assert (owed(bench, "y"), taken(bench)) == (3 * DOLLAR, {})


def test_it_begins_behind_what_was_rated_and_ends_with_its_period() -> None:
    """$5 used before stay charged; ten units granted, four served, six expired with March."""
    bench = opened()
    bench.use(5)
    bench.grant_units("pack", "x", "10")
    bench.now += MINUTE
    bench.use(4)
    assert (owed(bench), taken(bench)) == (5 * DOLLAR, {"pack": 4})
    bench.now = APRIL + DAY
    bench.use(2)
    assert (owed(bench), taken(bench)) == (7 * DOLLAR, {"pack": 4})


def test_it_may_end_earlier_and_its_rest_be_voided() -> None:
    """Of two grants the one that ends first is spent first; what is voided serves no more."""
    bench = opened()
    bench.grant_units("long", "x", "10")
    bench.grant_units("short", "x", "10", expires_us=START + DAY)
    bench.now += MINUTE
    bench.use(12)
    assert taken(bench) == {"short": 10, "long": 2}
    assert bench.command("void_quantity_grant", grant="long") == "applied"
    bench.now += MINUTE
    bench.use(3)
    assert (owed(bench), taken(bench)) == (3 * DOLLAR, {"short": 10, "long": 2})


def test_tiers_and_terms_see_only_what_no_grant_serves() -> None:
    """$30 up to 10 units, $40 beyond: 15 used and 10 granted are 5 at $30."""
    bench = opened()
    bench.grant_units("pack", "tiered", "10")
    bench.now += MINUTE
    bench.use(15, "tiered")
    assert owed(bench, "tiered") == 150 * DOLLAR


def test_a_new_version_goes_on_behind_what_was_priced() -> None:
    """R6: 3 units priced at $1, then $2 each; 4 of the units were the grant's."""
    bench = opened(Bench(document(), document(x=per_unit("2", model="x"))))
    bench.grant_units("pack", "x", "4")
    bench.now += MINUTE
    bench.use(7)
    bench.publish(2, bench.now + 10 * MINUTE)
    bench.now += 20 * MINUTE
    bench.use(5)
    assert owed(bench) == 13 * DOLLAR


def test_late_usage_of_a_closed_period_is_priced() -> None:
    """Like a lot, what a grant has left expired with its period. It takes no more there than it took; so what is cancelled
    of its four units makes room for the two that came late."""
    bench = opened()
    bench.grant_units("pack", "x", "10")
    bench.now += MINUTE
    event = bench.event(4, "x", bench.now)
    bench.record(b"acme", event)
    bench.tick(APRIL + 3 * DAY)
    assert bench.use(2, at=START + DAY) == "rated"
    charged = {period: sum(by.values()) for (_, period), by in bench.account().adjusted.items()}
    assert charged == {MARCH: 2 * DOLLAR}
    assert bench.record(b"acme", bench.correction(event)) == "cancelled"
    charged = {period: sum(by.values()) for (_, period), by in bench.account().adjusted.items()}
    assert charged == {MARCH: 0}
    assert taken(bench) == {"pack": 4}


def uses(seed: int) -> list[tuple[int, float]]:
    """(instant, units) of events on both sides of grants' boundaries."""
    source = random.Random(seed)
    return [(START + source.randrange(3 * DAY), source.choice([1, 2.5, 7])) for _ in range(source.randrange(2, 9))]


def told(order: Sequence[tuple[int, float]], seed: int) -> tuple[int, dict[str, int], int, int]:
    source = random.Random(seed)
    terms = replace(graduated(("6", "3"), (None, "1"), model="x"), included=source.choice(["0", "3"]))
    bench = opened(Bench(document(x=terms)))
    for number in range(source.randrange(1, 4)):
        at = START + source.randrange(DAY)
        bench.grant_units(f"g{number}", "x", source.choice(["2", "9.5"]), effective_us=at, expires_us=at + DAY)
    bench.now = START + 3 * DAY
    for at, units in order:
        bench.use(units, at=at)
    charged = sum(bench.charges())
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
    return owed(bench), bench.account().derive().taken, bench.balance(), charged


@settings(max_examples=40)
@given(st.integers(0, 10**9))
def test_what_is_owed_and_served_does_not_depend_on_the_order_of_arrival(seed: int) -> None:
    """R1; and the charges of the events sum to what is owed, to the last digit."""
    events = uses(seed)
    one, other = told(events, seed), told(sorted(events, reverse=True), seed)
    assert one == other
    assert one[0] == one[3] == -one[2]


def test_the_check_knows_what_a_grant_serves() -> None:
    """No money at all: ten units are admitted, and the eleventh is not, held or used."""
    bench = DeskBench()
    bench.open()
    assert bench.refused("1") is Reason.CREDIT_DEPLETED
    bench.grant_units("pack", "x", "10")
    bench.now += MINUTE
    first = bench.hold_for("6")
    assert bench.refused("5") is Reason.CREDIT_DEPLETED
    second = bench.hold_for("4")
    bench.use(6, hold=seal_token(KEY, first))
    bench.use(4, hold=seal_token(KEY, second))
    assert (bench.debt(), bench.refused("1")) == (0, Reason.CREDIT_DEPLETED)


def test_a_hold_that_may_fall_on_two_prices_is_held_on_both() -> None:
    """The dear price that a grant serves does not stand for the cheap one that it does not."""
    bench = DeskBench(document(x=per_unit("5", model="x")))
    bench.open()
    bench.grant_units("pack", "x", "10")
    bench.now += MINUTE
    reach: dict[str, Any] = {"reach": {"model": ("x", "y")}, "data": {}}
    assert bench.refused("3", **reach) is Reason.CREDIT_DEPLETED
    bench.grant("money", "3")
    bench.wait(MINUTE)
    assert bench.check("3", **reach).reason is None


def test_a_cap_of_a_scope_knows_that_what_a_grant_served_reached_no_tier() -> None:
    """$9 each for the first 4 units, free beyond: 4 were used, and all of them served, so the next one costs $9."""
    bench = DeskBench(document(x=graduated(("4", "9"), (None, "0"), model="x")))
    bench.open()
    bench.grant("money", "100")
    bench.scope("red")
    bench.cap("5", "small", scope="red")
    bench.grant_units("pack", "x", "4")
    bench.now += MINUTE
    bench.use(4)
    assert bench.refused("1", scope="red") is Reason.CAP_REACHED
