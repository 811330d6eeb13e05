"""The whole table of routes: who is let in where, whether the examples hold, and what hostile requests can do."""

import random
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest

from actors.keys import KeyScope
from actors.web.api import all_routes
from actors.web.app import App
from actors.web.health import Health
from actors.web.openapi import page
from actors.web.wire import Call, Reply, Route
from engine.events import parse_usage
from tests.actors.web.asgi_client import Client, Response
from tests.actors.web.fakes import OWN_PATHS, Stage, token

ROUTES = all_routes(Health("test"))
LET_IN = 299
ACCOUNTS = {"own": "acme", "foreign": "globex", "absent": "nobody"}
DOCS = Path(__file__).parents[3] / "docs" / "api.md"


def named(route: Route) -> str:
    return f"{route.method} {route.path}"


def filled(route: Route, account: str) -> str:
    params = dict.fromkeys(msgspec.json.decode(msgspec.json.encode(list(route.example.params))), "x")
    params |= route.example.params
    path = route.path.replace("{account}", account)
    for name, value in params.items():
        path = path.replace(f"{{{name}}}", value)
    query = "&".join(f"{name}={value}" for name, value in route.example.query.items())
    return f"{path}?{query}" if query else path


async def call(client: Client, route: Route, account: str = "acme", document: Any = None) -> Response:
    """The example of the route, about this account."""
    wanted = route.example.request if document is None else document
    if route.account_from == "body":
        wanted = wanted | {"account": account}
    headers = {"idempotency-key": "once"} if route.idempotent else {}
    body = b""
    if wanted is not None:
        headers["content-type"] = (route.raw_body or ("application/json",))[0]
        body = orjson.dumps(wanted)
    return await client.send(route.method, filled(route, account), body, headers=headers)


# ------------------------------------------------------------------------------------------------------ who is let in


async def let_in(told: Call) -> Reply:
    return Reply(status=LET_IN)


def cases() -> Iterator[Any]:
    for route in ROUTES:
        for scope in KeyScope:
            yield pytest.param(route, scope, id=f"{named(route)} as {scope}")


def wanted_status(route: Route, scope: KeyScope, is_bound: bool, whose: str) -> int:
    if route.scope is None:
        return LET_IN
    if route.scope is not scope:
        return 403
    if not is_bound or route.confines:
        return LET_IN
    if route.account_from is None:
        return 403
    return LET_IN if whose == "own" else 404


@pytest.mark.parametrize(("route", "scope"), list(cases()))
async def test_a_key_is_let_in_exactly_where_the_table_says(stage: Stage, route: Route, scope: KeyScope) -> None:
    app = App([replace(route, handler=let_in)], stage.services)
    for is_bound in (False, True):
        client = Client(app, stage.keys.add(scope, account="acme" if is_bound else None))
        answers = {whose: await call(client, route, account) for whose, account in ACCOUNTS.items()}
        for whose, answer in answers.items():
            assert answer.status == wanted_status(route, scope, is_bound, whose), (whose, is_bound, answer.body)
        if is_bound:
            assert answers["foreign"].without_request_id == answers["absent"].without_request_id


@pytest.mark.parametrize("route", [route for route in ROUTES if route.scope is not None], ids=named)
async def test_no_key_no_answer(stage: Stage, route: Route) -> None:
    app = App([replace(route, handler=let_in)], stage.services)
    answers = [await call(Client(app, None), route, account) for account in ACCOUNTS.values()]
    assert {answer.status for answer in answers} == {401}
    assert len({answer.without_request_id[2] for answer in answers}) == 1


def test_each_operation_is_declared_for_everybody() -> None:
    """What strangers may call is a list that somebody has to change knowingly."""
    assert {named(route) for route in ROUTES if route.scope is None} == {
        "GET /livez",
        "GET /readyz",
        "GET /openapi.json",
    }


# ----------------------------------------------------------------------------------------------------------- examples


@pytest.mark.parametrize("route", ROUTES, ids=named)
def test_an_example_is_of_the_shape_that_the_table_declares(route: Route) -> None:
    if route.request is not None:
        msgspec.json.decode(orjson.dumps(route.example.request), type=route.request)
    if route.response is not None:
        assert route.example.response is not None
        shape = msgspec.json.decode(orjson.dumps(route.example.response), type=route.response)
        again = msgspec.json.decode(msgspec.json.encode(shape))
        assert again == route.example.response, "nothing is missing, and nothing is there that no answer has"


@pytest.mark.parametrize(
    "route", [r for r in ROUTES if r.path in OWN_PATHS and r.response_media != "text/event-stream"], ids=named
)
async def test_an_example_does_what_it_says(stage: Stage, client: Client, route: Route) -> None:
    if "{key}" in route.path:
        made = await stage.keys.create("n", [KeyScope.READ], created_by="test")
        route = replace(route, example=msgspec.structs.replace(route.example, params={"key": made[0].public_id}))
    document = orjson.loads(orjson.dumps(route.example.request).replace(b"<token>", token().encode()))
    answer = await call(client, route, document=document)
    assert answer.status == route.status
    if route.response is not None:
        assert answer.json().keys() == route.example.response.keys()
    if answer.status != 204:
        assert answer.headers["content-type"].startswith(route.response_media)


