"""`tallygate catalogue drafts`: a catalogue in two steps, proposed by one and approved by another, over the HTTP API."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
import orjson
import typer

from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import AsJson, expected_errors, print_rows
from config.catalogue import load_file

app = typer.Typer(help="Catalogues that are proposed, and rate nothing until they are approved.", no_args_is_help=True)

Number = Annotated[int, typer.Argument(min=1, metavar="DRAFT", help="The draft's number.")]


@app.command("add")
def add_draft(
    file: Annotated[Path, typer.Argument(help="A catalogue in YAML.")],
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Propose a catalogue file as the next version."""
    with expected_errors():
        document = load_file(file)
    _tell(change(url, key, "POST", "/v1/catalogue/drafts", msgspec.to_builtins(document)), as_json)


@app.command("list")
def list_drafts(
    newest: Annotated[int, typer.Option(min=1, max=200, help="How many of the newest.")] = 20,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show drafts: who proposed and who decided each, and the version it became."""
    drafts = get(url, key, "/v1/catalogue/drafts", limit=newest)["items"]
    columns = ("draft", "state", "based_on", "created", "created_by", "decided", "decided_by", "version", "effective")
    print_rows("Drafts", drafts, columns, right=("draft", "based_on", "version"))


@app.command("show")
def show_draft(draft: Number, as_json: AsJson = False, url: Url = None, key: ApiKey = None) -> None:
    """Show what a draft changes, for each plan and price, against the version it was made from."""
    _tell(get(url, key, path_to("catalogue", "drafts", str(draft))), as_json)


@app.command("approve")
def approve_draft(
    draft: Number,
    effective: Annotated[
        str | None, typer.Option(help="From when on it is in force, in RFC 3339; default: about six minutes from now.")
    ] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Publish a draft. Again, while its instant is ahead: heals an approval that broke off."""
    path = path_to("catalogue", "drafts", str(draft), "approve")
    approved = change(url, key, "POST", path, effective=effective)
    typer.echo(
        f"draft {draft}: version {approved['version']}, in force for event times from {approved['effective']} on"
    )


@app.command("discard")
def discard_draft(draft: Number, url: Url = None, key: ApiKey = None) -> None:
    """Decide that a draft is never approved. It is kept."""
    change(url, key, "POST", path_to("catalogue", "drafts", str(draft), "discard"))
    typer.echo(f"draft {draft} is discarded")


def _tell(draft: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        typer.echo(orjson.dumps(draft, option=orjson.OPT_INDENT_2).decode())
        return
    made = f"from version {draft['based_on']}" if draft["based_on"] else "as the first version"
    typer.echo(f"draft {draft['draft']}, made {made} by {draft['created_by']} at {draft['created']}: {draft['state']}")
    if draft["decided"]:
        typer.echo(f"{draft['state']} by {draft['decided_by']} at {draft['decided']}")
    if draft["version"]:
        typer.echo(f"version {draft['version']}, in force for event times from {draft['effective']} on")
    for plan in draft["plans"]:
        typer.echo(f"plan {plan['plan']}, {plan['currency']}: {plan['kind']}")
        for line in plan["changes"]:
            typer.echo(f"  {line}")
    for line in draft["unpriced"]:
        typer.echo(f"no plan has a price for: {line}")
