"""Law R3: max, min, latest, average and unique count, whatever order their events come in and however often."""

import random
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.catalog import (
    BadCatalogue,
    CatalogueDocument,
    PlanDefinition,
    PriceDefinition,
    check_succession,
    compile_catalogue,
)
from engine.meters import MeterDefinition
from engine.money import NANO, quantity_text
from engine.snapshot import account_fields, decode_account, encode_account
from tests.engine.bench import DAY, DOLLAR, HOUR, START, Bench, Store, graduated, kept_open, per_unit
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of
from tests.laws.test_r1_marginal import standing

KINDS = ("max", "min", "latest", "average", "unique_count")


def document(*kinds: str, limit: str | None = None) -> CatalogueDocument:
    """A meter of each kind, by region; beside them a count, and a sum."""
    meters = {
        kind: MeterDefinition("gauge", kind, "value", ("region",), limit=limit if kind == "unique_count" else None)  # type: ignore[arg-type]
        for kind in kinds
    }
    meters["events"] = MeterDefinition("gauge", "count")
    meters["units"] = MeterDefinition("use", "sum", "units", ("model",))
    prices = {kind: graduated(("10", "3"), (None, "2"), meter=kind) for kind in kinds}
    prices["average"] = per_unit("0.000000000001", "3", meter="average")
    prices = {name: price for name, price in prices.items() if name in kinds}
    prices |= {"events": per_unit("0.01", meter="events"), "units": per_unit("1", meter="units")}
    return CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)})


VALUES = st.integers(0, 30).map(str) | st.integers(0, 40 * NANO).map(quantity_text)
EVENTS = st.lists(
    st.tuples(VALUES, st.sampled_from(["eu", "us"]), st.integers(0, 9).map(lambda step: step * 17 * HOUR)),
    min_size=1,
    max_size=10,
)


def folded(events: list[tuple[str, str, int]], order: list[int], *kinds: str) -> Bench:
    """Over two periods, with lots that begin and end inside them, so that there are many segments."""
    bench = Bench(kept_open(document(*kinds), 30))
    bench.now = START - 9 * DAY
    bench.open(anchor_day=7)
    bench.scope("team")
    bench.cap("40")
    bench.cap_rule(50)
    bench.grant("first", "20", "promo", priority=1, expires_us=START - 2 * DAY)
    bench.grant("second", "15", effective_us=START - 4 * DAY, priority=1)
    bench.now = START
    for number in order:
        value, region, back = events[number]
        data = {"value": value, "region": region}
        outcome = bench.use(at=START - back, type="gauge", data=data, id=str(number), scope="team")
        assert outcome in ("rated", "duplicate")
    return bench


@settings(max_examples=25)
@given(EVENTS, st.sets(st.sampled_from(KINDS), min_size=1), st.randoms(use_true_random=False))
def test_no_order_and_no_repetition_changes_what_is_owed_or_who_pays(
    events: list[tuple[str, str, int]], kinds: set[str], source: random.Random
) -> None:
    """The same table, amounts and wallet; and the oracle's, charge by charge."""
    order = list(range(len(events)))
    shuffled = order * 2
    source.shuffle(shuffled)
    first, second = folded(events, order, *sorted(kinds)), folded(events, shuffled, *sorted(kinds))
    assert standing(first) == standing(second)
    assert first.account().aggregates == second.account().aggregates
    assert_the_same(first, oracle_of(first), str(kinds))
    assert_the_same(second, oracle_of(second, paranoid=len(events) < 4), str(kinds))


