"""Ours under the same trial: over HTTP, and at a door with the only shard killed in mid-stream."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp
import msgspec

from actors.assembly import doors, issue_key
from actors.cluster import Cluster
from actors.deployment import deployed, until
from actors.keys import KeyScope
from config.stack.ray_local import record_ray
from loadtest.bench.saturation import rate_to_the_end, rates_of
from loadtest.bench.stage import Stage
from loadtest.fronts import DoorFront, HttpFront
from loadtest.patterns.contenders import Ours, at_the_door, over_http
from loadtest.patterns.ground import Ground
from loadtest.patterns.trial import Cast, Money, measured
from loadtest.probes import Customer

SCOPES: Final = (KeyScope.CHECK, KeyScope.INGEST, KeyScope.READ)
WITHIN_S: Final = 5.0
APART_S: Final = 0.05  # between two customers whose alert is followed


async def try_over_http(ground: Ground) -> dict[str, Any]:
    """A check with a hold through Serve, captured there."""
    async with ground.laid("ours_http") as (stage, cast, crowd), AsyncExitStack() as stack:
        await stack.enter_async_context(with_the_api(ground, stage))
        key = await issue_key(stage.settings, stage.clock, "patterns", SCOPES, created_by="make bench")
        url = f"http://{stage.settings.api.host}:{stage.settings.api.port}"
        connector, headers = aiohttp.TCPConnector(limit=0), {"authorization": f"Bearer {key}"}
        session = await stack.enter_async_context(aiohttp.ClientSession(url, headers=headers, connector=connector))
        ours = Ours("ours over HTTP", "http", HttpFront(session, url, key), over_http(session), stage)
        return await _asked(ground, ours, cast, crowd)


@asynccontextmanager
async def with_the_api(ground: Ground, stage: Stage) -> AsyncIterator[None]:
    """Shards and the API, for as long as the block runs; all that lies in the log is rated."""
    async with deployed(stage.settings, ground.supervisor.run_dir / "locks", ground.say) as cluster:
        record_ray(ground.supervisor)
        await stage.settled(cluster)
        yield


async def try_at_the_door(ground: Ground) -> dict[str, Any]:
    """A check with a hold at the shard's door, its usage in the log; then the kill, and every amount."""
    async with ground.laid("ours_door") as (stage, cast, crowd):
        async with stage.rating("patterns") as cluster:
            samples, _ = await rate_to_the_end(stage, cluster)
            await stage.settled(cluster)
            asking = doors(stage.settings)
            await asking.start()
            try:
                front = DoorFront(
                    lambda account, question: asking.ask(account, question, WITHIN_S),
                    stage.log,
                    stage.settings.control_key_bytes(),
                )
                ours = Ours("ours at a door", "door", front, at_the_door(asking), stage)
                figures = await _asked(ground, ours, cast, crowd)
            finally:
                await asking.stop()
            await ground.fill(stage, crowd, seed=2)
            await _killed(stage, cluster)
        exact = await stage.exact()  # raises when a pico is lost or doubled
    return figures | {
        **rates_of(samples),
        "after_kill": msgspec.to_builtins(Money(0, 0)),
        "exact": msgspec.to_builtins(exact),
    }


async def _killed(stage: Stage, cluster: Cluster) -> None:
    (status,) = await cluster.statuses()
    os.kill(status.pid, signal.SIGKILL)
    stage.say("ours: SIGKILL to the only shard, in mid-stream")

    async def made_anew() -> bool:
        return any(each.pid != status.pid for each in await cluster.statuses())

    await until(made_anew, "the shard to be made anew")
    await stage.settled(cluster)


async def _asked(ground: Ground, ours: Ours, cast: Cast, crowd: Sequence[Customer]) -> dict[str, Any]:
    ours.knows([*cast.everybody(), *crowd])
    return await measured(ours, cast, ours.stage.clock, ground.scale, APART_S)