def test_the_page_is_the_table() -> None:
    assert DOCS.read_text() == page(ROUTES), "out of date: write it anew with `python -m actors.web.api > docs/api.md`"


# ---------------------------------------------------------------------------------------------------- hostile requests

MUTATED = 10_000
STUFF = [
    b'"\\u0000"',
    b'"\\ud800"',
    b"1e999999",
    b"9" * 400,
    b"-0",
    b"1.0000000000000000000000001",
    b"[" * 50_000,
    b'{"a":' * 200,
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b'"' + b"x" * 9_000 + b'"',
    b"NaN",
    b"\x00",
    b'"\xe2\x80\xae"',
]
HEADER_GAMES = [
    ("content-length", "-1"),
    ("content-length", "99999999999999999999"),
    ("content-length", "x"),
    ("content-type", "application/json;;;"),
    ("content-type", "\xff"),
    ("content-type", "application/x-ndjson"),
    ("content-type", "application/cloudevents-batch+json"),
    ("content-encoding", "gzip"),
    ("idempotency-key", "\xff\x00"),
    ("authorization", "Bearer \xff"),
    ("authorization", ""),
    ("x-request-id", "a\r\nb"),
    ("transfer-encoding", "chunked"),
    ("host", ""),
    ("x" * 5_000, "y"),
]


def mutated(draw: random.Random, body: bytes) -> bytes:
    for _ in range(draw.randrange(1, 4)):
        kind, place = draw.randrange(6), draw.randrange(len(body) + 1)
        if kind == 0 and body:
            place %= len(body)
            body = body[:place] + bytes([body[place] ^ 1 << draw.randrange(8)]) + body[place + 1 :]
        elif kind == 1:
            body = body[:place]
        elif kind == 2:
            body = body[:place] + draw.choice(STUFF) + body[place:]
        elif kind == 3:
            values = [at for at in range(len(body)) if body[at : at + 1] == b":"]
            at = draw.choice(values) + 1 if values else 0
            end = min([found for mark in (b",", b"}") if (found := body.find(mark, at)) > 0], default=len(body))
            body = body[:at] + draw.choice(STUFF) + body[end:]
        elif kind == 4:
            body = body[:place] + body[place // 2 :]
        else:
            body = body.replace(b'"a', b'"b', 1)
    return body


async def test_ten_thousand_mutated_requests_find_no_fault_and_lose_no_event(stage: Stage, client: Client) -> None:
    draw = random.Random(20261122)
    seeds = [(route, orjson.dumps(route.example.request).replace(b"<token>", token().encode())) for route in ROUTES]
    statuses: dict[int, int] = {}
    for number in range(MUTATED):
        route, body = draw.choice(seeds)
        target, sent = filled(route, "acme"), []
        if route.path == "/v1/events" and draw.random() < 0.5:
            body = await _good_and_bad(stage, client, draw, body, number)
            continue
        body = b"" if route.example.request is None else mutated(draw, body)
        headers = dict(client.headers({"content-type": (route.raw_body or ("application/json",))[0]}))
        sent = list(headers.items())
        if draw.random() < 0.2:
            game = draw.choice(HEADER_GAMES)
            sent = [item for item in sent if item[0] != game[0] or draw.random() < 0.1] + [game]
        if draw.random() < 0.1:
            at = draw.randrange(1, len(target) + 1)
            target = (
                target[:at]
                + draw.choice(["%00", "%FF", "/", "?a=1", "%2e%2e", "\xff", "?" + "x" * 3_000])
                + target[at:]
            )
        chunk = draw.choice([1 << 30, 1 << 30, 100])
        answer = await client.send(route.method, target, body, raw_headers=sent, chunk=chunk)
        assert answer.status < 500, (route.path, body[:300], sent, answer.body)
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    assert statuses.keys() >= {200, 202, 400, 401, 404, 413, 414, 415}, statuses


async def _good_and_bad(stage: Stage, client: Client, draw: random.Random, body: bytes, number: int) -> bytes:
    good = [body.replace(b"req-8812", f"good-{number}-{place}".encode()) for place in range(2)]
    bad = mutated(draw, body).replace(b"\n", b" ")
    stage.appender.records.clear()
    lines = b"\n".join([good[0], bad, good[1]])
    answer = await client.send("POST", "/v1/events", lines, headers={"content-type": "application/x-ndjson"})
    assert answer.status == 202, answer.body
    taken = [record.value for record in stage.appender.records]
    assert taken[0] == good[0] and taken[-1] == good[1]
    assert len(taken) == answer.json()["accepted"] == 3 - len(answer.json()["refused"]) or not bad.strip()
    for value in taken:
        parse_usage(value or b"")
    return body
