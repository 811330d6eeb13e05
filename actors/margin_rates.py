"""Rates between currencies in Postgres, by day: recorded by people, for margin in one currency."""

from datetime import datetime
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from actors.postgres import OnSession, Session, pico_of, session_settings, units_of
from actors.queries import read_queries
from engine.cost.exchange import KEPT_DAYS, Rate, Rates, date_of, day_of

_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "margin_rates.sql").read_text(encoding="utf-8"))
_ALL: Final = 1 << 31  # rates: no limit that anybody meets


class RecordedRate(Struct, frozen=True):
    """A rate, and when it was recorded last."""

    rate: Rate
    recorded_at: datetime


class PostgresRates(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str, lease_s: float, statement_timeout_s: float) -> None:
        settings = session_settings(schema, lease_s, statement_timeout_s, "rates")
        self._session = Session(dsn, settings, statement_timeout_s, statement_timeout_s)

    async def put(self, rate: Rate) -> None:
        """Record it, in place of what was recorded for that day."""

        async def work(connection: Any) -> None:
            await connection.execute(
                _QUERIES["set_rate"], date_of(rate.day), rate.source, rate.target, units_of(rate.pico)
            )

        await self._session.repeatable(work)

    async def remove(self, day: int, source: str, target: str) -> bool:
        """Whether there was one."""

        async def work(connection: Any) -> bool:
            return await connection.fetchval(_QUERIES["remove_rate"], date_of(day), source, target) is not None

        return await self._session.repeatable(work)

    async def recorded(self, first: int, last: int, target: str | None, limit: int = _ALL) -> list[RecordedRate]:
        """Those of days in [first, last], the latest first, into one currency or all."""

        async def work(connection: Any) -> list[RecordedRate]:
            rows = await connection.fetch(_QUERIES["rates"], date_of(first), date_of(last), target, limit)
            return [
                RecordedRate(
                    Rate(day_of(row["day"]), row["source"], row["target"], pico_of(row["rate"])), row["recorded_at"]
                )
                for row in rows
            ]

        return await self._session.repeatable(work)

    async def into(self, target: str, first: int, last: int) -> Rates:
        """All that can be needed to convert what was of days in [first, last]."""
        return Rates(each.rate for each in await self.recorded(first - KEPT_DAYS, last, target))
