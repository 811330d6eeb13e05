"""Callers at the doors, in a process of their own: each asks at a time fixed beforehand, and its answer is waited for.

In a process of their own, because whoever measures looks at everybody's processor time meanwhile: callers on the same loop
would wait for that, and it would stand in their times as the doors'.
"""

import asyncio
import gc
import multiprocessing
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Final

import msgspec
import uvloop
from msgspec import Struct

from actors.assembly import doors
from actors.clock import SystemClock
from actors.deployment import until
from actors.door_client import Doors, DoorUnavailable
from actors.door_wire import Check, Checked, FieldLimit, Release
from actors.ports import Clock
from config.settings import Settings
from loadtest.bench.arrivals import Offered, open_loop, poisson
from loadtest.bench.latency import Latencies
from loadtest.probes import MODEL, TOKENS
from loadtest.workload import EVENT_TYPE

WITHIN_S: Final = 5.0
HOLD_TTL_MS: Final = 30_000
BOUNDS: Final = (FieldLimit(("input_tokens",), str(TOKENS)), FieldLimit(("output_tokens",), "0"))


class NotHeld(Exception):
    """A customer with plenty was refused, or its owner did not answer in time."""


class Asks(Struct, frozen=True):
    """What is asked, and how often; about the accounts in turn."""

    accounts: Sequence[str]
    per_s: float
    seconds: float
    seed: int


class Calling:
    """Callers who are about to ask, or do."""

    def __init__(self, process: SpawnProcess, line: Connection) -> None:
        self.pid = process.pid or 0
        self._process = process
        self._line = line

    def begin(self, start_us: int) -> None:
        """Their first instant, by the wall."""
        self._line.send(start_us)

    async def done(self) -> tuple[Offered, Latencies]:
        """Once the last was answered. Raises RuntimeError when the process broke."""
        try:
            offered, packed = await asyncio.to_thread(self._line.recv)
        except EOFError:
            raise RuntimeError("the callers' process broke; its error stands above") from None
        finally:
            await asyncio.to_thread(self._process.join)
        return msgspec.convert(offered, Offered), Latencies.unpacked(packed)


async def call(settings: Settings, asks: Asks) -> Calling:
    """Returns when each account has had its first hold, which waits for its slice to come back from the log. Raises
    RuntimeError."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    given = settings.reveal(), msgspec.to_builtins(asks)
    process = context.Process(target=_in_a_process, args=(theirs, *given), daemon=True)
    process.start()
    theirs.close()
    try:
        await asyncio.to_thread(ours.recv)
    except EOFError:
        await asyncio.to_thread(process.join)
        raise RuntimeError("the callers' process broke; its error stands above") from None
    return Calling(process, ours)


def _in_a_process(told: Connection, given: dict[str, Any], asks: dict[str, Any]) -> None:
    gc.freeze()
    uvloop.run(_ask(told, Settings.model_validate(given), msgspec.convert(asks, Asks)))


async def _ask(told: Connection, settings: Settings, asks: Asks) -> None:
    clock, opened = SystemClock(), doors(settings)
    await opened.start()
    try:
        asker = Asker(clock, opened, asks.accounts)
        await asker.warm()
        told.send(None)
        start_us: int = await asyncio.to_thread(told.recv)
        await clock.sleep(max(0.0, (start_us - clock.wall_us()) / 1_000_000))
        durations = Latencies()
        offered = await asker.ask(poisson(asks.per_s, asks.seconds, asks.seed), durations)
        told.send((msgspec.to_builtins(offered), durations.packed()))
    finally:
        await opened.stop()


class Asker:
    """Asks doors for holds of one request each, and gives them back."""

    def __init__(self, clock: Clock, opened: Doors, accounts: Sequence[str]) -> None:
        self._clock = clock
        self._doors = opened
        self._accounts = accounts
        self._releases: set[asyncio.Task[None]] = set()

    async def warm(self) -> None:
        """One hold of every account: the first waits for its slice to come back from the log, and is no common check."""
        for number in range(len(self._accounts)):
            await until(lambda number=number: self._was_held(number), "the first holds")  # type: ignore[misc]

    async def _was_held(self, number: int) -> bool:
        try:
            await self.check(number)
        except (DoorUnavailable, NotHeld):
            return False
        return True

    async def check(self, number: int) -> None:
        """A check with a hold, about the accounts in turn. Raises NotHeld, DoorUnavailable."""
        account = self._accounts[number % len(self._accounts)]
        question = Check(account, type=EVENT_TYPE, data={"model": MODEL}, bounds=BOUNDS, ttl_ms=HOLD_TTL_MS)
        answer = await self._doors.ask(account, question, WITHIN_S)
        if not isinstance(answer, Checked) or answer.hold is None:
            raise NotHeld(f"account {account}: expected a hold, got {answer}")
        task = asyncio.create_task(self._release(account, answer.hold.token))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _release(self, account: str, token: str) -> None:
        with suppress(DoorUnavailable):  # it expires by itself
            await self._doors.ask(account, Release(token), WITHIN_S)

    async def ask(self, times: Sequence[float], durations: Latencies) -> Offered:
        """A check at each time; the release of its hold is not timed."""
        offered = await open_loop(times, self.check, self._clock, durations, (DoorUnavailable, NotHeld))
        await asyncio.gather(*self._releases)
        return offered
