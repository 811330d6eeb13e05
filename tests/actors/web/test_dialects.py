import json
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from actors.web.dialects import BadDialect, amberflo, flexprice, lago, stripe, unwrapped
from engine.catalog import CatalogueDocument, MeterDefinition, PlanDefinition
from tests.engine.bench import START, Bench, per_unit, us

# What the vendor's callback for LiteLLM reports of one completion: five rows of one meter, time and `uniqueId`.
CALLBACK = [
    {
        "uniqueId": "chatcmpl-BZk1",
        "meterApiName": "llm_usage",
        "meterValue": value,
        "meterTimeInMillis": START // 1000,
        "dimensions": {"business_unit_id": "acme", "model": "gpt-4o", "type": kind},
    }
    for kind, value in (("call", 1), ("input", 24), ("output", 11), ("cached", 0), ("reasoning", 6))
]


def event(translate: Callable[[bytes], bytes], body: object) -> Any:
    return json.loads(translate(orjson.dumps(body)))


def test_five_rows_of_one_unique_id_are_five_events_and_their_replay_adds_nothing() -> None:
    """The golden value of D1: rows that differ in a dimension only are no duplicates of each other."""
    rows = MeterDefinition("llm_usage", "sum", "meterValue", ("dimensions.type",))
    plan = PlanDefinition("USD", {"usage": per_unit("1", meter="rows")})
    bench = Bench(CatalogueDocument({"rows": rows}, {"plan": plan}))
    bench.open()
    values = [amberflo(orjson.dumps(row)) for row in CALLBACK]
    assert [bench.record(b"acme", value) for value in values] == ["rated"] * 5
    table = next(iter(bench.account().table.values()))
    assert {cell[0]: units // 10**9 for (_, cell), units in table.items()} == {
        "call": 1,
        "input": 24,
        "output": 11,
        "cached": 0,
        "reasoning": 6,
    }
    before = bench.balance()
    assert [bench.record(b"acme", value) for value in reversed(values)] == ["duplicate"] * 5
    assert bench.balance() == before


