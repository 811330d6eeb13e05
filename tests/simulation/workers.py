"""Many seeds on many processes. What a process cannot tell any more, because it died, is told of it."""

import gc
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Final

from tests.simulation.simulate import Outcome, lost, simulate

CHUNK: Final = 8  # seeds handed to a process at once
SEED_MAX_S: Final = 300  # a seed takes less than one; a process that hangs in one is ended
DEATHS_MAX: Final = 5

Run = Callable[[int], Outcome]


class WorkersDie(RuntimeError):
    """One after the other: it is not the seeds."""


def outcomes(seeds: range, jobs: int, run: Run = simulate) -> Iterator[Outcome]:
    """The outcome of each seed, as they come: in order only with one job, which runs in this very process.

    Raises WorkersDie."""
    if jobs <= 1:
        yield from map(run, seeds)
        return
    chunks = (seeds[first : first + CHUNK] for first in range(0, len(seeds), CHUNK))
    workers = [_Worker(run, chunk) for _, chunk in zip(range(jobs), chunks, strict=False)]
    deaths = 0
    try:
        while working := {worker.connection: worker for worker in workers if worker.seeds}:
            for connection in wait(list(working)):
                assert isinstance(connection, Connection)
                worker = working[connection]
                outcome = worker.receive()
                worker.seeds = worker.seeds[1:]
                if not worker.seeds:
                    worker.give(next(chunks, range(0)))
                if worker.dead:
                    deaths += 1
                    worker.end()
                    workers.remove(worker)
                    workers.append(_Worker(run, worker.seeds))
                yield outcome
                if deaths >= DEATHS_MAX:
                    raise WorkersDie(f"{deaths} processes died")
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """A process and the seeds that it was given and has not answered yet."""

    def __init__(self, run: Run, seeds: range) -> None:
        context = get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.dead = False
        self.seeds = range(0)
        self._process = context.Process(target=_work, args=(theirs, run), daemon=True)
        self._process.start()
        theirs.close()  # else its end would not be seen
        self.give(seeds)

    def give(self, seeds: range) -> None:
        self.seeds = seeds
        with suppress(OSError):  # it has died: `receive` tells
            self.connection.send(seeds)

    def receive(self) -> Outcome:
        """The outcome of the first seed."""
        try:
            outcome: Outcome = self.connection.recv()
            return outcome
        except (EOFError, OSError):
            self._process.join()
            self.dead = True
            return lost(self.seeds[0], f"the process that ran it ended with {self._process.exitcode}")

    def end(self) -> None:
        self.connection.close()
        self._process.kill()
        self._process.join()


def _work(connection: Connection, run: Run) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that asks
    gc.freeze()
    with suppress(EOFError, OSError):  # nobody asks any more
        while True:
            for seed in connection.recv():
                signal.alarm(SEED_MAX_S)
                connection.send(run(seed))
            signal.alarm(0)
