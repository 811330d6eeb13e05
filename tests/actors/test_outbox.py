"""The outbox on a clock moved by hand, with receivers that answer as told."""

import asyncio
import gc
from collections.abc import Callable, Coroutine, Sequence
from random import Random
from typing import Any

import pytest

from actors.outbox import Outbox, OutboxSettings, _Telling
from actors.ports import AlertRow, Attempt, Delivery, StoreUnavailable
from tests.simulation.hand_clock import HandClock, settle

TOLD = Attempt(delivered=True)
BUSY = Attempt(delivered=False, error="HTTP 503")


class ScriptedReceivers:
    """Answers what `script` says of (alert id, how often it came); a held alert waits until let go."""

    def __init__(
        self, clock: HandClock, script: Callable[[str, int], Attempt] = lambda alert_id, arrival: TOLD
    ) -> None:
        self._clock = clock
        self.script = script
        self.calls: list[tuple[float, str]] = []
        self.bodies: list[bytes] = []
        self.held: dict[str, asyncio.Event] = {}
        self.under_way = 0
        self.under_way_max = 0

    def hold(self, alert_id: str) -> asyncio.Event:
        return self.held.setdefault(alert_id, asyncio.Event())

    def ids(self) -> list[str]:
        return [alert_id for _, alert_id in self.calls]

    async def post(self, alert: AlertRow) -> Attempt:
        alert_id = alert.alert_id
        self.calls.append((self._clock.boot_s(), alert_id))
        self.bodies.append(alert.body)
        arrival = self.ids().count(alert_id)
        self.under_way += 1
        self.under_way_max = max(self.under_way_max, self.under_way)
        try:
            if alert_id in self.held:
                await self.held[alert_id].wait()
            return self.script(alert_id, arrival)
        finally:
            self.under_way -= 1


class Rows:
    """The store's outbox rows."""

    def __init__(self) -> None:
        self.written: list[Delivery] = []
        self.down = False
        self.during: Callable[[], object] | None = None

    async def record_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        if self.down:
            raise StoreUnavailable("down")
        if self.during is not None:
            self.during()
            await settle()
        self.written.extend(deliveries)


class Stage:
    """An outbox and everything around it."""

    def __init__(self, **settings: float) -> None:
        self.clock = HandClock()
        self.receivers = ScriptedReceivers(self.clock)
        self.rows = Rows()
        self.lease_valid = True
        self.tasks: list[asyncio.Task[None]] = []
        given = {"jitter_share": 0.0, **settings}
        self.outbox = Outbox(
            self.clock,
            self.receivers,
            self.rows,
            OutboxSettings(**given),  # type: ignore[arg-type]
            permitted=lambda: self.lease_valid,
            spawn=self.spawn,
            random=Random(7),
        )

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self.tasks.append(task)
        return task


def alert(number: int, account: str = "", offset: int | None = None) -> AlertRow:
    return AlertRow(
        alert_id=f"a{number}",
        account=account or f"account-{number}",
        offset=number if offset is None else offset,
        body=b'{"n":%d}' % number,
    )


async def test_an_alert_is_told_at_once_and_flushed_after_its_checkpoint() -> None:
    stage = Stage()
    stage.outbox.offer(3, alert(5))
    await settle()
    assert stage.receivers.calls == [(0.0, "a5")]
    assert stage.receivers.bodies == [b'{"n":5}']
    await stage.outbox.flush()
    stage.outbox.checkpointed(3, 5)  # rows below offset 5
    stage.outbox.checkpointed(4, 99)  # another partition's
    await stage.outbox.flush()
    assert stage.rows.written == []
    stage.outbox.checkpointed(3, 6)
    await stage.outbox.flush()
    await stage.outbox.flush()
    assert stage.rows.written == [Delivery(alert_id="a5", attempts=1, delivered=True, given_up=False, error="")]
    counts = stage.outbox.counts()
    assert (counts.told, counts.retried, counts.given_up, counts.in_flight, counts.held) == (1, 0, 0, 0, 0)


