"""Law R9: a charge is its own, and the re-pricing of earlier units. Own goes to the scopes and the margin of the event,
re-pricing to the account's root."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import PriceDefinition, TierDefinition
from engine.cost.margin import By, MarginFold
from engine.money import NANO, quantity_text
from tests.engine.bench import DOLLAR, Bench, document, pico_of

VOLUME = PriceDefinition(
    "units", "volume", {"model": "x"}, tiers=(TierDefinition("0.5", up_to="100"), TierDefinition("0.3"))
)


def bench_of(price: PriceDefinition) -> Bench:
    bench = Bench(document(x=price))
    bench.open()
    bench.scope("red")
    return bench


def parts(bench: Bench) -> list[tuple[int, int]]:
    """(own, re-pricing) of each line, in pico."""
    found = []
    for _, raw in bench.partition.outputs.lines:
        line = json.loads(raw)
        repricing = pico_of(line.get("repricing", "0"))
        found.append((pico_of(line["amount"]) - repricing, repricing))
    return found


def test_the_golden_row() -> None:
    """100 units at $0.50, then 30 more at $0.30: $50, then -$11 = $9 of their own - $20 of the hundred before."""
    bench = bench_of(VOLUME)
    bench.use(100, scope="red")
    bench.use(30, scope="red")
    assert parts(bench) == [(50 * DOLLAR, 0), (9 * DOLLAR, -20 * DOLLAR)]
    assert sum(bench.account().scopes["red"].spend.values()) == 59 * DOLLAR
    assert sum(bench.account().derive().spend.values()) == 39 * DOLLAR


def test_a_request_earns_what_is_its_own_and_the_account_what_it_changed_before_it() -> None:
    """The golden row: its last request has a margin of $9, and no loss of $11; in all the account earns $39."""
    bench = bench_of(VOLUME)
    bench.use(100)
    bench.use(30)
    fold = MarginFold()
    for _, line in bench.partition.outputs.lines:
        fold.apply_rated(0, line, bench.now)
    by_request = fold.sums([By.MODEL, By.REQUEST])
    assert sorted((key.model, sums.requests, sums.revenue) for key, sums in by_request) == [
        ("", 0, -20 * DOLLAR),
        ("x", 1, 9 * DOLLAR),
        ("x", 1, 50 * DOLLAR),
    ]
    assert {key.request for key, _ in by_request if not key.model} == {""}
    ((_, account),) = fold.sums([By.ACCOUNT])
    assert (account.revenue, account.requests) == (39 * DOLLAR, 2)
    hours = {key.model: sums.revenue for key, sums in ((row.key, row.sums) for row in fold.changes())}
    assert hours == {"x": 59 * DOLLAR, "": -20 * DOLLAR}


def test_a_team_pays_nothing_for_what_others_use_and_nothing_less_for_it() -> None:
    """The event that reaches a tier moves the account's total, and only its own units move its team's."""
    bench = bench_of(VOLUME)
    bench.scope("blue")
    bench.use(100, scope="blue")
    bench.use(1, scope="red")
    spent = {name: sum(scope.spend.values()) for name, scope in bench.account().scopes.items()}
    assert spent == {"": 0, "blue": 50 * DOLLAR, "red": 3 * DOLLAR // 10}


def test_the_fee_of_a_new_tier_is_a_new_price_of_what_was_used_before_and_the_first_is_its_own() -> None:
    """Terms hold for all units of the period, the fee among them: whoever uses first brings it in."""
    tiers = (TierDefinition("1", up_to="10", flat="5"), TierDefinition("1", flat="2"))
    bench = bench_of(PriceDefinition("units", "volume", {"model": "x"}, tiers=tiers))
    bench.use(10)
    bench.use(1)
    assert parts(bench) == [(15 * DOLLAR, 0), (DOLLAR, -3 * DOLLAR)]


def test_what_a_begun_package_or_a_step_costs_is_the_event_s_own() -> None:
    """Nothing that was used before has another price by it."""
    package = PriceDefinition("units", "package", {"model": "x"}, "8", "100")
    bench = bench_of(package)
    for units in (99, 1, 1):
        bench.use(units)
    assert parts(bench) == [(8 * DOLLAR, 0), (0, 0), (8 * DOLLAR, 0)]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 60 * NANO), min_size=1, max_size=10))
def test_own_is_the_units_at_the_rate_of_the_tier_they_reach(parts_used: list[int]) -> None:
    """And own and re-pricing add up to the charge, rounded as it is."""
    bench = bench_of(VOLUME)
    used = 0
    for nano in parts_used:
        bench.use(quantity_text(nano))
        used += nano
        rate = 500 if used <= 100 * NANO else 300
        assert parts(bench)[-1][0] == nano * rate
    assert sum(bench.charges()) == used * (500 if used <= 100 * NANO else 300)
