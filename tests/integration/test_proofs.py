"""Seal, rebuild and reconcile on a real broker and database, after a run in which a shard was killed.

The deployment goes on running while it is looked at."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from typer.testing import CliRunner, Result

import tallygate
from loadtest.deployment import Deployment
from tests.integration.test_shard_process import Run, running

Told = tuple[int, str]  # exit status and what was printed


@asynccontextmanager
async def driven(database: str, kafka: str, folder: Path) -> AsyncIterator[Run]:
    """Two shards and a controller; one shard was killed in mid-run, the other goes on."""
    async with running(database, kafka, folder) as run:
        killed, living = run.shards

        async def kill() -> None:
            killed.signal(signal.SIGKILL)
            await killed.ended()

        await run.drive(kill)
        assert await run.owned_by(living.incarnation)
        yield run


class Cli:
    """The command line on a deployment's settings; in a thread, since a command runs an event loop of its own."""

    def __init__(self, at: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(tallygate, "load_settings", lambda: at.settings)
        monkeypatch.setenv("COLUMNS", "200")

    async def call(self, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, tallygate.app, arguments)

    async def fine(self, *arguments: str) -> str:
        result = await self.call(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    async def drift(self, *arguments: str) -> str:
        result = await self.call(*arguments)
        assert result.exit_code == tallygate.FAILED, result.output
        return result.stdout + result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bases"


async def test_a_running_deployment_is_sealed_and_rebuilt(
    database: str, kafka: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with driven(database, kafka, tmp_path) as run:
        cli = Cli(run.at, monkeypatch)
        told = await cli.fine("base", "seal", "--to", str(folder))
        files = [line.split(":")[0] for line in told.splitlines()]
        assert len(files) == run.at.settings.kafka.partitions
        assert (await cli.fine("base", "check", *files)).count("the seal holds") == len(files)

        await run.drive(nothing)  # the same accounts and more usage: the log goes on behind the bases
        for start in ([], ["--base", str(folder)]):
            told = await cli.fine("rebuild", "--verify", *start)
            assert told.count("equal to the last byte") == len(files)
            assert ("offsets 0 to" in told) is not bool(start)
        account = (await run.at.store.nearest_depletion(1))[0]
        told = await cli.fine("rebuild", "--account", account.account, "--verify", "--base", str(folder))
        assert f"account {account.account} equal to the last byte" in told
        assert account.account in await cli.fine("rebuild", "--account", account.account)
        assert '"account":"' + account.account in await cli.fine("rebuild", "--account", account.account, "--json")

        cut_snapshot = "UPDATE account SET blob = substr(blob, 1, length(blob) - 1) WHERE account = $1"
        await spoil(database, run.at, cut_snapshot, account.account)
        told = await cli.drift("rebuild", "--verify", "--account", account.account)
        assert f"account {account.account}: snapshot: expected one that can be read" in told
        cut_off(files[0])
        assert "damaged or cut off" in await cli.drift("base", "check", *files)
        assert "damaged or cut off" in await cli.drift("rebuild", "--base", str(folder))


def cut_off(file: str) -> None:
    Path(file).write_bytes(Path(file).read_bytes()[:-1])


async def nothing() -> None:
    """No disturbance."""


async def spoil(database: str, at: Deployment, statement: str, *arguments: Any) -> None:
    """Change what is stored, as the owner of the tables."""
    connection = await asyncpg.connect(database, server_settings={"search_path": at.settings.postgres.schema_name})
    try:
        assert not (await connection.execute(statement, *arguments)).endswith(" 0"), statement
    finally:
        await connection.close()