async def test_pauses_grow_by_the_factor_up_to_the_limit_and_then_it_is_given_up() -> None:
    stage = Stage(attempts_max=6, back_off_s=1.0, back_off_factor=4.0, back_off_max_s=50.0)
    stage.receivers.script = lambda alert_id, arrival: BUSY
    stage.outbox.resume(0, [alert(1)])
    await stage.clock.until(lambda: stage.outbox.counts().given_up == 1)
    assert [at_s for at_s, _ in stage.receivers.calls] == [0.0, 1.0, 5.0, 21.0, 71.0, 121.0]
    assert set(stage.receivers.bodies) == {b'{"n":1}'}
    await stage.outbox.flush()
    assert stage.rows.written == [Delivery(alert_id="a1", attempts=6, delivered=False, given_up=True, error="HTTP 503")]
    assert stage.outbox.counts().retried == 5
    assert stage.outbox.counts().held == 0


async def test_the_default_schedule_is_twelve_attempts_over_about_a_day() -> None:
    stage = Stage(jitter_share=OutboxSettings().jitter_share)
    stage.receivers.script = lambda alert_id, arrival: BUSY
    stage.outbox.offer(0, alert(1))
    await stage.clock.until(lambda: stage.outbox.counts().given_up == 1)
    assert len(stage.receivers.calls) == 12
    assert 24 * 3600 < stage.receivers.calls[-1][0] < 30 * 3600


async def test_jitter_comes_from_the_given_source_and_never_shortens_a_pause() -> None:
    def run() -> Stage:
        stage = Stage(jitter_share=0.5, attempts_max=4)
        stage.receivers.script = lambda alert_id, arrival: BUSY
        stage.outbox.offer(0, alert(1))
        return stage

    moments = []
    for stage in (run(), run()):
        await stage.clock.until(lambda stage=stage: stage.outbox.counts().given_up == 1)  # type: ignore[misc]
        moments.append([at_s for at_s, _ in stage.receivers.calls])
    assert moments[0] == moments[1]
    pauses = [later - earlier for earlier, later in zip(moments[0], moments[0][1:], strict=False)]
    for pause, plain in zip(pauses, [1.0, 4.0, 16.0], strict=True):
        assert plain < pause < plain * 1.5


async def test_retry_after_lengthens_a_pause_and_never_shortens_it() -> None:
    stage = Stage(back_off_s=10.0, back_off_factor=2.0)
    asked = {1: 33.0, 2: 1.0}
    stage.receivers.script = lambda alert_id, arrival: (
        Attempt(delivered=False, error="HTTP 429", retry_after_s=asked[arrival]) if arrival in asked else TOLD
    )
    stage.outbox.offer(0, alert(1))
    await stage.clock.until(lambda: stage.outbox.counts().told == 1)
    assert [at_s for at_s, _ in stage.receivers.calls] == [0.0, 33.0, 53.0]


async def test_a_final_answer_gives_up_at_once() -> None:
    stage = Stage()
    stage.receivers.script = lambda alert_id, arrival: Attempt(delivered=False, error="HTTP 410", final=True)
    stage.outbox.resume(0, [alert(1)])
    await stage.clock.advance(100_000.0)
    await stage.outbox.flush()
    assert stage.rows.written == [Delivery(alert_id="a1", attempts=1, delivered=False, given_up=True, error="HTTP 410")]
    assert len(stage.receivers.calls) == 1


async def test_a_fault_of_ours_counts_as_a_failed_attempt() -> None:
    stage = Stage()

    def script(alert_id: str, arrival: int) -> Attempt:
        if arrival == 1:
            raise KeyError("secret")
        return TOLD

    stage.receivers.script = script
    stage.outbox.resume(0, [alert(1)])
    await settle()
    await stage.outbox.flush()
    await stage.clock.until(lambda: stage.outbox.counts().told == 1)
    await stage.outbox.flush()
    assert [(each.attempts, each.delivered, each.error) for each in stage.rows.written] == [
        (1, False, "internal error (KeyError)"),
        (2, True, "internal error (KeyError)"),
    ]


async def test_first_attempts_of_an_account_begin_in_order_and_wait_for_no_answer_and_no_retry() -> None:
    stage = Stage()
    first = stage.receivers.hold("a1")
    stage.receivers.script = lambda alert_id, arrival: BUSY if alert_id == "a1" and arrival == 1 else TOLD
    stage.outbox.offer(0, alert(1, "acme"))
    stage.outbox.offer(0, alert(2, "acme"))
    stage.outbox.offer(0, alert(3, "acme"))
    stage.outbox.offer(0, alert(4, "other"))
    await settle()
    assert sorted(stage.receivers.ids()) == ["a1", "a2", "a3", "a4"]
    assert [each for each in stage.receivers.ids() if each != "a4"] == ["a1", "a2", "a3"]
    first.set()
    await stage.clock.until(lambda: stage.outbox.counts().told == 4)
    assert stage.receivers.calls[-1] == (1.0, "a1")


