"""`make bench`: every part in a process of its own, one after the other; then build/bench.json and build/bench.html.

    check       what a check costs over HTTP and at a door, beside a no-op route and an echo
    one_shard   one shard from a full log, the ramp to saturation, doors and webhooks at half of it
    patterns    what a user would build instead, beside ours
    scale       more customers, more prices, a second shard

A part leaves its figures in build/bench/; `--only` runs some of them, and the others' figures stay as they were. All of
them end within `--budget` minutes: each may take what those behind it leave, and one that takes longer is stopped, named,
and leaves no figures.
"""

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from msgspec import Struct
from rich.console import Console
from rich.table import Table

from config.stack.supervisor import reap
from loadtest.bench.capacity import model
from loadtest.bench.goals import goals_of, missed
from loadtest.bench.page import page
from loadtest.machine import machine

FOLDER: Final = Path("build/bench")
BUDGET_MIN: Final = 19.5
STOP_S: Final = 30.0  # a part that is stopped hands over, and stops its servers


class Part(Struct, frozen=True):
    """A module that measures one thing, and leaves its figures where `--report` says."""

    module: str
    minutes: float  # what it takes on two cores with nothing beside it; it may take its share of the budget by this
    smoke: Sequence[str]  # its arguments to see that everything works, with nothing to quote
    run_dir: Path  # whose servers are stopped, should it have to be killed


PARTS: Final = {
    "check": Part(
        "loadtest.check_bench", 2.5, ("--rounds", "1", "--turns", "60", "--accounts", "50"), Path("build/run-bench")
    ),
    "one_shard": Part(
        "loadtest.bench.one_shard",
        6.5,
        (
            *("--events", "30000", "--customers", "300", "--start", "1000", "--ceiling", "2500"),
            *("--step-s", "2", "--half-s", "3", "--checks", "200"),
        ),
        Path("build/run-bench-one-shard"),
    ),
    "patterns": Part("loadtest.patterns", 5.0, ("--smoke",), Path("build/run-bench-patterns")),
    "scale": Part(
        "loadtest.bench.scale",
        3.5,
        ("--events", "5000", "--shard-events", "10000", "--customers-max", "1000"),
        Path("build/run-bench-scale"),
    ),
}

Run = Callable[[Part, Sequence[str], float], int | None]


def commands(only: Sequence[str], smoke: bool, folder: Path) -> dict[str, list[str]]:
    """The command line of each part, by name."""
    found = {}
    for name in only or PARTS:
        report = report_of(name, folder)
        extra = PARTS[name].smoke if smoke else ()
        found[name] = [sys.executable, "-m", PARTS[name].module, "--report", str(report), *extra]
    return found


def report_of(name: str, folder: Path) -> Path:
    """Where a part leaves its figures."""
    return folder / f"{name.replace('_', '-')}.json"


def gather(folder: Path) -> dict[str, Any]:
    """The figures that the parts have left."""
    parts = {}
    for name in PARTS:
        report = report_of(name, folder)
        if report.exists():
            parts[name] = orjson.loads(report.read_bytes())
    return parts


def capacity_of(parts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What months of events need, by what the ramp has measured; None without one."""
    one_shard = parts.get("one_shard")
    return model(one_shard["ramp"], one_shard["machine"]["cores"]) if one_shard and "ramp" in one_shard else None


def share(name: str, waiting: Sequence[str], left_s: float) -> float:
    """Seconds that a part may take, of what is left for all that wait, itself the first: all but what those behind it take,
    or its share where there is not enough for all. The time that stopping takes is kept."""
    minutes = sum(PARTS[each].minutes for each in waiting)
    spared_s = left_s - (minutes - PARTS[name].minutes) * 60
    return max(0.0, spared_s - STOP_S, left_s * PARTS[name].minutes / minutes - STOP_S)


def in_a_process(part: Part, line: Sequence[str], within_s: float) -> int | None:
    """Its exit status; None when it took longer. Then it is asked to stop, as by Ctrl-C, and killed if it does not."""
    signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's job in the background ignores it, and hands that on
    process = subprocess.Popen(line, start_new_session=True)
    try:
        return process.wait(within_s)
    except subprocess.TimeoutExpired:
        return None
    finally:
        if process.poll() is None:
            _stop(process)
            reap(part.run_dir)


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.send_signal(signal.SIGINT)
    try:
        process.wait(STOP_S / 2)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(arguments: Sequence[str] | None = None, run: Run = in_a_process) -> int:
    """0 when every part ran and was exact; a goal that is missed is said, and is no failure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(PARTS), action="append", help="run this part; once per part")
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes: to see that it works")
    parser.add_argument("--budget", type=float, default=BUDGET_MIN, help="minutes that all parts together may take")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the parts leave their figures")
    asked = parser.parse_args(arguments)
    console = Console()
    facts, began_s = machine(), time.monotonic()
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    lines = commands(asked.only or (), asked.smoke, asked.folder)
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name in lines:
        report_of(name, asked.folder).unlink(missing_ok=True)  # a part that fails leaves nothing, not an older run's

    failed: dict[str, str] = {}
    seconds: dict[str, float] = {}
    for place, (name, line) in enumerate(lines.items()):  # one that fails keeps none of the others from running
        part_s = time.monotonic()
        within_s = share(name, list(lines)[place:], asked.budget * 60 - (part_s - began_s))
        console.rule(f"{place + 1} of {len(lines)}: {name}, within {within_s:.0f} s")
        console.print(" ".join(line[1:]), highlight=False, markup=False, soft_wrap=True)
        status = run(PARTS[name], line, within_s)
        seconds[name] = round(time.monotonic() - part_s, 1)
        if status is None:
            failed[name] = f"stopped after its {within_s:.0f} s; give it more by --budget, or run it alone by --only"
        elif status != 0:
            failed[name] = "its error stands above"
        console.print(f"{name}: {failed.get(name, 'done')} ({seconds[name]:.0f} s)", highlight=False, markup=False)
    parts = gather(asked.folder)
    figures = {
        "machine": facts,
        "began": began,
        "seconds": round(time.monotonic() - began_s, 1),
        "seconds_by_part": seconds,
        "smoke": asked.smoke,
        "commands": {name: ["python", *line[1:]] for name, line in lines.items()},
        "failed": list(failed),
        "parts": parts,
        "capacity": capacity_of(parts),
    }
    target = asked.folder.parent / "bench.json"
    target.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    target.with_suffix(".html").write_text(page(figures))
    table = Table("what", "found", "goal", title="bench", title_justify="left")
    for goal in goals_of(figures):
        table.add_row(goal.what, "not measured" if goal.found is None else f"{goal.found:,g}", goal.wanted)
    console.print(table)
    for sentence in missed(goals_of(figures)):
        console.print(f"missed  {sentence}", highlight=False, markup=False)
    for name, why in failed.items():
        console.print(f"FAILED  {name}: {why}", highlight=False, markup=False)
    console.print(f"written to {target} and {target.with_suffix('.html')}", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
