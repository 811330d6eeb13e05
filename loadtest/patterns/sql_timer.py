"""Pattern (b): events go into a table of Postgres, and a timer aggregates them anew into the balances that checks read.

A check is one row by its key, and as old as the last refresh. The primary key keeps an event from counting twice, and the
place in the log is kept in the same transaction.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import asyncpg

from loadtest.patterns.pattern import Terms, Use

EVERY_S: Final = 5.0  # between two refreshes

SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS pattern_use (
    account text, source text, id text, pico bigint, PRIMARY KEY (account, source, id)
);
CREATE TABLE IF NOT EXISTS pattern_place (partition int PRIMARY KEY, place bigint);
CREATE TABLE IF NOT EXISTS pattern_balance (account text PRIMARY KEY, pico numeric, told boolean DEFAULT false);
"""
REFRESH: Final = """
INSERT INTO pattern_balance (account, pico)
SELECT account, sum(pico) FROM pattern_use GROUP BY account
ON CONFLICT (account) DO UPDATE SET pico = excluded.pico WHERE pattern_balance.pico <> excluded.pico
"""


class SqlTimer:
    """Tables in a database of its own."""

    every_s = EVERY_S

    def __init__(self, dsn: str, terms: Terms) -> None:
        self._dsn = dsn
        self._terms = terms
        self._pool: asyncpg.Pool | None = None

    async def start(self) -> dict[int, int]:
        self._pool = await asyncpg.create_pool(self._dsn, min_size=2, max_size=4)
        await self._live().execute(SCHEMA)
        return {row["partition"]: row["place"] for row in await self._live().fetch("SELECT * FROM pattern_place")}

    async def take(self, uses: Sequence[Use], places: Mapping[int, int]) -> None:
        async with self._live().acquire() as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO pattern_use SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[]) "
                "ON CONFLICT DO NOTHING",
                [use.account for use in uses],
                [use.source for use in uses],
                [use.id for use in uses],
                [use.pico for use in uses],
            )
            await connection.execute(
                "INSERT INTO pattern_place SELECT * FROM unnest($1::int[], $2::bigint[]) "
                "ON CONFLICT (partition) DO UPDATE SET place = excluded.place",
                list(places),
                list(places.values()),
            )

    async def spent(self, account: str) -> int:
        found = await self._live().fetchval("SELECT pico FROM pattern_balance WHERE account = $1", account)
        return int(found or 0)

    async def tick(self) -> list[str]:
        async with self._live().acquire() as connection, connection.transaction():
            await connection.execute(REFRESH)
            rows = await connection.fetch(
                "UPDATE pattern_balance SET told = true WHERE NOT told AND pico >= $1 RETURNING account",
                self._terms.alert_pico,
            )
        return [row["account"] for row in rows]

    async def stop(self) -> None:
        await self._live().close()

    def _live(self) -> asyncpg.Pool:
        assert self._pool is not None
        return self._pool
