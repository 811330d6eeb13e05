"""The door, on a real socket: who is let in, what a badly behaved caller gets, and that nobody waits for another."""

import asyncio
import logging
import socket
from collections.abc import AsyncIterator

import pytest

from actors.door import Door, DoorLimits
from actors.door_wire import (
    FRAME_BYTES_MAX,
    PROTOCOL,
    Answer,
    Answered,
    Applied,
    AppliedView,
    Asked,
    AsOf,
    Balance,
    BalanceView,
    Frames,
    Hello,
    Question,
    TooLate,
    WalletView,
    Welcome,
    answered_decoder,
    door_token,
    frame,
    welcome_decoder,
)

TOKEN = door_token(b"k" * 32)
AS_OF = AsOf(0, 1, 2, 3, None)
VIEW = BalanceView(WalletView("USD", "1", "0", "1", None), AS_OF)
PATIENCE_S = 10.0


class Clerk:
    """Answers balances at once, and `Applied` when told to."""

    def __init__(self) -> None:
        self.asked: list[Question] = []
        self.go_on = asyncio.Event()
        self.view = VIEW

    def answer_now(self, question: Question) -> Answer | None:
        self.asked.append(question)
        return self.view if isinstance(question, Balance) else None

    async def answer(self, question: Question, within_s: float) -> Answer:
        try:
            async with asyncio.timeout(within_s):
                await self.go_on.wait()
        except TimeoutError:
            return TooLate()
        return AppliedView("applied", AS_OF)


class Caller:
    """A client that does exactly what it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self._reader = reader
        self._frames = Frames(1 << 30)
        self._bodies: list[bytes] = []

    async def body(self) -> bytes | None:
        """The next frame's; None when the door has closed the connection."""
        while not self._bodies:
            async with asyncio.timeout(PATIENCE_S):
                try:
                    data = await self._reader.read(1 << 16)
                except ConnectionResetError:
                    return None
            if not data:
                return None
            self._bodies += self._frames.feed(data)
        return self._bodies.pop(0)

    async def hello(self, token: str = TOKEN, protocol: int = PROTOCOL) -> Welcome | None:
        self.writer.write(frame(Hello(protocol, token)))
        body = await self.body()
        return None if body is None else welcome_decoder.decode(body)

    def ask(self, number: int, question: Question, within_ms: int = 5_000) -> None:
        self.writer.write(frame(Asked(number, within_ms, question)))

    async def answered(self) -> Answered | None:
        body = await self.body()
        return None if body is None else answered_decoder.decode(body)


class House:
    """A door with a clerk behind it."""

    def __init__(self, limits: DoorLimits | None = None) -> None:
        self.clerk = Clerk()
        self.door = Door(self.clerk, "incarnation", TOKEN, limits)
        self.port = 0
        self._callers: list[Caller] = []

    async def open(self) -> None:
        self.port = await self.door.start("127.0.0.1")

    async def caller(self, *, welcomed: bool = True) -> Caller:
        caller = Caller(*await asyncio.open_connection("127.0.0.1", self.port))
        self._callers.append(caller)
        if welcomed:
            assert await caller.hello() == Welcome(PROTOCOL, "incarnation")
        return caller

    async def close(self) -> None:
        for caller in self._callers:
            caller.writer.transport.abort()
        await self.door.stop()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    await house.open()
    yield house
    await house.close()


@pytest.fixture
async def tight() -> AsyncIterator[House]:
    """A door with small limits."""
    house = House(
        DoorLimits(
            frame_bytes_max=1_000,
            connections_max=2,
            in_flight_max=3,
            hello_s=0.5,
            unread_s=0.2,
            unread_bytes_max=10_000,
        )
    )
    await house.open()
    yield house
    await house.close()


async def test_questions_are_pipelined_and_answered_as_they_are_ready(house: House) -> None:
    caller = await house.caller()
    caller.ask(1, Applied(0, 7))
    for number in range(2, 302):
        caller.ask(number, Balance("acme"))
    for number in range(2, 302):
        assert await caller.answered() == Answered(number, VIEW)
    house.clerk.go_on.set()
    assert await caller.answered() == Answered(1, AppliedView("applied", AS_OF))


async def test_frames_may_come_in_any_pieces(house: House) -> None:
    caller = await house.caller()
    for byte in frame(Asked(1, 5_000, Balance("acme"))):
        caller.writer.write(bytes([byte]))
        await caller.writer.drain()
    assert await caller.answered() == Answered(1, VIEW)


async def test_a_deadline_is_kept(house: House) -> None:
    caller = await house.caller()
    caller.ask(1, Applied(0, 7), within_ms=20)
    caller.ask(2, Balance("acme"), within_ms=0)
    assert [(await caller.answered()) for _ in range(2)] == [Answered(2, TooLate()), Answered(1, TooLate())]
    assert house.clerk.asked == [Applied(0, 7)], "what is too late on arrival is not even asked"


