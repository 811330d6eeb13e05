"""A shard: owns partitions, folds their records as they arrive, and sends on what comes out. A plain class.

One loop does everything that touches state: follow the assignment, fetch, fold, send, checkpoint when due. At each of
its awaits a partition's fold and its `next_offset` agree, and a cut begins by sending what is still unsent, so a
checkpoint may begin at any.
Whatever waits long (taking over, committing, sending) runs beside it as a task, and is broken off when the partition is
lost. A failure of one partition halts that partition alone.
"""

import asyncio
import base64
import logging
from bisect import bisect_left
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.answers import Answers
from actors.commit import Committer
from actors.door_wire import Answer, PartitionStatus, Question, StatusView
from actors.lease import Lease
from actors.outbox import Outbox, OutboxCounts
from actors.owned import Owned, Stage
from actors.ports import (
    Clock,
    Deaths,
    Fenced,
    LastRecord,
    LocalRuns,
    Log,
    LogDamaged,
    LogUnavailable,
    Outgoing,
    Record,
    Store,
    StoreRefused,
    StoreUnavailable,
    record_digest,
)
from actors.sealing import RowsLost, Sealing
from actors.slices import SliceWriter, linger_us
from actors.takeover import CatalogueLost, load_version, may_speak, take_over
from config.settings import KafkaSettings, LeaseSettings, ShardSettings
from engine.catalog import BadCatalogue, Catalogue
from engine.events import Owner, Tick, seal
from engine.money import amount_text
from engine.outcomes import DeadLetterReason, DeadLetterRow
from engine.partition import CatalogueMissing, HalfApplied, foresee
from engine.snapshot import UnknownSnapshot

_log = logging.getLogger(__name__)

EXPECT_MAX: Final = 500  # records searched for together; fewer cost more each, more hold the loop longer
FETCH_WAIT_S: Final = 0.025  # an idle loop looks around this often; a record that arrives ends the wait
BLOCK_LINES_MAX: Final = 1_000  # about 300 KB of rated lines in one Kafka record, before compression
BLOCK_BYTES_MAX: Final = 512 * 1024  # lines with the longest ids and most tiers are many times larger than most
PORTION_BYTES_MAX: Final = 8 * 1024 * 1024  # of what waits for Kafka together; a thousand dead letters may be far more
LINES_WAIT_S: Final = 0.025  # what is made of many small fetches leaves together; nothing that is told at once waits
SENDS_MAX: Final = 200  # records under way per partition; beyond it, its rating waits for Kafka
WISHES_EVERY_S: Final = 1.0  # between two looks at which slices should grow or go
GATHER_S: Final = 0.5  # how long a partition taken over waits for others under way, from its claim
TICK_AFTER_US: Final = 20_000  # a record that is about to arrive moves log time as well as a tick would
TICK_AGAIN_S: Final = 1.0  # a broker whose clock is behind ours stamps the first tick with a time before the wake-up
RETRY_S: Final = 0.2
MEND_S: Final = 10.0  # between two attempts at what only a person can mend
CHANGED_PER_S: Final = 1_000  # changed accounts for which a checkpoint is put off by a second
FREEZE_IDLE_US: Final = 60_000_000  # an account untouched this long becomes bytes
FREEZE_MAX: Final = 200  # accounts per checkpoint, at about 5 us each


class PartitionView(Struct, frozen=True):
    """What an operator sees of a partition."""

    partition: int
    stage: str
    halt_reason: str
    epoch: int
    next_offset: int
    log_time_us: int
    checkpointed_offset: int
    claimed_s: float | None  # boot clock, as `ready_s`
    ready_s: float | None
    counts: dict[str, int]


class _DeadLetterMessage(Struct):
    partition: int
    offset: int
    log_time_us: int
    reason: str
    detail: str
    key: str | None  # base64
    value: str | None  # base64


