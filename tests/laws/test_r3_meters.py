"""Law R3: filters, groups and derived dimensions say what is counted, whatever order it comes in and however often."""

import json
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import CatalogueDocument, PlanDefinition, PriceDefinition
from engine.meters import BandDefinition, ConditionDefinition, DimensionDefinition, MeterDefinition
from tests.engine.bench import DAY, DOLLAR, HOUR, START, Bench, graduated, per_unit
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r1_marginal import standing

BILLED = {"input": ("completed", "aborted", "error"), "output": ("completed", "aborted")}
TEAMS = {"red": 1, "blue": 2}  # dollars a unit


def document() -> CatalogueDocument:
    """Which finish states bill which tokens; the context band of a request prices all of it."""
    meters = {
        name: MeterDefinition(
            "llm", "sum", f"{name}_tokens", ("context",), {"status": ConditionDefinition(one_of=states)}
        )
        for name, states in BILLED.items()
    }
    meters["calls"] = MeterDefinition(
        "llm",
        "count",
        None,
        ("region",),
        {"status": ConditionDefinition(none_of=("refused",)), "trial": ConditionDefinition(exists=False)},
    )
    meters["long_waits"] = MeterDefinition(
        "llm", "count", when={"tags.wait_s": ConditionDefinition(above="1.5", at_most="60", exists=True)}
    )
    dimensions = {
        "context": DimensionDefinition("input_tokens", (BandDefinition("short", "1000"), BandDefinition("long"))),
        "region": DimensionDefinition("zone", values={"eu-1": "eu", "eu-2": "eu"}, otherwise="far", default="far"),
    }
    prices = {
        "in-short": graduated(("2000", "0.002"), (None, "0.001"), meter="input", context="short"),
        "in-long": per_unit("0.004", meter="input", context="long"),
        "out-short": per_unit("0.003", meter="output", context="short"),
        "out-long": per_unit("0.006", meter="output", context="long"),
        "calls": per_unit("0.000000000001", "3", meter="calls"),
        "waits": per_unit("0.5", meter="long_waits"),
    }
    return CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}, dimensions)


STATES = ("completed", "aborted", "refused", "error")
EVENTS = st.lists(
    st.fixed_dictionaries(
        {
            "status": st.sampled_from(STATES),
            "input_tokens": st.integers(0, 3000) | st.sampled_from(["1000", "1000.5", 1001]),
            "output_tokens": st.integers(0, 500),
        },
        optional={
            "zone": st.sampled_from(["eu-1", "eu-2", "us-1", 7, True]),
            "trial": st.booleans(),
            "tags": st.fixed_dictionaries({"wait_s": st.sampled_from([1, "1.5", "1.500000001", 60, 61])}),
        },
    ),
    min_size=1,
    max_size=12,
)


def folded(events: list[dict[str, Any]], order: list[int]) -> Bench:
    bench = Bench(document())
    bench.now = START - 3 * DAY
    bench.open(anchor_day=9)
    bench.grant("welcome", "2", "promo", expires_us=START - DAY)
    bench.grant("short", "3", scope=["in-short", "out-short"])
    bench.now = START
    for number in order:
        at = START - (number % 5) * 14 * HOUR
        outcome = bench.use(at=at, type="llm", data=events[number], id=str(number))
        assert outcome in ("rated", "duplicate")
    return bench


@settings(max_examples=40)
@given(EVENTS, st.randoms(use_true_random=False))
def test_no_order_and_no_repetition_changes_what_is_counted(
    events: list[dict[str, Any]], source: random.Random
) -> None:
    """Permutations and duplicates of a period's events: the same table, amounts and wallet, and the oracle's."""
    once = list(range(len(events)))
    again = once * 2
    source.shuffle(again)
    first, second = folded(events, once), folded(events, again)
    assert standing(first) == standing(second)
    assert_the_same(second, oracle_of(second), "shuffled")


@settings(max_examples=40)
@given(EVENTS)
def test_each_finish_state_bills_the_buckets_that_its_meters_name(events: list[dict[str, Any]]) -> None:
    """Failure policy is data: what a state does not bill is rated and remembered, and counts nowhere."""
    bench = folded(events, list(range(len(events))))
    expected: Counter[str] = Counter()
    for event in events:
        band = "short" if float(event["input_tokens"]) <= 1000 else "long"
        for bucket, states in BILLED.items():
            if event["status"] in states:
                expected[f"{bucket.removesuffix('put')}-{band}"] += round(float(event[f"{bucket}_tokens"]) * 10**9)
    found: Counter[str] = Counter()
    account = bench.account()
    for row in (*account.table.values(), *account.late.values()):
        for (price, _), quantity in row.items():
            if price not in ("calls", "waits"):
                found[price] += quantity
    assert found == expected
    assert account.rated == len(events)


