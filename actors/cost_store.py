"""Checkpoints of cost attribution in Postgres, and what people ask of them.

A checkpoint is one transaction: where its partition stands, the rows that changed, the differences that made them, and what
was set aside. It is fenced by the partition's epoch, which every claim raises."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec import Struct

from actors.ports import LastRecord
from actors.postgres import OnSession, Session, pico_of, session_settings, storable, units_of
from actors.queries import read_queries
from actors.turns import require_ownership
from engine.cost.gpu_rates import HOUR_US
from engine.cost.rollup import Key, RowChange, Sums
from engine.cost.window import Bucket

_QUERIES: Final = read_queries((Path(__file__).parent / "sql" / "costs.sql").read_text(encoding="utf-8"))
DROPPED_MAX: Final = 5_000  # differences, by one checkpoint


class CostClaim(Struct, frozen=True):
    """What a new owner of a partition starts from."""

    epoch: int
    ckpt_seq: int
    next_offset: int  # of the topic `served`
    last: LastRecord | None
    blob: bytes | None  # None: never checkpointed
    settled_us: int = 0  # as the last checkpoint had it


class CostLetter(Struct, frozen=True):
    """A record that changed nothing."""

    offset: int
    reason: str
    detail: str
    key: bytes | None
    value: bytes | None


class CostCheckpoint(Struct, frozen=True):
    """All that a partition has to write at one offset."""

    partition: int
    epoch: int
    ckpt_seq: int  # of this checkpoint; the row in the store must carry ckpt_seq - 1
    next_offset: int
    last: LastRecord | None
    blob: bytes
    settled_us: int
    closed_us: int
    settled_before_us: int  # as the checkpoint before had it: what changes of hours before it is a correction
    changes_from_us: int  # differences of hours that begin before are dropped
    currency: str  # "" while no rates are known
    rows: Sequence[RowChange]
    letters: Sequence[CostLetter]


class CostSum(Struct, frozen=True):
    """What some rows come to. What was not asked for is an empty text, or 0; so is what is not known."""

    account: str
    model: str
    feature: str
    hour_us: int
    bucket: str
    currency: str
    amount: int  # pico, of what is known
    unknown: int  # shares that are not
    requests: int
    computed: int
    cached: int
    output: int


class CostStatus(Struct, frozen=True):
    """How far a partition has come."""

    partition: int
    epoch: int
    ckpt_seq: int
    next_offset: int
    settled_us: int
    closed_us: int
    owner: str


class CostStore(OnSession):
    """One session. Any method may raise `StoreUnavailable` or `StoreRefused`."""

    def __init__(self, dsn: str, schema: str, lease_s: float, statement_timeout_s: float) -> None:
        """`lease_s` bounds how long a silent session of ours can block whoever claims a partition behind us."""
        settings = session_settings(schema, lease_s, statement_timeout_s, "cost")
        self._session = Session(dsn, settings, statement_timeout_s, statement_timeout_s)

    async def claim(self, partition: int, owner: str) -> CostClaim:
        """Own the partition from here on; whoever did is refused at its next checkpoint."""

        async def work(connection: Any) -> CostClaim:
            row = await connection.fetchrow(_QUERIES["claim"], partition, owner)
            last = None
            if row["last_offset"] is not None:
                last = LastRecord(row["last_offset"], row["last_append_ms"], row["last_digest"])
            place = row["epoch"], row["ckpt_seq"], row["next_offset"]
            return CostClaim(*place, last, row["blob"], row["settled_us"])

        return await self._session.repeatable(work)

    async def rows(self, partition: int, from_us: int) -> list[tuple[Key, Sums]]:
        """The rows of hours that begin at `from_us` or later."""

        async def work(connection: Any) -> list[tuple[Key, Sums]]:
            return [_row(row) for row in await connection.fetch(_QUERIES["rows_from"], partition, from_us)]

        return await self._session.repeatable(work)

    async def commit(self, checkpoints: Sequence[CostCheckpoint]) -> None:
        """All of them, each of another partition, in one transaction. Raises `Fenced`, and `CommitUnknown` when nobody knows:
        then claim the partitions again."""
        await self._session.transaction(lambda connection: _write(connection, checkpoints))

    async def statuses(self) -> list[CostStatus]:
        """Of every partition that was ever claimed."""

        async def work(connection: Any) -> list[CostStatus]:
            return [CostStatus(*row.values()) for row in await connection.fetch(_QUERIES["partitions"])]

        return await self._session.repeatable(work)

    async def blobs(self) -> dict[int, bytes]:
        """The newest checkpoint of each partition that has one."""

        async def work(connection: Any) -> dict[int, bytes]:
            return dict(await connection.fetch(_QUERIES["blobs"]))

        return await self._session.repeatable(work)

    async def sums(self, from_us: int, until_us: int, *, by: Sequence[str]) -> list[CostSum]:
        """What hours that begin in [from_us, until_us) cost, by any of account, model, feature, hour; and by bucket."""
        asked = [name in by for name in ("account", "model", "feature", "hour")]

        async def work(connection: Any) -> list[CostSum]:
            found = await connection.fetch(_QUERIES["sums"], from_us, until_us, *asked)
            return [CostSum(**{**dict(row), "amount": pico_of(row["amount"])}) for row in found]

        return await self._session.repeatable(work)

    async def change_sums(self, partition: int) -> dict[Key, int]:
        """The sum of all differences of each row that are still kept, in pico."""

        async def work(connection: Any) -> dict[Key, int]:
            found = await connection.fetch(_QUERIES["change_sums"], partition)
            return {_key(row): pico_of(row["change"]) for row in found}

        return await self._session.repeatable(work)

    async def dead_letters(self, limit: int) -> list[tuple[int, CostLetter]]:
        """(partition, letter), newest first, without their records."""

        async def work(connection: Any) -> list[tuple[int, CostLetter]]:
            found = await connection.fetch(_QUERIES["dead_letters"], limit)
            return [
                (row["partition"], CostLetter(row["log_offset"], row["reason"], row["detail"], None, None))
                for row in found
            ]

        return await self._session.repeatable(work)


async def _write(connection: Any, cuts: Sequence[CostCheckpoint]) -> None:
    ours = await connection.fetchmany(
        _QUERIES["commit_partition"],
        [
            (
                *(cut.partition, cut.epoch, cut.ckpt_seq, cut.next_offset),
                *(cut.last and cut.last.offset, cut.last and cut.last.append_ms, cut.last and cut.last.digest),
                *(cut.blob, cut.settled_us, cut.closed_us),
            )
            for cut in cuts
        ],
    )
    require_ownership("cost", cuts, ours)
    with_rows = [cut for cut in cuts if cut.rows]
    await connection.executemany(_QUERIES["commit_rows"], [_row_columns(cut) for cut in with_rows])
    await connection.executemany(_QUERIES["commit_changes"], [_change_columns(cut) for cut in with_rows])
    await connection.executemany(_QUERIES["commit_dead_letters"], [_letter_columns(cut) for cut in cuts if cut.letters])
    await connection.executemany(
        _QUERIES["drop_changes"], [(cut.partition, cut.changes_from_us, DROPPED_MAX) for cut in cuts]
    )


def _row_columns(cut: CostCheckpoint) -> list[Any]:
    sums = [row.sums for row in cut.rows]
    return [
        *(cut.partition, cut.currency, *_key_columns(cut), [units_of(each.amount) for each in sums]),
        *([each.unknown for each in sums], [each.requests for each in sums], [each.computed for each in sums]),
        *([each.cached for each in sums], [each.output for each in sums]),
    ]


def _change_columns(cut: CostCheckpoint) -> list[Any]:
    late = [row.key.hour_us + HOUR_US <= cut.settled_before_us for row in cut.rows]
    changes = [units_of(row.change) for row in cut.rows]
    return [cut.partition, cut.ckpt_seq, cut.currency, *_key_columns(cut), changes, late]


def _key_columns(cut: CostCheckpoint) -> list[list[Any]]:
    keys = [row.key for row in cut.rows]
    return [
        [key.hour_us for key in keys],
        [key.replica for key in keys],
        [key.model for key in keys],
        [key.bucket.value for key in keys],
        [key.account or "" for key in keys],
        [key.feature or "" for key in keys],
    ]


def _letter_columns(cut: CostCheckpoint) -> list[Any]:
    return [
        cut.partition,
        [letter.offset for letter in cut.letters],
        [letter.reason for letter in cut.letters],
        [storable(letter.detail) for letter in cut.letters],
        [letter.key for letter in cut.letters],
        [letter.value for letter in cut.letters],
    ]


def _key(row: Any) -> Key:
    names = (row["hour_us"], row["replica"], row["model"], Bucket(row["bucket"]))
    return Key(*names, row["account"] or None, row["feature"] or None)


def _row(row: Any) -> tuple[Key, Sums]:
    counts = (row["unknown"], row["requests"], row["computed"], row["cached"], row["output"])
    return _key(row), Sums(pico_of(row["amount"]), *counts)
