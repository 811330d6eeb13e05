"""One deployment on a Ray that this process has joined: tables, topics, shards, controller, API; up in order, down in order."""

import asyncio
import hmac
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from pydantic import SecretStr

from actors.api import ServeElsewhere, serve_api, stop_api
from actors.assembly import brokers, database_dsn, topic_settings
from actors.clock import SystemClock
from actors.cluster import Cluster
from actors.kafka import create_topics
from actors.migrations import ENGINE_ROLE, migrate
from config.settings import Settings

READY_TIMEOUT_S: Final = 120.0
API_STOP_S: Final = 15.0  # its replicas have five seconds to answer what is under way
LOOK_EVERY_S: Final = 0.1

Say = Callable[[str], None]


class NotReady(Exception):
    """The deployment did not come up; the message says what was waited for, or what is halted."""


async def lay_ground(settings: Settings) -> Settings:
    """Bring tables and topics up to date, as the owner that the settings name; the settings of the running engine.

    The engine gets a role of its own, which can neither drop nor truncate. Its password follows from the control key: what an
    `up` that was killed has left running in a Ray goes on when the next one comes."""
    password = engine_password(settings.control_key_bytes())
    owner = database_dsn(settings)
    await migrate(owner, settings.postgres.schema_name, password)
    await create_topics(brokers(settings), topic_settings(settings))
    engine = SecretStr(_with_user(owner, ENGINE_ROLE, password))
    return settings.model_copy(update={"postgres": settings.postgres.model_copy(update={"dsn": engine})})


def engine_password(control_key: bytes) -> str:
    """Of the engine's role. It cannot be turned back into the key."""
    return hmac.digest(control_key, b"tallygate engine role\0", "sha256").hex()


@asynccontextmanager
async def deployed(settings: Settings, lock_dir: Path, say: Say) -> AsyncIterator[Cluster]:
    """Shards, controller and API for as long as the block runs; every partition is ready when it begins.

    On the way out the API stops taking requests first, then the shards hand over."""
    cluster = Cluster(settings, lock_dir)
    say("ray: starting the controller and the shards")
    await cluster.start()
    try:
        await until(lambda: all_ready(cluster, settings.kafka.partitions), "every partition to be ready")
        say(f"serve: starting {settings.api.replicas} replicas of the API")
        try:
            await asyncio.to_thread(serve_api, settings)
        except ServeElsewhere as error:
            raise NotReady(str(error)) from None
        try:
            yield cluster
        finally:
            say("serve: stopping the API")
            if not await _done_within(stop_api, API_STOP_S):
                say(f"serve: the API has not stopped within {API_STOP_S:.0f} s, and is left to the end of its Ray")
    finally:
        say("ray: the shards hand over")
        await cluster.stop()


async def _done_within(work: Callable[[], object], seconds: float) -> bool:
    """Run what blocks in a thread of its own, which keeps nobody from leaving; whether it ended in time.

    Raises what `work` raises in that time."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def settle(error: Exception | None) -> None:
        if not done.done():
            done.set_result(None) if error is None else done.set_exception(error)

    def run() -> None:
        error = None
        try:
            work()
        except Exception as raised:
            error = raised
        with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
            loop.call_soon_threadsafe(settle, error)

    threading.Thread(target=run, name="stop", daemon=True).start()
    try:
        await asyncio.wait_for(done, seconds)
    except TimeoutError:
        return False
    return True


async def all_ready(cluster: Cluster, partitions: int) -> bool:
    """Whether somebody speaks for every partition. Raises NotReady when one is halted."""
    views = [view for status in await cluster.statuses() for view in status.partitions]
    halted = [view for view in views if view.stage == "halted"]
    if halted:
        raise NotReady("; ".join(f"partition {view.partition}: {view.halt_reason}" for view in halted))
    return sum(view.stage == "ready" for view in views) == partitions


async def until(holds: Callable[[], Awaitable[bool]], what: str, timeout_s: float = READY_TIMEOUT_S) -> None:
    """Return once it holds. Raises NotReady, saying what was waited for."""
    clock = SystemClock()
    deadline_s = clock.boot_s() + timeout_s
    while not await holds():
        if clock.boot_s() > deadline_s:
            raise NotReady(f"waited {timeout_s:.0f} s for {what}")
        await clock.sleep(LOOK_EVERY_S)


def _with_user(dsn: str, user: str, password: str) -> str:
    """The same database, as another user."""
    parts = urlsplit(dsn)
    _, _, where = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user}:{password}@{where}").geturl()
