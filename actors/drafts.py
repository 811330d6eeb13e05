"""Drafts of catalogues: kept with who and when until one is approved, which makes it the next version, or discarded.

A draft rates nothing. Approving it is one transaction with the version it becomes; the markers that put the version into
force follow behind (`actors/publication.py`).
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

from msgspec import Struct

from actors.ports import CatalogueTaken, CommitUnknown, StoreUnavailable
from actors.postgres import OnSession, Session, session_settings
from actors.queries import read_queries

STATEMENT_S: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "drafts.sql").read_text(encoding="utf-8"))
Result = TypeVar("Result")


class DraftUnknown(Exception):
    """There is no draft of this number."""


class DraftDecided(Exception):
    """It was approved or discarded before."""


class Draft(Struct, frozen=True):
    """One draft. Instants are microseconds since 1970 UTC."""

    draft: int
    state: Literal["draft", "approved", "discarded"]
    based_on: int  # the newest version when it was drafted; 0: none
    sha256: str
    created_by: str
    created_us: int
    decided_by: str | None
    decided_us: int | None
    version: int | None  # that it became
    effective_us: int | None  # from when on that is in force; 0: for all time
    body: bytes | None  # JSON (engine/catalog.py); None in a list


class Drafts(OnSession):
    """Drafts in Postgres. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._session = Session(
            dsn, session_settings(schema, STATEMENT_S, STATEMENT_S, "drafts"), STATEMENT_S, STATEMENT_S
        )

    async def add(self, body: bytes, based_on: int, actor: str) -> Draft:
        """Keep a new draft."""
        return await self._transaction(lambda connection: _one(connection, "add_draft", body, based_on, actor))

    async def get(self, draft: int) -> Draft:
        """One draft with its body. Raises DraftUnknown."""
        return await self._transaction(lambda connection: _one(connection, "get_draft", draft))

    async def newest(self, limit: int, below: int) -> list[Draft]:
        """The newest of those numbered below `below`, newest first, without their bodies."""

        async def rows(connection: Any) -> list[Draft]:
            return [_draft(row) for row in await connection.fetch(_QUERIES["list_drafts"], below, limit)]

        return await self._transaction(rows)

    async def approve(self, draft: int, actor: str, version: int, effective_us: int) -> Draft:
        """Make the draft that version. Raises DraftUnknown, DraftDecided, and CatalogueTaken when there is such a version."""

        async def work(connection: Any) -> Draft:
            await _undecided(connection, draft)
            if await connection.fetchval(_QUERIES["publish_draft"], draft, version) is None:
                raise CatalogueTaken(f"catalogue version {version} exists: draft {draft} was not made from it")
            return await _one(connection, "decide_draft", draft, "approved", actor, version, effective_us)

        return await self._transaction(work)

    async def discard(self, draft: int, actor: str) -> Draft:
        """It can never be approved any more, and is kept. Raises DraftUnknown and DraftDecided."""

        async def work(connection: Any) -> Draft:
            await _undecided(connection, draft)
            return await _one(connection, "decide_draft", draft, "discarded", actor, None, None)

        return await self._transaction(work)

    async def _transaction(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        try:
            return await self._session.transaction(work)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from error


async def _undecided(connection: Any, draft: int) -> None:
    state = await connection.fetchval(_QUERIES["lock_draft"], draft)
    if state is None:
        raise DraftUnknown(draft)
    if state != "draft":
        raise DraftDecided(draft)


async def _one(connection: Any, query: str, *arguments: Any) -> Draft:
    row = await connection.fetchrow(_QUERIES[query], *arguments)
    if row is None:
        raise DraftUnknown
    return _draft(row)


def _draft(row: Any) -> Draft:
    return Draft(
        row["draft"],
        row["state"],
        row["based_on"],
        row["sha256"].hex(),
        row["created_by"],
        us_of(row["created_at"]),
        row["decided_by"],
        None if row["decided_at"] is None else us_of(row["decided_at"]),
        row["version"],
        row["effective_us"],
        row["body"],
    )


def us_of(moment: datetime) -> int:
    """Microseconds since 1970 UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)
