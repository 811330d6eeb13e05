"""Commands that read Kafka and Postgres beside a running deployment, and compare."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from actors.cli.terminal import FAILED, WRONG_INPUT, expected_errors, fail, outside_errors
from config.settings import Settings, load_settings

if TYPE_CHECKING:
    from actors.drift import Drift

DRIFTS_SHOWN = 20  # of a partition; the first say where to look, the rest how much is wrong


OnePartition = Annotated[int | None, typer.Option("--partition", min=0, help="Only this one; default: all.")]
BaseFolder = Annotated[
    Path | None,
    typer.Option(
        "--base", exists=True, file_okay=False, help="Sealed bases to start from; default: the beginning of the log."
    ),
]


@contextmanager
def proving(doing: str) -> Iterator[tuple[Settings, Callable[[str], None]]]:
    """The settings, and how to tell where the work stands; what may go wrong is told as one line."""
    from actors.dryrun import TooLate
    from actors.proofs import NoSuchPartition, PartitionsMissing
    from actors.rebuild import LogTooShort
    from actors.sealed_base import BadBase
    from actors.takeover import CatalogueLost
    from engine.partition import HalfApplied

    with expected_errors(), outside_errors(), Console(stderr=True).status(doing) as status:
        try:
            yield load_settings(), lambda line: status.update(line)
        except (NoSuchPartition, TooLate) as error:
            fail(str(error), WRONG_INPUT)
        except (BadBase, CatalogueLost, HalfApplied, LogTooShort, PartitionsMissing) as error:
            fail(str(error), FAILED)


def tell_limits(partition: int, folded: int, skipped: int, end: int) -> None:
    """What finding nothing does not prove."""
    if not folded:
        typer.echo(
            f"partition {partition}: no record lies between the start and the checkpoint's end at offset {end}: nothing was "
            "folded, and this proves nothing; give --base with an older base, or none"
        )
    if skipped:
        typer.echo(
            f"partition {partition}: {skipped:,} of these records are stored as engine errors and were skipped, as their "
            "owner does: nothing of them is billed, and it is not tried whether it could be (tallygate dead-letters)"
        )


def tell_drifts(drifts: "Sequence[Drift]", where: str, count: int) -> None:
    for drift in drifts[:DRIFTS_SHOWN]:
        typer.echo(str(drift))
    if count > DRIFTS_SHOWN:
        typer.echo(f"{where}: and {count - DRIFTS_SHOWN:,} more differences")
