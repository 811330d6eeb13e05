import asyncio
import logging
from typing import Any

import pytest
from msgspec import Struct

from actors.keys import KeyScope
from actors.web import app as app_module
from actors.web.app import App
from actors.web.wire import Call, Example, Problem, QueryParameter, Reply, Route, invalid
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import Stage


class Body(Struct, forbid_unknown_fields=True):
    account: str
    number: int = 0


class Said(Struct):
    params: dict[str, str]
    query: dict[str, Any]
    account: str | None
    actor: str
    idempotency_key: str | None


async def tell(call: Call) -> Reply:
    account = None if call.body is None else call.body.account
    return Reply(Said(call.params, call.query, account, call.actor, call.idempotency_key))


def route(method: Any = "GET", path: str = "/v1/things", **changes: Any) -> Route:
    facts: dict[str, Any] = {
        "method": method,
        "path": path,
        "scope": KeyScope.READ,
        "handler": tell,
        "summary": "s",
        "description": "d",
        "tags": ("t",),
        "example": Example(),
        "response": Said,
    }
    return Route(**(facts | changes))


def app(stage: Stage, *routes: Route, **limits: Any) -> Client:
    made = App(routes, stage.services, **limits)
    return Client(made, stage.keys.add(KeyScope.READ))


# ------------------------------------------------------------------------------------------------------------- routes


async def test_a_template_takes_any_one_part_decoded(stage: Stage) -> None:
    client = app(stage, route(path="/v1/customers/{account}/lots/{lot}"), route(path="/v1/customers/{account}"))
    told = (await client.get("/v1/customers/a%2Fb%20%C3%A9/lots/l1")).json()
    assert told["params"] == {"account": "a/b é", "lot": "l1"}


@pytest.mark.parametrize("target", ["/", "/v1/things/", "//v1/things", "/v1/things/x", "/v2", "", "/v1/%74hings"])
async def test_what_is_not_in_the_table_is_not_there(stage: Stage, target: str) -> None:
    answer = await app(stage, route()).get(target)
    assert (answer.status, answer.json()["type"]) == (404, "/problems/no-such-path")


@pytest.mark.parametrize("part", ["%00", "%FF", "a%0Ab", "%E2%80%AE", "x" * 257, ""])
async def test_a_name_that_nothing_can_have_is_absent(stage: Stage, part: str) -> None:
    answer = await app(stage, route(path="/v1/customers/{account}")).get(f"/v1/customers/{part}")
    assert answer.status == 404


async def test_another_method_is_told_which_ones_there_are(stage: Stage) -> None:
    client = app(stage, route(), route("DELETE"))
    answer = await client.send("PATCH", "/v1/things")
    assert (answer.status, answer.headers["allow"]) == (405, "DELETE, GET, HEAD, OPTIONS")
    asked = await client.send("OPTIONS", "/v1/things")
    assert (asked.status, asked.headers["allow"], asked.body) == (204, "DELETE, GET, HEAD, OPTIONS", b"")


async def test_head_answers_like_get_without_the_body(stage: Stage) -> None:
    client = app(stage, route())
    get, head = await client.get("/v1/things"), await client.send("HEAD", "/v1/things")
    assert head.body == b"" and get.body
    assert head.headers["content-length"] == get.headers["content-length"]


def test_an_operation_is_declared_once(stage: Stage) -> None:
    with pytest.raises(ValueError, match="twice"):
        app(stage, route(path="/v1/{a}"), route(path="/v1/{b}"))


# --------------------------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize("value", [None, "", "Bearer", "Bearer ", "Basic abc", "Bearer nonsense", "Bearer \xff"])
async def test_without_a_valid_key_nothing_is_told(stage: Stage, value: str | None) -> None:
    client = app(stage, route())
    answer = await client.send("GET", "/v1/things", raw_headers=[] if value is None else [("authorization", value)])
    assert answer.status == 401
    assert answer.headers["www-authenticate"].startswith("Bearer")


async def test_the_key_is_looked_at_before_the_body_is_read(stage: Stage) -> None:
    client = app(stage, route("POST", request=Body))
    read = False

    async def receive() -> dict[str, Any]:
        nonlocal read
        read = True
        return {"type": "http.request", "body": b"{}"}

    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/things",
        "raw_path": b"/v1/things",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await client.app(scope, receive, send)
    assert sent[0]["status"] == 401 and not read


