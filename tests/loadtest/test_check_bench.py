"""The bench's own parts: turns that are taken fairly, and ratios. The whole of it is `make bench-check`."""

import asyncio

from actors.clock import SystemClock
from loadtest import check_bench
from loadtest.check_bench import Measured, beside, cold_and_warm, take_turns


async def test_contenders_alternate_and_the_first_round_warms_up() -> None:
    order: list[str] = []
    under_way = most = 0

    def turn_of(name: str, seconds: float) -> check_bench.Timed:
        async def turn(number: int) -> float:
            nonlocal under_way, most
            order.append(name)
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0.001)
            under_way -= 1
            return seconds * (1000 if number < 8 else 1)

        return turn

    def cpu_s() -> dict[str, float]:
        return {"shard": order.count("a") * 0.000_005 + order.count("b") * 0.000_001}

    contenders = {"a": turn_of("a", 0.002), "b": turn_of("b", 0.001)}
    measured = await take_turns(contenders, SystemClock(), rounds=2, turns=4, concurrency=2, cpu_s=cpu_s)
    assert (measured["a"].cpu_us, measured["b"].cpu_us) == ({"shard": 5.0}, {"shard": 1.0})
    assert order == (["a"] * 4 + ["b"] * 4) * 3
    assert most == 2
    assert (measured["a"].ms["p99"], measured["b"].ms["p99"]) == (2.0, 1.0)
    assert beside(measured, "a", "b")["times_p50"] == 2.0


def test_ratios_are_against_the_least() -> None:
    measured = {"check": Measured({"p50": 3.0, "p99": 9.0}, 100.0), "no-op": Measured({"p50": 1.5, "p99": 3.0}, 400.0)}
    found = beside(measured, "check", "no-op")
    assert (found["times_p50"], found["times_p99"], found["share_of_rate"]) == (2.0, 3.0, 0.25)
    assert cold_and_warm([0.010, 0.010], [0.002])["times_p50"] == 5.0
    assert cold_and_warm([], [])["times_p50"] is None
