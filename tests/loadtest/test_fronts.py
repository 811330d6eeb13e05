"""The HTTP way in, against a server that answers as the API does, and as a dying one does."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from loadtest import fronts
from loadtest.fronts import Ask, Bound, HttpFront, Refused, Unanswered, Usage, until_answered

ASK = Ask("acme", "llm.request", {"model": "atlas-mini"}, (Bound(("input_tokens",), 12),), 5.0)
USAGE = Usage("acme", "gw", "e1", "llm.request", "2026-01-01T00:00:00Z", {"input_tokens": 3}, "tok", False)
CHECKED = {
    "allowed": True,
    "reason": None,
    "transient": False,
    "price": {"amount": "0.000000000012", "currency": "USD", "version": 1},
    "balance": {"booked": "1.5", "held": "0.5", "available": "1", "overdraft": "0", "currency": "USD"},
    "hold": {"id": "0.1.1", "token": "tok", "valid_for_s": 4.5, "expires_in_s": 10},
    "as_of": {"partition": 0, "epoch": 1, "offset": 7},
}


class Api:
    """Answers what it was told to, in turn, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[tuple[int, Any]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers["authorization"], await request.json()))
        status, body = self.answers.pop(0)
        if status == 0:
            assert request.transport is not None
            request.transport.close()
        return web.json_response(body, status=status or 200)


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, HttpFront]]:
    made = Api()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield made, HttpFront(session, f"http://127.0.0.1:{runner.addresses[0][1]}/", "key")
    await runner.cleanup()


async def test_the_four_calls_are_the_contract(api: tuple[Api, HttpFront]) -> None:
    server, front = api
    server.answers = [(200, CHECKED), (200, CHECKED), (202, {}), (200, {})]
    answer = await front.check(ASK)
    await front.extend("tok", (), 3.0)
    await front.capture(USAGE)
    await front.release("tok")
    bounds = [{"fields": ["input_tokens"], "up_to": 12}]
    event = {"id": "e1", "source": "gw", "type": "llm.request", "time": USAGE.time, "data": {"input_tokens": 3}}
    assert server.asked == [
        ("/v1/check", "Bearer key", {"account": "acme", "type": "llm.request", "data": {"model": "atlas-mini"},
                                     "bounds": bounds, "hold": {"ttl_s": 5.0}}),
        ("/v1/holds/extend", "Bearer key", {"token": "tok", "bounds": [], "ttl_s": 3.0}),
        ("/v1/holds/capture", "Bearer key", {"token": "tok", "event": event, "final": False}),
        ("/v1/holds/release", "Bearer key", {"token": "tok"}),
    ]  # fmt: skip
    assert (answer.allowed, answer.price, answer.booked, answer.held, answer.available) == (
        True, 12, 15 * 10**11, 5 * 10**11, 10**12,
    )  # fmt: skip
    assert (answer.overdraft, answer.hold, answer.token, answer.offset) == (0, "0.1.1", "tok", 7)


async def test_a_denial_has_no_hold_and_may_have_no_figures(api: tuple[Api, HttpFront]) -> None:
    server, front = api
    server.answers = [(200, {"allowed": False, "reason": "unknown_account", "transient": False, "hold": None})]
    answer = await front.check(ASK)
    assert (answer.allowed, answer.reason, answer.token, answer.booked) == (False, "unknown_account", None, None)


async def test_what_is_lost_is_asked_again_unchanged_and_what_is_wrong_is_not(api: tuple[Api, HttpFront]) -> None:
    server, front = api
    server.answers = [(503, {}), (0, {}), (500, {}), (202, {})]
    await front.capture(USAGE)
    assert len(server.asked) == 4 and all(asked == server.asked[0] for asked in server.asked)
    assert front.retries == 3
    server.answers = [(422, {"detail": "no such field"})]
    with pytest.raises(Refused, match="no such field"):
        await front.check(ASK)


async def test_nobody_waits_for_ever() -> None:
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        raise Unanswered("away")

    with pytest.raises(Unanswered, match="away"):
        await until_answered(attempt, give_up_s=0.2)
    assert tries > 1
    assert fronts.GIVE_UP_S > fronts.ATTEMPT_TIMEOUT_S
