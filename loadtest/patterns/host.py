"""The process of a pattern that reads the log: it consumes, keeps its timer, and answers checks over HTTP.

Its settings come as a line of JSON on stdin, and its port is a line on stdout. It is killed like any other process.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import orjson
import uvloop
from aiohttp import web

from actors.assembly import kafka_log
from config.settings import Settings
from loadtest.patterns.pattern import Pattern, Terms, read

RECORDS_AT_ONCE: Final = 2_000
WAIT_S: Final = 0.05


def made(name: str, folder: Path, dsn: str, terms: Terms) -> Pattern:
    """The pattern of that name; only its own library is imported. Raises ValueError."""
    if name == "olap_query":
        from loadtest.patterns.olap_query import OlapQuery

        return OlapQuery(folder, terms)
    if name == "sql_timer":
        from loadtest.patterns.sql_timer import SqlTimer

        return SqlTimer(dsn, terms)
    raise ValueError(f"no pattern {name!r} reads the log")


class Host:
    """One pattern, at work."""

    def __init__(self, pattern: Pattern, settings: Settings, terms: Terms, bell: str) -> None:
        """`bell` is the URL that is told of customers who have crossed the threshold."""
        self._pattern = pattern
        self._terms = terms
        self._bell = bell
        self._log = kafka_log(settings)
        self._partitions = settings.kafka.partitions
        self._places: dict[int, int] = {}
        self._turn = asyncio.Lock()

    async def run(self) -> None:
        """Until the process is ended."""
        places = await self._pattern.start()
        self._places = {number: places.get(number, 0) for number in range(self._partitions)}
        await self._log.start()
        self._log.assign(dict(self._places))
        app = web.Application()
        app.router.add_post("/check", self._check)
        app.router.add_get("/spent/{account}", self._spent)
        app.router.add_get("/places", self._tell_places)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sys.stdout.write(f"{runner.addresses[0][1]}\n")
        sys.stdout.flush()
        async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as session:
            group.create_task(self._consume())
            await self._keep_time(session)

    async def _consume(self) -> None:
        while True:
            found = await self._log.fetch(RECORDS_AT_ONCE, WAIT_S)
            uses = [use for batch in found.values() for record in batch if (use := read(record.value)) is not None]
            places = {number: self._log.position(number) for number in found}
            if places:
                async with self._turn:
                    await self._pattern.take(uses, places)
                self._places |= places

    async def _keep_time(self, session: aiohttp.ClientSession) -> None:
        while True:
            await asyncio.sleep(self._pattern.every_s)
            async with self._turn:
                crossed = await self._pattern.tick()
            if crossed:
                # A receiver that is away is the receiver's loss: these patterns keep no outbox.
                with contextlib.suppress(aiohttp.ClientError):
                    await session.post(self._bell, data=orjson.dumps(crossed))

    async def _check(self, request: web.Request) -> web.Response:
        asked = orjson.loads(await request.read())
        allowed = await self._pattern.spent(asked["account"]) + asked["pico"] <= self._terms.cap_pico
        return web.Response(body=orjson.dumps({"allowed": allowed}), content_type="application/json")

    async def _spent(self, request: web.Request) -> web.Response:
        return web.Response(text=str(await self._pattern.spent(request.match_info["account"])))

    async def _tell_places(self, _: web.Request) -> web.Response:
        places = {str(number): place for number, place in self._places.items()}
        return web.Response(body=orjson.dumps(places), content_type="application/json")


async def main(given: dict[str, Any]) -> None:
    terms = msgspec.convert(given["terms"], Terms)
    pattern = made(given["pattern"], Path(given["folder"]), given["dsn"], terms)
    await Host(pattern, Settings.model_validate(given["settings"]), terms, given["bell"]).run()


if __name__ == "__main__":
    uvloop.run(main(json.loads(sys.stdin.readline())))
