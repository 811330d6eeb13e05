"""Margin floors in Postgres: set by people, looked at by whoever owns the first partition of the margin."""

from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from actors.ports import AlertRow
from actors.postgres import OnSession, Session, pico_of, session_settings, storable
from actors.queries import read_queries
from actors.seller_alerts import check_owner, write_alert
from engine.alerts import Standing
from engine.cost.floors import FLOORS_MAX, Floor, Of, Sight
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import Margin

_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "margin_floors.sql").read_text(encoding="utf-8"))


class TooManyFloors(Exception):
    """There are as many as there may be."""


class KeptFloor(Struct, frozen=True):
    """A floor, and the number of its last change by a person."""

    floor: Floor
    revision: int


class Looked(Struct, frozen=True):
    """What looking at an hour has come to."""

    kept: KeptFloor
    hour_us: int
    sight: Sight


class PostgresFloors(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str, lease_s: float, statement_timeout_s: float) -> None:
        settings = session_settings(schema, lease_s, statement_timeout_s, "floors")
        self._session = Session(dsn, settings, statement_timeout_s, statement_timeout_s)

    async def put(self, floor: Floor) -> None:
        """Set or replace it; it looks from `next_us` on, or goes on where it is. Raises TooManyFloors."""

        async def work(connection: Any) -> bool:
            names = (floor.floor, floor.of.value, floor.subject)
            terms = (floor.permille, floor.clear_permille, floor.level, floor.next_us)
            return await connection.fetchval(_QUERIES["set_floor"], *names, *terms, FLOORS_MAX) is not None

        if not await self._session.repeatable(work):
            raise TooManyFloors

    async def remove(self, name: str) -> bool:
        """Whether there was one."""

        async def work(connection: Any) -> bool:
            return await connection.fetchval(_QUERIES["remove_floor"], name) is not None

        return await self._session.repeatable(work)

    async def all(self) -> list[KeptFloor]:
        """In the order of their names."""

        async def work(connection: Any) -> list[KeptFloor]:
            return [_kept(row) for row in await connection.fetch(_QUERIES["floors"])]

        return await self._session.repeatable(work)

    async def told_us(self, partitions: int) -> int | None:
        """All that was appended before this instant is in the rows of every partition; None: not every one has told."""

        async def work(connection: Any) -> int | None:
            found: int | None = await connection.fetchval(_QUERIES["told_us"], partitions)
            return found

        return await self._session.repeatable(work)

    async def costs_settled_us(self) -> int | None:
        """Windows that end by this instant have settled in every partition of costs; None: nobody attributes any."""

        async def work(connection: Any) -> int | None:
            found: int | None = await connection.fetchval(_QUERIES["costs_settled"])
            return found

        return await self._session.repeatable(work)

    async def hour(self, hour_us: int, of: Of, subject: str) -> list[tuple[str, Margin]]:
        """What the hour came to, by currency."""

        async def work(connection: Any) -> list[tuple[str, Margin]]:
            rows = await connection.fetch(_QUERIES["hour_sums"], hour_us, of.value, storable(subject))
            return [(row["currency"], _margin(row)) for row in rows]

        return await self._session.repeatable(work)

    async def write(self, looked: Looked, epoch: int) -> AlertRow | None:
        """How the floor stands now, and its alert into the outbox: one transaction. None: nothing is to be told, or the
        floor was changed meanwhile. `epoch`: of the margin's first partition. Raises Fenced, CommitUnknown."""

        async def work(connection: Any) -> AlertRow | None:
            await check_owner(connection, epoch)
            kept, standing, alert = looked.kept, looked.sight.standing, looked.sight.alert
            place = (kept.floor.floor, kept.revision, kept.floor.next_us)
            values = (
                standing.ordinal,
                standing.active,
                looked.hour_us + HOUR_US,
                looked.hour_us,
                looked.sight.permille,
            )
            if await connection.fetchval(_QUERIES["write_standing"], *place, *values) is None or alert is None:
                return None
            return await write_alert(connection, alert.alert_id, alert.body)

        return await self._session.transaction(work)


def _kept(row: Any) -> KeptFloor:
    floor = Floor(
        *(row["floor"], Of(row["of"]), row["subject"], row["permille"], row["clear_permille"], row["level"]),
        *(Standing(row["ordinal"], row["active"]), row["next_us"], row["last_us"], row["last_permille"]),
    )
    return KeptFloor(floor, row["revision"])


def _margin(row: Any) -> Margin:
    counts = (row["requests"], row["without_cost"], row["without_revenue"], row["provisional"])
    return Margin(pico_of(row["revenue"]), pico_of(row["known_cost"]), *counts, foreign_cost=row["foreign_cost"])
