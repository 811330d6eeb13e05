"""One embedded stack per session, started when the first test asks for it; `DATABASE_URL` and `KAFKA_BOOTSTRAP_SERVERS`
put servers of your own in its place."""

import asyncio
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest
from hypothesis import settings

from config.stack import kafka as embedded_kafka
from config.stack import postgres as embedded_postgres
from config.stack.kafka import Listener
from config.stack.ports import free_ports
from config.stack.ray_local import RayLocal, start_ray, stop_ray
from config.stack.supervisor import Supervisor, reap_abandoned

# How long an example takes says how busy the machine is, not whether a law holds.
settings.register_profile("tallygate", deadline=None)
settings.load_profile("tallygate")

_RAY_FOLDERS = (Path("tests/integration"), Path("tests/config/stack"))


@pytest.hookimpl(tryfirst=True)  # before `-m` selects
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what starts servers: its files are tested two at a time, each process with servers of its own."""
    for item in items:
        folder = item.path.relative_to(config.rootpath)
        starts_ray = any(folder.is_relative_to(allowed) for allowed in _RAY_FOLDERS)
        if starts_ray or "supervisor" in getattr(item, "fixturenames", ()):
            item.add_marker("servers")


@pytest.fixture(scope="session")
def supervisor() -> Iterator[Supervisor]:
    """Owner of everything this session starts. What sessions that were killed left behind is stopped first."""
    runs_dir = embedded_kafka.default_cache_dir() / "test-runs"
    runs_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
    reap_abandoned(runs_dir)
    run_dir = Path(tempfile.mkdtemp(dir=runs_dir))
    with Supervisor(run_dir) as entered:
        yield entered
    shutil.rmtree(run_dir, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres(supervisor: Supervisor) -> str:
    """The superuser's dsn of the session's PostgreSQL."""
    return embedded_postgres.database_url(supervisor, os.environ.get("DATABASE_URL"))


@pytest.fixture(scope="module")
def database(postgres: str) -> Iterator[str]:
    """The dsn of an empty database that belongs to this test module and goes with it."""
    name = f"test_{secrets.token_hex(6)}"
    asyncio.run(_execute(postgres, f'CREATE DATABASE "{name}"'))
    yield urlunsplit(urlsplit(postgres)._replace(path=f"/{name}"))
    asyncio.run(_execute(postgres, f'DROP DATABASE "{name}" WITH (FORCE)'))


@pytest.fixture(scope="session")
def kafka_listeners() -> tuple[Listener, ...]:
    """Two further ways into the session's Kafka, each for a proxy that listens on its advertised port."""
    ports = free_ports(4)
    return Listener("FIRST", ports[0], ports[1]), Listener("SECOND", ports[2], ports[3])


@pytest.fixture(scope="session")
def kafka(supervisor: Supervisor, kafka_listeners: tuple[Listener, ...]) -> str:
    """The bootstrap servers of the session's Kafka. Give topics names of your own: other modules use it too."""
    given = os.environ.get("KAFKA_BOOTSTRAP_SERVERS")
    return given or embedded_kafka.start_kafka(supervisor, listeners=kafka_listeners).bootstrap_servers


@pytest.fixture(scope="session")
def ray_local(supervisor: Supervisor) -> Iterator[RayLocal]:
    """The session's Ray, with this process as its driver."""
    local = start_ray(supervisor, num_cpus=4, serve=True)
    yield local
    stop_ray(supervisor, local)


@pytest.fixture(autouse=True)
def _ray_stays_in_its_folders(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A test elsewhere that starts Ray costs ten seconds and proves nothing a plain class would not."""
    folder = request.path.relative_to(request.config.rootpath)
    if any(folder.is_relative_to(allowed) for allowed in _RAY_FOLDERS):
        yield
        return
    loaded = sys.modules.get("ray")
    was_initialized = loaded is not None and loaded.is_initialized()
    if loaded is not None:
        monkeypatch.setattr(loaded, "init", _refuse_ray)
    yield
    loaded = sys.modules.get("ray")
    if loaded is not None and loaded.is_initialized() and not was_initialized:
        loaded.shutdown()
        _refuse_ray()


def _refuse_ray(*_arguments: object, **_options: object) -> None:
    pytest.fail("ray.init is for tests/integration and tests/config/stack: test the plain class instead")


async def _execute(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
