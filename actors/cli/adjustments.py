"""`tallygate adjustments`: what is charged or given back by hand, and what late usage changed."""

from typing import Annotated

import typer

from actors.cli.over_http import Account, ApiKey, Url, change, get, path_to, told
from actors.cli.terminal import print_rows

app = typer.Typer(help="Adjustments, over the HTTP API.", no_args_is_help=True)


@app.command("add")
def add_adjustment(
    account: Account,
    amount: Annotated[str, typer.Argument(help="A decimal: above 0 it is charged. To give back, write -- -12.5.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept with the line.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    line: Annotated[str | None, typer.Option(help="A name for the line; default: one is made.")] = None,
    price: Annotated[str | None, typer.Option(help="Whose credit pays; default: lots that pay for everything.")] = None,
    period: Annotated[
        str | None, typer.Option(help="RFC 3339: an instant of the billing period it is for; default: now.")
    ] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Charge an account, or give it back, an amount with a reason; nothing that was rated changes."""
    asked = {"amount": amount, "currency": currency, "reason": reason, "line": line, "price": price, "period": period}
    body: dict[str, object] = {field: value for field, value in asked.items() if value is not None}
    answer = change(url, key, "POST", path_to("customers", account, "adjustments"), body)
    told(answer, f"{amount} {currency} posted, as line {answer['id']}")


@app.command("list")
def list_adjustments(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Show an account's manual lines, and what late usage of closed billing periods changed."""
    items = get(url, key, path_to("customers", account, "adjustments"))["items"]
    columns = ("line", "period", "posted", "price", "amount", "reason", "by")
    print_rows("Adjustments", items, columns, right=("amount",))
