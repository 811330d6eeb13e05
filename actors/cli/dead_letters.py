"""`tallygate dead-letters`: what could not be rated, and sending it again."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.over_http import ApiKey, Url, change, path_to
from actors.cli.terminal import console, expected_errors, new_table, outside_errors
from config.settings import Settings, load_settings

if TYPE_CHECKING:
    from actors.postgres import StoredDeadLetter


app = typer.Typer(invoke_without_command=True)


@app.callback()
def show_dead_letters(
    context: typer.Context,
    newest: Annotated[int, typer.Option(min=0, max=10_000, help="How many of the newest to show.")] = 20,
) -> None:
    """Show what could not be rated: how many by reason, the newest with partition and offset, and what to do about each
    reason among them."""
    from actors.web.remedies import remedy

    if context.invoked_subcommand is not None:
        return
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


@app.command("redrive")
def redrive(
    partition: Annotated[int, typer.Argument(min=0, help="Where it lies, as `dead-letters` shows it.")],
    offset: Annotated[int, typer.Argument(min=0, help="Likewise.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Send a dead letter again as it was, over the HTTP API, once its cause is mended. What was rated meanwhile is a
    duplicate, and changes nothing."""
    sent = change(url, key, "POST", path_to("dead-letters", str(partition), str(offset), "redrive"), {})
    typer.echo(f"{sent['account']}: sent again (log {sent['partition']}/{sent['offset']})")


async def _dead_letters(settings: Settings, newest: int) -> "tuple[dict[str, int], list[StoredDeadLetter]]":
    from actors.assembly import postgres_store

    store = postgres_store(settings)
    await store.start()
    try:
        return await store.dead_letter_counts(), await store.dead_letters(newest)
    finally:
        await store.stop()
