"""`tallygate webhooks`: where alerts go, and what came of telling them."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import FAILED, AsJson, fail, print_rows

app = typer.Typer(help="Webhook endpoints, over the HTTP API.", no_args_is_help=True)

_Endpoint = Annotated[str, typer.Argument(help="The endpoint's id, as `webhooks list` shows it.")]
_Newest = Annotated[int, typer.Option(min=1, max=200, help="How many of the newest.")]


@app.command("add")
def add_endpoint(
    address: Annotated[str, typer.Argument(help="Where to POST alerts: https, on a public address.")],
    account: Annotated[str | None, typer.Option(help="Only this account's alerts; default: all.")] = None,
    rule: Annotated[list[str] | None, typer.Option(help="Only this rule's; may be repeated. Default: all.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Make an endpoint, and print its signing secret: this once, and nowhere else."""
    body: dict[str, Any] = {"url": address}
    if account is not None:
        body["account"] = account
    if rule:
        body["rules"] = rule
    made = change(url, key, "POST", path_to("webhook-endpoints"), body)
    typer.echo(f"{made['endpoint']['id']}: hears {address}; its secret is {made['secret']}")


@app.command("list")
def list_endpoints(
    account: Annotated[str | None, typer.Option(help="Only those of this account.")] = None,
    newest: _Newest = 50,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """List endpoints, disabled ones too, without their secrets."""
    items = get(url, key, path_to("webhook-endpoints"), account=account, limit=newest)["items"]
    print_rows(
        "Webhook endpoints", items, ("id", "url", "account", "rules", "enabled", "disabled_reason"), as_json=as_json
    )


@app.command("disable")
def disable_endpoint(endpoint: _Endpoint, url: Url = None, key: ApiKey = None) -> None:
    """Tell an endpoint nothing more. Its history stays."""
    change(url, key, "DELETE", path_to("webhook-endpoints", endpoint))
    typer.echo(f"{endpoint}: is told nothing more")


@app.command("enable")
def enable_endpoint(endpoint: _Endpoint, url: Url = None, key: ApiKey = None) -> None:
    """Tell an endpoint again: one that was disabled, or that answered 410."""
    change(url, key, "POST", path_to("webhook-endpoints", endpoint, "enable"))
    typer.echo(f"{endpoint}: is told again")


@app.command("rotate-secret")
def rotate_secret(endpoint: _Endpoint, url: Url = None, key: ApiKey = None) -> None:
    """Make a new signing secret, and print it this once. For a day messages are signed with both."""
    made = change(url, key, "POST", path_to("webhook-endpoints", endpoint, "rotate-secret"))
    until = made["endpoint"]["previous_secret_until"]
    typer.echo(f"{endpoint}: its secret is {made['secret']}; the one before is good until {until}")


@app.command("test")
def send_test(endpoint: _Endpoint, url: Url = None, key: ApiKey = None) -> None:
    """Send a signed test message, once, now. Exit status 1: it was not taken."""
    _tell_attempt(change(url, key, "POST", path_to("webhook-endpoints", endpoint, "test")))


@app.command("deliveries")
def list_deliveries(
    endpoint: _Endpoint,
    alert: Annotated[str | None, typer.Option(help="Only attempts to tell this alert.")] = None,
    newest: _Newest = 50,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show what was tried at an endpoint in the last 30 days, and what came of it."""
    path = path_to("webhook-endpoints", endpoint, "deliveries")
    items = get(url, key, path, alert=alert, limit=newest)["items"]
    columns = ("id", "alert_id", "cause", "attempt", "at", "delivered", "status", "error", "duration_ms")
    print_rows("Deliveries", items, columns, right=("attempt", "status", "duration_ms"), as_json=as_json)


@app.command("resend")
def resend_alert(
    delivery: Annotated[str, typer.Argument(help="The attempt's id, as `webhooks deliveries` shows it.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Send the alert of an attempt again, under the same id. Exit status 1: it was not taken."""
    _tell_attempt(change(url, key, "POST", path_to("deliveries", delivery, "resend")))


def _tell_attempt(attempt: Mapping[str, Any]) -> None:
    what = f"{attempt['endpoint_id']}: {attempt['alert_id']}"
    if not attempt["delivered"]:
        why = attempt["error"] or f"it answered {attempt['status']}"
        fail(f"{what} was not taken after {attempt['duration_ms']} ms: {why}", FAILED)
    typer.echo(f"{what} was taken with {attempt['status']} after {attempt['duration_ms']} ms")
