"""Straight to the shards: pooled, pipelined connections to the doors, found by the routing table that the service serves.

The table is read when a question finds no owner in it, or when it has proved wrong: the wrong shard was asked, a connection
broke, or an answer came from an owner that has been replaced (its epoch is below one that was seen).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

import msgspec

from tallygate_sdk.answers import DoorRoute, RoutingTable
from tallygate_sdk.door_wire import (
    PROTOCOL,
    Answer,
    Answered,
    Asked,
    BadFrame,
    Frames,
    Hello,
    NotReady,
    Question,
    TooLate,
    WrongOwner,
    answered_decoder,
    frame,
    welcome_decoder,
)
from tallygate_sdk.errors import TallygateError, Unavailable
from tallygate_sdk.placement import partition_of

CONNECTIONS: Final = 2  # to each shard
CONNECT_S: Final = 0.5  # with the handshake
PAUSE_S: Final = 0.025  # before the same question is put again, and between two readings of the table
WRITE_BUFFER_MAX: Final = 8 * 1024 * 1024


class DoorAway(Unavailable):
    """No door gave an answer in time, or the owner is being replaced. Ask the service by HTTP."""


class _Unsent(Exception):
    """The question did not leave."""


class Doors:
    """Belongs to one event loop."""

    def __init__(self, table: Callable[[], Awaitable[RoutingTable]], token: str) -> None:
        """`table` reads the routing table; `token` is the deployment's door token."""
        self._read_table = table
        self._token = token
        self._partitions = 0
        self._routes: dict[int, DoorRoute] = {}
        self._shards: dict[tuple[str, int], _Shard] = {}
        self._epochs: dict[int, int] = {}  # the highest that an answer of the partition bore
        self._reading: asyncio.Task[None] | None = None
        self._read_s = float("-inf")

    async def ask(self, account: str, question: Question, until_s: float) -> Answer:
        """The answer of the account's owner, by that instant of the loop's clock. Raises DoorAway."""
        if not self._partitions:
            await self._refresh(until_s)
            if not self._partitions:
                raise DoorAway("the routing table could not be read")
        return await self.ask_partition(partition_of(account, self._partitions), question, until_s)

    async def ask_partition(self, partition: int, question: Question, until_s: float) -> Answer:
        """The same of a partition's owner. Put again as long as it cannot have been received."""
        loop = asyncio.get_running_loop()
        why = "no shard owns it"
        while loop.time() < until_s:
            route = self._routes.get(partition)
            if route is not None:
                try:
                    answer = await self._shard(route).ask(question, until_s)
                except _Unsent as error:
                    why = str(error)
                else:
                    if isinstance(answer, TooLate | NotReady):
                        raise DoorAway(f"partition {partition} is not ready")
                    if not isinstance(answer, WrongOwner) and not self._is_stale(partition, answer):
                        return answer
                    why = "its owner has changed"
            await asyncio.sleep(PAUSE_S)
            await self._refresh(until_s)
        raise DoorAway(f"partition {partition}: {why}")

    def close(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()
        self._routes.clear()
        self._partitions = 0

    def _is_stale(self, partition: int, answer: Answer) -> bool:
        as_of = getattr(answer, "as_of", None)
        if as_of is None:
            return False
        seen = self._epochs.get(partition, 0)
        self._epochs[partition] = max(seen, as_of.epoch)
        return bool(as_of.epoch < seen)

    def _shard(self, route: DoorRoute) -> "_Shard":
        address = route.host, route.port
        if address not in self._shards:
            self._shards[address] = _Shard(route.host, route.port, frame(Hello(PROTOCOL, self._token)))
        return self._shards[address]

    async def _refresh(self, until_s: float) -> None:
        """Read the table, together with everybody who wants it now."""
        if asyncio.get_running_loop().time() < self._read_s + PAUSE_S:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        try:
            async with asyncio.timeout_at(until_s):
                await asyncio.shield(self._reading)
        except TimeoutError:
            return

    async def _read(self) -> None:
        try:
            table = await self._read_table()
        except TallygateError:
            return  # the last one stays in use; whoever asked falls back
        finally:
            self._read_s = asyncio.get_running_loop().time()
        self._partitions = table.partitions
        for route in table.routes:
            known = self._routes.get(route.partition)
            if known is None or known.epoch <= route.epoch:
                self._routes[route.partition] = route
        wanted = {(route.host, route.port) for route in self._routes.values()}
        for address in self._shards.keys() - wanted:
            self._shards.pop(address).close()


class _Shard:
    """The connections to one shard process."""

    def __init__(self, host: str, port: int, hello: bytes) -> None:
        self._host = host
        self._port = port
        self._hello = hello
        self._lines: list[_Line | None] = [None] * CONNECTIONS
        self._dials: list[asyncio.Task[_Line] | None] = [None] * CONNECTIONS
        self._turn = 0

    async def ask(self, question: Question, until_s: float) -> Answer:
        """Raises _Unsent, DoorAway."""
        return await (await self._line(until_s)).ask(question, until_s)

    def close(self) -> None:
        for dial in self._dials:
            if dial is not None:
                dial.cancel()
        for line in self._lines:
            if line is not None:
                line.close()

    async def _line(self, until_s: float) -> "_Line":
        place = self._turn = (self._turn + 1) % CONNECTIONS
        line = self._lines[place]
        if line is not None and line.open:
            return line
        dial = self._dials[place]
        if dial is None or dial.done():
            dial = self._dials[place] = asyncio.create_task(self._connect(place))
            dial.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            async with asyncio.timeout_at(until_s):
                return await asyncio.shield(dial)
        except (OSError, TimeoutError, BadFrame) as error:
            where = f"{self._host}:{self._port}"
            raise _Unsent(f"the door {where} could not be reached: {type(error).__name__}") from error
        except asyncio.CancelledError:
            if dial.cancelled():  # the pool was closed, and not whoever asks here
                raise _Unsent("the pool was closed") from None
            raise

    async def _connect(self, place: int) -> "_Line":
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(CONNECT_S):
            _, line = await loop.create_connection(lambda: _Line(self._hello), self._host, self._port)
            try:
                await line.welcomed
            except BaseException:
                line.close()
                raise
        self._lines[place] = line
        return line


class _Line(asyncio.Protocol):
    """One connection to a door."""

    def __init__(self, hello: bytes) -> None:
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open = False
        self._hello = hello
        self._frames = Frames()
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0
        self._transport: asyncio.Transport | None = None

    async def ask(self, question: Question, until_s: float) -> Answer:
        loop = asyncio.get_running_loop()
        transport = self._transport
        if not self.open or transport is None or transport.get_write_buffer_size() > WRITE_BUFFER_MAX:
            raise _Unsent("the door reads no more")
        self._number += 1
        number = self._number
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting[number] = answer
        deadline = loop.call_at(until_s, _fail, answer, "no answer in time")
        transport.write(frame(Asked(number, max(1, round((until_s - loop.time()) * 1000)), question)))
        try:
            return await answer
        finally:
            deadline.cancel()
            self._waiting.pop(number, None)

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                if self.open:
                    self._take(answered_decoder.decode(body))
                else:
                    self._be_welcomed(body)
        except (BadFrame, msgspec.MsgspecError):
            self.close()

    def _be_welcomed(self, body: bytes) -> None:
        if welcome_decoder.decode(body).protocol != PROTOCOL:
            raise BadFrame("another protocol is behind this door")
        self.open = True
        if not self.welcomed.done():
            self.welcomed.set_result(None)

    def _take(self, answered: Answered) -> None:
        waiting = self._waiting.get(answered.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answered.answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionResetError("the door was closed: is the token right?"))
            self.welcomed.exception()  # looked at, should nobody wait any more
        for waiting in list(self._waiting.values()):
            _fail(waiting, "the connection to the door broke")


def _fail(answer: "asyncio.Future[Answer]", why: str) -> None:
    if not answer.done():
        answer.set_exception(DoorAway(f"{why}; what was asked may have happened"))
