"""What a user would build instead, beside ours: `python -m loadtest.patterns`, a part of `make bench`.

    ours over HTTP     beside  olap_query   an OLAP query per check
                       and     sql_timer    balances aggregated anew by a timer
    ours at a door     beside  redis        an atomic counter in Redis, the ledger written behind
    ours by lease      beside  in_process   counters in each process, synced on a timer

Each gets events of the same customers at the same price. Figures go to build/bench/patterns.json.
"""

import argparse
import os
import shutil
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import uvloop
from msgspec import Struct
from rich.console import Console

from config.settings import Settings, load_settings
from config.stack.embedded import fresh_stack
from config.stack.ports import free_ports
from config.stack.ray_local import start_ray
from config.stack.supervisor import Supervisor
from loadtest.bench.stage import Say
from loadtest.machine import machine
from loadtest.patterns.ground import Absent, Ground
from loadtest.patterns.trial import Scale, beside
from loadtest.patterns.try_by_lease import try_by_lease
from loadtest.patterns.try_hosted import try_hosted
from loadtest.patterns.try_in_process import try_in_process
from loadtest.patterns.try_ours import try_at_the_door, try_over_http
from loadtest.patterns.try_redis import try_redis

Trial = Callable[[Ground], Awaitable[dict[str, Any]]]

TRIALS: Final[Mapping[str, Trial]] = {
    "ours_http": try_over_http,
    "ours_door": try_at_the_door,
    "ours_lease": try_by_lease,
    "olap_query": partial(try_hosted, name="olap_query"),
    "sql_timer": partial(try_hosted, name="sql_timer"),
    "redis": try_redis,
    "in_process": try_in_process,
}
SMOKE: Final = Scale(
    events=4_000, customers=100, checks_per_s=50, checks_s=2, delays=3, alerts=3, cap_requests=100, overspend_s=8
)


PAIRS: Final = {  # like with like
    "olap_query": "ours_http",
    "sql_timer": "ours_http",
    "redis": "ours_door",
    "in_process": "ours_lease",
}


class Options(Struct, frozen=True):
    """How much, of whom, and where the figures go."""

    scale: Scale = Scale()
    only: Sequence[str] = tuple(TRIALS)
    report: Path = Path("build/bench/patterns.json")
    run_dir: Path = Path("build/run-bench-patterns")


async def measure(ground: Ground, options: Options) -> dict[str, Any]:
    """Every contender in turn; who cannot run here is said loudly, and stands among the skipped."""
    found: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for name in options.only:
        ground.say(f"{name}: begins")
        began_s = time.monotonic()
        try:
            found[name] = await TRIALS[name](ground)
            ground.say(f"{name}: took {time.monotonic() - began_s:.0f} s")
        except Absent as absent:
            ground.say(f"SKIPPED  {name}: {absent}")
            skipped[name] = str(absent)
    return {
        "machine": machine(),
        "options": msgspec.to_builtins(options, enc_hook=str),
        "contenders": found,
        "pairs": {
            name: beside(found[ours], found[name]) for name, ours in PAIRS.items() if ours in found and name in found
        },
        "skipped": skipped,
    }


def run(settings: Settings, options: Options, say: Say) -> dict[str, Any]:
    """All figures, which are written to `options.report` too. What was started is stopped."""
    with Supervisor(options.run_dir, say=say) as supervisor:
        prepared = fresh_stack(supervisor, settings)
        prepared = prepared.model_copy(update={"api": prepared.api.model_copy(update={"port": free_ports(1)[0]})})
        if any(name.startswith("ours") for name in options.only):
            start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2), serve=True)
        folder = supervisor.run_dir / "patterns"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        figures = uvloop.run(measure(Ground(supervisor, prepared, options.scale, folder, say), options))
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return figures


def main() -> None:
    """A part of `make bench`."""
    default = Options()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=list(TRIALS), action="append", help="this contender; once per contender")
    parser.add_argument("--smoke", action="store_true", help="seconds instead of minutes: to see that it works")
    parser.add_argument("--report", type=Path, default=default.report, help="where the figures go")
    asked = parser.parse_args()
    options = Options(SMOKE if asked.smoke else default.scale, tuple(asked.only or TRIALS), asked.report)
    console = Console()
    figures = run(load_settings(), options, lambda line: console.print(line, highlight=False, markup=False))
    console.print_json(data=figures["contenders"])


if __name__ == "__main__":
    main()
