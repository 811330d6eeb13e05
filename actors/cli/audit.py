"""`tallygate audit`: who changed what."""

from typing import Annotated

import orjson
import typer

from actors.cli.over_http import ApiKey, Url, get
from actors.cli.terminal import AsJson, print_json_rows, print_rows


def show_audit(
    account: Annotated[str | None, typer.Option(help="Only about this account.")] = None,
    act: Annotated[str | None, typer.Option(help="Only acts of this name, such as cap.set.")] = None,
    request: Annotated[str | None, typer.Option(help="Only this request's, as X-Request-Id had it.")] = None,
    newest: Annotated[int, typer.Option(min=1, max=200, help="How many of the newest.")] = 50,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show administrative acts: who, what, why, and how each ended; the newest first."""
    items = get(url, key, "/v1/audit", account=account, act=act, request_id=request, limit=newest)["items"]
    if as_json:
        print_json_rows(items)
        return
    columns = ("at", "actor", "act", "stage", "account", "subject", "after", "reason", "request_id")
    rows = [item | {"after": None if item["after"] is None else orjson.dumps(item["after"]).decode()} for item in items]
    print_rows("Audit trail", rows, columns)
