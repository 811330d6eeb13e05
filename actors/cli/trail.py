"""The audit trail of what a command changes in Postgres or Kafka itself. What it asks of the API, the API writes down."""

import getpass
import os
import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import typer

from actors.assembly import audit_trail
from actors.audit import AuditEntry, Stage
from actors.ports import StoreRefused, StoreUnavailable
from actors.web.acts import Entry, Refused
from config.settings import Settings


def actor() -> str:
    """Who runs this command, as its machine says: nobody has proven it, but for the right to the database."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container whose user has no name
        user = str(os.getuid())
    return f"command:{user}@{socket.gethostname()}"


@asynccontextmanager
async def trailed(settings: Settings, entry: Entry, *refusals: type[Exception]) -> AsyncIterator[None]:
    """Around an act: a row before it, or it does not happen, and one that says how it ended, as `entry` says by then.

    After one of the `refusals` nothing has changed; after anything else it is not known how it ended, and no row says so.
    Raises NotConfigured, StoreUnavailable and StoreRefused before the act."""
    trail, request_id = audit_trail(settings), f"command-{secrets.token_hex(8)}"

    async def record(stage: Stage) -> None:
        await trail.record(
            AuditEntry(
                actor=actor(),
                act=entry.act,
                stage=stage,
                account=entry.account,
                subject=entry.subject,
                reason=settings.client.reason or "",
                request_id=request_id,
                before=None if entry.before is None else msgspec.json.encode(entry.before),
                after=None if entry.after is None else msgspec.json.encode(entry.after),
            )
        )

    async def record_end(stage: Stage) -> None:
        try:
            await record(stage)
        except (StoreUnavailable, StoreRefused) as error:
            typer.echo(f"how it ended is not in the audit trail: {error}", err=True)

    await trail.start()
    try:
        await record("asked")
        try:
            yield
        except refusals as error:
            entry.after = Refused(str(error))
            await record_end("refused")
            raise
        await record_end("done")
    finally:
        await trail.stop()
