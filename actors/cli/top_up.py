"""`tallygate top-up`: credit that is asked for when the balance is low."""

from typing import Annotated

import typer

from actors.cli.over_http import Account, ApiKey, Url, change, get, path_to, told
from actors.cli.terminal import print_rows

app = typer.Typer(help="Automatic top-up, over the HTTP API.", no_args_is_help=True)


@app.command("set")
def set_top_up(
    account: Account,
    threshold: Annotated[str, typer.Argument(help="A decimal: credit is asked for once the balance is at or below.")],
    amount: Annotated[str, typer.Argument(help="A decimal: how much is asked for.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    cooldown_s: Annotated[int, typer.Option(help="Seconds behind a request, and behind its answer.")] = 3600,
    attempts: Annotated[int, typer.Option(help="Requests in a row that may fail.")] = 3,
    days: Annotated[int | None, typer.Option(help="How long the credit lives; default: for ever.")] = None,
    priority: Annotated[int, typer.Option(help="Of the credit; a smaller number is spent first.")] = 100,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set or replace automatic top-up. Requests are told by webhook, as rule top_up; `answer` says what became of one."""
    asked = {
        "threshold": threshold,
        "amount": amount,
        "currency": currency,
        "cooldown_s": cooldown_s,
        "attempts": attempts,
        "days": days,
        "priority": priority,
    }
    body = {field: value for field, value in asked.items() if value is not None}
    answer = change(url, key, "PUT", path_to("customers", account, "auto-top-up"), body)
    told(answer, f"{amount} {currency} are asked for at {threshold} or below")


@app.command("remove")
def remove_top_up(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Ask for nothing any more. A request that is open can still be answered."""
    told(change(url, key, "DELETE", path_to("customers", account, "auto-top-up")), "nothing is asked for any more")


@app.command("answer")
def answer_top_up(
    account: Account,
    request: Annotated[str, typer.Argument(help="The request's id, as `top-up show` and the webhook have it.")],
    paid: Annotated[bool, typer.Option("--paid/--failed", help="What became of the payment.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Say that a request was paid, which makes it credit, or that its payment failed."""
    answer = change(url, key, "POST", path_to("customers", account, "auto-top-up", request), {"paid": paid})
    told(answer, f"{request} {'was paid' if paid else 'failed'}")


@app.command("show")
def show_top_up(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Show the terms, the open request, and when the next one is due."""
    state = get(url, key, path_to("customers", account, "auto-top-up"))
    asked = state["open"] or {"request": None}
    fields = ("threshold", "amount", "cooldown_s", "attempts", "days", "requests", "failed", "next_request")
    print_rows("Automatic top-up", [state | {"open": asked["request"]}], (*fields, "open"))