class Shard:
    """See the module's docstring."""

    def __init__(
        self,
        incarnation: str,
        *,
        clock: Clock,
        log: Log,
        store: Store,
        lease: Lease,
        deaths: Deaths,
        outbox: Callable[["Shard"], Outbox],
        control_key: bytes,
        kafka: KafkaSettings,
        settings: ShardSettings,
        leases: LeaseSettings,
        local: LocalRuns,
        spawn: Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"] = asyncio.create_task,
        name: str = "",
        load: Callable[[], tuple[int, float]] = lambda: (0, 0.0),
    ) -> None:
        """`outbox` makes the outbox, given the shard (which knows when it may speak). `load` tells the bytes of memory
        and the seconds of CPU that the process uses; `name` is the shard's, over all its incarnations."""
        self._incarnation = incarnation
        self._name = name or incarnation
        self._load = load
        self._clock = clock
        self._log = log
        self._store = store
        self._lease = lease
        self._deaths = deaths
        self._control_key = control_key
        self._kafka = kafka
        self._settings = settings
        self._leases = leases
        self._spawn = spawn
        self._library: dict[int, Catalogue] = {}
        self._owned: dict[int, Owned] = {}
        self._taking: dict[int, asyncio.Task[None]] = {}
        self._poison: dict[int, set[int]] = {}  # partition -> offsets that broke the engine half way: skipped next time
        self._refused: dict[int, str] = {}  # partitions that cannot be taken over, and why
        self._committer = Committer(store, log, clock, kafka.topic_usage, control_key)
        self._sealing = Sealing(store, local, clock, self._spawn)
        self._outbox = outbox(self)
        self._writing_back: asyncio.Task[None] | None = None
        self._written_back_s = clock.boot_s()
        self._sent_on_s = clock.boot_s()
        self._stopping = False
        self._consumed: dict[int, Owned] = {}  # what the consumer reads, and for which ownership of it
        lingering_us = linger_us(settings, leases)
        self._slices = SliceWriter(log, clock, kafka.topic_usage, control_key, lingering_us, self._spawn)
        self._answers = Answers(
            clock=clock,
            log=log,
            lease=lease,
            owned=self._owned,
            slices=self._slices,
            rows=self._sealing.rows,
            control_key=control_key,
            settings=settings,
            status=self.status,
        )

    # ------------------------------------------------------------------------------------------------- questions

    def may_speak(self) -> bool:
        """Whether alerts may be told: our lease is valid."""
        return self._lease.valid()

    def partitions(self) -> list[PartitionView]:
        """What is owned, and how it stands; also what should be, but could not be taken over."""
        refused = [
            PartitionView(number, Stage.HALTED.value, reason, 0, 0, 0, 0, None, None, {})
            for number, reason in sorted(self._refused.items())
        ]
        return refused + [
            PartitionView(
                owned.number,
                owned.stage.value,
                owned.halt_reason,
                owned.epoch,
                owned.next_offset,
                owned.fold.log_time_us,
                owned.checkpointed_offset,
                owned.claimed_s,
                owned.ready_s,
                dict(owned.fold.counts),
            )
            for _, owned in sorted(self._owned.items())
        ]

    def answer_now(self, question: Question) -> Answer | None:
        """The answer to a question about an account; None when it takes waiting (`answer`)."""
        return self._answers.answer_now(question)

    async def answer(self, question: Question, within_s: float) -> Answer:
        """The answer, waiting for a slice or an offset if need be; `TooLate` when there is none within `within_s`."""
        return await self._answers.answer(question, within_s)

    def status(self) -> StatusView:
        """How everything stands, for metrics and readiness."""
        rss_bytes, cpu_s = self._load()
        counts = self._outbox.counts()
        return StatusView(
            shard=self._name,
            incarnation=self._incarnation,
            rss_bytes=rss_bytes,
            cpu_s=cpu_s,
            lease_left_s=max(0.0, self._lease.left_s()),
            checks=dict(self._answers.checks),
            partitions=(
                *self._refused_statuses(),
                *(self._status_of(owned) for _, owned in sorted(self._owned.items())),
            ),
            alerts_told=counts.told,
            alerts_waiting=counts.held,
        )

    def _refused_statuses(self) -> Iterator[PartitionStatus]:
        for number, reason in sorted(self._refused.items()):
            yield PartitionStatus(number, Stage.HALTED.value, reason, 0, 0, None, 0, 0, 0.0, 0, 0, {})

    def _status_of(self, owned: Owned) -> PartitionStatus:
        end = self._log.end(owned.number)
        leases, leased = owned.fold.leased()
        unheld = owned.fold.desk.unheld(self._clock.wall_us())
        return PartitionStatus(
            partition=owned.number,
            stage=owned.stage.value,
            halt_reason=owned.halt_reason,
            epoch=owned.epoch,
            next_offset=owned.next_offset,
            lag_records=None if end is None else max(0, end - owned.next_offset),
            log_time_us=owned.fold.log_time_us,
            checkpointed_offset=owned.checkpointed_offset,
            checkpoint_age_s=self._clock.boot_s() - owned.checkpointed_s,
            open_holds=owned.fold.desk.open_holds,
            accounts=owned.fold.accounts,
            counts=dict(owned.fold.counts),
            leases_open=leases,
            leased={currency: amount_text(pico) for currency, pico in leased.items()},
            unheld={currency: amount_text(pico) for currency, pico in unheld.items()},
        )

    def alerts(self) -> OutboxCounts:
        """How far the telling of alerts has come."""
        return self._outbox.counts()

    # ----------------------------------------------------------------------------------------------------- the loop

    async def run(self) -> None:
        """Until `stop` or until declared dead. The log and the store are started, and stopped, by the caller."""
        while not self._stopping and not self._lease.fenced:
            self._lease.beat()
            self._follow_assignment()
            self._write_back_if_due()
            await self._step()
        if self._lease.fenced:
            await self._abandon_all()

    async def _step(self) -> None:
        self._assign()
        try:
            batches = await self._log.fetch(self._kafka.fetch_records_max, FETCH_WAIT_S)
        except LogDamaged as error:
            self._halt_damaged(error)
            return
        except LogUnavailable as error:
            _log.warning("Kafka is away: %s", error)
            await self._clock.sleep(RETRY_S)
            return
        for partition, records in batches.items():
            # Lost and taken over again since the fetch, it goes on from its checkpoint, not from these records.
            owned = self._consumed.get(partition)
            if owned is not None and self._owned.get(partition) is owned and owned.running:
                await self._fold_batch(owned, records)
        self._send_on_if_due()
        for owned in list(self._owned.values()):
            if owned.running:
                self._advance_position(owned)
                self._advance_stage(owned)
                self._mind_holds(owned)
                self._tick_if_due(owned)
                self._checkpoint_if_due(owned)
                self._sealing.mind(owned)

    async def stop(self) -> None:
        """Hand over: a last checkpoint of every partition, then release. Returns when nothing is under way."""
        self._stopping = True
        for partition, task in self._taking.items():
            if partition not in self._owned:  # what is being given back already goes on in order
                task.cancel()
        await asyncio.gather(*self._taking.values(), return_exceptions=True)
        await self._outbox.stop(grace_s=1.0)
        if self._writing_back is not None:
            await asyncio.gather(self._writing_back, return_exceptions=True)
        await asyncio.gather(*(self._release(owned) for owned in list(self._owned.values())))

    # ------------------------------------------------------------------------------------------------- assignment

    def _follow_assignment(self) -> None:
        for partition in self._refused.keys() - self._lease.partitions:
            del self._refused[partition]
        for partition in self._lease.partitions - self._owned.keys() - self._taking.keys():
            self._taking[partition] = self._spawn(self._take(partition))
        for partition, owned in self._owned.items():
            if partition in self._lease.partitions and not self._lease.lost(partition, owned.claimed_s):
                continue
            if owned.committing is None and partition not in self._taking:
                self._taking[partition] = self._spawn(self._give(owned))
        for partition, owned in self._owned.items():
            due = owned.again_s is not None and self._clock.boot_s() >= owned.again_s
            if due and owned.committing is None and partition not in self._taking:
                self._taking[partition] = self._spawn(self._take_again(owned))

    async def _take(self, partition: int) -> None:
        try:
            owned, image = await take_over(
                partition,
                self._incarnation,
                topic=self._kafka.topic_usage,
                control_key=self._control_key,
                library=self._library,
                store=self._store,
                log=self._log,
                clock=self._clock,
            )
        except Fenced:
            await self._clock.sleep(RETRY_S)  # the assignment has moved on, or has not been written yet
        except (StoreUnavailable, LogUnavailable) as error:
            _log.warning("partition %d could not be taken over, trying again: %s", partition, error)
            await self._clock.sleep(RETRY_S)
        except (LogDamaged, CatalogueLost, BadCatalogue, UnknownSnapshot, StoreRefused) as error:
            self._refused[partition] = str(error)
            _log.critical("partition %d is halted: %s", partition, error)
            await self._clock.sleep(MEND_S)  # a person must act; then the takeover succeeds by itself
        except Exception as error:
            self._refused[partition] = f"the takeover broke: {type(error).__name__}: {error}"
            # Tried again at once, each attempt would raise the epoch and load everything anew.
            _log.critical("partition %d is halted: the takeover broke", partition, exc_info=True)
            await self._clock.sleep(MEND_S)
        else:
            self._refused.pop(partition, None)
            owned.alerts_held = list(image.alerts)
            owned.fold.skips |= self._poison.get(partition, set())
            owned.fold.desk.report_delay_us = int(self._settings.report_delay_s * 1_000_000)
            self._owned[partition] = owned
            _log.info(
                "partition %d is ours at epoch %d, %.3f s after the claim; replaying from offset %d to %d",
                partition,
                owned.epoch,
                self._clock.boot_s() - owned.claimed_s,
                owned.next_offset,
                owned.owner_offset,
            )
        finally:
            self._taking.pop(partition, None)

    async def _take_again(self, owned: Owned) -> None:
        """What it was halted for may be mended: from the checkpoint, as any new owner. If it is not, it stays halted."""
        try:
            self._refused[owned.number] = owned.halt_reason
            await self._abandon(owned)
            await self._take(owned.number)
        finally:
            self._taking.pop(owned.number, None)

    async def _give(self, owned: Owned) -> None:
        try:
            await self._release(owned)
        finally:
            self._taking.pop(owned.number, None)

    async def _release(self, owned: Owned) -> None:
        """A last checkpoint, silence, then give the partition back. If anything fails, the next owner replays."""
        owned.giving = True
        if owned.committing is not None:
            await asyncio.gather(owned.committing, return_exceptions=True)
        try:
            if owned.running and self._owned.get(owned.number) is owned:
                self._send_on(owned)
                await self._committer.checkpoint(owned)
                self._outbox.checkpointed(owned.number, owned.checkpointed_offset)
                await self._outbox.flush()
                owned.fall_silent()
                await self._store.release(owned.number, owned.epoch)
        except (Fenced, StoreUnavailable, StoreRefused) as error:
            _log.warning("partition %d was not handed over in order: %s", owned.number, error)
        except Exception:
            # The others are still to be handed over.
            _log.exception("partition %d was not handed over in order", owned.number)
        await self._abandon(owned)

    async def _abandon(self, owned: Owned) -> None:
        """Stop touching the partition at once."""
        self._owned.pop(owned.number, None)
        self._outbox.forget(owned.number)
        owned.let_go()
        tasks = list(owned.tasks())
        for task in tasks:
            if task is not asyncio.current_task():
                task.cancel()
        await asyncio.gather(*(task for task in tasks if task is not asyncio.current_task()), return_exceptions=True)

    async def _abandon_all(self) -> None:
        for task in self._taking.values():
            task.cancel()
        if self._writing_back is not None:
            self._writing_back.cancel()
        await asyncio.gather(*(self._abandon(owned) for owned in list(self._owned.values())))

    def _assign(self) -> None:
        """Consume what is owned and running. Assigning costs the client what it had prefetched, so partitions that are
        taken over together are added together."""
        now_s = self._clock.boot_s()
        wanted = {
            number: owned
            for number, owned in self._owned.items()
            if owned.running
            and owned.waits_until_s <= now_s
            and (len(owned.sends) <= SENDS_MAX or self._consumed.get(number) is owned)
        }
        if wanted == self._consumed:
            return
        added = [owned for number, owned in wanted.items() if self._consumed.get(number) is not owned]
        only_added = len(added) == len(wanted) - len(self._consumed)
        if only_added and self._taking and self._clock.boot_s() - min(owned.claimed_s for owned in added) < GATHER_S:
            return
        self._log.assign({number: owned.next_offset for number, owned in wanted.items()})
        self._consumed = wanted

    def _halt(self, owned: Owned, reason: str, *, again: bool = False) -> None:
        """`again`: a person can mend it from outside (log, clocks, catalogue, Postgres); then it goes on by itself."""
        owned.halt(reason)
        owned.again_s = self._clock.boot_s() + MEND_S if again else None
        _log.critical("partition %d is halted: %s", owned.number, reason)

    def _halt_damaged(self, error: LogDamaged) -> None:
        for owned in self._owned.values():
            if owned.running and error.partition in (None, owned.number):
                self._halt(owned, str(error), again=True)

    # --------------------------------------------------------------------------------------------------- the fold

    async def _fold_batch(self, owned: Owned, records: Sequence[Record]) -> None:
        """Fold slice by slice. Between slices others run, and everything agrees.

        What a client hands out again, after a reconnect to an older offset, is folded already."""
        start = expected = bisect_left(records, owned.next_offset, key=lambda record: record.offset)
        while start < len(records) and owned.running and self._owned.get(owned.number) is owned:
            if start >= expected:
                expected = min(start + EXPECT_MAX, len(records))
                await self._read_ahead(owned, records[start:expected])
                continue
            if owned.fold.dedup.doubts():
                if not await self._clear_doubts(owned):
                    break
                continue
            try:
                start += self._fold_slice(owned, records[start:expected])
            except CatalogueMissing as missing:
                start += await self._fetch_catalogue(owned, missing.version)
            if len(owned.fold.outputs.lines) >= BLOCK_LINES_MAX:
                self._send_on(owned)
            if len(owned.sends) > SENDS_MAX:
                self._set_aside(owned)
                break
            await self._clock.sleep(0)
            self._lease.beat()
        self._send_on_if_due()

    def _set_aside(self, owned: Owned) -> None:
        """It stands still for a while, and the others go on, as does the lease. What was fetched of it is fetched again."""
        owned.waits_until_s = self._clock.boot_s() + RETRY_S
        self._consumed.pop(owned.number, None)

    async def _read_ahead(self, owned: Owned, records: Sequence[Record]) -> None:
        """Search together for the identities of what is folded next. Others run meanwhile as often as between slices."""
        foreseen = []
        began_s = self._clock.boot_s()
        for number, record in enumerate(records, start=1):
            if (each := foresee(record.offset, record.key, record.value)) is not None:
                foreseen.append(each)
            if number % self._settings.rating_slice_events == 0 or number == len(records):
                began_s = await self._pause_if_due(began_s)
        if self._clock.boot_s() > began_s:  # the search takes as long as a slice, or longer
            began_s = await self._pause()
        owned.fold.expect(foreseen)
        await self._pause_if_due(began_s)

    async def _pause_if_due(self, began_s: float) -> float:
        """Let others run if the slice that began then is over; when the present one began."""
        if self._clock.boot_s() - began_s < self._settings.rating_slice_ms / 1000:
            return began_s
        return await self._pause()

    async def _pause(self) -> float:
        """Let others run; when the next slice begins."""
        await self._clock.sleep(0)
        self._lease.beat()
        return self._clock.boot_s()

    async def _clear_doubts(self, owned: Owned) -> bool:
        """Fetch the rows without which an event expected next cannot be told from one that was rated. False when they
        cannot be had now: the partition stops before that batch, and the others go on."""
        try:
            owned.fold.dedup.supply(await self._sealing.rows(owned, sorted(owned.fold.dedup.doubts())))
        except StoreUnavailable as error:
            _log.warning("partition %d waits for the memory of rated events: %s", owned.number, error)
            self._set_aside(owned)
            return False
        except (RowsLost, StoreRefused) as error:
            # Not where rows are lost: what says that there were any may be lost as well, and a new load would rate twice.
            self._halt(owned, str(error), again=isinstance(error, StoreRefused))
            return False
        return True

    def _fold_slice(self, owned: Owned, records: Sequence[Record]) -> int:
        """Fold up to a slice of records; how many. Raises CatalogueMissing before the record that needs it."""
        apply = owned.fold.apply
        record: Record | None = None
        folded = 0
        ahead_max_ms = self._clock.wall_us() // 1000 + int(self._leases.clock_jump_max_s * 1000)
        deadline_s = self._clock.boot_s() + self._settings.rating_slice_ms / 1000
        try:
            while folded < len(records):
                upcoming = records[folded]
                if upcoming.timestamp > ahead_max_ms:
                    self._halt(
                        owned,
                        f"the append time of offset {upcoming.offset} is over {self._leases.clock_jump_max_s:.0f} s "
                        "ahead of this machine's clock; mend the clocks, and it goes on",
                        again=True,
                    )
                    break
                apply(upcoming.offset, upcoming.timestamp, upcoming.key, upcoming.value)
                record = upcoming
                folded += 1
                if folded % self._settings.rating_slice_events == 0 and self._clock.boot_s() >= deadline_s:
                    break
        except CatalogueMissing:
            if not folded:
                raise
        except HalfApplied as error:
            self._poison.setdefault(owned.number, set()).add(error.offset)
            self._halt(owned, str(error), again=True)
            owned.again_s = self._clock.boot_s()
        except Exception as error:  # a fault of the engine halts this partition, not the others
            self._halt(owned, f"offset {records[folded].offset}: {type(error).__name__}: {error}")
        if record is not None:
            owned.next_offset = record.offset + 1
            owned.last = LastRecord(record.offset, record.timestamp, record_digest(record.key, record.value))
            self._tell_alerts(owned)
            owned.wake_waiting()
        return folded

    async def _fetch_catalogue(self, owned: Owned, version: int) -> int:
        try:
            await load_version(self._store, self._library, version, hurried=True)
        except StoreUnavailable as error:
            _log.warning("partition %d waits for catalogue version %d: %s", owned.number, version, error)
            await self._clock.sleep(RETRY_S)
        except (CatalogueLost, BadCatalogue, StoreRefused, msgspec.MsgspecError) as error:
            self._halt(owned, str(error), again=True)
        return 0

    def _advance_position(self, owned: Owned) -> None:
        """A control batch of Kafka's own leaves no record, but moves the position."""
        if self._consumed.get(owned.number) is owned:
            owned.next_offset = max(owned.next_offset, self._log.position(owned.number))
            owned.wake_waiting()

    def _advance_stage(self, owned: Owned) -> None:
        if owned.stage is Stage.REPLAYING and owned.next_offset > owned.owner_offset:
            owned.stage = Stage.WAITING
        if owned.stage is Stage.WAITING and self._lease.valid() and may_speak(owned, self._deaths, self._clock):
            owned.stage = Stage.READY
            owned.ready_s = self._clock.boot_s()
            _log.info("partition %d is ready, %.3f s after the claim", owned.number, owned.ready_s - owned.claimed_s)
            held, owned.alerts_held = owned.alerts_held, []
            stored = [alert for alert in held if alert.offset < owned.checkpointed_offset]
            self._outbox.resume(owned.number, stored)
            for alert in held[len(stored) :]:
                self._outbox.offer(owned.number, alert)

    def _mind_holds(self, owned: Owned) -> None:
        """Open the desk for our epoch, free what can no longer be reported, and ask for slices ahead of their need."""
        if owned.unannounced:
            owned.unannounced = False
            self._send(owned, [self._control(owned, Owner(owned.epoch))])
        if owned.stage is not Stage.READY:
            return
        desk = owned.fold.desk
        if desk.epoch != owned.epoch:
            desk.begin(owned.epoch)
        if not owned.speaks or owned.giving:
            return
        now_us = self._clock.wall_us()
        desk.reclaim(owned.fold.log_time_us, now_us)
        if self._clock.boot_s() - owned.wished_s >= WISHES_EVERY_S:
            owned.wished_s = self._clock.boot_s()
            for wish in desk.slices_wished(max(now_us, owned.fold.log_time_us)):
                self._slices.wish(owned, wish)

    def _control(self, owned: Owned, record: Owner | Tick) -> Outgoing:
        sealed = seal(self._control_key, self._kafka.topic_usage, owned.number, msgspec.json.encode(record))
        return Outgoing("usage", sealed, partition=owned.number)

    def _tick_if_due(self, owned: Owned) -> None:
        wishes = (owned.fold.next_wake_us(), owned.fold.desk.next_reclaim_us() if owned.speaks else None)
        wake_us = min((wish for wish in wishes if wish is not None), default=None)
        if (
            owned.stage is Stage.READY
            and (owned.ticking is None or owned.ticking.done())
            and wake_us is not None
            and (wake_us != owned.tick_asked_us or self._clock.boot_s() - owned.tick_asked_s >= TICK_AGAIN_S)
            and self._clock.wall_us() >= wake_us + TICK_AFTER_US
        ):
            owned.tick_asked_us = wake_us
            owned.tick_asked_s = self._clock.boot_s()
            owned.ticking = self._send(owned, [self._control(owned, Tick(owned.epoch))])

    # ------------------------------------------------------------------------------------------------- sending on

    def _send_on_if_due(self) -> None:
        """Of all partitions together: what many small fetches have made is one request to Kafka."""
        now_s = self._clock.boot_s()
        if now_s - self._sent_on_s >= LINES_WAIT_S:
            self._sent_on_s = now_s
            for owned in self._owned.values():
                self._send_on(owned)

    def _send_on(self, owned: Owned) -> None:
        """To Kafka with what was made since the last call: lines, forwards and dead letters. A record costs the client
        far more than a line, so a batch leaves together; alerts do not wait for it."""
        outputs = owned.fold.outputs
        records = []
        for block in _blocks(outputs.lines):
            key = f"{owned.number}:{owned.fold.line_epoch}:{block[0][0]}-{block[-1][0]}"
            value = b"\n".join(line for _, line in block)
            records.append(Outgoing("rated", value, key.encode(), owned.number))
        records += [Outgoing("usage", forward.value, forward.key, forward.partition) for forward in outputs.forwards]
        for letter in outputs.dead_letters:
            if letter.reason == DeadLetterReason.ENGINE_ERROR:
                _log.critical(
                    "partition %d: offset %d broke the engine and was not rated: %s",
                    owned.number,
                    letter.offset,
                    letter.detail,
                )
        records += [
            Outgoing("dead-letters", _dead_letter_json(owned.number, letter), letter.key)
            for letter in outputs.dead_letters
        ]
        if records:
            self._send(owned, records)
        outputs.lines.clear()
        outputs.forwards.clear()
        outputs.dead_letters.clear()

    def _tell_alerts(self, owned: Owned) -> None:
        """At once, if we may speak for the partition."""
        alerts = owned.fold.outputs.alerts
        owned.recent_alerts.extend(alerts)
        if owned.stage is Stage.READY:
            for alert in alerts:
                self._outbox.offer(owned.number, alert)
        else:
            owned.alerts_held += alerts
        alerts.clear()

    def _send(self, owned: Owned, records: list[Outgoing]) -> "asyncio.Task[None]":
        task = self._spawn(self._append(owned, records))
        owned.sends.add(task)
        task.add_done_callback(owned.sends.discard)
        return task

    async def _append(self, owned: Owned, records: list[Outgoing]) -> None:
        """Until it is durable. A repetition does no harm: lines replace lines, a forwarded event has its id."""
        for portion in _portions(records):
            if not await self._append_together(owned, portion):
                return

    async def _append_together(self, owned: Owned, records: Sequence[Outgoing]) -> bool:
        """Whether it is durable; else the partition is halted."""
        while True:
            try:
                await self._log.append(records)
                return True
            except LogUnavailable as error:
                _log.warning("partition %d: %d records wait for Kafka: %s", owned.number, len(records), error)
                await self._clock.sleep(RETRY_S)
            except Exception as error:  # a checkpoint behind records that were never written would lose them for good
                self._halt(owned, f"{len(records)} records for Kafka: {type(error).__name__}: {error}")
                return False

    # ------------------------------------------------------------------------------------------------- checkpoints

    def _checkpoint_if_due(self, owned: Owned) -> None:
        if owned.committing is not None or owned.number in self._taking or self._stopping:
            return
        if owned.next_offset == owned.checkpointed_offset and owned.checkpoint is None:
            return
        due = self._clock.boot_s() - owned.checkpointed_s >= self._checkpoint_interval_s()
        if due or owned.fold.dirty_accounts >= self._settings.checkpoint_dirty_max:
            owned.committing = self._spawn(self._checkpoint(owned))

    def _checkpoint_interval_s(self) -> float:
        """The more accounts have changed, the longer: who is busy changes within it again, and is written once."""
        changed = sum(owned.fold.dirty_accounts for owned in self._owned.values())
        wanted_s = max(self._settings.checkpoint_interval_s, changed / CHANGED_PER_S)
        return min(wanted_s, self._settings.checkpoint_interval_max_s)

    async def _checkpoint(self, owned: Owned) -> None:
        try:
            self._send_on(owned)
            await self._committer.checkpoint(owned)
            owned.sealable = frozenset((each.bucket, each.generation) for each in owned.fold.dedup.closed())
            self._outbox.checkpointed(owned.number, owned.checkpointed_offset)
            owned.fold.freeze_idle(FREEZE_IDLE_US, FREEZE_MAX)
        except Fenced as error:
            _log.warning("partition %d has another owner: %s", owned.number, error)
            await self._abandon(owned)
        except StoreUnavailable as error:
            _log.warning("partition %d: %s", owned.number, error)
        except Exception as error:  # never go on from a checkpoint that failed for an unknown reason
            # What Postgres refused took no effect: once a person has mended it there, the last checkpoint is gone on from.
            self._halt(
                owned,
                f"checkpoint {owned.ckpt_seq + 1}: {type(error).__name__}: {error}",
                again=isinstance(error, StoreRefused),
            )
        finally:
            owned.committing = None

    def _write_back_if_due(self) -> None:
        """Beside the checkpoints, since alerts are still told, and tried again, when nothing is left to commit."""
        due = self._clock.boot_s() - self._written_back_s >= self._settings.checkpoint_interval_s
        if due and self._writing_back is None and (self._outbox.wants_flush() or self._outbox.wants_resume()):
            self._writing_back = self._spawn(self._write_back())

    async def _write_back(self) -> None:
        self._written_back_s = self._clock.boot_s()
        try:
            await self._outbox.flush()
            for number in self._outbox.wants_resume():
                owned = self._owned.get(number)
                alerts = await self._store.waiting_alerts(number)
                if owned is not None and self._owned.get(number) is owned:
                    self._outbox.resume(number, alerts)
        except (StoreUnavailable, StoreRefused) as error:
            _log.warning("how far the telling of alerts has come could not be written down: %s", error)
        finally:
            self._writing_back = None


