"""`tallygate grants`: credit."""

from typing import Annotated

import typer

from actors.cli.over_http import Account, ApiKey, Url, change, get, path_to, told
from actors.cli.terminal import print_rows

Lot = Annotated[str, typer.Argument(help="The lot's id, as `grants list` shows it.")]

app = typer.Typer(help="Credit, over the HTTP API.", no_args_is_help=True)


@app.command("add")
def add_grant(
    account: Account,
    amount: Annotated[str, typer.Argument(help="A decimal, in the account's currency.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    kind: Annotated[
        str, typer.Option(help="promo, commit, refund, or paid: a payment, which settles debt first.")
    ] = "promo",
    lot: Annotated[
        str | None, typer.Option(help="A name for the lot, such as the payment's; default: one is made.")
    ] = None,
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339: when it begins; default: at once.")] = None,
    expires: Annotated[str | None, typer.Option(help="RFC 3339; default: never.")] = None,
    price: Annotated[list[str] | None, typer.Option(help="It pays for this price only; may be repeated.")] = None,
    priority: Annotated[int | None, typer.Option(help="A smaller number is spent first; default: 100.")] = None,
    rollover: Annotated[
        str | None, typer.Option(help="PERCENT:DAYS or PERCENT:DAYS:CAP: what lives on of its rest when it expires.")
    ] = None,
    pays_debt: Annotated[
        bool, typer.Option("--pays-debt", help="It settles debt, too; a paid lot always does.")
    ] = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Give an account credit, as a lot of its own."""
    asked: dict[str, object] = {"amount": amount, "currency": currency, "kind": kind, "lot": lot, "effective": since}
    asked |= {"expires": expires, "priority": priority, "prices": price or None}
    body = {field: value for field, value in asked.items() if value is not None}
    if pays_debt:
        body["pays_debt"] = True
    if rollover is not None:
        body["rollover"] = _rollover(rollover)
    answer = change(url, key, "POST", path_to("customers", account, "grants"), body)
    told(answer, f"{amount} {currency} granted, as lot {answer['id']}")


@app.command("every")
def set_recurring(
    account: Account,
    grant: Annotated[str, typer.Argument(help="The recurring grant's name.")],
    every: Annotated[str, typer.Argument(help="period (of billing), month or week.")],
    amount: Annotated[str, typer.Argument(help="A decimal, in the account's currency.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    kind: Annotated[str, typer.Option(help="promo, commit, refund or paid.")] = "promo",
    days: Annotated[int | None, typer.Option(help="How long a lot lives; default: to the end of its period.")] = None,
    rollover: Annotated[
        str | None, typer.Option(help="PERCENT:DAYS or PERCENT:DAYS:CAP: what lives on of a lot's rest.")
    ] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Grant a lot in this period and in each to come. Set again, it changes what comes from the next period on."""
    body: dict[str, object] = {"every": every, "amount": amount, "currency": currency, "kind": kind}
    if days is not None:
        body["days"] = days
    if rollover is not None:
        body["rollover"] = _rollover(rollover)
    answer = change(url, key, "PUT", path_to("customers", account, "recurring-grants", grant), body)
    told(answer, f"{amount} {currency} are granted every {every}, as {grant}")


@app.command("units")
def grant_units(
    account: Account,
    price: Annotated[str, typer.Argument(help="The price whose units they are.")],
    quantity: Annotated[str, typer.Argument(help="A decimal, in units of the price's meter.")],
    grant: Annotated[str | None, typer.Option(help="The grant's id; default: a new one.")] = None,
    expires: Annotated[str | None, typer.Option(help="An RFC 3339 instant; default: with the billing period.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Grant units of a price in this billing period: they owe nothing, behind what the price includes."""
    body = {"price": price, "quantity": quantity, "grant": grant, "expires": expires}
    said = {name: value for name, value in body.items() if value is not None}
    answer = change(url, key, "POST", path_to("customers", account, "quantity-grants"), said)
    told(answer, f"{quantity} units of {price} granted, as {answer['id']}")


@app.command("void-units")
def void_units(
    account: Account,
    grant: Annotated[str, typer.Argument(help="The quantity grant's id.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Take the rest of a quantity grant away."""
    path = path_to("customers", account, "quantity-grants", grant, "void")
    told(change(url, key, "POST", path), f"the rest of {grant} is void")


@app.command("quantities")
def list_quantities(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """List the quantity grants of an account, and what is left of each."""
    items = get(url, key, path_to("customers", account, "quantity-grants"))["items"]
    columns = ("grant", "price", "granted", "used", "remaining", "expired", "voided", "expires")
    print_rows("Quantity grants", items, columns, right=columns[2:7])


@app.command("stop")
def remove_recurring(
    account: Account,
    grant: Annotated[str, typer.Argument(help="The recurring grant's name.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Remove a recurring grant. Lots that there are stay."""
    told(
        change(url, key, "DELETE", path_to("customers", account, "recurring-grants", grant)),
        f"{grant} is granted no more",
    )


@app.command("recurring")
def list_recurring(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """List the recurring grants of an account, and when the next lot of each begins."""
    items = get(url, key, path_to("customers", account, "recurring-grants"))["items"]
    print_rows("Recurring grants", items, ("grant", "every", "kind", "amount", "days", "next"), right=("amount",))


def _rollover(text: str) -> dict[str, int | str]:
    percent, _, rest = text.partition(":")
    days, _, cap = rest.partition(":")
    if not (percent.isdecimal() and days.isdecimal()):
        raise typer.BadParameter("it is PERCENT:DAYS or PERCENT:DAYS:CAP, such as 50:30 or 50:30:200")
    found: dict[str, int | str] = {"percent": int(percent), "days": int(days)}
    return found | {"cap": cap} if cap else found


@app.command("void")
def void_grant(
    account: Account,
    lot: Lot,
    amount: Annotated[str | None, typer.Argument(help="A decimal; default: all that remains.")] = None,
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Take a lot's rest away, or an amount of it, as of a payment that was paid back; what it has burnt of it is debt."""
    body = {"currency": currency} if amount is None else {"currency": currency, "amount": amount}
    answer = change(url, key, "POST", path_to("customers", account, "grants", lot, "void"), body)
    told(answer, f"{amount or 'the rest'} of lot {lot} is void")


@app.command("refund")
def refund_grant(
    account: Account,
    lot: Lot,
    amount: Annotated[str, typer.Argument(help="A decimal: at most what the lot has burnt.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Give a lot back what it has paid for, so that it can be spent again."""
    body = {"currency": currency, "amount": amount}
    answer = change(url, key, "POST", path_to("customers", account, "grants", lot, "refund"), body)
    told(answer, f"{amount} {currency} are back in lot {lot}")


@app.command("list")
def list_grants(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Show an account's lots in the order in which they are spent: granted, and what became of it."""
    lots = get(url, key, path_to("customers", account, "grants"))["items"]
    amounts = ("granted", "remaining", "expired", "refunded", "voided", "carried")
    print_rows("Lots", lots, ("lot", "kind", *amounts, "expires"), right=amounts)
