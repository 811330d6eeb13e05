"""What a run folder keeps is found by the next run: data, ports, control key."""

import shutil
from pathlib import Path

import asyncpg
import pytest

from actors.kafka import Brokers, TopicSettings, create_topics
from config.settings import Settings
from config.stack import postgres
from config.stack.embedded import fresh_stack, kept_stack
from config.stack.kafka import KafkaUnavailable
from config.stack.postgres import PostgresUnavailable, kept_data_dir
from config.stack.supervisor import Supervisor


def dsn(settings: Settings) -> str:
    assert settings.postgres.dsn is not None
    return settings.postgres.dsn.get_secret_value()


async def execute(settings: Settings, statement: str) -> object:
    connection = await asyncpg.connect(dsn(settings))
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def test_tls_without_brokers_of_ones_own_is_refused(tmp_path: Path) -> None:
    given = Settings.model_validate({"kafka": {"tls": True}})
    with Supervisor(tmp_path) as supervisor:
        for stack in (fresh_stack, kept_stack):
            with pytest.raises(KafkaUnavailable, match="are for brokers of your own"):
                stack(supervisor, given)


async def test_a_kept_stack_is_found_again(tmp_path: Path) -> None:
    topics = TopicSettings("usage", "rated", "dead-letters", 1, 1, 1, 3_600_000, 3_600_000)
    data_dir = None
    try:
        with Supervisor(tmp_path / "up") as supervisor:
            data_dir = kept_data_dir(supervisor)
            first = kept_stack(supervisor, Settings())
            await execute(first, "CREATE TABLE kept AS SELECT 7 AS value")
            assert first.kafka.bootstrap_servers is not None
            assert await create_topics(Brokers(first.kafka.bootstrap_servers), topics) == [
                "usage",
                "rated",
                "dead-letters",
            ]
        assert (tmp_path / "up" / "control-key").stat().st_mode & 0o777 == 0o600
        with Supervisor(tmp_path / "up") as supervisor:
            second = kept_stack(supervisor, Settings())
            assert await execute(second, "SELECT value FROM kept") == 7
            assert second.kafka.bootstrap_servers is not None
            assert await create_topics(Brokers(second.kafka.bootstrap_servers), topics) == []
            assert second.control_key_bytes() == first.control_key_bytes()
    finally:
        if data_dir is not None:
            shutil.rmtree(data_dir.parent, ignore_errors=True)  # as root it lies outside the test's own folder


def test_what_the_operator_gave_is_kept_and_the_key_is_new(tmp_path: Path) -> None:
    given = Settings.model_validate(
        {"postgres": {"dsn": "postgresql://a:b@db/x"}, "kafka": {"bootstrap_servers": "broker:9092"}}
    )
    with Supervisor(tmp_path) as supervisor:
        complete = fresh_stack(supervisor, given)
        other = fresh_stack(supervisor, given)
        assert not supervisor.children
    assert (complete.postgres, complete.kafka) == (given.postgres, given.kafka)
    assert complete.control_key_bytes() != other.control_key_bytes()


def test_a_database_whose_run_folder_was_removed_is_named_and_not_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "_KEPT_AS_ROOT", tmp_path)
    with Supervisor(tmp_path / "up") as supervisor:
        data_dir = kept_data_dir(supervisor)
        data_dir.mkdir()
        with pytest.raises(PostgresUnavailable, match=f"{data_dir.parent} is the Postgres of a run .* to begin anew"):
            kept_stack(supervisor, Settings())
        assert not supervisor.children
        assert not (tmp_path / "up" / "control-key").exists(), "asked again, it is told again"


def test_a_kept_folder_of_someone_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_KEPT_AS_ROOT", tmp_path)
    with Supervisor(tmp_path / "up") as supervisor:
        base = kept_data_dir(supervisor).parent
        base.rmdir()
        base.symlink_to(tmp_path)
        with pytest.raises(PostgresUnavailable, match="belongs to someone else"):
            kept_data_dir(supervisor)