def test_an_event_that_no_meter_counts_is_rated_once_and_leaves_no_trace_in_money() -> None:
    """It is known by its id, settles its hold, and neither opens a segment nor moves where a grant may begin."""
    bench = Bench(document())
    bench.open()
    refused = {"status": "refused", "input_tokens": 5, "output_tokens": 0}
    assert bench.use(type="llm", data=refused, id="a", at=START + 1) == "rated"
    assert bench.use(type="llm", data=refused, id="a", at=START + 1) == "duplicate"
    account = bench.account()
    assert (account.rated, account.table, account.newest_event_us, bench.charges()) == (1, {}, 0, [])
    assert_the_same(bench, oracle_of(bench), "uncounted")


@pytest.mark.parametrize(
    ("change", "reason", "told"),
    [
        ({"status": None}, "bad_dimension", "meter calls: data.status is missing"),
        ({"status": []}, "bad_dimension", "meter calls: data.status: a list"),
        ({"input_tokens": None}, "bad_quantity", "data.input_tokens (meter input)"),
        ({"tags": {"wait_s": "soon"}}, "bad_dimension", "meter long_waits: data.tags.wait_s"),
        ({"zone": []}, "bad_dimension", "data.zone (dimension region)"),
        ({"zone": "x", "input_tokens": "1e3"}, "bad_quantity", "data.input_tokens (meter input)"),
    ],
)
def test_what_cannot_be_told_is_set_aside_with_the_field_and_the_meter(
    change: dict[str, Any], reason: str, told: str
) -> None:
    """Unknown is not zero: no filter and no band guesses, and the failed event changes nothing."""
    bench = Bench(document())
    bench.open()
    data = {"status": "completed", "input_tokens": 5, "output_tokens": 5} | change
    assert bench.use(type="llm", data=data) == f"dead_lettered.{reason}"
    assert told in bench.letter().detail
    assert (bench.account().table, bench.account().rated) == ({}, 0)
    assert_the_same(bench, oracle_of(bench), "set aside")


def test_the_band_of_a_request_prices_all_of_it() -> None:
    """A long context costs more from its first token on, and moves no tier of the short ones."""
    bench = Bench(document())
    bench.open()
    for tokens in (1000, 1001):
        bench.use(type="llm", data={"status": "error", "input_tokens": tokens, "output_tokens": 7, "trial": True})
    assert bench.charges() == [2 * DOLLAR, 1001 * DOLLAR * 4 // 1000]


def test_a_rated_line_shows_the_derived_value() -> None:
    """What a dimension was worked out to stands in the line's cell."""
    bench = Bench(document())
    bench.open()
    bench.use(type="llm", data={"status": "completed", "input_tokens": 1, "output_tokens": 1, "zone": "eu-2"})
    cells = [json.loads(line)["cell"] for _, line in bench.partition.outputs.lines]
    assert cells == [{"region": "eu"}, {"context": "short"}, {"context": "short"}]


def test_an_uncounted_event_is_amended_to_a_counted_one_and_back() -> None:
    """A correction from and to a state that bills nothing leaves nothing behind, nor is anything missed."""
    bench = Bench(document())
    bench.open()
    bench.scope("team")
    data = {"input_tokens": 5, "output_tokens": 5}
    refused, done = (
        bench.event(type="llm", id="a", scope="team", data=data | {"status": status})
        for status in ("refused", "completed")
    )
    assert bench.record(b"acme", refused) == "rated"
    assert bench.account().table == {}
    assert bench.correct(refused, done) == "amended"
    counted = standing(bench)["owed"]
    assert any(amount for _, amount in counted.values())
    assert_the_same(bench, oracle_of(bench), "amended")
    assert bench.correct(done, refused, 1) == "amended"
    assert all(amount == 0 for _, amount in standing(bench)["owed"].values())
    assert_the_same(bench, oracle_of(bench), "amended back")


def test_a_tag_of_the_request_is_a_dimension_of_prices_and_stands_on_the_line() -> None:
    """Red pays $1 a unit, blue $2; what else a request is tagged with is told, and costs nothing."""
    meter = MeterDefinition("use", "sum", "units", ("tags.team",))
    prices = {
        team: PriceDefinition("units", "per_unit", {"tags.team": team}, str(rate)) for team, rate in TEAMS.items()
    }
    bench = Bench(CatalogueDocument({"units": meter}, {"plan": PlanDefinition("USD", prices)}))
    bench.open()
    for team in TEAMS:
        bench.use(data={"units": 3, "tags": {"team": team, "run": "r-7"}})
    lines = [json.loads(raw) for _, raw in bench.partition.outputs.lines]
    assert [(line["cell"], line["amount"], line["tags"]) for line in lines] == [
        ({"tags.team": "red"}, "3", {"team": "red", "run": "r-7"}),
        ({"tags.team": "blue"}, "6", {"team": "blue", "run": "r-7"}),
    ]
