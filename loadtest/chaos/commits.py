"""A proxy in front of Postgres that knows a COMMIT when it sees one, and strikes there.

That is the one moment at which a client cannot know what took effect. Whether it did is read from the server's answer,
which the client never gets.
"""

import asyncio
import struct
from collections import deque
from contextlib import suppress
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from loadtest.chaos.proxy import Connection, Direction, Proxy, reset

PROTOCOL_3: Final = 3  # major version of the startup message; other numbers there ask for TLS or to cancel
ANSWER_WITHIN_S: Final = 30.0  # of a server that is not away
COMMITTED: Final = b"C\x00\x00\x00\x0bCOMMIT\x00"  # CommandComplete; a rolled-back one says ROLLBACK
READY: Final = b"Z\x00\x00\x00\x05"  # ReadyForQuery: the answer is complete


class CommitFault(StrEnum):
    """What happens to one COMMIT."""

    BEFORE = "before"  # it never arrives: the connection is broken
    AFTER = "after"  # it arrives; the connection is broken before the answer is heard
    SILENT = "silent"  # it arrives; no answer is heard, and the connection stays
    LATE = "late"  # the client's side is broken at once; the COMMIT arrives when it is delivered
    HELD = "held"  # nothing is broken; the COMMIT arrives when it is delivered, and its answer is heard


class CommitStrike:
    """One COMMIT to be struck: the next one of the session."""

    def __init__(self, fault: CommitFault) -> None:
        self.fault = fault
        self.seen: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # it has come to the proxy
        self.outcome: asyncio.Future[bool] = asyncio.get_running_loop().create_future()  # whether it took effect
        self.delivered = asyncio.Event()  # set by the caller, for LATE and HELD


class FrontendMessages:
    """Cuts what a client of Postgres says into messages; `session` is the application_name it gave."""

    def __init__(self) -> None:
        self.session = ""
        self._buffer = bytearray()
        self._started = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The messages that are complete by now, in order."""
        self._buffer += chunk
        messages = []
        while (length := self._length()) is not None and len(self._buffer) >= length:
            message = bytes(self._buffer[:length])
            del self._buffer[:length]
            if not self._started:
                self._start(message)
            messages.append(message)
        return messages

    def _length(self) -> int | None:
        """Of the message at hand; None while too little of it is here."""
        tag = 1 if self._started else 0
        if len(self._buffer) < tag + 4:
            return None
        (length,) = struct.unpack_from("!I", self._buffer, tag)
        return tag + int(length)

    def _start(self, message: bytes) -> None:
        major, _ = struct.unpack_from("!HH", message, 4)
        if major != PROTOCOL_3:
            return
        self._started = True
        words = message[8:].split(b"\x00")
        self.session = dict(zip(words[::2], words[1::2], strict=False)).get(b"application_name", b"").decode()


def is_commit(message: bytes) -> bool:
    """Whether it is, or prepares, the statement COMMIT: a simple Query, or a Parse, whose Execute comes behind it."""
    match message[:1]:
        case b"Q":
            statement = message[5:]
        case b"P":
            statement = message[5:].partition(b"\x00")[2]
        case _:
            return False
    return statement.partition(b"\x00")[0].strip().rstrip(b";").strip().upper() == b"COMMIT"


class _Heard:
    """What is known of one connection beyond its bytes."""

    def __init__(self) -> None:
        self.messages = FrontendMessages()
        self.answer: bytearray | None = None  # what the server says to a struck COMMIT
        self.answered = asyncio.Event()
        self.deaf = False  # the client hears nothing any more


class PostgresProxy(Proxy):
    """`strike` takes the next COMMIT of sessions named `session`; everything else passes as in any proxy."""

    def __init__(self, dsn: str, session: str = "tallygate commit", port: int = 0, seed: int = 0) -> None:
        parts = urlsplit(dsn)
        assert parts.hostname is not None
        super().__init__((parts.hostname, parts.port or 5432), port, seed)
        self._dsn = parts
        self._session = session
        self._strikes: deque[CommitStrike] = deque()
        self._heard: WeakKeyDictionary[Connection, _Heard] = WeakKeyDictionary()

    @property
    def dsn(self) -> str:
        """The way through this proxy. Without TLS, which it could not read."""
        credentials = self._dsn.netloc.rpartition("@")[0]
        return self._dsn._replace(netloc=f"{credentials}@127.0.0.1:{self.port}", query="sslmode=disable").geturl()

    def strike(self, fault: CommitFault) -> CommitStrike:
        """Strike the next COMMIT; the result tells when it came, and whether it took effect."""
        strike = CommitStrike(fault)
        self._strikes.append(strike)
        return strike

    async def _pass(self, connection: Connection, direction: Direction, chunk: bytes) -> None:
        heard = self._heard.setdefault(connection, _Heard())
        if direction is Direction.DOWN:
            if heard.answer is not None:
                heard.answer += chunk
                if READY in heard.answer:
                    heard.answered.set()
            if not heard.deaf:
                await super()._pass(connection, direction, chunk)
            return
        messages = heard.messages.feed(chunk)
        for number, message in enumerate(messages):
            if self._strikes and heard.messages.session == self._session and is_commit(message):
                await self._struck(connection, heard, self._strikes.popleft(), b"".join(messages[number:]))
                return
            await super()._pass(connection, direction, message)

    async def _struck(self, connection: Connection, heard: _Heard, strike: CommitStrike, words: bytes) -> None:
        """`words` are the COMMIT and what the client said in the same breath."""
        strike.seen.set_result(None)
        if strike.fault is CommitFault.BEFORE:
            connection.reset()
            strike.outcome.set_result(False)
            return
        heard.answer, heard.deaf = bytearray(), strike.fault is not CommitFault.HELD
        if strike.fault is CommitFault.LATE:
            reset(connection.client_out)
        if strike.fault in (CommitFault.LATE, CommitFault.HELD):
            await strike.delivered.wait()
        with suppress(OSError):  # the server may have ended the session meanwhile
            await super()._pass(connection, Direction.UP, words)
        async with asyncio.timeout(ANSWER_WITHIN_S):
            await heard.answered.wait()
        strike.outcome.set_result(COMMITTED in heard.answer)
        if strike.fault in (CommitFault.AFTER, CommitFault.LATE):
            connection.reset()

    def _ended(self, connection: Connection, direction: Direction) -> None:
        super()._ended(connection, direction)
        if direction is Direction.DOWN and (heard := self._heard.get(connection)) is not None:
            heard.answered.set()
