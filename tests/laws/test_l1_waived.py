"""Law L1: waived is cumulative max(0, spend - cap), recomputed; waived units still move tiers."""

import json
import random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import PriceDefinition
from engine.manual_lines import Rerating
from engine.reasons import Reason
from tests.engine.bench import DAY, DOLLAR, HOUR, SECOND, Bench, document, pico_of, us
from tests.engine.desk_bench import DeskBench
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

APRIL = us("2026-04-01T00:00:00+00:00")
BOTH = PriceDefinition("units", "per_unit", {"model": "x"}, amount="1")


def waiving(dollars: str = "10", **more: Any) -> DeskBench:
    bench = DeskBench()
    bench.open(**more)
    bench.grant("l", "1000")
    assert bench.cap(dollars, beyond="waived", hard=False) == "applied"
    return bench


def told(bench: Bench) -> list[tuple[str, str | None, int]]:
    """(price or cap, what it is due for, pico) of the newest record's lines."""
    last = bench.log[-1].offset
    lines = [json.loads(raw) for offset, raw in bench.partition.outputs.lines if offset == last]
    return [(line["price"], line.get("due"), pico_of(line["amount"])) for line in lines]


def test_what_is_spent_beyond_the_cap_has_a_line_of_its_own_and_never_reaches_the_wallet() -> None:
    """Waived = max(0, spend - cap), as a line beside the charge."""
    bench = waiving()
    bench.use(8)
    assert told(bench) == [("x", None, 8 * DOLLAR)]
    bench.use(5)
    assert told(bench) == [("x", None, 5 * DOLLAR), ("monthly", "waived", -3 * DOLLAR)]
    bench.use(2)
    assert told(bench) == [("x", None, 2 * DOLLAR), ("monthly", "waived", -2 * DOLLAR)]
    assert bench.balance() == 990 * DOLLAR
    assert sum(bench.account().derive().spend.values()) == 15 * DOLLAR


def test_waived_units_still_move_tiers() -> None:
    """Behind 50 units of which most were waived, the next month's first unit costs what it did, and this month's next $50."""
    bench = waiving()
    bench.use(50, "tiered")
    assert told(bench) == [("tiered", None, 1900 * DOLLAR), ("monthly", "waived", -1890 * DOLLAR)]
    bench.use(1, "tiered")
    assert told(bench) == [("tiered", None, 50 * DOLLAR), ("monthly", "waived", -50 * DOLLAR)]


@given(st.integers(0, 10**9))
def test_waived_is_what_is_spent_beyond_the_cap_in_any_order(seed: int) -> None:
    """By month, from the start or recomputed by a change of the cap; lines, wallet and replay agree, as does the oracle."""
    source = random.Random(seed)
    bench = Bench()
    bench.open(anchor_day=source.choice((1, 15, 31)))
    bench.grant("scoped", "15", scope=["tiered"])
    bench.grant("l", str(source.choice((5, 60, 900))))
    most = "25"
    if source.random() < 0.7:
        bench.cap(most, beyond="waived")
    for _ in range(14):
        bench.now += source.randrange(3 * DAY)
        late = source.choice((0, 0, source.randrange(20 * DAY)))
        roll = source.random()
        if roll < 0.15:
            most = source.choice(("3", "40"))
            bench.cap(most, beyond="waived")
        else:
            bench.use(source.randrange(1, 9), source.choice(("x", "tiered", "third")), at=bench.now - late)
    bench.cap(most, beyond="waived")
    derived = bench.account().derive()
    open_from = bench.account().open_from(bench.now)
    for month, spend in derived.spend.items():
        if month >= open_from:
            found = sum(pico for start, pico in derived.waived.items() if bench.account().month_of(start) == month)
            assert found == max(0, spend - pico_of(most + ".0"))
    paid = derived.allocation
    posted = sum(sum(charges.values()) for charges in bench.account().adjusted.values())
    burnt = sum(paid.burnt.values()) - sum(paid.refunded.values()) + sum(paid.debt.values())
    assert burnt == sum(derived.spend.values()) - sum(derived.waived.values()) + posted
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
    assert_the_same(bench, oracle_of(bench), f"seed {seed}")


def test_a_closed_month_keeps_what_was_waived_and_late_usage_of_it_is_waived_too() -> None:
    """An adjustment is the difference of the whole: also of what is not owed."""
    bench = waiving()
    bench.use(12)
    bench.now = APRIL + 2 * DAY
    bench.use(3, at=APRIL - DAY)
    assert told(bench) == [("x", None, 3 * DOLLAR), ("monthly", "waived", -3 * DOLLAR)]
    assert bench.balance() == 990 * DOLLAR
    bench.cap("5", beyond="waived")
    bench.command("remove_cap", cap="monthly")
    assert bench.balance() == 990 * DOLLAR
    bench.use(20)
    assert bench.balance() == 970 * DOLLAR


def test_a_check_knows_that_what_comes_is_waived() -> None:
    """Where the cap is used up, nothing more is owed; before that a hold reserves what may be owed."""
    bench = waiving("10")
    bench.void("l")
    bench.now += HOUR
    bench.grant("m", "10")
    bench.use(4)
    held = bench.hold_for("6")
    assert bench.wallet() == (6 * DOLLAR, 6 * DOLLAR)
    bench.spend_held(held, 6)
    assert bench.refused("500") is None
    bench.use(500)
    assert (bench.balance(), bench.debt()) == (0, 0)


def test_a_hold_uses_no_cap_up_before_it_is_used() -> None:
    """Were it released, what was admitted behind it would be owed after all, and its lot pays no more."""
    bench = waiving("10")
    bench.void("l")
    bench.now += HOUR
    bench.grant("m", "10", expires_us=bench.now + 30 * SECOND)
    held = bench.hold_for("10")
    bench.now += 31 * SECOND
    assert bench.refused("3") is Reason.CREDIT_DEPLETED
    bench.spend_held(held, 10)
    assert bench.refused("3") is None


def test_only_one_cap_of_the_accounts_month_waives() -> None:
    """What is waived is known of a month of all that an account is charged."""
    bench = waiving()
    bench.scope("red")
    for more in ({"scope": "red"}, {"window": "day"}, {"meter": "units", "currency": None}, {"basis": "list"}):
        assert bench.cap("5", beyond="waived", **more) == "refused.bad_beyond"
    assert bench.cap("5", "other", beyond="waived") == "refused.bad_beyond"
    assert bench.cap("5", beyond="free") == "refused.bad_beyond"
    assert bench.cap("5", beyond="owed") == "applied"
    assert bench.cap("5", "other", beyond="waived") == "applied"


def test_what_a_cap_waives_of_is_not_rated_again() -> None:
    """The difference would depend on all that was spent."""
    bench = Bench(document(), document(x=BOTH))
    bench.open()
    bench.use(3)
    bench.publish(2, bench.now + HOUR)
    bench.now += 2 * HOUR
    bench.cap("10", beyond="waived")
    asked = Rerating(1, bench.account().period_of(bench.now), APRIL)
    body: dict[str, Any] = {"rerate": "r", "price": "x", "version": 1, "from_us": asked.from_us, "to_us": asked.to_us}
    body |= {"currency": "USD", "differences": [], "reason": "a wrong price", "by": "ann"}
    assert bench.command("rerate", **body) == "refused.waived"
    assert_the_same(bench, oracle_of(bench), "waived")
