"""Deadlines on one timer: who passes his is told, who drops it is not, and a block that is too slow is cancelled."""

import asyncio

import pytest

from actors.deadlines import Deadlines

SOON_S = 0.01
LATE_S = 60.0


async def passed(told: list[str], wanted: int) -> None:
    async with asyncio.timeout(10):
        while len(told) < wanted:
            await asyncio.sleep(0.001)


async def test_each_is_told_when_its_time_has_come_and_no_sooner() -> None:
    deadlines, told, loop = Deadlines(), list[str](), asyncio.get_running_loop()
    came: dict[str, float] = {}

    def tell(name: str) -> None:
        came[name] = loop.time()
        told.append(name)

    start_s = loop.time()
    due = {"late": 4 * SOON_S, "first": SOON_S, "between": 2 * SOON_S}
    for name, after_s in due.items():
        deadlines.add(start_s + after_s, tell, name)
    await passed(told, 3)
    assert told == ["first", "between", "late"]
    assert all(came[name] >= start_s + after_s for name, after_s in due.items())


async def test_what_was_dropped_is_not_told_and_dropping_again_is_harmless() -> None:
    deadlines, told, loop = Deadlines(), list[str](), asyncio.get_running_loop()
    dropped = deadlines.add(loop.time() + SOON_S, told.append, "dropped")
    deadlines.add(loop.time() + 2 * SOON_S, told.append, "kept")
    deadlines.drop(dropped)
    deadlines.drop(dropped)
    await passed(told, 1)
    assert told == ["kept"]


async def test_one_added_after_all_others_have_passed_is_told() -> None:
    deadlines, told, loop = Deadlines(), list[str](), asyncio.get_running_loop()
    for name in ("one", "another"):
        deadlines.add(loop.time() + SOON_S, told.append, name)
        await passed(told, 1)
        told.clear()


async def test_one_that_is_told_may_add_another() -> None:
    deadlines, told, loop = Deadlines(), list[str](), asyncio.get_running_loop()

    def again(name: str) -> None:
        told.append(name)
        deadlines.add(loop.time(), told.append, "again")

    deadlines.add(loop.time() + SOON_S, again, "first")
    deadlines.add(loop.time() + LATE_S, told.append, "never")
    await passed(told, 2)
    assert told == ["first", "again"]


async def test_a_block_that_is_done_in_time_is_left_alone() -> None:
    deadlines = Deadlines()
    with deadlines.within(SOON_S):
        await asyncio.sleep(0)
    await asyncio.sleep(2 * SOON_S)


async def test_a_block_that_is_too_slow_is_cancelled() -> None:
    deadlines, ended = Deadlines(), list[str]()

    async def wait() -> None:
        try:
            await asyncio.sleep(LATE_S)
        finally:
            ended.append("cancelled")

    with pytest.raises(TimeoutError), deadlines.within(SOON_S):
        await wait()
    assert ended == ["cancelled"]
    current = asyncio.current_task()
    assert current is not None and current.cancelling() == 0, "it goes on as if nothing had been"


async def test_a_task_that_is_cancelled_by_others_stays_cancelled() -> None:
    deadlines = Deadlines()

    async def wait() -> None:
        with deadlines.within(LATE_S):
            await asyncio.sleep(LATE_S)

    task = asyncio.ensure_future(wait())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_the_inner_of_two_blocks_passes_and_the_outer_goes_on() -> None:
    deadlines = Deadlines()
    with deadlines.within(LATE_S):
        with pytest.raises(TimeoutError), deadlines.within(SOON_S):
            await asyncio.sleep(LATE_S)
        await asyncio.sleep(0)


async def test_an_error_inside_a_block_is_the_blocks_error() -> None:
    deadlines = Deadlines()
    with pytest.raises(ValueError, match="mine"), deadlines.within(LATE_S):
        raise ValueError("mine")


async def test_a_block_that_begins_anew_has_its_time_from_then_on() -> None:
    async def twice(first_s: float, then_s: float) -> None:
        with Deadlines().within(first_s) as block:
            block.begin_anew(then_s)
            await asyncio.sleep(3 * SOON_S)

    await twice(SOON_S, LATE_S)
    with pytest.raises(TimeoutError):
        await twice(LATE_S, SOON_S)