def _blocks(lines: Sequence[tuple[int, bytes]]) -> Iterator[list[tuple[int, bytes]]]:
    """The lines in their order, cut so that Kafka takes each block as one record."""
    block: list[tuple[int, bytes]] = []
    size = 0
    for offset, line in lines:
        if block and (len(block) >= BLOCK_LINES_MAX or size + len(line) > BLOCK_BYTES_MAX):
            yield block
            block, size = [], 0
        block.append((offset, line))
        size += len(line) + 1
    if block:
        yield block


def _portions(records: list[Outgoing]) -> Iterator[list[Outgoing]]:
    """The records in their order, in portions that Kafka takes within one attempt: more might never be taken in time."""
    size = start = 0
    for end, record in enumerate(records):
        length = len(record.key or b"") + len(record.value or b"")
        if size + length > PORTION_BYTES_MAX and end > start:
            yield records[start:end]
            start, size = end, 0
        size += length
    yield records[start:] if start else records


def _dead_letter_json(partition: int, letter: DeadLetterRow) -> bytes:
    def text(data: bytes | None) -> str | None:
        return None if data is None else base64.b64encode(data).decode()

    return msgspec.json.encode(
        _DeadLetterMessage(
            partition,
            letter.offset,
            letter.log_time_us,
            letter.reason,
            letter.detail,
            text(letter.key),
            text(letter.value),
        )
    )
