"""`make bench`: every part in a process of its own, one after the other; then build/bench.json and build/bench.html.

    check       what a check costs over HTTP and at a door, beside a no-op route and an echo
    one_shard   one shard from a full log, the ramp to saturation, doors and webhooks at half of it
    patterns    what a user would build instead, beside ours
    scale       more customers, more prices, a second shard

A part leaves its figures in build/bench/; `--only` runs some of them, and the others' figures stay as they were.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from rich.console import Console
from rich.table import Table

from loadtest.bench.capacity import model
from loadtest.bench.goals import goals_of, missed
from loadtest.bench.page import page
from loadtest.machine import machine

FOLDER: Final = Path("build/bench")
MODULES: Final = {
    "check": "loadtest.check_bench",
    "one_shard": "loadtest.bench.one_shard",
    "patterns": "loadtest.patterns",
    "scale": "loadtest.bench.scale",
}
# Enough to see that everything works, and nothing to quote.
SMOKE: Final[Mapping[str, Sequence[str]]] = {
    "check": ("--rounds", "1", "--turns", "60", "--accounts", "50"),
    "one_shard": (
        *("--events", "30000", "--customers", "300", "--start", "1000", "--asked-start", "200", "--ceiling", "2500"),
        *("--step-s", "2", "--half-s", "3", "--checks", "200"),
    ),
    "patterns": ("--smoke",),
    "scale": ("--events", "10000", "--customers-max", "1000"),
}

Run = Callable[[Sequence[str]], int]


def commands(only: Sequence[str], smoke: bool, folder: Path) -> dict[str, list[str]]:
    """The command line of each part, by name."""
    found = {}
    for name in only or MODULES:
        report = report_of(name, folder)
        extra = SMOKE[name] if smoke else ()
        found[name] = [sys.executable, "-m", MODULES[name], "--report", str(report), *extra]
    return found


def report_of(name: str, folder: Path) -> Path:
    """Where a part leaves its figures."""
    return folder / f"{name.replace('_', '-')}.json"


def gather(folder: Path) -> dict[str, Any]:
    """The figures that the parts have left."""
    parts = {}
    for name in MODULES:
        report = report_of(name, folder)
        if report.exists():
            parts[name] = orjson.loads(report.read_bytes())
    return parts


def capacity_of(parts: Mapping[str, Any]) -> dict[str, Any] | None:
    """What months of events need, by what the ramp has measured; None without one."""
    one_shard = parts.get("one_shard")
    return model(one_shard["ramp"], one_shard["machine"]["cores"]) if one_shard and "ramp" in one_shard else None


def in_a_process(line: Sequence[str]) -> int:
    """Its exit status."""
    return subprocess.run(line, check=False).returncode


def main(arguments: Sequence[str] | None = None, run: Run = in_a_process) -> int:
    """0 when every part ran and was exact; a goal that is missed is said, and is no failure."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(MODULES), action="append", help="run this part; once per part")
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes: to see that it works")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the parts leave their figures")
    asked = parser.parse_args(arguments)
    console = Console()
    facts, began_s = machine(), time.monotonic()
    began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    lines = commands(asked.only or (), asked.smoke, asked.folder)
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name in lines:
        report_of(name, asked.folder).unlink(missing_ok=True)  # a part that fails leaves nothing, not an older run's

    failed = []
    for name, line in lines.items():  # one that fails keeps none of the others from running
        console.rule(" ".join(line[1:]))
        if run(line) != 0:
            failed.append(name)
    parts = gather(asked.folder)
    figures = {
        "machine": facts,
        "began": began,
        "seconds": round(time.monotonic() - began_s, 1),
        "smoke": asked.smoke,
        "commands": {name: ["python", *line[1:]] for name, line in lines.items()},
        "failed": failed,
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
    for name in failed:
        console.print(f"FAILED  {name}: its error stands above", highlight=False, markup=False)
    console.print(f"written to {target} and {target.with_suffix('.html')}", highlight=False)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
