"""Brings the schema to the newest version, and the engine's role to its rights.

Plain SQL files `NNNN_name.sql` in order, each in a transaction of its own, recorded with its SHA-256. There is no way
back: a mistake is mended by the next file.
"""

import base64
import hashlib
import hmac
import re
import secrets
from pathlib import Path

import asyncpg
from msgspec import Struct

from actors.postgres import checked_schema, translation

ENGINE_ROLE = "tallygate_engine"
FOLDER = Path(__file__).parent.parent / "config" / "migrations"
# One runner at a time in a database; roles are shared by all its schemas.
_ADVISORY_LOCK = 0x7A11_6A7E
_FILE_NAME = re.compile(r"(\d{4})_[a-z0-9_]+\.sql\Z")
_LOCK_TIMEOUT_S = 60
SCRAM_ROUNDS = 4096  # the server's own default; what follows from a control key is not guessed

_RECORD_TABLE = """
CREATE TABLE IF NOT EXISTS schema_migration (
    number     integer PRIMARY KEY,
    name       text NOT NULL,
    sha256     text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


class MigrationRefused(Exception):
    """The schema and the files do not fit together; the message names the file and the next step."""


class Migration(Struct, frozen=True):
    """One file."""

    number: int
    name: str
    sha256: str
    sql: str


def read_migrations(folder: Path = FOLDER) -> list[Migration]:
    """All files of the folder in order. Raises `MigrationRefused` on a name out of pattern or a gap in the numbers."""
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.match(path.name)
        if match is None:
            raise MigrationRefused(f"{path.name}: the name must look like 0001_what_it_does.sql")
        raw = path.read_bytes()
        migrations.append(Migration(int(match[1]), path.name, hashlib.sha256(raw).hexdigest(), raw.decode("utf-8")))
    for expected, migration in enumerate(migrations, start=1):
        if migration.number != expected:
            raise MigrationRefused(f"{migration.name}: number {expected:04} was expected here")
    return migrations


def scram_verifier(password: str, salt: bytes) -> str:
    """What the server keeps of a password under SCRAM-SHA-256, made here (RFC 5803, as Postgres writes it): a password in a
    statement may stand in the server's logs and statistics."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, SCRAM_ROUNDS)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    parts = (base64.b64encode(part).decode() for part in (salt, stored, hmac.digest(salted, b"Server Key", "sha256")))
    return "SCRAM-SHA-256${}:{}${}:{}".format(SCRAM_ROUNDS, *parts)


async def migrate(
    dsn: str, schema: str = "tallygate", engine_password: str | None = None, folder: Path = FOLDER
) -> list[str]:
    """Apply what is missing, as the owner of the schema; returns the names of the files applied now.

    Creates the engine's role if there is none; a given `engine_password` becomes its password (1 to 128 characters that ASCII
    can print).
    Raises `MigrationRefused`, `StoreUnavailable`, `StoreRefused`."""
    checked_schema(schema)
    if engine_password is not None and not (
        0 < len(engine_password) <= 128 and engine_password.isascii() and engine_password.isprintable()
    ):
        raise ValueError("engine_password: use 1 to 128 printable characters of ASCII")
    migrations = read_migrations(folder)
    with translation():
        connection = await asyncpg.connect(
            dsn,
            timeout=10,
            server_settings={
                "application_name": "tallygate migrations",
                "search_path": schema,
                "client_min_messages": "warning",
                "lock_timeout": f"{_LOCK_TIMEOUT_S}s",
            },
        )
        try:
            await connection.execute("SELECT pg_advisory_lock($1)", _ADVISORY_LOCK)
            await _prepare(connection, schema, engine_password)
            return await _apply(connection, schema, migrations)
        finally:
            # Closing ends the advisory lock as well.
            await connection.close(timeout=10)


async def _prepare(connection: asyncpg.Connection, schema: str, engine_password: str | None) -> None:
    async with connection.transaction():
        if await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", ENGINE_ROLE) is None:
            await connection.execute(f"CREATE ROLE {ENGINE_ROLE} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
        if engine_password is not None:
            verifier = scram_verifier(engine_password, secrets.token_bytes(16))
            await connection.execute(f"ALTER ROLE {ENGINE_ROLE} LOGIN PASSWORD '{verifier}'")
        await connection.execute(f"CREATE SCHEMA IF NOT EXISTS {schema}")
        await connection.execute(f"GRANT USAGE ON SCHEMA {schema} TO {ENGINE_ROLE}")
        await connection.execute(_RECORD_TABLE)
        await connection.execute(f"GRANT SELECT ON schema_migration TO {ENGINE_ROLE}")


async def _apply(connection: asyncpg.Connection, schema: str, migrations: list[Migration]) -> list[str]:
    rows = await connection.fetch("SELECT number, name, sha256 FROM schema_migration")
    applied = {row["number"]: row for row in rows}
    newest = max(applied, default=0)
    if newest > len(migrations):
        raise MigrationRefused(
            f"schema {schema} is at {applied[newest]['name']}, which this version does not know: run a newer version"
        )
    fresh = []
    for migration in migrations:
        known = applied.get(migration.number)
        if known is None:
            await _apply_one(connection, migration)
            fresh.append(migration.name)
        elif known["sha256"] != migration.sha256:
            raise MigrationRefused(
                f"{migration.name} was changed after it was applied to schema {schema} (as {known['name']}): "
                "restore the file, and put the change into a new one"
            )
    return fresh


async def _apply_one(connection: asyncpg.Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.sql)
            await connection.execute(
                "INSERT INTO schema_migration (number, name, sha256) VALUES ($1, $2, $3)",
                migration.number,
                migration.name,
                migration.sha256,
            )
    except asyncpg.PostgresSyntaxError as error:
        raise MigrationRefused(f"{migration.name}: {error}") from error