@settings(max_examples=40)
@given(EVENTS)
def test_the_charges_sum_to_what_the_period_comes_to(events: list[tuple[str, str, int]]) -> None:
    """Incremental equals batch: worked out here from the events alone, by period and region."""
    bench = folded(events, list(range(len(events))), *KINDS)
    account = bench.account()
    come_to: dict[str, Callable[[list[tuple[int, str, Fraction]]], Fraction]] = {
        "max": lambda seen: max(value for *_, value in seen),
        "min": lambda seen: min(value for *_, value in seen),
        "latest": lambda seen: max(seen)[-1],
        "average": lambda seen: Fraction(sum(value for *_, value in seen), len(seen)),
    }
    cells: dict[tuple[int, str], list[tuple[int, str, Fraction]]] = {}
    for number, (value, region, back) in enumerate(events):
        at = START - back
        cells.setdefault((account.period_of(at), region), []).append((at, str(number), Fraction(value)))
    texts: dict[tuple[int, str], set[str]] = {}
    for value, region, back in events:
        texts.setdefault((account.period_of(START - back), region), set()).add(value)
    for kind in KINDS:
        found: dict[tuple[int, str], int] = {}
        for start, row in account.table.items():
            for (price, cell), nano in row.items():
                if price == kind:
                    key = (account.period_of(start), cell[0])
                    found[key] = found.get(key, 0) + nano
        if kind == "unique_count":
            assert found == {key: len(seen) * NANO for key, seen in texts.items()}
        else:
            assert found == {key: round(come_to[kind](seen) * NANO) for key, seen in cells.items()}
    assert all(nano >= 0 for row in account.table.values() for nano in row.values())
    assert sum(bench.charges()) == sum(account.derive().spend.values())


@settings(max_examples=15)
@given(EVENTS, st.integers(0, 10))
def test_cuts_freezing_and_replay_end_in_the_same_bytes(events: list[tuple[str, str, int]], at: int) -> None:
    """A checkpoint anywhere, loaded and gone on with, is the replay from the start."""
    bench = folded(events, list(range(len(events))), *KINDS)
    at = len(bench.log) - min(at, len(events))
    store, partition = Store(), bench.fresh()
    for record in bench.log[:at]:
        partition.apply(*record)
    store.checkpoint(partition)
    resumed = store.load_into(bench.fresh())
    for record in bench.log[at:]:
        resumed.apply(*record)
    account, again = bench.account(), resumed.account("acme")
    assert again is not None
    assert encode_account(again) == encode_account(account)
    assert encode_account(decode_account(encode_account(account), bench.partition._book)) == encode_account(account)
    shown = account_fields(encode_account(account))
    assert any(name.startswith("aggregate of unique_count ") for name in shown)