async def test_keys_that_cannot_be_verified_are_no_refusal(stage: Stage) -> None:
    client = app(stage, route())
    stage.keys.away = True
    answer = await client.get("/v1/things")
    assert answer.status == 503 and "retry-after" in answer.headers


async def test_a_bound_key_is_kept_to_its_account(stage: Stage) -> None:
    client = app(
        stage,
        route(path="/v1/customers/{account}", account_from="path"),
        route("POST", "/v1/check", request=Body, account_from="body"),
        route("POST", "/v1/own", request=Body, confines=True),
        route("GET", "/v1/all"),
    )
    client.key = stage.keys.add(KeyScope.READ, account="acme")
    assert (await client.get("/v1/customers/acme")).status == 200
    foreign = await client.get("/v1/customers/globex")
    assert foreign.status == 404
    assert foreign.without_request_id == (await client.get("/v1/customers/nobody")).without_request_id
    assert (await client.post("/v1/check", {"account": "acme"})).status == 200
    foreign = await client.post("/v1/check", {"account": "globex"})
    assert foreign.status == 404
    assert foreign.without_request_id == (await client.post("/v1/check", {"account": "nobody"})).without_request_id
    assert (await client.post("/v1/own", {"account": "globex"})).status == 200, "the handler sees to it"
    assert (await client.get("/v1/all")).status == 403


# ------------------------------------------------------------------------------------------------------------- limits


async def test_urls_and_headers_are_bounded(stage: Stage) -> None:
    client = app(stage, route())
    assert (await client.get("/v1/things?" + "x" * 2_048)).status == 414
    many = [(f"x-{number}", "1") for number in range(65)]
    assert (await client.send("GET", "/v1/things", raw_headers=many)).status == 431
    assert (await client.send("GET", "/v1/things", raw_headers=[("x", "y" * 16_384)])).status == 431


async def test_a_header_that_decides_may_stand_once(stage: Stage) -> None:
    client = app(stage, route())
    twice = [*client.headers({}), ("authorization", "Bearer x")]
    answer = await client.send("GET", "/v1/things", raw_headers=twice)
    assert (answer.status, answer.json()["field"]) == (400, "Authorization")


@pytest.mark.parametrize("chunk", [1 << 30, 7])
async def test_a_body_is_counted_as_it_comes(stage: Stage, chunk: int) -> None:
    client = app(stage, route("POST", request=Body, body_bytes_max=40))
    headers = {"content-type": "application/json"}
    exact = b'{"account":"' + b"x" * 26 + b'"}'
    assert len(exact) == 40
    assert (await client.send("POST", "/v1/things", exact, headers=headers, chunk=chunk)).status == 200
    answer = await client.send("POST", "/v1/things", exact + b" ", headers=headers, chunk=chunk)
    assert (answer.status, answer.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("length", ["41", "9" * 30])
async def test_a_body_that_says_it_is_too_large_is_not_read(stage: Stage, length: str) -> None:
    client = app(stage, route("POST", request=Body, body_bytes_max=40))
    headers = {"content-type": "application/json", "content-length": length}
    assert (await client.send("POST", "/v1/things", b"{}", headers=headers)).status == 413


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"content-type": "text/plain"},
        {"content-type": "application/json; charset=latin-1"},
        {"content-type": "application/json", "content-encoding": "gzip"},
    ],
)
async def test_other_content_and_compression_are_refused(stage: Stage, headers: dict[str, str]) -> None:
    client = app(stage, route("POST", request=Body))
    assert (await client.send("POST", "/v1/things", b'{"account":"a"}', headers=headers)).status == 415


async def test_a_charset_that_says_utf_8_is_taken(stage: Stage) -> None:
    client = app(stage, route("POST", request=Body))
    headers = {"content-type": 'Application/JSON; charset="UTF-8"'}
    assert (await client.send("POST", "/v1/things", b'{"account":"a"}', headers=headers)).status == 200


