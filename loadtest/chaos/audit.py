"""What Postgres itself says happened to the table `partition`: every update, in the order in which they took effect.

A trigger of the run's own writes the history, in a schema of its own and in the transaction of each update: what was
rolled back leaves no trace, and no word of the engine is taken for it.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import Final

import asyncpg
from msgspec import Struct

_INSTALL: Final = """
CREATE SCHEMA {audit};
CREATE TABLE {audit}.partition_update (
    number      bigserial PRIMARY KEY,
    partition   integer NOT NULL,
    epoch_was   bigint NOT NULL,
    epoch       bigint NOT NULL,
    seq_was     bigint NOT NULL,
    seq         bigint NOT NULL,
    offset_was  bigint NOT NULL,
    next_offset bigint NOT NULL,
    owner       text,
    owner_pid   integer,
    pid         integer NOT NULL,
    at          timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE FUNCTION {audit}.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO {audit}.partition_update
        (partition, epoch_was, epoch, seq_was, seq, offset_was, next_offset, owner, owner_pid, pid)
    VALUES (NEW.partition, OLD.epoch, NEW.epoch, OLD.ckpt_seq, NEW.ckpt_seq, OLD.next_offset, NEW.next_offset,
            NEW.owner, NEW.backend_pid, pg_backend_pid());
    RETURN NULL;
END $$;
CREATE TRIGGER note_update AFTER UPDATE ON {schema}.partition FOR EACH ROW EXECUTE FUNCTION {audit}.note();
"""
_READ: Final = """
SELECT partition, epoch_was, epoch, seq_was, seq, offset_was, next_offset, owner, owner_pid, pid
FROM {audit}.partition_update ORDER BY partition, number
"""


class PartitionUpdate(Struct, frozen=True):
    """One update of a partition's row; `_was` is the value before it."""

    partition: int
    epoch_was: int
    epoch: int
    seq_was: int
    seq: int
    offset_was: int
    next_offset: int
    owner: str | None
    owner_pid: int | None  # the session that the row names as its owner's
    pid: int  # the session that made the update

    @property
    def commits(self) -> bool:
        """Whether it is a checkpoint."""
        return self.seq != self.seq_was or self.next_offset != self.offset_was


class History(Struct):
    """What the updates come to."""

    commits: int = 0
    claims: int = 0  # and settlements: the epoch was raised
    stale: int = 0  # checkpoints from a session that was not the owner's
    owners: dict[int, list[str]] = {}  # of each partition, in turn
    sentences: list[str] = []  # what may not be; none when all is well


class Audit:
    """The trigger on one schema's table. `dsn` is its owner's."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = dsn
        self._schema = schema
        self._audit = f"{schema}_audit"

    async def install(self) -> None:
        """Before the first shard starts; it goes with the database."""
        await self._run(_INSTALL)

    async def updates(self) -> list[PartitionUpdate]:
        """Every update so far, by partition, in the order in which they took effect."""
        connection = await asyncpg.connect(self._dsn)
        try:
            rows = await connection.fetch(_READ.format(audit=self._audit))
        finally:
            await connection.close()
        return [PartitionUpdate(*row.values()) for row in rows]

    async def _run(self, statements: str) -> None:
        connection = await asyncpg.connect(self._dsn)
        try:
            await connection.execute(statements.format(audit=self._audit, schema=self._schema))
        finally:
            await connection.close()


def judge(updates: Iterable[PartitionUpdate]) -> History:
    """A checkpoint counts from one session only, the owner's; numbers go up by one, offsets and epochs never down."""
    history = History()
    owners: dict[int, list[str]] = defaultdict(list)
    for update in updates:
        where = f"partition {update.partition}, epoch {update.epoch}, checkpoint {update.seq}"
        if update.epoch < update.epoch_was:
            history.sentences.append(f"{where}: the epoch went down from {update.epoch_was}")
        if update.epoch > update.epoch_was:
            history.claims += 1
        if update.owner is not None and [update.owner] != owners[update.partition][-1:]:
            owners[update.partition].append(update.owner)
        if not update.commits:
            continue
        history.commits += 1
        if update.pid != update.owner_pid:
            history.stale += 1
            history.sentences.append(f"{where}: committed by session {update.pid}, the owner's is {update.owner_pid}")
        if update.seq != update.seq_was + 1:
            history.sentences.append(f"{where}: the checkpoint before it was {update.seq_was}")
        if update.next_offset < update.offset_was:
            history.sentences.append(f"{where}: went back from offset {update.offset_was} to {update.next_offset}")
    history.owners = dict(owners)
    return history
