"""`tallygate gateways`: who is told when a customer may spend no more, and again."""

from typing import Annotated

import typer

from actors.cli.over_http import Account, ApiKey, InScope, Url, change, get, path_to
from actors.cli.terminal import AsJson, print_rows

app = typer.Typer(
    help="Gateways that are told when a customer may spend no more, over the HTTP API.", no_args_is_help=True
)
key_app = typer.Typer(help="Whose a gateway's keys are.", no_args_is_help=True)
app.add_typer(key_app, name="keys")

TOKEN_VARIABLE = "GATEWAY_TOKEN"  # noqa: S105 - where a token is read, not one

_Gateway = Annotated[str, typer.Argument(help="The gateway's name.")]
_Key = Annotated[str, typer.Argument(help="The key, as the gateway's administration names it: its hash.")]


@app.command("set")
def set_gateway(
    gateway: _Gateway,
    kind: Annotated[str, typer.Argument(help="litellm_budget, litellm_block or openrouter.")],
    address: Annotated[str, typer.Argument(help="Its URL, without the path of its interface.")],
    token: Annotated[
        str,
        typer.Option(
            envvar=TOKEN_VARIABLE,
            prompt=True,
            hide_input=True,
            help="It may administer keys; asked for unless it is set.",
        ),
    ],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set or replace a gateway. Leave --token out: it is asked for, and then no list of processes shows it."""
    change(url, key, "PUT", path_to("gateways", gateway), {"kind": kind, "url": address, "token": token})
    typer.echo(f"{gateway}: its keys are looked after as {kind}")


@app.command("remove")
def remove_gateway(gateway: _Gateway, url: Url = None, key: ApiKey = None) -> None:
    """Remove a gateway. Its keys stay as it has them."""
    change(url, key, "DELETE", path_to("gateways", gateway))
    typer.echo(f"{gateway}: is gone")


@app.command("list")
def list_gateways(as_json: AsJson = False, url: Url = None, key: ApiKey = None) -> None:
    """List the gateways."""
    items = get(url, key, path_to("gateways"))["items"]
    print_rows("Gateways", items, ("gateway", "kind", "url"), as_json=as_json)


@key_app.command("set")
def set_key(
    gateway: _Gateway,
    gateway_key: _Key,
    account: Account,
    scope: InScope = "",
    budget: Annotated[str | None, typer.Option(help="What the gateway allows it otherwise; default: no limit.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Say whose a key is. From about a second later on it is looked after."""
    body = {"account": account, "scope": scope} | ({} if budget is None else {"budget": budget})
    change(url, key, "PUT", path_to("gateways", gateway, "keys", gateway_key), body)
    typer.echo(f"{gateway}: key {gateway_key} is {account}'s")


@key_app.command("remove")
def remove_key(gateway: _Gateway, gateway_key: _Key, url: Url = None, key: ApiKey = None) -> None:
    """Look after a key no more. It stays as the gateway has it."""
    change(url, key, "DELETE", path_to("gateways", gateway, "keys", gateway_key))
    typer.echo(f"{gateway}: key {gateway_key} is looked after no more")


@key_app.command("list")
def list_keys(gateway: _Gateway, as_json: AsJson = False, url: Url = None, key: ApiKey = None) -> None:
    """List a gateway's keys: how each stands, why, and whether the gateway knows."""
    items = get(url, key, path_to("gateways", gateway, "keys"))["items"]
    print_rows(
        "Keys", items, ("key", "account", "scope", "budget", "blocked", "reason", "told", "error"), as_json=as_json
    )
