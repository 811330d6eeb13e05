"""Processes that own without a lease, in the simulator: what they run lives, dies, hangs until another has long taken its
place, and begins anew, on virtual time. Of what it is, and what it reads and writes, the world at hand knows."""

import asyncio
import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from random import Random
from typing import Any, Final, Protocol, TypeVar

from actors.ports import LogUnavailable, StoreUnavailable
from tests.simulation.simulate import Outcome, no_collections
from tests.simulation.virtual_loop import NobodyWaits, TimeStandsStill, VirtualLoop, run_virtually

CHAOS_S: Final = 4.0  # of virtual time
REST_S: Final = 4.0  # in which all that is left is read and written
INTERVAL_S: Final = 0.2
RESTART_MAX_S: Final = 0.6
COMMIT_FAULTS: Final = ("unknown_done", "unknown_not_done", "unknown_late")


class Process(Protocol):
    """What a process runs."""

    @property
    def fenced(self) -> bool: ...

    async def run(self) -> None: ...

    def stop(self) -> None: ...

    def views(self) -> list[Any]: ...


class Life:
    """One life of the actor's process."""

    def __init__(self, world: "World", name: str) -> None:
        self.name = name
        self.alive = True
        self.world = world
        self._resumed: asyncio.Event | None = None  # set when a pause ends
        self.actor = world.process(self)
        self._task = asyncio.get_running_loop().create_task(self._run(), name=name)

    async def _run(self) -> None:
        await self.actor.run()
        self.alive = False
        if not self.world.over and self.world.newest is self:
            self.world.later()  # Ray makes an actor that has ended anew

    def wall_us(self) -> int:
        return self.world.wall_us()

    def boot_s(self) -> float:
        return self.world.loop.now_s

    async def sleep(self, seconds: float) -> None:
        await self.world.loop.sleep(seconds)
        await self.gate("sleep")

    async def gate(self, site: str) -> None:
        """A step: may take time, and is where faults strike."""
        self._need_life()
        world = self.world
        if world.slow():
            await world.loop.sleep(world.random.random() ** 3 * INTERVAL_S)
        await self._running()
        world.pass_by(self, site)
        await self._running()

    async def _running(self) -> None:
        while self._resumed is not None:
            await self._resumed.wait()
        self._need_life()

    def _need_life(self) -> None:
        if not self.alive:
            raise asyncio.CancelledError

    def pause(self, seconds: float) -> None:
        if self._resumed is None:
            self._resumed = asyncio.Event()
            asyncio.get_running_loop().call_later(seconds, self.resume)

    def resume(self) -> None:
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def kill(self) -> None:
        """No effect follows."""
        self.alive = False
        self.resume()
        self._task.cancel()

    async def ended(self) -> None:
        """Wait for its end; what broke it is a finding."""
        (error,) = await asyncio.gather(self._task, return_exceptions=True)
        if isinstance(error, Exception):
            self.world.violated(f"{self.name} broke: {type(error).__name__}: {error}")


