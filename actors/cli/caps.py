"""`tallygate caps`: the most that may be spent, or used."""

from typing import Annotated

import typer

from actors.cli.over_http import Account, ApiKey, InScope, Url, change, path_to, told

app = typer.Typer(help="Caps on spend, over the HTTP API.", no_args_is_help=True)


@app.command("set")
def set_cap(
    account: Account,
    cap: Annotated[str, typer.Argument(help="The cap's name.")],
    amount: Annotated[str, typer.Argument(help="A decimal: the most that may be spent, or used, in the window.")],
    currency: Annotated[str, typer.Option(help="ISO 4217; units have none.")] = "USD",
    scope: InScope = "",
    soft: Annotated[bool, typer.Option("--soft", help="Deny nothing; only feed alert rules.")] = False,
    window: Annotated[str, typer.Option(help="month, week, day, hour, first_use or rolling.")] = "month",
    minutes: Annotated[int | None, typer.Option(help="How long a first_use or rolling window is.")] = None,
    meter: Annotated[str | None, typer.Option(help="Count this meter's units instead of money.")] = None,
    price: Annotated[str | None, typer.Option(help="Count this price's units instead of money.")] = None,
    basis: Annotated[
        str, typer.Option(help="Which money: charged, list (before discounts) or due (debt).")
    ] = "charged",
    waive: Annotated[bool, typer.Option("--waive", help="What is spent beyond it in a month is not owed.")] = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set or replace a cap on what is spent or used in a window, of an account or of a scope in it."""
    unit = meter or price
    asked = {
        "amount": amount,
        "currency": None if unit else currency,
        "scope": scope,
        "hard": not soft,
        "window": window,
        "length_s": None if minutes is None else minutes * 60,
        "meter": meter,
        "price": price,
        "basis": None if basis == "charged" else basis,
        "beyond": "waived" if waive else None,
    }
    body = {field: value for field, value in asked.items() if value is not None}
    answer = change(url, key, "PUT", path_to("customers", account, "caps", cap), body)
    lengths = {"first_use": f"in {minutes} minutes from the first use on", "rolling": f"in any {minutes} minutes"}
    span = lengths.get(window, f"a {window}")
    told(answer, f"cap {cap} of {scope or 'the account'} is {amount} {unit or currency} {span}")


@app.command("remove")
def remove_cap(
    account: Account,
    cap: Annotated[str, typer.Argument(help="The cap's name.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Remove a cap that no rule looks at. What it counted is forgotten."""
    told(change(url, key, "DELETE", path_to("customers", account, "caps", cap)), f"cap {cap} is gone")
