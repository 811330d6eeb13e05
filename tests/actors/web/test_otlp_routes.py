"""Spans of OpenTelemetry as usage events: old names and new ones, and nothing counted twice."""

from typing import Any

import orjson
import pytest

from actors.keys import KeyScope
from actors.web import otlp_routes
from actors.web.otlp import SPANS_MAX
from actors.web.otlp_routes import BYTES_MAX
from engine.events import UsageEvent, parse_usage
from engine.meters.tokens import BadUsage, TokenUsage
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage

TRACES = "/v1/otlp/traces"
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
END = "1795341600000000999"
# As vLLM and SGLang write them, and as the conventions have it since 1.41.
OLD: dict[str, Any] = {
    "gen_ai.response.model": "m",
    "gen_ai.usage.prompt_tokens": 100,
    "gen_ai.usage.completion_tokens": 20,
}
NEW: dict[str, Any] = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "m"}
NEW |= {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20}
PARTS = {"gen_ai.usage.cache_read.input_tokens": 60, "gen_ai.usage.cache_creation.input_tokens": 10}
PARTS |= {"gen_ai.usage.reasoning.output_tokens": 5}


def attributes(said: dict[str, Any]) -> list[dict[str, Any]]:
    kinds = {str: "stringValue", int: "intValue", float: "doubleValue", list: "arrayValue"}
    return [
        {"key": key, "value": {kinds[type(value)]: str(value) if isinstance(value, int) else value}}
        for key, value in said.items()
    ]


