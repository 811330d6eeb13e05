"""`tallygate caps`: the most that may be spent."""

from typing import Annotated

import typer

from actors.cli.over_http import Account, ApiKey, InScope, Url, change, path_to, told

app = typer.Typer(help="Caps on spend, over the HTTP API.", no_args_is_help=True)


@app.command("set")
def set_cap(
    account: Account,
    cap: Annotated[str, typer.Argument(help="The cap's name.")],
    amount: Annotated[str, typer.Argument(help="A decimal: the most that may be spent in a calendar month.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    scope: InScope = "",
    soft: Annotated[bool, typer.Option("--soft", help="Deny nothing; only feed alert rules.")] = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set or replace a cap on a month's spend, of an account or of a scope in it."""
    body = {"amount": amount, "currency": currency, "scope": scope, "hard": not soft}
    answer = change(url, key, "PUT", path_to("customers", account, "caps", cap), body)
    told(answer, f"cap {cap} of {scope or 'the account'} is {amount} {currency} a month")
