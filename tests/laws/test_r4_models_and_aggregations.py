"""Laws R1, R3, R4: every price model over whatever a meter can count: charges sum to what the whole owes at once."""

import random
from itertools import product
from typing import Any, Final, get_args, get_type_hints

import msgspec
import pytest

from engine.catalog import BadCatalogue, CatalogueDocument, MeterDefinition, compile_catalogue
from engine.prices.models import MODELS
from tests.engine.bench import DAY, HOUR, Bench
from tests.engine.random_catalogues import OF_EACH_EVENT
from tests.laws.test_oracle_agrees import assert_the_same, oracle_of

AGGREGATIONS: Final = (
    *("count", "sum", "min", "max", "latest", "average", "unique_count", "duration", "time_weighted_sum"),
)
OF_FIELD: Final = ("sum", "min", "max", "latest", "average", "time_weighted_sum")
TIERS: Final = [
    {"up_to": "10", "amount": "0.000000000007", "per": "3"},
    {"up_to": "50.5", "amount": "1", "per": "3"},
    {"amount": "2"},
]
TERMS: Final[dict[str, dict[str, Any]]] = {
    "per_unit": {"amount": "0.000000000001", "per": "3"},
    "graduated": {"tiers": TIERS},
    "package": {"amount": "2", "per": "7"},
    "volume": {"tiers": TIERS},
    "step": {"tiers": [{key: tier[key] for key in tier if key != "per"} for tier in TIERS]},
    "flat": {"amount": "5"},
    "percentage": {"percent": "2.9", "per_event": "0.3"},
    "dynamic": {"factor": "1.2"},
}
PAIRS: Final = list(product(MODELS, AGGREGATIONS))


def document(model: str, aggregation: str) -> CatalogueDocument:
    meter: dict[str, Any] = {"event_type": "use", "aggregation": aggregation, "group_by": ["model"]}
    meter |= (
        {"field": "units"} if aggregation in OF_FIELD else {"field": "who"} if aggregation == "unique_count" else {}
    )
    meter |= {"session": "who"} if aggregation in ("duration", "time_weighted_sum") else {}
    plan = {"currency": "USD", "prices": {"p": {"meter": "m", "model": model} | TERMS[model]}}
    return msgspec.convert({"meters": {"m": meter}, "plans": {"plan": plan}}, CatalogueDocument)


def is_sold(model: str, aggregation: str) -> bool:
    """What is of each event's amount has no meaning for what does not add up, nor for seconds."""
    return model not in OF_EACH_EVENT or aggregation in ("count", "sum")


def test_every_model_and_aggregation_is_among_them() -> None:
    """A new one has to be added here."""
    assert set(get_args(get_type_hints(MeterDefinition)["aggregation"])) == set(AGGREGATIONS)
    assert set(TERMS) == set(MODELS)


@pytest.mark.parametrize(("model", "aggregation"), [pair for pair in PAIRS if not is_sold(*pair)])
def test_what_has_no_meaning_is_refused_at_publication(model: str, aggregation: str) -> None:
    """A price of each event's amount needs a meter that counts events' amounts."""
    with pytest.raises(BadCatalogue, match="is of each event's amount"):
        compile_catalogue(1, document(model, aggregation))


@pytest.mark.parametrize(("model", "aggregation"), [pair for pair in PAIRS if is_sold(*pair)])
def test_charges_sum_to_what_the_whole_owes_at_once(model: str, aggregation: str) -> None:
    """In any order of arrival, with corrections, to the last pico; and the oracle makes the same of it."""
    source = random.Random(f"{model} {aggregation}")
    bench = Bench(document(model, aggregation))
    bench.open()
    sent: list[bytes] = []
    for number in range(40):
        bench.now += source.randrange(HOUR)
        data: dict[str, Any] = {"model": source.choice("ab"), "units": source.choice((1, 7, "2.5", 33))}
        data |= {"who": f"s{number % 4}", "state": source.choice(("start", "heartbeat", "stop"))}
        data |= {"model": "ab"[number % 2]} if aggregation in ("duration", "time_weighted_sum") else {}
        sent.append(bench.event(at=bench.now - source.choice((0, source.randrange(2 * DAY))), type="use", data=data))
        bench.record(b"acme", sent[-1])
        if source.random() < 0.1:
            bench.correct(source.choice(sent))
    ((_, run),) = bench.account().derive().running.items()
    price = bench.account()._price_at(bench.now, "p")
    assert sum(bench.charges()) == run.amount == price.owed(run.quantity) > 0
    assert_the_same(bench, oracle_of(bench), f"{model} {aggregation}")