async def test_a_key_that_is_revoked_while_its_body_arrives_does_nothing(stage: Stage) -> None:
    done = False

    async def act(call: Call) -> Reply:
        nonlocal done
        done = True
        return Reply()

    client = app(stage, route("POST", request=Body, handler=act))
    assert client.key is not None
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        stage.keys.by_text.clear()  # behind the check of the headers
        return {"type": "http.request", "body": b'{"account":"a"}'}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {client.key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/things", "query_string": b"", "headers": headers}
    await client.app(scope, receive, send)
    assert (sent[0]["status"], done) == (401, False)


async def test_a_slow_body_is_not_waited_for(stage: Stage) -> None:
    client = app(stage, route("POST", request=Body), body_deadline_s=0.01)
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if sent:
            raise AssertionError("asked again")
        await asyncio.sleep(3600)
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {client.key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/things", "query_string": b"", "headers": headers}
    await client.app(scope, receive, send)
    assert sent[0]["status"] == 408


async def test_a_caller_that_hangs_up_is_not_answered(stage: Stage) -> None:
    client = app(stage, route("POST", request=Body))
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"authorization", f"Bearer {client.key}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/things", "query_string": b"", "headers": headers}
    await client.app(scope, receive, send)
    assert sent == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", "body"),
        (b"[]", "body"),
        (b'{"account":"a","account":"b"}', "body"),
        (b'{"account":"a\\u0000"}', "body"),
        (b'{"account":"\\ud800"}', "body"),
        (b'{"account":"\xff"}', "body"),
        (b'{"account":"a","number":1.5}', "number"),
        (b'{"account":"a","number":true}', "number"),
        (b'{"account":"a","number":NaN}', "body"),
        (b'{"account":"a","other":1}', "other"),
        (b'{"number":1}', "account"),
        (b'{"account":"a"} x', "body"),
        (b"[" * 100_000, "body"),
    ],
)
async def test_json_that_could_be_read_in_two_ways_is_not_read(stage: Stage, body: bytes, field: str) -> None:
    client = app(stage, route("POST", request=Body, body_bytes_max=1 << 20))
    answer = await client.send("POST", "/v1/things", body, headers={"content-type": "application/json"})
    assert (answer.status, answer.json()["field"]) == (400, field)


# ---------------------------------------------------------------------------------------------------- query and header


QUERY = (
    QueryParameter("state", "text", "", choices=("open", "shut")),
    QueryParameter("after", "integer", "", default=7, minimum=1, maximum=9),
    QueryParameter("all", "boolean", ""),
)


async def test_query_parameters_come_typed_with_their_defaults(stage: Stage) -> None:
    client = app(stage, route(query=QUERY, paginated=True))
    told = (await client.get("/v1/things?state=open&all=true&limit=3")).json()["query"]
    assert told == {"state": "open", "after": 7, "all": True, "limit": 3, "cursor": None}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("state=ajar", "state"),
        ("after=10", "after"),
        ("after=0", "after"),
        ("after=%D9%A3", "after"),
        ("all=1", "all"),
        ("other=1", "other"),
        ("after=1&after=2", "after"),
        ("state=%FF", "query"),
        ("limit=0", "limit"),
        ("cursor=" + "x" * 513, "cursor"),
        ("cursor=a%00", "cursor"),
        ("&".join(["a=1"] * 20), "query"),
    ],
)
async def test_other_query_parameters_are_refused_by_name(stage: Stage, query: str, field: str) -> None:
    answer = await app(stage, route(query=QUERY, paginated=True)).get(f"/v1/things?{query}")
    assert (answer.status, answer.json()["field"]) == (400, field)


async def test_an_idempotent_route_needs_its_key(stage: Stage) -> None:
    client = app(stage, route("POST", request=Body, idempotent=True))
    for key in ({}, {"idempotency-key": ""}, {"idempotency-key": "x" * 129}, {"idempotency-key": "a b"}):
        answer = await client.post("/v1/things", {"account": "a"}, headers=key)
        assert (answer.status, answer.json()["field"]) == (400, "Idempotency-Key")
    answer = await client.post("/v1/things", {"account": "a"}, headers={"idempotency-key": "x" * 128})
    assert answer.json()["idempotency_key"] == "x" * 128


# ------------------------------------------------------------------------------------------------- load and deadlines


