"""The bell: who waits hears, and the first ring counts."""

import asyncio

import aiohttp

from loadtest.patterns.bell import Bell
from tests.simulation.hand_clock import HandClock


async def test_who_waits_hears_of_the_first_ring() -> None:
    clock = HandClock()
    bell = Bell(clock)
    waiting = asyncio.create_task(bell.heard("a"))
    await clock.advance(2.0)
    await bell.ring(["b", "a"])
    await clock.advance(1.0)
    await bell.ring(["a"])
    assert await waiting == 2.0
    assert await bell.heard("a") == 2.0


async def test_it_rings_by_http() -> None:
    bell = Bell(HandClock())
    await bell.start()
    try:
        async with aiohttp.ClientSession() as session, session.post(bell.url, data=b'["a"]') as answer:
            assert answer.status == 204
        assert bell.rung == {"a": 0.0}
    finally:
        await bell.stop()
