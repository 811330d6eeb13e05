"""A disk that is full: Postgres on a small one of the run's own, filled while load goes on, then freed.

Where the tables' disk is full, Postgres refuses what needs another page (53100). Where the log's is, it stops altogether,
and does not come up again before there is room: to start it is part of the mend. Mounting needs root.
"""

import asyncio
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from itertools import cycle
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import asyncpg
from msgspec import Struct

from actors.assembly import doors
from actors.clock import SystemClock
from actors.deployment import until
from actors.door_client import DoorUnavailable
from actors.door_wire import Check
from config.stack.postgres import PostgresServer, start_postgres, stop_postgres
from config.stack.supervisor import Supervisor
from loadtest.chaos.links import WAIT_S, LinkedShards

TABLES_BYTES: Final = 96 * 2**20  # an empty database takes 8 MB
LOG_BYTES: Final = 400 * 2**20  # Postgres keeps up to 256 MB of it
BLOCK_BYTES: Final = 2**20
QUIET_S: Final = 3.0  # without a checkpoint, under load: commits wait
ASK_WITHIN_S: Final = 1.0
ASK_EVERY_S: Final = 0.02
LEASE_OVER_S: Final = 3.0  # since Postgres was last there: no lease runs any more


class DiskUnavailable(Exception):
    """No disk can be mounted here; the message says why."""


class FullDisk(Struct, frozen=True):
    """What was seen while it was full."""

    seconds: float
    refused: str  # what Postgres said to a session of ours
    answers: dict[str, int]  # to checks, by kind, once the disk was full


class SmallDisk:
    """A tmpfs at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """To the last byte."""
        with self._filler.open("ab", buffering=0) as filler, suppress(OSError):
            while True:
                if filler.write(bytes(BLOCK_BYTES)) < BLOCK_BYTES:
                    break

    def free(self) -> None:
        """Give back what `fill` took."""
        self._filler.unlink(missing_ok=True)


def why_not() -> str | None:
    """Why no disk can be mounted here; None where one can."""
    if os.geteuid() != 0:
        return "only root may mount a file system"
    return None if shutil.which("mount") and shutil.which("umount") else "there is no mount command"


@contextmanager
def small_disk(path: Path, size_bytes: int, owner: tuple[int, int]) -> Iterator[SmallDisk]:
    """Mounted for as long as the block runs; what is on it is gone then. Raises DiskUnavailable."""
    if (reason := why_not()) is not None:
        raise DiskUnavailable(reason)
    path.mkdir(parents=True)
    user, group = owner
    options = f"size={size_bytes},mode=0700,uid={user},gid={group}"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tallygate-small-disk", str(path)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        raise DiskUnavailable(f"mount: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        # Lazily: a server that has not quite gone holds it for a moment longer, and nobody waits for that.
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        path.rmdir()


# ----------------------------------------------------------------------------------------------------------- the tables


@asynccontextmanager
async def database_on_small_disk(superuser_dsn: str) -> AsyncIterator[tuple[str, SmallDisk]]:
    """The dsn of a database of the run's own whose every table lies on a small disk. Raises DiskUnavailable."""
    connection = await asyncpg.connect(superuser_dsn)
    name = f"small_{os.urandom(4).hex()}"
    try:
        with _beside(Path(await connection.fetchval("SHOW data_directory")), name) as disk:
            await connection.execute(f"CREATE TABLESPACE {name} LOCATION '{disk.path}'")
            await connection.execute(f"CREATE DATABASE {name} TABLESPACE {name}")
            try:
                yield urlsplit(superuser_dsn)._replace(path=f"/{name}").geturl(), disk
            finally:
                disk.free()
                await connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
                await connection.execute(f"DROP TABLESPACE {name}")
    finally:
        await connection.close()


def _beside(data: Path, name: str) -> AbstractContextManager[SmallDisk]:
    """A small disk below the server's own folder, which its user may enter."""
    if not data.is_dir():
        raise DiskUnavailable(f"Postgres runs on another machine: there is no {data} here")
    found = data.stat()
    return small_disk(data.parent / name, TABLES_BYTES, (found.st_uid, found.st_gid))


async def fill_tables(run: LinkedShards, disk: SmallDisk, dsn: str, seconds: float) -> FullDisk:
    """Fill it until commits wait, and for `seconds` more; free it; return when every partition has a checkpoint again.

    `dsn` is the owner's, of the database on it."""
    clock = SystemClock()
    begun_s = clock.boot_s()
    async with asking(run) as ask:
        disk.fill()
        try:
            refused = await _refused(dsn)
            await _quiet(run)
            answers = await ask(seconds)
        finally:
            disk.free()
    full_s = clock.boot_s() - begun_s
    await run.healed()
    return FullDisk(full_s, refused, answers)


