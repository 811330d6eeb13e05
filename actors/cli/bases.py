"""`tallygate base`: sealed bases, from which, with the log, all is rebuilt."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.proving import OnePartition, proving
from config.settings import Settings

app = typer.Typer(
    help="Sealed bases: checkpoints as files, from which, with the log, all is rebuilt.", no_args_is_help=True
)


@app.command("seal")
def seal_bases(
    to: Annotated[Path, typer.Option("--to", file_okay=False, help="The folder; it is made if need be.")],
    partition: OnePartition = None,
) -> None:
    """Write each partition's newest checkpoint into a folder, whole and sealed, beside the running deployment."""
    from actors import proofs

    async def act(settings: Settings, say: Callable[[str], None]) -> None:
        async for path, head in proofs.seal(settings, to, partition, say):
            typer.echo(f"{path}: partition {head.partition} up to offset {head.next_offset}")

    with proving("Sealing") as (settings, say):
        asyncio.run(act(settings, say))


@app.command("check")
def check_bases(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files that `base seal` wrote.")],
) -> None:
    """Check the seal of bases, and that they can be read to their end."""
    from actors.sealed_base import check_base

    with proving("Checking") as (settings, _):
        for file in files:
            head = check_base(file, settings.control_key_bytes())
            typer.echo(
                f"{file}: partition {head.partition} of {head.partitions} of topic {head.topic} up to offset "
                f"{head.next_offset}, as epoch {head.epoch} left it in checkpoint {head.ckpt_seq}; the seal holds"
            )
