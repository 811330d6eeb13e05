"""Pattern (a): events go into an OLAP table, and each check asks it for the sum.

A check sees every event that has been inserted, and pays for a query. Rows are replaced by their identity, so that reading
the log again counts nothing twice. Alerts come from a query on a timer.
"""

import asyncio
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import orjson
from chdb.session import Session

from loadtest.patterns.pattern import Terms, Use

EVERY_S: Final = 10.0  # between two looks for alerts


class OlapQuery:
    """A ClickHouse in this process; its queries run one at a time, in a thread, as its session demands."""

    every_s = EVERY_S

    def __init__(self, folder: Path, terms: Terms) -> None:
        self._folder = folder
        self._terms = terms
        self._thread = ThreadPoolExecutor(1, "olap")
        self._session: Any = None
        self._told: set[str] = set()

    async def start(self) -> dict[int, int]:
        await self._in_thread(self._open)
        rows = await self._rows("SELECT partition, max(place) AS place FROM bench.place GROUP BY partition")
        return {int(row["partition"]): int(row["place"]) for row in rows}

    def _open(self) -> None:
        self._session = Session(str(self._folder))
        self._session.query("CREATE DATABASE IF NOT EXISTS bench ENGINE = Atomic")
        self._session.query(
            "CREATE TABLE IF NOT EXISTS bench.use (account String, source String, id String, pico Int64) "
            "ENGINE = ReplacingMergeTree ORDER BY (account, source, id)"
        )
        self._session.query(
            "CREATE TABLE IF NOT EXISTS bench.place (partition Int32, place Int64) "
            "ENGINE = ReplacingMergeTree(place) ORDER BY partition"
        )

    async def take(self, uses: Sequence[Use], places: Mapping[int, int]) -> None:
        rows = b"\n".join(
            orjson.dumps({"account": use.account, "source": use.source, "id": use.id, "pico": use.pico}) for use in uses
        )
        if rows:
            await self._query("INSERT INTO bench.use FORMAT JSONEachRow " + rows.decode())
        # Behind the rows: what is read again after a crash replaces itself.
        values = ", ".join(f"({partition}, {place})" for partition, place in places.items())
        await self._query(f"INSERT INTO bench.place VALUES {values}")  # noqa: S608 - numbers of our own

    async def spent(self, account: str) -> int:
        (row,) = await self._rows(
            "SELECT sum(pico) AS pico FROM bench.use FINAL WHERE account = {account:String}", {"account": account}
        )
        return int(row["pico"])

    async def tick(self) -> list[str]:
        rows = await self._rows(
            "SELECT account FROM bench.use FINAL GROUP BY account HAVING sum(pico) >= {alert:Int64}",
            {"alert": self._terms.alert_pico},
        )
        fresh = [row["account"] for row in rows if row["account"] not in self._told]
        self._told.update(fresh)
        return fresh

    async def stop(self) -> None:
        await self._in_thread(lambda: self._session.close())
        self._thread.shutdown()

    async def _rows(self, sql: str, given: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        told = await self._query(sql, "JSONEachRow", given)
        return [orjson.loads(line) for line in str(told).splitlines() if line]

    async def _query(self, sql: str, form: str = "CSV", given: Mapping[str, Any] | None = None) -> Any:
        return await self._in_thread(lambda: self._session.query(sql, form, params=dict(given or {})))

    async def _in_thread(self, work: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
