"""Spans read without a server: which of them count, and what each becomes."""

from typing import Any

import orjson
import pytest

from actors.web.dialects import BadDialect
from actors.web.otlp import SPANS_MAX, BadTraces, Identity, Place, _nearest, cloud_event, spent_in

TRACE = "0af7651916cd43dd8448eb211c80319c"


def span(number: int, parent: int | None = None, **said: Any) -> dict[str, Any]:
    made = {"traceId": TRACE, "spanId": f"{number:016x}", "endTimeUnixNano": "1795341600000000000"}
    made |= {} if parent is None else {"parentSpanId": f"{parent:016x}"}
    attributes = [{"key": key, "value": {"intValue": value}} for key, value in said.items()]
    return made | {"attributes": attributes}


def used(number: int, parent: int | None = None) -> dict[str, Any]:
    return span(number, parent, **{"gen_ai.usage.input_tokens": 1, "gen_ai.usage.output_tokens": 2})


def body(*spans: dict[str, Any], **resource: str) -> bytes:
    said = [{"key": key.replace("_", "."), "value": {"stringValue": value}} for key, value in resource.items()]
    return orjson.dumps({"resourceSpans": [{"resource": {"attributes": said}, "scopeSpans": [{"spans": spans}]}]})


async def test_only_the_innermost_of_spans_around_one_another_counts() -> None:
    spans = [used(1), span(2, 1), used(3, 2), used(4, 1), used(5), span(6, 5), used(7, 99)]
    assert [int(each.place[1], 16) for each in await spent_in(body(*spans))] == [3, 4, 5, 7]


async def test_a_tool_inside_a_call_does_not_take_its_place() -> None:
    tool = used(2, 1)
    tool["attributes"] += [{"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}}]
    assert [int(each.place[1], 16) for each in await spent_in(body(used(1), tool))] == [1]


async def test_a_circle_of_spans_ends() -> None:
    assert [int(each.place[1], 16) for each in await spent_in(body(used(1, 2), span(2, 1)))] == []


async def test_the_depth_of_spans_costs_nothing_beside_their_number() -> None:
    """Six thousand calls at the end of six thousand spans, looked at from each of them anew, would take a minute."""
    chain = [span(number, number - 1) for number in range(1, 6_001)]
    leaves = [used(number, 6_000) for number in range(7_000, 13_000)]
    passed = 0

    class Counted(dict[Place, Place]):
        def get(self, key: Place, otherwise: Any = None) -> Any:
            nonlocal passed
            passed += 1
            return super().get(key, otherwise)

    parents = Counted(
        {(TRACE, each["spanId"]): (TRACE, each["parentSpanId"]) for each in (*chain, *leaves)},
    )
    places = [(TRACE, each["spanId"]) for each in leaves]
    assert len(_nearest(places, parents, {(TRACE, f"{0:016x}")})) == 6_000
    assert passed == len(chain) + len(leaves)


async def test_another_trace_of_the_same_ids_is_another() -> None:
    inner = used(2, 1) | {"traceId": "f" * 32}
    assert len(await spent_in(body(used(1), inner))) == 2


async def test_more_spans_than_are_taken_are_refused_whole() -> None:
    with pytest.raises(BadTraces, match="send smaller batches"):
        await spent_in(b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b]}]}]}' % b",".join([b"{}"] * (SPANS_MAX + 1)))


async def test_an_event_says_who_pays_by_its_resource_or_whoever_sent_it() -> None:
    (spent,) = await spent_in(body(used(1), tallygate_account="acme", service_name="edge"))
    event = orjson.loads(cloud_event(spent, "sender", Identity.SPAN))
    assert (event["subject"], event["data"]["service"], event["id"]) == ("acme", "edge", f"{TRACE}/{1:016x}")
    (spent,) = await spent_in(body(used(1)))
    assert orjson.loads(cloud_event(spent, "sender", Identity.SPAN))["subject"] == "sender"
    assert "subject" not in orjson.loads(cloud_event(spent, None, Identity.SPAN))
    with pytest.raises(BadDialect, match="names no request"):
        cloud_event(spent, None, Identity.REQUEST)
