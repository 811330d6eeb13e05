"""How fast a cost is seen: a generated fleet, cost and margin actors on Ray, a real broker and database, and callers over HTTP.

The fleet serves `rate` requests a second to 500 customers. Beside it each prober has one request served at a time, under an
account of its own, and asks `GET /v1/margin` for that account until the answer has its cost. Nothing is charged: rating and
its load are the demo's (`make demo` has the same figures, without HTTP)."""

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from pathlib import Path
from random import Random
from typing import Any, Final

import aiohttp
import orjson
import uvloop
from msgspec import Struct

from actors.assembly import fleet_appender, issue_key
from actors.clock import SystemClock
from actors.deployment import deployed, lay_ground
from actors.keys import KeyScope
from config.settings import Settings
from config.stack.embedded import fresh_stack
from config.stack.ports import free_ports
from config.stack.ray_local import join_ray, record_ray, start_ray
from config.stack.supervisor import Supervisor
from engine.cost.served import Status
from loadtest.cost_sight import CostSight, Delays
from loadtest.gpu_fleet import GpuFleet

CUSTOMERS: Final = 500
MODELS: Final = ("atlas-large", "atlas-small", "atlas-small", "atlas-mini")
BEAT_S: Final = 0.02
ASK_EVERY_S: Final = 0.1  # the figure over HTTP is too high by as much at most; oftener, the asking is the load
REST_S: Final = 6.0  # behind the last request: what is not seen by then is told as unseen
PROMPT_MEAN: Final = 1_434  # of the Azure conversation trace
OUTPUT_MEAN: Final = 154


class LiveOptions(Struct, frozen=True):
    """How much is served, and for how long."""

    rate: int = 500  # requests a second
    seconds: float = 30.0
    probers: int = 6
    run_dir: Path = Path("build/run")


def run(settings: Settings, options: LiveOptions, say: Callable[[str], None]) -> dict[str, Any]:
    """The figures, on a stack of their own unless the settings name one. What was started is stopped."""
    with Supervisor(options.run_dir, say=say) as supervisor:
        prepared = fresh_stack(supervisor, settings)
        update = {
            "api": prepared.api.model_copy(update={"port": free_ports(1)[0]}),
            "cost": prepared.cost.model_copy(update={"actors": max(1, prepared.cost.actors)}),
        }
        prepared = prepared.model_copy(update=update)
        if prepared.ray_address is None:
            start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2), serve=True)
        else:
            join_ray(prepared.ray_address)
        return uvloop.run(_Live(supervisor, prepared, options, say).run())


class _Live:
    def __init__(
        self, supervisor: Supervisor, settings: Settings, options: LiveOptions, say: Callable[[str], None]
    ) -> None:
        self._supervisor = supervisor
        self._settings = settings
        self._options = options
        self._say = say
        self._clock = SystemClock()

    async def run(self) -> dict[str, Any]:
        settings = self._settings = await lay_ground(self._settings)
        sight = CostSight(settings, self._clock)
        async with deployed(settings, self._options.run_dir.resolve() / "locks", self._say):
            if settings.ray_address is None:
                record_ray(self._supervisor)
            await self._serve(sight)
            found = await sight.delays()
        return report(found, self._options, settings.cost.interval_s)

    async def _serve(self, sight: CostSight) -> None:
        options, appender = self._options, fleet_appender(self._settings)
        async with AsyncExitStack() as stack:
            await appender.start()
            stack.push_async_callback(appender.stop)
            session = await stack.enter_async_context(await self._session())
            fleet = GpuFleet(self._settings, self._clock, appender)
            await fleet.start()
            tasks = [asyncio.create_task(work) for work in (sight.watch(), fleet.run())]
            try:
                self._say(
                    f"costs: {options.rate} requests a second for {options.seconds:g} s, {options.probers} probers"
                )
                probers = (self._probe(number, session, fleet, sight) for number in range(options.probers))
                await asyncio.gather(self._load(fleet), *probers)
                await self._clock.sleep(REST_S)
                await fleet.end()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _session(self) -> aiohttp.ClientSession:
        api = self._settings.api
        key = await issue_key(self._settings, self._clock, "bench", (KeyScope.ADMIN,), created_by="bench")
        return aiohttp.ClientSession(
            f"http://{api.host}:{api.port}",
            headers={"Authorization": f"Bearer {key}"},
            connector=aiohttp.TCPConnector(limit=0),
        )

    async def _load(self, fleet: GpuFleet) -> None:
        random, began_s, served = Random(7), self._clock.boot_s(), 0
        while (passed_s := self._clock.boot_s() - began_s) < self._options.seconds:
            for number in range(served, int(passed_s * self._options.rate)):
                account = f"cus_{random.randrange(CUSTOMERS):04d}"
                prompt, output = (1 + int(random.expovariate(1 / mean)) for mean in (PROMPT_MEAN, OUTPUT_MEAN))
                fleet.serve(account, f"r-{number}", random.choice(MODELS), prompt, output, Status.OK)
                served += 1
            await self._clock.sleep(BEAT_S)

    async def _probe(self, number: int, session: aiohttp.ClientSession, fleet: GpuFleet, sight: CostSight) -> None:
        """One request after the other, each seen before the next is served."""
        account, served, until_s = f"probe-{number}", 0, self._clock.boot_s() + self._options.seconds
        while self._clock.boot_s() < until_s:
            served += 1
            request = f"{account}-{served}"
            fleet.serve(account, request, MODELS[number % len(MODELS)], PROMPT_MEAN, OUTPUT_MEAN, Status.OK)
            while await known_requests(session, account) < served:
                if self._clock.boot_s() > until_s + REST_S:
                    return
                await self._clock.sleep(ASK_EVERY_S)
            sight.saw(request)


async def known_requests(session: aiohttp.ClientSession, account: str) -> int:
    """Of an account, by the API: requests whose cost is known, in the last day."""
    async with session.get("/v1/margin", params={"by": "account", "account": account}) as answer:
        if answer.status != 200:
            return 0  # a replica comes or goes
        items = orjson.loads(await answer.read())["items"]
    return sum(item["requests"] - item["without_cost"] for item in items)


def report(found: Delays, options: LiveOptions, interval_s: float) -> dict[str, Any]:
    """As it stands in `build/bench-cost.json`."""
    return {
        "requests_per_s": options.rate,
        "interval_s": interval_s,
        "unseen": found.unseen,
        **{f"{name}_ms": figures for name, figures in found.figures().items()},
    }
