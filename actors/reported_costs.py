"""What providers reported that requests cost, beside what a price sheet made of their usage, in Postgres: so that a provider
that charges otherwise than its list is seen, and since when."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from actors.postgres import OnSession, Session, pico_of, session_settings, units_of
from actors.queries import read_queries

_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "reported_costs.sql").read_text(encoding="utf-8"))


class ReportedCost(Struct, frozen=True):
    """Of one usage event. Pico-units of the currency; None: not known."""

    source: str
    id: str
    provider: str
    model: str
    time_us: int
    currency: str
    computed: int | None
    reported: int | None


class Gap(Struct, frozen=True):
    """A provider's model on a day. Sums are of what is known; `gap` of requests of which both are: reported less computed."""

    provider: str
    model: str
    currency: str
    day_us: int
    requests: int
    without_computed: int
    without_reported: int
    computed: int
    reported: int
    gap: int
    differing: int  # requests of which both are known and not the same


class ReportedCosts(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str, lease_s: float, statement_timeout_s: float) -> None:
        settings = session_settings(schema, lease_s, statement_timeout_s, "reported")
        self._session = Session(dsn, settings, statement_timeout_s, statement_timeout_s)

    async def record(self, costs: Sequence[ReportedCost]) -> int:
        """How many; of one event the last counts."""
        once = list({(cost.source, cost.id): cost for cost in costs}.values())

        async def work(connection: Any) -> None:
            await connection.execute(
                _QUERIES["record"],
                [each.source for each in once],
                [each.id for each in once],
                [each.provider for each in once],
                [each.model for each in once],
                [each.time_us for each in once],
                [each.currency for each in once],
                [None if each.computed is None else units_of(each.computed) for each in once],
                [None if each.reported is None else units_of(each.reported) for each in once],
            )

        await self._session.repeatable(work)
        return len(once)

    async def gaps(self, from_us: int, until_us: int, limit: int) -> list[Gap]:
        """Of events of [from_us, until_us), by day, provider and model: at most so many."""

        async def work(connection: Any) -> list[Gap]:
            rows = await connection.fetch(_QUERIES["gaps"], from_us, until_us, limit)
            return [
                Gap(
                    *(row["provider"], row["model"], row["currency"], row["day_us"], row["requests"]),
                    *(row["without_computed"], row["without_reported"], pico_of(row["computed"])),
                    *(pico_of(row["reported"]), pico_of(row["gap"]), row["differing"]),
                )
                for row in rows
            ]

        return await self._session.repeatable(work)
