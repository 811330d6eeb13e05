"""The memory of rated events beside rating: generations that are closed are sealed, runs come near, sieves are made.

Rating needs none of it to be right. Loose generations are searched until their run has taken their place, in the store
first, then here; so a crash in between leaves either, never neither. A row that is not here yet is fetched alone when an
event may be the one it remembers (`rows`): rating of that partition waits before the record, with all before it folded and
nothing of it, as it would behind a slow log. So checks are answered meanwhile, by a partition that is ready, as ever.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Final

import xxhash

from actors.owned import Owned
from actors.ports import (
    RUN_PART_ROWS,
    Clock,
    Fenced,
    LocalRuns,
    Place,
    RunHead,
    Store,
    StoreRefused,
    StoreUnavailable,
)
from engine.dedup import Closed
from engine.runs import Buffer, Run, Sealed, seal

_log = logging.getLogger(__name__)

AGAIN_S: Final = 5.0  # after the store or the local disk refused


def runs_without_rows(heads: Iterable[RunHead]) -> list[Run]:
    """As a takeover loads them. What the outlines do not clear is then asked for, row by row."""
    return [Run(head.bucket, head.generation, head.count, head.outline, None) for head in heads]


async def whole_runs(store: Store, partition: int, heads: Iterable[RunHead]) -> list[Run]:
    """All of them in memory, for whoever looks at a partition that rests. Raises RowsLost."""
    runs = runs_without_rows(heads)
    for run in runs:
        rows = [part async for part in run_parts(store, partition, run)]
        run.bring(b"".join([run.outline, *rows]))
    return runs


async def run_parts(store: Store, partition: int, run: Run) -> AsyncIterator[Buffer]:
    """The rows of a run, a megabyte at a time. Raises StoreUnavailable, RowsLost."""
    for part in range(-(-run.count // RUN_PART_ROWS)):
        rows = await store.run_part(partition, run.bucket, run.generation, part)
        if rows is None:
            raise RowsLost(
                f"the store has lost part {part} of run {run.generation} of bucket {run.bucket}; restore dedup_rows"
            )
        yield rows


class RowsLost(Exception):
    """The store no longer has rows of a run that is still remembered: what was rated cannot be told any more."""


class Sealing:
    """For all partitions of one shard."""

    def __init__(
        self,
        store: Store,
        local: LocalRuns,
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"],
    ) -> None:
        self._store = store
        self._local = local
        self._clock = clock
        self._spawn = spawn

    async def rows(self, owned: Owned, places: Sequence[Place]) -> list[tuple[Place, bytes]]:
        """The rows at these places. Raises StoreUnavailable, StoreRefused, RowsLost."""
        rows = await self._store.run_rows(owned.number, places)
        found = [(place, row) for place, row in zip(places, rows, strict=True) if row is not None]
        if len(found) < len(places):
            raise RowsLost(f"the store has lost {len(places) - len(found)} rows of sealed runs; restore dedup_rows")
        return found

    def mind(self, owned: Owned) -> None:
        """Begin what there is to do, if it is time; one thing at a time per partition."""
        dedup = owned.fold.dedup
        if owned.sealing is not None or self._clock.boot_s() < owned.sealing_again_s:
            return
        if any((each.bucket, each.generation) in owned.sealable for each in dedup.closed()) or dedup.needs_work:
            owned.sealing = self._spawn(self._work(owned))

    async def _work(self, owned: Owned) -> None:
        dedup = owned.fold.dedup
        try:
            if work := dedup.unsieved():
                dedup.put_sieve(work, await self._local.work(work.done))
                return
            for closed in dedup.closed():
                if (closed.bucket, closed.generation) in owned.sealable:
                    await self._seal(owned, closed)
                    return
            if away := dedup.away():
                await self._bring(owned, away[0])
        except Fenced as error:
            _log.info("partition %d: a run was not sealed: %s", owned.number, error)
            owned.sealing_again_s = self._clock.boot_s() + AGAIN_S
        except (StoreUnavailable, StoreRefused, RowsLost) as error:
            _log.warning("partition %d: the memory of rated events waits: %s", owned.number, error)
            owned.sealing_again_s = self._clock.boot_s() + AGAIN_S
        except Exception:  # rating does not need it: what is loose stays loose, what is away is asked for row by row
            _log.exception("partition %d: the memory of rated events could not be sealed or brought", owned.number)
            owned.sealing_again_s = self._clock.boot_s() + AGAIN_S
        finally:
            owned.sealing = None

    async def _seal(self, owned: Owned, closed: Closed) -> None:
        sealed, digest = await self._local.work(partial(_sealed, closed))
        head = RunHead(closed.bucket, closed.generation, sealed.count, sealed.outline, digest)
        await self._store.seal(owned.number, owned.epoch, head, sealed.rows)
        whole = await self._local.keep(owned.number, head, _pieces(sealed.rows))
        run = Run(head.bucket, head.generation, head.count, head.outline, None)
        if whole is not None:
            run.bring(whole)
        owned.digests[head.bucket, head.generation] = digest
        owned.fold.dedup.adopt(run)

    async def _bring(self, owned: Owned, run: Run) -> None:
        digest = owned.digests[run.bucket, run.generation]
        head = RunHead(run.bucket, run.generation, run.count, bytes(run.outline), digest)
        whole = await self._local.find(owned.number, head)
        if whole is None:
            whole = await self._local.keep(owned.number, head, run_parts(self._store, owned.number, run))
        if whole is None:
            owned.sealing_again_s = self._clock.boot_s() + AGAIN_S
        else:
            run.bring(whole)


def _sealed(closed: Closed) -> tuple[Sealed, bytes]:
    sealed = seal(closed.pieces)
    digest = xxhash.xxh3_128(sealed.outline)
    digest.update(sealed.rows)
    return sealed, digest.digest()


async def _pieces(rows: bytes) -> AsyncIterator[Buffer]:
    yield rows
