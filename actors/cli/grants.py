"""`tallygate grants`: credit."""

from typing import Annotated

import typer

from actors.cli.over_http import Account, ApiKey, Url, change, get, path_to, told
from actors.cli.terminal import print_rows

app = typer.Typer(help="Credit, over the HTTP API.", no_args_is_help=True)


@app.command("add")
def add_grant(
    account: Account,
    amount: Annotated[str, typer.Argument(help="A decimal, in the account's currency.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    kind: Annotated[str, typer.Option(help="promo, commit, refund or paid.")] = "promo",
    lot: Annotated[str | None, typer.Option(help="A name for the lot; default: one is made.")] = None,
    expires: Annotated[str | None, typer.Option(help="RFC 3339; default: never.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Give an account credit, as a lot of its own. Payments are booked by POST .../top-ups, which settles debt first."""
    asked = {"amount": amount, "currency": currency, "kind": kind, "lot": lot, "expires": expires}
    body = {field: value for field, value in asked.items() if value is not None}
    answer = change(url, key, "POST", path_to("customers", account, "grants"), body)
    told(answer, f"{amount} {currency} granted, as lot {answer['id']}")


@app.command("list")
def list_grants(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Show an account's lots in the order in which they are spent: granted, remaining, expired."""
    lots = get(url, key, path_to("customers", account, "grants"))["items"]
    amounts = ("granted", "remaining", "expired")
    print_rows("Lots", lots, ("lot", "kind", *amounts, "expires"), right=amounts)
