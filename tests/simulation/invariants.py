"""What may never be otherwise, each under its name: at every commit, at every step of a shard, and at rest.

| name | what holds | where it is looked at |
|---|---|---|
| conservation | per lot: came = remains + went; an account's balance is what its postings leave | every commit |
| posting | what is posted is posted in the period of log time, never in one behind it | every commit |
| outcome | a record has one outcome: nothing of it is written twice, nothing of a record outside the cut | every commit |
| offsets | a commit goes on where the last one ended, with an outcome for each record below its offset | every commit |
| log time | it is the running maximum of append times, and of where the clock of a sandbox is moved to | every commit |
| epoch | only the owner of the present epoch commits, and every checkpoint once | every commit |
| crossing | one id per crossing, one crossing per id; ordinals grow by one and never fall | every commit |
| speakers | at no moment do two shards speak for a partition | every fetch |
| queues | what waits in memory (sends, questions, alerts) stays within its bounds | every fetch |
| answers | an answer agrees with the log at its offset; none is given beyond a lease, or behind a later owner | end |
| overspend | usage that was held and reported in time takes no wallet below zero, at no offset | end |
| holds | a hold is captured once, released or expired, never two of them; none stays open beyond its time | end |
| leases | a lease is given behind its record; its rest goes back once, behind its last event or when it has ended | end |
| orphans | no task works for a partition that was let go, none for a shard that has stopped | end |
| fold | the checkpoint is the fold of its log without faults, and what the oracle says, to the last byte | end |
"""

import asyncio
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Final

import orjson
from msgspec import Struct

from actors.owned import Owned
from actors.ports import AccountRow, AlertRow, Checkpoint
from actors.shard import Shard
from engine.alerts import CORRECTION_FAILED, ID_CONFLICT
from engine.events import CONTROL_BODY_START, CONTROL_MAGIC
from engine.snapshot import PartitionState, _account_decoder, decode_partition
from tests.simulation.sim_log import SimPartition, SimRecord
from tests.simulation.sim_store import SimPartitionRow

NAMES: Final = tuple(line.split("|")[1].strip() for line in (__doc__ or "").splitlines() if line.startswith("| "))[1:]

Breach = tuple[str, str]  # the invariant's name, and a sentence


class _Told(Struct, frozen=True):
    """What an alert's id stands for."""

    partition: int
    offset: int
    crossing: tuple[str, str, str, int, str]  # account, rule, window, ordinal, phase


class AtCommit:
    """Follows what the store is given, commit by commit, with a ledger of its own."""

    NAMES: Final = ("epoch", "offsets", "log time", "outcome", "conservation", "posting", "crossing")

    def __init__(self) -> None:
        self._left: dict[str, dict[str, int]] = {}  # account -> lot -> pico neither burnt nor expired
        self._debt: dict[str, int] = {}
        self._posted_in: dict[str, int] = {}  # account -> the newest period that something was posted in
        self._append_times: dict[
            int, tuple[int, int]
        ] = {}  # partition -> records looked at, the latest of their instants
        self._told: dict[str, _Told] = {}
        self._ordinals: dict[tuple[str, str, str], int] = {}

    def breaches(self, row: SimPartitionRow, cut: Checkpoint, log: SimPartition) -> Iterator[Breach]:
        """What is wrong with the commit that is about to replace `row`."""
        where = f"partition {cut.partition}: commit {cut.ckpt_seq} of epoch {cut.epoch}"
        header = decode_partition(cut.blob)
        whole = log.whole
        records = whole[: bisect_left(whole, cut.next_offset, key=lambda record: record.offset)]
        checks = (
            self._epoch(row, cut),
            self._offsets(row, cut, header, records),
            self._log_time(cut, header, records),
            self._outcomes(row, cut),
            self._conserved(cut),
            self._posted_behind(cut, header),
            self._crossings(cut),
        )
        for name, sentences in zip(self.NAMES, checks, strict=True):
            for sentence in sentences:
                yield name, f"{where}: {sentence}"

    @staticmethod
    def _epoch(row: SimPartitionRow, cut: Checkpoint) -> Iterator[str]:
        if cut.epoch != row.epoch:
            yield f"the partition is at epoch {row.epoch}"
        if cut.ckpt_seq != row.ckpt_seq + 1:
            yield f"the last one was {row.ckpt_seq}"

    def _log_time(self, cut: Checkpoint, header: PartitionState, records: list[SimRecord]) -> Iterator[str]:
        known, newest_us = self._append_times.get(cut.partition, (0, 0))
        newest_us = max([newest_us, *(_reached_us(record) for record in records[known:])])
        self._append_times[cut.partition] = len(records), newest_us
        if header.log_time_us != newest_us:
            yield f"log time is {header.log_time_us}, the latest append time, or jump, {newest_us}"

    @staticmethod
    def _offsets(
        row: SimPartitionRow, cut: Checkpoint, header: PartitionState, records: list[SimRecord]
    ) -> Iterator[str]:
        if cut.next_offset < row.next_offset:
            yield f"goes back from offset {row.next_offset} to {cut.next_offset}"
        outcomes = sum(count for name, count in header.counts if not name.startswith("alert_"))
        if outcomes != len(records):
            yield f"{outcomes} outcomes of the {len(records)} records below offset {cut.next_offset}"
        newest = records[-1].offset if records else None
        last = None if cut.last is None else cut.last.offset
        if last != newest:
            yield f"its last record is {last}, the one below offset {cut.next_offset} is {newest}"

    @staticmethod
    def _outcomes(row: SimPartitionRow, cut: Checkpoint) -> Iterator[str]:
        offsets = [command.offset for command in cut.commands] + [letter.offset for letter in cut.dead_letters]
        told = [alert.offset for alert in cut.alerts]
        if outside := [offset for offset in offsets + told if not row.next_offset <= offset < cut.next_offset]:
            yield f"writes of records {outside}, which are not within {row.next_offset} to {cut.next_offset}"
        if len(offsets) != len(set(offsets)):
            yield f"a record has two outcomes: {sorted(offsets)}"

    def _conserved(self, cut: Checkpoint) -> Iterator[str]:
        touched: set[tuple[str, str]] = set()
        for posting in cut.postings:
            if posting.lot:
                lots = self._left.setdefault(posting.account, {})
                signed = posting.amount if posting.kind in ("grant", "refund") else -posting.amount
                lots[posting.lot] = lots.get(posting.lot, 0) + signed
                touched.add((posting.account, posting.lot))
            else:
                self._debt[posting.account] = self._debt.get(posting.account, 0) + posting.amount
        for account, lot in sorted(touched):
            if self._left[account][lot] < 0:
                yield f"lot {lot} of {account} has paid {-self._left[account][lot]} pico more than it held"
        for stored in cut.accounts:
            lots = self._left.get(stored.account, {})
            held = sum(lots.values()) - self._debt.get(stored.account, 0)
            if held != stored.balance:  # lots that are not effective yet do not count
                held -= sum(lots.get(lot, 0) for lot in _lots_to_come(stored))
            if held != stored.balance:
                yield f"the postings leave {stored.account} {held} pico, its balance is {stored.balance}"

    def _posted_behind(self, cut: Checkpoint, header: PartitionState) -> Iterator[str]:
        for posting in cut.postings:
            began_us, before_us = posting.posting_period_us, self._posted_in.get(posting.account, 0)
            if not before_us <= began_us <= header.log_time_us:
                yield f"{posting.account} is posted to in the period from {began_us}, and was in that from {before_us}"
            self._posted_in[posting.account] = max(began_us, before_us)

    def _crossings(self, cut: Checkpoint) -> Iterator[str]:
        for alert in cut.alerts:
            told = _crossing_of(alert, cut.partition)
            account, rule, window, ordinal, phase = told.crossing
            known = self._told.setdefault(alert.alert_id, told)
            if rule in (
                ID_CONFLICT,
                CORRECTION_FAILED,
            ):  # their ordinals count nothing: one id, however often it comes again
                continue
            if known != told:
                yield f"alert {alert.alert_id} stands for {known}, and for {told}"
            last = self._ordinals.get((account, rule, window), 0)
            if ordinal != last + (phase in ("alert.crossed", "top_up.requested")):
                yield f"{phase} {ordinal} of rule {rule}, window {window!r} of {account} follows ordinal {last}"
            self._ordinals[account, rule, window] = ordinal


