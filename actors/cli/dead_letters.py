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
    """Show what could not be rated: how many by reason, the newest with partition and offset, and what to do about each
    reason among them."""
    from actors.web.remedies import remedy

    with expected_errors(), outside_errors():
        counts, letters = asyncio.run(_dead_letters(load_settings(), newest))
    screen = console()
    by_reason = new_table("Dead letters", "reason", "records", right=("records",))
    for reason, count in sorted(counts.items()):
        by_reason.add_row(reason, f"{count:,}")
    screen.print(by_reason)
    columns = ("partition", "offset", "account", "reason", "detail")
    table = new_table("The newest", *columns, right=("partition", "offset"))
    next_steps: dict[str, str] = {}
    for stored in letters:
        letter, account = stored.letter, (stored.letter.key or b"").decode("utf-8", "replace")
        table.add_row(str(stored.partition), str(letter.offset), account, letter.reason, letter.detail)
        step = remedy(letter.reason, account, stored.partition, letter.offset)
        next_steps.setdefault(letter.reason, f"{letter.reason}, such as {stored.partition}/{letter.offset}: {step}")
    screen.print(table)
    for reason in sorted(next_steps):
        typer.echo(next_steps[reason])


async def _dead_letters(settings: Settings, newest: int) -> "tuple[dict[str, int], list[StoredDeadLetter]]":
    from actors.assembly import postgres_store

    store = postgres_store(settings)
    await store.start()
    try:
        return await store.dead_letter_counts(), await store.dead_letters(newest)
    finally:
        await store.stop()
