"""What a request may come to use: meters, cells, prices, and which of them stand for others."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.catalog import Catalogue, CatalogueDocument, PlanDefinition, compile_catalogue
from engine.meters import BandDefinition, ConditionDefinition, DimensionDefinition, MeterDefinition
from engine.reach import CELLS_ASKED_MAX, Part, Unreachable, dominates, reach_of, undominated
from tests.engine.bench import per_unit, priced

METERS = {
    "calls": MeterDefinition("chat", "count"),
    "input": MeterDefinition("chat", "sum", "input", ("model", "region")),
    "cached": MeterDefinition("chat", "sum", "cached", ("model",)),
    "input-too": MeterDefinition("chat", "sum", "input"),
}
PRICES = {
    "calls": per_unit("0", meter="calls"),
    "large": per_unit("3", meter="input", model="large"),
    "small-eu": per_unit("2", meter="input", model="small", region="eu"),
    "small-us": per_unit("1", meter="input", model="small", region="us"),
    "cached": per_unit("1", meter="cached"),
    "too": per_unit("1", meter="input-too"),
}
BOTH = (("input", "cached"),)


def reach(
    data: dict[str, str], open_: dict[str, tuple[str, ...]] | None = None, fields: Any = BOTH, event_type: str = "chat"
) -> tuple[Part, ...] | Unreachable:
    catalogue = compile_catalogue(1, CatalogueDocument(METERS, {"plan": PlanDefinition("USD", PRICES)}))
    return reach_of(catalogue, "plan", catalogue.plans["plan"], event_type, data, open_ or {}, fields)


def test_a_count_is_a_part_of_its_own_and_a_bound_reaches_the_prices_of_its_fields() -> None:
    assert reach({"model": "large", "region": "eu"}) == (
        Part(0, ("cached", "large"), ("large",)),
        Part(None, ("calls",), ("calls",)),
        Part(0, ("too",), ("too",)),
    )


def test_meters_of_one_field_all_take_it_and_never_share() -> None:
    parts = reach({"model": "large", "region": "eu"}, fields=(("cached",), ("input",)))
    assert not isinstance(parts, Unreachable)
    assert sorted((part.bound or 0, part.reached) for part in parts if part.bound is not None) == [
        (0, ("cached",)),
        (1, ("large",)),
        (1, ("too",)),
    ]


def test_a_dimension_that_is_open_reaches_every_value_it_may_take() -> None:
    parts = reach({"model": "large"}, {"model": ("small",), "region": ("eu", "us")})
    assert not isinstance(parts, Unreachable)
    assert parts[0].reached == ("cached", "large", "small-eu", "small-us")
    assert parts[0].held == ("large",)


def derived() -> Catalogue:
    """A band of the context, a condition on the status, a meter of an expression."""
    meters = {
        "input": MeterDefinition(
            "chat", "sum", "input", ("context",), {"status": ConditionDefinition(one_of=("done", "aborted"))}
        ),
        "credits": MeterDefinition("chat", "sum", expression="input * 0.5 + images * 3"),
        "refunds": MeterDefinition("chat", "count", when={"status": ConditionDefinition(one_of=("refused",))}),
    }
    bands = (BandDefinition("short", "1000"), BandDefinition("long"))
    prices = {
        "short": per_unit("1", meter="input", context="short"),
        "long": per_unit("2", meter="input", context="long"),
        "credits": per_unit("1", meter="credits"),
        "refunds": per_unit("0", meter="refunds"),
    }
    dimensions = {"context": DimensionDefinition("tokens", bands)}
    return compile_catalogue(1, CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}, dimensions))


@pytest.mark.parametrize(
    ("data", "open_", "reached"),
    [
        ({}, {}, {"short", "long", "credits", "refunds"}),
        ({"tokens": "1000"}, {}, {"short", "credits", "refunds"}),
        ({"tokens": "1000"}, {"tokens": ("1001",)}, {"short", "long", "credits", "refunds"}),
        ({"tokens": "1001", "status": "done"}, {}, {"long", "credits"}),
        ({"status": "refused"}, {}, {"credits", "refunds"}),
        ({}, {"status": ("refused", "done"), "tokens": ("5",)}, {"short", "credits", "refunds"}),
        ({"tokens": "many"}, {}, {"short", "long", "credits", "refunds"}),
    ],
)
def test_what_is_derived_reaches_all_that_it_may_come_to_and_nothing_that_is_ruled_out(
    data: dict[str, str], open_: dict[str, tuple[str, ...]], reached: set[str]
) -> None:
    parts = reach_of(derived(), "plan", derived().plans["plan"], "chat", data, open_, (("input",), ("credits",)))
    assert not isinstance(parts, Unreachable)
    assert {price for part in parts for price in part.reached} == reached


def test_an_expression_is_bounded_by_its_meter_and_by_nothing_else() -> None:
    assert reach_of(derived(), "plan", derived().plans["plan"], "chat", {}, {}, (("input", "images"),)) == Unreachable(
        "unbounded", "credits"
    )
    parts = reach_of(
        derived(), "plan", derived().plans["plan"], "chat", {"tokens": "1"}, {}, (("input",), ("credits",))
    )
    assert not isinstance(parts, Unreachable)
    assert {(part.bound, part.reached) for part in parts} == {(0, ("short",)), (1, ("credits",)), (None, ("refunds",))}


@pytest.mark.parametrize(
    ("kind", "fields", "told"),
    [
        ("max", (("v",),), Part(0, ("m",), ("m",))),
        ("max", (), Unreachable("unbounded", "v")),
        ("unique_count", (), Part(None, ("m",), ("m",))),  # one event adds one value at most
        ("latest", (("v",),), Unreachable("unbounded", "m")),
        ("average", (("v",),), Unreachable("unbounded", "m")),
        ("min", (("v",),), Unreachable("unbounded", "m")),
    ],
)
def test_what_only_rises_is_bounded_like_a_sum_and_what_may_fall_is_not(
    kind: Any, fields: Any, told: Part | Unreachable
) -> None:
    plans = {"plan": PlanDefinition("USD", {"m": per_unit("1", meter="m")})}
    catalogue = compile_catalogue(1, CatalogueDocument({"m": MeterDefinition("e", kind, "v")}, plans))
    found = reach_of(catalogue, "plan", catalogue.plans["plan"], "e", {}, {}, fields)
    assert found == (told if isinstance(told, Unreachable) else (told,))


def test_a_dimension_that_no_price_looks_at_need_not_be_known() -> None:
    assert not isinstance(reach({"model": "large"}), Unreachable)


@pytest.mark.parametrize(
    ("data", "open_", "fields", "event_type", "told"),
    [
        ({}, {}, BOTH, "unheard", Unreachable("no_meter", "unheard")),
        ({"model": "tiny", "region": "eu"}, {}, BOTH, "chat", Unreachable("model_not_entitled", "input")),
        ({"model": "tiny"}, {}, (), "chat", Unreachable("model_not_entitled", "input")),
        ({"model": "large"}, {"model": ("tiny",)}, BOTH, "chat", Unreachable("model_not_entitled", "input")),
        ({"model": "small"}, {}, BOTH, "chat", Unreachable("unbounded", "region")),
        ({}, {}, BOTH, "chat", Unreachable("unbounded", "model")),
        ({"model": "large"}, {}, (("input",),), "chat", Unreachable("unbounded", "cached")),
        ({"model": "large"}, {}, (("cached",),), "chat", Unreachable("unbounded", "input")),
    ],
)
def test_what_cannot_be_bounded_says_why(
    data: dict[str, str], open_: dict[str, tuple[str, ...]], fields: Any, event_type: str, told: Unreachable
) -> None:
    assert reach(data, open_, fields, event_type) == told


def test_more_cells_than_a_question_may_name_are_unbounded() -> None:
    regions = tuple(str(number) for number in range(CELLS_ASKED_MAX))
    assert not isinstance(reach({"model": "large"}, {"region": regions}), Unreachable)
    assert reach({"model": "large"}, {"region": (*regions, "one more")}) == Unreachable("unbounded", "region")


def test_a_plan_that_is_not_sold_any_more_entitles_to_nothing() -> None:
    catalogue = compile_catalogue(1, CatalogueDocument(METERS, {"plan": PlanDefinition("USD", PRICES)}))
    assert reach_of(catalogue, "other", None, "chat", {}, {}, BOTH) == Unreachable("model_not_entitled", "other")
    assert reach_of(None, "plan", None, "chat", {}, {}, BOTH) == Unreachable("no_meter", "chat")


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=3), min_size=1, max_size=5))
def test_every_price_is_held_or_dominated_by_one_that_is_and_no_two_held_stand_for_each_other(
    rates: list[list[int]],
) -> None:
    prices = [
        priced([*((place + 1, rate, 1) for place, rate in enumerate(row[:-1])), (None, row[-1], 1)], str(number))
        for number, row in enumerate(rates)
    ]
    held = undominated(prices)
    for price in prices:
        others = [other for other in prices if dominates(other, price)]
        assert (price.name in held) == (not others)
        assert price.name in held or any(other.name in held for other in others)


def test_a_price_dominates_by_its_cheapest_tier() -> None:
    steps = priced([(10, 5, 1), (None, 2, 1)], "steps")
    flat, dearer = (priced([(None, rate, 1)], "flat") for rate in (2, 3))
    assert dominates(steps, flat)
    assert not dominates(steps, dearer)
    assert undominated([steps, flat]) == ("steps",)
    assert undominated([steps, dearer]) == ("flat", "steps")
