"""Webhook attempts against a real HTTP server on loopback."""

import asyncio
import base64
import hashlib
import hmac
import json
import re
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from standardwebhooks import Webhook

import actors.webhooks
from actors.egress import EgressRefused
from actors.ports import Attempt
from actors.webhooks import RESPONSE_BYTES_MAX, WebhookCaller, retry_after_s
from tests.simulation.hand_clock import HandClock

KEY = bytes(range(32))
SECRET = "whsec_" + base64.b64encode(KEY).decode()
BODY = '{"type":"alert.crossed","account":"Büro","value":"100.00"}'.encode()
NOW_US = 1_750_000_000_999_999

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Endpoint:
    """A server whose next answers are given as functions; it keeps what it was sent."""

    def __init__(self) -> None:
        self.answer: Answer = self.ok
        self.seen: list[tuple[web.Request, bytes]] = []
        self.port = 0

    @staticmethod
    async def ok(request: web.Request) -> web.StreamResponse:
        return web.Response(status=204)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.seen.append((request, await request.read()))
        return await self.answer(request)

    def answers(self, status: int, **headers: str) -> None:
        async def answer(request: web.Request) -> web.StreamResponse:
            return web.Response(status=status, headers={name.replace("_", "-"): text for name, text in headers.items()})

        self.answer = answer


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    made = Endpoint()
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.take)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


async def post(
    url: str, body: bytes = BODY, *, timeout_s: float = 5.0, resolver: AbstractResolver | None = None
) -> Attempt:
    caller = WebhookCaller(HandClock(NOW_US), allow_loopback=True, timeout_s=timeout_s, resolver=resolver)
    try:
        return (await caller.call(url, [SECRET], "alert_1", body)).attempt
    finally:
        await caller.stop()


class ScriptedResolver(AbstractResolver):
    """Answers per call, in order: one address, or several separated by spaces."""

    def __init__(self, *answers: str) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        if not self._answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=socket.AF_INET, proto=6, flags=0)
            for address in self._answers.pop(0).split()
        ]

    async def close(self) -> None:
        return None


async def test_the_sent_bytes_are_the_signed_bytes(endpoint: Endpoint) -> None:
    assert await post(f"http://127.0.0.1:{endpoint.port}/hooks?token=t0ken") == Attempt(delivered=True)
    [(request, sent)] = endpoint.seen
    assert sent == BODY
    assert request.method == "POST"
    assert request.path_qs == "/hooks?token=t0ken"
    assert request.headers["webhook-id"] == "alert_1"
    assert request.headers["webhook-timestamp"] == "1750000000"
    # As Standard Webhooks writes it down: base64 of HMAC-SHA256 over id.timestamp.body, after "v1,".
    by_hand = hmac.new(KEY, b"alert_1.1750000000." + BODY, hashlib.sha256).digest()
    assert request.headers["webhook-signature"] == "v1," + base64.b64encode(by_hand).decode()
    assert request.headers["Content-Type"] == "application/json"
    assert re.fullmatch(r"tallygate/\d+\.\d+\.\d+", request.headers["User-Agent"])
    assert "Cookie" not in request.headers


