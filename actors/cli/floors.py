"""`tallygate margin floors`: what the margin of a model, a plan or a customer must not fall below."""

from typing import Annotated

import typer

from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import AsJson, print_rows
from engine.cost.floors import Of

app = typer.Typer(help="Margin floors, over the HTTP API.", no_args_is_help=True)

_Floor = Annotated[str, typer.Argument(help="The floor's name.")]
_COLUMNS = ("floor", "of", "subject", "percent", "clear_percent", "level", "active", "ordinal", "next_hour")


@app.command("set")
def set_floor(
    floor: _Floor,
    of: Annotated[Of, typer.Argument(help="What has a margin.")],
    subject: Annotated[str, typer.Argument(help="The name of the model, plan or account.")],
    percent: Annotated[str, typer.Argument(help="Of the revenue of an hour, as in 20 or 12.5.")],
    clear: Annotated[str | None, typer.Option(help="From here on it has recovered; default: the floor.")] = None,
    level: Annotated[str, typer.Option(help="info, warning or critical.")] = "warning",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set or replace a margin floor. Each hour is looked at once, when its costs have settled."""
    body = {"of": of.value, "subject": subject, "percent": percent, "level": level}
    change(
        url, key, "PUT", path_to("margin", "floors", floor), body | ({} if clear is None else {"clear_percent": clear})
    )
    typer.echo(f"{floor}: the {of.value} {subject} is to leave {percent} % of its revenue in every hour, as {level}")


@app.command("remove")
def remove_floor(floor: _Floor, url: Url = None, key: ApiKey = None) -> None:
    """Remove a margin floor. Nothing is told of it any more."""
    change(url, key, "DELETE", path_to("margin", "floors", floor))
    typer.echo(f"{floor}: is gone")


@app.command("list")
def list_floors(as_json: AsJson = False, url: Url = None, key: ApiKey = None) -> None:
    """List the margin floors, and how each stands."""
    items = get(url, key, path_to("margin", "floors"))["items"]
    print_rows("Margin floors", items, _COLUMNS, right=("percent", "clear_percent", "ordinal"), as_json=as_json)
