"""Pattern (d) under the trial: gateways that count for themselves, one of them killed between two syncs."""

import asyncio
import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Final

import msgspec

from actors.clock import SystemClock
from loadtest.patterns.bell import Bell
from loadtest.patterns.contenders import InProcess
from loadtest.patterns.ground import Ground
from loadtest.patterns.pattern import Terms
from loadtest.patterns.synced_counters import EVERY_S, SyncedCounters
from loadtest.patterns.trial import Money, measured, money
from loadtest.probes import COST_PICO

PROCESSES: Final = 4
TIGHT: Final = 20_000  # calls in a row, where one takes microseconds
COUNT_EVERY_S: Final = 0.01
COUNTED_EACH: Final = 20
KILL_AFTER_S: Final = 2.5


async def try_in_process(ground: Ground) -> dict[str, Any]:
    """Four of them, which requests are dealt out to in turn."""
    bell = Bell(SystemClock())
    processes = [SyncedCounters(ground.dsn, ground.terms) for _ in range(PROCESSES)]
    for process in processes:
        await process.start()
    syncing = [asyncio.create_task(_sync(process, bell)) for process in processes]
    try:
        note = f"{PROCESSES} processes, synced every {EVERY_S:g} s"
        cast = ground.cast("in_process")
        contender = InProcess("in_process", note, processes, bell)
        figures = await measured(contender, cast, SystemClock(), ground.scale, EVERY_S / 10)
        figures |= tight_checks(processes[0], cast.checked[0].account)
        figures["events_per_s"] = tight_records(processes[0], ground.scale.events)
    finally:
        for task in syncing:
            task.cancel()
        await asyncio.gather(*syncing, return_exceptions=True)
        for process in processes:
            await process.stop()
    return figures | {"after_kill": msgspec.to_builtins(await _killed(ground))}


async def _sync(process: SyncedCounters, bell: Bell) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        await bell.ring(await process.sync())


def tight_checks(counters: SyncedCounters, account: str) -> dict[str, Any]:
    """The mean of many checks in a row: one takes less than a timer could tell, so there is no slowest."""
    began_s = time.perf_counter()
    for _ in range(TIGHT):
        counters.check(account, COST_PICO)
    return {"check_p50_ms": round((time.perf_counter() - began_s) * 1000 / TIGHT, 6), "check_p99_ms": None}


def tight_records(counters: SyncedCounters, events: int) -> int:
    """Events a second, counted in memory."""
    began_s = time.perf_counter()
    for number in range(events):
        counters.record(f"tight-{number % 100}", COST_PICO)
    return round(events / (time.perf_counter() - began_s))


async def _killed(ground: Ground) -> Money:
    """A process that tells what it has counted, and what the store has of it once it has been killed."""
    account = "killed-in-process"
    counted = await counted_until_killed(_count, ground.dsn, ground.terms, account)
    store = SyncedCounters(ground.dsn, ground.terms)
    await store.start()
    try:
        return money({account: counted * COST_PICO}, {account: await store.stored(account)})
    finally:
        await store.stop()


async def counted_until_killed(count: Callable[..., None], *given: Any) -> int:
    """Runs it in a process of its own, which tells how much it has counted, and kills that: the last that it told.
    `count` takes what is given, and the connection to tell by."""
    context = multiprocessing.get_context("spawn")
    heard, told = context.Pipe(duplex=False)
    child = context.Process(target=count, args=(*given, told))
    child.start()
    told.close()
    counted: int = await asyncio.to_thread(heard.recv)
    deadline_s = time.monotonic() + KILL_AFTER_S
    while time.monotonic() < deadline_s:
        counted = await asyncio.to_thread(heard.recv)
    child.kill()
    await asyncio.to_thread(child.join)
    while heard.poll():
        try:
            counted = heard.recv()
        except EOFError:
            break
    return counted


def _count(dsn: str, terms: Terms, account: str, told: Connection) -> None:
    async def counting() -> None:
        counters = SyncedCounters(dsn, terms)
        await counters.start()
        syncing = asyncio.create_task(counters.syncing())
        counted = 0
        while not syncing.done():
            for _ in range(COUNTED_EACH):
                counters.record(account, COST_PICO)
            counted += COUNTED_EACH
            told.send(counted)
            await asyncio.sleep(COUNT_EVERY_S)

    asyncio.run(counting())
