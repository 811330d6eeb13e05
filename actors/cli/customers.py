"""`tallygate customers`: accounts and their scopes."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.balance import balance_text
from actors.cli.over_http import Account, ApiKey, InScope, Url, change, get, over_http, path_to, told
from actors.cli.terminal import print_rows

if TYPE_CHECKING:
    from actors.api_client import ApiClient

app = typer.Typer(help="Accounts and their scopes, over the HTTP API.", no_args_is_help=True)


@app.command("open")
def open_customer(
    account: Account,
    plan: Annotated[str, typer.Option(help="A plan of the catalogue; its currency becomes the account's.")],
    zone: Annotated[str, typer.Option(help="IANA zone of its billing periods and months.")] = "UTC",
    anchor_day: Annotated[int, typer.Option(min=1, max=31, help="Day of the month on which its periods begin.")] = 1,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Open an account."""
    body = {"account": account, "plan": plan, "zone": zone, "anchor_day": anchor_day}
    told(change(url, key, "POST", "/v1/customers", body), f"opened, with the plan {plan}")


@app.command("list")
def list_customers(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """List accounts as their last checkpoints have them, seconds ago at most."""
    page = get(url, key, "/v1/customers", limit=limit, cursor=cursor)
    columns = ("account", "balance", "spend", "currency", "partition")
    print_rows("Accounts", page["items"], columns, right=("balance", "spend", "partition"))
    if page["next_cursor"]:
        typer.echo(f"more: --cursor {page['next_cursor']}")


@app.command("show")
def show_customer(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Show an account as its owner has it now: plan, standing, balance, scopes, caps."""

    async def read(api: "ApiClient") -> tuple[Any, Any, Any]:
        return (
            await api.get(path_to("customers", account)),
            await api.get(path_to("customers", account, "scopes")),
            await api.get(path_to("customers", account, "caps")),
        )

    shown, scopes, limits = over_http(url, key, read)
    for name in ("account", "plan", "currency", "zone", "anchor_day", "standing", "events_rated", "open_holds"):
        typer.echo(f"{name + ':':14}{shown[name]}")
    typer.echo(f"{'balance:':14}{balance_text(shown['balance'])}")
    print_rows("Scopes", scopes["items"], ("scope", "standing", "spent"), right=("spent",))
    columns = ("cap", "scope", "hard", "window", "unit", "amount", "spent")
    print_rows("Caps", limits["items"], columns, right=("amount", "spent"))


@app.command("scope")
def declare_scope(
    account: Account,
    scope: Annotated[str, typer.Argument(help="Its path, as team:red/user:ann; those above it come first.")],
    standing: Annotated[str, typer.Option(help="active, past_due or suspended.")] = "active",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Declare a scope inside an account, so that it can have a cap and a standing of its own."""
    body = {"scope": scope, "standing": standing}
    told(change(url, key, "PUT", path_to("customers", account, "scopes"), body), f"scope {scope} is {standing}")


@app.command("standing")
def set_standing(
    account: Account,
    standing: Annotated[str, typer.Argument(help="active, past_due or suspended; all but active deny checks.")],
    scope: InScope = "",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Suspend an account or a scope of it, or let it go on. Usage that arrives is rated all the same."""
    body = {"standing": standing, "scope": scope}
    answer = change(url, key, "PUT", path_to("customers", account, "standing"), body)
    told(answer, f"{scope or 'the account'} is {standing}")
