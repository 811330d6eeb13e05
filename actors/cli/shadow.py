"""`tallygate catalogue shadow`: live usage rated a second time under a draft, over the HTTP API."""

from collections.abc import Mapping
from typing import Annotated, Any

import orjson
import typer

from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import AsJson, console, print_rows

app = typer.Typer(help="Live usage rated a second time under a draft, beside what it is charged.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(min=1, metavar="DRAFT", help="The draft's number.")]
_AMOUNTS = ("events", "events_after", "before", "after", "difference", "percent")


@app.command("start")
def start_shadow(draft: Number, url: Url = None, key: ApiKey = None) -> None:
    """Rate live usage under the draft from here on; nothing is charged by it."""
    change(url, key, "POST", _path(draft))
    typer.echo(f"draft {draft}: its shadow runs; look at it with `tallygate catalogue shadow show {draft}`")


@app.command("show")
def show_shadow(
    draft: Number,
    account: Annotated[str | None, typer.Option(help="Only this customer.")] = None,
    customers: Annotated[
        int, typer.Option(min=0, max=1_000, help="How many customers to show, the largest differences first.")
    ] = 20,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show what usage is charged, and would be under the draft: in total, by plan and by customer."""
    found = get(url, key, _path(draft), account=account, customers=customers)
    if as_json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
        return
    _tell(found)


@app.command("stop")
def stop_shadow(draft: Number, url: Url = None, key: ApiKey = None) -> None:
    """Follow no further. What was found is kept."""
    change(url, key, "DELETE", _path(draft))
    typer.echo(f"draft {draft}: its shadow is stopped")


def _path(draft: int) -> str:
    return path_to("catalogue", "drafts", str(draft), "shadow")


def _tell(found: Mapping[str, Any]) -> None:
    ended = f", stopped by {found['stopped_by']} at {found['stopped']}" if found["stopped"] else ""
    typer.echo(f"draft {found['draft']}: shadow started by {found['started_by']} at {found['started']}{ended}")
    print_rows("Plans", found["plans"], ("plan", "currency", "customers", *_AMOUNTS), ("customers", *_AMOUNTS))
    if found["customers"]:
        columns = ("account", "plan", "currency", *_AMOUNTS)
        print_rows("Customers, the largest differences", found["customers"], columns, _AMOUNTS)
    for turn in found["turns"]:
        why = f": {turn['detail']}" if turn["detail"] else ""
        console().print(
            f"{turn['records']:,} records of partition {turn['partition']} are {turn['outcome']} as published and "
            f"{turn['outcome_after']} under the draft; the first at offset {turn['first_offset']}{why}"
        )
    for place in found["partitions"]:
        if place["trouble"]:
            typer.echo(f"partition {place['partition']} does not get on: {place['trouble']}", err=True)
    waiting = [place for place in found["partitions"] if place["offset"] is None]
    if waiting or not found["partitions"]:
        typer.echo("not every partition has begun: ask again in a moment", err=True)
    for total in found["totals"]:
        percent = f" ({total['percent']}%)" if total["percent"] else ""
        typer.echo(
            f"total {total['before']} {total['currency']} as published, {total['after']} under the draft: "
            f"difference {total['difference']}{percent}"
        )
