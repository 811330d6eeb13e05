"""The load's own process: it makes a workload's records beforehand, and sends each at its time.

Made beforehand, because a generator that computes between two records would be what saturates first; in a process of
its own, because what it takes must be told from what the system takes.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Iterable, Mapping
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any, Final

import msgspec
import uvloop
from msgspec import Struct

from actors.assembly import kafka_appender
from actors.clock import SystemClock
from config.settings import Settings
from loadtest.drive import EVENT_LAG_US, Driver
from loadtest.workload import SECOND_US, Send, Shape, Workload

START_IN_US: Final = SECOND_US
RENDER_US: Final = 30  # of one record, at most; whoever takes longer sends events that are a little older


class Order(Struct, frozen=True):
    """A workload by its arguments: cheaper to tell another process than its records."""

    seed: int
    events: int
    customers: int
    duration_s: float
    prefix: str
    shape: Shape = Shape()
    trace: str | None = None

    def workload(self, catalogue: Mapping[str, Any], partitions: int) -> Workload:
        """The same in whatever process."""
        return Workload(
            self.seed,
            self.events,
            self.customers,
            None if self.trace is None else Path(self.trace),
            self.duration_s,
            catalogue=catalogue,
            partitions=partitions,
            prefix=self.prefix,
            shape=self.shape,
        )


class Fed(Struct, frozen=True):
    """What was sent."""

    sent: int
    behind_s: float  # how late the last batch left: above a hundredth of a second the load was not open any more
    seconds: float
    cpu_s: float
    counts: dict[str, int]


def rendered(sends: Iterable[Send], start_us: int) -> list[Send]:
    """The same records with their bytes made: an event's time is the one at which it is to be sent."""
    made = []
    for send in sends:
        value = send.render(start_us + round(send.at_s * SECOND_US) - EVENT_LAG_US)
        made.append(send._replace(render=lambda _, value=value: value))  # type: ignore[misc]
    return made


def _in_a_process(told: Connection, given: dict[str, Any], order: Order, catalogue: dict[str, Any]) -> None:
    uvloop.run(_send(told, Settings.model_validate(given), order, catalogue))


async def _send(told: Connection, settings: Settings, order: Order, catalogue: dict[str, Any]) -> None:
    clock = SystemClock()
    log = kafka_appender(settings)
    await log.start()
    try:
        workload = order.workload(catalogue, settings.kafka.partitions)
        start_us = clock.wall_us() + START_IN_US + order.events * RENDER_US
        sends = rendered(workload, start_us)
        told.send(start_us)
        await clock.sleep(max(0.0, (start_us - clock.wall_us()) / SECOND_US))
        driver = Driver(log, clock, settings.kafka.topic_usage, settings.control_key_bytes())
        began_s, began_cpu_s = clock.boot_s(), time.process_time()
        await driver.run(sends)
        fed = Fed(
            driver.sent,
            round(driver.behind_s, 3),
            round(clock.boot_s() - began_s, 3),
            round(time.process_time() - began_cpu_s, 3),
            dict(driver.counts),
        )
        told.send(msgspec.to_builtins(fed))
    finally:
        await log.stop()


class Feeding:
    """A load under way."""

    def __init__(self, process: SpawnProcess, heard: Connection, start_us: int) -> None:
        self.pid = process.pid or 0
        self.start_us = start_us  # wall time of the first record
        self._process = process
        self._heard = heard

    async def done(self) -> Fed:
        """Once everything that was sent is durable. Raises RuntimeError when the process broke."""
        try:
            return msgspec.convert(await asyncio.to_thread(self._heard.recv), Fed)
        except EOFError:
            raise RuntimeError("the load's process broke; its error stands above") from None
        finally:
            await asyncio.to_thread(self._process.join)


async def feed(settings: Settings, order: Order, catalogue: Mapping[str, Any]) -> Feeding:
    """Returns when every record is made, shortly before the first is sent. Raises RuntimeError."""
    context = multiprocessing.get_context("spawn")
    heard, told = context.Pipe(duplex=False)
    process = context.Process(target=_in_a_process, args=(told, settings.reveal(), order, dict(catalogue)))
    process.start()
    told.close()
    try:
        start_us = await asyncio.to_thread(heard.recv)
    except EOFError:
        await asyncio.to_thread(process.join)
        raise RuntimeError("the load's process broke; its error stands above") from None
    return Feeding(process, heard, start_us)
