"""What if: with nothing changed, exactly what was attributed; what is spread adds up; cost goes with the rates."""

from random import Random
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cost.attribution import Attribution
from engine.cost.economics import Costs, Idle, Takings, economics
from engine.cost.gpu_rates import HOUR_US, GpuRates, RateDocument
from engine.cost.refold import Refold
from engine.cost.rollup import Key, Sums
from engine.cost.token_costs import TokenClass
from engine.cost.whatif import Change, Scenario
from engine.cost.window import Bucket
from tests.engine.cost.histories import (
    HORIZONS,
    KEY,
    PARTITION,
    START_US,
    Arrival,
    S,
    apply,
    apply_all,
    history,
    new_fold,
    rates_document,
    rates_record,
)

SPAN_S = 200
LAST_US = START_US + SPAN_S * S
UNTIL_US = START_US + HOUR_US
END_US = UNTIL_US + HORIZONS.settle_us + HORIZONS.window_us


def document(per_hour: str = "2.49") -> RateDocument:
    return msgspec.convert(rates_document(1, per_hour), RateDocument)


def refolded(
    arrivals: list[Arrival], *, rates: GpuRates | None = None, every: int = 7, blob: bytes | None = None
) -> Refold:
    """As it is read: in the order of the log, settled now and then."""
    fold = Refold(PARTITION, KEY, HORIZONS, START_US, UNTIL_US, blob=blob, rates=rates)
    if blob is None:
        fold.apply(rates_record(), b"rates", START_US)
    for index, arrival in enumerate(arrivals, start=1):
        apply(fold, arrival, LAST_US)
        if fold.take_samples_from_us() is not None:
            for each in arrivals:
                if each.sample:
                    apply(fold, each, LAST_US)
        if index % every == 0:
            fold.settle()
    fold.finish(END_US)
    return fold


def attributed(arrivals: list[Arrival], rates: bytes | None = None) -> Attribution:
    """As the cost actor comes to it."""
    fold = new_fold()
    fold.apply(rates or rates_record(), b"rates", START_US)
    apply_all(fold, arrivals, LAST_US)
    fold.publish(END_US)
    return fold


def of_the_hour(fold: Attribution) -> dict[Key, Sums]:
    return {key: sums for key, sums in fold.rows() if key.hour_us < UNTIL_US}


def costs_of(fold: Refold) -> Costs:
    costs = Costs()
    costs.add(fold.rows(), fold.token_costs())
    return costs


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(1, 50))
def test_with_nothing_changed_it_is_what_was_attributed(random: Random, requests: int) -> None:
    """To the pico, row by row: from the records alone, with a checkpoint in place of its head, and under rates that are
    those that were published."""
    arrivals = history(random, requests, SPAN_S)
    actual = attributed(arrivals)
    assert sum(sums.amount for sums in of_the_hour(actual).values()) > 0
    base = refolded(arrivals)
    assert base.rows() == of_the_hour(actual)
    ups = [arrival for arrival in arrivals if b'"kind":"replica"' in arrival.value]
    rest = [arrival for arrival in arrivals if arrival not in ups]
    assert refolded(rest, blob=actual.blob()).rows() == base.rows()
    same = refolded(arrivals, rates=GpuRates(document()))
    assert same.rows() == base.rows()
    assert same.token_costs() == base.token_costs()
    takings = [Takings("llama", "acme", 5 * 10**12), Takings("odd", "zen", 3)]
    before = economics(costs_of(base), takings, Idle())
    assert Scenario(Change()).project(costs_of(same), takings) == before


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(1, 50), st.sampled_from(["spread", "nobody", "payer"]))
def test_what_is_spread_and_what_is_split_adds_up(random: Random, requests: int, policy: str) -> None:
    """Whoever bears it: all loaded costs and what nobody bears are the bill; classes of tokens and what cannot be split are
    each model's direct cost, and no class of the model without a profile has any."""
    fold = refolded(history(random, requests, SPAN_S))
    idle = {"spread": Idle(), "nobody": Idle(False), "payer": Idle(payers={"llama": "zen", "odd": "new"})}[policy]
    found = economics(costs_of(fold), [], idle)
    bill = sum(sums.amount for sums in fold.rows().values())
    assert sum(found.buckets.values()) == bill
    assert sum(line.loaded for line in found.lines) + found.unspread == bill
    assert sum(line.direct for line in found.lines) == found.buckets[Bucket.DIRECT]
    if policy == "nobody":
        assert found.unspread == bill - found.buckets[Bucket.DIRECT]
    for model in found.models:
        assert sum(model.costs.values()) + model.unsplit == model.direct
        assert model.unsplit >= 0
    odd = [model for model in found.models if model.model == "odd"]
    assert all(not any(model.costs.values()) for model in odd)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(1, 40), st.integers(1, 10**6), st.integers(1, 10**6))
