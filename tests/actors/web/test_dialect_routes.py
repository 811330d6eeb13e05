import orjson
import pytest

from actors.web import dialect_routes
from actors.web.dialect_routes import ROUTES
from actors.web.hot import EVENTS_MAX
from engine.events import parse_usage
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage

STRIPE = {
    "event_name": "tokens",
    "identifier": "i1",
    "timestamp": 1795341600,
    "payload": {"stripe_customer_id": "acme", "value": "25"},
}


async def send(
    client: Client, dialect: str, body: bytes, media: str = "application/json"
) -> tuple[int, dict[str, object]]:
    answer = await client.send("POST", f"/v1/events/{dialect}", body, headers={"content-type": media})
    return answer.status, answer.json()


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
async def test_an_event_goes_into_the_log_as_a_cloud_event_of_its_vendor(
    route: object, stage: Stage, client: Client
) -> None:
    path, example = route.path, route.example.request  # type: ignore[attr-defined]
    answer = await client.send("POST", path, orjson.dumps(example), headers={"content-type": "application/json"})
    assert (answer.status, answer.json()) == (202, {"accepted": 1, "refused": []})
    (record,) = stage.appender.records
    event = parse_usage(record.value or b"")
    assert (record.topic, record.key, event.subject) == ("usage", b"acme", "acme")
    assert (event.source, event.type) == (path.rpartition("/")[2], "llm_tokens")
    assert event.time_us == 1795341600 * 1_000_000


@pytest.mark.parametrize("media", ["application/json", "application/x-ndjson"])
async def test_one_bad_event_refuses_only_itself(stage: Stage, client: Client, media: str) -> None:
    raws = [
        orjson.dumps(STRIPE),
        orjson.dumps({**STRIPE, "identifier": None}),
        orjson.dumps({"events": [{**STRIPE, "identifier": "i2"}, {**STRIPE, "payload": {"value": "1"}}]}),
        orjson.dumps(STRIPE).replace(b'"value"', b'"value":"1","value"'),
        orjson.dumps({**STRIPE, "timestamp": "tomorrow"}),
    ]
    body = b"[" + b",".join(raws) + b"]" if media == "application/json" else b"\n".join(raws)
    status, told = await send(client, "stripe", body, media)
    assert status == 202
    assert told["accepted"] == 2
    assert [parse_usage(record.value or b"").id for record in stage.appender.records] == ["i1", "i2"]
    refused = told["refused"]
    assert isinstance(refused, list)
    assert [(each["index"], each["reason"], each["field"]) for each in refused] == [
        (1, "malformed", "identifier"),
        (3, "malformed", "payload.stripe_customer_id"),
        (4, "malformed", ""),
        (5, "malformed", "time"),
    ]


async def test_a_bound_key_sends_its_own_usage_only(stage: Stage, bound: Client) -> None:
    theirs = {**STRIPE, "payload": {"stripe_customer_id": "globex", "value": "1"}}
    status, told = await send(bound, "stripe", orjson.dumps([STRIPE, theirs]))
    assert status == 202
    assert told["accepted"] == 1
    assert [record.key for record in stage.appender.records] == [b"acme"]


async def test_a_wrapped_batch_has_the_limit_of_any(stage: Stage, client: Client) -> None:
    status, _ = await send(client, "stripe", orjson.dumps({"events": [1] * (EVENTS_MAX + 1)}))
    assert status == 400
    assert stage.appender.records == []


async def test_an_event_that_is_too_large_is_refused_before_it_is_read(stage: Stage, client: Client) -> None:
    status, told = await send(client, "stripe", orjson.dumps({**STRIPE, "x": ["y" * 60_000] * 2}))
    assert status == 400
    refused = told["refused"]
    assert isinstance(refused, list)
    assert [each["reason"] for each in refused] == ["too_large"]


async def test_more_events_than_are_taken_are_not_looked_into(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """A megabyte holds half a million of them, and each would be opened to see whether others lie in it."""

    def opened(raw: bytes) -> list[bytes]:
        raise AssertionError("looked into")

    monkeypatch.setattr(dialect_routes, "unwrapped", opened)
    status, told = await send(client, "stripe", b"[" + b"1," * EVENTS_MAX + b"1]")
    assert (status, told["field"]) == (400, "body") and f"has {EVENTS_MAX + 1} events" in str(told["detail"])
