"""Routes: what is worked out once says of every event what its meters say one by one."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine import routes as module
from engine.catalog import Catalogue, CatalogueDocument, PlanDefinition, PriceDefinition, compile_catalogue
from engine.contract import Contract
from engine.events import UsageEvent
from engine.metering import Metering
from engine.meters import BandDefinition, ConditionDefinition, DimensionDefinition, MeterDefinition
from engine.routes import Routes


def compiled(**meters: MeterDefinition) -> Catalogue:
    prices = {name: PriceDefinition(name, "per_unit", amount="1") for name in meters}
    dimensions = {
        "size": DimensionDefinition(of="tokens", bands=(BandDefinition("short", "1000"), BandDefinition("long"))),
        "tier": DimensionDefinition(values={"gold": "first"}, otherwise="other", default="none"),
    }
    return compile_catalogue(1, CatalogueDocument(meters, {"plan": PlanDefinition("USD", prices)}, dimensions))


MANY = compiled(
    calls=MeterDefinition("use", "count", group_by=("tier",)),
    banded=MeterDefinition("use", "sum", "tokens", ("size",)),
    done=MeterDefinition("use", "sum", "tokens", ("tags.team",), {"state": ConditionDefinition(one_of=("done",))}),
    maybe=MeterDefinition("use", "sum", "tags.weight", (), {"flag": ConditionDefinition(exists=True)}),
)
PLAIN = compiled(
    done=MeterDefinition("use", "sum", "tokens", ("model",), {"state": ConditionDefinition(one_of=("done", "1"))}),
    flagged=MeterDefinition("use", "count", None, (), {"flag": ConditionDefinition(exists=True)}),
)
VALUES: Any = st.sampled_from(["done", "gold", "1", "", "x\x00", "long" * 40, None, True, 1, 5, Decimal("1.0"), [], {}])
TOKENS: Any = st.sampled_from([0, 5, 1000, 1001, -1, 10**18, True, "7", "7.5", Decimal("2.25"), None, "many"])
DATA = st.fixed_dictionaries(
    {},
    optional={
        "tokens": TOKENS,
        "tags": st.fixed_dictionaries({}, optional={"team": VALUES, "weight": TOKENS}) | VALUES,
        "state": VALUES,
        "tier": VALUES,
        "flag": VALUES,
        "model": VALUES,
    },
)


@given(st.sampled_from([MANY, PLAIN]), st.lists(DATA, min_size=1, max_size=6))
def test_they_say_what_the_meters_say_one_by_one(catalogue: Catalogue, events: list[dict[str, Any]]) -> None:
    """Whatever came before: usages, cells, prices, the names of dimensions; and nothing of what the meters refuse."""
    routes = Routes(catalogue.meters_of["use"], catalogue.plans["plan"].price_of)
    for data in events:
        found = routes.usages(data)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Routes, "usages", lambda *_: None)
            try:
                told = Metering.meter(
                    catalogue, Contract("UTC", 1, "plan"), UsageEvent("e", "s", "use", None, 0, data), 0
                )
            except Exception:
                assert found is None
                continue
        assert found is None or found == (told.usages, told.dimensions)


def test_the_common_event_has_a_route() -> None:
    """Or the law above would hold of nothing."""
    routes = Routes(PLAIN.meters_of["use"], PLAIN.plans["plan"].price_of)
    for tokens in (3, Decimal("0.5"), "7"):
        found = routes.usages({"tokens": tokens, "model": "a", "state": "done"})
        assert found is not None
        assert [(price.name, cell) for price, cell, _ in found[0]] == [("done", ("a",))]
    assert routes.usages({"tokens": 3, "model": "a", "state": "broken"}) == ([], ())


def test_what_is_remembered_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROUTES_MAX", 3)
    catalogue = compiled(x=MeterDefinition("use", "sum", "units", ("model",)))
    routes = catalogue.plans["plan"].routes("use")
    for number in range(20):
        assert routes.usages({"units": 1, "model": f"m{number}"}) is not None
        assert len(routes._known) <= 3
