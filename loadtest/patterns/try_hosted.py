"""Patterns (a) and (b) under the trial: each in a process that reads the log, killed twice while it does."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
import psutil

from actors.deployment import NotReady, until
from loadtest.bench.saturation import Sample, rates_of
from loadtest.bench.stage import Stage
from loadtest.patterns.bell import Bell
from loadtest.patterns.contenders import Hosted
from loadtest.patterns.ground import Absent, Ground, installed
from loadtest.patterns.trial import Money, measured, money
from loadtest.patterns.truth import spent
from loadtest.probes import Customer

LOOK_EVERY_S: Final = 0.05
KILLS_AT: Final = (0.3, 0.6)  # of what is to be read
OVER_S: Final = 10.0  # customers' crossings are spread over a period of the slowest timer
REFRESHED_S: Final = 30.0
NOTES: Final = {
    "olap_query": "ClickHouse in process, rows replaced by identity; alerts from a query every 10 s",
    "sql_timer": "Postgres; balances and alerts anew every 5 s",
}


async def try_hosted(ground: Ground, name: str) -> dict[str, Any]:
    """The pattern of that name. Raises Absent."""
    if name == "olap_query" and not installed("chdb"):
        raise Absent("the wheel chdb is not installed: `make bench` installs it (requirements/bench.txt)")
    async with ground.laid(name) as (stage, cast, crowd):
        bell = Bell(stage.clock)
        await bell.start()
        host = Hosted(name, NOTES[name], stage, ground.terms, bell, ground.folder / name, ground.dsn)
        try:
            await host.start()
            samples = await _read_to_the_end(stage, host)
            rates = rates_of(samples)
            figures = await measured(host, cast, stage.clock, ground.scale, OVER_S / max(1, ground.scale.alerts))
            await host.kill()
            await ground.fill(stage, crowd, seed=2)
            after = await _after_kills(stage, host, [*cast.everybody(), *crowd])
        finally:
            await host.kill()
            await bell.stop()
    return figures | rates | {"after_kill": msgspec.to_builtins(after)}


async def _after_kills(stage: Stage, host: Hosted, everybody: Sequence[Customer]) -> Money:
    """Killed twice while it reads, then left to finish; each balance beside the oracle's."""
    await host.start()
    begin, end = sum((await host.places()).values()), sum((await stage.ends()).values())
    for share in KILLS_AT:
        while sum((await host.places()).values()) < begin + share * (end - begin):
            await stage.clock.sleep(LOOK_EVERY_S)
        await host.kill()
        await host.start()
    await _read_to_the_end(stage, host)
    expected = await spent(stage.settings, stage.catalogue, everybody)
    account = max(expected, key=lambda name: expected[name])

    async def refreshed() -> bool:
        return await host.booked(account) == expected[account]

    try:
        await until(refreshed, "the balances to be refreshed", REFRESHED_S)
    except NotReady:
        stage.say(f"{host.name}: after {REFRESHED_S:.0f} s the largest balance is not what it should be")
    return money(expected, {customer.account: await host.booked(customer.account) for customer in everybody})


async def _read_to_the_end(stage: Stage, host: Hosted) -> list[Sample]:
    """Watch a host until it has read what is in the log now."""
    ends = await stage.ends()
    process = psutil.Process(host.pid)
    samples: list[Sample] = []
    while True:
        done = sum((await host.places()).values())
        times = process.cpu_times()
        samples.append(Sample(stage.clock.boot_s(), done, done, times.user + times.system))
        if done >= sum(ends.values()):
            return samples
        await stage.clock.sleep(LOOK_EVERY_S)
