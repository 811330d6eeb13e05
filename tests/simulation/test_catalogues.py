"""What seeds sell: every kind of meter and every price model is among it, and is used."""

from collections import Counter
from random import Random
from typing import Any

import orjson
import pytest

from engine.prices.models import MODELS
from loadtest.workload import EVENT_TYPE
from tests.simulation.catalogues import DRAWN, VERSIONS, Sales, documents, library, oracle_library

NUMBERS = range(DRAWN + 1)


@pytest.fixture(scope="module")
def bodies() -> list[dict[str, Any]]:
    return [orjson.loads(document) for number in NUMBERS for document in documents(number).values()]


def test_every_kind_of_meter_is_counted(bodies: list[dict[str, Any]]) -> None:
    meters = [meter for body in bodies for meter in body["meters"].values()]
    assert {meter["aggregation"] for meter in meters} == {
        *("count", "sum", "max", "min", "latest", "average", "unique_count", "duration", "time_weighted_sum")
    }
    assert any(meter.get("expression") for meter in meters)
    kinds = {
        kind
        for meter in meters
        for terms in (meter.get("when") or {}).values()
        for kind, value in terms.items()
        if value
    }
    assert {"one_of", "none_of", "above", "at_most", "exists"} <= kinds
    dimensions = [dimension for body in bodies for dimension in body["dimensions"].values()]
    assert all(any(dimension.get(kind) for dimension in dimensions) for kind in ("bands", "values", "default"))


def test_every_price_model_is_sold_and_all_that_may_stand_around_one(bodies: list[dict[str, Any]]) -> None:
    prices = [price for body in bodies for plan in body["plans"].values() for price in plan["prices"].values()]
    assert {price["model"] for price in prices} == set(MODELS)
    for around in ("included", "maximum", "discount", "minimum", "estimate", "per_event"):
        assert any(price.get(around) is not None for price in prices), around


@pytest.mark.parametrize("number", NUMBERS)
def test_whatever_is_sold_is_used(number: int) -> None:
    sold = {meter["event_type"] for meter in orjson.loads(documents(number)[1])["meters"].values()} - {EVENT_TYPE}
    used = Counter(Sales(number, Random(seed)).usage()[0] for seed in range(400))
    assert sold <= used.keys()


def test_engine_and_oracle_read_the_same_versions() -> None:
    for number in NUMBERS:
        assert library(number).keys() == oracle_library(number).keys() == set(VERSIONS)