async def test_alerts_that_waited_for_the_lease_begin_in_order() -> None:
    stage = Stage()
    stage.lease_valid = False
    for number in range(20):
        stage.outbox.offer(0, alert(number, "acme"))
        await stage.clock.advance(0.06)  # they look for the lease at different moments
    stage.lease_valid = True
    await stage.clock.until(lambda: stage.outbox.counts().told == 20)
    assert stage.receivers.ids() == [f"a{number}" for number in range(20)]


async def test_a_later_alert_of_a_told_account_waits_for_nobody() -> None:
    stage = Stage()
    stage.outbox.offer(0, alert(1, "acme"))
    await settle()
    stage.outbox.offer(0, alert(2, "acme"))
    await settle()
    assert stage.receivers.ids() == ["a1", "a2"]


async def test_attempts_under_way_are_bounded() -> None:
    stage = Stage(concurrent_max=3)
    holds = [stage.receivers.hold(f"a{number}") for number in range(10)]
    for number in range(10):
        stage.outbox.offer(0, alert(number))
    await settle()
    assert stage.outbox.counts().in_flight == stage.receivers.under_way == 3
    for hold in holds:
        hold.set()
    await settle()
    assert stage.receivers.under_way_max == 3
    assert stage.outbox.counts().told == 10


async def test_pausing_alerts_take_no_slot() -> None:
    stage = Stage(concurrent_max=1)
    stage.receivers.script = lambda alert_id, arrival: BUSY if alert_id == "a1" else TOLD
    for number in (1, 2, 3):
        stage.outbox.offer(0, alert(number))
    await settle()
    assert stage.outbox.counts().told == 2


async def test_begun_alerts_are_bounded_and_the_rest_queues_in_order() -> None:
    stage = Stage(pending_max=2)
    stage.receivers.script = lambda alert_id, arrival: BUSY if alert_id in ("a0", "a1") and arrival == 1 else TOLD
    for number in range(6):
        stage.outbox.offer(0, alert(number))
    await settle()
    assert stage.receivers.ids() == ["a0", "a1"]
    assert len(stage.tasks) == 2
    await stage.clock.advance(1.0)
    assert [each for each in stage.receivers.ids() if each not in ("a0", "a1")] == ["a2", "a3", "a4", "a5"]
    assert stage.outbox.counts().told == 6


async def test_an_account_whose_receivers_are_dead_keeps_no_other_waiting() -> None:
    stage = Stage(pending_max=10, account_pending_max=3)
    stage.receivers.script = lambda alert_id, arrival: BUSY if alert_id < "a5" else TOLD
    for number in (10, 11, 12, 13, 14, 15, 16):
        stage.outbox.offer(0, alert(number, "dead"))
    for number in range(50, 70):
        stage.outbox.offer(0, alert(number))
    await settle()
    assert [each for each in stage.receivers.ids() if each < "a5"] == ["a10", "a11", "a12"]
    assert stage.outbox.counts().told == 20
    stage.receivers.script = lambda alert_id, arrival: TOLD
    stage.outbox.offer(0, alert(17, "dead"))
    await stage.clock.until(lambda: stage.outbox.counts().told == 28)
    assert list(dict.fromkeys(each for each in stage.receivers.ids() if each < "a5")) == [
        f"a{number}" for number in range(10, 18)
    ]


async def test_what_was_parked_goes_with_its_partition() -> None:
    stage = Stage(account_pending_max=1)
    stage.receivers.hold("a1")
    stage.outbox.offer(1, alert(1, "acme"))
    stage.outbox.offer(1, alert(2, "acme"))
    stage.outbox.offer(2, alert(3, "acme"))
    await settle()
    stage.outbox.forget(1)
    await settle()
    assert stage.receivers.ids() == ["a1", "a3"]
    stage.outbox.offer(2, alert(4, "acme"))
    await settle()
    assert stage.receivers.ids() == ["a1", "a3", "a4"]


async def test_an_id_held_already_is_not_told_twice() -> None:
    stage = Stage()
    hold = stage.receivers.hold("a1")
    stage.outbox.offer(0, alert(1))
    await settle()
    stage.outbox.offer(0, alert(1))
    stage.outbox.resume(0, [alert(1)])
    hold.set()
    await settle()
    stage.outbox.offer(0, alert(1))  # told, not yet flushed
    await settle()
    assert stage.receivers.ids() == ["a1"]


