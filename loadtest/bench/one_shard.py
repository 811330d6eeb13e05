"""One shard, from a full log to half of what the machine bears, and every amount of it held against the oracle.

`python -m loadtest.bench.one_shard` runs this part alone; its figures go to build/bench/one-shard.json.
"""

import argparse
import os
from pathlib import Path
from typing import Any

import msgspec
import orjson
import uvloop
from msgspec import Struct
from rich.console import Console

from config.settings import Settings, load_settings
from config.stack.embedded import fresh_stack
from config.stack.ray_local import start_ray
from config.stack.supervisor import Supervisor
from loadtest.bench.feeder import Order
from loadtest.bench.ramp import Climb, Ramp
from loadtest.bench.saturation import FILL_PER_S, fill, saturate
from loadtest.bench.stage import Say, staged
from loadtest.machine import machine


class OneShard(Struct, frozen=True):
    """How much of it, and where the figures go."""

    events: int = 160_000  # in the log before the shard starts
    customers: int = 5_000
    climb: Climb = Climb()
    report: Path = Path("build/bench/one-shard.json")
    run_dir: Path = Path("build/run-bench-one-shard")


async def measure(supervisor: Supervisor, settings: Settings, options: OneShard, say: Say) -> dict[str, Any]:
    """Fill, saturate, climb, half, check. Raises NotExact."""
    figures: dict[str, Any] = {"machine": machine(), "options": msgspec.to_builtins(options, enc_hook=str)}
    async with staged(supervisor, settings, "one-shard", say) as stage:
        shape, trace = options.climb.shape, options.climb.trace
        duration_s = options.events / FILL_PER_S
        await fill(stage, Order(1, options.events, options.customers, duration_s, "full", shape, trace))
        async with stage.rating() as cluster:
            figures["saturation"] = await saturate(stage, cluster)
            await stage.ready(cluster)
            figures["ramp"] = await Ramp(stage, cluster, options.climb).run()
        say("the oracle folds the same log")
        figures["exact"] = msgspec.to_builtins(await stage.exact())
    return figures


def run(settings: Settings, options: OneShard, say: Say) -> dict[str, Any]:
    """All figures, which are written to `options.report` too. What was started is stopped."""
    with Supervisor(options.run_dir, say=say) as supervisor:
        prepared = fresh_stack(supervisor, settings)
        start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2))
        figures = uvloop.run(measure(supervisor, prepared, options, say))
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return figures


def main() -> None:
    """The part alone."""
    default, climb = OneShard(), Climb()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--events", type=int, default=default.events, help="in the log before the shard starts")
    parser.add_argument("--customers", type=int, default=default.customers, help="that these are spread over")
    parser.add_argument("--start", type=float, default=climb.start_per_s, help="events/s of the ramp's first step")
    parser.add_argument(
        "--ceiling", type=float, default=climb.ceiling_per_s, help="events/s that it does not go beyond"
    )
    parser.add_argument("--step-s", type=float, default=climb.step_s, help="seconds of each step")
    parser.add_argument("--half-s", type=float, default=climb.half_s, help="seconds at half of saturation")
    parser.add_argument("--checks", type=float, default=climb.checks_per_s, help="checks/s at a door meanwhile")
    parser.add_argument("--report", type=Path, default=default.report, help="where the figures go")
    asked = parser.parse_args()
    settings = load_settings()
    options = OneShard(
        asked.events,
        asked.customers,
        Climb(
            start_per_s=asked.start,
            ceiling_per_s=asked.ceiling,
            step_s=asked.step_s,
            half_s=asked.half_s,
            checks_per_s=asked.checks,
            trace=None if settings.trace is None else str(settings.trace),
        ),
        asked.report,
    )
    console = Console()
    run(settings, options, lambda line: console.print(line, highlight=False, markup=False))


if __name__ == "__main__":
    main()
