"""`tallygate reconcile`: what is stored, held against the log."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from actors.cli.proving import BaseFolder, OnePartition, proving, tell_drifts, tell_limits
from actors.cli.terminal import FAILED, AsJson
from config.settings import Settings

if TYPE_CHECKING:
    from actors.reconcile.run import Report

DAY_US = 86_400_000_000


def reconcile_partitions(
    bases: BaseFolder = None,
    partition: OnePartition = None,
    sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the accounts to rate again by the second arithmetic.")
    ] = 0.01,
    every: Annotated[bool, typer.Option("--all", help="Rate all accounts again.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Which accounts the sample picks; default: other ones every day.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold ledger, outbox, offsets, forwards and a sample of amounts against the log, beside the running deployment.

    Only reads. Exit status 1: something differs, and account and digit are named."""
    from actors import proofs
    from actors.clock import SystemClock

    chosen = SystemClock().wall_us() // DAY_US if seed is None else seed
    share = 1.0 if every else sample

    async def act(settings: Settings, say: Callable[[str], None]) -> int:
        drifts = 0
        reports = []
        async for report in proofs.reconcile(settings, bases, partition, share=share, seed=chosen, say=say):
            drifts += report.drift
            if as_json:
                reports.append(report.as_json())
            else:
                _tell_report(report)
        if as_json:
            typer.echo(orjson.dumps({"drift": drifts, "seed": chosen, "partitions": reports}).decode())
        else:
            typer.echo(f"drift {drifts} (sample {share:g}, seed {chosen})")
        return drifts

    with proving("Reconciling") as (settings, say):
        drifts = asyncio.run(act(settings, say))
    if drifts:
        raise typer.Exit(FAILED)


def _tell_report(report: "Report") -> None:
    for check, count in report.found.items():
        drifts = [drift for drift in report.drifts if drift.check == check]
        tell_drifts(drifts, f"{check}: partition {report.partition}", count)
    if report.note and report.drift:
        typer.echo(f"partition {report.partition}: {report.note}: that may be why")
    tell_limits(report.partition, report.records, report.skipped, report.end)
    typer.echo(
        f"partition {report.partition}: offsets {report.start} to {report.end}: {report.records:,} records, "
        f"{report.forwarded:,} of them forwarded, {report.rated_lines:,} rated lines, {report.accounts:,} accounts, "
        f"{len(report.sampled):,} of them rated again: drift {report.drift}"
    )
