"""An event loop on virtual time: nobody waits, no socket is opened, and the same program takes the same steps.

When nothing is ready to run, time jumps to the next timer. A program in which nobody waits for time any more, or that
runs on without letting time pass, is stopped with an error that says so.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

START_S: Final = 1_000.0
TURNS_AT_ONE_MOMENT_MAX: Final = 100_000  # a busy simulation takes some hundred

Result = TypeVar("Result")


class NobodyWaits(RuntimeError):
    """Every task waits for another one: no timer is left that could wake any."""


class TimeStandsStill(RuntimeError):
    """Tasks go on and on without a moment passing: in real time, a loop that burns a core."""


class _Timers:
    """Stands where a selector would: nothing ever arrives from outside, so a wait is a jump in time."""

    def __init__(self) -> None:
        self.now_s = START_S
        self._turns = 0

    def select(self, timeout_s: float | None) -> list[Any]:
        if timeout_s is None:
            raise NobodyWaits(f"at {self.now_s:.6f} s nothing is left that could happen")
        if timeout_s > 0:
            self.now_s += timeout_s
            self._turns = 0
        else:
            self._turns += 1
            if self._turns > TURNS_AT_ONE_MOMENT_MAX:
                raise TimeStandsStill(f"at {self.now_s:.6f} s")
        return []

    def close(self) -> None:
        pass


class VirtualLoop(asyncio.BaseEventLoop):
    """Timers that are due at the same moment run in the order in which they were set."""

    def __init__(self) -> None:
        super().__init__()
        self._selector = _Timers()
        self._clock_resolution = 1e-9  # a jump may end a rounding error before its timer
        self.broken: list[str] = []  # what nobody was there to catch
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self._selector.now_s

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass  # there is no other thread that would have to wake this one

    def _note(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        self.broken.append(f"{context.get('message')}: {context.get('exception')!r}")


def run_virtually(loop: VirtualLoop, main: Coroutine[Any, Any, Result]) -> Result:
    """Run to its end, then close the loop. What is still under way then is left in `loop.broken`."""
    asyncio.set_event_loop(loop)
    try:
        result = loop.run_until_complete(main)
        left = sorted(task.get_name() for task in asyncio.all_tasks(loop))
        loop.broken += [f"task {name} outlived the run" for name in left]
        return result
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        asyncio.set_event_loop(None)
        loop.close()