def span(said: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return (
        {"traceId": TRACE, "spanId": SPAN, "name": "llm_request", "endTimeUnixNano": END}
        | fields
        | {
            "attributes": attributes(said),
            "events": [{"name": "x"}],
        }
    )


def traces(*spans: dict[str, Any], resource: dict[str, Any] | None = None) -> bytes:
    common = {"tallygate.account": "acme", "service.name": "edge"} if resource is None else resource
    said = {"resource": {"attributes": attributes(common)}, "scopeSpans": [{"scope": {}, "spans": list(spans)}]}
    return orjson.dumps({"resourceSpans": [said]})


async def send(client: Client, body: bytes) -> tuple[int, Any]:
    answer = await client.send("POST", TRACES, body, headers={"content-type": "application/json"})
    return answer.status, answer.json()


def events(stage: Stage) -> list[UsageEvent]:
    return [parse_usage(record.value or b"") for record in stage.appender.records]


def buckets(event: UsageEvent) -> dict[str, Any]:
    """Those that are not empty, as meters read them."""
    split = frozenset({"input_cached", "input_cache_write", "output_reasoning"})
    found: dict[str, Any] = TokenUsage(None, "usage", split).normalised(event.data)["tokens"]
    return {name: number for name, number in found.items() if number}


@pytest.mark.parametrize("said", [OLD, NEW, OLD | NEW], ids=["old names", "new names", "both"])
async def test_a_span_of_a_call_is_a_usage_event(said: dict[str, Any], stage: Stage, client: Client) -> None:
    assert await send(client, traces(span(said))) == (200, {})
    (event,) = events(stage)
    assert (event.id, event.source, event.type, event.subject) == (f"{TRACE}/{SPAN}", "otlp", "llm.usage", "acme")
    assert (event.time_us, event.data["model"], event.data["service"]) == (1795341600_000_000, "m", "edge")
    assert buckets(event) == {"input_text": 100, "input": 100, "output_text": 20, "output": 20}


async def test_parts_of_input_and_output_are_told_apart(stage: Stage, client: Client) -> None:
    await send(client, traces(span(NEW | PARTS), span(OLD | {"gen_ai.usage.cached_tokens": 60}, spanId="2" * 16)))
    new, old = (buckets(event) for event in events(stage))
    assert (new["input_text"], new["input_cached"], new["input_cache_write"], new["input"]) == (30, 60, 10, 100)
    assert (new["output_text"], new["output_reasoning"], new["output"]) == (15, 5, 20)
    assert (old["input_text"], old["input_cached"]) == (40, 60)


async def test_who_pays_is_said_by_the_span_else_by_its_resource(stage: Stage, client: Client) -> None:
    own = {"tallygate.account": "zen", "tallygate.scope": "team:red"}
    number = NEW | {"tallygate.account": 4711}
    await send(client, traces(span(NEW | own), span(NEW, spanId="2" * 16), span(number, spanId="3" * 16)))
    found = [(event.subject, event.scope) for event in events(stage)]
    assert found == [("zen", "team:red"), ("acme", ""), ("4711", "")]


async def test_a_key_of_one_account_need_not_say_it_and_cannot_say_another(stage: Stage, bound: Client) -> None:
    assert await send(bound, traces(span(NEW), resource={})) == (200, {})
    assert [event.subject for event in events(stage)] == ["acme"]
    _, told = await send(bound, traces(span(NEW | {"tallygate.account": "globex"}, spanId="2" * 16)))
    assert told["partialSuccess"]["rejectedSpans"] == "1"
    assert len(stage.appender.records) == 1


async def test_what_was_used_inside_is_counted_once(stage: Stage, client: Client) -> None:
    """What agents and tools say is the sum of the calls inside them; and so is a span around another one."""
    others = [NEW | {"gen_ai.operation.name": name} for name in ("invoke_agent", "execute_tool", "invoke_workflow")]
    others += [{"http.request.method": "GET"}, {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}, {}]
    ids = [f"{number:016x}" for number in range(9)]
    spans = [span(said, spanId=each) for each, said in zip(ids, others, strict=False)]
    framework, hop = span(NEW, spanId=ids[6]), span({}, spanId=ids[7], parentSpanId=ids[6])
    server = span(OLD, spanId=ids[8].upper(), parentSpanId=ids[7])
    loop = span({}, spanId=ids[0], parentSpanId=ids[0])
    assert await send(client, traces(server, *spans, framework, hop, loop)) == (200, {})
    assert [event.id for event in events(stage)] == [f"{TRACE}/{ids[8]}"]


async def test_any_other_call_that_used_something_counts(stage: Stage, client: Client) -> None:
    said = [NEW | {"gen_ai.operation.name": name} for name in ("responses", "rerank", "text_completion")]
    spans = [span(each, spanId=f"{number:016x}") for number, each in enumerate(said)]
    assert await send(client, traces(*spans)) == (200, {})
    assert [event.data["operation"] for event in events(stage)] == ["responses", "rerank", "text_completion"]


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b'{"resourceSpans": null}',
        b'{"resourceSpans": [{"resource": null, "scopeSpans": [{"spans": null}, {}]}, {"scopeSpans": null}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [1, null, "gen_ai.usage.x", {"attributes": 1}]}]}]}',
        b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"attributes": [{}, {"value": null}, {"key": null}]}]}]}]}',
    ],
)
async def test_what_has_no_usage_is_passed_over(body: bytes, stage: Stage, client: Client) -> None:
    assert await send(client, body) == (200, {})
    assert stage.appender.records == []


async def test_numbers_are_read_however_json_may_write_them(stage: Stage, client: Client) -> None:
    written = [
        {"intValue": "100"},
        {"intValue": 100},
        {"intValue": 1e2},
        {"doubleValue": 100.0},
        {"doubleValue": 100, "x": []},
    ]
    spans = []
    for number, value in enumerate(written):
        made = span(NEW, spanId=f"{number:016x}")
        made["attributes"] = [each for each in made["attributes"] if "input" not in each["key"]]
        made["attributes"] += [{"key": "gen_ai.usage.input_tokens", "value": value}]
        made["attributes"] += [{"key": "list", "value": {"arrayValue": {"values": [{"boolValue": True}]}}}]
        spans.append(made)
    assert await send(client, traces(*spans)) == (200, {})
    assert [event.data["usage"]["prompt_tokens"] for event in events(stage)] == [100] * 5


