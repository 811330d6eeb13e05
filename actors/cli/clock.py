"""`tallygate clock`: the clock of a sandbox."""

from typing import Annotated

import typer

from actors.cli.over_http import ApiKey, Url, change

app = typer.Typer(help="The clock of a sandbox, over the HTTP API.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """So that `advance` stays a word of its own."""


@app.command("advance")
def advance_clock(
    until: Annotated[str, typer.Argument(help="RFC 3339: when it is to be, at most 366 days ahead.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Move log time forward in every partition: lots expire, periods close, windows sink. It never goes back."""
    answer = change(url, key, "POST", "/v1/sandbox/clock", {"until": until})
    typer.echo(f"it is {answer['until']} in {answer['partitions']} partitions")
