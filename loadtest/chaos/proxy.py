"""A TCP proxy between one client and one server, which does to their connections what networks do.

It delays, slows down, loses and breaks connections, and swallows what one side says, or both. What was swallowed is
gone: as a stream with a hole in it is none, such a connection is broken once the cut is mended.
"""

import asyncio
from contextlib import suppress
from enum import StrEnum
from random import Random
from typing import Final

from msgspec import Struct

CHUNK_BYTES: Final = 65_536


class Direction(StrEnum):
    """Who speaks."""

    UP = "client to server"
    DOWN = "server to client"


class Weather(Struct, frozen=True):
    """What happens to whatever crosses. With the defaults: nothing."""

    delay_s: tuple[float, float] = (0.0, 0.0)  # of each chunk, drawn evenly; the one behind it waits
    refused_share: float = 0.0  # of new connections: ended at once
    bytes_per_s: float | None = None  # of each direction of each connection
    cut: frozenset[Direction] = frozenset()  # whose words are swallowed; new connections hear nothing


class Connection:
    """One connection of a client, and ours to the server on its behalf."""

    def __init__(
        self,
        client: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        server: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self.client_in, self.client_out = client
        self.server_in, self.server_out = server
        self.holed: set[Direction] = set()  # where something that was said never arrived

    def ends(self, direction: Direction) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Where this direction comes from, and where it goes."""
        if direction is Direction.UP:
            return self.client_in, self.server_out
        return self.server_in, self.client_out

    def reset(self) -> None:
        """End both sides at once; what is under way is lost."""
        reset(self.client_out)
        reset(self.server_out)


def reset(writer: asyncio.StreamWriter) -> None:
    """End one side at once."""
    if writer.transport is not None:
        writer.transport.abort()


class Proxy:
    """Listens on 127.0.0.1, on `port` or on a free one, and serves `target` until stopped."""

    def __init__(self, target: tuple[str, int], port: int = 0, seed: int = 0) -> None:
        self.port = port
        self.connections: set[Connection] = set()
        self.swallowed_bytes = 0
        self.refused = 0
        self._target = target
        self._random = Random(seed)
        self._weather = Weather()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.StreamWriter] = set()  # came during a cut

    async def start(self) -> None:
        """Listen. Raises OSError."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """End everything."""
        assert self._server is not None
        self._server.close()
        self.reset()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def reset(self, share: float = 1.0) -> int:
        """Break this share of the connections, drawn by lot; how many."""
        hit = [connection for connection in self.connections if share >= 1.0 or self._random.random() < share]
        for connection in hit:
            connection.reset()
        if share >= 1.0:
            for writer in self._waiting:
                reset(writer)
        return len(hit)

    def set(self, weather: Weather) -> None:
        """From now on. Where a cut ends, connections that missed something are broken."""
        mended = self._weather.cut - weather.cut
        self._weather = weather
        if mended:
            for connection in self.connections:
                if connection.holed:
                    connection.reset()
            for writer in self._waiting:
                reset(writer)

    # ----------------------------------------------------------------------------------------------------- connections

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        if self._random.random() < self._weather.refused_share:
            self.refused += 1
            reset(client_out)
            return
        if self._weather.cut:
            # No packet of a handshake would arrive; a client cannot tell that from a server that says nothing.
            self._waiting.add(client_out)
            try:
                await client_out.wait_closed()
            except OSError:
                return
            finally:
                self._waiting.discard(client_out)
            return
        try:
            server = await asyncio.open_connection(*self._target)
        except OSError:
            reset(client_out)
            return
        connection = Connection((client_in, client_out), server)
        self.connections.add(connection)
        for direction in Direction:
            task = asyncio.create_task(self._pump(connection, direction))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _pump(self, connection: Connection, direction: Direction) -> None:
        source, sink = connection.ends(direction)
        try:
            with suppress(OSError):
                while chunk := await source.read(CHUNK_BYTES):
                    await self._weathered(connection, direction, chunk)
            if direction in self._weather.cut:
                connection.holed.add(direction)  # that it has ended does not arrive either
                return
            with suppress(OSError):
                sink.close()
        finally:
            self._ended(connection, direction)

    def _ended(self, connection: Connection, direction: Direction) -> None:
        """Nothing more will be said in this direction."""
        if connection.ends(direction)[1].is_closing():
            self.connections.discard(connection)

    async def _weathered(self, connection: Connection, direction: Direction, chunk: bytes) -> None:
        weather = self._weather
        if weather.bytes_per_s is not None:
            await asyncio.sleep(len(chunk) / weather.bytes_per_s)
        if weather.delay_s[1] > 0.0:
            await asyncio.sleep(self._random.uniform(*weather.delay_s))
        await self._pass(connection, direction, chunk)

    async def _pass(self, connection: Connection, direction: Direction, chunk: bytes) -> None:
        if direction in connection.holed or direction in self._weather.cut:
            connection.holed.add(direction)
            self.swallowed_bytes += len(chunk)
            return
        _, sink = connection.ends(direction)
        sink.write(chunk)
        await sink.drain()