@pytest.mark.parametrize(
    "change",
    [
        {"meterApiName": "other"},
        {"meterTimeInMillis": START // 1000 + 1},
        {"uniqueId": "chatcmpl-BZk2"},
        {"dimensions": {"business_unit_id": "acme", "model": "gpt-4o", "type": "tool"}},
    ],
)
def test_what_amberflo_tells_events_apart_by_makes_another_id(change: dict[str, object]) -> None:
    assert event(amberflo, CALLBACK[0] | change)["id"] != event(amberflo, CALLBACK[0])["id"]


def test_the_order_of_dimensions_and_the_value_make_no_other_id() -> None:
    """A row that is sent again with another value is a conflict, to be told, and no second event."""
    row = CALLBACK[0]
    dimensions = dict(reversed(list(CALLBACK[0]["dimensions"].items())))  # type: ignore[attr-defined]
    assert event(amberflo, row | {"dimensions": dimensions, "meterValue": 7})["id"] == event(amberflo, row)["id"]


def test_without_a_unique_id_rows_that_are_the_same_in_everything_are_one() -> None:
    row = {name: value for name, value in CALLBACK[0].items() if name != "uniqueId"}
    assert event(amberflo, row)["id"] == event(amberflo, dict(row))["id"]
    assert event(amberflo, row | {"meterValue": 2})["id"] != event(amberflo, row)["id"]


def test_a_row_says_its_customer_itself_before_a_dimension_does() -> None:
    assert event(amberflo, CALLBACK[0])["subject"] == "acme"
    assert event(amberflo, CALLBACK[0] | {"customerId": "globex"})["subject"] == "globex"


def test_an_event_of_flexprice() -> None:
    body = {
        "event_name": "ai.usage",
        "event_id": "e1",
        "external_customer_id": "acme",
        "timestamp": "2026-11-22T10:00:00+01:00",
        "source": "api",
        "properties": {"model": "small", "input_tokens": "812"},
    }
    assert event(flexprice, body) == {
        "specversion": "1.0",
        "id": "e1",
        "source": "flexprice",
        "type": "ai.usage",
        "subject": "acme",
        "time": "2026-11-22T10:00:00+01:00",
        "data": {"model": "small", "input_tokens": "812"},
    }
    del body["external_customer_id"]
    assert event(flexprice, body | {"customer_id": "cust_1"})["subject"] == "cust_1"


def test_an_event_of_lago() -> None:
    body = b'{"transaction_id":"t1","code":"calls","external_subscription_id":"acme","timestamp":"1795341600.25",'
    body += b'"precise_total_amount_cents":"12.5","properties":{"size":1.50}}'
    translated = lago(body)
    assert b'"size":1.50' in translated, "a number stays as it was written"
    found = json.loads(translated)
    assert (found["id"], found["source"], found["type"], found["subject"]) == ("t1", "lago", "calls", "acme")
    assert us(found["time"]) == us("2026-11-22T10:00:00.250000+00:00")
    assert found["data"] == {"size": 1.5, "precise_total_amount_cents": "12.5"}


@pytest.mark.parametrize("stamp", [1795341600, "1795341600", "2026-11-22T10:00:00Z"])
def test_an_event_of_stripe(stamp: object) -> None:
    body = {
        "event_name": "tokens",
        "identifier": "i1",
        "timestamp": stamp,
        "payload": {"stripe_customer_id": "cus_9", "value": "25"},
    }
    found = event(stripe, body)
    assert (found["id"], found["source"], found["type"], found["subject"]) == ("i1", "stripe", "tokens", "cus_9")
    assert us(found["time"].replace("Z", "+00:00")) == us("2026-11-22T10:00:00+00:00")
    assert found["data"] == {"value": "25"}


@pytest.mark.parametrize(
    ("translate", "body", "names"),
    [
        (amberflo, {**CALLBACK[0], "dimensions": {}}, "customerId"),
        (amberflo, {**CALLBACK[0], "meterTimeInMillis": "soon"}, "meterTimeInMillis"),
        (amberflo, {**CALLBACK[0], "dimensions": {"type": 1}}, "dimensions"),
        (flexprice, {"event_name": "a", "timestamp": "2026-11-22T10:00:00Z"}, "event_id"),
        (flexprice, {"event_name": "a", "event_id": "e"}, "timestamp"),
        (flexprice, {"event_name": "a", "event_id": "e", "timestamp": "2026-11-22T10:00:00Z"}, "external_customer_id"),
        (lago, {"transaction_id": "t", "code": "c", "external_subscription_id": "s"}, "timestamp"),
        (
            lago,
            {"transaction_id": "t", "code": "c", "external_subscription_id": "s", "timestamp": 1e13},
            "timestamp",
        ),
        *(
            (
                stripe,
                {"event_name": "a", "identifier": "i", "timestamp": stamp, "payload": {"stripe_customer_id": "c"}},
                "time",
            )
            for stamp in ("nan", "sNaN", "Infinity", "-inf", "1e99")
        ),
        (stripe, {"event_name": "a", "identifier": "i", "timestamp": 1, "payload": {}}, "stripe_customer_id"),
        (stripe, {"event_name": "a", "timestamp": 1, "payload": {"stripe_customer_id": "c"}}, "identifier"),
        (stripe, [], "object"),
    ],
)
def test_what_is_missing_or_no_such_thing_is_named(
    translate: Callable[[bytes], bytes], body: object, names: str
) -> None:
    with pytest.raises(BadDialect, match=names):
        translate(orjson.dumps(body))


def test_events_that_were_sent_as_one_are_taken_apart() -> None:
    assert list(unwrapped(b'{"events":[{"a":1},{"a":2}]}')) == [b'{"a":1}', b'{"a":2}']
    assert list(unwrapped(b'{"event":{"a":1}}')) == [b'{"a":1}']
    assert list(unwrapped(b'{"a":1}')) == [b'{"a":1}']
    assert list(unwrapped(b"no json")) == [b"no json"]
    assert list(unwrapped(b'{"events":[]}')) == []
