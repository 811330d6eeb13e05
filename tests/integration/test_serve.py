"""The HTTP API on a real Serve: HAProxy before two replicas, of which one dies while requests go on."""

import asyncio
import os
import secrets
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import psutil
import pytest

from actors.api import serve_api
from actors.api_client import ApiClient, ApiRefused, path_of
from actors.clock import SystemClock
from actors.deployment import deployed, until
from actors.keys import REFRESH_EVERY_S, Keys, KeyScope
from config.settings import Settings
from config.stack.ports import free_ports
from config.stack.ray_local import RayLocal, record_ray
from config.stack.supervisor import Supervisor, silent
from loadtest.deployment import Deployment, deployment

CALLERS = 8
BEFORE_S, AFTER_S = 1.0, 4.0


@asynccontextmanager
async def api(at: Deployment, lock_dir: Path) -> AsyncIterator[tuple[Settings, str]]:
    """The deployment with its API; the settings that name its address, and a key that may do everything."""
    await at.open_accounts(at.workload(1_000, 1.0))
    own = at.settings.api.model_copy(update={"port": free_ports(1)[0]})
    settings = at.settings.model_copy(update={"api": own})
    async with deployed(settings, lock_dir, silent):
        assert settings.postgres.dsn is not None
        keys = Keys(settings.postgres.dsn.get_secret_value(), settings.postgres.schema_name, SystemClock())
        await keys.start()
        try:
            _, key = await keys.create("test", list(KeyScope), created_by="test")
        finally:
            await keys.stop()
        await asyncio.sleep(2 * REFRESH_EVERY_S)
        yield settings, key


def replicas(ray_processes: list[psutil.Process]) -> list[int]:
    found = []
    for process in ray_processes:
        try:
            if process.is_running() and process.name().startswith("ray::ServeRepl"):
                found.append(process.pid)
        except psutil.NoSuchProcess:
            continue
    return found


def serving(supervisor: Supervisor) -> list[int]:
    record_ray(supervisor)
    return replicas([process for child in supervisor.children if (process := child.process()) is not None])


def open_to_others(supervisor: Supervisor) -> set[str]:
    """Who among the recorded processes listens on more than this machine."""
    found = set()
    for child in supervisor.children:
        process = child.process()
        if process is None:
            continue
        for connection in process.net_connections("tcp"):
            local_only = connection.laddr and connection.laddr.ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1")
            if connection.status == psutil.CONN_LISTEN and not local_only:
                found.add(process.name())
    return found


async def bothered(url: str, key: str, account: str, victim: int) -> tuple[int, list[str]]:
    """Ask for a balance, as many callers do, while a replica is killed; (answers, what else they met)."""
    good, bad = 0, list[str]()
    path = url + path_of("customers", account, "balance")
    until_s = time.monotonic() + BEFORE_S + AFTER_S

    async def caller(session: aiohttp.ClientSession) -> None:
        nonlocal good
        while time.monotonic() < until_s:
            try:
                async with session.get(path) as answer:
                    await answer.read()
                    if answer.status == 200:
                        good += 1
                    else:
                        bad.append(str(answer.status))
            except aiohttp.ClientError as error:
                bad.append(type(error).__name__)

    async with aiohttp.ClientSession(headers={"authorization": f"Bearer {key}"}) as session:
        calling = [asyncio.create_task(caller(session)) for _ in range(CALLERS)]
        await asyncio.sleep(BEFORE_S)
        os.kill(victim, signal.SIGKILL)
        await asyncio.gather(*calling)
    return good, bad


async def test_the_api_outlives_one_of_its_replicas(
    database: str, kafka: str, ray_local: RayLocal, supervisor: Supervisor, tmp_path: Path
) -> None:
    """Each request in flight at the dead replica is lost once, and a client that asks again loses none."""
    async with deployment(database, kafka) as at, api(at, tmp_path / "locks") as (settings, key):
        url = f"http://127.0.0.1:{settings.api.port}"
        async with ApiClient(url, key) as client:
            page = await client.get("/v1/customers", limit=1)
            account = page["items"][0]["account"]
            before = serving(supervisor)
            assert len(before) == settings.api.replicas == 2
            # Replicas listen for each other everywhere; Ray's token guards that port.
            others = [name for name in open_to_others(supervisor) if not name.startswith("ray::ServeReplica")]
            assert others == [], "HAProxy's pages of figures are for this machine alone"

            good, bad = await bothered(url, key, account, before[0])
            assert good > CALLERS, "requests went on"
            assert len(bad) <= 3 * CALLERS, bad  # what was in flight, and what HAProxy sent there before it knew
            shown = await client.get(path_of("customers", account, "balance"))
            assert shown["account"] == account

            async def replaced() -> bool:
                now = serving(supervisor)
                return len(now) == 2 and before[0] not in now

            await until(replaced, "a new replica")
            now = serving(supervisor)
            await asyncio.to_thread(serve_api, settings)
            assert serving(supervisor) == now, "a driver that comes back with the same settings replaces no replica"
            with pytest.raises(ApiRefused) as refused:
                await client.change("POST", "/v1/customers", {"account": secrets.token_hex(4), "plan": "none"})
            assert refused.value.status == 422, "a plan that the catalogue does not have"
    assert serving(supervisor) == [], "the API goes before the shards do"
