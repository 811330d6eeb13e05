"""A process that sends every frame back as it came: the least that a door could cost. It imports little, to start fast."""

import asyncio
import multiprocessing
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Final, cast

import uvloop

from actors.door_wire import LENGTH_BYTES, Frames

ECHO_START_S: Final = 30.0


class Echo(asyncio.Protocol):
    """One connection whose frames go back."""

    def __init__(self) -> None:
        self._frames = Frames()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        for body in self._frames.feed(data):
            self._transport.write(len(body).to_bytes(LENGTH_BYTES, "big") + body)


def _serve_echo(told: Connection) -> None:
    """The whole life of the process: it ends when its parent does, or closes the pipe."""

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Echo, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, told.poll, None)
        server.close()

    uvloop.run(serve())


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """The port of an echo in a process of its own, on the event loop that the shards use."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve_echo, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    loop = asyncio.get_running_loop()
    try:
        if not await loop.run_in_executor(None, ours.poll, ECHO_START_S):
            raise TimeoutError(f"the echo did not start within {ECHO_START_S:.0f} s")
        yield ours.recv()
    finally:
        ours.close()
        await loop.run_in_executor(None, process.join, ECHO_START_S)
