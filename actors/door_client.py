"""Asking the owners of accounts, from any process: pooled, pipelined connections to the doors of all shards.

The routing table (partition -> door) is read from Postgres a few times a second, and at once when it proved wrong. A
question goes to the owner of its account, again and again until its deadline, as long as asking again is safe.
"""

import asyncio
import logging
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, cast

import msgspec
from msgspec import Struct

from actors.deadlines import Deadlines
from actors.door_wire import (
    PROTOCOL,
    REPLY_BYTES_MAX,
    Answer,
    Applied,
    Asked,
    BadFrame,
    CarriedOn,
    CarryOn,
    Check,
    Extend,
    ExtendLease,
    Frames,
    Hello,
    LeaseAnswered,
    Question,
    Recovering,
    Release,
    Status,
    StatusView,
    TakeLease,
    WrongOwner,
    answered_decoder,
    frame,
    welcome_decoder,
)
from actors.ports import Directory, Doorway, StoreRefused, StoreUnavailable
from engine.placement import partition_for

_log = logging.getLogger(__name__)

WRITE_BUFFER_MAX: Final = 8 * 1024 * 1024  # bytes waiting for one connection; a shard that reads no more is away


class DoorUnavailable(ConnectionError):
    """No owner could be reached within the deadline, or its answer never came: what was asked may have happened."""

    def __init__(self, message: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Route(Struct, frozen=True):
    """Where a partition's owner is to be asked."""

    partition: int
    incarnation: str
    host: str
    port: int
    epoch: int


class DoorSettings(Struct, frozen=True):
    """Limits of one process's connections to the doors."""

    connections: int = 2  # per shard
    in_flight_max: int = 4_096  # questions of this process without an answer; more are refused at once
    connect_timeout_s: float = 1.0  # with the handshake
    refresh_s: float = 0.3  # how old the routing table may be while nothing says that it is wrong
    pause_s: float = 0.025  # before the same question is put again
    retry_after_s: float = 0.5  # what a caller is told to wait


class _Unsent(Exception):
    """The question did not leave this process."""


class _Unanswered(Exception):
    """The question may have been received; the connection broke before an answer came."""


class Doors:
    """One per process. Start and stop it on the event loop that uses it."""

    def __init__(self, directory: Directory, token: str, partitions: int, settings: DoorSettings | None = None) -> None:
        """`token` is `door_wire.door_token`; `partitions` are those of the topic of usage."""
        self._directory = directory
        self._token = token
        self._partitions = partitions
        self._settings = settings or DoorSettings()
        self._routes: dict[int, Route] = {}
        self._shards: dict[tuple[str, str, int], _Shard] = {}  # by incarnation, host, port
        self._epochs: dict[int, int] = {}  # the highest that an answer of the partition bore
        self._deadlines = Deadlines()
        self._in_flight = 0
        self._refreshing: asyncio.Task[None] | None = None
        self._refreshed_s = float("-inf")
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read the routing table once; connections are made when they are needed.

        Raises `StoreUnavailable` or `StoreRefused`."""
        await self._directory.start()
        self._take(await self._directory.doorways())
        self._following = asyncio.create_task(self._follow())

    async def stop(self) -> None:
        """Close every connection; whoever still waits for an answer gets DoorUnavailable."""
        tasks = [task for task in (self._following, self._refreshing) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()
        self._routes.clear()
        await self._directory.stop()

    def routes(self) -> list[Route]:
        """The routing table as it is known by now, by partition."""
        return [route for _, route in sorted(self._routes.items())]

    def ask(self, account: str, question: Question, within_s: float) -> Coroutine[Any, Any, Answer]:
        """The answer of the account's owner. See `ask_partition`."""
        return self.ask_partition(partition_for(account.encode(), self._partitions), question, within_s)

    async def ask_partition(self, partition: int, question: Question, within_s: float) -> Answer:
        """The answer of the partition's owner, within `within_s` seconds.

        Put again, until the deadline, when nobody owns the partition, the wrong shard was asked, the connection broke,
        or the answer came from an owner that has been replaced. But a Check, Extend or Release that may have been
        received is never put again, nor what takes or extends a lease: DoorUnavailable then means that it is not known
        whether it happened (a hold or a lease may be open that nobody knows of; it expires by itself). `Recovering` is
        returned at once: to fail closed or to wait is for the caller to decide; only `Applied` waits for the owner until
        the deadline.
        Raises DoorUnavailable, at once when too many questions are in flight."""
        if self._in_flight >= self._settings.in_flight_max:
            raise self._unavailable(f"{self._in_flight} questions are waiting for the shards already")
        self._in_flight += 1
        try:
            return await self._until(asyncio.get_running_loop().time() + within_s, partition, question)
        finally:
            self._in_flight -= 1

    async def ask_every_shard(self, question: Status, within_s: float) -> list[StatusView]:
        """What the living shards said in time, those without partitions too; one that is silent is left out."""
        until_s = asyncio.get_running_loop().time() + within_s
        with suppress(StoreUnavailable, StoreRefused):
            await self._refresh()
        answers = await asyncio.gather(
            *(shard.ask(question, until_s) for shard in list(self._shards.values())), return_exceptions=True
        )
        return [answer for answer in answers if isinstance(answer, StatusView)]

    # ----------------------------------------------------------------------------------------------------- one question

    async def _until(self, until_s: float, partition: int, question: Question) -> Answer:
        loop = asyncio.get_running_loop()
        recovering: Recovering | None = None
        why = "no shard owns it"
        while loop.time() < until_s:
            shard = self._shard_of(partition)
            if shard is not None:
                try:
                    answer = await shard.ask(question, until_s)
                except _Unsent as error:
                    why = str(error)
                except _Unanswered as error:
                    if isinstance(question, Check | Extend | Release | CarryOn | TakeLease | ExtendLease):
                        raise self._unavailable(f"partition {partition}: {error}; it may have happened") from None
                    why = str(error)
                else:
                    if isinstance(answer, Recovering) and isinstance(question, Applied):
                        recovering = answer
                    elif isinstance(answer, WrongOwner):
                        why = "its owner has changed"
                    elif self._is_stale(partition, answer):
                        why = "its owner has been replaced"
                    else:
                        return answer
            await self._again(until_s)
        if recovering is not None:
            return recovering
        raise self._unavailable(f"partition {partition}: {why}")

    async def _again(self, until_s: float) -> None:
        """Wait a moment, and see the routing table anew."""
        try:
            async with asyncio.timeout_at(until_s):
                await asyncio.sleep(self._settings.pause_s)
                await self._refresh()
        except (StoreUnavailable, StoreRefused, TimeoutError):
            return

    def _is_stale(self, partition: int, answer: Answer) -> bool:
        """Whether it comes from an owner below one that has spoken."""
        decided = answer.checked if isinstance(answer, LeaseAnswered | CarriedOn) else answer
        as_of = getattr(decided, "as_of", None)
        if as_of is None:
            return False
        seen = self._epochs.get(partition, 0)
        if as_of.epoch > seen:
            self._epochs[partition] = as_of.epoch
        return bool(as_of.epoch < seen)

    def _shard_of(self, partition: int) -> "_Shard | None":
        route = self._routes.get(partition)
        return None if route is None else self._shards.get((route.incarnation, route.host, route.port))

    def _unavailable(self, message: str) -> DoorUnavailable:
        return DoorUnavailable(message, self._settings.retry_after_s)

    # ---------------------------------------------------------------------------------------------------- routing table

    async def _follow(self) -> None:
        known = True
        while True:
            await asyncio.sleep(self._settings.refresh_s)
            try:
                await self._refresh()
                known = True
            except (StoreUnavailable, StoreRefused) as error:
                if known:
                    _log.warning("the routing table cannot be read anew; the last one stays in use: %s", error)
                known = False

    async def _refresh(self) -> None:
        """Read the table, together with everybody who wants it now; not more often than every `pause_s`."""
        if asyncio.get_running_loop().time() < self._refreshed_s + self._settings.pause_s:
            return
        if self._refreshing is None or self._refreshing.done():
            self._refreshing = asyncio.create_task(self._read())
            self._refreshing.add_done_callback(_look_at)
        await asyncio.shield(self._refreshing)

    async def _read(self) -> None:
        doorways = await self._directory.doorways()
        self._refreshed_s = asyncio.get_running_loop().time()
        self._take(doorways)

    def _take(self, doorways: list[Doorway]) -> None:
        routes: dict[int, Route] = {}
        known: dict[tuple[str, str, int], _Shard] = {}
        for doorway in doorways:
            key = doorway.incarnation, doorway.host, doorway.port
            known[key] = self._shards.get(key) or _Shard(doorway, self._token, self._settings, self._deadlines)
            for partition, epoch in doorway.epochs.items():
                route = Route(partition, doorway.incarnation, doorway.host, doorway.port, epoch)
                if partition not in routes or routes[partition].epoch < epoch:
                    routes[partition] = route
        for key in self._shards.keys() - known.keys():
            self._shards[key].close()
        self._shards = known
        self._routes = routes


class _Shard:
    """The connections to one shard process."""

    def __init__(self, doorway: Doorway, token: str, settings: DoorSettings, deadlines: Deadlines) -> None:
        self._doorway = doorway
        self._deadlines = deadlines
        self._hello = frame(Hello(PROTOCOL, token))
        self._settings = settings
        self._lines: list[_Line | None] = [None] * settings.connections
        self._dials: list[asyncio.Task[_Line] | None] = [None] * settings.connections
        self._turn = 0

    async def ask(self, question: Question, until_s: float) -> Answer:
        """Raises _Unsent, _Unanswered."""
        self._turn = place = (self._turn + 1) % len(self._lines)
        line = self._lines[place]
        if line is None or not line.open:
            line = await self._line(place, until_s)
        return await line.ask(question, until_s)

    def close(self) -> None:
        for dial in self._dials:
            if dial is not None:
                dial.cancel()
        for line in self._lines:
            if line is not None:
                line.close()

    async def _line(self, place: int, until_s: float) -> "_Line":
        dial = self._dials[place]
        if dial is None or dial.done():
            dial = self._dials[place] = asyncio.create_task(self._connect(place))
            dial.add_done_callback(_look_at)
        try:
            async with asyncio.timeout_at(until_s):
                return await asyncio.shield(dial)
        except (OSError, TimeoutError, BadFrame) as error:
            raise _Unsent(f"{self._doorway.incarnation} could not be reached: {type(error).__name__}") from error
        except asyncio.CancelledError:
            if dial.cancelled():  # the pool was closed, and not whoever asks here
                raise _Unsent(f"{self._doorway.incarnation} is gone") from None
            raise

    async def _connect(self, place: int) -> "_Line":
        loop = asyncio.get_running_loop()
        doorway = self._doorway
        async with asyncio.timeout(self._settings.connect_timeout_s):
            _, line = await loop.create_connection(
                lambda: _Line(self._hello, doorway.incarnation, self._deadlines), doorway.host, doorway.port
            )
            try:
                await line.welcomed
            except BaseException:
                line.close()
                raise
        self._lines[place] = line
        return line


class _Line(asyncio.Protocol):
    """One connection to a door."""

    def __init__(self, hello: bytes, incarnation: str, deadlines: Deadlines) -> None:
        self.welcomed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.open = False
        self._hello = hello
        self._incarnation = incarnation
        self._deadlines = deadlines
        self._frames = Frames(REPLY_BYTES_MAX)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}
        self._number = 0
        self._transport: asyncio.Transport | None = None

    async def ask(self, question: Question, until_s: float) -> Answer:
        """Raises _Unsent, _Unanswered."""
        loop = asyncio.get_running_loop()
        transport = self._transport
        if not self.open or transport is None:
            raise _Unsent("the connection broke")
        if transport.get_write_buffer_size() > WRITE_BUFFER_MAX:
            raise _Unsent(f"{self._incarnation} reads no more")
        self._number += 1
        number = self._number
        try:
            asked = frame(Asked(number, max(1, round((until_s - loop.time()) * 1000)), question))
        except msgspec.MsgspecError as error:
            raise ValueError(f"the question cannot be encoded: {error}") from error
        answer: asyncio.Future[Answer] = loop.create_future()
        self._waiting[number] = answer
        deadline = self._deadlines.add(until_s, _give_up, answer)
        transport.write(asked)
        try:
            return await answer
        finally:
            self._deadlines.drop(deadline)
            self._waiting.pop(number, None)

    def close(self) -> None:
        self.open = False
        if self._transport is not None:
            self._transport.abort()

    # ------------------------------------------------------------------------------------------------------ protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's
        self._transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                if self.open:
                    self._take(body)
                else:
                    self._be_welcomed(body)
        except (BadFrame, msgspec.MsgspecError) as error:
            _log.warning("the door of %s sent what cannot be read: %s", self._incarnation, type(error).__name__)
            self.close()

    def _be_welcomed(self, body: bytes) -> None:
        welcome = welcome_decoder.decode(body)
        if welcome.protocol != PROTOCOL or welcome.incarnation != self._incarnation:
            raise BadFrame("another shard, or another protocol, is behind this door")
        self.open = True
        if not self.welcomed.done():
            self.welcomed.set_result(None)

    def _take(self, body: bytes) -> None:
        answered = answered_decoder.decode(body)
        waiting = self._waiting.get(answered.number)
        if waiting is not None and not waiting.done():
            waiting.set_result(answered.answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if not self.welcomed.done():
            self.welcomed.set_exception(ConnectionResetError("the door was closed: is the token right?"))
            self.welcomed.exception()  # looked at, should nobody wait any more
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(_Unanswered(f"the connection to {self._incarnation} broke"))


def _give_up(answer: "asyncio.Future[Answer]") -> None:
    if not answer.done():
        answer.set_exception(_Unanswered("no answer within the deadline"))


def _look_at(task: "asyncio.Task[_Line] | asyncio.Task[None]") -> None:
    """Take note of an error, or asyncio would complain that nobody did."""
    if not task.cancelled():
        task.exception()
