"""`tallygate limits`: how fast requests may come, and which values they may name."""

from typing import Annotated, Any

import typer

from actors.cli.over_http import Account, ApiKey, InScope, Url, change, over_http, path_to, told
from actors.cli.terminal import print_rows

app = typer.Typer(help="Rate limits and allow-lists, over the HTTP API.", no_args_is_help=True)


@app.command("rate")
def set_rate_limit(
    account: Account,
    limit: Annotated[str, typer.Argument(help="The limit's name.")],
    per_minute: Annotated[int, typer.Argument(min=0, help="Checks, or units, admitted in a minute; 0: no limit.")],
    scope: InScope = "",
    meter: Annotated[str | None, typer.Option(help="Count this meter's units, as requests bound them.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set, replace or remove a rate limit of an account or a scope in it."""
    body: dict[str, Any] = {"per_minute": per_minute, "scope": scope}
    if meter is not None:
        body["meter"] = meter
    answer = change(url, key, "PUT", path_to("customers", account, "rate-limits", limit), body)
    rate = f"{per_minute} {meter or 'checks'} a minute" if per_minute else "gone"
    told(answer, f"rate limit {limit} of {scope or 'the account'} is {rate}")


@app.command("allow")
def set_allow_list(
    account: Account,
    field: Annotated[str, typer.Argument(help="The field of events, such as model.")],
    values: Annotated[list[str] | None, typer.Argument(help="The only ones that checks admit; or --any.")] = None,
    any_value: Annotated[bool, typer.Option("--any", help="Admit any value again.")] = False,
    scope: InScope = "",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set, replace or remove the list of values that checks of a scope and below may name."""
    if any_value is bool(values):
        raise typer.BadParameter("VALUES: name those that are admitted, or give --any")
    body = {"values": None if any_value else values, "scope": scope}
    answer = change(url, key, "PUT", path_to("customers", account, "allow-lists", field), body)
    admitted = "may be any" if any_value else f"is one of {', '.join(values or ())}"
    told(answer, f"{field} of {scope or 'the account'} {admitted}")


@app.command("list")
def list_limits(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """List the rate limits and allow-lists of an account and its scopes."""

    async def read(api: Any) -> tuple[Any, Any]:
        return (
            await api.get(path_to("customers", account, "rate-limits")),
            await api.get(path_to("customers", account, "scopes")),
        )

    rates, scopes = over_http(url, key, read)
    print_rows("Rate limits", rates["items"], ("limit", "scope", "per_minute", "meter"), right=("per_minute",))
    allowed = [
        {"scope": item["scope"], "field": field, "values": values}
        for item in scopes["items"]
        for field, values in item["allowed"].items()
    ]
    print_rows("Allow-lists", allowed, ("scope", "field", "values"))
