"""Becoming the owner of a partition: claim, load, check the log, announce, and wait until nobody else may speak.

In order: an owner that lives is left the time to hand over, so that its callers wait for milliseconds and not for its
lease; the claim raises the epoch, which fences the old owner's writes at once; the checkpoint is loaded, and must be the
claimed one (reads may be routed to a replica that is behind); the log must still hold what the checkpoint saw (before
we write to it: our own record would make a truncated log look whole); `owner(epoch)` goes into the log; records behind
the checkpoint are replayed by the rating loop. Only then, and once every previous owner is dead or its lease has run
out, is the partition ready. Whatever fails on the way is tried again from the start by the shard, at a higher epoch.
"""

from typing import Final

import msgspec

from actors.owned import Owned
from actors.ports import (
    Claim,
    Clock,
    Deaths,
    Log,
    LogDamaged,
    Outgoing,
    PartitionImage,
    StillOwned,
    Store,
    StoreUnavailable,
    record_digest,
)
from actors.sealing import runs_without_rows
from engine.catalog import Catalogue, load_catalogue
from engine.events import Owner, seal
from engine.partition import COMMAND_KEY_US, CatalogueMissing, Partition
from engine.snapshot import decode_partition

HAND_OVER_S: Final = 5.0  # a living owner has heard of the move within a second; a last checkpoint may take another
HAND_OVER_LOOK_S: Final = 0.02  # between two tries of a claim that waits for the owner's release


class CatalogueLost(Exception):
    """A marker in the log names a catalogue version that the store does not hold."""


async def load_version(store: Store, library: dict[int, Catalogue], version: int, *, hurried: bool = False) -> None:
    """Put a catalogue version into the library. Raises CatalogueLost. `hurried`: see `Store.catalogue`."""
    body = await store.catalogue(version, hurried=hurried)
    if body is None:
        raise CatalogueLost(f"catalogue version {version} is in the log but not in the store; restore its row")
    library[version] = load_catalogue(version, body)


async def take_over(
    partition: int,
    incarnation: str,
    *,
    topic: str,
    control_key: bytes,
    library: dict[int, Catalogue],
    store: Store,
    log: Log,
    clock: Clock,
) -> tuple[Owned, PartitionImage]:
    """The partition, loaded and ready to replay, and what the store held of it.

    Raises Fenced, StoreUnavailable, LogUnavailable (try again), LogDamaged, CatalogueLost, UnknownSnapshot (halt)."""
    claim = await _claim(partition, incarnation, store, clock)
    claimed_s = clock.boot_s()
    log_time_us = decode_partition(claim.blob).log_time_us if claim.blob else 0
    image = await store.load(partition, log_time_us - COMMAND_KEY_US)
    _check_image(claim, image)
    fold = Partition(partition, log.partitions, topic, control_key, library)
    fold.line_epoch = claim.epoch
    fold.skips = frozenset(image.engine_errors)
    while True:
        try:
            fold.load(claim.blob, image.accounts, image.dedup, image.commands, runs_without_rows(image.runs))
            break
        except CatalogueMissing as missing:
            await load_version(store, library, missing.version)
    await _check_log(log, claim)
    announcement = seal(control_key, topic, partition, msgspec.json.encode(Owner(claim.epoch)))
    [owner_offset] = await log.append([Outgoing("usage", announcement, partition=partition)])
    owned = Owned(
        fold=fold,
        epoch=claim.epoch,
        ckpt_seq=claim.ckpt_seq,
        next_offset=claim.next_offset,
        last=claim.last,
        owner_offset=owner_offset,
        previous=claim.previous,
        claimed_s=claimed_s,
        checkpointed_s=claimed_s,
        checkpointed_offset=claim.next_offset,
        sealable=frozenset((each.bucket, each.generation) for each in fold.dedup.closed()),
        digests={(head.bucket, head.generation): head.digest for head in image.runs},
    )
    return owned, image


def _check_image(claim: Claim, image: PartitionImage) -> None:
    """What was loaded must be what was claimed, not what a replica held a moment before."""
    if (image.epoch, image.ckpt_seq) != (claim.epoch, claim.ckpt_seq):
        raise StoreUnavailable(
            f"partition {claim.partition}: checkpoint {claim.ckpt_seq} of epoch {claim.epoch} was claimed, but the "
            f"database read from shows {image.ckpt_seq} of {image.epoch}: it is behind, or the claim is over"
        )


async def _claim(partition: int, incarnation: str, store: Store, clock: Clock) -> Claim:
    """Patiently at first; an owner that lives and does not hand over is fenced, and its lease waited out."""
    asked_s = clock.boot_s()
    while True:
        try:
            return await store.claim(partition, incarnation, patient=clock.boot_s() - asked_s < HAND_OVER_S)
        except StillOwned:
            await clock.sleep(HAND_OVER_LOOK_S)


async def _check_log(log: Log, claim: Claim) -> None:
    """The log must reach back to the checkpoint, and its last record must be the one that the checkpoint saw."""
    first, end = await log.bounds(claim.partition)
    where = f"partition {claim.partition}"
    if first > claim.next_offset:
        raise LogDamaged(
            f"{where}: the log starts at {first}, the checkpoint ends at {claim.next_offset}: retention took records "
            "that were never rated; restore them, or accept the loss by hand",
            claim.partition,
        )
    if end < claim.next_offset:
        raise LogDamaged(
            f"{where}: the log ends at {end}, before the checkpoint at {claim.next_offset}: it was truncated; restore "
            "its records, or see that the settings name the right cluster and topic",
            claim.partition,
        )
    if claim.last is None or claim.last.offset < first:
        return
    record = await log.read_one(claim.partition, claim.last.offset)
    if record is None or (record.timestamp, record_digest(record.key, record.value)) != (
        claim.last.append_ms,
        claim.last.digest,
    ):
        raise LogDamaged(
            f"{where}: the record at {claim.last.offset} is not the one that the checkpoint saw: the log was replaced; "
            "restore the old one, or see that the settings name the right cluster and topic",
            claim.partition,
        )


def may_speak(owned: Owned, deaths: Deaths, clock: Clock) -> bool:
    """Whether no previous owner can still answer: each is proven dead, or its lease has run out since the claim."""
    waited_s = clock.boot_s() - owned.claimed_s
    return all(
        previous.lease_left_s < waited_s or deaths.proven(previous.host, previous.lock_path)
        for previous in owned.previous
    )
