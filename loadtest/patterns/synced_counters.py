"""Pattern (d): each process counts for itself, and adds what it has counted to a shared store on a timer.

A check is a comparison in memory, and knows of the other processes what the last sync has brought. What a process has
counted since then is lost with it.
"""

import asyncio
from typing import Final

import asyncpg

from loadtest.patterns.pattern import Terms

EVERY_S: Final = 1.0  # between two syncs

SCHEMA: Final = "CREATE TABLE IF NOT EXISTS pattern_shared (account text PRIMARY KEY, pico numeric)"
ADD: Final = """
INSERT INTO pattern_shared AS known SELECT * FROM unnest($1::text[], $2::numeric[])
ON CONFLICT (account) DO UPDATE SET pico = known.pico + excluded.pico
RETURNING account, pico
"""


class SyncedCounters:
    """One process's counters. Everything is synchronous but the sync."""

    def __init__(self, dsn: str, terms: Terms) -> None:
        self._dsn = dsn
        self._terms = terms
        self._seen: dict[str, int] = {}  # what all have spent, as of the last sync
        self._since: dict[str, int] = {}  # counted here behind it
        self._told: set[str] = set()
        self._store: asyncpg.Connection | None = None

    async def start(self) -> None:
        self._store = await asyncpg.connect(self._dsn)
        await self._store.execute(SCHEMA)

    def check(self, account: str, pico: int) -> bool:
        """Whether there is room, as far as this process knows."""
        return self.spent(account) + pico <= self._terms.cap_pico

    def record(self, account: str, pico: int) -> bool:
        """Count it; whether it crossed the threshold here."""
        self._since[account] = self._since.get(account, 0) + pico
        crossed = self.spent(account) >= self._terms.alert_pico and account not in self._told
        if crossed:
            self._told.add(account)
        return crossed

    def spent(self, account: str) -> int:
        """Known of all at the last sync, and counted here since. Who is asked about is learnt of at the next."""
        return self._seen.setdefault(account, 0) + self._since.get(account, 0)

    async def sync(self) -> list[str]:
        """Add what was counted, and learn what the others have; the customers that are now seen to have crossed."""
        assert self._store is not None
        for account in self._seen:
            self._since.setdefault(account, 0)
        # In order: two processes that lock the same rows would otherwise wait for each other.
        adding, self._since = dict(sorted(self._since.items())), {}
        for account, pico in adding.items():  # counted as seen while the answer is under way
            self._seen[account] = self._seen.get(account, 0) + pico
        fresh = []
        for row in await self._store.fetch(ADD, list(adding), list(adding.values())):
            self._seen[row["account"]] = int(row["pico"])
            if self._seen[row["account"]] >= self._terms.alert_pico and row["account"] not in self._told:
                self._told.add(row["account"])
                fresh.append(row["account"])
        return fresh

    async def syncing(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.sync()

    async def stored(self, account: str) -> int:
        """What the shared store has."""
        assert self._store is not None
        return int(await self._store.fetchval("SELECT pico FROM pattern_shared WHERE account = $1", account) or 0)

    async def stop(self) -> None:
        if self._store is not None:
            await self._store.close()
