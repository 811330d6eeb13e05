"""The margin of requests in Postgres: its checkpoints, and what people ask of it.

A checkpoint is one transaction: where its partition stands, and the rows that changed, of hours and of runs. It is fenced by
the partition's epoch, which every claim raises."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from actors.postgres import OnSession, Session, pico_of, session_settings, storable, units_of
from actors.queries import read_queries
from actors.turns import require_ownership
from engine.cost.exchange import DAY_US
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import RUN_KEPT_US, By, Key, Margin, RowChange

_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "margin.sql").read_text(encoding="utf-8"))
DROPPED_MAX: Final = 5_000  # rows of runs, by one checkpoint
_ALL: Final = 1 << 31  # rows: no limit that anybody meets


class MarginClaim(Struct, frozen=True):
    """What a new owner of a partition starts from."""

    epoch: int
    ckpt_seq: int
    rated_offset: int
    costs_offsets: tuple[int, ...]  # by partition of the topic `costs`
    closed_us: int


class MarginCheckpoint(Struct, frozen=True):
    """All that a partition has to write."""

    partition: int
    epoch: int
    ckpt_seq: int  # of this checkpoint; the row in the store must carry ckpt_seq - 1
    rated_offset: int
    costs_offsets: tuple[int, ...]
    closed_us: int
    told_us: int  # what was appended before this instant is in the rows
    runs_from_us: int  # rows of runs of hours that begin before are dropped
    rows: Sequence[RowChange]


class MarginStatus(Struct, frozen=True):
    """How far a partition has come."""

    partition: int
    epoch: int
    ckpt_seq: int
    rated_offset: int
    costs_offsets: tuple[int, ...]
    closed_us: int
    owner: str


class BucketSum(Struct, frozen=True):
    """Where cost of GPUs went: pico of what is known, and how many shares are not."""

    bucket: str
    currency: str
    amount: int
    unknown: int


class MarginStore(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str, lease_s: float, statement_timeout_s: float) -> None:
        """`lease_s` bounds how long a silent session of ours can block whoever claims a partition behind us."""
        settings = session_settings(schema, lease_s, statement_timeout_s, "margin")
        self._session = Session(dsn, settings, statement_timeout_s, statement_timeout_s)

    async def claim(self, partition: int, owner: str) -> MarginClaim:
        """Own the partition from here on; whoever did is refused at its next checkpoint."""

        async def work(connection: Any) -> MarginClaim:
            row = await connection.fetchrow(_QUERIES["claim"], partition, owner)
            return MarginClaim(
                row["epoch"], row["ckpt_seq"], row["rated_offset"], tuple(row["costs_offsets"]), row["closed_us"]
            )

        return await self._session.repeatable(work)

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Margin]]:
        """The rows of hours that begin at `from_us` or later; those of runs as far back as runs are known."""

        async def work(connection: Any) -> list[tuple[Key, Margin]]:
            rows = await connection.fetch(_QUERIES["rows_from"], partition, from_us)
            of_runs = await connection.fetch(_QUERIES["run_rows_from"], partition, from_us - RUN_KEPT_US)
            return [_row(row) for row in (*rows, *of_runs)]

        return await self._session.repeatable(work)

    async def costs_closed_us(self) -> int:
        """Hours before this instant are told of by no cost actor any more. 0: nobody has attributed anything."""

        async def work(connection: Any) -> int:
            return int(await connection.fetchval(_QUERIES["costs_closed"]) or 0)

        return await self._session.repeatable(work)

    async def commit(self, checkpoints: Sequence[MarginCheckpoint]) -> None:
        """All of them, each of another partition, in one transaction. Raises `Fenced`, and `CommitUnknown` when nobody knows:
        then claim the partitions again."""
        await self._session.transaction(lambda connection: _write(connection, checkpoints))

    async def statuses(self) -> list[MarginStatus]:
        """Of every partition that was ever claimed."""

        async def work(connection: Any) -> list[MarginStatus]:
            found = await connection.fetch(_QUERIES["statuses"])
            return [MarginStatus(**{**dict(row), "costs_offsets": tuple(row["costs_offsets"])}) for row in found]

        return await self._session.repeatable(work)

    async def sums(
        self, from_us: int, until_us: int, by: Sequence[By], limit: int = _ALL, *, by_day: bool = False
    ) -> list[tuple[Key, Margin]]:
        """Of hours that begin in [from_us, until_us), by anything but the request; in order, `limit` at most. `by_day`: told
        apart by the days of UTC too, which `hour_us` begins."""

        async def work(connection: Any) -> list[tuple[Key, Margin]]:
            return await margin_sums(connection, from_us, until_us, by, None, limit, by_day=by_day)

        return await self._session.repeatable(work)


async def margin_sums(
    connection: Any,
    from_us: int,
    until_us: int,
    by: Sequence[By],
    account: str | None,
    limit: int,
    *,
    by_day: bool = False,
) -> list[tuple[Key, Margin]]:
    """See `MarginStore.sums`. `by_day`: told apart by the days of UTC too, which `hour_us` begins."""
    step_us = HOUR_US if By.HOUR in by else DAY_US if by_day else 0
    asked = [name in by for name in (By.ACCOUNT, By.MODEL, By.FEATURE, By.PLAN)]
    query = _QUERIES["run_sums" if By.RUN in by else "sums"]
    return [_row(row) for row in await connection.fetch(query, from_us, until_us, step_us, *asked, account, limit)]


async def margin_of_run(connection: Any, account: str, run: str) -> list[tuple[Key, Margin]]:
    """All that a run was charged and cost, by currency; nothing of one that nobody has told of."""
    return [_row(row) for row in await connection.fetch(_QUERIES["sums_of_run"], account, run)]


async def bucket_sums(connection: Any, from_us: int, until_us: int) -> list[BucketSum]:
    """Where the cost of all GPUs went in hours that begin in [from_us, until_us)."""
    found = await connection.fetch(_QUERIES["buckets"], from_us, until_us)
    return [BucketSum(row["bucket"], row["currency"], pico_of(row["amount"]), row["unknown"]) for row in found]


async def _write(connection: Any, cuts: Sequence[MarginCheckpoint]) -> None:
    ours = await connection.fetchmany(
        _QUERIES["commit_partition"],
        [
            (
                *(cut.partition, cut.epoch, cut.ckpt_seq, cut.rated_offset),
                *(list(cut.costs_offsets), cut.closed_us, cut.told_us),
            )
            for cut in cuts
        ],
    )
    require_ownership("margin", cuts, ours)
    for query, of_runs in (("commit_rows", False), ("commit_run_rows", True)):
        told = [(cut.partition, [row for row in cut.rows if bool(row.key.run) is of_runs]) for cut in cuts]
        await connection.executemany(_QUERIES[query], [_columns(number, rows) for number, rows in told if rows])
    await connection.executemany(
        _QUERIES["drop_run_rows"], [(cut.partition, cut.runs_from_us, DROPPED_MAX) for cut in cuts]
    )


def _columns(partition: int, rows: Sequence[RowChange]) -> list[Any]:
    keys, sums = [row.key for row in rows], [row.sums for row in rows]
    columns: list[Any] = [
        *(partition, [key.hour_us for key in keys], [storable(key.account) for key in keys]),
        *([storable(key.model) for key in keys], [storable(key.feature) for key in keys]),
        *([key.plan for key in keys], [key.currency for key in keys]),
        *([units_of(each.revenue) for each in sums], [units_of(each.known_cost) for each in sums]),
        *([each.requests for each in sums], [each.without_cost for each in sums]),
        *([each.without_revenue for each in sums], [each.provisional for each in sums]),
        [each.foreign_cost for each in sums],
    ]
    if keys[0].run:
        columns += [[storable(key.run) for key in keys], [each.charges for each in sums]]
        columns += [[each.costs for each in sums]]
    return columns


def _row(row: Any) -> tuple[Key, Margin]:
    key = Key(*(row[name] for name in ("hour_us", "account", "model", "feature", "plan", "currency")))
    counts = (row["requests"], row["without_cost"], row["without_revenue"], row["provisional"])
    sums = Margin(pico_of(row["revenue"]), pico_of(row["known_cost"]), *counts, foreign_cost=row["foreign_cost"])
    if "run" in row:
        key = replace(key, run=row["run"])
        if "charges" in row:
            sums = replace(sums, charges=row["charges"], costs=row["costs"])
    return key, sums
