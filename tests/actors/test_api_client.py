"""The API's client: what is sent again and under which key, what a refusal says, and where a key is never sent."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from actors.api_client import ApiAway, ApiClient, ApiRefused, BadAddress, checked_url, path_of

Handler = Callable[[web.Request], Any]
PROBLEM = {
    "type": "/problems/unknown-plan",
    "detail": "The catalogue in force has no such plan.",
    "field": "plan",
    "next_step": "Compare with GET /v1/plans.",
    "instance": "a-1",
}


class Api:
    """Answers from a list, and remembers what it was asked."""

    def __init__(self, *answers: Callable[[], web.StreamResponse]) -> None:
        self.answers = list(answers)
        self.asked: list[web.Request] = []
        self.bodies: list[bytes] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        self.bodies.append(await request.read())
        return self.answers.pop(0)()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[[Api], Any]]:
    servers: list[TestServer] = []

    async def start(api: Api) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", api.answer)
        server = TestServer(app)
        await server.start_server()
        servers.append(server)
        return f"http://127.0.0.1:{server.port}"

    yield start
    for server in servers:
        await server.close()


def problem(status: int) -> web.Response:
    return web.json_response(PROBLEM, status=status, content_type="application/problem+json")


async def test_a_change_that_got_lost_is_sent_again_as_the_same_change(serve: Callable[[Api], Any]) -> None:
    api = Api(
        lambda: web.Response(status=500), lambda: problem(503), lambda: web.json_response({"id": "x"}, status=201)
    )
    async with ApiClient(await serve(api), "secret") as client:
        assert await client.change("POST", "/v1/customers", {"account": "a"}) == {"id": "x"}
    assert len({request.headers["idempotency-key"] for request in api.asked}) == 1
    assert api.bodies == [b'{"account":"a"}'] * 3
    assert {request.headers["authorization"] for request in api.asked} == {"Bearer secret"}


async def test_two_changes_are_two_changes(serve: Callable[[Api], Any]) -> None:
    api = Api(lambda: web.Response(status=204), lambda: web.Response(status=204))
    async with ApiClient(await serve(api), "k") as client:
        assert await client.change("DELETE", "/v1/keys/a") is None
        await client.change("DELETE", "/v1/keys/a")
    assert len({request.headers["idempotency-key"] for request in api.asked}) == 2


async def test_a_refusal_names_field_reason_next_step_and_request(serve: Callable[[Api], Any]) -> None:
    async with ApiClient(await serve(Api(lambda: problem(422))), "k") as client:
        with pytest.raises(ApiRefused) as refused:
            await client.get("/v1/customers")
    assert str(refused.value) == (
        "plan: The catalogue in force has no such plan. Compare with GET /v1/plans. (request a-1)"
    )
    assert refused.value.status == 422


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"detail": "the name did not resolve", "next_step": "Check it."}, "the name did not resolve. Check it."),
        ({"title": "Not found", "next_step": "Look."}, "Not found. Look."),
        ({"detail": "Why not?", "next_step": "Look."}, "Why not? Look."),
        ({}, "the API answered with status 400"),
    ],
)
def test_reason_and_next_step_are_two_sentences(said: dict[str, str], told: str) -> None:
    assert str(ApiRefused(400, said)) == told


async def test_whoever_is_away_for_too_long_is_named(serve: Callable[[Api], Any]) -> None:
    api = Api(*[lambda: problem(503)] * 50)
    url = await serve(api)
    async with ApiClient(url, "k", give_up_s=0.2) as client:
        with pytest.raises(ApiAway, match=url):
            await client.get("/v1/customers")
    async with ApiClient("http://127.0.0.1:1", "k", give_up_s=0.0) as client:
        with pytest.raises(ApiAway, match="is it up"):
            await client.get("/v1/customers")


async def test_parameters_that_are_absent_are_not_sent(serve: Callable[[Api], Any]) -> None:
    api = Api(lambda: web.json_response({"items": []}))
    async with ApiClient(await serve(api), "k") as client:
        await client.get("/v1/customers", limit=5, cursor=None)
    assert dict(api.asked[0].query) == {"limit": "5"}


async def test_a_key_is_not_carried_where_a_redirect_points(serve: Callable[[Api], Any]) -> None:
    elsewhere = Api(lambda: web.json_response({}))
    there = await serve(elsewhere)
    api = Api(lambda: web.Response(status=302, headers={"location": there}))
    async with ApiClient(await serve(api), "k") as client:
        with pytest.raises(ApiRefused, match="302"):
            await client.get("/v1/customers")
    assert elsewhere.asked == []


async def test_something_else_at_the_address_is_said_to_be_something_else(serve: Callable[[Api], Any]) -> None:
    async with ApiClient(await serve(Api(lambda: web.Response(text="<html>"))), "k") as client:
        with pytest.raises(ApiRefused, match="is not tallygate"):
            await client.get("/v1/customers")


async def test_a_stream_is_followed_event_by_event(serve: Callable[[Api], Any]) -> None:
    text = b': still here\n\nevent: balance\ndata: {"a": 1}\n\nevent: alert\ndata: {"b": 2}\n\n'
    async with ApiClient(await serve(Api(lambda: web.Response(body=text), lambda: problem(404))), "k") as client:
        events = [event async for event in client.follow("/v1/customers/a/stream")]
        assert [(event.name, event.data) for event in events] == [("balance", {"a": 1}), ("alert", {"b": 2})]
        with pytest.raises(ApiRefused):
            await anext(client.follow("/v1/customers/a/stream"))


@pytest.mark.parametrize(
    "url", ["https://api.example", "http://127.0.0.1:8400", "http://localhost:1", "http://[::1]:2"]
)
def test_addresses_that_a_key_may_go_to(url: str) -> None:
    assert checked_url(url + "/") == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.example",
        "http://10.0.0.1:8400",
        "ftp://h",
        "api.example",
        "https://h?x=1",
        "https://u@h",
        "http://h:x",
    ],
)
def test_addresses_that_it_may_not_go_to(url: str) -> None:
    with pytest.raises(BadAddress):
        checked_url(url)


def test_plain_http_goes_where_somebody_says_that_it_is_meant() -> None:
    assert checked_url("http://api.example", plain_http=True) == "http://api.example"


def test_a_part_of_a_path_stays_one_part() -> None:
    assert path_of("customers", "a/../b ?", "balance") == "/v1/customers/a%2F..%2Fb%20%3F/balance"