async def _refused(dsn: str) -> str:
    """What Postgres says to a session that needs another page."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute(
                "CREATE TABLE filling AS SELECT repeat(md5(n::text), 50) FROM generate_series(1, 5000) n"
            )
        raise DiskUnavailable("the disk is full, and Postgres still finds room on it")
    except asyncpg.DiskFullError as error:
        return f"{error.sqlstate}: {error}"
    finally:
        await connection.close()


async def _quiet(run: LinkedShards) -> None:
    """Return once no partition has had a checkpoint for a while."""
    clock = SystemClock()
    seen: dict[int, int] = {}
    since_s = clock.boot_s()

    async def quiet() -> bool:
        nonlocal seen, since_s
        now = {status.partition: status.ckpt_seq for status in await run.at.store.partitions()}
        if now != seen:
            seen, since_s = now, clock.boot_s()
        return clock.boot_s() - since_s >= QUIET_S

    await until(quiet, "commits to wait for room on the disk", WAIT_S)


@asynccontextmanager
async def asking(run: LinkedShards) -> AsyncIterator[Callable[[float], Awaitable[dict[str, int]]]]:
    """Asks for checks for so many seconds; how they were answered, by kind. It knows the doors before Postgres goes."""
    clock = SystemClock()
    shards = doors(run.at.settings)
    await shards.start()

    async def ask(seconds: float) -> dict[str, int]:
        answers: Counter[str] = Counter()
        until_s = clock.boot_s() + seconds
        for account in cycle(run.customers):
            if clock.boot_s() >= until_s:
                break
            question = Check(account, type="llm.request", data={"model": "atlas-small"})
            try:
                answers[type(await shards.ask(account, question, ASK_WITHIN_S)).__name__] += 1
            except DoorUnavailable:
                answers["unavailable"] += 1
            await clock.sleep(ASK_EVERY_S)
        return dict(answers)

    try:
        yield ask
    finally:
        await shards.stop()


# -------------------------------------------------------------------------------------------------------------- the log


@contextmanager
def postgres_with_small_log(supervisor: Supervisor) -> Iterator[tuple[PostgresServer, SmallDisk]]:
    """A server of the run's own, whose write-ahead log lies on a small disk. Raises DiskUnavailable."""
    if (reason := why_not()) is not None:
        raise DiskUnavailable(reason)
    made = start_postgres(supervisor)
    stop_postgres(supervisor, made)
    log = made.data_dir / "pg_wal"
    found = log.stat()
    with small_disk(made.data_dir.parent / "small", LOG_BYTES, (found.st_uid, found.st_gid)) as disk:
        moved = disk.path / "pg_wal"
        subprocess.run(["cp", "--archive", str(log), str(moved)], check=True)
        shutil.rmtree(log)
        log.symlink_to(moved)
        server = start_postgres(supervisor, made.data_dir, made.port)
        try:
            yield server, disk
        finally:
            supervisor.stop_named("postgres")


async def fill_log(
    run: LinkedShards, supervisor: Supervisor, server: PostgresServer, disk: SmallDisk, seconds: float
) -> FullDisk:
    """Fill it until Postgres stops, and for `seconds` more; free it, start Postgres again, and return when every
    partition has a checkpoint again."""
    clock = SystemClock()
    begun_s = clock.boot_s()
    async with asking(run) as ask:
        disk.fill()
        try:
            refused = await _stopped(server.superuser_dsn)
            await clock.sleep(LEASE_OVER_S)
            answers = await ask(seconds)
        finally:
            disk.free()
    full_s = clock.boot_s() - begun_s
    supervisor.stop_named("postgres")  # it may be trying still; either way it begins anew
    await asyncio.to_thread(start_postgres, supervisor, server.data_dir, server.port)
    await run.healed()
    return FullDisk(full_s, refused, answers)


async def _stopped(dsn: str) -> str:
    """Use up the log's files until Postgres is gone; what it said last."""
    connection = await asyncpg.connect(dsn)
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                await connection.execute("SELECT pg_logical_emit_message(true, 'filling', 'the log')")
                await connection.execute("SELECT pg_switch_wal()")
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise DiskUnavailable("the disk is full, and Postgres still finds room for its log") from error
        return f"{type(error).__name__}: {error}"
    finally:
        connection.terminate()
