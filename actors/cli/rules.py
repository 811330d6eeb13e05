"""`tallygate rules`: when someone is told, and how urgent it is."""

from typing import Annotated, Any

import typer

from actors.cli.over_http import Account, ApiKey, Url, change, get, path_to, told
from actors.cli.terminal import WRONG_INPUT, fail, print_rows

app = typer.Typer(help="Alert rules, over the HTTP API.", no_args_is_help=True)

Rule = Annotated[str, typer.Argument(help="The rule's name.")]
_WHOLE = ("percent", "clear_percent", "length_s", "within_s", "bucket_s")


@app.command("set")
def set_rule(
    account: Account,
    rule: Rule,
    measure: Annotated[
        str,
        typer.Argument(
            help="cap_percent, balance, spend, quantity, included_percent, commitment_percent, lot_percent, expiring or spike: "
            "see docs/api.md."
        ),
    ],
    terms: Annotated[list[str], typer.Argument(help="What the measure takes, such as threshold=5 clear=10.")],
    level: Annotated[str, typer.Option(help="info, warning or critical.")] = "warning",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set or replace a rule. It is looked at once, and with every event from then on."""
    on: dict[str, Any] = {"measure": measure}
    for term in terms:
        name, sign, value = term.partition("=")
        if not sign or (name in _WHOLE and not value.isdecimal()):
            fail(f"{term!r} is no NAME=VALUE, or not the whole number that {', '.join(_WHOLE)} take", WRONG_INPUT)
        on[name] = int(value) if name in _WHOLE else value
    answer = change(url, key, "PUT", path_to("customers", account, "rules", rule), {"on": on, "level": level})
    told(answer, f"rule {rule} tells of {measure} {' '.join(terms)}, as {level}")


@app.command("remove")
def remove_rule(account: Account, rule: Rule, url: Url = None, key: ApiKey = None) -> None:
    """Remove a rule. What it has active is told as recovered."""
    answer = change(url, key, "DELETE", path_to("customers", account, "rules", rule))
    told(answer, f"rule {rule} is gone")


@app.command("list")
def list_rules(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """List the rules of an account, and where each is active."""
    items = get(url, key, path_to("customers", account, "rules"))["items"]
    rows = [
        {
            "rule": item["rule"],
            "level": item["level"],
            "on": " ".join(f"{name}={value}" for name, value in item["on"].items() if value not in (None, "")),
            "active in": ", ".join(item["active_in"]),
        }
        for item in items
    ]
    print_rows("Rules", rows, ("rule", "level", "on", "active in"))
