"""Who is alive, who should own what and where it is asked, in Postgres: the real `Membership`, `Roster`, `Directory`.

Each has a connection of its own, so that a renewal never waits behind a checkpoint. All leases are set and judged by
the server's clock; the callers keep their own deadline, taken before the call. Where that clock is set, no lease is longer
than it was asked for, and none ends before whoever holds it could renew it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Container
from contextlib import suppress
from typing import Final, TypeVar

import asyncpg

from actors.clock import SystemClock
from actors.ports import Clock, Doorway, Fenced, Member, Renewal
from actors.postgres import OnSession, Session, session_settings
from actors.queries import QUERIES

Result = TypeVar("Result")

_log = logging.getLogger(__name__)

FORWARD_MIN_S: Final = 0.25  # less than the grace in which a lease that is over is not taken for a death


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


class LeaseEnds:
    """What is left of leases that end at instants of the server's clock, as seen from look to look: that clock may be set.

    Whoever lives renews several times while a lease runs. So once it was set forward, and every lease seems over, as much is
    left of each as of one that was renewed then; and of one that ends further ahead than it is long, because the clock was set
    back, as much as of one that was renewed when that was first seen."""

    def __init__(self) -> None:
        self._ahead_max_s = float("inf")  # by how much the server's clock was ahead of ours at the last look, at most
        self._forward_s = float("-inf")  # boot clock: when it was last seen to have been set forward
        self._further: dict[str, float] = {}  # incarnation -> boot clock, since when its lease ends too far ahead

    def look(self, asked_s: float, answered_s: float, server_s: float) -> None:
        """What the server's clock said between two moments of ours."""
        forward_s = server_s - answered_s - self._ahead_max_s
        if forward_s > FORWARD_MIN_S:
            _log.warning(
                "Postgres' clock was set forward by %.1f s or more: leases are taken to have been renewed then",
                forward_s,
            )
            self._forward_s = asked_s
        self._ahead_max_s = server_s - asked_s

    def left_s(self, incarnation: str, lease_left_s: float, lease_s: float | None, now_s: float) -> float:
        """Negative: run out that long ago. `lease_s`: how long that lease is, where it is known."""
        if lease_s is None:
            return lease_left_s
        if lease_left_s > lease_s:
            return lease_s - (now_s - self._further.setdefault(incarnation, now_s))
        self._further.pop(incarnation, None)
        return max(lease_left_s, lease_s - (now_s - self._forward_s))

    def keep(self, incarnations: Container[str]) -> None:
        """Forget all but these."""
        self._further = {name: since_s for name, since_s in self._further.items() if name in incarnations}


class PostgresRoster(_Repeatable):
    """The `Roster` port."""

    def __init__(
        self,
        dsn: str,
        schema: str = "tallygate",
        lease_s: float = 1.2,
        connect_timeout_s: float = 1.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(dsn, schema, lease_s, connect_timeout_s, "roster")
        self._clock = clock or SystemClock()
        self._ends = LeaseEnds()

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
            asked_s = self._clock.boot_s()
            rows = await connection.fetch(QUERIES["list_members"])
            now_s = self._clock.boot_s()
            if rows:
                self._ends.look(asked_s, now_s, rows[0]["now_s"])
            self._ends.keep({row["incarnation"] for row in rows})
            return [
                Member(
                    row["incarnation"],
                    row["shard"],
                    row["host"],
                    row["lock_path"],
                    self._ends.left_s(row["incarnation"], row["lease_left_s"], row["lease_s"], now_s),
                    frozenset(row["partitions"]),
                    frozenset(row["owned"]),
                    row["draining"],
                )
                for row in rows
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
