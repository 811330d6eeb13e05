"""The telling of alerts: at once when they are made, then again with growing pauses until told or given up.

An alert may be told before the checkpoint that holds it, and again by the next owner of its partition; it always
carries the same id, so a receiver that remembers ids sees it once. `flush` writes back how far the telling has come.
"""

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from random import Random
from typing import Any, Protocol

from msgspec import Struct
from tenacity import AsyncRetrying, RetryCallState, retry_if_result, stop_after_attempt, wait_exponential

from actors.ports import AlertRow, Attempt, Clock, Delivery, Receivers

_log = logging.getLogger(__name__)


class Deliveries(Protocol):
    """The one method of the port `Store` that the outbox needs."""

    async def record_deliveries(self, deliveries: list[Delivery]) -> None: ...


class OutboxSettings(Struct, frozen=True, kw_only=True):
    """Bounds and pauses. With the defaults an alert is attempted 12 times over about a day, then given up."""

    attempts_max: int = 12  # of one alert, the first included
    concurrent_max: int = 16  # attempts under way at once
    pending_max: int = 1024  # alerts begun and not finished, most of them pausing, at about 8 kB; the rest queues
    account_pending_max: int = 128  # of one account: whose receivers are dead fills no queue but its own
    held_max: int = 100_000  # alerts in memory in any state; what exceeds it stays in the store only
    back_off_s: float = 1.0  # before the second attempt
    back_off_factor: float = 4.0  # each pause is this many times the last
    back_off_max_s: float = 21_600.0
    jitter_share: float = 0.2  # each pause is stretched by a random share of up to this, never shortened
    permit_poll_s: float = 0.25  # how often an attempt that waits for the lease looks again
    flush_rows_max: int = 1000  # deliveries in one call of the store


class OutboxCounts(Struct, frozen=True):
    """What an outbox has done since it was made, and holds now."""

    told: int
    retried: int  # attempts after an alert's first
    given_up: int
    in_flight: int  # attempts under way
    held: int  # alerts in memory, told ones included until their delivery is flushed
    left_out: int  # alerts not taken in because `held_max` was reached; each is counted every time it is left out


class _Telling:
    """One alert in memory."""

    __slots__ = ("alert", "attempts", "before", "begun", "delivered", "error", "given_up", "partition", "task")

    def __init__(self, partition: int, alert: AlertRow) -> None:
        self.partition = partition
        self.alert = alert
        self.attempts = 0
        self.delivered = False
        self.given_up = False
        self.error = ""
        self.task: asyncio.Task[None] | None = None
        self.before: _Telling | None = None  # the account's previous alert
        self.begun = asyncio.Event()  # the first attempt has begun, or never will

    def delivery(self) -> Delivery:
        return Delivery(
            alert_id=self.alert.alert_id,
            attempts=self.attempts,
            delivered=self.delivered,
            given_up=self.given_up,
            error=self.error,
        )

    @property
    def finished(self) -> bool:
        return self.delivered or self.given_up


class _BackOff:
    """tenacity's wait: exponential, not before the receiver's Retry-After, stretched by jitter from our own source."""

    def __init__(self, settings: OutboxSettings, random: Random) -> None:
        self._exponential = wait_exponential(
            multiplier=settings.back_off_s, exp_base=settings.back_off_factor, max=settings.back_off_max_s
        )
        self._stretch_max = 1.0 + settings.jitter_share
        self._random = random

    def __call__(self, state: RetryCallState) -> float:
        attempt = _outcome(state)
        pause_s = max(self._exponential(state), attempt.retry_after_s or 0.0)
        return pause_s * self._random.uniform(1.0, self._stretch_max)


def _outcome(state: RetryCallState) -> Attempt:
    assert state.outcome is not None
    attempt: Attempt = state.outcome.result()
    return attempt


def _try_again(attempt: Attempt) -> bool:
    return not attempt.delivered and not attempt.final