async def test_embeddings_have_no_output(stage: Stage, client: Client) -> None:
    said = {"gen_ai.operation.name": "embeddings", "gen_ai.request.model": "e", "gen_ai.usage.input_tokens": 7}
    assert await send(client, traces(span(said))) == (200, {})
    assert buckets(events(stage)[0])["input"] == 7


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"gen_ai.usage.input_tokens": 1}, "completion_tokens is missing"),
        (NEW | {"gen_ai.usage.prompt_tokens": 99}, "prompt_tokens"),
        (NEW | {"gen_ai.usage.input_tokens": -1}, "prompt_tokens"),
        (NEW | {"gen_ai.usage.input_tokens": "many"}, "prompt_tokens"),
        (NEW | {"gen_ai.usage.total_tokens": 121}, "total_tokens"),
        (NEW | {"gen_ai.usage.cache_read_input_tokens": 101}, "more than the 100"),
    ],
)
async def test_a_wrong_number_becomes_a_dead_letter_that_can_be_counted(
    said: dict[str, Any], told: str, stage: Stage, client: Client
) -> None:
    assert await send(client, traces(span(said))) == (200, {})
    (event,) = events(stage)
    with pytest.raises(BadUsage, match=told):
        buckets(event)


async def test_a_span_without_a_model_names_none(stage: Stage, client: Client) -> None:
    await send(client, traces(span(NEW | {"gen_ai.request.model": ""})))
    assert "model" not in events(stage)[0].data


@pytest.mark.parametrize(
    ("said", "fields", "field"),
    [
        (NEW, {"spanId": ""}, "spanId"),
        (NEW, {"traceId": "5b8e"}, "spanId"),
        (NEW, {"endTimeUnixNano": "0"}, "endTimeUnixNano"),
        (NEW, {"endTimeUnixNano": None}, "endTimeUnixNano"),
        (NEW, {"endTimeUnixNano": "soon"}, "endTimeUnixNano"),
        (NEW, {"endTimeUnixNano": str(10**20 + 1)}, "endTimeUnixNano"),
        (NEW | {"tallygate.account": ""}, {}, "subject"),
        (NEW | {"tallygate.scope": "a b"}, {}, "scope"),
    ],
)
async def test_a_span_that_cannot_be_taken_is_told_and_the_others_are_taken(
    said: dict[str, Any], fields: dict[str, Any], field: str, stage: Stage, client: Client
) -> None:
    status, told = await send(client, traces(span(said, **fields), span(NEW, spanId="2" * 16)))
    assert (status, told["partialSuccess"]["rejectedSpans"]) == (200, "1")
    assert field in told["partialSuccess"]["errorMessage"]
    assert len(stage.appender.records) == 1


