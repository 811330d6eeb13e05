"""Where patterns tell of customers that have crossed their threshold, and who waits to hear of one."""

import asyncio
from typing import Any

import orjson
from aiohttp import web

from actors.ports import Clock


class Bell:
    """A receiver on a free port of loopback: a POST with a JSON list of accounts rings for each of them."""

    def __init__(self, clock: Clock) -> None:
        self.rung: dict[str, float] = {}  # account -> when first, by the boot clock
        self.url = ""
        self._clock = clock
        self._heard = asyncio.Condition()
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/crossed", self._take)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/crossed"

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def ring(self, accounts: list[str]) -> None:
        """Also for patterns that live in this process."""
        now_s = self._clock.boot_s()
        async with self._heard:
            for account in accounts:
                self.rung.setdefault(account, now_s)
            self._heard.notify_all()

    async def heard(self, account: str) -> float:
        """When it rang for this customer; waits until it does."""
        async with self._heard:
            await self._heard.wait_for(lambda: account in self.rung)
        return self.rung[account]

    async def _take(self, request: web.Request) -> web.Response:
        accounts: Any = orjson.loads(await request.read())
        await self.ring(accounts)
        return web.Response(status=204)
