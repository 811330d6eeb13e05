"""`tallygate balance`: what an account has, once or as it changes."""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from actors.cli.over_http import Account, ApiKey, Url, get, over_http, path_to
from actors.cli.terminal import until_ctrl_c

if TYPE_CHECKING:
    from actors.api_client import ApiClient


def show_balance(
    account: Account,
    watch: Annotated[bool, typer.Option("--watch", help="Show every change and every alert, until Ctrl-C.")] = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show what an account has: available, booked, held by open requests."""
    if not watch:
        shown = get(url, key, path_to("customers", account, "balance"))
        suffix = "  (its owner is recovering)" if shown["recovering"] else ""
        worth = shown.get("worth")
        if worth is not None:
            suffix = f"  worth {worth['available']} {worth['currency']}{suffix}"
        typer.echo(f"{account}  {balance_text(shown['balance'])}{suffix}")
        return
    with until_ctrl_c():
        over_http(url, key, lambda api: _watch(api, account))


async def _watch(api: "ApiClient", account: str) -> None:
    from actors.api_client import ApiAway

    async def look() -> None:
        async for event in api.follow(path_to("customers", account, "stream")):
            if event.name == "balance":
                typer.echo(f"{event.data['as_of']['log_time']}  {balance_text(event.data['balance'])}")
            else:
                typer.echo(f"{event.name}  {orjson.dumps(event.data).decode()}")

    while True:
        try:
            await look()
        except ApiAway as error:
            typer.echo(str(error), err=True)
        await asyncio.sleep(1.0)


def balance_text(balance: Mapping[str, Any]) -> str:
    overdraft = "without limit" if balance["overdraft"] is None else balance["overdraft"]
    return (
        f"available {balance['available']} {balance['currency']}  booked {balance['booked']}  held {balance['held']}  "
        f"overdraft {overdraft}"
    )
