"""Slices on their way into the log: together, in the order asked for, until they are read back."""

import asyncio

import pytest

from actors.owned import Owned
from actors.slices import CLOCK_MARGIN_S, SliceWriter, linger_us
from config.settings import LeaseSettings, ShardSettings
from engine.admission import SliceNeeded
from engine.events import LEASES_IN_RECORD_MAX, Leases, Slices
from tests.actors.shard_rig import CONTROL_KEY, TOPIC, Process, Rig
from tests.simulation.hand_clock import settle


class Bench:
    """A partition whose records are folded when the test says so."""

    def __init__(self, rig: Rig, process: Process, owned: Owned) -> None:
        self.rig = rig
        self.owned = owned
        self.log = process.log
        self.writer = SliceWriter(process.log, rig.clock, TOPIC, CONTROL_KEY, 1_000_000, process.spawn)

    def need(self, account: str, **quantities: int) -> "asyncio.Task[None]":
        return asyncio.create_task(self.writer.written(self.owned, SliceNeeded(account, quantities)))

    async def fold(self) -> None:
        await settle()
        self.owned.next_offset = self.rig.end(0)
        self.owned.wake_waiting()
        await settle()

    def written(self) -> list[dict[str, dict[str, str]]]:
        return [dict(record.of) for record in self.rig.controls(0, Slices) if isinstance(record, Slices)]


@pytest.fixture
async def bench(rig: Rig) -> Bench:
    process = rig.process()
    await process.join(0)
    owned, _ = await process.take(0)
    return Bench(rig, process, owned)


async def test_who_waits_goes_on_only_when_the_slice_is_read_back(bench: Bench) -> None:
    waiting = bench.need("acme", call=1_500_000_000)
    await settle()
    assert bench.written() == [{"acme": {"call": "1.500000000"}}]
    assert not waiting.done()
    await bench.fold()
    assert waiting.done()
    (record,) = bench.rig.controls(0, Slices)
    assert record == Slices(1, 1_000_000, (("acme", {"call": "1.500000000"}),))


async def test_what_is_needed_while_a_record_is_under_way_goes_into_the_next(bench: Bench) -> None:
    first = bench.need("acme", call=10**9)
    await settle()
    others = [bench.need("globex", call=10**9), bench.need("initech", call=10**9), bench.need("acme", call=2 * 10**9)]
    same = bench.need("acme", call=10**9)
    await settle()
    assert len(bench.written()) == 1
    await bench.fold()
    assert first.done() and same.done() and not any(task.done() for task in others)
    assert bench.written()[1:] == [{"globex": {"call": "1"}, "initech": {"call": "1"}, "acme": {"call": "2"}}]
    await bench.fold()
    assert all(task.done() for task in others)
    assert bench.owned.slicing is None


async def test_of_one_account_the_last_that_was_asked_for_is_written(bench: Bench) -> None:
    for quantity in (1, 3, 2):
        bench.writer.wish(bench.owned, SliceNeeded("acme", {"call": quantity * 10**9}))
    bench.writer.wish(bench.owned, SliceNeeded("globex", {}))
    await settle()
    assert bench.written() == [{"acme": {"call": "2"}, "globex": {}}]


async def test_kafka_away_delays_and_loses_nothing(bench: Bench) -> None:
    bench.log.append_faults = [0, 1]
    waiting = bench.need("acme", call=10**9)
    await bench.rig.clock.advance(1)
    await bench.fold()
    assert waiting.done()
    assert bench.written() == [{"acme": {"call": "1"}}] * 2, "once in doubt, and once for certain"


async def test_slices_of_an_epoch_that_is_over_are_not_written(bench: Bench) -> None:
    bench.rig.broker.down = True
    waiting = bench.need("acme", call=10**9)
    await settle()
    bench.owned.epoch += 1
    later = bench.need("globex", call=10**9)
    bench.rig.broker.down = False
    await bench.rig.clock.advance(1)
    await bench.fold()
    assert waiting.done() and later.done()
    (record,) = bench.rig.controls(0, Slices)
    assert record == Slices(2, 1_000_000, (("globex", {"call": "1"}),))


async def test_a_lost_partition_lets_everybody_go(bench: Bench) -> None:
    waiting = [bench.need("acme", call=10**9)]
    await settle()
    waiting.append(bench.need("globex", call=10**9))
    await settle()
    for task in bench.owned.tasks():
        task.cancel()
    await settle()
    assert all(task.done() for task in waiting)


async def test_more_accounts_than_one_record_holds_take_several(bench: Bench) -> None:
    for number in range(1_001):
        bench.writer.wish(bench.owned, SliceNeeded(f"account-{number}", {"call": 10**9}))
    await settle()
    assert [len(of) for of in bench.written()] == [1_000, 1]


def test_a_slice_lingers_for_the_longest_hold_of_the_last_moment_of_a_lease() -> None:
    settings = ShardSettings(hold_ttl_max_s=100, report_delay_s=10)
    assert linger_us(settings, LeaseSettings()) == int((100 + 5 + 10 + 1.2 + CLOCK_MARGIN_S) * 1e6)
    longest = ShardSettings(hold_ttl_max_s=43_200, report_delay_s=3_600)
    assert linger_us(longest, LeaseSettings(lease_s=30)) < 86_400_000_000, "the most that a record may say"


async def test_leases_go_with_the_slices_grants_before_closes(bench: Bench) -> None:
    slices = bench.need("acme", call=10**9)
    await settle()
    closing = asyncio.create_task(bench.writer.closed(bench.owned, "acme", "0.1.1", 7))
    granting = [
        asyncio.create_task(bench.writer.granted(bench.owned, f"token-{number}"))
        for number in range(LEASES_IN_RECORD_MAX + 1)
    ]
    await settle()
    await bench.fold()
    assert slices.done() and not closing.done() and not any(task.done() for task in granting)
    first, second, closed = bench.rig.controls(0, Leases)
    assert isinstance(first, Leases) and isinstance(second, Leases)
    assert [len(first.granted), second.granted] == [LEASES_IN_RECORD_MAX, (f"token-{LEASES_IN_RECORD_MAX}",)]
    assert closed == Leases(1, (), (("acme", "0.1.1", 7),))
    await bench.fold()
    assert closing.done() and all(task.done() for task in granting)
