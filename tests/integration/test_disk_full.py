"""Postgres on a disk that fills up under load, and is freed again: nothing lost, nothing twice. Needs root, to mount one.

`make chaos ONLY=disk` does the same, and fills the disk of the write-ahead log too."""

from pathlib import Path

import pytest

from config.stack.kafka import Listener
from config.stack.supervisor import Supervisor
from loadtest.chaos.disk import (
    database_on_small_disk,
    fill_log,
    fill_tables,
    postgres_with_small_log,
    why_not,
)
from loadtest.chaos.links import LinkedShards, linked_shards

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no disk can be filled here: {why_not()}")


async def test_where_the_tables_find_no_room_commits_wait_and_nothing_is_lost(
    postgres: str, kafka: str, kafka_listeners: tuple[Listener, ...], tmp_path: Path
) -> None:
    async with (
        database_on_small_disk(postgres) as (database, disk),
        linked_shards(database, kafka, kafka_listeners, tmp_path) as run,
    ):
        async with run.load():
            full = await fill_tables(run, disk, database, 2.0)
        assert full.refused.startswith("53100")
        assert full.answers
        assert set(full.answers) <= {"Checked", "Recovering"}, "the lease may still be renewed, where its row has room"
        await run.end()
        await holds(run)


@pytest.mark.long
async def test_where_the_log_finds_no_room_every_check_is_recovering_until_postgres_is_started_again(
    kafka: str, kafka_listeners: tuple[Listener, ...], tmp_path: Path
) -> None:
    with Supervisor(tmp_path / "run") as own, postgres_with_small_log(own) as (server, disk):
        async with linked_shards(server.superuser_dsn, kafka, kafka_listeners, tmp_path) as run:
            async with run.load():
                full = await fill_log(run, own, server, disk, 2.0)
            assert set(full.answers) == {"Recovering"}
            await run.end()
            await holds(run)


async def holds(run: LinkedShards) -> None:
    judged = await run.judged(struck=1)
    assert judged.wrong == []
    assert judged.equal
