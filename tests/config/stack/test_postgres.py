import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import psutil
import pytest

from config.stack import postgres
from config.stack.postgres import PostgresServer, PostgresUnavailable, start_postgres, stop_postgres
from config.stack.supervisor import Supervisor


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervisor]:
    with Supervisor(tmp_path_factory.mktemp("run")) as entered:
        yield entered


@pytest.fixture(scope="module")
def server(own: Supervisor) -> PostgresServer:
    return start_postgres(own)


async def ask(dsn: str, question: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(question)
    finally:
        await connection.close()


async def test_it_is_version_18_with_checksums_and_durable_commits(server: PostgresServer) -> None:
    assert int(str(await ask(server.superuser_dsn, "SHOW server_version_num"))) // 10_000 == 18
    for setting in ("data_checksums", "fsync", "synchronous_commit"):
        assert await ask(server.superuser_dsn, f"SHOW {setting}") == "on"


async def test_it_listens_on_loopback_only_and_asks_for_the_password(server: PostgresServer) -> None:
    listening = [c for c in psutil.Process(server.pid).net_connections("all") if c.status == "LISTEN"]
    assert [(c.laddr.ip, c.laddr.port) for c in listening] == [("127.0.0.1", server.port)]
    assert await ask(server.superuser_dsn, "SHOW unix_socket_directories") == ""
    with pytest.raises(asyncpg.InvalidPasswordError):
        await ask(f"postgresql://postgres:wrong@127.0.0.1:{server.port}/postgres", "SELECT 1")


async def test_a_dsn_names_the_database(server: PostgresServer) -> None:
    assert await ask(server.dsn("template1"), "SELECT current_database()") == "template1"


async def test_a_killed_server_comes_back_with_what_was_committed(own: Supervisor) -> None:
    first = start_postgres(own)
    await ask(first.superuser_dsn, "CREATE TABLE kept AS SELECT 7 AS value")
    os.kill(first.pid, 9)
    second = start_postgres(own, first.data_dir, first.port)
    assert second.superuser_dsn == first.superuser_dsn
    assert await ask(second.superuser_dsn, "SELECT value FROM kept") == 7
    stop_postgres(own, second)
    assert "database system is shut down" in (own.run_dir / "postgres.log").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root hands the server to another user")
async def test_binaries_out_of_the_other_users_reach_are_copied(
    own: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hidden = tmp_path / "hidden"
    hidden.mkdir(mode=0o700)
    package = postgres.install_dir().parent
    shutil.copytree(postgres.install_dir(), hidden / package.name / "pginstall18", symlinks=True)
    shutil.copytree(package.with_name(f"{package.name}.libs"), hidden / f"{package.name}.libs", symlinks=True)
    monkeypatch.setattr(postgres, "install_dir", lambda: hidden / package.name / "pginstall18")
    server = start_postgres(own)
    assert Path(psutil.Process(server.pid).exe()).is_relative_to(server.data_dir.parent)
    assert await ask(server.superuser_dsn, "SELECT 1") == 1
    stop_postgres(own, server)


def test_the_cluster_goes_with_the_run(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "run") as supervisor:
        server = start_postgres(supervisor)
        assert server.data_dir.exists()
    assert not server.data_dir.parent.exists()
    assert not psutil.pid_exists(server.pid)


def test_a_folder_without_a_cluster_is_refused(own: Supervisor, tmp_path: Path) -> None:
    with pytest.raises(PostgresUnavailable, match="holds no PostgreSQL cluster"):
        start_postgres(own, tmp_path / "data")


def test_a_taken_port_is_an_error_with_the_servers_own_words(own: Supervisor, server: PostgresServer) -> None:
    with pytest.raises(PostgresUnavailable, match=r"(?s)did not start on port.*could not bind"):
        start_postgres(own, port=server.port)


def test_a_url_of_the_operator_starts_nothing(tmp_path: Path) -> None:
    with Supervisor(tmp_path / "run") as supervisor:
        assert postgres.database_url(supervisor, "postgresql://theirs/db") == "postgresql://theirs/db"
        assert supervisor.children == ()


def test_a_missing_wheel_names_the_two_ways_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(PostgresUnavailable, match=r"tallygate\[stack\].*DATABASE_URL"):
        postgres.install_dir()
