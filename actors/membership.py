"""Who is alive, who should own what and where it is asked, in Postgres: the real `Membership`, `Roster`, `Directory`.

Each has a connection of its own, so that a renewal never waits behind a checkpoint. All leases are set and judged by
the server's clock; the callers keep their own deadline, taken before the call.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import TypeVar

import asyncpg

from actors.ports import Doorway, Fenced, Member, Renewal
from actors.postgres import OnSession, Session, session_settings
from actors.queries import QUERIES

Result = TypeVar("Result")


class _Repeatable(OnSession):
    """A session whose every transaction may simply be run again, so a lost COMMIT is no case of its own."""

    def __init__(
        self,
        dsn: str,
        schema: str,
        lease_s: float,
        connect_timeout_s: float,
        name: str,
        opened: Callable[[asyncpg.Connection], Awaitable[None]] | None = None,
    ) -> None:
        settings = session_settings(schema, lease_s, max(lease_s, 1.0), name)
        # A renewal that takes as long as the lease has failed.
        self._session = Session(dsn, settings, max(lease_s, 1.0), connect_timeout_s, opened)

    async def _run(self, work: Callable[[asyncpg.Connection], Awaitable[Result]]) -> Result:
        return await self._session.repeatable(work)


class PostgresMembership(_Repeatable):
    """The `Membership` port. May live in a thread of its own with its own event loop: start it there."""

    def __init__(
        self, dsn: str, schema: str = "tallygate", lease_s: float = 1.2, connect_timeout_s: float = 1.0
    ) -> None:
        super().__init__(dsn, schema, lease_s, connect_timeout_s, "membership", self._listen)
        self._schema = schema
        self._lease_s = lease_s
        self._changed = asyncio.Event()

    async def _listen(self, connection: asyncpg.Connection) -> None:
        """One channel for the whole database: schemas that share it tell themselves apart by the payload."""
        await connection.add_listener("tallygate_assignment", self._hear)

    def _hear(self, _connection: object, _pid: int, _channel: str, schema: str) -> None:
        if schema == self._schema:
            self._changed.set()

    async def register(
        self,
        incarnation: str,
        shard: str,
        host: str,
        lock_path: str,
        pid: int,
        door_host: str | None = None,
        door_port: int | None = None,
    ) -> None:
        async def join(connection: asyncpg.Connection) -> None:
            row = (incarnation, shard, host, lock_path, pid, self._lease_s, door_host, door_port)
            if await connection.fetchval(QUERIES["register_member"], *row) is None:
                raise Fenced(f"incarnation {incarnation} is dead: start under a new name")

        await self._run(join)

    async def assignment_changed(self, within_s: float) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._changed.wait(), within_s)
        self._changed.clear()

    async def renew(self, incarnation: str) -> Renewal:
        async def extend(connection: asyncpg.Connection) -> Renewal:
            if await connection.fetchval(QUERIES["renew_member"], incarnation, self._lease_s) is None:
                raise Fenced(f"incarnation {incarnation} is dead or was never registered")
            # A statement of its own, with a newer view: a partition claimed from us under the old lease is missing.
            rows = await connection.fetch(QUERIES["member_partitions"], incarnation)
            assigned, owned = (frozenset(row["partition"] for row in rows if row[of]) for of in ("assigned", "owned"))
            return Renewal(assigned, self._lease_s, owned)

        return await self._run(extend)

    async def leave(self, incarnation: str) -> None:
        async def end(connection: asyncpg.Connection) -> None:
            await connection.execute(QUERIES["leave_member"], incarnation)

        await self._run(end)


class PostgresRoster(_Repeatable):
    """The `Roster` port."""

    def __init__(
        self, dsn: str, schema: str = "tallygate", lease_s: float = 1.2, connect_timeout_s: float = 1.0
    ) -> None:
        super().__init__(dsn, schema, lease_s, connect_timeout_s, "roster")

    async def take_office(self, controller: str, lease_s: float) -> int | None:
        async def take(connection: asyncpg.Connection) -> int | None:
            term: int | None = await connection.fetchval(QUERIES["take_office"], controller, lease_s)
            return term

        return await self._run(take)

    async def stay_in_office(self, term: int, lease_s: float) -> None:
        async def stay(connection: asyncpg.Connection) -> None:
            if await connection.fetchval(QUERIES["stay_in_office"], term, lease_s) is None:
                raise Fenced(f"term {term} is over")

        await self._run(stay)

    async def resign(self, term: int) -> None:
        async def give_up(connection: asyncpg.Connection) -> None:
            await connection.execute(QUERIES["resign"], term)

        await self._run(give_up)

    async def members(self) -> list[Member]:
        async def look(connection: asyncpg.Connection) -> list[Member]:
            return [
                Member(
                    row["incarnation"],
                    row["shard"],
                    row["host"],
                    row["lock_path"],
                    row["lease_left_s"],
                    frozenset(row["partitions"]),
                    frozenset(row["owned"]),
                    row["draining"],
                )
                for row in await connection.fetch(QUERIES["list_members"])
            ]

        return await self._run(look)

    async def assign(self, term: int, partitions: dict[int, str]) -> None:
        async def write(connection: asyncpg.Connection) -> None:
            await connection.execute(QUERIES["assign_partitions"], term, list(partitions), list(partitions.values()))
            await connection.execute(QUERIES["tell_assignment"])

        await self._in_term(term, write)

    async def declare_dead(self, term: int, incarnation: str) -> None:
        async def write(connection: asyncpg.Connection) -> None:
            await connection.execute(QUERIES["declare_dead"], incarnation)

        await self._in_term(term, write)

    async def set_draining(self, incarnation: str, draining: bool) -> bool:
        async def write(connection: asyncpg.Connection) -> bool:
            return await connection.fetchval(QUERIES["set_draining"], incarnation, draining) is not None

        return await self._run(write)

    async def _in_term(self, term: int, write: Callable[[asyncpg.Connection], Awaitable[None]]) -> None:
        async def fenced(connection: asyncpg.Connection) -> None:
            if await connection.fetchval(QUERIES["in_office"], term) is None:
                raise Fenced(f"term {term} is over")
            await write(connection)

        await self._run(fenced)


class PostgresDirectory(_Repeatable):
    """The `Directory` port."""

    def __init__(
        self, dsn: str, schema: str = "tallygate", timeout_s: float = 1.0, connect_timeout_s: float = 1.0
    ) -> None:
        super().__init__(dsn, schema, timeout_s, connect_timeout_s, "directory")

    async def doorways(self) -> list[Doorway]:
        async def look(connection: asyncpg.Connection) -> list[Doorway]:
            return [
                Doorway(
                    row["incarnation"],
                    row["door_host"],
                    row["door_port"],
                    dict(zip(row["partitions"], row["epochs"], strict=True)),
                )
                for row in await connection.fetch(QUERIES["list_doorways"])
            ]

        return await self._run(look)
