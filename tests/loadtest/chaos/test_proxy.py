"""What a client sees of its server through the proxy, in each weather."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from loadtest.chaos.proxy import Direction, Proxy, Weather


class Server:
    """Answers each line with what it has heard so far."""

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.port = 0

    async def serve(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while line := await source.readline():
            self.heard.append(line)
            sink.write(line)
        sink.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = listening.sockets[0].getsockname()[1]
    yield made
    listening.close()


@pytest.fixture
async def proxy(server: Server) -> AsyncIterator[Proxy]:
    made = Proxy(("127.0.0.1", server.port), seed=1)
    await made.start()
    yield made
    await made.stop()


class Client:
    def __init__(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        self.source, self.sink = source, sink

    async def say(self, line: bytes) -> None:
        self.sink.write(line)
        await self.sink.drain()

    async def hear(self) -> bytes:
        async with asyncio.timeout(10):
            return await self.source.readline()

    async def hears_nothing(self) -> bool:
        try:
            async with asyncio.timeout(0.2):
                return await self.source.readline() == b"nothing"
        except TimeoutError:
            return True

    async def is_broken(self) -> bool:
        try:
            return await self.hear() == b""
        except ConnectionError:
            return True


async def dial(proxy: Proxy) -> Client:
    return Client(*await asyncio.open_connection("127.0.0.1", proxy.port))


async def heard(server: Server, line: bytes) -> None:
    async with asyncio.timeout(10):
        while line not in server.heard:
            await asyncio.sleep(0.01)


async def test_in_fair_weather_everything_crosses_both_ways(proxy: Proxy, server: Server) -> None:
    client = await dial(proxy)
    for line in (b"one\n", b"two\n"):
        await client.say(line)
        assert await client.hear() == line
    client.sink.close()
    async with asyncio.timeout(10):
        while proxy.connections:
            await asyncio.sleep(0.01)
    assert server.heard == [b"one\n", b"two\n"]


async def test_a_cut_upward_reaches_nobody_and_breaks_what_missed_something(proxy: Proxy, server: Server) -> None:
    client, idle = await dial(proxy), await dial(proxy)
    await client.say(b"before\n")
    assert await client.hear() == b"before\n"
    await idle.say(b"before too\n")
    assert await idle.hear() == b"before too\n"
    proxy.set(Weather(cut=frozenset({Direction.UP})))
    await client.say(b"during\n")
    assert await client.hears_nothing()
    assert proxy.swallowed_bytes == len(b"during\n")
    proxy.set(Weather())
    assert await client.is_broken()
    await idle.say(b"after\n")
    assert await idle.hear() == b"after\n"
    assert server.heard == [b"before\n", b"before too\n", b"after\n"]


async def test_a_cut_downward_swallows_the_answer_and_not_the_question(proxy: Proxy, server: Server) -> None:
    client = await dial(proxy)
    await client.say(b"before\n")
    assert await client.hear() == b"before\n"
    proxy.set(Weather(cut=frozenset({Direction.DOWN})))
    await client.say(b"during\n")
    await heard(server, b"during\n")
    assert await client.hears_nothing()
    proxy.set(Weather())
    assert await client.is_broken()


async def test_who_comes_during_a_cut_hears_nothing_until_it_ends(proxy: Proxy, server: Server) -> None:
    proxy.set(Weather(cut=frozenset(Direction)))
    client = await dial(proxy)
    await client.say(b"hello\n")
    assert await client.hears_nothing()
    proxy.set(Weather())
    assert await client.is_broken()
    assert server.heard == []


async def test_connections_are_refused_and_broken_by_lot(proxy: Proxy) -> None:
    proxy.set(Weather(refused_share=0.5))
    clients = [await dial(proxy) for _ in range(40)]
    standing = []
    for client in clients:
        try:
            await client.say(b"hello\n")
            standing += [client] if await client.hear() else []
        except ConnectionError:
            continue
    assert 0 < proxy.refused < 40
    assert len(standing) == 40 - proxy.refused == len(proxy.connections)
    assert 0 < proxy.reset(0.5) < len(standing)


async def test_a_delay_and_a_narrow_line_hold_words_back_and_keep_their_order(proxy: Proxy) -> None:
    loop = asyncio.get_running_loop()
    client = await dial(proxy)
    for weather in (Weather(delay_s=(0.05, 0.1)), Weather(bytes_per_s=20.0)):
        proxy.set(weather)
        begun_s = loop.time()
        await client.say(b"o\n")
        assert await client.hear() == b"o\n"
        assert loop.time() - begun_s >= 0.1, "each way waits"
    proxy.set(Weather())
    for number in range(100):
        await client.say(b"%d\n" % number)
    assert [await client.hear() for _ in range(100)] == [b"%d\n" % number for number in range(100)]
