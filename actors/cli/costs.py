"""`tallygate costs`: what providers charge, for resold models and for GPUs."""

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from actors.cli import bill
from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import FAILED, WRONG_INPUT, AsJson, console, fail, new_table, print_json_rows, print_rows
from engine.cost.foreign_sheets import Imported, from_genai_prices, from_litellm
from engine.cost.price_sheet import BadSheet, PriceSheet, encode_sheet, parse_sheet
from engine.events import Malformed, parse_usage
from engine.money import NotADecimal, amount_text, parse_amount, parse_quantity

app = typer.Typer(help="What providers charge, for resold models and for GPUs.", no_args_is_help=True)
import_app = typer.Typer(help="Make a price sheet of a public one.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.add_typer(bill.app, name="bill")

RECORDED_AT_ONCE = 1_000
SheetFile = Annotated[Path, typer.Option("--sheet", exists=True, dir_okay=False, help="A price sheet.")]
_Source = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The file, as its makers publish it.")]
_To = Annotated[Path, typer.Option("--to", help="Where to write the sheet; a file that is there is not touched.")]
_Only = Annotated[list[str] | None, typer.Option("--provider", help="Only this provider's models; may be repeated.")]


@import_app.command("genai-prices")
def import_genai_prices(source: _Source, to: _To, provider: _Only = None) -> None:
    """Of pydantic's genai-prices: its `data.json`."""
    _write(_read(lambda: from_genai_prices(source.read_bytes(), provider or ())), to)


@import_app.command("litellm")
def import_litellm(source: _Source, to: _To, provider: _Only = None) -> None:
    """Of LiteLLM: its `model_prices_and_context_window.json`."""
    _write(_read(lambda: from_litellm(source.read_bytes(), provider or ())), to)


def _read(ask: Any) -> Imported:
    try:
        imported: Imported = ask()
    except BadSheet as error:
        fail(str(error), WRONG_INPUT)
    return imported


def _write(imported: Imported, to: Path) -> None:
    try:
        with to.open("xb") as file:
            file.write(encode_sheet(imported.document))
    except FileExistsError:
        fail(f"{to} is there already: prices that were edited in it would be lost; choose another name", WRONG_INPUT)
    except OSError as error:
        fail(f"{to}: {error.strerror}", FAILED)
    for model, why in imported.left_out:
        typer.echo(f"left out: {model}: {why}", err=True)
    partly = sum(1 for model in imported.document.models if model.not_covered)
    typer.echo(
        f"{to}: {len(imported.document.models)} models, {len(imported.left_out)} left out; of {partly} some charges "
        "are not covered"
    )


def _sheet(file: Path) -> PriceSheet:
    try:
        return parse_sheet(file.read_bytes())
    except BadSheet as error:
        fail(f"{file}: {error}", WRONG_INPUT)


@app.command("check")
def check_usage(
    events: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Usage events, a JSON object a line.")],
    sheet: SheetFile,
    shape: Annotated[str | None, typer.Option(help="The shape of `usage`, where the events do not state it.")] = None,
    record: Annotated[
        bool, typer.Option("--record", help="Keep both, and their gap, over the HTTP API: see `costs gaps`.")
    ] = False,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Hold the costs that events report (`data.reported_cost`) against what the sheet makes of their usage.

    `data` names `model`, perhaps `provider`, and has the usage object under `usage`. Exit status 1: some differ, or are
    not known."""
    prices = _sheet(sheet)
    rows = [_checked(prices, line, number, shape) for number, line in _lines(events)]
    if record:
        _record(rows, prices.currency, url, key)
    if as_json:
        print_json_rows(rows)
    else:
        _tell(rows, prices.currency)
    if any(row["computed"] is None or row["gap"] not in (None, "0") for row in rows):
        raise typer.Exit(FAILED)


def _lines(file: Path) -> list[tuple[int, bytes]]:
    return [(number, line) for number, line in enumerate(file.read_bytes().splitlines(), start=1) if line.strip()]


def _checked(prices: PriceSheet, line: bytes, number: int, shape: str | None) -> dict[str, Any]:
    try:
        event = parse_usage(line)
    except Malformed as error:
        fail(f"line {number}: {error}", WRONG_INPUT)
    data = event.data
    model, provider = data.get("model"), data.get("provider")
    if type(model) is not str or type(provider) not in (str, type(None)) or event.time_us is None:
        fail(f"line {number}: event {event.id}: data.model, or the event's time, is missing", WRONG_INPUT)
    cost = prices.cost(model, data, event.time_us, provider=provider, shape=shape)
    reported = _reported(data.get("reported_cost"), number)
    gap = None if reported is None or cost.pico is None else reported - cost.pico
    return {
        "id": event.id,
        "source": event.source,
        "time_us": event.time_us,
        "provider": cost.provider or provider,
        "model": cost.model or model,
        "computed": None if cost.pico is None else amount_text(cost.pico),
        "reported": None if reported is None else amount_text(reported),
        "gap": None if gap is None else amount_text(gap),
        "why": cost.why,
        "not_covered": list(cost.not_covered),
    }


def _record(rows: list[dict[str, Any]], currency: str, url: str | None, key: str | None) -> None:
    from actors.web.times import instant

    items = [
        {name: row[name] for name in ("source", "id", "model", "computed", "reported")}
        | {"provider": row["provider"] or "unknown", "time": instant(row["time_us"]), "currency": currency}
        for row in rows
    ]
    for begin in range(0, len(items), RECORDED_AT_ONCE):
        change(url, key, "POST", path_to("reported-costs"), {"items": items[begin : begin + RECORDED_AT_ONCE]})


@app.command("gaps")
def show_gaps(
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; default: 30 days before --to.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339; default: now.")] = None,
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show how far recorded costs are apart from computed ones, by provider, model and day."""
    items = get(url, key, path_to("reported-costs"), **{"from": since, "to": until})["items"]
    numbers = ("requests", "computed", "reported", "gap", "differing", "without_computed", "without_reported")
    print_rows(
        "Reported and computed",
        items,
        ("day", "provider", "model", "currency", *numbers),
        right=numbers,
        as_json=as_json,
    )


def _reported(value: object, number: int) -> int | None:
    if value is None:
        return None
    try:
        # Providers report JSON numbers; a quantity is read as they are written, to nine digits; text has twelve.
        return parse_amount(value) if type(value) is str else parse_quantity(value) * 1_000
    except NotADecimal as error:
        fail(f"line {number}: data.reported_cost: {error}", WRONG_INPUT)


def _tell(rows: list[dict[str, Any]], currency: str) -> None:
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault((row["provider"] or "", row["model"]), []).append(row)
    numbers = ("requests", "computed", "reported", "gap", "unknown")
    table = new_table(f"Upstream costs, {currency}", "provider", "model", *numbers, right=numbers)
    for (provider, model), group in sorted(groups.items()):
        sums = [
            amount_text(sum(parse_amount(row[name]) for row in group if row[name] is not None))
            for name in ("computed", "reported", "gap")
        ]
        unknown = sum(row["computed"] is None for row in group)
        table.add_row(provider, model, str(len(group)), *sums, str(unknown))
    console().print(table)
    for why in sorted({row["why"] for row in rows if row["why"]}):
        typer.echo(f"not known: {why}", err=True)


@app.command("show")
def show_model(
    model: Annotated[str, typer.Argument(help="A name or an alias.")],
    sheet: SheetFile,
    provider: Annotated[str | None, typer.Option(help="Whose, where several have it.")] = None,
) -> None:
    """Print what a sheet says of a model."""
    found = _sheet(sheet).find(model, provider)
    if isinstance(found, str):
        fail(found, WRONG_INPUT)
    typer.echo(msgspec.json.format(msgspec.json.encode(found), indent=1).decode())