@pytest.mark.parametrize("token", ["", door_token(b"another key of thirty-two bytes!"), TOKEN[:-1], TOKEN + "0", "é"])
async def test_a_wrong_token_is_not_let_in(house: House, token: str) -> None:
    caller = await house.caller(welcomed=False)
    caller.writer.write(frame(Hello(PROTOCOL, token)) + frame(Asked(1, 5_000, Balance("acme"))))
    assert await caller.body() is None
    assert house.clerk.asked == []


async def test_another_protocol_is_not_spoken(house: House) -> None:
    caller = await house.caller(welcomed=False)
    assert await caller.hello(protocol=PROTOCOL + 1) is None


async def test_who_does_not_introduce_itself_is_shown_out(tight: House) -> None:
    caller = await tight.caller(welcomed=False)
    assert await caller.body() is None


async def test_who_has_introduced_itself_may_be_silent(tight: House) -> None:
    caller = await tight.caller()
    await asyncio.sleep(0.2)
    caller.ask(1, Balance("acme"))
    assert await caller.answered() == Answered(1, VIEW)


@pytest.mark.parametrize(
    "sent",
    [
        (FRAME_BYTES_MAX + 1).to_bytes(4, "big"),
        (0).to_bytes(4, "big"),
        (5).to_bytes(4, "big") + b"\xc1\xc1\xc1\xc1\xc1",
        (1).to_bytes(4, "big") + b"\x90",
    ],
)
@pytest.mark.parametrize("welcomed", [False, True])
async def test_what_cannot_be_read_ends_the_connection_and_stands_in_no_log(
    house: House, caplog: pytest.LogCaptureFixture, sent: bytes, welcomed: bool
) -> None:
    caller = await house.caller(welcomed=welcomed)
    with caplog.at_level(logging.DEBUG):
        caller.writer.write(sent)
        assert await caller.body() is None
    (record,) = [record for record in caplog.records if record.name == "actors.door"]
    assert record.getMessage() in {
        "a connection to the door was closed: unreadable: BadFrame",
        "a connection to the door was closed: unreadable: DecodeError",
        "a connection to the door was closed: unreadable: ValidationError",
    }
    other = await house.caller()
    other.ask(1, Balance("acme"))
    assert await other.answered() == Answered(1, VIEW), "the others notice nothing"


async def test_only_so_many_are_let_in(tight: House) -> None:
    first, second = await tight.caller(), await tight.caller()
    third = await tight.caller(welcomed=False)
    assert await third.body() is None
    for caller in (first, second):
        caller.ask(1, Balance("acme"))
        assert await caller.answered() == Answered(1, VIEW)
    first.writer.close()
    async with asyncio.timeout(PATIENCE_S):
        while len(tight.door.connections) > 1:
            await asyncio.sleep(0.01)
    await tight.caller()


async def test_who_asks_too_much_at_once_is_read_no_further_until_there_are_answers(tight: House) -> None:
    caller = await tight.caller()
    for number in range(20):
        caller.ask(number, Applied(0, number))
    await asyncio.sleep(0.1)
    assert len(tight.clerk.asked) == 3
    tight.clerk.go_on.set()
    numbers = set()
    for _ in range(20):
        answered = await caller.answered()
        assert answered is not None
        numbers.add(answered.number)
    assert numbers == set(range(20))


async def test_who_does_not_read_its_answers_is_cut_off_and_nobody_else_waits(tight: House) -> None:
    tight.clerk.view = BalanceView(WalletView("USD", "1" * 50_000, "0", "1", None), AS_OF)
    with socket.socket() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        deaf.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(deaf, ("127.0.0.1", tight.port))
        await loop.sock_sendall(deaf, frame(Hello(PROTOCOL, TOKEN)))
        asking = asyncio.ensure_future(_flood(deaf))
        caller = await tight.caller()
        caller.ask(1, Balance("acme"))
        assert await caller.answered() == Answered(1, tight.clerk.view)
        async with asyncio.timeout(PATIENCE_S):
            while len(tight.door.connections) > 1:
                await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
    assert len(tight.clerk.asked) < 2_000, "its questions were not read on"


async def _flood(deaf: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for number in range(100_000):
        await loop.sock_sendall(deaf, frame(Asked(number, 5_000, Balance("acme"))))


async def test_a_clerk_that_fails_costs_one_answer(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(question: Question, within_s: float) -> Answer:
        raise ZeroDivisionError

    house.clerk.answer = broken  # type: ignore[method-assign]
    caller = await house.caller()
    caller.ask(1, Applied(0, 7))
    caller.ask(2, Balance("acme"))
    assert await caller.answered() == Answered(2, VIEW)
    assert "could not be answered" in caplog.text


async def test_a_door_that_closes_breaks_off_what_waits(house: House) -> None:
    caller = await house.caller()
    caller.ask(1, Applied(0, 7))
    async with asyncio.timeout(PATIENCE_S):
        while not house.clerk.asked:
            await asyncio.sleep(0.01)
    await house.door.stop()
    assert await caller.answered() is None
    with pytest.raises(OSError):
        await asyncio.open_connection("127.0.0.1", house.port)
