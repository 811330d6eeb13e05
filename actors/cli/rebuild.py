"""`tallygate rebuild`: the log folded anew."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from actors.cli.proving import BaseFolder, OnePartition, proving, tell_drifts, tell_limits
from actors.cli.terminal import FAILED, WRONG_INPUT, AsJson, console, fail, new_table
from config.settings import Settings
from engine.placement import partition_for

if TYPE_CHECKING:
    from actors.rebuild import Fold


def rebuild_accounts(
    bases: BaseFolder = None,
    partition: OnePartition = None,
    account: Annotated[str | None, typer.Option(help="Only this one; its whole partition is folded.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with the live checkpoint byte for byte, and print no accounts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fold the log anew, from its beginning or a base, to the end of the newest checkpoint, beside the deployment.

    Exit status 1: with --verify, something differs."""
    from actors import proofs

    async def act(settings: Settings, say: Callable[[str], None]) -> bool:
        chosen = partition
        if account is not None:
            chosen = partition_for(account.encode(), settings.kafka.partitions)
            if partition not in (None, chosen):
                fail(f"account {account} lives in partition {chosen}", WRONG_INPUT)
        equal = True
        async for fold in proofs.rebuild(settings, bases, chosen, say):
            if account is not None and fold.partition.account(account) is None:
                fail(f"partition {fold.number} has no account {account} up to offset {fold.end}", WRONG_INPUT)
            if verify:
                equal = _tell_comparison(fold, account) and equal
            elif as_json:
                for view in fold.views(account):
                    typer.echo(msgspec.json.encode(view).decode())
            else:
                _tell_rebuilt(fold, account)
        return equal

    with proving("Rebuilding") as (settings, say):
        equal = asyncio.run(act(settings, say))
    if not equal:
        raise typer.Exit(FAILED)


def _tell_comparison(fold: "Fold", account: str | None) -> bool:
    drifts = fold.drifts("rebuild", account)
    tell_drifts(drifts, f"rebuild: partition {fold.number}", len(drifts))
    if fold.note and drifts:
        typer.echo(f"rebuild: partition {fold.number}: {fold.note}: that may be why")
    tell_limits(fold.number, fold.folded, fold.skipped, fold.end)
    if not drifts and fold.folded:
        what = f"{fold.partition.accounts} accounts" if account is None else f"account {account}"
        typer.echo(
            f"partition {fold.number}: offsets {fold.start} to {fold.end} rebuilt; {what} equal to the last byte"
        )
    return not drifts


def _tell_rebuilt(fold: "Fold", account: str | None) -> None:
    title = f"Partition {fold.number}, offsets {fold.start} to {fold.end}"
    table = new_table(title, "account", "balance", "rated", "lots", "usage", right=("balance", "rated"))
    for view in fold.views(account):
        lots = [f"{lot.lot} {lot.remaining} of {lot.granted}" for lot in view.lots]
        usage = [f"{use.price} {'/'.join(use.cell)} {use.quantity}" for use in view.usage]
        balance = f"{view.wallet.booked} {view.currency}"
        table.add_row(view.account, balance, f"{view.rated:,}", "\n".join(lots), "\n".join(usage))
    console().print(table)
