"""What a check costs, beside the least that anything could cost on the same wires.

    HTTP    a check with a hold through Serve, beside an endpoint of Serve that does nothing
    door    a check with a hold through a shard's door, beside a process that sends every frame back as it came
    cold    the first hold of an account, which waits for its slice to come back from the log, beside the next one

Contenders take turns in short rounds, so that what else the machine does falls on both. A turn is a pair of calls (a
check and the release of its hold; two calls that do nothing), of which the first is timed.
"""

import asyncio
import multiprocessing
import os
import platform
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from typing import Any, Final, TypeVar, cast

import msgspec
from msgspec import Struct

from actors.door_wire import (
    LENGTH_BYTES,
    PROTOCOL,
    Asked,
    Frames,
    Hello,
    Question,
    answered_decoder,
    asked_decoder,
    frame,
    welcome_decoder,
)
from actors.ports import Clock
from loadtest.report import percentiles

WITHIN_MS: Final = 5_000
ECHO_START_S: Final = 30.0

_Message = TypeVar("_Message", bound=Struct)


class Line(asyncio.Protocol):
    """A client of the least possible cost: one connection, pipelined, matched by number."""

    def __init__(self, decoder: "msgspec.msgpack.Decoder[Any]", token: str | None) -> None:
        """With a `token` the line begins as a door wants it."""
        self._decoder = decoder
        self._token = token
        self._frames = Frames()
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._number = 0
        self._transport: asyncio.Transport | None = None
        self.ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's
        if self._token is None:
            self.ready.set_result(None)
        else:
            self._transport.write(frame(Hello(PROTOCOL, self._token)))

    def data_received(self, data: bytes) -> None:
        for body in self._frames.feed(data):
            if not self.ready.done():
                welcome_decoder.decode(body)
                self.ready.set_result(None)
                continue
            answered = self._decoder.decode(body)
            self._waiting.pop(answered.number).set_result(answered)

    def connection_lost(self, exc: Exception | None) -> None:
        for waiting in [self.ready, *self._waiting.values()]:
            if not waiting.done():
                waiting.set_exception(ConnectionError("the other side closed the line"))

    async def call(self, question: Question) -> Any:
        """The whole answering message."""
        assert self._transport is not None
        self._number += 1
        waiting = asyncio.get_running_loop().create_future()
        self._waiting[self._number] = waiting
        self._transport.write(frame(Asked(self._number, WITHIN_MS, question)))
        return await waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()


async def dial(host: str, port: int, token: str | None) -> Line:
    """A line to a door, or without a token to an echo."""
    decoder: msgspec.msgpack.Decoder[Any] = asked_decoder if token is None else answered_decoder
    _, line = await asyncio.get_running_loop().create_connection(lambda: Line(decoder, token), host, port)
    await line.ready
    return line


# ------------------------------------------------------------------------------------------------------------- echo


class _Echo(asyncio.Protocol):
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
    import uvloop

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(_Echo, "127.0.0.1", 0)
        told.send(server.sockets[0].getsockname()[1])
        await loop.run_in_executor(None, told.poll, None)
        server.close()

    uvloop.run(serve())


@asynccontextmanager
async def echo() -> Any:
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


# ---------------------------------------------------------------------------------------------------------- turns


class Measured(Struct):
    """One contender at one concurrency."""

    ms: dict[str, float | None]  # p50, p99 of the timed call
    pairs_per_s: float


Timed = Callable[[int], Awaitable[float]]  # a turn: its number -> how long its timed call took, in seconds


async def take_turns(
    contenders: Mapping[str, Timed], clock: Clock, *, rounds: int, turns: int, concurrency: int
) -> dict[str, Measured]:
    """Each contender in turn, `rounds` times; a round is `turns` turns by `concurrency` callers. The first round of
    each warms up and is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    seconds = dict.fromkeys(contenders, 0.0)
    number = 0
    for round_number in range(rounds + 1):
        for name, turn in contenders.items():
            began_s = clock.boot_s()
            times = await _one_round(turn, number, turns, concurrency)
            if round_number:
                seconds[name] += clock.boot_s() - began_s
                taken[name] += times
            number += turns
    return {
        name: Measured(percentiles([value * 1000 for value in taken[name]]), round(len(taken[name]) / seconds[name], 1))
        for name in contenders
    }


async def _one_round(turn: Timed, first: int, turns: int, concurrency: int) -> list[float]:
    numbers = iter(range(first, first + turns))

    async def caller() -> list[float]:
        return [await turn(number) for number in numbers]

    return [value for times in await asyncio.gather(*(caller() for _ in range(concurrency))) for value in times]


def beside(measured: Mapping[str, Measured], ours: str, least: str) -> dict[str, Any]:
    """Both contenders, and how many times the least ours is."""
    our, bare = measured[ours], measured[least]
    return {
        ours: msgspec.to_builtins(our),
        least: msgspec.to_builtins(bare),
        "times_p50": _times(our.ms["p50"], bare.ms["p50"]),
        "times_p99": _times(our.ms["p99"], bare.ms["p99"]),
        "share_of_rate": round(our.pairs_per_s / bare.pairs_per_s, 3),
    }


def _times(ours: float | None, least: float | None) -> float | None:
    return round(ours / least, 2) if ours is not None and least else None


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "load_before": [round(value, 2) for value in os.getloadavg()],
    }


def cold_and_warm(cold_s: Sequence[float], warm_s: Sequence[float]) -> dict[str, Any]:
    """The price of slices: the first hold of an account beside the next."""
    cold, warm = percentiles([value * 1000 for value in cold_s]), percentiles([value * 1000 for value in warm_s])
    return {"first_hold_ms": cold, "next_hold_ms": warm, "times_p50": _times(cold["p50"], warm["p50"])}