async def test_a_refused_span_writes_no_line_of_its_own_into_our_log(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    status, _ = await send(client, traces(span(NEW, traceId="x\n2026-01-01 CRITICAL forged")))
    assert status == 200
    (record,) = [each for each in caplog.records if each.name.endswith("otlp_routes")]
    assert "forged" not in record.getMessage() and "malformed" in record.getMessage()


@pytest.mark.parametrize(
    ("said", "fields", "field"),
    [
        (NEW, {"endTimeUnixNano": "0"}, "endTimeUnixNano"),
        (NEW, {"spanId": "2"}, "spanId"),
        (NEW | {"tallygate.account": ""}, {}, "subject"),
        (NEW | {"tallygate.scope": "a b"}, {}, "scope"),
    ],
)
async def test_a_span_that_cannot_be_taken_hides_none_around_it(
    said: dict[str, Any], fields: dict[str, Any], field: str, stage: Stage, client: Client
) -> None:
    inner = span(said, **({"spanId": "2" * 16, "parentSpanId": "1" * 16} | fields))
    outer = [span(NEW, spanId="1" * 16, parentSpanId="0" * 16), span(NEW, spanId="0" * 16)]
    status, told = await send(client, traces(*outer, inner))
    assert (status, told["partialSuccess"]["rejectedSpans"]) == (200, "1")
    assert field in told["partialSuccess"]["errorMessage"]
    assert [event.id for event in events(stage)] == [f"{TRACE}/{'1' * 16}"], "and that hides the one around itself"


async def test_what_names_no_account_is_paid_by_the_span_around_it(stage: Stage, client: Client, bound: Client) -> None:
    """A gateway knows who pays, and the server behind it what was used."""
    gateway = span(NEW | {"tallygate.account": "zen", "tallygate.scope": "team:red"}, spanId="1" * 16)
    between = span({}, spanId="2" * 16, parentSpanId="1" * 16)
    server = [span(OLD, spanId=number * 16, parentSpanId="2" * 16) for number in "34"]
    assert await send(client, traces(gateway, between, *server, resource={})) == (200, {})
    assert [(event.id[-1], event.subject, event.scope) for event in events(stage)] == [
        ("3", "zen", "team:red"),
        ("4", "zen", "team:red"),
    ]
    stage.appender.records.clear()
    assert await send(bound, traces(gateway, between, *server, resource={})) == (200, {}), (
        "a key of one account says it"
    )
    assert [(event.subject, event.scope) for event in events(stage)] == [("acme", "")] * 2
    stage.appender.records.clear()
    _, told = await send(client, traces(span(OLD, parentSpanId="9" * 16), resource={}))
    assert "subject" in told["partialSuccess"]["errorMessage"] and events(stage) == [], "nobody names one"
    unplaced = [
        each | {"traceId": None}
        for each in (gateway, between, span(OLD | {"gen_ai.request.id": "r"}, parentSpanId="2" * 16))
    ]
    path, json = f"{TRACES}?identity=request", {"content-type": "application/json"}
    told = (await client.send("POST", path, traces(*unplaced, resource={}), headers=json)).json()
    assert "subject" in told["partialSuccess"]["errorMessage"], "of which trace, nobody knows"


async def test_a_request_may_be_known_as_its_server_knows_it(stage: Stage, client: Client) -> None:
    async def asked(said: dict[str, Any]) -> Any:
        path = f"{TRACES}?identity=request"
        answer = await client.send("POST", path, traces(span(said)), headers={"content-type": "application/json"})
        return answer.json()

    assert await asked(OLD | {"gen_ai.request.id": "req-1"}) == {}
    assert await asked(OLD | {"gen_ai.response.id": "chatcmpl-2"}) == {}
    assert "gen_ai.request.id" in (await asked(OLD))["partialSuccess"]["errorMessage"]
    assert [event.id for event in events(stage)] == ["req-1", "chatcmpl-2"]
    stage.appender.records.clear()
    unplaced = [span(OLD | {"gen_ai.request.id": id}, traceId=None, spanId=None) for id in ("req-3", "req-4")]
    answer = await client.send(
        "POST", f"{TRACES}?identity=request", traces(*unplaced), headers={"content-type": "application/json"}
    )
    assert answer.json() == {} and [event.id for event in events(stage)] == ["req-3", "req-4"]


async def test_what_is_no_request_of_otlp_is_refused(stage: Stage, client: Client) -> None:
    many = b'{"resourceSpans": [{"scopeSpans": [{"spans": [%b]}]}]}' % b",".join([b"{}"] * (SPANS_MAX + 1))
    for body in (b"[]", b"{", b'{"resourceSpans": 1}', many):
        status, told = await send(client, body)
        assert (status, told["field"]) == (400, "body"), body[:40]
    protobuf = await client.send("POST", TRACES, b"\x0a", headers={"content-type": "application/x-protobuf"})
    assert protobuf.status == 415
    assert (await send(client, b" " * (BYTES_MAX + 1)))[0] == 413


async def test_what_a_resource_says_at_length_is_not_said_again_in_every_event(stage: Stage, client: Client) -> None:
    resource = {"tallygate.account": "acme", "service.name": "s" * 60_000, "other": "o" * 60_000}
    spans = [span(NEW, spanId=f"{number:016x}") for number in range(1, 1_501)]
    assert await send(client, traces(*spans, resource=resource)) == (200, {})
    assert len(stage.appender.records) == 1_500
    assert max(len(record.value or b"") for record in stage.appender.records) < 1_000


async def test_a_log_that_is_away_lets_the_collector_try_again(stage: Stage, client: Client) -> None:
    stage.appender.away = True
    assert (await send(client, traces(span(NEW))))[0] == 503


def test_it_asks_for_the_scope_of_whoever_reports() -> None:
    assert otlp_routes.ROUTES[0].scope is KeyScope.INGEST
