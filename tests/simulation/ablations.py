"""Safeguards, each taken away: a simulation that does not notice proves nothing when it is silent.

An ablation is a patch of the production code, or of the promise of a port on which it rests.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, Final
from unittest import mock
from zlib import crc32

import msgspec
from msgspec import Struct

from actors import shard as shard_module
from actors import takeover as takeover_module
from actors.answers import Answers
from actors.commit import Committer
from actors.lease import Heartbeat, Lease
from actors.owned import Owned, Stage
from actors.ports import Checkpoint, Claim, Clock, Deaths, Fenced, Log, PartitionImage, Record
from actors.shard import Shard
from engine import account as account_module
from engine import admission as admission_module
from engine import partition as partition_module
from engine import snapshot as snapshot_module
from engine.account import Account
from engine.admission import Desk, _Till
from engine.alerts import Crossing, Phase, Standing, step
from engine.cut import Cut
from engine.dedup import Dedup, identity
from engine.events import Leases, Malformed, Rerate, Slices, fingerprint, parse_usage
from engine.guard import Guard
from engine.holds import Hold
from engine.leases import LeaseBook
from engine.leasing import Leased
from engine.manual_lines import ManualLine, Rerating
from engine.money import parse_amount
from engine.outcomes import DeadLetterReason
from engine.outlook import Ledger
from engine.partition import Partition
from engine.top_up import TopUp
from loadtest import report as report_module
from tests.simulation.chaos import Strike
from tests.simulation.sim_log import SimBroker, SimLog, SimRecord
from tests.simulation.sim_store import SimPartitionRow, SimStore
from tests.simulation.simulate import Outcome, simulate


async def _commit_at_any_epoch(self: SimStore, checkpoint: Checkpoint) -> None:
    session = await self._enter("commit")
    row = await self._locked(checkpoint.partition)
    if row.ckpt_seq != checkpoint.ckpt_seq - 1:
        raise Fenced("the sequence alone is checked")
    self._write(row, checkpoint)
    await self._leave_commit(session)


async def _commit_at_any_sequence(self: SimStore, checkpoint: Checkpoint) -> None:
    row = await self._locked(checkpoint.partition)
    await _commit(self, msgspec.structs.replace(checkpoint, ckpt_seq=row.ckpt_seq + 1))


async def _commit_without_a_fence(self: SimStore, checkpoint: Checkpoint) -> None:
    row = await self._locked(checkpoint.partition)
    await _commit(self, msgspec.structs.replace(checkpoint, epoch=row.epoch, ckpt_seq=row.ckpt_seq + 1))


async def _commit_the_offset_afterwards(self: SimStore, checkpoint: Checkpoint) -> None:
    row = self._database.partition(checkpoint.partition)
    before = row.next_offset, row.last
    await _commit(self, checkpoint)
    row.next_offset, row.last = before
    await asyncio.sleep(0.02)
    row.next_offset, row.last = checkpoint.next_offset, checkpoint.last


async def _do_not_wait_for_the_row(self: SimStore, partition: int) -> SimPartitionRow:
    return self._database.partition(partition)


async def _claim_an_offset_too_far(self: SimStore, partition: int, incarnation: str, *, patient: bool) -> Claim:
    claim = await _claim(self, partition, incarnation, patient=patient)
    return msgspec.structs.replace(claim, next_offset=claim.next_offset + 1)


async def _claim_an_offset_too_few(self: SimStore, partition: int, incarnation: str, *, patient: bool) -> Claim:
    claim = await _claim(self, partition, incarnation, patient=patient)
    return msgspec.structs.replace(claim, next_offset=max(0, claim.next_offset - 1))


async def _load_no_alerts(self: SimStore, partition: int, command_log_time_min_us: int) -> PartitionImage:
    image = await _load(self, partition, command_log_time_min_us)
    return msgspec.structs.replace(image, alerts=[])


async def _load_no_commands(self: SimStore, partition: int, command_log_time_min_us: int) -> PartitionImage:
    image = await _load(self, partition, command_log_time_min_us)
    return msgspec.structs.replace(image, commands=[])


async def _believe_unknown_is_done(self: Committer, owned: Owned, checkpoint: Checkpoint) -> bool:
    return True


async def _believe_unknown_is_not_done(self: Committer, owned: Owned, checkpoint: Checkpoint) -> bool:
    return False


async def _settle_by_a_plain_read(self: Committer, owned: Owned, checkpoint: Checkpoint) -> bool:
    assert isinstance(self._store, SimStore)
    return self._store._database.partition(owned.number).ckpt_seq == checkpoint.ckpt_seq


def _halt_for_good(_self: Shard, owned: Owned, reason: str, *, again: bool = False) -> None:
    owned.halt(reason)


async def _trust_the_log(_log: Log, _claim: Claim) -> None:
    pass


async def _wait_only(_self: Committer, sends: set["asyncio.Task[None]"]) -> bool:
    if sends:
        await asyncio.wait(sends)
    return True


async def _do_not_wait(_self: Committer, _sends: set["asyncio.Task[None]"]) -> bool:
    return True


def _tell_only_when_ready(self: Shard, owned: Owned) -> None:
    alerts = owned.fold.outputs.alerts
    for alert in alerts if owned.stage is Stage.READY else []:
        self._outbox.offer(owned.number, alert)
    alerts.clear()


async def _count_from_the_answer(self: Heartbeat) -> None:
    await _renew(self)
    if not self._lease.fenced:
        self._lease.extend(self._clock.boot_s() + self._settings.lease_s, self._lease.partitions)


def _apply_at_the_records_time(
    self: Partition, offset: int, append_ms: int, key: bytes | None, value: bytes | None
) -> str:
    self.log_time_us = min(self.log_time_us, 1_000 * append_ms - 1)
    return _apply(self, offset, append_ms, key, value)


def _append_at_the_producers_time(
    self: SimBroker, topic: str, key: bytes | None, value: bytes | None, partition: int | None = None
) -> tuple[int, int]:
    self.append_time = False
    place = _append(self, topic, key, value, partition)
    off_s = crc32(value or b"") % 1_200 - 600
    self.topic(topic, place[0]).records[-1].timestamp += 1_000 * off_s
    return place


async def _start_whatever_the_topic(self: SimLog) -> None:
    await self._gate("log.start.before")
    self._broker.check_up()
    await self._gate("log.start.after")


async def _fetch_at_the_readers_time(self: SimLog, records_max: int, timeout_s: float) -> dict[int, Sequence[Record]]:
    batches = await _fetch(self, records_max, timeout_s)
    now_ms = self._clock.wall_us() // 1000
    return {
        partition: [SimRecord(record.offset, now_ms, record.key, record.value) for record in records]
        for partition, records in batches.items()
    }


def _step_without_counting(standing: Standing, *, reached: bool, cleared: bool) -> tuple[Standing, Phase | None]:
    after, phase = step(standing, reached=reached, cleared=cleared)
    return Standing(min(after.ordinal, 1), after.active), phase


def _settle_for_the_last_lines(lines: Iterable[Mapping[str, Any]]) -> dict[tuple[int, int], list[Mapping[str, Any]]]:
    last: dict[tuple[int, int], dict[int, Mapping[str, Any]]] = {}
    for line in lines:
        last.setdefault((line["partition"], line["offset"]), {})[line["line"]] = line
    return {place: list(rows.values()) for place, rows in last.items()}


def _remember_the_dead(
    self: Partition, offset: int, key: bytes | None, value: bytes | None, reason: DeadLetterReason, detail: str
) -> str:
    with suppress(Malformed, TypeError, AttributeError):
        event = parse_usage(value)  # type: ignore[arg-type]  # what has no value is malformed too
        name = identity(event.subject or "", event.source, event.id)
        if self.dedup.find(name) is None and event.time_us is not None:
            self.dedup.remember(name, fingerprint(event, event.time_us), offset, self.log_time_us)
    return _dead_letter(self, offset, key, value, reason, detail)


def _search_without_doubts(self: Dedup, keys: Sequence[bytes]) -> dict[bytes, Any]:
    return {key: found for key, found in _search(self, keys).items() if not isinstance(found, frozenset)}


def _slice_of_any_epoch(self: Partition, slices: Slices) -> str:
    epoch, self.epoch = self.epoch, slices.epoch
    try:
        return _slice(self, slices)
    finally:
        self.epoch = epoch


def _free_slices(self: Account, epoch: int, log_time_us: int) -> None:
    self.slices = {other: each for other, each in self.slices.items() if other >= epoch}


def _lease_of_any_epoch(self: Partition, leases: Leases) -> str:
    epoch, self.epoch = self.epoch, leases.epoch
    try:
        return _lease(self, leases)
    finally:
        self.epoch = epoch


def _free_what_is_closed(self: LeaseBook, lease: str, sent: int) -> None:
    _close(self, lease, sent)
    known = self.of.get(lease)
    if known is not None and known.sent is not None:
        self._set(msgspec.structs.replace(known, left=(0,) * len(known.left)))


def _extend_what_has_ended(self: LeaseBook, hold: Hold, log_time_us: int) -> None:
    _put(self, msgspec.structs.replace(hold, extends=False), log_time_us)


def _forget_leases_with_their_owner(self: Partition, epoch: int) -> None:
    for account_id in sorted(self._leased):
        self._touch(account_id).leases.of.clear()
    _close_slices(self, epoch)


def _speak_at_once(_owned: Owned, _deaths: Deaths, _clock: Clock) -> bool:
    return True


def _reclaim_by_the_own_clock(self: Desk, log_time_us: int, now_us: int) -> int:
    return _reclaim(self, now_us, now_us)


def _withhold_nothing(self: Ledger, _slices: object) -> None:
    self.withheld = {}


def _without_the_open_request(*stored: Any) -> TopUp:
    terms, ordinal, failed, since_us, _asked, low = stored
    return TopUp(terms, ordinal, failed, since_us, None, low)


def _lost_of_what_is_assigned(self: Lease, partition: int, claimed_s: float) -> bool:
    return partition in self.partitions and _lost(self, partition, claimed_s)


def _guarded_by_who_pays_by_now(self: Account, time_us: int, now_us: int) -> Guard | None:
    guard = _guarded(self, time_us, now_us)
    if guard is not None and guard.start not in self.table:
        derived = self.derive()
        guard.payment = self._payment(guard, derived)
        guard.ledger = derived.allocation.postings(self.billed_us)
    return guard


def _post_what_is_stated(account: Account, command: Rerate, _book: object, log_time_us: int) -> list[Crossing]:
    segment_us, _ = account.segment_around(log_time_us)
    asked = Rerating(command.version, command.from_us, command.to_us)
    why = command.reason, command.by
    lines = {
        f"{command.rerate}/{command.price}/{period_us}": ManualLine(
            log_time_us, segment_us, period_us, command.price, parse_amount(amount), *why, asked
        )
        for period_us, amount in command.differences
    }
    return account.add_lines(lines, log_time_us)


def _answer_without_a_lease(_self: Answers, owned: Owned) -> bool:
    return owned.speaks


_search = Dedup._search
_commit, _claim, _load, _renew = SimStore.commit, SimStore.claim, SimStore.load, Heartbeat.renew
_reclaim = Desk.reclaim
_append, _fetch = SimBroker.append, SimLog.fetch
_apply, _dead_letter, _slice = Partition.apply, Partition._dead_letter, Partition._slice
_lease, _close_slices = Partition._lease, Partition._close_slices
_put, _close = LeaseBook.put, LeaseBook.close
_lost, _guarded = Lease.lost, Account._guarded

Patch = Callable[[], Any]


def _method(owner: Any, name: str, replacement: Any) -> Patch:
    return lambda: mock.patch.object(owner, name, replacement)


class Ablation(Struct, frozen=True):
    """What is taken away."""

    name: str
    patches: tuple[Patch, ...]


ABLATIONS: Final = (
    Ablation("a commit of an old epoch is taken", (_method(SimStore, "commit", _commit_at_any_epoch),)),
    Ablation("a commit is not fenced at all", (_method(SimStore, "commit", _commit_without_a_fence),)),
    Ablation(
        "an unknown commit is tried again, and the sequence is not checked",
        (
            _method(Committer, "_settle", _believe_unknown_is_not_done),
            _method(SimStore, "commit", _commit_at_any_sequence),
        ),
    ),
    Ablation(
        "an unknown commit is taken as done, and the sequence is not checked",
        (
            _method(Committer, "_settle", _believe_unknown_is_done),
            _method(SimStore, "commit", _commit_at_any_sequence),
        ),
    ),
    Ablation("nothing is remembered of events rated before", (_method(Dedup, "mark", lambda *_: None),)),
    Ablation("the memory of events is not loaded", (_method(Dedup, "load", lambda *_: None),)),
    Ablation(
        "an event is rated before the run that may hold it is in", (_method(Dedup, "_search", _search_without_doubts),)
    ),
    Ablation("the memory of commands is not loaded", (_method(SimStore, "load", _load_no_commands),)),
    Ablation("a cut does not copy on write", (_method(Cut, "before_change", lambda *_: None),)),
    Ablation("a commit does not wait for what is under way to Kafka", (_method(Committer, "_flushed", _do_not_wait),)),
    Ablation("a successor begins one record late", (_method(SimStore, "claim", _claim_an_offset_too_far),)),
    Ablation("a successor begins one record early", (_method(SimStore, "claim", _claim_an_offset_too_few),)),
    Ablation(
        "alerts made before a successor may speak are dropped", (_method(Shard, "_tell_alerts", _tell_only_when_ready),)
    ),
    Ablation("a successor does not tell what the outbox holds", (_method(SimStore, "load", _load_no_alerts),)),
    Ablation(
        "a successor waits neither for the hand-over nor for the old lease",
        (_method(shard_module, "may_speak", _speak_at_once), _method(takeover_module, "HAND_OVER_S", 0.0)),
    ),
    Ablation(
        "a lease counts from the answer, not from the question", (_method(Heartbeat, "renew", _count_from_the_answer),)
    ),
    Ablation(
        "a lease that had lapsed brings back what another has claimed", (_method(Lease, "lost", lambda *_: False),)
    ),
    Ablation(
        "a lease that had lapsed brings back what another has claimed and is to keep",
        (_method(Lease, "lost", _lost_of_what_is_assigned),),
    ),
    Ablation("deliveries are not written back", (_method(Shard, "_write_back_if_due", lambda *_: None),)),
    Ablation("a hold is approved before its slice is in the log", (_method(_Till, "usable", lambda *_: 1 << 80),)),
    Ablation("what earlier owners approved is not withheld", (_method(Ledger, "withhold", _withhold_nothing),)),
    Ablation("a hold is reclaimed by the owner's clock alone", (_method(Desk, "reclaim", _reclaim_by_the_own_clock),)),
    Ablation("a suspended account is approved", (_method(admission_module, "standing_denies", lambda *_: None),)),
    Ablation("a shard answers beyond its lease", (_method(Answers, "_may_answer", _answer_without_a_lease),)),
    Ablation(
        "an unknown commit is settled by a plain read, and the sequence is not checked",
        (
            _method(Committer, "_settle", _settle_by_a_plain_read),
            _method(SimStore, "commit", _commit_at_any_sequence),
        ),
    ),
    Ablation("nobody waits for a commit in doubt", (_method(SimStore, "_locked", _do_not_wait_for_the_row),)),
    Ablation(
        "the offset is written behind the transaction", (_method(SimStore, "commit", _commit_the_offset_afterwards),)
    ),
    Ablation("the image of a stale replica is taken", (_method(takeover_module, "_check_image", lambda *_: None),)),
    Ablation(
        "what broke the engine is not skipped when it is replayed",
        (lambda: mock.patch.object(Partition, "skips", property(lambda _: frozenset(), lambda *_: None), create=True),),
    ),
    Ablation(
        "a record that breaks the engine half way stays half applied",
        (lambda: mock.patch.object(Partition, "_changing", property(lambda _: False, lambda *_: None), create=True),),
    ),
    Ablation("what is mended does not go on by itself", (_method(Shard, "_halt", _halt_for_good),)),
    Ablation("a damaged log is not noticed", (_method(takeover_module, "_check_log", _trust_the_log),)),
    Ablation("records handed out again are folded again", (_method(shard_module, "bisect_left", lambda *_, **__: 0),)),
    Ablation("log time is not the running maximum", (_method(Partition, "apply", _apply_at_the_records_time),)),
    Ablation(
        "a topic with the producers' timestamps is taken",
        (
            _method(SimBroker, "append", _append_at_the_producers_time),
            _method(SimLog, "start", _start_whatever_the_topic),
        ),
    ),
    Ablation("lots expire by the reader's clock", (_method(SimLog, "fetch", _fetch_at_the_readers_time),)),
    Ablation("an ordinal is used again", (_method(account_module, "step", _step_without_counting),)),
    Ablation(
        "rated lines count by who wrote last", (_method(report_module, "settled_lines", _settle_for_the_last_lines),)
    ),
    Ablation("the id of a dead letter is remembered", (_method(Partition, "_dead_letter", _remember_the_dead),)),
    Ablation("slices of an epoch that is over are honoured", (_method(Partition, "_slice", _slice_of_any_epoch),)),
    Ablation("a slice is freed when its owner is followed", (_method(Account, "close_slices", _free_slices),)),
    Ablation("a lease is not debited when it is granted", (_method(Leased, "mind", lambda *_: None),)),
    Ablation(
        "a lease is free once it is closed, whatever is in the spool",
        (_method(LeaseBook, "close", _free_what_is_closed),),
    ),
    Ablation(
        "leases end with the owner who granted them",
        (_method(Partition, "_close_slices", _forget_leases_with_their_owner),),
    ),
    Ablation("leases of an epoch that is over are honoured", (_method(Partition, "_lease", _lease_of_any_epoch),)),
    Ablation("an extension brings back a lease that has ended", (_method(LeaseBook, "put", _extend_what_has_ended),)),
    Ablation(
        "an open request for credit dies with its owner",
        (_method(snapshot_module, "TopUp", _without_the_open_request),),
    ),
    Ablation(
        "what is rated again need not be what it comes to by now",
        (_method(partition_module, "rerate", _post_what_is_stated),),
    ),
    Ablation("a tick that came too early is not asked again", (_method(shard_module, "TICK_AGAIN_S", 1e9),)),
)

# What a seed in a hundred thousand notices: only the one that found it is tried.
RARE: Final = (
    Ablation(
        "what was broken off on its way to Kafka is taken for durable", (_method(Committer, "_flushed", _wait_only),)
    ),
    Ablation(
        "who gives a partition back speaks until it hears that it is given",
        (_method(Owned, "fall_silent", lambda _: None),),
    ),
    Ablation(
        "who pays for the first usage of a segment is told ahead",
        (_method(Account, "_guarded", _guarded_by_who_pays_by_now),),
    ),
)

# The first seed that noticed, when all were last searched for from 0 on; seed 0 notices what is not named.
NOTICED_BY: Final = {
    "a commit of an old epoch is taken": 34,
    "a commit is not fenced at all": 55,
    "an unknown commit is tried again, and the sequence is not checked": 6,
    "an unknown commit is taken as done, and the sequence is not checked": 66,
    "an event is rated before the run that may hold it is in": 135,
    "the memory of commands is not loaded": 2,
    "a cut does not copy on write": 105,
    "a commit does not wait for what is under way to Kafka": 6,
    "a successor does not tell what the outbox holds": 5,
    "a successor waits neither for the hand-over nor for the old lease": 275,
    "a lease counts from the answer, not from the question": 362,
    "a lease that had lapsed brings back what another has claimed": 154,
    "a lease that had lapsed brings back what another has claimed and is to keep": 830,
    "a hold is approved before its slice is in the log": 1,
    "what earlier owners approved is not withheld": 557,
    "a hold is reclaimed by the owner's clock alone": 388,
    "a suspended account is approved": 80,
    "a shard answers beyond its lease": 72,
    "an unknown commit is settled by a plain read, and the sequence is not checked": 38,
    "nobody waits for a commit in doubt": 4,
    "the offset is written behind the transaction": 9,
    "the image of a stale replica is taken": 66,
    "what broke the engine is not skipped when it is replayed": 2,
    "a record that breaks the engine half way stays half applied": 7,
    "what is mended does not go on by itself": 307,
    "a damaged log is not noticed": 61,
    "records handed out again are folded again": 19,
    "log time is not the running maximum": 4,
    "a topic with the producers' timestamps is taken": 1,
    "an ordinal is used again": 5,
    "rated lines count by who wrote last": 295,
    "slices of an epoch that is over are honoured": 112,
    "a slice is freed when its owner is followed": 557,
    "a lease is not debited when it is granted": 102,
    "a lease is free once it is closed, whatever is in the spool": 32,
    "leases end with the owner who granted them": 52,
    "leases of an epoch that is over are honoured": 112,
    "an extension brings back a lease that has ended": 192,
    "an open request for credit dies with its owner": 27,
    "what is rated again need not be what it comes to by now": 33,
    "a tick that came too early is not asked again": 128,
}


class Regression(Struct, frozen=True):
    """How a fault that was found comes about again without its mending."""

    seed: int
    found: str
    beside: tuple[Strike, ...] = ()  # faults beside those of the seed, where later changes have moved it away from them


# Seeds that found a fault of the product, and what it was. Without its mending, which is the ablation named, they do again.
REGRESSIONS: Final = {
    "what was broken off on its way to Kafka is taken for durable": Regression(
        686,
        "a shard that was declared dead while it handed over broke off its lines, and the last checkpoint went beyond them",
        (Strike(1.3, "broker_down", "", 2.64), Strike(1.33, "stop"), Strike(1.42, "pause", "renew.before", 1.96)),
    ),
    "who gives a partition back speaks until it hears that it is given": Regression(
        12_007_153,
        "a shard was paused just when its release had taken effect, and stood beside the next owner while its lease ran",
    ),
    "a lease that had lapsed brings back what another has claimed": Regression(
        5_016_169,
        "a shard whose partition another had claimed answered beside it when it was assigned back and its lease was renewed",
    ),
    "a lease that had lapsed brings back what another has claimed and is to keep": Regression(
        830,
        "a shard that woke and renewed its lease answered for what another had claimed, until its loop had looked",
    ),
    "who pays for the first usage of a segment is told ahead": Regression(
        10_052_574,
        "what a lot carries over, for usage ahead of log time, was not posted",
    ),
    "records handed out again are folded again": Regression(
        19,
        "a client that went back to an older offset after a reconnect had its records rated, and the checkpoint went back",
    ),
    "the image of a stale replica is taken": Regression(
        66,
        "a takeover whose reads went to a replica that was behind went on from accounts older than their offset",
    ),
    "what is mended does not go on by itself": Regression(
        335,
        "a partition halted by a damaged log stayed halted when the log was whole again, until its shard was restarted",
    ),
    "an extension brings back a lease that has ended": Regression(
        192,
        "an extension that reached the log behind its lease's end granted all of it anew, beside what it had spent",
    ),
    "a record that breaks the engine half way stays half applied": Regression(
        7,
        "a record that broke the engine behind the charge was a dead letter and a charge at once, and no replay agreed",
    ),
}


@contextmanager
def without(ablation: Ablation) -> Iterator[None]:
    """The world with that safeguard taken away."""
    with ExitStack() as patches:
        for patch in ablation.patches:
            patches.enter_context(patch())
        yield


def first_caught(ablation: Ablation, seeds: Iterable[int]) -> Outcome | None:
    """The first of the seeds that notices."""
    with without(ablation):
        for seed in seeds:
            outcome = simulate(seed)
            if outcome.violations:
                return outcome
    return None