def charged(kind: str, *sent: tuple[int, str]) -> list[str]:
    """What each event (hours, value) is charged, in dollars, in the order of arrival."""
    bench = Bench(document(kind))
    bench.open()
    bench.now = START + 100 * HOUR
    for hours, value in sent:
        bench.use(at=START + hours * HOUR, type="gauge", data={"value": value, "region": "eu"})
    return [str(Fraction(charge, DOLLAR)) for charge in bench.charges() if charge != DOLLAR // 100]


def test_what_each_event_is_charged() -> None:
    """$3 up to 10, $2 beyond; what an event takes back it takes back with a charge below 0."""
    assert charged("max", (1, "4"), (2, "12"), (3, "5")) == ["12", "22", "0"]
    assert charged("latest", (1, "4"), (3, "2"), (2, "9")) == ["12", "-6", "0"]
    assert charged("min", (1, "4"), (2, "12"), (3, "3")) == ["12", "0", "-3"]
    assert charged("unique_count", (1, "a"), (2, "b"), (3, "a")) == ["3", "3", "0"]


def test_a_tie_in_time_goes_to_the_greater_source_then_id() -> None:
    """In either order of arrival."""
    for order in (("a", "b"), ("b", "a")):
        bench = Bench(document("latest"))
        bench.open()
        for source in order:
            data = {"value": "1" if source == "a" else "2", "region": "eu"}
            bench.use(at=START, type="gauge", data=data, source=source)
        (row,) = bench.account().table.values()
        assert row["latest", ("eu",)] == 2 * NANO


def test_a_unique_count_has_a_declared_limit() -> None:
    """One value more is set aside; one that is known already is not."""
    bench = Bench(document("unique_count", limit="2"))
    bench.open()
    outcomes = [bench.use(type="gauge", data={"value": value, "region": "eu"}) for value in ("a", "b", "c", "a", True)]
    assert outcomes == ["rated", "rated", "dead_lettered.too_many_values", "rated", "dead_lettered.too_many_values"]
    assert "more than 2 different values of price unique_count in cell eu" in bench.letter().detail
    assert bench.account().rated == 3
    assert_the_same(bench, oracle_of(bench), "limit")


@pytest.mark.parametrize(
    ("aggregation", "points", "says"),
    [
        ("average", 3, "only a max, min or latest keeps change points"),
        ("sum", 0, "only a max, min or latest keeps change points"),
        ("max", -1, "must be 0 to 1000"),
        ("latest", 1_001, "must be 0 to 1000"),
    ],
)
def test_change_points_are_of_what_one_reading_is_the_answer(aggregation: str, points: int, says: str) -> None:
    """And there is a limit to how many an account may be made to keep."""
    meters = {"m": MeterDefinition("e", aggregation, "value", change_points=points)}  # type: ignore[arg-type]
    with pytest.raises(BadCatalogue) as caught:
        compile_catalogue(
            1, CatalogueDocument(meters, {"plan": PlanDefinition("USD", {"m": per_unit("1", meter="m")})})
        )
    (fault,) = caught.value.faults
    assert fault.path == ("meters", "m", "change_points")
    assert says in fault.message


@pytest.mark.parametrize(("before", "after"), [("sum", "max"), ("max", "sum"), ("max", "latest"), ("count", "average")])
def test_a_meter_never_becomes_of_another_kind(before: str, after: str) -> None:
    """What was counted cannot be counted again otherwise."""

    def of(kind: str) -> CatalogueDocument:
        meters = {"m": MeterDefinition("e", kind, None if kind == "count" else "value")}  # type: ignore[arg-type]
        return CatalogueDocument(meters, {"plan": PlanDefinition("USD", {"m": per_unit("1", meter="m")})})

    for kind in (before, after):
        compile_catalogue(1, of(kind))
    check_succession(of("count"), of("sum"))
    with pytest.raises(BadCatalogue) as caught:
        check_succession(of(before), of(after))
    assert [fault.path for fault in caught.value.faults] == [("meters", "m", "aggregation")]


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_price_begins_with_the_next_period(kind: str) -> None:
    """What does not add up has no part that is of one version: a period keeps the price that it began with."""
    dearer = document(kind)
    plan = dearer.plans["plan"]
    prices = plan.prices | {kind: per_unit("100", meter=kind)}
    dearer = CatalogueDocument(dearer.meters, {"plan": PlanDefinition("USD", prices)})
    bench = Bench(document(kind), dearer)
    bench.now = START
    bench.open(anchor_day=12)
    assert bench.publish(2, START + HOUR) == "catalogue"
    bench.now = START + 2 * DAY
    for hours in (1, 2, 40):  # the period ends after 36, and closes after 60
        data = {"value": "4", "region": "eu"}
        assert bench.use(at=START + hours * HOUR, type="gauge", data=data) == "rated"
    come_to = 1 if kind == "unique_count" else 4
    begun = Fraction(4, 3) if kind == "average" else Fraction(come_to * 3 * DOLLAR)
    owed = {period: run.amount for (period, price), run in bench.account().derive().running.items() if price == kind}
    assert list(owed.values()) == [round(begun), come_to * 100 * DOLLAR]
    assert_the_same(bench, oracle_of(bench), kind)


@pytest.mark.parametrize("model", ["percentage", "dynamic"])
def test_no_price_of_each_event_is_of_what_does_not_add_up(model: str) -> None:
    """A fee of each event and the max of a period are two things: publication refuses to mix them."""
    price = PriceDefinition("m", model, **({"percent": "2"} if model == "percentage" else {"factor": "1"}))  # type: ignore[arg-type]
    meters = {"m": MeterDefinition("e", "max", "value")}
    with pytest.raises(BadCatalogue) as caught:
        compile_catalogue(1, CatalogueDocument(meters, {"plan": PlanDefinition("USD", {"m": price})}))
    assert ("plans", "plan", "prices", "m", "model") in [fault.path for fault in caught.value.faults]
