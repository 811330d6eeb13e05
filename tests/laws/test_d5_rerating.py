"""Law D5: re-rating posts the exact difference, once; what was published and rated stays as it is."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.manual_lines import Rerating
from tests.engine.bench import DAY, Bench, document, graduated, per_unit, us
from tests.laws.test_c1_conservation import conserved
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

MARCH, APRIL = us("2026-03-01T00:00:00+00:00"), us("2026-04-01T00:00:00+00:00")
WRONG = document(x=per_unit("0.7", "3", model="x"), tiered=graduated(("5", "3"), (None, "9"), model="tiered"))


def used(source: random.Random, *, rightly_priced: bool) -> Bench:
    """Usage of March, under a wrong price from the 12th to the 20th; or as if the right one had never gone."""
    bench = Bench(document(), document() if rightly_priced else WRONG, document())
    bench.open()
    bench.grant("paid", "40")
    bench.now = MARCH + 10 * DAY + 12 * 3_600_000_000
    for number, day in ((2, 12), (3, 20)):
        bench.control({"kind": "catalogue", "version": number, "effective_us": MARCH + day * DAY})
    for _ in range(source.randrange(1, 12)):
        bench.now += source.randrange(3 * DAY)
        bench.use(source.randrange(9), source.choice(["x", "tiered"]))
    bench.now = max(bench.now, APRIL + 2 * DAY)
    for _ in range(source.randrange(4)):  # too late for March
        bench.use(source.randrange(9), source.choice(["x", "tiered"]), MARCH + source.randrange(11, 31) * DAY)
    return bench


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**9))
def test_after_it_an_account_owes_what_it_would_have_owed(seed: int) -> None:
    """To the last pico; and rated lines, closed totals and caps are as they were."""
    bench = used(random.Random(seed), rightly_priced=False)
    right = used(random.Random(seed), rightly_priced=True)
    spend, running = bench.account().derive().spend, [*bench.account().derive().running]
    charges = bench.charges()
    for price in ("x", "tiered"):
        assert bench.rerate(price, Rerating(1, MARCH + 12 * DAY, MARCH + 20 * DAY), "wrong-week") in (
            *("applied", "refused.no_difference"),
        )
        conserved(bench.account())
    assert bench.balance() == right.balance()
    assert (bench.account().derive().spend, [*bench.account().derive().running]) == (spend, running)
    assert bench.charges() == charges
    assert_the_same(bench, oracle_of(bench, paranoid=True), f"seed {seed}")
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
