"""Runs seeds of the simulation: `python -m tests.simulation.run --seeds 1000`, or one of them with `--seed 123`."""

import argparse
import os
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.simulate import Outcome, simulate


def outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """The outcome of each seed, in order."""
    if jobs <= 1:
        yield from map(simulate, seeds)
        return
    with ProcessPoolExecutor(jobs) as pool:
        yield from pool.map(simulate, seeds, chunksize=8)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one and print what it came to")
    parser.add_argument("--seeds", type=int, default=100, help="how many to run")
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that run them")
    parser.add_argument("--traces", action="store_true", help="print the digest of each seed's steps, nothing else")
    options = parser.parse_args(arguments)
    if options.seed is not None:
        outcome = simulate(options.seed)
        say(outcome.told() if outcome.violations else f"seed {outcome.seed}: everything held")
        say(f"trace {outcome.trace}, {outcome.steps} steps, {outcome.commits} commits")
        say(f"{outcome.approved} holds approved, denied: {dict(outcome.denied)}")
        for (kind, site), count in sorted(outcome.fired.items()):
            say(f"  {kind} {site}: {count}")
        return 1 if outcome.violations else 0
    if options.traces:
        for outcome in outcomes(range(options.first, options.first + options.seeds), options.jobs):
            say(f"{outcome.seed} {outcome.trace}")
        return 0
    return _many(range(options.first, options.first + options.seeds), options.jobs)


def _many(seeds: range, jobs: int) -> int:
    started_s = time.monotonic()
    fired: Counter[tuple[str, str]] = Counter()
    denied: Counter[str] = Counter()
    failed = steps = commits = approved = 0
    virtual_s = 0.0
    for outcome in outcomes(seeds, jobs):
        fired.update(outcome.fired)
        steps += outcome.steps
        commits += outcome.commits
        approved += outcome.approved
        denied.update(outcome.denied)
        virtual_s += outcome.virtual_s
        if outcome.violations:
            failed += 1
            say(outcome.told())
    took_s = time.monotonic() - started_s
    for (kind, site), count in sorted(fired.items()):
        say(f"  {kind} {site}: {count}")
    say(
        f"{len(seeds)} seeds in {took_s:.1f} s ({len(seeds) / took_s:.1f} a second), {virtual_s:.0f} s of virtual time, "
        f"{steps} steps, {commits} commits, {fired.total()} faults, {approved} holds approved, "
        f"denied {dict(denied)}; {failed} seeds failed"
    )
    return 1 if failed else 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