async def test_the_reference_package_accepts_the_signature(endpoint: Endpoint) -> None:
    clock = HandClock(time.time_ns() // 1000)  # the package compares with the real time
    caller = WebhookCaller(clock, allow_loopback=True)
    await caller.call(f"http://127.0.0.1:{endpoint.port}/", [SECRET], "alert_1", BODY)
    await caller.stop()
    [(request, sent)] = endpoint.seen
    assert Webhook(SECRET).verify(sent, dict(request.headers)) == json.loads(BODY)


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_every_2xx_is_delivered(endpoint: Endpoint, status: int) -> None:
    endpoint.answers(status)
    assert await post(f"http://127.0.0.1:{endpoint.port}/") == Attempt(delivered=True)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_a_failure_and_is_not_followed(endpoint: Endpoint, status: int) -> None:
    endpoint.answers(status, Location=f"http://127.0.0.1:{endpoint.port}/elsewhere")
    attempt = await post(f"http://127.0.0.1:{endpoint.port}/")
    assert not attempt.delivered and not attempt.final
    assert attempt.error.startswith(f"HTTP {status}")
    assert len(endpoint.seen) == 1


async def test_410_is_final(endpoint: Endpoint) -> None:
    endpoint.answers(410, Retry_After="5")
    attempt = await post(f"http://127.0.0.1:{endpoint.port}/")
    assert (attempt.delivered, attempt.final, attempt.retry_after_s) == (False, True, None)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize(
    ("header", "wait_s"),
    [
        ("17", 17.0),
        ("999999", 3600.0),
        ("Sun, 15 Jun 2025 15:07:10 GMT", 29.000001),
        ("Sun, 15 Jun 2025 14:00:00 GMT", 0.0),
        ("soon", None),
    ],
)
async def test_retry_after_is_honoured_when_the_receiver_is_overloaded(
    endpoint: Endpoint, status: int, header: str, wait_s: float | None
) -> None:
    endpoint.answers(status, Retry_After=header)
    attempt = await post(f"http://127.0.0.1:{endpoint.port}/")
    assert attempt.error == f"HTTP {status}"
    assert attempt.retry_after_s == (None if wait_s is None else pytest.approx(wait_s))


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_other_failures_carry_no_wait(endpoint: Endpoint, status: int) -> None:
    endpoint.answers(status, Retry_After="17")
    assert await post(f"http://127.0.0.1:{endpoint.port}/") == Attempt(delivered=False, error=f"HTTP {status}")


@pytest.mark.parametrize(
    "header", ["", "-1", "1.5", "9" * 5000, "Sun, 99 Jun 2025 15:07:10 GMT", "Sun, 15 Jun 99999 15:07:10 GMT", "\u0663"]
)
def test_an_odd_retry_after_never_raises(header: str) -> None:
    wait_s = retry_after_s(header, NOW_US, 60.0)
    assert wait_s is None or 0.0 <= wait_s <= 60.0


async def test_cookies_are_not_kept(endpoint: Endpoint) -> None:
    endpoint.answers(200, Set_Cookie="session=1")
    caller = WebhookCaller(HandClock(NOW_US), allow_loopback=True)
    for _ in range(2):
        await caller.call(f"http://127.0.0.1:{endpoint.port}/", [SECRET], "alert_1", BODY)
    await caller.stop()
    assert len(endpoint.seen) == 2
    assert all("Cookie" not in request.headers for request, _ in endpoint.seen)


async def test_proxies_of_the_environment_are_ignored(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert (await post(f"http://127.0.0.1:{endpoint.port}/")).delivered


async def test_an_answer_is_read_no_further_than_the_limit(endpoint: Endpoint) -> None:
    async def more_than_we_read(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(b"x" * RESPONSE_BYTES_MAX)
        await asyncio.Event().wait()
        return response

    endpoint.answer = more_than_we_read
    # Whoever reads on waits for bytes that never come, and for a time-out far beyond this test's own.
    attempt = await asyncio.wait_for(post(f"http://127.0.0.1:{endpoint.port}/", timeout_s=600.0), 20.0)
    assert attempt == Attempt(delivered=True)


async def test_an_answer_that_stops_after_its_headers_still_counts(endpoint: Endpoint) -> None:
    async def headers_only(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.Event().wait()
        return response

    endpoint.answer = headers_only
    assert await post(f"http://127.0.0.1:{endpoint.port}/", timeout_s=0.2) == Attempt(delivered=True)


async def test_a_receiver_that_hangs_ends_the_attempt(endpoint: Endpoint) -> None:
    async def never(request: web.Request) -> web.StreamResponse:
        await asyncio.Event().wait()
        raise AssertionError

    endpoint.answer = never
    attempt = await post(f"http://127.0.0.1:{endpoint.port}/", timeout_s=0.2)
    assert attempt == Attempt(delivered=False, error="no answer within 0.2 s")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 2",
        b"HTTP/1.1 99999 ?\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: minus one\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 100_000 + b"\r\n\r\n",
        b"\x16\x03\x01\x00\xff" * 10,
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_a_broken_receiver_is_a_failed_attempt_with_no_secret_in_it(raw: bytes, scheme: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(raw)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    attempt = await post(f"{scheme}://127.0.0.1:{port}/hook-t0ken?key=t0ken")
    server.close()
    await server.wait_closed()
    assert not attempt.delivered and not attempt.final
    assert 0 < len(attempt.error) < 120
    assert "t0ken" not in attempt.error and SECRET not in attempt.error


async def test_nobody_listening_is_a_failed_attempt() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        attempt = await post(f"http://127.0.0.1:{taken.getsockname()[1]}/t0ken")
    assert attempt.error.startswith("could not connect")
    assert "t0ken" not in attempt.error


async def test_a_name_that_does_not_resolve_is_a_failed_attempt() -> None:
    attempt = await post("http://hooks.example.test/", resolver=ScriptedResolver())
    assert attempt == Attempt(delivered=False, error="the receiver's name did not resolve")


async def test_the_vetted_address_is_dialled_under_the_receivers_name(endpoint: Endpoint) -> None:
    url = f"http://hooks.example.test:{endpoint.port}/"
    assert (await post(url, resolver=ScriptedResolver("127.0.0.1"))).delivered
    assert endpoint.seen[0][0].headers["Host"] == f"hooks.example.test:{endpoint.port}"


async def test_tls_asks_for_the_receivers_name() -> None:
    hello: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    async def listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello.set_result(await reader.read(4096))
        writer.close()

    server = await asyncio.start_server(listen, "127.0.0.1", 0)
    url = f"https://hooks.example.test:{server.sockets[0].getsockname()[1]}/"
    attempt = await post(url, resolver=ScriptedResolver("127.0.0.1"))
    server.close()
    await server.wait_closed()
    assert not attempt.delivered
    assert b"hooks.example.test" in await hello


async def test_a_name_that_turns_private_between_attempts_is_not_dialled(endpoint: Endpoint) -> None:
    resolver = ScriptedResolver("127.0.0.1", "10.0.0.1")
    caller = WebhookCaller(HandClock(NOW_US), allow_loopback=True, resolver=resolver)
    url = f"http://hooks.example.test:{endpoint.port}/"
    first = (await caller.call(url, [SECRET], "alert_1", BODY)).attempt
    second = (await caller.call(url, [SECRET], "alert_1", BODY)).attempt
    assert first.delivered
    assert second.error.startswith("refused by the egress guard")
    assert "10.0.0.1" not in second.error
    assert len(endpoint.seen) == 1


async def test_a_name_with_one_private_address_is_not_dialled_at_all(endpoint: Endpoint) -> None:
    url = f"http://hooks.example.test:{endpoint.port}/"
    attempt = await post(url, resolver=ScriptedResolver("127.0.0.1 10.0.0.1"))
    assert attempt.error.startswith("refused by the egress guard")
    assert endpoint.seen == []


async def test_the_socket_is_guarded_even_if_the_resolver_were_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.webhooks, "GuardedResolver", lambda egress, inner: inner)
    caller = WebhookCaller(HandClock(NOW_US), resolver=ScriptedResolver("127.0.0.1"))
    attempt = (await caller.call("https://hooks.example.test/", [SECRET], "alert_1", BODY)).attempt
    assert attempt.error.startswith("refused by the egress guard")


async def test_without_the_development_setting_a_name_on_loopback_is_not_dialled() -> None:
    caller = WebhookCaller(HandClock(NOW_US), resolver=ScriptedResolver("127.0.0.1"))
    attempt = (await caller.call("https://hooks.example.test/", [SECRET], "alert_1", BODY)).attempt
    assert attempt.error.startswith("refused by the egress guard")


@pytest.mark.parametrize(
    "url", ["http://hooks.example.com/", "https://127.0.0.1/", "https://10.0.0.1/", "https://0x7f.1/"]
)
async def test_a_url_that_may_never_be_called_is_refused_before_anything_is_resolved(url: str) -> None:
    caller = WebhookCaller(HandClock())
    with pytest.raises(EgressRefused):
        caller.check(url)
    answer = await caller.call(url, [SECRET], "alert_1", BODY)
    assert answer.attempt.error.startswith("refused by the egress guard")
    assert answer.status is None


async def test_an_answer_says_its_status_and_when_it_began(endpoint: Endpoint) -> None:
    endpoint.answers(503)
    caller = WebhookCaller(HandClock(NOW_US), allow_loopback=True)
    answer = await caller.call(f"http://127.0.0.1:{endpoint.port}/", [SECRET], "alert_1", BODY)
    assert (answer.status, answer.at_us, answer.duration_ms) == (503, NOW_US, 0)


async def test_with_two_secrets_there_are_two_signatures_and_each_is_enough(endpoint: Endpoint) -> None:
    older = "whsec_" + base64.b64encode(KEY[::-1]).decode()
    caller = WebhookCaller(HandClock(time.time_ns() // 1000), allow_loopback=True)
    await caller.call(f"http://127.0.0.1:{endpoint.port}/", [SECRET, older], "alert_1", BODY)
    [(request, sent)] = endpoint.seen
    assert len(request.headers["webhook-signature"].split(" ")) == 2
    for secret in (SECRET, older):
        assert Webhook(secret).verify(sent, dict(request.headers)) == json.loads(BODY)
