"""Runs seeds of the simulation: `python -m tests.simulation.run --seeds 1000`, or one of them with `--seed 123`."""

import argparse
import os
import platform
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from tests.simulation.costs import simulate_costs
from tests.simulation.margins import simulate_margins
from tests.simulation.simulate import Outcome, simulate
from tests.simulation.workers import Run, WorkersDie, outcomes

ROOT: Final = Path(__file__).parents[2]
TELL_EVERY_S: Final = 5.0
FAILED_SEEDS_MAX: Final = 1000  # kept by name
INTERRUPTED: Final = 130  # the exit status of what Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """0: everything held; 1: something did not; 130: broken off, and nothing had been found by then."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.run", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one and print what it came to")
    parser.add_argument("--seeds", type=int, default=100, help="how many to run")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes that run them")
    parser.add_argument("--report", type=Path, help="write the figures to this file, as JSON")
    parser.add_argument("--costs", action="store_true", help="run the seeds of the cost actors' world")
    parser.add_argument("--margins", action="store_true", help="run those of the margin actors' and floors' world")
    parser.add_argument("--traces", action="store_true", help="print the digest of each seed's steps, nothing else")
    options = parser.parse_args(arguments)
    seeds = range(options.start, options.start + options.seeds)
    run = simulate_costs if options.costs else simulate_margins if options.margins else simulate
    if options.seed is not None:
        return _one(run(options.seed))
    if options.traces:
        for seed, trace in sorted((outcome.seed, outcome.trace) for outcome in outcomes(seeds, options.jobs, run)):
            say(f"{seed} {trace}")
        return 0
    return _many(seeds, options.jobs, options.report, run)


def _one(outcome: Outcome) -> int:
    say(outcome.told() if outcome.violations else f"seed {outcome.seed}: everything held")
    say(f"trace {outcome.trace}, {outcome.steps} steps, {outcome.commits} commits")
    say(f"{outcome.approved} holds approved, denied: {dict(outcome.denied)}")
    say(f"reached: {dict(sorted(outcome.reached.items()))}")
    for (kind, site), count in sorted(outcome.fired.items()):
        say(f"  {kind} {site}: {count}")
    return 1 if outcome.violations else 0


class Figures:
    """What many seeds came to, summed as they come."""

    def __init__(self, seeds: range, jobs: int) -> None:
        self.violations = 0
        self.done = 0
        self._seeds = seeds
        self._jobs = jobs
        self._started_s = time.monotonic()
        self._failed: list[int] = []
        self._fired: Counter[tuple[str, str]] = Counter()
        self._looked: Counter[str] = Counter()
        self._denied: Counter[str] = Counter()
        self._reached: Counter[str] = Counter()
        self._sums: Counter[str] = Counter()
        self._virtual_s = 0.0

    def add(self, outcome: Outcome) -> None:
        self.done += 1
        self.violations += len(outcome.violations)
        if outcome.violations and len(self._failed) < FAILED_SEEDS_MAX:
            self._failed.append(outcome.seed)
        self._fired.update(outcome.fired)
        self._looked.update(outcome.looked)
        self._denied.update(outcome.denied)
        self._reached.update(outcome.reached)
        for name in ("commits", "steps", "rated", "approved"):
            self._sums[name] += getattr(outcome, name)
        self._virtual_s += outcome.virtual_s

    @property
    def seeds_per_s(self) -> float:
        return self.done / max(1e-9, time.monotonic() - self._started_s)

    def told(self) -> str:
        """How far it is, in one line."""
        left_s = round((len(self._seeds) - self.done) / self.seeds_per_s) if self.done else 0
        return (
            f"{self.done} of {len(self._seeds)} seeds, {self.seeds_per_s:.1f} a second, {self.violations} violations, "
            f"{left_s // 3600}:{left_s // 60 % 60:02}:{left_s % 60:02} left"
        )

    def report(self, *, complete: bool) -> dict[str, Any]:
        by_kind: Counter[str] = Counter()
        by_site: dict[str, dict[str, int]] = {}
        for (kind, site), count in sorted(self._fired.items()):
            by_kind[kind] += count
            by_site.setdefault(kind, {})[site] = count
        return {
            "start": self._seeds.start,
            "seeds": self.done,
            "seeds_asked": len(self._seeds),
            "complete": complete,
            "violations": self.violations,
            "failed_seeds": sorted(self._failed),
            "seeds_per_s": round(self.seeds_per_s, 2),
            "wall_s": round(time.monotonic() - self._started_s, 1),
            "faults_fired": dict(by_kind),
            "fault_sites_fired": by_site,
            "invariants_looked_at": dict(sorted(self._looked.items())),
            **self._sums,
            "denied": dict(sorted(self._denied.items())),
            "reached": dict(sorted(self._reached.items())),
            "virtual_s": round(self._virtual_s),
            "jobs": self._jobs,
            "machine": {"cores": os.cpu_count(), "cpu": _cpu(), "python": platform.python_version()},
            "commit": _commit(),
        }


def _many(seeds: range, jobs: int, report: Path | None, run: Run) -> int:
    figures = Figures(seeds, jobs)
    told_s = time.monotonic()
    complete = False
    try:
        for outcome in outcomes(seeds, jobs, run):
            figures.add(outcome)
            if outcome.violations:
                say(outcome.told())
            if time.monotonic() - told_s >= TELL_EVERY_S:
                told_s = time.monotonic()
                say(figures.told(), end="\r" if sys.stdout.isatty() else "\n")
        complete = figures.done == len(seeds)
    except KeyboardInterrupt:
        say("broken off")
    except WorkersDie as error:
        say(f"broken off: {error}")
    summary = figures.report(complete=complete)
    if report is not None:
        report.parent.mkdir(parents=True, exist_ok=True)
        report.write_bytes(orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n")
    for kind, sites in summary["fault_sites_fired"].items():
        say(f"  {kind}: " + ", ".join(f"{site} {count}".strip() for site, count in sites.items()))
    say("  reached: " + ", ".join(f"{name} {count}" for name, count in summary["reached"].items()))
    say(
        f"{summary['seeds']} seeds from {seeds.start} on in {summary['wall_s']} s ({summary['seeds_per_s']} a second), "
        f"{summary['virtual_s']} s of virtual time, {summary.get('steps', 0)} steps, {summary.get('commits', 0)} commits, "
        f"{sum(summary['faults_fired'].values())} faults; {summary['violations']} violations, "
        f"failed seeds: {summary['failed_seeds'] or 'none'}"
    )
    if figures.violations:
        return 1
    return 0 if complete else INTERRUPTED


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.processor())


def _commit() -> str | None:
    """With `-dirty` when the files are not those of the commit; None outside a repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def say(line: str, end: str = "\n") -> None:
    sys.stdout.write(line + end)
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())
