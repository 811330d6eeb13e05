"""The lease: what it allows, who renews it, and what becomes of it when the answer is late, lost or a refusal."""

import asyncio
import threading

import pytest

from actors.clock import SystemClock
from actors.lease import Heartbeat, HeartbeatThread, Lease
from actors.ports import Fenced, Membership, Renewal, StoreRefused, StoreUnavailable
from config.settings import LeaseSettings
from tests.simulation.hand_clock import HandClock, settle

SETTINGS = LeaseSettings(lease_s=1.2, renew_every_s=0.3)


class ScriptedMembership:
    """Renews unless told otherwise; the answer takes `answer_s`."""

    def __init__(self, clock: HandClock) -> None:
        self.calls: list[float] = []
        self.faults: list[Exception] = []
        self.answer_s = 0.0
        self.changed = False
        self._clock = clock

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def register(
        self,
        incarnation: str,
        shard: str,
        host: str,
        lock_path: str,
        pid: int,
        door_host: str | None = None,
        door_port: int | None = None,
    ) -> None: ...

    async def leave(self, incarnation: str) -> None: ...

    async def assignment_changed(self, within_s: float) -> None:
        await self._clock.sleep(0.01 if self.changed else within_s)

    async def renew(self, incarnation: str) -> Renewal:
        self.calls.append(self._clock.boot_s())
        if self.answer_s:
            await self._clock.sleep(self.answer_s)
        if self.faults:
            raise self.faults.pop(0)
        return Renewal(frozenset({1, 2}), SETTINGS.lease_s)


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def lease(clock: HandClock) -> Lease:
    return Lease(clock)


@pytest.fixture
def membership(clock: HandClock) -> ScriptedMembership:
    return ScriptedMembership(clock)


def heartbeat(membership: Membership, clock: HandClock, lease: Lease) -> Heartbeat:
    return Heartbeat(membership, clock, lease, "a.1", SETTINGS)


async def test_nothing_may_be_said_before_the_first_renewal(
    clock: HandClock, lease: Lease, membership: ScriptedMembership
) -> None:
    assert not lease.valid()
    await heartbeat(membership, clock, lease).renew()
    assert lease.valid()
    assert lease.partitions == {1, 2}


async def test_a_lease_runs_out_by_itself(clock: HandClock, lease: Lease) -> None:
    lease.extend(clock.boot_s() + 1.2, frozenset())
    await clock.advance(1.19)
    assert lease.valid()
    await clock.advance(0.02)
    assert not lease.valid()


async def test_what_another_claimed_while_the_lease_had_lapsed_is_lost(clock: HandClock, lease: Lease) -> None:
    """Until it is claimed again: a renewal does not bring back what was claimed before."""
    claimed_s = clock.boot_s()
    await clock.advance(5.0)
    asked_s = clock.boot_s()
    lease.extend(asked_s + 1.2, frozenset({1, 2}), frozenset({2, 3}), asked_s)
    assert lease.valid()
    assert lease.lost(1, claimed_s)
    assert not lease.lost(2, claimed_s)
    assert not lease.lost(3, claimed_s), "it is to be handed over, and is still ours"
    assert not lease.lost(1, asked_s), "claimed since"
    lease.extend(asked_s + 1.2, frozenset({1, 2}), frozenset({1, 2}), asked_s)
    assert not lease.lost(1, claimed_s)


async def test_how_long_a_lease_still_runs_is_told(clock: HandClock, lease: Lease) -> None:
    lease.extend(clock.boot_s() + 2.0, frozenset())
    await clock.advance(0.5)
    assert lease.left_s() == 1.5
    await clock.advance(2.0)
    assert lease.left_s() == -0.5


async def test_a_lease_counts_from_before_the_call(
    clock: HandClock, lease: Lease, membership: ScriptedMembership
) -> None:
    membership.answer_s = 1.0
    renewing = asyncio.create_task(heartbeat(membership, clock, lease).renew())
    await clock.advance(1.0)
    await renewing
    assert lease.valid()
    await clock.advance(0.25)
    assert not lease.valid(), "1.2 s from the answer on would be 1 s too long"


async def test_an_answer_slower_than_the_lease_gives_none(
    clock: HandClock, lease: Lease, membership: ScriptedMembership
) -> None:
    membership.answer_s = 1.3
    renewing = asyncio.create_task(heartbeat(membership, clock, lease).renew())
    await clock.advance(1.4)
    await renewing
    assert not lease.valid()


async def test_a_fenced_shard_has_no_lease_and_no_more_renewals(
    clock: HandClock, lease: Lease, membership: ScriptedMembership
) -> None:
    running = asyncio.create_task(heartbeat(membership, clock, lease).run())
    await settle()
    assert lease.valid()
    membership.faults = [Fenced("declared dead")]
    await clock.advance(0.3)
    await running
    assert lease.fenced and not lease.valid()
    lease.extend(clock.boot_s() + 100, frozenset())
    assert not lease.valid(), "what is fenced stays fenced, whatever answer comes late"


@pytest.mark.parametrize("fault", [StoreUnavailable("away"), StoreRefused("no such table")])
async def test_a_renewal_that_failed_is_tried_again(
    clock: HandClock, lease: Lease, membership: ScriptedMembership, fault: Exception
) -> None:
    running = asyncio.create_task(heartbeat(membership, clock, lease).run())
    await settle()
    membership.faults = [fault] * 5
    await clock.advance(1.0)
    lease.beat()
    await clock.advance(0.3)
    assert not lease.valid()
    assert not lease.fenced
    await clock.advance(0.6)
    assert lease.valid()
    running.cancel()


