"""`tallygate export`: charges as others read them."""

import asyncio
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import msgspec
import typer

from actors.cli.proving import proving
from actors.cli.terminal import FAILED, WRONG_INPUT, expected_errors, fail, instant_of, outside_errors
from config.settings import Settings, load_settings
from engine.outcomes import RatedLine
from engine.periods import UnknownZone, month_around, zone_of

if TYPE_CHECKING:
    from actors.focus.columns import Row
    from actors.focus.rows import Periods
    from engine.cost.lines import RequestLine, WindowLine

app = typer.Typer(help="Charges as others read them.", no_args_is_help=True)
_EVER = 1 << 62
Line = TypeVar("Line")


class Format(StrEnum):
    """Of a file."""

    CSV = "csv"
    PARQUET = "parquet"


@app.command("focus")
def export_focus(
    out: Annotated[Path, typer.Option(help="The file; one that is there is not touched.")],
    provider: Annotated[str, typer.Option(help="Who sells: provider, publisher and issuer of invoices.")],
    service: Annotated[str, typer.Option(help="What is sold.")] = "AI inference",
    file_format: Annotated[Format, typer.Option("--format", help="Parquet needs the extra `export`.")] = Format.CSV,
    since: Annotated[str | None, typer.Option("--from", help="Posted from then on, RFC 3339; default: all.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Posted before then; default: all.")] = None,
    unit: Annotated[list[str] | None, typer.Option(help="PRICE=Unit of its quantity, as in tokens_out=Tokens.")] = None,
    lines: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Rated lines, a JSON object each, in place of a deployment's."),
    ] = None,
    zone: Annotated[str, typer.Option(help="With --lines: zone of all accounts' billing periods.")] = "UTC",
    anchor_day: Annotated[int, typer.Option(min=1, max=31, help="With --lines: on which they begin.")] = 1,
) -> None:
    """Rated lines as rows of FOCUS 1.2: one per account, hour, price and cell.

    Of a deployment: what is in a checkpoint, with each account's own billing periods. Exports of ranges that adjoin have
    each line once. Each row is checked before the file is written."""
    from actors.focus.rows import Issuer, focus_rows

    units = dict(_unit(text) for text in unit or ())
    from_us = 0 if since is None else instant_of("--from", since)
    to_us = _EVER if until is None else instant_of("--to", until)
    try:
        zone_of(zone)
    except UnknownZone as error:
        fail(f"--zone: there is no IANA zone {error}", WRONG_INPUT)
    if out.exists():
        fail(f"{out} is there already: choose another name", WRONG_INPUT)
    if lines is not None:
        found, periods = _decoded(lines, msgspec.json.Decoder(RatedLine)), _months(zone, anchor_day)
    else:
        with proving("Reading rated lines") as (settings, say):
            found, periods = asyncio.run(_of_deployment(settings, from_us, say))
    wanted = [line for line in found if from_us <= line.log_time_us < to_us]
    rows = focus_rows(wanted, periods, Issuer(provider, service, units=units))
    _write(rows, out, file_format)
    typer.echo(f"{out}: {len(rows)} rows of {len(wanted)} rated lines")


