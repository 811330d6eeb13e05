"""Cuts between a shard and its servers, and weather on the way: one way and both, and in the middle of a COMMIT."""

import asyncio
from enum import StrEnum
from random import Random
from typing import Final

from msgspec import Struct

from actors.clock import SystemClock
from loadtest.chaos.commits import CommitFault
from loadtest.chaos.links import WAIT_S, LinkedShards
from loadtest.chaos.proxy import Direction, Proxy, Weather

LOSE_EVERY_S: Final = 0.25
LATE_S: Final = (0.05, 1.0)  # a COMMIT that comes this late finds its session open, or ended by who settled it

# What is swallowed, by the name that a report has for it.
WAYS: Final = {
    "up": frozenset({Direction.UP}),
    "down": frozenset({Direction.DOWN}),
    "both": frozenset(Direction),
}


class Server(StrEnum):
    """The far end."""

    POSTGRES = "postgres"
    KAFKA = "kafka"


class CommitCut(Struct, frozen=True):
    """What came of one struck COMMIT."""

    fault: CommitFault
    took_effect: bool


def way(run: LinkedShards, number: int, server: Server) -> Proxy:
    """Shard `number`'s way to that server."""
    link = run.links[number]
    return link.postgres if server is Server.POSTGRES else link.kafka


async def cut(run: LinkedShards, number: int, server: Server, ways: frozenset[Direction], seconds: float) -> int:
    """Swallow what is said for so long; how many bytes. Returns when every partition has a checkpoint again."""
    proxy = way(run, number, server)
    before = proxy.swallowed_bytes
    proxy.set(Weather(cut=ways))
    try:
        await SystemClock().sleep(seconds)
    finally:
        proxy.set(Weather())
    await run.healed()
    return proxy.swallowed_bytes - before


async def reset(run: LinkedShards, number: int, server: Server) -> int:
    """Break every connection at once; how many. Returns when every partition has a checkpoint again."""
    broken = way(run, number, server).reset()
    await run.healed()
    return broken


async def delay(run: LinkedShards, number: int, round_trip_s: tuple[float, float], seconds: float) -> None:
    """Every round trip to either server takes so much longer."""
    low, high = round_trip_s
    for server in Server:
        way(run, number, server).set(Weather(delay_s=(low / 2, high / 2)))
    try:
        await SystemClock().sleep(seconds)
    finally:
        for server in Server:
            way(run, number, server).set(Weather())
    await run.healed()


async def lose(run: LinkedShards, number: int, share: float, seconds: float) -> int:
    """So many of the connections break four times a second, and so many new ones are refused; how many broke."""
    clock = SystemClock()
    until_s = clock.boot_s() + seconds
    proxies = [way(run, number, server) for server in Server]
    lost = 0
    for proxy in proxies:
        proxy.set(Weather(refused_share=share))
    try:
        while clock.boot_s() < until_s:
            await clock.sleep(LOSE_EVERY_S)
            lost += sum(proxy.reset(share) for proxy in proxies)
    finally:
        for proxy in proxies:
            proxy.set(Weather())
    await run.healed()
    return lost


async def cut_commit(run: LinkedShards, number: int, fault: CommitFault, random: Random) -> CommitCut:
    """Strike the next COMMIT of the shard, which owns partitions; returns when every partition has a checkpoint again."""
    strike = run.links[number].postgres.strike(fault)
    async with asyncio.timeout(WAIT_S):
        await strike.seen
        if fault is CommitFault.LATE:
            asyncio.get_running_loop().call_later(random.uniform(*LATE_S), strike.delivered.set)
        took_effect = await strike.outcome
    await run.healed()
    return CommitCut(fault, took_effect)
