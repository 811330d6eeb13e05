"""`make bench-long`: hours at a steady rate with everything that real traffic has in it, and every amount at the end.

One customer has 30 % of the events, they come in bursts, some tell of an hour ago, and more than usual come twice. What
grows without end (memory, lag, latencies) shows in the series; figures go to build/bench-long.json. The oracle keeps the
whole run in memory, which is what bounds rate times hours.
"""

import argparse
import os
from pathlib import Path
from typing import Any, Final

import msgspec
import orjson
import uvloop
from msgspec import Struct
from rich.console import Console

from config.settings import Settings, load_settings
from config.stack.embedded import fresh_stack
from config.stack.ray_local import start_ray
from config.stack.supervisor import Supervisor
from loadtest.bench.ramp import Climb, Ramp
from loadtest.bench.stage import Say, staged
from loadtest.machine import machine
from loadtest.workload import EVENTS_MAX, Shape

SHAPE: Final = Shape(
    zipf=1.1, hot_share=0.3, burst_factor=3.0, burst_every_s=60.0, duplicate_share=0.05, late_share=0.02
)


class Soak(Struct, frozen=True):
    """How long, how much, and where the figures go."""

    hours: float = 2.0
    events_per_s: float = 250.0
    checks_per_s: float = 50.0
    customers: int = 5_000
    report: Path = Path("build/bench-long.json")
    run_dir: Path = Path("build/run-bench-long")


async def soak(supervisor: Supervisor, settings: Settings, options: Soak, say: Say) -> dict[str, Any]:
    """One long step, and the check of it all. Raises NotExact."""
    trace = None if settings.trace is None else str(settings.trace)
    climb = Climb(customers=options.customers, shape=SHAPE, trace=trace)
    figures: dict[str, Any] = {"machine": machine(), "options": msgspec.to_builtins(options, enc_hook=str)}
    async with staged(supervisor, settings, "soak", say) as stage:
        async with stage.rating() as cluster:
            await stage.ready(cluster)
            step = await Ramp(stage, cluster, climb).step(
                options.events_per_s, options.hours * 3_600, options.checks_per_s
            )
        figures["step"] = msgspec.to_builtins(step)
        behind = "kept up" if step.kept_up else "did not keep up"
        say(
            f"{behind}: {step.rated_per_s:,.0f} of {step.offered_per_s:,.0f} events/s, {step.lag_at_end:,} behind at the end"
        )
        say("the oracle folds the same log")
        figures["exact"] = msgspec.to_builtins(await stage.exact())
    return figures


def run(settings: Settings, options: Soak, say: Say) -> dict[str, Any]:
    """All figures, which are written to `options.report` too. What was started is stopped."""
    with Supervisor(options.run_dir, say=say) as supervisor:
        prepared = fresh_stack(supervisor, settings)
        start_ray(supervisor, num_cpus=max(2, os.cpu_count() or 2))
        figures = uvloop.run(soak(supervisor, prepared, options, say))
    options.report.parent.mkdir(parents=True, exist_ok=True)
    options.report.write_bytes(orjson.dumps(figures, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return figures


def options_of(arguments: list[str] | None = None) -> Soak:
    """From the command line; ends the process where they ask for more than the oracle could hold."""
    default = Soak()
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hours", type=float, default=default.hours, help="how long")
    parser.add_argument("--rate", type=float, default=default.events_per_s, help="events/s")
    parser.add_argument("--checks", type=float, default=default.checks_per_s, help="checks/s at a door")
    parser.add_argument("--customers", type=int, default=default.customers, help="whose events they are")
    parser.add_argument("--report", type=Path, default=default.report, help="where the figures go")
    asked = parser.parse_args(arguments)
    if not 1 <= asked.hours * 3_600 * asked.rate <= EVENTS_MAX:
        parser.error(f"{asked.hours:g} hours at {asked.rate:g}/s are not 1 to {EVENTS_MAX:,} events")
    return Soak(asked.hours, asked.rate, asked.checks, asked.customers, asked.report)


def main() -> None:
    """`make bench-long`."""
    console = Console()
    run(load_settings(), options_of(), lambda line: console.print(line, highlight=False, markup=False))


if __name__ == "__main__":
    main()
