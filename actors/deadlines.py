"""Many deadlines, nearly none of which is ever reached, on one timer of the loop.

A timer for each, as asyncio has it, costs a replica of the API a tenth of what it does for a check.
"""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

_NEVER: Final = float("inf")


class Deadlines:
    """Of one event loop, the one that is running at the first call."""

    def __init__(self) -> None:
        self._of: dict[int, tuple[float, Callable[..., None], Any]] = {}  # number -> when, what to call, and with what
        self._number = 0
        self._timer: asyncio.TimerHandle | None = None
        self._next_s = _NEVER  # when the timer looks; no deadline is earlier

    def add(self, until_s: float, call: Callable[..., None], argument: Any) -> int:
        """`call(argument)` at this instant of the loop's clock, unless the number returned is dropped before."""
        self._number += 1
        self._of[self._number] = until_s, call, argument
        if until_s < self._next_s:
            self._look_at(until_s)
        return self._number

    def drop(self, number: int) -> None:
        """It was not reached. Again is harmless."""
        self._of.pop(number, None)

    def within(self, seconds: float) -> "Within":
        """A block that is cancelled after so long, and then raises TimeoutError: asyncio's `timeout` for many."""
        return Within(self, seconds)

    def _look_at(self, next_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._next_s = next_s
        self._timer = asyncio.get_running_loop().call_at(next_s, self._look)

    def _look(self) -> None:
        self._timer, self._next_s = None, _NEVER
        now_s = asyncio.get_running_loop().time()
        passed = [
            (number, call, argument) for number, (until_s, call, argument) in self._of.items() if until_s <= now_s
        ]
        for number, _, _ in passed:
            del self._of[number]
        if self._of:
            self._look_at(min(until_s for until_s, _, _ in self._of.values()))
        for _, call, argument in passed:
            call(argument)


class Within:
    """A block with a deadline. It is entered by a task, once."""

    __slots__ = ("_cancelling", "_deadlines", "_number", "_passed", "_seconds", "_task")

    def __init__(self, deadlines: Deadlines, seconds: float) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._passed = False

    def __enter__(self) -> "Within":
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a deadline is a task's")
        self._task = task
        self._cancelling = task.cancelling()
        self._number = self._deadlines.add(asyncio.get_running_loop().time() + self._seconds, Within._pass, self)
        return self

    def begin_anew(self, seconds: float) -> None:
        """From now on the block has so long, unless its time is up already."""
        self._deadlines.drop(self._number)
        if not self._passed:
            self._number = self._deadlines.add(asyncio.get_running_loop().time() + seconds, Within._pass, self)

    def _pass(self) -> None:
        self._passed = True
        self._task.cancel()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.drop(self._number)
        # Who was cancelled by somebody else as well stays cancelled.
        if self._passed and self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise TimeoutError from error
