"""The app behind a real server, over real sockets: what only the wire can show."""

import asyncio
import socket
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
import uvicorn

from actors.keys import KeyScope
from actors.web.app import App
from tests.actors.web.fakes import Stage
from tests.actors.web.test_hot import CHECK, EVENT


class Served:
    def __init__(self, stage: Stage, port: int) -> None:
        self.stage = stage
        self.port = port
        self.url = f"http://127.0.0.1:{port}"
        self.key = stage.keys.add(*KeyScope)
        self.headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}

    async def raw(self, request: bytes) -> bytes:
        """What comes back until the server closes the connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        async with asyncio.timeout(20):
            answer = await reader.read()
        writer.close()
        return answer


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    stage = Stage(body_deadline_s=0.2)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(stage.app, log_level="error", lifespan="on"))
    task = asyncio.create_task(server.serve([listener]))
    async with asyncio.timeout(20):
        while not server.started:
            await asyncio.sleep(0.01)
    yield Served(stage, listener.getsockname()[1])
    server.should_exit = True
    await task


async def test_checks_and_usage_over_one_connection(served: Served) -> None:
    async with aiohttp.ClientSession(served.url, headers=served.headers) as session:
        for _ in range(3):
            async with session.post("/v1/check", data=orjson.dumps(CHECK)) as answer:
                assert (answer.status, (await answer.json())["allowed"]) == (200, True)
            async with session.post("/v1/events", data=orjson.dumps([EVENT] * 1_000)) as answer:
                assert (answer.status, (await answer.json())["accepted"]) == (202, 1_000)
        async with session.head("/readyz") as answer:
            assert (answer.status, await answer.read()) == (200, b"")


async def test_a_name_with_a_slash_stays_one_name(served: Served) -> None:
    served.stage.doors.accounts.add("a/b")
    async with (
        aiohttp.ClientSession(served.url, headers=served.headers) as session,
        session.get(f"{served.url}/v1/customers/a%2Fb/stream") as answer,
    ):
        assert answer.status == 200
        assert (await answer.content.readline()) == b"event: balance\n"


async def test_a_body_that_never_comes_is_not_waited_for(served: Served) -> None:
    head = f"POST /v1/check HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\n"
    answer = await served.raw(f"{head}content-type: application/json\r\ncontent-length: 100\r\n\r\n{{".encode())
    assert answer.startswith(b"HTTP/1.1 408 ") and b"/problems/slow-body" in answer


@pytest.mark.parametrize("framing", ["content-length: 1000000\r\n\r\n", "transfer-encoding: chunked\r\n\r\n8000\r\n"])
async def test_a_body_without_an_end_closes_the_connection(served: Served, framing: str) -> None:
    head = f"POST /v1/check HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {served.key}\r\ncontent-type: application/json\r\n"
    answer = await served.raw(head.encode() + framing.encode() + b" " * 0x8000)
    assert answer.startswith(b"HTTP/1.1 413 ")


async def test_a_stranger_sends_no_body_at_all(served: Served) -> None:
    head = b"POST /v1/events HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\nconnection: close\r\n"
    answer = await served.raw(head + b"content-length: 1000000\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 401 "), "the server never said 100 Continue"


async def test_who_hangs_up_frees_the_stream(served: Served) -> None:
    async with aiohttp.ClientSession(served.url, headers=served.headers) as session:
        for _ in range(40):
            async with session.get("/v1/customers/acme/stream") as answer:
                assert answer.status == 200
                await answer.content.readline()
            async with asyncio.timeout(20):
                while _open_streams(served.stage.app):
                    await asyncio.sleep(0.01)


def _open_streams(app: App) -> int:
    (route,) = [route for route in app.routes if route.path.endswith("/stream")]
    return sum(route.handler.__self__.open.values())  # type: ignore[attr-defined]
