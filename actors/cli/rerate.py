"""`tallygate rerate`: what past usage would come to under another published version, and the difference posted."""

import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from msgspec import Struct

from actors.cli.over_http import ApiKey, Url, over_http, path_to
from actors.cli.terminal import FAILED, WRONG_INPUT, fail, print_rows
from engine.money import amount_text, parse_amount

if TYPE_CHECKING:
    from actors.api_client import ApiClient

PAGE = 100

app = typer.Typer(help="Rate past usage again, over the HTTP API.", no_args_is_help=True)


class _Part(Struct):
    """What one request posts: of one account and price."""

    account: str
    price: str
    currency: str
    differences: list[dict[str, str]]


class _Found(Struct):
    """A dry run as a file: what is looked at, approved, and posted as it stands."""

    rerate: str
    version: int
    since: str
    until: str | None
    parts: list[_Part]


@app.command("dryrun")
def dry_run(
    version: Annotated[int, typer.Option(min=1, help="The published version to rate by.")],
    since: Annotated[str, typer.Option("--from", help="RFC 3339: where it begins.")],
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339: where it ends; default: all since.")] = None,
    price: Annotated[str | None, typer.Option(help="Only this one; default: every price of a customer's plan.")] = None,
    plan: Annotated[str | None, typer.Option(help="Only customers on this plan.")] = None,
    account: Annotated[list[str] | None, typer.Option(help="Only these customers; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to keep what is found, for `rerate apply`.")] = None,
    name: Annotated[str | None, typer.Option(help="The re-rating's id; default: one is made.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show what usage would come to, and the difference, by customer, price and billing period. Nothing changes."""
    asked: dict[str, str | int | None] = {"version": version, "from": since, "to": until, "price": price}

    async def ask(api: "ApiClient") -> list[dict[str, Any]]:
        found = [
            await api.get(path_to("customers", each, "rerated"), **asked) for each in await _accounts(api, account)
        ]
        return [each for each in found if plan is None or each["plan"] == plan]

    answers = over_http(url, key, ask)
    rows = [
        {"customer": answer["account"], "currency": answer["currency"], **item}
        for answer in answers
        for item in answer["items"]
    ]
    amounts = ("rated", "posted", "owed", "difference")
    print_rows("Differences", rows, ("customer", "price", "period", "currency", *amounts), right=amounts)
    for answer in answers:
        for refused in answer["refused"]:
            if refused["reason"] != "unknown_price" or account:
                typer.echo(f"{answer['account']}: {refused['price']} cannot be rated again: {refused['reason']}")
    totals: dict[str, int] = {}
    for answer in answers:
        totals[answer["currency"]] = totals.get(answer["currency"], 0) + parse_amount(answer["difference"])
    for currency, total in sorted(totals.items()):
        typer.echo(f"total difference {amount_text(total)} {currency}, of {len(answers)} customers")
    if out is not None:
        found = _Found(name or f"rerate-{secrets.token_hex(8)}", version, since, until, _parts(answers))
        out.write_bytes(msgspec.json.format(msgspec.json.encode(found)))
        typer.echo(f"kept in {out}: `tallygate rerate apply {out} --reason ...` posts it")


async def _accounts(api: "ApiClient", named: list[str] | None) -> list[str]:
    if named:
        return named
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await api.get("/v1/customers", limit=PAGE, cursor=cursor)
        found += [item["account"] for item in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


def _parts(answers: list[dict[str, Any]]) -> list[_Part]:
    parts: dict[tuple[str, str], _Part] = {}
    for answer in answers:
        for item in answer["items"]:
            if parse_amount(item["difference"]):
                place = answer["account"], item["price"]
                part = parts.setdefault(place, _Part(*place, answer["currency"], []))
                part.differences.append({"period": item["period"], "difference": item["difference"]})
    return list(parts.values())


@app.command("apply")
def apply(
    file: Annotated[Path, typer.Argument(help="What `rerate dryrun --out` has kept.")],
    reason: Annotated[str, typer.Option(help="Why; it is kept with each line.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Post what a dry run has found, with an admin key. Done again after it broke off, it goes on where it was."""
    from actors.api_client import ApiRefused

    try:
        found = msgspec.json.decode(file.read_bytes(), type=_Found)
    except (OSError, msgspec.MsgspecError) as error:
        fail(f"{file}: {error}", WRONG_INPUT)
    posted = before = 0
    refused = []

    async def post(api: "ApiClient") -> None:
        nonlocal posted, before
        for part in found.parts:
            body: dict[str, Any] = {"rerate": found.rerate, "version": found.version, "from": found.since}
            body |= {"price": part.price, "currency": part.currency, "differences": part.differences, "reason": reason}
            if found.until is not None:
                body["to"] = found.until
            try:
                await api.change("POST", path_to("customers", part.account, "rerates"), body)
            except ApiRefused as error:
                if error.status == 409:  # posted before it broke off
                    before += 1
                    continue
                if error.status in (401, 403):
                    raise
                refused.append(f"{part.account}: {part.price}: {error}")
            else:
                posted += 1

    over_http(url, key, post)
    for line in refused:
        typer.echo(line, err=True)
    typer.echo(f"{found.rerate}: {posted} posted, {before} posted before, {len(refused)} refused")
    if refused:
        raise typer.Exit(FAILED)