async def test_nothing_is_attempted_without_a_lease() -> None:
    stage = Stage()
    stage.lease_valid = False
    stage.outbox.offer(0, alert(1))
    await stage.clock.advance(30.0)
    assert stage.receivers.calls == []
    stage.lease_valid = True
    await stage.clock.advance(1.0)
    assert stage.receivers.ids() == ["a1"]


async def test_a_retry_waits_for_the_lease_too() -> None:
    stage = Stage()
    stage.receivers.script = lambda alert_id, arrival: BUSY if arrival == 1 else TOLD
    stage.outbox.offer(0, alert(1))
    await settle()
    stage.lease_valid = False
    await stage.clock.advance(60.0)
    assert len(stage.receivers.calls) == 1
    stage.lease_valid = True
    await stage.clock.advance(1.0)
    assert len(stage.receivers.calls) == 2


async def test_a_forgotten_partition_is_told_no_more_and_others_are() -> None:
    stage = Stage(pending_max=3)
    stage.receivers.script = lambda alert_id, arrival: TOLD if alert_id in ("a8", "a9") else BUSY
    stage.receivers.hold("a2")
    stage.outbox.resume(1, [alert(1), alert(2), alert(3), alert(4)])  # pausing, under way, pausing, queued
    stage.outbox.resume(2, [alert(8), alert(9)])  # queued
    await settle()
    assert stage.receivers.ids() == ["a1", "a2", "a3"]
    stage.outbox.forget(1)
    await settle()
    assert stage.outbox.counts().in_flight == 0
    await stage.clock.advance(100_000.0)
    assert stage.receivers.ids() == ["a1", "a2", "a3", "a8", "a9"]
    await stage.outbox.flush()
    assert sorted(each.alert_id for each in stage.rows.written) == ["a8", "a9"]
    assert stage.outbox.counts().held == 0
    assert all(task.done() for task in stage.tasks)


async def test_a_partition_may_come_back() -> None:
    stage = Stage()
    stage.receivers.hold("a1")
    stage.outbox.offer(1, alert(1, "acme"))
    stage.outbox.offer(1, alert(2, "acme"))
    await settle()
    stage.outbox.forget(1)
    stage.receivers.held.clear()
    stage.outbox.resume(1, [alert(1, "acme")])
    stage.outbox.offer(1, alert(2, "acme"))
    await settle()
    assert stage.receivers.ids() == ["a1", "a2", "a1", "a2"]
    await stage.outbox.flush()
    assert [each.alert_id for each in stage.rows.written] == ["a1"]


async def test_a_partition_forgotten_before_its_tasks_ran_leaves_nothing_behind() -> None:
    stage = Stage(pending_max=1)
    stage.outbox.offer(1, alert(1))
    stage.outbox.forget(1)
    stage.outbox.offer(2, alert(2))
    await settle()
    assert stage.receivers.ids() == ["a2"]


async def test_an_attempt_that_failed_is_flushed_and_flushed_again_when_told() -> None:
    stage = Stage()
    stage.receivers.script = lambda alert_id, arrival: BUSY if arrival == 1 else TOLD
    stage.outbox.resume(0, [alert(1)])
    await settle()
    await stage.outbox.flush()
    await stage.clock.advance(1.0)
    await stage.outbox.flush()
    assert [(each.attempts, each.delivered, each.error) for each in stage.rows.written] == [
        (1, False, "HTTP 503"),
        (2, True, "HTTP 503"),
    ]


async def test_what_changes_while_the_store_writes_is_written_next_time() -> None:
    stage = Stage()
    stage.receivers.script = lambda alert_id, arrival: BUSY if arrival == 1 else TOLD
    stage.outbox.resume(0, [alert(1)])
    await settle()
    hold = stage.receivers.hold("a1")
    await stage.clock.advance(1.0)  # the second attempt is under way
    stage.rows.during = hold.set  # and ends during the write
    await stage.outbox.flush()
    stage.rows.during = None
    await stage.outbox.flush()
    assert [(each.attempts, each.delivered) for each in stage.rows.written] == [(1, False), (2, True)]


async def test_a_store_that_is_away_loses_no_delivery() -> None:
    stage = Stage(flush_rows_max=2)
    stage.outbox.resume(0, [alert(number) for number in range(5)])
    await settle()
    stage.rows.down = True
    with pytest.raises(StoreUnavailable):
        await stage.outbox.flush()
    stage.rows.down = False
    await stage.outbox.flush()
    assert [each.alert_id for each in stage.rows.written] == ["a0", "a1", "a2", "a3", "a4"]