class Outbox:
    """The alerts of the partitions this shard owns.

    Alerts of one account begin their first attempts in the order they were handed in, and `Receivers` keeps that order
    at each receiver, so that one that hangs delays no other; nothing is promised about retries, or between accounts. No
    attempt starts while `permitted()` is false (our lease has run out).
    """

    def __init__(
        self,
        clock: Clock,
        receivers: Receivers,
        store: Deliveries,
        settings: OutboxSettings,
        *,
        permitted: Callable[[], bool],
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]] = asyncio.create_task,
        random: Random | None = None,
    ) -> None:
        """`spawn` and `random` (jitter) are given by the simulator, so that a run can be repeated exactly."""
        self._clock = clock
        self._receivers = receivers
        self._store = store
        self._settings = settings
        self._permitted = permitted
        self._spawn = spawn
        self._back_off = _BackOff(settings, random or Random())  # noqa: S311 - jitter is no secret
        self._slots = asyncio.Semaphore(settings.concurrent_max)
        self._held: dict[str, _Telling] = {}
        self._queue: deque[_Telling] = deque()
        self._newest: dict[str, _Telling] = {}  # account -> its last alert whose first attempt has not begun
        self._begun: Counter[str] = Counter()  # account -> its alerts begun and not finished
        self._parked: dict[str, deque[_Telling]] = {}  # account that has begun enough -> what waits for one to finish
        self._running: set[_Telling] = set()
        self._changed: dict[str, _Telling] = {}  # to be flushed
        self._stored_below: dict[int, int] = {}  # partition -> rows of smaller offsets are in the store
        self._left_out_at: dict[int, int] = {}  # partition -> the largest offset left out
        self._stopping = False
        self._idle = asyncio.Event()
        self._told = self._retried = self._given_up = self._in_flight = self._left_out = 0

    def counts(self) -> OutboxCounts:
        return OutboxCounts(
            told=self._told,
            retried=self._retried,
            given_up=self._given_up,
            in_flight=self._in_flight,
            held=len(self._held),
            left_out=self._left_out,
        )

    # ------------------------------------------------------------------------------------------------- what to tell

    def offer(self, partition: int, alert: AlertRow) -> None:
        """Tell an alert just made; its row comes with the next checkpoint. An id already held is ignored.

        Once `held_max` alerts are in memory, this and every later alert of the partition is left to the store, so that
        their order is kept; see `wants_resume`."""
        if alert.alert_id in self._held:
            return
        if partition in self._left_out_at or len(self._held) >= self._settings.held_max:
            self._leave_out(partition, alert)
            return
        self._take_in(partition, alert)
        self._begin()

    def resume(self, partition: int, alerts: Iterable[AlertRow]) -> None:
        """Tell what the store holds of a partition, neither delivered nor given up: all of it, in order of offset.

        For takeover, and for `wants_resume`. Ids already held are ignored. An alert told but not yet flushed when the
        rows were read is known here, so flush before the rows are read and not again until this returns, or an alert
        may be told twice (under the same id)."""
        left_out_at = self._left_out_at.pop(partition, None)
        last_offset = -1
        for alert in alerts:
            last_offset = max(last_offset, alert.offset)
            self._stored_below[partition] = max(self._stored_below.get(partition, 0), alert.offset + 1)
            if alert.alert_id in self._held:
                continue
            if partition in self._left_out_at or len(self._held) >= self._settings.held_max:
                self._leave_out(partition, alert)
            else:
                self._take_in(partition, alert)
        if left_out_at is not None and left_out_at > last_offset:
            # The rows were read before the checkpoint that brought the newest left-out alert.
            self._left_out_at[partition] = left_out_at
        self._begin()

    def checkpointed(self, partition: int, next_offset: int) -> None:
        """The store now has the rows of all alerts with an offset below `next_offset`: they may be flushed."""
        self._stored_below[partition] = max(self._stored_below.get(partition, 0), next_offset)

    def wants_resume(self) -> list[int]:
        """Partitions with alerts left out, for which there is room again and whose rows are all in the store.

        For each, read its rows from the store and call `resume`; until then its new alerts are told from the store."""
        if len(self._held) > self._settings.held_max // 2:
            return []
        return sorted(
            partition
            for partition, offset in self._left_out_at.items()
            if offset < self._stored_below.get(partition, 0)
        )

    def forget(self, partition: int) -> None:
        """The partition is no longer ours: break off its attempts and drop its alerts, unflushed ones too."""
        self._left_out_at.pop(partition, None)
        for telling in [each for each in self._held.values() if each.partition == partition]:
            self._drop(telling)
            if telling.task is not None:
                telling.task.cancel()
        self._queue = deque(each for each in self._queue if each.partition != partition)
        for account, parked in list(self._parked.items()):
            self._parked[account] = deque(each for each in parked if each.partition != partition)
            if not self._parked[account]:
                del self._parked[account]
        self._begin()

    def _take_in(self, partition: int, alert: AlertRow) -> None:
        telling = _Telling(partition, alert)
        telling.before = self._newest.get(alert.account)
        self._newest[alert.account] = telling
        self._held[alert.alert_id] = telling
        self._queue.append(telling)

    def _leave_out(self, partition: int, alert: AlertRow) -> None:
        self._left_out += 1
        self._left_out_at[partition] = max(self._left_out_at.get(partition, -1), alert.offset)

    def _drop(self, telling: _Telling) -> None:
        self._held.pop(telling.alert.alert_id, None)
        self._changed.pop(telling.alert.alert_id, None)
        self._let_next(telling)

    # --------------------------------------------------------------------------------------------------- telling it

    def _begin(self) -> None:
        """Start as many queued alerts as there is room for."""
        while self._queue and len(self._running) < self._settings.pending_max and not self._stopping:
            telling = self._queue.popleft()
            account = telling.alert.account
            if self._begun[account] >= self._settings.account_pending_max:
                self._parked.setdefault(account, deque()).append(telling)
            else:
                self._start(telling)

    def _start(self, telling: _Telling) -> None:
        self._begun[telling.alert.account] += 1
        self._running.add(telling)
        telling.task = self._spawn(self._tell(telling))
        # Not in `_tell` itself: a task cancelled before its first step never runs a line of it.
        telling.task.add_done_callback(partial(self._ended, telling))

    def _make_room(self, account: str) -> None:
        """One alert of the account has finished: the next that was parked takes its place."""
        self._begun[account] -= 1
        if not self._begun[account]:
            del self._begun[account]
        parked = self._parked.get(account)
        if parked and not self._stopping:
            self._start(parked.popleft())
            if not parked:
                del self._parked[account]

    def _ended(self, telling: _Telling, task: asyncio.Task[None]) -> None:
        self._running.discard(telling)
        telling.task = None
        self._make_room(telling.alert.account)
        self._let_next(telling)
        if not task.cancelled() and (error := task.exception()) is not None:
            # The row stays undelivered in the store, and the next owner of the partition tells it.
            _log.error("the telling of %s broke", telling.alert.alert_id, exc_info=error)
        self._begin()

    def _let_next(self, telling: _Telling) -> None:
        telling.begun.set()
        telling.before = None  # else every alert of an account would keep all earlier ones alive
        if self._newest.get(telling.alert.account) is telling:
            del self._newest[telling.alert.account]

    async def _tell(self, telling: _Telling) -> None:
        if telling.before is not None:
            await telling.before.begun.wait()
        retrying = AsyncRetrying(
            sleep=self._clock.sleep,
            wait=self._back_off,
            stop=stop_after_attempt(self._settings.attempts_max),
            retry=retry_if_result(_try_again),
            retry_error_callback=_outcome,
        )
        await retrying(self._attempt, telling)
        if not telling.delivered:
            telling.given_up = True
            self._changed[telling.alert.alert_id] = telling
            self._given_up += 1
            _log.warning(
                "alert %s given up after %d attempts: %s", telling.alert.alert_id, telling.attempts, telling.error
            )

    async def _attempt(self, telling: _Telling) -> Attempt:
        """One attempt, once a slot is free and our lease is valid."""
        async with self._slots:
            while self._stopping or not self._permitted():
                await self._clock.sleep(self._settings.permit_poll_s)
            if telling.attempts > 0:
                self._retried += 1
            self._in_flight += 1
            try:
                self._let_next(telling)
                attempt = await self._receivers.post(telling.alert)
            except Exception as error:
                # A fault of ours must not end the telling: the alert would stay untold until the next takeover.
                _log.exception("the attempt to tell %s broke", telling.alert.alert_id)
                attempt = Attempt(delivered=False, error=f"internal error ({type(error).__name__})")
            finally:
                self._in_flight -= 1
                if self._in_flight == 0:
                    self._idle.set()
        telling.attempts += 1
        if attempt.delivered:
            telling.delivered = True
            self._told += 1
        else:
            telling.error = attempt.error
        self._changed[telling.alert.alert_id] = telling
        return attempt

    # ------------------------------------------------------------------------------------------------- writing it down

    def wants_flush(self) -> bool:
        """Whether `flush` has anything to write."""
        return any(self._stored(each) for each in self._changed.values())

    async def flush(self) -> None:
        """Write the deliveries that changed and whose rows are in the store; raises `StoreUnavailable`.

        What could not be written is written by the next call. Call it now and then, and after `stop`."""
        ready = [each for each in self._changed.values() if self._stored(each)]
        for start in range(0, len(ready), self._settings.flush_rows_max):
            batch = [(each, each.delivery()) for each in ready[start : start + self._settings.flush_rows_max]]
            await self._store.record_deliveries([delivery for _, delivery in batch])
            for telling, written in batch:
                # It may have moved on, or been forgotten and handed in anew, while the store was at work.
                if self._changed.get(telling.alert.alert_id) is not telling or telling.delivery() != written:
                    continue
                del self._changed[telling.alert.alert_id]
                if telling.finished:
                    self._held.pop(telling.alert.alert_id, None)

    def _stored(self, telling: _Telling) -> bool:
        return telling.alert.offset < self._stored_below.get(telling.partition, 0)

    async def stop(self, grace_s: float) -> None:
        """Start no more attempts; let those under way end for up to `grace_s`, then break them off.

        Nothing is told after this returns. What was told can still be flushed."""
        self._stopping = True
        if self._in_flight:
            self._idle.clear()
            waits = {self._spawn(self._until_idle()), self._spawn(self._clock.sleep(grace_s))}
            try:
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            finally:
                await _cancel(waits)
        await _cancel([each.task for each in self._running if each.task is not None])

    async def _until_idle(self) -> None:
        await self._idle.wait()


async def _cancel(tasks: Iterable[asyncio.Task[None]]) -> None:
    tasks = list(tasks)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
