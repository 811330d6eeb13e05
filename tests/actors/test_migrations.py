"""The schema: applied once, in order, never changed behind our back; and what the engine's role may not do."""

import base64
import secrets
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from actors.migrations import ENGINE_ROLE, FOLDER, MigrationRefused, migrate, read_migrations, scram_verifier
from actors.ports import StoreRefused, StoreUnavailable
from actors.queries import QUERIES
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn


@pytest.fixture
def schema() -> str:
    return f"test_{secrets.token_hex(4)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "0001_first.sql").write_text("CREATE TABLE first (a integer);")
    (tmp_path / "0002_second.sql").write_text("CREATE TABLE second (a integer); INSERT INTO second VALUES (1);")
    return tmp_path


async def tables(dsn: str, schema: str) -> set[str]:
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema)
        return {row["tablename"] for row in rows}
    finally:
        await connection.close()


async def test_files_are_applied_once_and_in_order(database: str, schema: str, folder: Path) -> None:
    assert await migrate(database, schema, folder=folder) == ["0001_first.sql", "0002_second.sql"]
    assert await migrate(database, schema, folder=folder) == []
    (folder / "0003_third.sql").write_text("ALTER TABLE first ADD COLUMN b integer;")
    assert await migrate(database, schema, folder=folder) == ["0003_third.sql"]


async def test_schemas_stand_side_by_side(database: str, schema: str, folder: Path) -> None:
    await migrate(database, schema, folder=folder)
    assert await migrate(database, f"{schema}_b", folder=folder) == ["0001_first.sql", "0002_second.sql"]
    assert await tables(database, schema) == {"first", "second", "schema_migration"}


async def test_a_changed_file_is_named(database: str, schema: str, folder: Path) -> None:
    await migrate(database, schema, folder=folder)
    (folder / "0001_first.sql").write_text("CREATE TABLE first (a bigint);")
    with pytest.raises(MigrationRefused, match=r"0001_first\.sql was changed"):
        await migrate(database, schema, folder=folder)


async def test_an_older_version_does_not_touch_a_newer_schema(database: str, schema: str, folder: Path) -> None:
    await migrate(database, schema, folder=folder)
    (folder / "0002_second.sql").unlink()
    with pytest.raises(MigrationRefused, match=r"0002_second\.sql"):
        await migrate(database, schema, folder=folder)


async def test_a_file_that_fails_leaves_nothing_of_itself(database: str, schema: str, folder: Path) -> None:
    (folder / "0002_second.sql").write_text("CREATE TABLE second (a integer); SELECT 1 / 0;")
    with pytest.raises(StoreRefused, match="division by zero"):
        await migrate(database, schema, folder=folder)
    assert await tables(database, schema) == {"first", "schema_migration"}
    (folder / "0002_second.sql").write_text("CREATE TABEL second;")
    with pytest.raises(MigrationRefused, match=r"0002_second\.sql"):
        await migrate(database, schema, folder=folder)


@pytest.mark.parametrize("name", ["2_short.sql", "0003_gap.sql", "0002-dash.sql"])
def test_file_names_out_of_order_are_refused(folder: Path, name: str) -> None:
    (folder / "0002_second.sql").unlink()
    (folder / name).write_text("SELECT 1;")
    with pytest.raises(MigrationRefused, match=name):
        read_migrations(folder)


@pytest.mark.parametrize("schema", ["", "a b", 'a"; DROP SCHEMA public; --', "1a", "x" * 64])
async def test_a_schema_name_that_needs_quoting_is_refused(schema: str) -> None:
    with pytest.raises(ValueError, match="schema"):
        await migrate("postgresql://127.0.0.1:1/none", schema)


async def test_a_server_that_is_away_is_said_to_be_unavailable() -> None:
    with pytest.raises(StoreUnavailable):
        await migrate("postgresql://nobody:none@127.0.0.1:1/none")