async def test_beyond_the_bound_alerts_are_left_to_the_store_and_come_back_from_it() -> None:
    stage = Stage(held_max=2)
    for number in range(4):
        stage.outbox.offer(0, alert(number, "acme"))
    await settle()
    assert stage.receivers.ids() == ["a0", "a1"]
    assert stage.outbox.counts().left_out == 2
    stage.outbox.checkpointed(0, 3)
    await stage.outbox.flush()
    # There is room, but the row of a3 is not in the store yet, and a4 must not overtake it.
    assert stage.outbox.wants_resume() == []
    stage.outbox.offer(0, alert(4, "acme"))
    stage.outbox.checkpointed(0, 4)
    assert stage.outbox.wants_resume() == []
    stage.outbox.checkpointed(0, 5)
    assert stage.outbox.wants_resume() == [0]
    stage.outbox.offer(0, alert(5, "acme"))  # made while the rows were being read
    stage.outbox.resume(0, [alert(2, "acme"), alert(3, "acme"), alert(4, "acme")])
    await settle()
    assert stage.receivers.ids() == ["a0", "a1", "a2", "a3"]
    stage.outbox.checkpointed(0, 6)
    await stage.outbox.flush()
    assert stage.outbox.wants_resume() == [0]
    stage.outbox.resume(0, [alert(4, "acme"), alert(5, "acme")])
    await settle()
    assert stage.outbox.wants_resume() == []
    await stage.outbox.flush()
    stage.outbox.offer(0, alert(6, "acme"))
    await settle()
    assert stage.receivers.ids() == [f"a{number}" for number in range(7)]


async def test_an_alert_left_out_after_the_rows_were_read_is_not_lost() -> None:
    stage = Stage(held_max=4)
    stage.receivers.hold("a0")
    for number in range(5):
        stage.outbox.offer(0, alert(number))  # a4 is left out
    await settle()
    stage.outbox.checkpointed(0, 5)
    await stage.outbox.flush()
    assert stage.outbox.wants_resume() == [0]
    stage.outbox.offer(0, alert(5))  # left out, and not among the rows read before
    stage.outbox.resume(0, [alert(0), alert(4)])
    assert stage.outbox.wants_resume() == []
    stage.outbox.checkpointed(0, 6)
    await settle()
    await stage.outbox.flush()
    assert stage.outbox.wants_resume() == [0]


async def test_stop_lets_attempts_under_way_end() -> None:
    stage = Stage()
    hold = stage.receivers.hold("a1")
    stage.outbox.resume(0, [alert(1)])
    await settle()
    stopping = asyncio.ensure_future(stage.outbox.stop(10.0))
    await settle()
    assert not stopping.done()
    stage.outbox.resume(0, [alert(2)])
    hold.set()
    await stopping
    await stage.outbox.flush()
    assert [each.alert_id for each in stage.rows.written] == ["a1"]
    assert stage.receivers.ids() == ["a1"]


async def test_stop_breaks_attempts_off_when_the_grace_is_over() -> None:
    stage = Stage()
    stage.receivers.script = lambda alert_id, arrival: BUSY
    stage.receivers.hold("a1")
    stage.outbox.resume(0, [alert(1), alert(2)])
    await settle()
    stopping = asyncio.ensure_future(stage.outbox.stop(10.0))
    await stage.clock.advance(9.9)
    assert not stopping.done()
    await stage.clock.advance(0.2)
    await stopping
    await stage.clock.advance(100_000.0)
    assert stage.receivers.ids() == ["a1", "a2"]
    assert all(task.done() for task in stage.tasks)


async def test_told_alerts_are_not_kept_in_memory() -> None:
    stage = Stage()
    stage.receivers.script = lambda alert_id, arrival: BUSY if alert_id == "a49" else TOLD
    for number in range(50):
        stage.outbox.offer(0, alert(number, "acme"))
    await stage.clock.advance(0.5)
    assert stage.outbox.counts().told == 49
    stage.outbox.checkpointed(0, 50)
    await stage.outbox.flush()
    stage.tasks.clear()
    stage.rows.written.clear()
    gc.collect()
    # The last one pauses before its second attempt; it must not keep its predecessors alive.
    assert [each.alert.alert_id for each in gc.get_objects() if isinstance(each, _Telling)] == ["a49"]
