"""The published catalogue versions, for a process that publishes and owns no partition."""

from typing import Any, Final

from actors.ports import CatalogueTaken, CommitUnknown, StoreUnavailable
from actors.postgres import OnSession, Session, session_settings
from actors.queries import QUERIES

STATEMENT_S: Final = 5.0


class PostgresCatalogues(OnSession):
    """`actors.publication.Shelf` on Postgres. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str) -> None:
        settings = session_settings(schema, STATEMENT_S, STATEMENT_S, "catalogues")
        self._session = Session(dsn, settings, STATEMENT_S, STATEMENT_S)

    async def latest_catalogue_version(self) -> int | None:
        """The newest published version; None when there is none."""
        version: int | None = await self._value("latest_catalogue")
        return version

    async def catalogue(self, version: int) -> bytes | None:
        """The catalogue's JSON; None when there is no such version."""
        body: bytes | None = await self._value("catalogue", version)
        return body

    async def publish_catalogue(self, version: int, body: bytes) -> None:
        """Add a version; again with the same body changes nothing. Raises `CatalogueTaken` for another body."""
        if await self._value("publish_catalogue", version, body) is None and await self.catalogue(version) != body:
            raise CatalogueTaken(f"catalogue version {version} exists with another body: publish under a new number")

    async def _value(self, query: str, *arguments: Any) -> Any:
        async def work(connection: Any) -> Any:
            return await connection.fetchval(QUERIES[query], *arguments)

        try:
            return await self._session.transaction(work)
        except CommitUnknown as error:
            raise StoreUnavailable(str(error)) from error