async def test_the_lease_of_a_silent_loop_is_not_renewed(
    clock: HandClock, lease: Lease, membership: ScriptedMembership
) -> None:
    running = asyncio.create_task(heartbeat(membership, clock, lease).run())
    lease.beat()
    await clock.advance(10)
    assert max(membership.calls) <= SETTINGS.lease_s
    assert lease.silent_s() == pytest.approx(10)
    assert not lease.valid()
    lease.beat()
    await clock.advance(0.4)
    assert lease.valid(), "a loop that shows life again gets its lease again"
    running.cancel()


async def test_a_heartbeat_that_breaks_ends_its_shard(
    clock: HandClock, lease: Lease, membership: ScriptedMembership, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody would renew for it; and as long as it lives nobody makes it anew."""
    running = asyncio.create_task(heartbeat(membership, clock, lease).run())
    await clock.advance(0.1)
    assert lease.valid()
    membership.faults = [AttributeError("a fault of a library")]
    await clock.until(running.done, 5)
    await running
    assert lease.fenced and not lease.valid()
    assert "a fault of a library" in caplog.text


async def test_a_heartbeat_that_is_stopped_ends(clock: HandClock, lease: Lease, membership: ScriptedMembership) -> None:
    beating = heartbeat(membership, clock, lease)
    running = asyncio.create_task(beating.run())
    await clock.advance(0.35)
    beating.stop()
    await clock.advance(0.3)
    await running
    assert membership.calls == [0.0, pytest.approx(0.3)]


async def test_a_change_of_the_assignment_is_fetched_at_once(
    clock: HandClock, lease: Lease, membership: ScriptedMembership
) -> None:
    membership.changed = True
    made = heartbeat(membership, clock, lease)
    running = asyncio.create_task(made.run())
    await clock.advance(0.015)
    assert membership.calls == [0.0, pytest.approx(0.01)]
    made.stop()
    await clock.advance(1)
    await running


class ThreadedMembership(ScriptedMembership):
    """Notes in which thread it is used; `start` fails as often as told."""

    def __init__(self, failing_starts: int = 0) -> None:
        super().__init__(HandClock())
        self.threads: set[str] = set()
        self.renewed = threading.Event()
        self.stopped = threading.Event()
        self.failing_starts = failing_starts

    async def start(self) -> None:
        self.threads.add(threading.current_thread().name)
        if self.failing_starts:
            self.failing_starts -= 1
            raise StoreUnavailable("away")

    async def stop(self) -> None:
        self.stopped.set()

    async def renew(self, incarnation: str) -> Renewal:
        self.threads.add(threading.current_thread().name)
        self.renewed.set()
        return Renewal(frozenset({3}), 60.0)

    async def assignment_changed(self, within_s: float) -> None:
        await asyncio.sleep(within_s)


def threaded(membership: ThreadedMembership, lease: Lease) -> HeartbeatThread:
    settings = LeaseSettings(lease_s=30, renew_every_s=0.05)
    return HeartbeatThread(lease, lambda: (Heartbeat(membership, SystemClock(), lease, "a.1", settings), membership))


@pytest.mark.parametrize("failing_starts", [0, 2])
async def test_the_thread_renews_whatever_the_loop_does_and_closes_its_connection(failing_starts: int) -> None:
    lease, membership = Lease(SystemClock()), ThreadedMembership(failing_starts)
    thread = threaded(membership, lease)
    thread.start()
    assert membership.renewed.wait(30), "this wait blocks our event loop, as a long batch does"
    await thread.stop()
    assert membership.stopped.is_set()
    assert membership.threads == {"heartbeat"}
    assert lease.valid() and lease.partitions == {3}
    assert "heartbeat" not in {running.name for running in threading.enumerate()}


class BreakingMembership(ThreadedMembership):
    """One that a library's fault, and no state of Postgres, keeps from starting."""

    async def start(self) -> None:
        raise AttributeError("a fault of a library")


@pytest.mark.parametrize("where", ["loop", "make", "connect"])
async def test_a_thread_that_breaks_before_its_heartbeat_beats_ends_its_shard(
    where: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would never hear that it was declared dead; and as long as it lives nobody makes it anew."""
    lease, membership = Lease(SystemClock()), BreakingMembership()

    def make() -> tuple[Heartbeat, Membership]:
        if where == "make":
            raise AttributeError("a fault of a library")
        return Heartbeat(membership, SystemClock(), lease, "a.1", SETTINGS), membership

    thread = HeartbeatThread(lease, make)
    if where == "loop":
        monkeypatch.setattr(thread, "_renew_until_stopped", lambda: 1 / 0)  # as where no file may be opened any more
    thread.start()
    await asyncio.to_thread(thread._thread.join)  # by itself: a stop could come before it has anything to break
    assert lease.fenced and not lease.valid()
    assert ("division by zero" if where == "loop" else "a fault of a library") in caplog.text


async def test_a_thread_stopped_before_it_has_begun_ends_too() -> None:
    making, may_go_on = threading.Event(), threading.Event()
    lease, membership = Lease(SystemClock()), ThreadedMembership()

    def make() -> tuple[Heartbeat, Membership]:
        making.set()
        may_go_on.wait(30)
        return Heartbeat(membership, SystemClock(), lease, "a.1", SETTINGS), membership

    thread = HeartbeatThread(lease, make)
    thread.start()
    making.wait(30)
    stopping = asyncio.create_task(thread.stop())
    await asyncio.sleep(0)
    may_go_on.set()
    await asyncio.wait_for(stopping, 30)
    assert not membership.renewed.is_set()
