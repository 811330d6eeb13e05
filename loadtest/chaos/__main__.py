"""`make chaos`: real deployments under load whose processes are killed and stopped, whose servers are cut off and whose
disks fill up; and the check that nothing was lost and nothing doubled.

Exit status: 0 when everything holds, 1 when something does not, 130 when it was interrupted.
"""

import asyncio
import shlex
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from config.stack.kafka import KafkaUnavailable
from config.stack.postgres import PostgresUnavailable
from config.stack.ray_local import RayNodeFailed
from config.stack.supervisor import RunFolderInUse
from loadtest.chaos.faults import KillRaylet
from loadtest.chaos.phases import NONE_ASKED_FOR, Counts, Phase, run_phases
from loadtest.chaos.report import Report
from loadtest.chaos.run import Options, run
from loadtest.chaos.schedule import SHARES, plan
from loadtest.chaos.stage import StageFailed, StageOptions

INTERRUPTED = 130
KINDS = [each.kind for each in SHARES]


def main(
    only: Annotated[Phase | None, typer.Option(help="this phase alone; without it, all of them in turn")] = None,
    kills: Annotated[int, typer.Option(min=0, max=100_000, help="processes to kill, of mixed kinds")] = 100,
    kind: Annotated[
        list[str] | None, typer.Option(help=f"kill only this kind, of {', '.join(KINDS)}; may be given several times")
    ] = None,
    pauses: Annotated[int, typer.Option(min=0, max=10_000, help="shards to stop beyond their lease")] = 20,
    commits: Annotated[int, typer.Option(min=0, max=100_000, help="COMMITs to cut")] = 40,
    cuts: Annotated[int, typer.Option(min=0, max=10_000, help="cuts between a shard and a server")] = 12,
    disks: Annotated[int, typer.Option(min=0, max=1_000, help="disks to fill: of tables and of the log, in turn")] = 2,
    events: Annotated[
        int, typer.Option(min=1_000, max=10_000_000, help="usage events of the kills, at least")
    ] = 1_000_000,
    seed: Annotated[int, typer.Option(min=0, help="draws the load and the order of the kills")] = 1,
    per_s: Annotated[float, typer.Option(min=10, max=20_000, help="events offered per second")] = 500,
    report_delay_s: Annotated[
        float, typer.Option(min=5, max=600, help="within which held usage is reported; longer than any outage")
    ] = 30,
    nodes: Annotated[
        int, typer.Option(min=0, max=8, help="of Ray beside its head, to be killed; 0: all runs on the head")
    ] = 2,
    report: Annotated[Path, typer.Option(help="where the result goes")] = Path("build/chaos.json"),
    run_dir: Annotated[Path, typer.Option(help="where processes and logs of the run live")] = Path("build/chaos-run"),
) -> None:
    """Kill, stop, cut off and starve real deployments under load; check that nothing was lost and nothing doubled."""
    started_s = time.monotonic()
    if unknown := set(kind or ()) - set(KINDS):
        raise typer.BadParameter(f"--kind knows no {', '.join(sorted(unknown))}")
    if nodes == 0 and (not kind or KillRaylet.kind in kind):
        raise typer.BadParameter(f"--nodes 0 leaves no {KillRaylet.kind} to be killed: name other kinds, by --kind")

    def say(line: str) -> None:
        typer.echo(f"{time.monotonic() - started_s:7.1f} s  {line}")

    result = Report("python -m loadtest.chaos " + shlex.join(sys.argv[1:]))
    try:
        if only in (None, Phase.KILLS) and not kills:
            result.leave_out(Phase.KILLS, NONE_ASKED_FOR, say)
        elif only in (None, Phase.KILLS):
            given = Options(events, seed, per_s, run_dir, StageOptions(report_delay_s=report_delay_s, nodes=nodes))
            run(given, plan(kills, seed, kind or ()), say, result)
        phases: list[Phase] = [phase for phase in Phase if only in (None, phase) and phase is not Phase.KILLS]
        counts = Counts(pauses=pauses, commits=commits, cuts=cuts, disks=disks)
        asyncio.run(run_phases(phases, counts, seed, run_dir, result, say))
    except KeyboardInterrupt:
        say("interrupted; everything that was started has been stopped")
        raise typer.Exit(INTERRUPTED) from None
    except (StageFailed, KafkaUnavailable, PostgresUnavailable, RayNodeFailed, RunFolderInUse) as failure:
        result.add(only or "run", {}, [str(failure)])
    result.seconds = round(time.monotonic() - started_s, 1)
    result.write(report)
    for sentence in result.wrong:
        say(f"WRONG  {sentence}")
    without = f", without {', '.join(result.left_out)}" if result.left_out else ""
    say(f"{'holds' if result.holds else 'FAILED'}{without}; written to {report}")
    raise typer.Exit(0 if result.holds else 1)


if __name__ == "__main__":
    typer.run(main)
