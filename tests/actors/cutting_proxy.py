"""A TCP proxy between a client and Postgres that can cut, or fall silent, when it sees a statement go by."""

import asyncio
from contextlib import suppress
from typing import Literal
from urllib.parse import urlsplit

Direction = Literal["sent", "answered"]


class CuttingProxy:
    """`cut_at` marks bytes of the client: the connection is cut before they are passed on, or once they were answered."""

    def __init__(self, dsn: str) -> None:
        self._target = urlsplit(dsn)
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()
        self.dsn = ""
        self.cut_at: bytes | None = None
        self.cut_after_answer = False
        self.silent_at: bytes | None = None  # passes nothing on from here, and leaves the connections open
        self.refusing = False

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        credentials = self._target.netloc.rpartition("@")[0]
        # Without this the driver asks for TLS first, in a connection of its own.
        self.dsn = self._target._replace(netloc=f"{credentials}@127.0.0.1:{port}", query="sslmode=disable").geturl()

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for pump in list(self._pumps):
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    def cut(self) -> None:
        """End all connections at once, with a reset."""
        for writer in self._writers:
            if writer.transport is not None:
                writer.transport.abort()
        self._writers.clear()

    async def _serve(self, client_in: asyncio.StreamReader, client_out: asyncio.StreamWriter) -> None:
        if self.refusing:
            client_out.transport.abort()
            return
        server_in, server_out = await asyncio.open_connection(self._target.hostname, self._target.port)
        self._writers |= {client_out, server_out}
        seen = asyncio.Event()
        for pump in (self._upstream(client_in, server_out, seen), self._downstream(server_in, client_out, seen)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def _upstream(
        self, client_in: asyncio.StreamReader, server_out: asyncio.StreamWriter, seen: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await client_in.read(65_536):
                if self.silent_at is not None and self.silent_at in chunk:
                    await asyncio.Event().wait()
                if self.cut_at is not None and self.cut_at in chunk:
                    self.cut_at = None
                    if not self.cut_after_answer:
                        self.cut()
                        return
                    seen.set()
                server_out.write(chunk)
                await server_out.drain()
        server_out.close()

    async def _downstream(
        self, server_in: asyncio.StreamReader, client_out: asyncio.StreamWriter, seen: asyncio.Event
    ) -> None:
        with suppress(OSError):
            while chunk := await server_in.read(65_536):
                if seen.is_set():
                    self.cut()
                    return
                client_out.write(chunk)
                await client_out.drain()
        client_out.close()
