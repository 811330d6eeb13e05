"""`tallygate costs bill`: what a provider has billed, held against our own costs."""

import csv
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import FAILED, WRONG_INPUT, AsJson, fail, print_json_rows, print_rows
from engine.cost.billed import price_from_table, usage_from_table
from engine.events import Malformed
from engine.money import NotADecimal, parse_amount, parse_quantity

app = typer.Typer(help="A provider's bill, over the HTTP API.", no_args_is_help=True)

ROWS_SENT = 1_000  # with one request
_NUMBERS = ("billed", "corrected", "ours", "delta")
_decoder = msgspec.json.Decoder(float_hook=Decimal)
Row = TypeVar("Row")


@app.command("import")
def import_bill(
    usage: Annotated[
        Path | None,
        typer.Argument(exists=True, dir_okay=False, help="Rows of system.billing.usage: JSON, a line each, or CSV."),
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="Rows of system.billing.list_prices, likewise.")
    ] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Import billed usage, originals and their corrections, and list prices. What was imported before adds nothing."""
    if usage is None and prices is None:
        fail("nothing to import: name a file of usage, or --prices", WRONG_INPUT)
    records = [] if usage is None else _read(usage, lambda row: _record(row))
    listed = [] if prices is None else _read(prices, lambda row: _price(row))
    added = known = kept = 0
    contradicted: list[str] = []
    bodies = [{"prices": listed[at : at + ROWS_SENT]} for at in range(0, len(listed), ROWS_SENT)]
    bodies += [{"usage": records[at : at + ROWS_SENT]} for at in range(0, len(records), ROWS_SENT)]
    for body in bodies:
        answer = change(url, key, "POST", path_to("billed-usage"), body)
        added, known, kept = added + answer["added"], known + answer["known"], kept + answer["prices"]
        contradicted += answer["contradicted"]
    typer.echo(f"{added} records added, {known} were there already; {kept} prices")
    if contradicted:
        shown = ", ".join(contradicted[:10])
        fail(f"{len(contradicted)} records were there and said otherwise; they stay as they were: {shown}", FAILED)


@app.command("reconcile")
def reconcile_bill(
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; default: a day before --to.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339; default: now.")] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="ENDPOINT=MODEL, where an endpoint does not have its model's name.")
    ] = None,
    currency: Annotated[str, typer.Option(help="Of both.")] = "USD",
    within: Annotated[str | None, typer.Option(help="Percent of the bill that an endpoint may be off by.")] = None,
    hours: Annotated[bool, typer.Option("--hours", help="Show every hour, not only endpoints.")] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Hold the imported bill against what we said, endpoint by endpoint. Exit status 1: further apart than --within, or
    something is not known."""
    try:
        allowed = None if within is None else parse_quantity(within)
    except NotADecimal as error:
        fail(f"--within: {error}", WRONG_INPUT)
    asked: dict[str, str | int | None] = {"from": since, "to": until, "currency": currency}
    asked["models"] = ",".join(model or []) or None
    found = get(url, key, path_to("billed-usage", "reconciliation"), **asked)
    if as_json:
        print_json_rows(found["items"] if hours else found["endpoints"])
    elif hours:
        print_rows(f"Billed and ours, {currency}", found["items"], ("endpoint", "hour", *_NUMBERS), right=_NUMBERS)
    else:
        columns = ("billed", "ours", "delta")
        print_rows(f"Billed and ours, {currency}", found["endpoints"], ("endpoint", *columns), right=columns)
    for fault in found["faults"]:
        typer.echo(fault, err=True)
    unknown = [each["endpoint"] for each in found["endpoints"] if each["delta"] is None]
    if unknown:
        fail(f"not known: {', '.join(unknown)}", FAILED)
    if allowed is not None:
        apart = [each["endpoint"] for each in found["endpoints"] if _apart(each, allowed)]
        if apart:
            fail(f"further apart than {within} %: {', '.join(apart)}", FAILED)


def _apart(endpoint: Mapping[str, str], allowed_nano: int) -> bool:
    return abs(parse_amount(endpoint["delta"])) * 100 * 10**9 > abs(parse_amount(endpoint["billed"])) * allowed_nano


def _read(file: Path, make: Callable[[Mapping[str, Any]], Row]) -> list[Row]:
    made = []
    for number, row in _rows(file):
        try:
            made.append(make(row))
        except Malformed as error:
            fail(f"{file}, row {number}: {error}", WRONG_INPUT)
    return made


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".csv":
        for number, row in enumerate(csv.DictReader(text.splitlines()), start=1):
            yield number, {name: _nested(name, value) for name, value in row.items() if name is not None}
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            decoded = _decoder.decode(line)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            fail(f"{file}, row {number}: {error}", WRONG_INPUT)
        if not isinstance(decoded, dict):
            fail(f"{file}, row {number}: a JSON object is expected", WRONG_INPUT)
        yield number, decoded


def _nested(name: str, value: str | None) -> Any:
    """Exports write what is nested as JSON."""
    if name in ("usage_metadata", "pricing") and value and value.startswith("{"):
        try:
            return _decoder.decode(value)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return value
    return value


def _record(row: Mapping[str, Any]) -> dict[str, Any]:
    usage = usage_from_table(row)
    return {
        "record": usage.record,
        "sku": usage.sku,
        "unit": usage.unit,
        "start": _instant(usage.begin_us),
        "end": _instant(usage.end_us),
        "quantity": _decimal(usage.quantity),
        "endpoint": usage.endpoint,
        "type": usage.type.value,
    }


def _price(row: Mapping[str, Any]) -> dict[str, Any]:
    price = price_from_table(row)
    return {
        "sku": price.sku,
        "unit": price.unit,
        "amount": _decimal(price.amount),
        "start": _instant(price.from_us),
        "end": None if price.until_us is None else _instant(price.until_us),
        "currency": price.currency,
    }


def _decimal(fixed: int) -> str:
    whole, rest = divmod(abs(fixed), 10**18)
    return f"{'-' if fixed < 0 else ''}{whole}" + (f".{rest:018d}".rstrip("0") if rest else "")


def _instant(us: int) -> str:
    from actors.web.times import instant

    return instant(us)
