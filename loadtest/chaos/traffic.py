"""The load: usage straight into the log, and gateways that ask over HTTP before they spend, round after round.

Every round brings customers of its own, so that accounts are opened, run dry and cross their caps until the end. Rounds
go on until enough events are acknowledged and whoever strikes has finished.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
from msgspec import Struct

from actors.assembly import issue_key, kafka_appender
from actors.kafka import KafkaAppender
from actors.keys import KeyScope
from actors.ports import Appender, Clock, LogUnavailable, Outgoing
from config.settings import Settings
from engine.events import seal
from engine.placement import partition_for
from loadtest.chaos.acknowledged import Acknowledged
from loadtest.drive import Driver
from loadtest.fronts import HttpFront
from loadtest.gateways import Fleet, requests, wallets
from loadtest.journal import Journal
from loadtest.workload import Workload

ROUND_EVENTS: Final = 50_000
HELD_PART: Final = 25  # every so many-th request is asked for over HTTP, and held
CUSTOMERS_EVERY: Final = 100  # events of a round per customer
SETUP_US: Final = 3_000_000  # opening a round's accounts takes about this long; a lot that expires early is refused
COMMANDS_MAX: Final = 500
RETRY_S: Final = 0.2
PART_S: Final = 0.02  # how long a gateway takes for each part of an answer
COMMAND: Final = "command"

Folded = Callable[[dict[int, int]], Awaitable[None]]


class Load(Struct, frozen=True):
    """How much, at which pace."""

    events: int
    per_s: float
    seed: int


class Traffic:
    """Use `opened` around `run`. The journals are what callers were told and what Kafka acknowledged."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock,
        catalogue: Mapping[str, Any],
        load: Load,
        ttl_s: float,
        acknowledged: Acknowledged,
        folded: Folded,
    ) -> None:
        """`folded` returns once the owners have read the log up to these offsets."""
        self.journal = Journal()
        self.held_customers: list[str] = []
        self.sources: list[str] = []
        self.retries = 0
        self.behind_s = 0.0
        self.rounds = 0
        self._settings = settings
        self._clock = clock
        self._catalogue = catalogue
        self._load = load
        self._ttl_s = ttl_s
        self._acknowledged = acknowledged
        self._folded = folded
        self._requests = 0
        self._appender: KafkaAppender
        self._front: HttpFront

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """A producer of its own, a key, and connections to the API."""
        settings = self._settings
        url = f"http://{settings.api.host}:{settings.api.port}"
        async with AsyncExitStack() as stack:
            self._appender = kafka_appender(settings)
            await self._appender.start()
            stack.push_async_callback(self._appender.stop)
            session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            scopes = (KeyScope.CHECK, KeyScope.INGEST, KeyScope.READ)
            key = await issue_key(settings, self._clock, "chaos gateways", scopes, created_by="loadtest.chaos")
            self._front = HttpFront(session, url, key)
            yield
            self.retries = self._front.retries

    async def run(self, done: asyncio.Event) -> None:
        """Rounds until `done` is set and enough events are acknowledged."""
        driver = Driver(
            self._appender,
            self._clock,
            self._settings.kafka.topic_usage,
            self._settings.control_key_bytes(),
            self._acknowledged.write,
        )
        while self._acknowledged.events < self._load.events or not done.is_set():
            left = max(self._load.events - self._acknowledged.events, ROUND_EVENTS // 10)
            await self._round(driver, min(ROUND_EVENTS, left))
            self.rounds += 1

    async def _round(self, driver: Driver, events: int) -> None:
        # Numpy draws a round's traffic in a tenth of a second, during which nobody else would be heard.
        usage = await asyncio.to_thread(self._workload, events, "cus", 0)
        asking = await asyncio.to_thread(self._workload, max(1, events // HELD_PART), "gw", 1)
        await self._set_up(usage.setup(self._clock.wall_us() + SETUP_US) + wallets(asking))
        await self._folded(dict(self._acknowledged.ends))  # a check of an account that is not yet open is refused
        self.held_customers += asking.customers
        fleet = Fleet(self._front, self._clock, self.journal, run=f"round-{self.rounds}", ttl_s=self._ttl_s)
        self.sources += fleet.sources
        await asyncio.gather(driver.run(usage), fleet.run(requests(asking, PART_S, self._requests)))
        self._requests += asking.events
        self.behind_s = max(self.behind_s, driver.behind_s)

    def _workload(self, events: int, prefix: str, kind: int) -> Workload:
        return Workload(
            (self._load.seed * 10_000 + self.rounds) * 2 + kind,
            events,
            max(1, events // CUSTOMERS_EVERY),
            None,
            (events * HELD_PART if kind else events) / self._load.per_s,
            catalogue=self._catalogue,
            partitions=self._settings.kafka.partitions,
            prefix=f"{prefix}_{self.rounds}",
        )

    async def _set_up(self, commands: list[dict[str, Any]]) -> None:
        """Into the log; whoever rates reads them before the usage behind them."""
        await append_commands(self._appender, self._clock, self._settings, commands, self._acknowledged)


async def append_commands(
    appender: Appender, clock: Clock, settings: Settings, commands: list[dict[str, Any]], acknowledged: Acknowledged
) -> None:
    """Each sealed, to the partition of its account. Returns when all are durable, and in the journal."""
    for start in range(0, len(commands), COMMANDS_MAX):
        records = [_sealed(settings, command) for command in commands[start : start + COMMANDS_MAX]]
        while True:
            try:
                offsets = await appender.append(records)
            except LogUnavailable:
                await clock.sleep(RETRY_S)
            else:
                acknowledged.write([COMMAND] * len(records), records, offsets)
                break


def _sealed(settings: Settings, command: dict[str, Any]) -> Outgoing:
    key = command["account"].encode()
    home = partition_for(key, settings.kafka.partitions)
    topic, control_key = settings.kafka.topic_usage, settings.control_key_bytes()
    return Outgoing("usage", seal(control_key, topic, home, orjson.dumps(command)), key, home)