def test_cost_is_linear_in_rates(random: Random, requests: int, one: int, other: int) -> None:
    """Under the sum of two rates every bucket costs what it costs under the one and under the other, but for the picos
    that each share of each window is rounded by; the GPUs exactly, where a rate is whole picos a microsecond."""

    def under(picos_per_us: int) -> tuple[dict[str, int], int]:
        text = f"{picos_per_us * HOUR_US // 10**12}.{picos_per_us * HOUR_US % 10**12:012d}"
        rates: dict[str, Any] = {"kind": "h100", "from_us": 0, "per_hour": text}
        plain = {"version": 1, "currency": "USD", "rates": [rates], "profiles": rates_document()["profiles"]}
        fold = refolded(arrivals, rates=GpuRates(msgspec.convert(plain, RateDocument)))
        rows = {key: sums for key, sums in fold.rows().items() if key.replica == "both"}
        buckets = economics(_costs(rows), [], Idle()).buckets
        return {bucket.value: amount for bucket, amount in buckets.items()}, sum(buckets.values())

    arrivals = history(random, requests, SPAN_S)
    (first, first_bill), (second, second_bill), (both, both_bill) = under(one), under(other), under(one + other)
    assert both_bill == first_bill + second_bill > 0
    for bucket, amount in both.items():
        assert abs(amount - first[bucket] - second[bucket]) <= 2 * requests * SPAN_S


def _costs(rows: dict[Key, Sums]) -> Costs:
    costs = Costs()
    costs.add(rows, {})
    return costs


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(1, 40), st.integers(10_000, 1_000_000))
def test_another_utilisation_moves_what_no_request_took(random: Random, requests: int, ppm: int) -> None:
    """Direct cost stays; the GPUs of replicas that served cost direct over utilisation, and the rest follows."""
    costs = costs_of(refolded(history(random, requests, SPAN_S)))
    found = Scenario(Change(utilisation_percent=f"{ppm // 10_000}.{ppm % 10_000:04d}")).project(costs, [])
    before = economics(costs, [], Idle())
    assert found.buckets[Bucket.DIRECT] == before.buckets[Bucket.DIRECT]
    assert sum(line.loaded for line in found.lines) + found.unspread == sum(found.buckets.values())
    gpus = found.buckets[Bucket.DIRECT] + found.buckets[Bucket.HARD_IDLE]
    assert abs(gpus * ppm - found.buckets[Bucket.DIRECT] * 10**6) <= 10**6 * len(costs.direct)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 1 << 32).map(Random), st.integers(5, 40), st.integers(0, 990_000))
def test_a_price_at_its_floor_leaves_the_margin_and_one_pico_less_does_not(
    random: Random, requests: int, ppm: int
) -> None:
    """Of whatever class of tokens, and whatever share of idle time it bears."""
    found = economics(costs_of(refolded(history(random, requests, SPAN_S))), [], Idle())
    for model in found.models:
        for each in TokenClass:
            floor, cost = model.price_floor(each, ppm), model.costs[each] * model.loaded
            if floor is None:
                continue
            tokens = model.counts[each] * model.direct
            for price, leaves in ((floor, True), (floor - 1, False)):
                # Of the price × tokens, at least `ppm` millionths are left beside the loaded cost of the class.
                left = price * tokens - cost * 10**6
                assert (left * 10**6 >= price * tokens * ppm) is leaves or (cost == 0 and price < 0)
