"""The door of a shard: where other processes ask about the accounts that it owns (`actors/door_wire.py`).

It runs on the shard's own loop. What can be answered at once is answered while the question is read, without a task;
what has to wait (for a slice to reach the log, for an offset to be folded) gets a task of its own. Every connection is
bounded: the size of a frame, how many questions are under way, how long one may take to introduce itself or to read
its answers. Nothing that a caller sent is ever shown in a log.
"""

import asyncio
import hmac
import logging
from collections import deque
from typing import Final, Protocol, cast

import msgspec
from msgspec import Struct

from actors.door_wire import (
    FRAME_BYTES_MAX,
    LENGTH_BYTES,
    PROTOCOL,
    REPLY_BYTES_MAX,
    Answer,
    Answered,
    Asked,
    BadFrame,
    BadQuestion,
    Frames,
    Question,
    TooLate,
    Welcome,
    asked_decoder,
    frame,
    hello_decoder,
)

_log = logging.getLogger(__name__)

WITHIN_MAX_S: Final = 60.0  # whoever wants to wait longer asks again
TURN_S: Final = 0.001  # of answering for one connection; then rating and the others have their turn


class DoorLimits(Struct, frozen=True):
    """What one door lets in."""

    frame_bytes_max: int = FRAME_BYTES_MAX
    connections_max: int = 1_024
    in_flight_max: int = 1_024  # questions of one connection that wait; beyond it no more is read from it
    hello_s: float = 2.0  # to introduce oneself
    unread_s: float = 10.0  # how long answers may lie unread
    unread_bytes_max: int = 1024 * 1024  # answers waiting to be read; beyond it no more questions are read


class Answering(Protocol):
    """Who answers: the shard."""

    def answer_now(self, question: Question) -> Answer | None:
        """The answer; None when it takes waiting, and nothing has happened yet."""

    async def answer(self, question: Question, within_s: float) -> Answer:
        """The answer, `TooLate` when there is none in time."""


class Door:
    """A TCP server. Start and stop it on the shard's loop."""

    def __init__(self, answering: Answering, incarnation: str, token: str, limits: DoorLimits | None = None) -> None:
        """`token` is `door_wire.door_token`."""
        self.answering = answering
        self.limits = limits or DoorLimits()
        self.welcome = frame(Welcome(PROTOCOL, incarnation))
        self.connections: set[_Connection] = set()
        self._token = token.encode()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int = 0) -> int:
        """Open; returns the port, a free one for 0. Raises OSError."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _Connection(self), host, port)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Let nobody in any more, and cut every connection."""
        if self._server is not None:
            self._server.close()
        tasks = [task for connection in self.connections for task in connection.tasks]
        for connection in list(self.connections):
            connection.cut()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def admits(self, token: str) -> bool:
        """Whether it is the deployment's."""
        return hmac.compare_digest(token.encode(), self._token)


