"""An event loop on virtual time: nobody waits, no socket is opened, and the same program takes the same steps.

When nothing is ready to run, time jumps to the next timer. A program in which nobody waits for time any more, or that
runs on without letting time pass, is stopped with an error that says so.

It has a queue and a heap of its own: asyncio's look at a selector, a debug flag and the machine's clock at every turn.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextvars import Context, copy_context
from heapq import heappop, heappush
from typing import Any, Final, TypeVar, TypeVarTuple

START_S: Final = 1_000.0
TURNS_AT_ONE_MOMENT_MAX: Final = 100_000  # a busy simulation takes some hundred

Result = TypeVar("Result")
Arguments = TypeVarTuple("Arguments")


class NobodyWaits(RuntimeError):
    """Every task waits for another one: no timer is left that could wake any."""


class TimeStandsStill(RuntimeError):
    """Tasks go on and on without a moment passing: in real time, a loop that burns a core."""


class _Handle(asyncio.TimerHandle):
    """What is to be called, at once or at its time."""

    __slots__ = ()

    def __init__(self, when_s: float, callback: Callable[..., object], args: Any, context: Context | None) -> None:
        self._when = when_s
        self._callback = callback
        self._args = args
        self._context = copy_context() if context is None else context
        self._cancelled = False

    def __repr__(self) -> str:
        return f"{self._callback!r} at {self._when:.6f} s"

    def cancel(self) -> None:
        self._cancelled = True


class _Turn:
    """Awaited, it lets everybody else run once."""

    __slots__ = ()

    def __await__(self) -> Generator[None, None, None]:
        yield


_TURN: Final = _Turn()


class VirtualLoop(asyncio.BaseEventLoop):
    """Timers that are due at the same moment run in the order in which they were set."""

    _stopping: bool  # asyncio's own word for it

    def __init__(self) -> None:
        super().__init__()
        self.now_s = START_S
        self._turns = 0  # at this moment
        self._due: deque[_Handle | asyncio.Future[None]] = deque()
        self._timers: list[tuple[float, int, _Handle | asyncio.Future[None]]] = []  # a heap: when, number, what
        self._timers_set = 0
        self.broken: list[str] = []  # what nobody was there to catch
        self.set_exception_handler(self._note)

    def time(self) -> float:
        return self.now_s

    def call_soon(
        self, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.Handle:
        handle = _Handle(self.now_s, callback, args, context)
        self._due.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._set_timer(_Handle(self.now_s + delay, callback, args, context))

    def call_at(
        self, when: float, callback: Callable[[*Arguments], object], *args: *Arguments, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self._set_timer(_Handle(when, callback, args, context))

    def sleep(self, seconds: float) -> "asyncio.Future[None] | _Turn":
        """What to await for `asyncio.sleep` at half its price: the loop itself tells the sleeper that its time has come."""
        if seconds <= 0:
            return _TURN
        woken: asyncio.Future[None] = asyncio.Future(loop=self)
        self._timers_set += 1
        heappush(self._timers, (self.now_s + seconds, self._timers_set, woken))
        return woken

    def _set_timer(self, handle: _Handle) -> _Handle:
        self._timers_set += 1
        heappush(self._timers, (handle._when, self._timers_set, handle))
        return handle

    def _run_once(self) -> None:
        """asyncio's loop is made of these turns: everything that is due now, once. Here they go on until it is stopped."""
        due = self._due
        while not self._stopping:
            if not due:
                self._jump()
            elif self._turns == TURNS_AT_ONE_MOMENT_MAX:
                raise TimeStandsStill(f"at {self.now_s:.6f} s")
            self._turns += 1
            for _ in range(len(due)):
                handle = due.popleft()
                if not isinstance(handle, _Handle):
                    if not handle.done():
                        handle.set_result(None)
                elif not handle._cancelled:
                    try:
                        handle._context.run(handle._callback, *handle._args)
                    except (SystemExit, KeyboardInterrupt):
                        raise
                    except BaseException as error:
                        self.call_exception_handler({"message": f"broken: {handle!r}", "exception": error})

    def _jump(self) -> None:
        """To the next moment for which a timer is set."""
        timers, due, now_s = self._timers, self._due, self.now_s
        while timers:
            when_s, _, handle = timers[0]
            if due and when_s > now_s:
                break
            heappop(timers)
            if not (handle._cancelled if isinstance(handle, _Handle) else handle.cancelled()):
                now_s = max(now_s, when_s)
                due.append(handle)
        if not due:
            raise NobodyWaits(f"at {now_s:.6f} s nothing is left that could happen")
        self.now_s = now_s
        self._turns = 0

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
