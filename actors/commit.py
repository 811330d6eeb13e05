"""The commit contract: how a partition's state reaches Postgres, exactly once.

    1. cut      everything that changed since the last checkpoint, at one offset; rating goes on, copying on write
    2. encode   account by account, a few at a time, so that nobody waits long
    3. flush    what the log owes to others up to the cut (rated lines, forwards, dead letters) is durable in Kafka
    4. commit   one transaction, fenced by epoch and ckpt_seq: state, next offset, postings, outbox, dead letters
    5. tell     the outbox may write back what it has delivered

A crash before 4 repeats everything since the last checkpoint: the same state, the same lines under a higher epoch, the
same alert ids. A crash after 4 repeats nothing. An unknown outcome of 4 is settled by raising the epoch, never guessed. A store
that has gone back in time (a backup was restored) takes us for the owner although the log names a later one: its next
commit shows that, and we go on above every epoch that the log knows.
One cut is under way per partition; a commit that found Postgres away is tried again with the very same rows.
"""

import asyncio
import logging

import msgspec

from actors.owned import Owned
from actors.ports import (
    Checkpoint,
    Clock,
    CommitUnknown,
    Log,
    LogUnavailable,
    Outgoing,
    Store,
    StoreUnavailable,
)
from engine.cut import Cut
from engine.events import Owner, seal

_log = logging.getLogger(__name__)

ENCODE_ACCOUNTS: int = 20  # at most, between two looks at the rest of the world
ENCODE_S: float = 0.0003  # and no longer; an account takes 50 us and, with many rules and lots, many times that
RETRY_S: float = 0.2


class Committer:
    """Commits the cuts of one shard's partitions."""

    def __init__(self, store: Store, log: Log, clock: Clock, topic: str, control_key: bytes) -> None:
        self._store = store
        self._log = log
        self._clock = clock
        self._topic = topic
        self._control_key = control_key
        self._rests_until_s = float("-inf")  # nothing is encoded before

    async def checkpoint(self, owned: Owned) -> None:
        """Steps 1 to 4; nothing is committed of a partition that is halted, or given up, on the way.

        Raises Fenced when the partition is someone else's; nothing more may be done for it then."""
        sends = set(owned.sends)  # also of a cut whose commit was broken off: it may not have waited for them yet
        if owned.checkpoint is None:
            owned.checkpoint = await self._cut(owned)
        if await self._flushed(sends) and owned.running:
            await self._commit(owned)

    async def _cut(self, owned: Owned) -> Checkpoint:
        next_offset, last = owned.next_offset, owned.last
        owned.checkpointed_s = self._clock.boot_s()
        cut = owned.fold.begin_cut()
        while not self._encode_some(cut):
            await self._clock.sleep(0)
        owned.fold.end_cut()
        return Checkpoint(
            partition=owned.number,
            epoch=owned.epoch,
            ckpt_seq=owned.ckpt_seq + 1,
            next_offset=next_offset,
            last=last,
            blob=cut.blob,
            accounts=cut.accounts,
            dedup=cut.dedup,
            dedup_bucket_min=cut.dedup_bucket_min,
            commands=cut.commands,
            postings=cut.postings,
            alerts=cut.alerts,
            dead_letters=cut.dead_letters,
        )

    def _encode_some(self, cut: Cut) -> bool:
        """For a moment; True when no account is left. Then the encoding of all partitions rests for as long: they are due
        together, and a check would wait for a moment of each."""
        began_s = now_s = self._clock.boot_s()
        if began_s < self._rests_until_s:
            return False
        done = False
        for _ in range(ENCODE_ACCOUNTS):
            done = cut.encode(1)
            now_s = self._clock.boot_s()
            if done or now_s >= began_s + ENCODE_S:
                break
        self._rests_until_s = now_s + (now_s - began_s)
        return done

    async def _flushed(self, sends: set["asyncio.Task[None]"]) -> bool:
        """Whether all of it is durable. What was broken off, as the partition is no longer ours, may never be: it would be lost
        behind a checkpoint, and without one the next owner makes it anew."""
        if sends:
            await asyncio.wait(sends)
        return not any(send.cancelled() for send in sends)

    async def _commit(self, owned: Owned) -> None:
        checkpoint = owned.checkpoint
        assert checkpoint is not None
        named = owned.fold.epoch if owned.outrun else 0  # another owner, whom the log has named before this commit
        while True:
            try:
                await self._store.commit(checkpoint)
                break
            except StoreUnavailable as error:
                _log.warning("partition %d: Postgres is away, the checkpoint waits: %s", owned.number, error)
                await self._clock.sleep(RETRY_S)
            except CommitUnknown:
                if await self._settle(owned, checkpoint):
                    break
                checkpoint = msgspec.structs.replace(checkpoint, epoch=owned.epoch)
        owned.ckpt_seq = checkpoint.ckpt_seq
        owned.checkpointed_offset = checkpoint.next_offset
        owned.checkpoint = None
        if named >= owned.epoch:
            await self._overtake(owned, named)

    async def _overtake(self, owned: Owned, named: int) -> None:
        """An owner raises the store's epoch before the log names it. So a store that has just taken our commit has forgotten
        that one: it is older than the log. Without a higher epoch nobody would believe us, and whoever had ours before us
        would have approved what we do not know of."""
        _log.critical(
            "partition %d: the log names another owner of epoch %d, and the database none behind ours, %d: it was set back; "
            "what it lacked is rated again, and we go on at a higher epoch",
            owned.number,
            named,
            owned.epoch,
        )
        while owned.epoch <= named:
            await self._raise_epoch(owned, owned.ckpt_seq)
        await self._announce(owned)

    async def _settle(self, owned: Owned, checkpoint: Checkpoint) -> bool:
        """Whether the commit of unknown outcome took effect. We go on at a higher epoch either way."""
        committed = await self._raise_epoch(owned, checkpoint.ckpt_seq)
        await self._announce(owned)
        return committed

    async def _raise_epoch(self, owned: Owned, ckpt_seq: int) -> bool:
        """Whether the store holds that checkpoint."""
        while True:
            try:
                owned.epoch, committed = await self._store.settle_commit(owned.number, owned.epoch, ckpt_seq)
            except StoreUnavailable:
                await self._clock.sleep(RETRY_S)
            else:
                return committed

    async def _announce(self, owned: Owned) -> None:
        owned.fold.line_epoch = owned.epoch
        announcement = seal(self._control_key, self._topic, owned.number, msgspec.json.encode(Owner(owned.epoch)))
        try:
            await self._log.append([Outgoing("usage", announcement, partition=owned.number)])
        except LogUnavailable as error:
            # No record of ours bears the new epoch yet; the announcement only voids what bears a lower one.
            _log.warning("partition %d: epoch %d could not be announced: %s", owned.number, owned.epoch, error)
            owned.unannounced = True
