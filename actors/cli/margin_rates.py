"""`tallygate margin rates`: what one currency is in another, by day."""

from typing import Annotated

import typer

from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import AsJson, print_rows

app = typer.Typer(help="Rates between currencies, by day, over the HTTP API.", no_args_is_help=True)

_Day = Annotated[str, typer.Argument(help="A day of UTC, as 2026-11-22.")]
_Source = Annotated[str, typer.Argument(help="What is converted, as USD.")]
_Target = Annotated[str, typer.Argument(help="Into what, as EUR.")]
_COLUMNS = ("day", "source", "target", "rate", "recorded")


@app.command("set")
def set_rate(
    day: _Day,
    source: _Source,
    target: _Target,
    rate: Annotated[str, typer.Argument(help="What one unit of SOURCE is in TARGET.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Record a day's rate; days without one have that of the last day before, at most 7 back."""
    change(url, key, "PUT", path_to("margin", "rates", day, source, target), {"rate": rate})
    typer.echo(f"{day}: 1 {source} is {rate} {target}")


@app.command("remove")
def remove_rate(day: _Day, source: _Source, target: _Target, url: Url = None, key: ApiKey = None) -> None:
    """Remove a day's rate."""
    change(url, key, "DELETE", path_to("margin", "rates", day, source, target))
    typer.echo(f"{day}: the rate from {source} to {target} is gone")


@app.command("list")
def list_rates(
    since: Annotated[str | None, typer.Option("--from", help="The first day; default: 30 days before --to.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="The last day; default: up to tomorrow.")] = None,
    target: Annotated[str | None, typer.Option(help="Only rates into this currency.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """List recorded rates, the latest day first."""
    asked = {"from": since, "to": until, "target": target}
    items = get(url, key, path_to("margin", "rates"), **asked)["items"]
    print_rows("Rates", items, _COLUMNS, right=("rate",), as_json=as_json)
