"""The driver: records leave in their order and at their time, whether or not the log keeps up."""

import asyncio
from collections.abc import Callable, Sequence

import orjson
import pytest

from actors.clock import SystemClock
from actors.ports import Outgoing
from engine.events import unseal
from loadtest.drive import EVENT_LAG_US, TICK_S, UNDER_WAY_MAX, Driver
from loadtest.workload import Send
from tests.simulation.hand_clock import HandClock
from tests.simulation.sim_log import SimBroker, SimLog

KEY = b"a control key of thirty-two bytes"


def send(
    at_s: float,
    value: bytes | None = b"{}",
    kind: str = "event",
    key: bytes | None = b"acct",
    partition: int | None = 0,
    seal_partition: int | None = None,
    render: Callable[[int], bytes | None] | None = None,
) -> Send:
    return Send(at_s, kind, key, partition, seal_partition, render or (lambda _: value))


class Stage:
    def __init__(self) -> None:
        self.clock = HandClock()
        self.broker = SimBroker(self.clock, 2)
        self.log = SimLog(self.broker, self.clock)
        self.driver = Driver(self.log, self.clock, "usage", KEY)

    def values(self, partition: int = 0) -> list[bytes | None]:
        return [record.value for record in self.broker.topic("usage", partition).records]

    async def run(self, *sends: Send) -> None:
        task = asyncio.create_task(self.driver.run(sends))
        await self.clock.until(task.done, 1_000)
        await task


@pytest.fixture
def stage() -> Stage:
    return Stage()


async def test_records_leave_in_their_order(stage: Stage) -> None:
    await stage.run(*(send(number * 0.003, b"%d" % number) for number in range(50)))
    assert stage.values() == [b"%d" % number for number in range(50)]
    assert stage.driver.sent == 50


async def test_records_leave_at_their_time(stage: Stage) -> None:
    started_ms = stage.clock.wall_us() // 1000
    await stage.run(*(send(number * 0.25, b"%d" % number) for number in range(5)))
    appended = [record.timestamp - started_ms for record in stage.broker.topic("usage", 0).records]
    assert appended == pytest.approx([0, 250, 500, 750, 1000], abs=2)


async def test_an_event_is_stamped_when_it_leaves_and_never_ahead_of_its_append_time(stage: Stage) -> None:
    stamped: list[int] = []

    def render(time_us: int) -> bytes:
        stamped.append(time_us)
        return b"{}"

    began_us = stage.clock.wall_us()
    await stage.run(*(send(number * 1.0, render=render) for number in range(3)))
    assert stamped == pytest.approx([began_us - EVENT_LAG_US + number * 1_000_000 for number in range(3)], abs=2)
    appended_us = [record.timestamp * 1000 for record in stage.broker.topic("usage", 0).records]
    assert all(time_us < append_us for time_us, append_us in zip(stamped, appended_us, strict=True))


async def test_a_slow_log_does_not_slow_the_driver(stage: Stage) -> None:
    """Open loop: what is offered does not depend on what is taken."""
    begun: list[float] = []

    async def slow(site: str) -> None:
        if site == "append.before":
            begun.append(stage.clock.boot_s())
            await stage.clock.sleep(10)

    stage.log = SimLog(stage.broker, stage.clock, slow)
    stage.driver = Driver(stage.log, stage.clock, "usage", KEY)
    await stage.run(*(send(number * 0.1) for number in range(20)))
    assert max(begun) < 3
    assert len(stage.values()) == 20
    assert stage.driver.behind_s == pytest.approx(0, abs=TICK_S)


async def test_a_driver_that_cannot_keep_up_says_how_far_it_is_behind(stage: Stage) -> None:
    """Beyond so many batches under way it waits, rather than filling the memory."""
    under_way_max = under_way = 0

    async def stuck(site: str) -> None:
        nonlocal under_way_max, under_way
        if site == "append.before":
            under_way += 1
            under_way_max = max(under_way_max, under_way)
            await stage.clock.sleep(60)
            under_way -= 1

    stage.driver = Driver(SimLog(stage.broker, stage.clock, stuck), stage.clock, "usage", KEY)
    count = UNDER_WAY_MAX + 20
    await stage.run(*(send(number * TICK_S * 2) for number in range(count)))
    assert under_way_max == UNDER_WAY_MAX
    assert stage.driver.behind_s > 30
    assert len(stage.values()) == count


async def test_what_kafka_did_not_take_is_sent_again(stage: Stage) -> None:
    stage.log.append_faults = [0, 1, 0]
    await stage.run(send(0.0, b"a"), send(0.0, b"b"))
    assert stage.values() == [b"a", b"a", b"b"], "a record may appear twice, none is missing"
    assert stage.driver.sent == 2


async def test_what_became_durable_is_told_once_with_its_offsets(stage: Stage) -> None:
    told: list[tuple[str, bytes | None, int]] = []

    def acknowledged(kinds: Sequence[str], records: Sequence[Outgoing], offsets: Sequence[int]) -> None:
        told.extend((kind, record.value, at) for kind, record, at in zip(kinds, records, offsets, strict=True))

    stage.log.append_faults = [0, 1, 0]
    stage.driver = Driver(stage.log, stage.clock, "usage", KEY, acknowledged)
    await stage.run(send(0.0, b"a"), send(0.0, b"b", "malformed.no_id"))
    assert [(kind, value) for kind, value, _ in told] == [("event", b"a"), ("malformed", b"b")]
    assert [stage.values()[offset] for _, _, offset in told] == [b"a", b"b"]


async def test_records_are_counted_by_kind(stage: Stage) -> None:
    kinds = ("event", "event", "duplicate", "malformed.no_id", "malformed.empty_value", "forged.copied")
    await stage.run(*(send(0.0, kind=kind) for kind in kinds))
    assert stage.driver.counts == {"event": 2, "duplicate": 1, "malformed": 2, "forged": 1}


async def test_a_control_record_is_sealed_for_its_partition(stage: Stage) -> None:
    body = orjson.dumps({"kind": "grant"})
    await stage.run(send(0.0, body, "top_up", partition=1, seal_partition=1))
    (value,) = stage.values(1)
    assert value is not None and unseal(KEY, "usage", 1, value) == body


async def test_a_record_without_a_value_or_partition_leaves_as_it_is(stage: Stage) -> None:
    await stage.run(send(0.0, None), send(0.0, b"{}", key=b"somebody", partition=None))
    assert stage.values(0)[0] is None
    assert len(stage.values(0) + stage.values(1)) == 2


async def test_an_empty_workload_ends_at_once() -> None:
    driver = Driver(SimLog(SimBroker(SystemClock(), 1), SystemClock()), SystemClock(), "usage", KEY)
    await asyncio.wait_for(driver.run([]), 10)
    assert driver.sent == 0