class _Connection(asyncio.Protocol):
    """One caller: introduced by a `Hello`, then any number of questions."""

    def __init__(self, door: Door) -> None:
        self.tasks: set[asyncio.Task[None]] = set()
        self._door = door
        self._loop = asyncio.get_running_loop()
        self._frames = Frames(door.limits.frame_bytes_max)
        self._introduced = False
        self._backlog: deque[tuple[float, bytes]] = deque()  # (arrival, frame's body) that wait for their turn
        self._turn: asyncio.Handle | None = None  # the next turn, when one is due
        self._unread = False  # the caller does not read its answers
        self._reading = True
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    # ------------------------------------------------------------------------------------------------------ protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own class is none of asyncio's
        self._door.connections.add(self)
        if len(self._door.connections) > self._door.limits.connections_max:
            self._refuse("too many connections")
            return
        self._transport.set_write_buffer_limits(high=self._door.limits.unread_bytes_max)
        self._timer = self._loop.call_later(self._door.limits.hello_s, self._refuse, "no hello in time")

    def data_received(self, data: bytes) -> None:
        arrived_s = self._loop.time()
        try:
            bodies = self._frames.feed(data)
            if not self._introduced and bodies:
                self._introduce(bodies.pop(0))
        except (BadFrame, msgspec.MsgspecError) as error:
            self._refuse(f"unreadable: {type(error).__name__}")
            return
        for body in bodies:
            self._backlog.append((arrived_s, body))
        if self._turn is None:
            self._work()

    def pause_writing(self) -> None:
        self._unread = True
        self._timer = self._loop.call_later(self._door.limits.unread_s, self._refuse, "its answers lie unread")
        self._mind_reading()

    def resume_writing(self) -> None:
        self._unread = False
        if self._timer is not None:
            self._timer.cancel()
        self._work()

    def connection_lost(self, exc: Exception | None) -> None:
        self._door.connections.discard(self)
        self._transport = None
        self._backlog.clear()
        for handle in (self._timer, self._turn):
            if handle is not None:
                handle.cancel()
        for task in self.tasks:
            task.cancel()

    # ------------------------------------------------------------------------------------------------------ answering

    def _introduce(self, body: bytes) -> None:
        hello = hello_decoder.decode(body)
        if hello.protocol != PROTOCOL:
            raise BadFrame("another protocol")
        if not self._door.admits(hello.token):
            raise BadFrame("a wrong token")
        if self._timer is not None:
            self._timer.cancel()
        self._introduced = True
        if self._transport is not None:
            self._transport.write(self._door.welcome)

    def _work(self) -> None:
        """Answer what waits, for the length of a turn."""
        self._turn = None
        backlog = self._backlog
        now_s = self._loop.time()
        until_s = now_s + TURN_S
        answers: list[bytes] = []
        while backlog and not self._unread and len(self.tasks) < self._door.limits.in_flight_max:
            arrived_s, body = backlog.popleft()
            try:
                asked = asked_decoder.decode(body)
            except msgspec.MsgspecError as error:
                self._refuse(f"unreadable: {type(error).__name__}")
                return
            answer = self._answer(asked, min(asked.within_ms / 1000, WITHIN_MAX_S) - (now_s - arrived_s))
            if answer is not None:
                answers.append(_reply(asked.number, answer))
            if backlog:
                now_s = self._loop.time()
                if now_s >= until_s:
                    self._turn = self._loop.call_soon(self._work)
                    break
        if answers and self._transport is not None:
            self._transport.write(answers[0] if len(answers) == 1 else b"".join(answers))
        self._mind_reading()

    def _answer(self, asked: Asked, within_s: float) -> Answer | None:
        if within_s <= 0:
            return TooLate()
        answer = self._door.answering.answer_now(asked.question)
        if answer is None:
            task = self._loop.create_task(self._answer_later(asked, within_s))
            self.tasks.add(task)
            task.add_done_callback(self._answered)
        return answer

    async def _answer_later(self, asked: Asked, within_s: float) -> None:
        answer = await self._door.answering.answer(asked.question, within_s)
        if self._transport is not None:
            self._transport.write(_reply(asked.number, answer))

    def _answered(self, task: "asyncio.Task[None]") -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("a question could not be answered", exc_info=error)
        if self._backlog and self._turn is None and self._transport is not None:
            self._turn = self._loop.call_soon(self._work)

    def _mind_reading(self) -> None:
        """Read on only while there is room for what comes."""
        wanted = not self._unread and not self._backlog
        if wanted is self._reading or self._transport is None or self._transport.is_closing():
            return
        if wanted:
            self._transport.resume_reading()
        else:
            self._transport.pause_reading()
        self._reading = wanted

    def cut(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
        for task in self.tasks:
            task.cancel()

    def _refuse(self, why: str) -> None:
        _log.warning("a connection to the door was closed: %s", why)
        self.cut()


def _reply(number: int, answer: Answer) -> bytes:
    reply = frame(Answered(number, answer))
    if len(reply) > LENGTH_BYTES + REPLY_BYTES_MAX:
        detail = f"holds {len(reply)} bytes; one answer carries at most {REPLY_BYTES_MAX}"
        return frame(Answered(number, BadQuestion("account", detail)))
    return reply
