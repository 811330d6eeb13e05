"""The held part of a run: gateways that ask over HTTP before they spend, and what can be said of them afterwards."""

import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import aiohttp
import psutil
from msgspec import Struct

from actors.assembly import database_dsn, issue_key
from actors.door_client import Doors
from actors.door_wire import Status, door_token
from actors.keys import KeyScope
from actors.membership import PostgresDirectory
from actors.ports import Clock
from config.settings import Settings
from loadtest.fronts import HttpFront
from loadtest.gateways import Fleet, Ran, requests
from loadtest.journal import Journal, judge_denials, judge_usage, overspend
from loadtest.report import percentiles
from loadtest.verify import Verdict
from loadtest.workload import Workload

STATUS_WITHIN_S: Final = 2.0
METRICS_TIMEOUT_S: Final = 5.0
PART_S: Final = 0.02  # how long the demo's gateways take for each part of an answer
_REPLICA: Final = re.compile(r'replica="api\.([0-9]+)"')


class HeldFigures(Struct):
    """What the gateways came to; money in pico."""

    check_ms: dict[str, float | None]
    allowed: int
    denied: int
    reasons: dict[str, int]
    fates: dict[str, int]
    answers_backed: int
    retries: int
    behind_s: float
    overspend: int
    sentences: list[str]


class HeldTraffic:
    """Runs `workload`'s calls as held requests. Its customers must use nothing beside them."""

    def __init__(
        self, settings: Settings, clock: Clock, workload: Workload, *, ttl_s: float, ran: Ran = lambda *_: None
    ) -> None:
        """`ran` is told of every request that a model has run."""
        self.workload = workload
        self.journal = Journal()
        self._settings = settings
        self._clock = clock
        self._ttl_s = ttl_s
        self._ran = ran
        self._front: HttpFront | None = None
        self._fleet: Fleet | None = None
        self._doors: Doors | None = None
        self._session: aiohttp.ClientSession | None = None

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[None]:
        """A key of its own, connections to the API, and to the shards for their status. The API must be up."""
        settings, dsn = self._settings, database_dsn(self._settings)
        url = f"http://{settings.api.host}:{settings.api.port}"
        async with AsyncExitStack() as stack:
            scopes = (KeyScope.CHECK, KeyScope.INGEST, KeyScope.READ)
            key = await issue_key(settings, self._clock, "the demo's gateways", scopes, created_by="tallygate demo")
            headers = {"Authorization": f"Bearer {key}"}
            connector = aiohttp.TCPConnector(limit=0)
            session = await stack.enter_async_context(aiohttp.ClientSession(url, headers=headers, connector=connector))
            directory = PostgresDirectory(dsn, settings.postgres.schema_name)
            doors = Doors(directory, door_token(settings.control_key_bytes()), settings.kafka.partitions)
            await doors.start()
            stack.push_async_callback(doors.stop)
            self._session, self._doors = session, doors
            self._front = HttpFront(session, url, key)
            self._fleet = Fleet(self._front, self._clock, self.journal, run="held", ttl_s=self._ttl_s, ran=self._ran)
            yield

    async def run(self) -> None:
        """Until the last request has ended."""
        assert self._fleet is not None
        await self._fleet.run(requests(self.workload, PART_S))

    async def kill_replica(self) -> int | None:
        """SIGKILL to the replica of the API that happens to answer; its pid. None when it runs on another machine."""
        assert self._session is not None
        timeout = aiohttp.ClientTimeout(total=METRICS_TIMEOUT_S)
        async with self._session.get("/metrics", timeout=timeout) as answer:
            pid = replica_pid(await answer.text())
        if pid is None or not is_replica(pid):
            return None
        os.kill(pid, signal.SIGKILL)
        return pid

    async def open_holds(self) -> int | None:
        """Of all partitions, as their owners say; None while not every partition is spoken for."""
        assert self._doors is not None
        views = [
            view
            for status in await self._doors.ask_every_shard(Status(), STATUS_WITHIN_S)
            for view in status.partitions
            if view.stage == "ready"
        ]
        if len({view.partition for view in views}) != self._settings.kafka.partitions:
            return None
        return sum(view.open_holds for view in views)

    def judge(self, verdict: Verdict) -> HeldFigures:
        """The verdict was made with this journal."""
        assert self._fleet is not None
        assert self._front is not None
        return HeldFigures(
            check_ms=percentiles(self.journal.check_ms),
            allowed=self.journal.allowed,
            denied=self.journal.denied,
            reasons=self.journal.reasons(),
            fates=dict(self.journal.counts),
            answers_backed=verdict.answers_backed,
            retries=self._front.retries,
            behind_s=round(self._fleet.behind_s, 3),
            overspend=overspend(verdict.accounts, dict.fromkeys(self.workload.customers, 0)),
            sentences=[
                *judge_usage(self.journal, verdict.rated.values(), self._fleet.sources),
                *judge_denials(self.journal),
            ],
        )


def replica_pid(metrics: str) -> int | None:
    """The pid in the label that a replica gives its own series."""
    found = _REPLICA.search(metrics)
    return None if found is None else int(found[1])


def is_replica(pid: int) -> bool:
    """Whether that process is a replica on this machine, and not somebody who has the same number."""
    try:
        return "ServeReplica" in " ".join(psutil.Process(pid).cmdline())
    except psutil.Error:
        return False
