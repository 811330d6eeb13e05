"""Open-loop arrival: what waits is counted, and a slow answer delays nobody's question."""

import asyncio
import itertools

import pytest

from loadtest.bench.arrivals import Offered, open_loop, poisson, steady, steps
from loadtest.bench.latency import Latencies
from tests.simulation.hand_clock import HandClock


def test_steady_arrivals_are_evenly_spaced() -> None:
    assert steady(4, 1) == [0.0, 0.25, 0.5, 0.75]


def test_drawn_arrivals_are_ascending_and_follow_their_seed() -> None:
    times = poisson(1_000, 10, seed=3)
    assert times == sorted(times)
    assert times == poisson(1_000, 10, seed=3) != poisson(1_000, 10, seed=4)
    assert 9_700 < len(times) < 10_300
    assert 0 <= times[0] <= times[-1] < 10
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert 0.60 < sum(gap < 0.001 for gap in gaps) / len(gaps) < 0.66, (
        "of independent callers 63 % come within the mean gap"
    )


@pytest.mark.parametrize(
    "make", [lambda: steady(0, 1), lambda: poisson(1, 0, 1), lambda: steps(1, 1, 2), lambda: steps(5, 2, 4)]
)
def test_a_schedule_that_makes_no_sense_is_refused(make: object) -> None:
    with pytest.raises(ValueError):
        make()  # type: ignore[operator]


def test_a_ramp_ends_at_its_ceiling() -> None:
    assert steps(1_000, 2, 7_999) == [1_000, 2_000, 4_000]
    assert steps(1_000, 2, 8_000) == [1_000, 2_000, 4_000, 8_000]


class Scene:
    """Answers take a second, on a clock moved by hand."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.latencies = Latencies()
        self.began: list[float] = []

    async def call(self, number: int) -> None:
        self.began.append(self.clock.boot_s())
        await self.clock.sleep(1.0)
        if number == 13:
            raise ConnectionError("gone")

    async def run(self, times: list[float], **more: int) -> Offered:
        running = open_loop(times, self.call, self.clock, self.latencies, (ConnectionError,), **more)
        task = asyncio.create_task(running)
        await self.clock.until(task.done, 1_000)
        return await task


async def test_calls_begin_at_their_time_although_none_has_been_answered() -> None:
    scene = Scene()
    offered = await scene.run([0.0, 0.1, 0.2, 0.3])
    assert scene.began == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert offered.scheduled == 4
    assert offered.behind_s == pytest.approx(0)
    assert offered.seconds == pytest.approx(1.3)


async def test_the_time_that_a_call_waited_for_its_turn_counts() -> None:
    """Where a closed loop would have said one second each."""
    scene = Scene()
    offered = await scene.run([0.0, 0.0, 0.0, 0.0], in_flight_max=1)
    assert scene.began == pytest.approx([0, 1, 2, 3])
    assert scene.latencies.at(100) == pytest.approx(4_000, rel=0.001)
    assert scene.latencies.at(50) == pytest.approx(2_000, rel=0.001)
    assert offered.behind_s == pytest.approx(3)


async def test_a_failure_is_counted_and_has_no_duration() -> None:
    scene = Scene()
    offered = await scene.run([number / 100 for number in range(20)])
    assert (offered.scheduled, offered.failed, len(scene.latencies)) == (20, 1, 19)


async def test_an_error_that_nobody_declared_ends_the_run() -> None:
    async def broken(_: int) -> None:
        raise KeyError("a mistake of the bench")

    with pytest.raises(ExceptionGroup):
        await open_loop([0.0], broken, HandClock(), Latencies(), (ConnectionError,))