@app.command("focus-costs")
def export_focus_costs(
    out: Annotated[Path, typer.Option(help="The file; one that is there is not touched.")],
    provider: Annotated[str, typer.Option(help="Who serves.")],
    payer: Annotated[str, typer.Option(help="Whose bill the GPUs are on.")],
    service: Annotated[str, typer.Option(help="What is served.")] = "AI inference",
    file_format: Annotated[Format, typer.Option("--format", help="Parquet needs the extra `export`.")] = Format.CSV,
    since: Annotated[str | None, typer.Option("--from", help="Hours that begin then or later; default: all.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="Hours that begin before; default: that under way.")] = None,
    lines: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Lines of the topic costs, a JSON object each, in its place."),
    ] = None,
) -> None:
    """What serving has cost as rows of FOCUS 1.2, a dataset of its own: per hour and replica to customers, models and
    features, and what no request took. They add up to what the replica cost, or nothing is written.

    Of a deployment: what its topic costs has. An hour is final once it is closed (`cost.close_s` behind its end)."""
    from actors.clock import SystemClock
    from actors.focus.cost_rows import NotConserved, focus_cost_rows
    from actors.focus.rows import HOUR_US, Issuer
    from engine.cost.lines import RequestLine, WindowLine

    from_us = 0 if since is None else instant_of("--from", since)
    to_us = None if until is None else instant_of("--to", until)
    if out.exists():
        fail(f"{out} is there already: choose another name", WRONG_INPUT)
    if lines is not None:
        decoder: msgspec.json.Decoder[RequestLine | WindowLine] = msgspec.json.Decoder(RequestLine | WindowLine)
        found = _decoded(lines, decoder)
        to_us = _EVER if to_us is None else to_us
    else:
        if to_us is None:
            now_us = SystemClock().wall_us()
            to_us = now_us - now_us % HOUR_US
        with expected_errors(), outside_errors():
            found = asyncio.run(_told(load_settings(), from_us))
    try:
        made = focus_cost_rows(found, Issuer(provider, service), payer, from_us, to_us)
    except NotConserved as error:
        fail(str(error), FAILED)
    _write(made.rows, out, file_format)
    if made.unknown:
        typer.echo(f"{made.unknown} costs are not known, and in no row: rates are missing", err=True)
    typer.echo(f"{out}: {len(made.rows)} rows")


async def _told(settings: Settings, from_us: int) -> "list[RequestLine | WindowLine]":
    from actors.assembly import topic_reader
    from actors.cost_lines import read_cost_lines

    reader = topic_reader(settings)
    await reader.start()
    try:
        found = await read_cost_lines(reader, settings.kafka.topic_costs, from_us)
    finally:
        await reader.stop()
    if found.unreadable:
        typer.echo(f"{found.unreadable} lines could not be read", err=True)
    return found.lines


def _unit(text: str) -> tuple[str, str]:
    price, equals, unit = text.partition("=")
    if not (price and equals and unit):
        fail(f"--unit {text[:80]!r}: say PRICE=Unit, as in tokens_out=Tokens", WRONG_INPUT)
    return price, unit


def _months(zone: str, anchor_day: int) -> "Periods":
    return lambda account, at_us: month_around(zone, anchor_day, at_us)


def _decoded(file: Path, decoder: "msgspec.json.Decoder[Line]") -> list[Line]:
    found = []
    for number, text in enumerate(file.read_bytes().splitlines(), start=1):
        if text.strip():
            try:
                found.append(decoder.decode(text))
            except msgspec.MsgspecError as error:
                fail(f"{file}: line {number}: {error}", WRONG_INPUT)
    return found


async def _of_deployment(
    settings: Settings, from_us: int, say: Callable[[str], None]
) -> "tuple[list[RatedLine], Periods]":
    from actors import proofs

    decoder = msgspec.json.Decoder(RatedLine)
    around: dict[str, Callable[[int], tuple[int, int]]] = {}
    found: list[RatedLine] = []
    async for partition, texts in proofs.committed_lines(settings, from_us // 1_000, say):
        for line in map(decoder.decode, texts):
            if line.account not in around:
                account = partition.account(line.account)
                if account is None:
                    fail(f"partition {line.partition} has lines of {line.account}, and no such account", FAILED)
                around[line.account] = account.period_around
            found.append(line)
    return found, lambda account, at_us: around[account](at_us)


def _write(rows: "list[Row]", out: Path, file_format: Format) -> None:
    from actors.focus.files import ParquetAbsent, write_csv, write_parquet

    try:
        if file_format is Format.PARQUET:
            write_parquet(rows, out)
        else:
            with out.open("x", newline="", encoding="utf-8") as file:
                write_csv(rows, file)
    except ParquetAbsent as error:
        fail(str(error), WRONG_INPUT)
    except OSError as error:
        fail(f"{out}: {error.strerror}", FAILED)
