"""`tallygate migrate`: the tables in Postgres."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.terminal import FAILED, WRONG_INPUT, expected_errors, fail, outside_errors
from config.settings import load_settings


def migrate_tables(
    engine_password_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Its first line becomes the password of the engine's own role."),
    ] = None,
) -> None:
    """Bring the tables up to date, as the owner that postgres.dsn names; the engine's role may not drop or truncate."""
    from actors.assembly import database_dsn
    from actors.migrations import ENGINE_ROLE, MigrationRefused, migrate

    with expected_errors(), outside_errors():
        settings = load_settings()
        password = engine_password_file.read_text().partition("\n")[0] if engine_password_file else None
        if password is not None and not 0 < len(password) <= 128:
            fail(f"{engine_password_file}: the first line must hold 1 to 128 characters", WRONG_INPUT)
        try:
            applied = asyncio.run(migrate(database_dsn(settings), settings.postgres.schema_name, password))
        except MigrationRefused as error:
            fail(str(error), FAILED)
    for name in applied:
        typer.echo(f"applied {name}")
    schema = settings.postgres.schema_name
    typer.echo(f"schema {schema} is up to date; `tallygate up` takes the owner, and runs the engine as {ENGINE_ROLE}")