def _reached_us(record: SimRecord) -> int:
    """Where the record takes log time to."""
    append_us, value = 1_000 * record.timestamp, record.value or b""
    if not value.startswith(CONTROL_MAGIC) or not value[CONTROL_BODY_START:].startswith(b'{"kind":"advance"'):
        return append_us
    jump: int = orjson.loads(value[CONTROL_BODY_START:])["until_us"]
    return max(append_us, jump)


def _lots_to_come(stored: AccountRow) -> list[str]:
    account = _account_decoder.decode(stored.blob)
    sources = {lot: source for lot, source, *_ in account.carries}  # what is carried counts where these do
    to_come = {lot for lot, _, _, _, effective_us, _, _ in account.lots if effective_us > account.woken_us}
    return [lot for lot in sorted(to_come) if sources.get(lot, lot) in to_come]


def _crossing_of(alert: AlertRow, partition: int) -> _Told:
    body = orjson.loads(alert.body)
    data = body["data"]
    crossing = (data["account"], data["rule"], data["window"], data["ordinal"], body["type"])
    return _Told(partition, alert.offset, crossing)


class Bounds(Struct, frozen=True):
    """How much of each kind may wait in one shard."""

    sends: int  # records under way, per partition
    questions: int  # that wait for an offset, per partition
    alerts: int  # in the outbox


def overflows(shard: Shard, bounds: Bounds) -> Iterator[str]:
    """Which queues of the shard are longer than they may be."""
    held = shard.alerts().held
    if held > bounds.alerts:
        yield f"the outbox holds {held} alerts, {bounds.alerts} are the most"
    for owned in shard._owned.values():
        if len(owned.sends) > bounds.sends:
            yield f"partition {owned.number}: {len(owned.sends)} sends are under way, {bounds.sends} are the most"
        if len(owned.waiting) > bounds.questions:
            yield f"partition {owned.number}: {len(owned.waiting)} questions wait, {bounds.questions} are the most"


def orphans(shard: Shard, tasks: Iterable["asyncio.Task[None]"]) -> Iterator[str]:
    """Tasks of this process that work for a partition which the shard has let go."""
    for task in tasks:
        frame = getattr(task.get_coro(), "cr_frame", None)  # None: it has ended
        owned = frame.f_locals.get("owned") if frame is not None else None
        if isinstance(owned, Owned) and shard._owned.get(owned.number) is not owned:
            yield f"{task.get_name()} works for partition {owned.number}, which was let go"
