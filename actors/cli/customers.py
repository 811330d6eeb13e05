"""`tallygate customers`: accounts and their scopes."""

from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from actors.cli.balance import balance_text
from actors.cli.over_http import Account, ApiKey, InScope, Url, change, get, over_http, path_to, told
from actors.cli.terminal import AsJson, print_json_rows, print_rows

if TYPE_CHECKING:
    from actors.api_client import ApiClient

app = typer.Typer(help="Accounts and their scopes, over the HTTP API.", no_args_is_help=True)

_TERMS_FROM = "RFC 3339; left out: at once. Six minutes ahead or more makes nothing dearer that was approved."
_ALERT = ("created", "type", "rule", "window", "level", "value", "attempts", "delivered", "given_up", "error", "id")


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

    async def read(api: "ApiClient") -> tuple[Any, Any, Any, Any]:
        return (
            await api.get(path_to("customers", account)),
            await api.get(path_to("customers", account, "scopes")),
            await api.get(path_to("customers", account, "caps")),
            await api.get(path_to("customers", account, "prices")),
        )

    shown, scopes, limits, prices = over_http(url, key, read)
    for name in ("account", "plan", "currency", "zone", "anchor_day", "standing", "events_rated", "open_holds"):
        typer.echo(f"{name + ':':14}{shown[name]}")
    typer.echo(f"{'balance:':14}{balance_text(shown['balance'])}")
    print_rows("Scopes", scopes["items"], ("scope", "standing", "spent"), right=("spent",))
    columns = ("cap", "scope", "hard", "window", "unit", "amount", "spent")
    print_rows("Caps", limits["items"], columns, right=("amount", "spent"))
    agreed = [each | {"terms": orjson.dumps(each["terms"]).decode()} for each in prices["items"]]
    print_rows("Agreed prices", agreed, ("price", "from", "terms"))


@app.command("plan")
def set_plan(
    account: Account,
    plan: Annotated[str, typer.Argument(help="A plan of the catalogue, of the account's currency.")],
    since: Annotated[str | None, typer.Option("--from", help=_TERMS_FROM)] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Sell an account another plan, from an instant on."""
    body = {"plan": plan} | ({} if since is None else {"from": since})
    answer = change(url, key, "PUT", path_to("customers", account, "plan"), body)
    told(answer, f"plan {plan} from {since or 'now'} on")


@app.command("seats")
def seats(
    account: Account,
    seat: Annotated[str, typer.Argument(help="Which seats, as the plan names them.")],
    count: Annotated[int, typer.Argument(min=0, help="How many there are from then on.")],
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; left out: at once.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set how many seats an account has, from an instant on."""
    body = {"count": count} | ({} if since is None else {"from": since})
    answer = change(url, key, "PUT", path_to("customers", account, "seats", seat), body)
    told(answer, f"{count} seats {seat} from {since or 'now'} on")


@app.command("billing")
def set_billing(
    account: Account,
    billing: Annotated[str, typer.Argument(help="prepaid or postpaid.")],
    credit_limit: Annotated[str | None, typer.Option(help="Of a postpaid one; left out: without limit.")] = None,
    currency: Annotated[str, typer.Option(help="The account's.")] = "USD",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Bill an account before or behind what it uses: of a postpaid one, the debt of a closed period is due."""
    limit = {} if credit_limit is None else {"credit_limit": credit_limit}
    body = {"billing": billing, "currency": currency} | limit
    answer = change(url, key, "PUT", path_to("customers", account, "billing"), body)
    told(answer, f"{billing}{'' if credit_limit is None else f', up to {credit_limit} {currency}'}")


@app.command("overdraft")
def set_overdraft(
    account: Account,
    amount: Annotated[str, typer.Argument(help="A decimal: how far below zero checks may take it; none: no limit.")],
    currency: Annotated[str, typer.Option(help="The account's.")] = "USD",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set how far checks may take the balance below zero; 0 until set."""
    body = {"amount": None if amount == "none" else amount, "currency": currency}
    answer = change(url, key, "PUT", path_to("customers", account, "overdraft"), body)
    told(answer, "overdraft without limit" if amount == "none" else f"overdraft of {amount} {currency}")


@app.command("usage")
def list_usage(
    account: Account,
    since: Annotated[str | None, typer.Option(help="RFC 3339: only periods that start then or later.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show what an account used by billing period, price and cell, and what each price owes for the period: the amount is on
    the first cell of a price, so that amounts add up."""
    found = get(url, key, path_to("customers", account, "usage"), since=since)
    columns = ("period", "price", "cell", "quantity", "amount")
    print_rows(f"Usage, {found['currency']}", found["items"], columns, right=("quantity", "amount"), as_json=as_json)


@app.command("ledger")
def list_postings(
    account: Account,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show the postings of an account, the newest first: every change of a lot or of debt."""
    page = get(url, key, path_to("customers", account, "ledger"), limit=limit, cursor=cursor)
    columns = ("id", "posting_period", "kind", "lot", "lot_kind", "amount", "usage_period")
    print_rows("Postings", page["items"], columns, right=("amount",), as_json=as_json)
    if page["next_cursor"]:
        typer.echo(f"more: --cursor {page['next_cursor']}", err=True)


@app.command("alerts")
def list_alerts(
    account: Account,
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many of the newest.")] = 50,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show what was told of an account, and how far the telling has come."""
    items = get(url, key, path_to("customers", account, "alerts"), limit=limit)["items"]
    if as_json:
        print_json_rows(items)
        return
    rows = [item["alert"]["data"] | {"type": item["alert"]["type"], "id": item["alert"]["id"]} | item for item in items]
    shown = [{name: row.get(name) for name in _ALERT} for row in rows]
    print_rows("Alerts", shown, _ALERT, right=("value", "attempts"))


@app.command("pause")
def pause(
    account: Account,
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; left out: at once.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Deny an account's checks from an instant on; what it uses all the same is rated."""
    _pause(account, True, since, url, key)


@app.command("resume")
def resume(
    account: Account,
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; left out: at once.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """End a pause of an account, from an instant on."""
    _pause(account, False, since, url, key)


def _pause(account: str, paused: bool, since: str | None, url: Url, key: ApiKey) -> None:
    body = {"paused": paused} | ({} if since is None else {"from": since})
    answer = change(url, key, "PUT", path_to("customers", account, "pause"), body)
    told(answer, f"{'paused' if paused else 'resumed'} from {since or 'now'} on")


@app.command("agree")
def agree(
    account: Account,
    price: Annotated[str, typer.Argument(help="A price of the account's plan.")],
    terms: Annotated[
        str | None, typer.Argument(help="JSON, as a price stands in a catalogue; left out: the plan's own again.")
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help=_TERMS_FROM)] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217, the account's.")] = "USD",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Agree with one account on other terms of a price, from an instant on."""
    try:
        stated = None if terms is None else orjson.loads(terms)
    except orjson.JSONDecodeError as error:
        raise typer.BadParameter(f"TERMS is no JSON: {error}") from None
    body = {"terms": stated, "currency": currency} | ({} if since is None else {"from": since})
    answer = change(url, key, "PUT", path_to("customers", account, "prices", price), body)
    what = terms or "the plan's"
    told(answer, f"price {price} is {what} from {since or 'now'} on")


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
