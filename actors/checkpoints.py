"""Whole checkpoints, each read in one snapshot of the database beside the running deployment. Nothing is written.

The session is read-only and its transactions are repeatable reads: all of a partition's tables are seen as one commit
left them, however many checkpoints follow while they are read. Rows arrive a piece at a time, so that a partition larger
than memory can be passed on.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from msgspec import Struct

from actors.ports import (
    AccountRow,
    AlertRow,
    CommandRow,
    CommitUnknown,
    DeadLetterRow,
    DedupSegment,
    Head,
    LastRecord,
    StoreUnavailable,
)
from actors.postgres import OnSession, Session, account_row, dedup_segment, pico_of, session_settings
from actors.queries import QUERIES, read_queries
from engine.runs import Run

STATEMENT_S: Final = 120.0
IDLE_S: Final = 60.0  # between two pieces; a snapshot held open only delays the cleaning of old row versions
PIECE_ROWS: Final = 500

_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "checkpoints.sql").read_text(encoding="utf-8"))
Result = TypeVar("Result")


class Posted(Struct, frozen=True):
    """The sum of all postings of one place in the ledger that were made in one period; pico."""

    account: str
    lot: str  # "" for debt
    lot_kind: str
    kind: str
    usage_period_us: int | None
    posting_period_us: int
    amount: int
    first_seq: int  # of the checkpoints that made them
    last_seq: int


class StoredCheckpoint:
    """One checkpoint, as long as its snapshot is open. Rows come in the order of their keys."""

    def __init__(self, connection: Any, head: Head) -> None:
        self._connection = connection
        self.head = head

    async def accounts(self) -> AsyncIterator[list[AccountRow]]:
        async for rows in self._pieces(QUERIES["load_accounts"], PIECE_ROWS):
            yield [account_row(row) for row in rows]

    async def dedup(self) -> AsyncIterator[DedupSegment]:
        """Sealed runs too, whole."""
        async for rows in self._pieces(QUERIES["load_dedup"], 1):
            for row in rows:
                yield dedup_segment(row)
        for head in await self._rows(QUERIES["load_runs"]):
            bucket, generation, count, outline, _ = head.values()
            run = Run(bucket, generation, count, outline, None)
            parts = [part["entries"] for part in await self._rows(_QUERIES["run_entries"], bucket, generation)]
            run.bring(b"".join([outline, *parts]))
            yield DedupSegment(bucket, generation, run.entries())

    async def remembered_commands(self, log_time_min_us: int) -> AsyncIterator[list[CommandRow]]:
        """Those not older than a log time."""
        async for rows in self._pieces(QUERIES["load_commands"], PIECE_ROWS, log_time_min_us):
            yield [CommandRow(*row.values()) for row in rows]

    async def engine_errors(self) -> list[int]:
        """Offsets whose record broke the engine."""
        return [row["log_offset"] for row in await self._rows(QUERIES["load_engine_errors"])]

    async def catalogue(self, version: int) -> bytes | None:
        """A published version's JSON."""
        body: bytes | None = await self._connection.fetchval(QUERIES["catalogue"], version)
        return body

    async def postings(self) -> list[Posted]:
        """The ledger, summed."""
        return [
            Posted(
                row["account"],
                row["lot"],
                row["lot_kind"],
                row["kind"],
                row["usage_period_us"],
                row["posting_period_us"],
                pico_of(row["amount"]),
                row["first_seq"],
                row["last_seq"],
            )
            for row in await self._rows(_QUERIES["postings"])
        ]

    async def plan_changes(self) -> list[tuple[str, int]]:
        """(account, log time) of each change of plan that was applied."""
        return [(row["account"], row["log_time_us"]) for row in await self._rows(_QUERIES["plan_changes"])]

    async def alerts(self) -> list[AlertRow]:
        """Every alert, told or not."""
        return [AlertRow(*row.values()) for row in await self._rows(_QUERIES["alerts"])]

    async def dead_letters(self) -> list[DeadLetterRow]:
        return [DeadLetterRow(*row.values()) for row in await self._rows(_QUERIES["dead_letters"])]

    async def commands(self, offset_min: int) -> list[CommandRow]:
        """Every command from an offset on."""
        return [CommandRow(*row.values()) for row in await self._rows(_QUERIES["commands"], offset_min)]

    async def _rows(self, query: str, *arguments: Any) -> list[Any]:
        return list(await self._connection.fetch(query, self.head.partition, *arguments))

    async def _pieces(self, query: str, rows_max: int, *arguments: Any) -> AsyncIterator[list[Any]]:
        cursor = await self._connection.cursor(query, self.head.partition, *arguments)
        while rows := await cursor.fetch(rows_max):
            yield rows


class Checkpoints(OnSession):
    """Any call may raise `StoreUnavailable` or `StoreRefused`; each can simply be made again."""

    def __init__(self, dsn: str, schema: str) -> None:
        settings = session_settings(schema, IDLE_S, STATEMENT_S, "checkpoints")
        settings["default_transaction_read_only"] = "on"
        settings["default_transaction_isolation"] = "repeatable read"
        self._session = Session(dsn, settings, STATEMENT_S, 10.0)

    async def partitions(self) -> list[int]:
        """Every partition that was ever claimed."""

        async def numbers(connection: Any) -> list[int]:
            return [row["partition"] for row in await connection.fetch(_QUERIES["partitions"])]

        return await self._transaction(numbers)

    async def latest_catalogue_version(self) -> int | None:
        """The newest published version; None when there is none."""

        async def number(connection: Any) -> int | None:
            found: int | None = await connection.fetchval(QUERIES["latest_catalogue"])
            return found

        return await self._transaction(number)

    async def catalogue(self, version: int) -> bytes | None:
        """A published version's JSON, whether a checkpoint names it or not."""

        async def body(connection: Any) -> bytes | None:
            found: bytes | None = await connection.fetchval(QUERIES["catalogue"], version)
            return found

        return await self._transaction(body)

    async def read(self, partition: int, work: Callable[[StoredCheckpoint], Awaitable[Result]]) -> Result:
        """What `work` makes of the partition's newest checkpoint. Raises KeyError when it was never claimed."""

        async def within(connection: Any) -> Result:
            row = await connection.fetchrow(_QUERIES["head"], partition)
            if row is None:
                raise KeyError(partition)
            last = None
            if row["last_offset"] is not None:
                last = LastRecord(row["last_offset"], row["last_append_ms"], row["last_digest"])
            head = Head(partition, row["epoch"], row["ckpt_seq"], row["next_offset"], last, row["blob"])
            return await work(StoredCheckpoint(connection, head))

        return await self._transaction(within)

    async def _transaction(self, work: Callable[[Any], Awaitable[Result]]) -> Result:
        try:
            return await self._session.transaction(work)
        except CommitUnknown as error:  # nothing was written: what was read may not have been read
            raise StoreUnavailable(str(error)) from error