async def test_one_key_does_not_take_every_place_of_a_replica(stage: Stage) -> None:
    gate = asyncio.Event()

    async def wait(call: Call) -> Reply:
        await gate.wait()
        return Reply()

    client = app(stage, route(handler=wait), key_in_flight_max=2, in_flight_max=3)
    other = Client(client.app, stage.keys.add(KeyScope.READ))
    first = [asyncio.ensure_future(client.get("/v1/things")) for _ in range(2)]
    await asyncio.sleep(0)
    assert (await client.get("/v1/things")).status == 503
    third = asyncio.ensure_future(other.get("/v1/things"))
    await asyncio.sleep(0)
    shed = await other.get("/v1/things")
    assert shed.status == 503 and shed.headers["retry-after"] == "1"
    gate.set()
    assert [answer.status for answer in await asyncio.gather(*first, third)] == [200, 200, 200]
    assert (await client.get("/v1/things")).status == 200, "places are given back"


async def test_strangers_take_no_place_from_a_key(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = asyncio.Event()

    async def wait(call: Call) -> Reply:
        await gate.wait()
        return Reply()

    monkeypatch.setattr(app_module, "STRANGERS_MAX", 2)
    open_to_all = route(path="/livez", handler=wait, scope=None)
    client = app(stage, route(), open_to_all, in_flight_max=1)
    stranger = Client(client.app)
    waiting = [asyncio.ensure_future(stranger.get("/livez")) for _ in range(2)]
    await asyncio.sleep(0)
    assert (await stranger.get("/livez")).status == 503
    assert (await client.get("/v1/things")).status == 200
    gate.set()
    assert [answer.status for answer in await asyncio.gather(*waiting)] == [200, 200]
    assert (await stranger.get("/livez")).status == 200, "places are given back"


async def test_a_handler_that_takes_too_long_is_left(stage: Stage) -> None:
    async def hang(call: Call) -> Reply:
        await asyncio.sleep(3600)
        return Reply()

    answer = await app(stage, route(handler=hang, deadline_s=0.01)).get("/v1/things")
    assert (answer.status, answer.json()["type"]) == (504, "/problems/deadline")


async def test_a_fault_of_ours_is_logged_once_and_tells_nobody_anything(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    async def break_down(call: Call) -> Reply:
        raise RuntimeError("secret-marker")

    client = app(stage, route(handler=break_down))
    with caplog.at_level(logging.DEBUG):
        answer = await client.get("/v1/things")
    assert answer.status == 500 and b"secret-marker" not in answer.body
    assert answer.json()["instance"] == answer.headers["x-request-id"]
    (record,) = caplog.records
    text = record.getMessage()
    assert "RuntimeError" in text and answer.headers["x-request-id"] in text
    assert "secret-marker" not in text + str(record.exc_info) and str(client.key) not in text


async def test_a_refusal_of_the_handler_is_a_problem(stage: Stage) -> None:
    async def refuse(call: Call) -> Reply:
        raise invalid("amount", "It is above 0.")

    answer = await app(stage, route(handler=refuse)).get("/v1/things")
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json() == {
        "type": "/problems/invalid-request",
        "title": "Invalid request",
        "status": 400,
        "detail": "It is above 0.",
        "instance": answer.headers["x-request-id"],
        "next_step": "Correct the field and send the request again.",
        "field": "amount",
    }


async def test_every_answer_has_an_id_of_its_own(stage: Stage) -> None:
    client = app(stage, route())
    answers = [await client.get(path) for path in ("/v1/things", "/v1/things", "/nowhere", "/v1/things?x=1")]
    assert len({answer.headers["x-request-id"] for answer in answers}) == 4
    assert all(answer.headers["cache-control"] == "no-store" for answer in answers)


async def test_the_observer_hears_of_route_and_status(stage: Stage) -> None:
    seen: list[tuple[str, int]] = []
    client = app(stage, route(), observe=lambda told, status, seconds: seen.append((told.path, status)))
    await client.get("/v1/things")
    await client.get("/v1/things?x=1")
    await client.get("/nowhere")
    assert seen == [("/v1/things", 200), ("/v1/things", 400)]


async def test_the_lifespan_is_confirmed(stage: Stage) -> None:
    said: list[str] = []
    waiting = ["lifespan.startup", "lifespan.shutdown"]

    async def receive() -> dict[str, Any]:
        return {"type": waiting.pop(0)}

    async def send(message: Any) -> None:
        said.append(message["type"])

    await App((), stage.services)({"type": "lifespan"}, receive, send)
    assert said == ["lifespan.startup.complete", "lifespan.shutdown.complete"]


def test_a_problem_says_what_it_is() -> None:
    assert str(Problem(409, "taken", "Taken", "The name is taken.", next_step="")) == "taken: The name is taken."