class World:
    """Lives, and the faults that strike them. Its time begins at `START_US`; `LOG_CALLS` and `STORE_CALLS` may be away; behind
    those of `DONE_CALLS` a lost answer is a fault of its own."""

    START_US: int
    SETTLE_US: int
    arriving: Sequence[Any]  # what producers write, each `at_s` after the start
    LOG_CALLS: tuple[str, ...] = ()
    STORE_CALLS: tuple[str, ...] = ()
    DONE_CALLS: tuple[str, ...] = ("commit.after",)

    def __init__(self, name: str, seed: int, loop: VirtualLoop, *, faults: bool) -> None:
        self.loop = loop
        self.random = Random(f"{name} faults {seed}")
        self.violations: list[str] = []
        self.fired: Counter[tuple[str, str]] = Counter()
        self.steps = 0
        self.trace: list[tuple[float, str, str]] = []
        self.over = False
        self.lives: list[Life] = []
        self._name = name
        self._faults = faults
        self._strike_share = self.random.choice([0.01, 0.03, 0.1])
        self._slow_share = self.random.choice([0.0, 0.1, 0.3])
        self._pace = 1.0  # seconds of wall time per second that processes wait
        self._ahead_us = 0
        self._start_s = loop.now_s

    def process(self, life: Life) -> Process:
        """What a new life runs."""
        raise NotImplementedError

    @property
    def newest(self) -> Life:
        return self.lives[-1]

    def wall_us(self) -> int:
        return self.START_US + self._ahead_us + round((self.loop.now_s - self._start_s) * self._pace * 1_000_000)

    def violated(self, sentence: str) -> None:
        self.violations.append(f"at {self.loop.now_s - self._start_s:.3f} s: {sentence}")

    # ------------------------------------------------------------------------------------------------------- faults

    def slow(self) -> bool:
        return self._faults and self.random.random() < self._slow_share

    def pass_by(self, life: Life, site: str) -> None:
        """A life passes a site; a fault may strike it there."""
        self.steps += 1
        self.trace.append((self.loop.now_s, life.name, site))
        if not self._faults or self.random.random() >= self._strike_share:
            return
        call = site.partition(".")[0]
        kinds = ["kill", "pause", "pause"]
        if call in self.LOG_CALLS or (
            call in self.STORE_CALLS and site not in self.DONE_CALLS
        ):  # of a commit, a lost answer is unknown
            kinds += ["away", "away"]
        kind = self.random.choice(kinds)
        self.fired[kind, site] += 1
        if kind == "kill":
            life.kill()
            if self.newest is life:
                self.later()
            raise asyncio.CancelledError
        if kind == "pause":
            life.pause(self.random.uniform(0.1, 2.5))
            if self.newest is life and self.random.random() < 0.7:  # it is taken for dead: a zombie, when it goes on
                self.later()
            return
        raise (StoreUnavailable if call in self.STORE_CALLS else LogUnavailable)(f"simulated: away at {site}")

    def commit_fault(self) -> str | None:
        if not self._faults or self.random.random() >= 2 * self._strike_share:
            return None
        fault = self.random.choice(COMMIT_FAULTS)
        self.fired[fault, "commit"] += 1
        return fault

    def later(self) -> None:
        """A new life begins after a while."""
        self.loop.call_later(self.random.uniform(0.02, RESTART_MAX_S), self.begin)

    def begin(self) -> None:
        if not self.over:
            self.lives.append(Life(self, f"{self._name}.{len(self.lives)}"))

    # --------------------------------------------------------------------------------------------------------- a run

    async def run(self) -> None:
        """Chaos, then healing, then all settles; then everybody stops."""
        for each in self.arriving:
            self.loop.call_at(self._start_s + each.at_s, self.arrive, each)
        self.begin()
        await asyncio.sleep(CHAOS_S)
        self._faults = False
        for life in self.lives:
            life.resume()
        await asyncio.sleep(1.0)
        self._ahead_us += 2 * self.SETTLE_US
        await asyncio.sleep(REST_S)
        self.judge_rest()
        self.over = True
        for life in self.lives:
            life.actor.stop()
            await life.ended()

    def arrive(self, each: Any) -> None:
        """It is written now."""
        raise NotImplementedError

    def judge_rest(self) -> None:
        """All has healed and settled."""
        raise NotImplementedError

    def told(self) -> dict[str, dict[str, str]]:
        """What the run came to, by part and name."""
        raise NotImplementedError

    def unbalanced(self) -> Iterator[str]:
        """What of it contradicts itself."""
        return iter(())

    def came_about(self) -> dict[str, int]:
        """What proves nothing if it never does."""
        raise NotImplementedError

    def counted(self) -> tuple[int, int]:
        """Commits, and what was told."""
        raise NotImplementedError


AnyWorld = TypeVar("AnyWorld", bound=World)


def unlike(found: World, alone: World) -> Iterator[str]:
    """What the one told otherwise than the other."""
    parts = found.told()
    for part, expected in alone.told().items():
        for name in sorted(expected.keys() | parts[part].keys()):
            if expected.get(name) != parts[part].get(name):
                yield f"{part} {name}: {expected.get(name)} without faults, found {parts[part].get(name)}"


def beside_one_alone(
    seed: int,
    flag: str,
    make: Callable[[VirtualLoop, bool], AnyWorld],
    patches: Callable[[], Sequence[AbstractContextManager[Any]]],
) -> Outcome:
    """Run a seed with faults and without, and hold the one against the other. `flag` of the command runs it again."""
    with no_collections():
        found, alone = (play(make, patches, faults) for faults in (True, False))
    violations = [*found.violations, *(f"without faults, {sentence}" for sentence in alone.violations)]
    if not violations:
        violations = [*unlike(found, alone), *found.unbalanced()]
    commits, told = found.counted()
    return Outcome(
        seed=seed,
        violations=violations,
        trace=hashlib.sha256(repr(found.trace).encode()).hexdigest(),
        fired=found.fired,
        looked=Counter(),
        reached=Counter({name: count for name, count in found.came_about().items() if count}),
        steps=found.steps,
        commits=commits,
        rated=told,
        virtual_s=CHAOS_S + REST_S,
        approved=0,
        denied=Counter(),
        world=flag,
    )


def play(
    make: Callable[[VirtualLoop, bool], AnyWorld],
    patches: Callable[[], Sequence[AbstractContextManager[Any]]],
    faults: bool,
) -> AnyWorld:
    """One run."""
    loop = VirtualLoop()
    world = make(loop, faults)
    logging.disable(logging.CRITICAL)  # warnings about faults that are meant to be
    try:
        with ExitStack() as stack:
            for patch in patches():
                stack.enter_context(patch)
            run_virtually(loop, world.run())
    except (NobodyWaits, TimeStandsStill) as error:
        world.violated(f"{type(error).__name__}: {error}")
    finally:
        logging.disable(logging.NOTSET)
    world.violations += loop.broken
    return world
