"""`tallygate dead-letters`: what could not be rated."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.terminal import console, expected_errors, new_table, outside_errors
from config.settings import Settings, load_settings

if TYPE_CHECKING:
    from actors.postgres import StoredDeadLetter


def show_dead_letters(
    newest: Annotated[int, typer.Option(min=0, max=10_000, help="How many of the newest to show.")] = 20,
) -> None:
    """Show what could not be rated: how many by reason, and the newest, with partition and offset."""
    with expected_errors(), outside_errors():
        counts, letters = asyncio.run(_dead_letters(load_settings(), newest))
    screen = console()
    by_reason = new_table("Dead letters", "reason", "records", right=("records",))
    for reason, count in sorted(counts.items()):
        by_reason.add_row(reason, f"{count:,}")
    screen.print(by_reason)
    table = new_table("The newest", "partition", "offset", "reason", "detail", right=("partition", "offset"))
    for stored in letters:
        table.add_row(str(stored.partition), str(stored.letter.offset), stored.letter.reason, stored.letter.detail)
    screen.print(table)


async def _dead_letters(settings: Settings, newest: int) -> "tuple[dict[str, int], list[StoredDeadLetter]]":
    from actors.assembly import postgres_store

    store = postgres_store(settings)
    await store.start()
    try:
        return await store.dead_letter_counts(), await store.dead_letters(newest)
    finally:
        await store.stop()
