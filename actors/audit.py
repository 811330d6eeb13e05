"""The audit trail: who did what to whom, and why. Rows are added, and never changed: the database grants nothing else.

An act has a row `asked` before it happens, or it does not happen, and then a row with the same request id that says
how it ended: `done` or `refused`. Without the second row it is not known how it ended, and the thing itself must be
looked at. No row holds a secret.
"""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal

from msgspec import Struct

from actors.ports import CommitUnknown, StoreUnavailable
from actors.postgres import OnSession, Session, session_settings
from actors.queries import read_queries
from actors.records import Big, read_cursor, write_cursor

STATEMENT_S: Final = 2.0
REASON_CHARACTERS_MAX: Final = 500

_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "audit.sql").read_text(encoding="utf-8"))
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_BIGINT_MAX: Final = 2**63 - 1

Stage = Literal["asked", "done", "refused"]


class AuditEntry(Struct, frozen=True):
    """What is written down. `before` and `after` are JSON."""

    actor: str
    act: str
    stage: Stage
    account: str | None
    subject: str
    reason: str
    request_id: str
    before: bytes | None = None
    after: bytes | None = None


class AuditRow(Struct, frozen=True):
    """What was written down, and when."""

    audit_id: int
    at_us: int
    entry: AuditEntry


class Audit(OnSession):
    """The audit trail of a deployment. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str) -> None:
        settings = session_settings(schema, STATEMENT_S, STATEMENT_S, "audit")
        self._session = Session(dsn, settings, STATEMENT_S, STATEMENT_S)

    async def record(self, entry: AuditEntry) -> None:
        """Add a row. After `StoreUnavailable` it may be there."""

        async def add(connection: Any) -> None:
            await connection.execute(
                _QUERIES["add_audit"],
                entry.actor,
                entry.act,
                entry.stage,
                entry.account,
                entry.subject,
                None if entry.before is None else entry.before.decode(),
                None if entry.after is None else entry.after.decode(),
                entry.reason,
                entry.request_id,
            )

        try:
            await self._session.transaction(add)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from error

    async def page(
        self,
        limit: int,
        cursor: str | None = None,
        *,
        account: str | None = None,
        act: str | None = None,
        request_id: str | None = None,
    ) -> tuple[list[AuditRow], str | None]:
        """Rows, newest first, narrowed by what is given; and the cursor of the next page. Raises BadCursor."""
        (below,) = read_cursor("audit", cursor, tuple[Big], (_BIGINT_MAX,))

        async def look(connection: Any) -> list[Any]:
            return list(await connection.fetch(_QUERIES["list_audit"], below, account, act, request_id, limit + 1))

        try:
            rows = [_row(row) for row in await self._session.transaction(look)]
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from error
        return rows[:limit], write_cursor("audit", rows[limit - 1].audit_id) if len(rows) > limit else None


def _row(row: Any) -> AuditRow:
    entry = AuditEntry(
        row["actor"],
        row["act"],
        row["stage"],
        row["account"],
        row["subject"],
        row["reason"],
        row["request_id"],
        None if row["before"] is None else row["before"].encode(),
        None if row["after"] is None else row["after"].encode(),
    )
    return AuditRow(row["audit_id"], (row["at"] - _EPOCH) // timedelta(microseconds=1), entry)
