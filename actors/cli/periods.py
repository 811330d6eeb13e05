"""`tallygate periods`: what billing periods owe besides their usage."""

import typer

from actors.cli.over_http import Account, ApiKey, Url, get, path_to
from actors.cli.terminal import print_rows

app = typer.Typer(help="What billing periods owe besides their usage, over the HTTP API.", no_args_is_help=True)


@app.command("list")
def list_period_lines(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Show the lines of closed periods, and of open ones what they would owe if they closed now."""
    items = get(url, key, path_to("customers", account, "period-lines"))["items"]
    rows = [{**item, "closed": "yes" if item["closed"] else "projected"} for item in items]
    columns = ("period", "ends", "kind", "price", "amount", "closed", "of_month", "of_period")
    print_rows("Period lines", rows, columns, right=("amount", "of_month", "of_period"))
