"""Law R6: a fee in advance is due when a period opens, and what of it is not used is given back when the plan changes or a
pause begins; at the close it has come to what the same fee in arrears would have."""

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import FeeDefinition
from engine.money import parse_amount
from tests.engine.bench import DAY, DOLLAR, HOUR, MINUTE, Bench, document, us
from tests.laws.test_r5_minimum import agrees
from tests.laws.test_r6_fees import due, with_fees

APRIL, MAY, JUNE = (us(f"2026-0{month}-01T00:00:00+00:00") for month in (4, 5, 6))


def paid_ahead(at: int = APRIL, amount: str = "30", **more: bool) -> Bench:
    bench = Bench(with_fees(base=FeeDefinition(amount, in_advance=True, **more)))
    bench.now = at
    bench.open()
    return bench


def test_it_is_posted_when_a_period_opens_and_once() -> None:
    """With the command that opens the account, and then at the first record of each period; not again at the close."""
    bench = paid_ahead(APRIL + 10 * DAY)
    assert due(bench) == [("base", "20", APRIL)]
    bench.grant("paid", "100")
    bench.tick(MAY - 1000)
    assert bench.allocation().balance == 80 * DOLLAR, "a paid lot settles what was due before it"
    bench.tick(MAY)
    bench.use(3)
    bench.tick(MAY + DAY)
    assert due(bench) == [("base", "20", APRIL), ("base", "30", MAY)]
    lines = [json.loads(line) for _, line in bench.partition.outputs.lines]
    assert [line["time_us"] for line in lines if "due" in line] == [APRIL + 10 * DAY, MAY]
    assert bench.account().derive().spend == {MAY: 3 * DOLLAR}, "it counts in no cap"
    agrees(bench)


def test_a_change_of_plan_gives_back_what_is_not_used_when_it_begins() -> None:
    """Ten of 30 days are left: $10 of April come back on 21 April, whenever the change was said. Not of what is whole."""
    bench = paid_ahead()
    bench.grant("paid", "100", effective_us=APRIL + DAY)
    bench.tick(APRIL + 2 * DAY)
    assert bench.sell("pro", APRIL + 20 * DAY) == "applied"
    bench.tick(APRIL + 20 * DAY - 1000)
    assert due(bench) == [("base", "30", APRIL)]
    bench.tick(APRIL + 20 * DAY)
    assert due(bench) == [("base", "30", APRIL), ("base", "-10", APRIL)]
    assert bench.allocation().balance == 80 * DOLLAR
    assert bench.sell("plan", MAY + 10 * DAY) == "applied"
    bench.tick(JUNE + 2 * DAY)
    assert due(bench)[2:] == [("base", "20.322580645161", MAY + 10 * DAY), ("base", "30", JUNE)]
    agrees(bench)
    whole = paid_ahead(prorate=False)
    assert whole.sell("pro", APRIL + 20 * DAY) == "applied"
    whole.tick(JUNE)
    assert due(whole) == [("base", "30", APRIL)]
    agrees(whole)


def test_a_pause_gives_back_the_rest_and_its_end_takes_what_is_left() -> None:
    """Paused for the last 20 days: $20 come back; resumed for the last ten: $10 are due."""
    bench = paid_ahead()
    assert bench.pause(APRIL + 10 * DAY) == "applied"
    assert bench.pause(APRIL + 20 * DAY, paused=False) == "applied"
    bench.tick(APRIL + 15 * DAY)
    assert [amount for _, amount, _ in due(bench)] == ["30", "-20"]
    bench.tick(MAY + DAY)
    assert [amount for _, amount, _ in due(bench)] == ["30", "-20", "10", "30"]
    agrees(bench)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**9))
def test_it_comes_to_what_the_same_fee_in_arrears_does(seed: int) -> None:
    """Over plans and pauses at any instants, said before or at them: per closed period the sum of its lines is the same to
    the last digit."""
    source = random.Random(seed)
    ahead = FeeDefinition("0.000000000031", in_advance=True)
    bench = Bench(with_fees(ahead=ahead, behind=FeeDefinition("0.000000000031")))
    bench.now = APRIL + source.randrange(20 * 24) * HOUR
    bench.open()
    for _ in range(source.randrange(6)):
        bench.now = min(bench.now + source.randrange(12 * DAY), MAY + 20 * DAY) // 1000 * 1000
        at = source.choice((None, bench.now + source.randrange(9 * DAY)))
        if source.random() < 0.5:
            bench.sell(source.choice(["plan", "pro"]), at)
        else:
            bench.pause(at, paused=source.random() < 0.5)
    bench.tick(JUNE + DAY)
    sums: dict[str, dict[int, int]] = {"ahead": {}, "behind": {}}
    for name, amount, start in due(bench):
        sums[name][start] = sums[name].get(start, 0) + parse_amount(amount)
    closed = {start: pico for start, pico in sums["ahead"].items() if start < JUNE and pico}
    assert closed == sums["behind"]
    agrees(bench)


def test_a_version_with_such_a_fee_wakes_for_no_pause_that_is_past() -> None:
    """Nobody had to wake for a pause until then. Looked at as of that pause, an hour's window would have had what was used
    since as well."""
    bench = Bench(document(), with_fees(base=FeeDefinition("30", in_advance=True)))
    bench.now = APRIL
    bench.open()
    bench.rule("r", "spend", threshold="10", window="rolling", length_s=3_600)
    bench.pause(APRIL + 2 * HOUR)
    bench.pause(APRIL + 2 * HOUR + MINUTE, paused=False)
    for at in (APRIL + 100 * MINUTE, APRIL + 3 * HOUR):
        bench.now = at
        bench.use(6)
    bench.publish(2, bench.now + HOUR)
    wakes = bench.partition.next_wake_us()
    assert wakes is not None and wakes > bench.now
    bench.tick(bench.now + MINUTE)
    assert bench.told() == []
    bench.tick(us("2026-05-01T00:00:00+00:00"))
    assert due(bench) == [("base", "30", bench.now)]
    assert bench.replay().state_bytes() == bench.partition.state_bytes()
    agrees(bench)