async def test_every_table_says_what_it_is_for(database: str, schema: str) -> None:
    await migrate(database, schema, ENGINE_PASSWORD)
    connection = await asyncpg.connect(database)
    try:
        silent = await connection.fetch(
            "SELECT relname FROM pg_class JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE nspname = $1 AND relkind = 'r' AND obj_description(pg_class.oid) IS NULL",
            schema,
        )
    finally:
        await connection.close()
    assert [row["relname"] for row in silent] == ["schema_migration"]


async def test_every_query_fits_the_schema(database: str, schema: str) -> None:
    await migrate(database, schema, ENGINE_PASSWORD)
    connection = await asyncpg.connect(engine_dsn(database), server_settings={"search_path": schema})
    try:
        for query in QUERIES.values():
            await connection.prepare(query)
    finally:
        await connection.close()


LEDGER = ("posting", "command", "dead_letter", "catalogue")
DEDUP = ("dedup_segment", "dedup_run", "dedup_rows")
KEPT = ("partition", "account", "alert", "member", "assignment", "controller")


@pytest.mark.parametrize(
    "statement",
    [
        *("DELETE FROM " + table for table in LEDGER + KEPT),
        *(f"TRUNCATE {table}" for table in (*LEDGER, *KEPT, *DEDUP, "schema_migration")),
        *(f"DROP TABLE {table}" for table in (*LEDGER, *KEPT, *DEDUP, "schema_migration")),
        "UPDATE posting SET amount = 0",
        "UPDATE catalogue SET body = ''",
        "UPDATE command SET answer = 'applied'",
        "UPDATE dead_letter SET reason = 'malformed'",
        "UPDATE dedup_segment SET entries = ''",
        "INSERT INTO schema_migration (number, name, sha256) VALUES (99, 'x', 'x')",
        "CREATE TABLE mine (a integer)",
    ],
)
async def test_the_engines_role_cannot(database: str, statement: str) -> None:
    await migrate(database, "rights", ENGINE_PASSWORD)
    connection = await asyncpg.connect(engine_dsn(database), server_settings={"search_path": "rights"})
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    finally:
        await connection.close()


async def test_the_engines_password_is_in_no_statement(
    database: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[object] = []
    for name in ("execute", "fetchval", "fetch"):
        asks = getattr(asyncpg.Connection, name)

        async def ask(self: asyncpg.Connection, *words: object, asks: Any = asks, **more: object) -> Any:
            said.extend(words)
            return await asks(self, *words, **more)

        monkeypatch.setattr(asyncpg.Connection, name, ask)
    await migrate(database, schema, ENGINE_PASSWORD)
    assert any("PASSWORD 'SCRAM-SHA-256$4096:" in str(words) for words in said)
    assert not any(ENGINE_PASSWORD in str(words) for words in said)


async def test_the_verifier_of_a_password_is_the_servers(database: str) -> None:
    role = f"verified_{secrets.token_hex(4)}"
    connection = await asyncpg.connect(database)
    try:
        await connection.execute(f"CREATE ROLE {role} PASSWORD 'a password'")
        kept = await connection.fetchval("SELECT rolpassword FROM pg_authid WHERE rolname = $1", role)
        assert scram_verifier("a password", base64.b64decode(kept.split("$")[1].split(":")[1])) == kept
    finally:
        await connection.execute(f"DROP ROLE {role}")
        await connection.close()


async def test_the_engines_role_is_no_superuser_and_gets_a_new_password(database: str, schema: str) -> None:
    await migrate(database, schema, "first 'password'")
    await migrate(database, schema, ENGINE_PASSWORD)
    connection = await asyncpg.connect(engine_dsn(database))
    try:
        row = await connection.fetchrow(
            "SELECT rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = $1", ENGINE_ROLE
        )
    finally:
        await connection.close()
    assert row is not None
    assert not any(row.values())


def test_the_projects_own_files_can_be_read() -> None:
    numbers = [migration.number for migration in read_migrations(FOLDER)]
    assert numbers == list(range(1, 1 + len(list(FOLDER.glob("*.sql")))))
