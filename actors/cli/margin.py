"""`tallygate margin`: what requests earned beside what they cost."""

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from actors.cli import floors, margin_rates
from actors.cli.terminal import (
    FAILED,
    WRONG_INPUT,
    AsJson,
    expected_errors,
    fail,
    instant_of,
    outside_errors,
    print_json_rows,
    print_rows,
)
from config.settings import Settings, load_settings
from engine.cost.exchange import CURRENCY, DAY_US, NoRate, Rates, Used, date_of, in_currency
from engine.cost.gpu_rates import HOUR_US
from engine.cost.margin import By, Key, Margin
from engine.money import amount_text

if TYPE_CHECKING:
    from actors.cost_store import CostSum
    from actors.margin import Answer

Rows = list[tuple[Key, Margin]]
_Currency = Annotated[
    str | None, typer.Option(help="All of it in this one, at the rates recorded by day. Default: each in its own.")
]
_NUMBERS = ("requests", "revenue", "cost", "margin", "percent", "without cost", "without revenue")


app = typer.Typer(invoke_without_command=True)
app.add_typer(floors.app, name="floors")
app.add_typer(margin_rates.app, name="rates")


@app.callback()
def show_margin(
    context: typer.Context,
    since: Annotated[
        str | None, typer.Option("--from", help="RFC 3339; the hour that it lies in is the first. Default: a day ago.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="RFC 3339; the hour that it lies in is the last. Default: now.")
    ] = None,
    by: Annotated[
        list[By] | None, typer.Option(help="Tell apart by; may be repeated. Default: account, model.")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="From Postgres, where sums are kept, instead of reading all lines.")
    ] = False,
    currency: _Currency = None,
    as_json: AsJson = False,
) -> None:
    """Hold rated lines of whole hours against the GPU cost of their requests, and show where the rest of that cost went.

    A request that nobody is known to have served has no known cost, and a sum with one in it has no margin."""
    from actors.clock import SystemClock

    if context.invoked_subcommand is not None:
        return
    asked = by or [By.ACCOUNT, By.MODEL]
    with expected_errors(), outside_errors():
        settings = load_settings()
        until_us = SystemClock().wall_us() if until is None else instant_of("--to", until)
        from_us = until_us - DAY_US if since is None else instant_of("--from", since)
        if from_us >= until_us:
            fail("--to is not behind --from", WRONG_INPUT)
        # Costs are told by the hour: with half of its charges an hour would have all of its costs.
        from_us, until_us = from_us // HOUR_US * HOUR_US, -(-until_us // HOUR_US) * HOUR_US
        if live and By.REQUEST in asked:
            fail("--live keeps sums by hour: leave it out to tell single requests apart", WRONG_INPUT)
        apart = asked if currency is None or By.HOUR in asked else [*asked, By.HOUR]
        answer = asyncio.run((_ask_live if live else _ask)(settings, from_us, until_us, apart))
        rows, used = _converted(settings, answer.rows, currency, from_us, until_us, asked)
    _tell(msgspec.structs.replace(answer, rows=rows), used, asked, as_json)


@app.command("report")
def write_report(
    out: Annotated[Path, typer.Option(help="The HTML file; one that is there is not touched.")],
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; default: a week before --to.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339; default: the last full hour.")] = None,
    currency: _Currency = None,
) -> None:
    """Draw revenue, cost and margin by model and customer, hour by hour, and where the GPUs' cost went: one HTML file that
    asks no other machine for anything. Needs the extra `report`."""
    from actors.clock import SystemClock
    from actors.margin_report import PlotlyAbsent, page
    from actors.whatif import whole_hours

    until_us = SystemClock().wall_us() // HOUR_US * HOUR_US if until is None else instant_of("--to", until)
    begin_us = until_us - 7 * DAY_US if since is None else instant_of("--from", since)
    from_us, until_us = whole_hours(begin_us, until_us)
    if from_us >= until_us:
        fail("no hour begins between --from and --to", WRONG_INPUT)
    if out.exists():
        fail(f"{out} is there already: choose another name", WRONG_INPUT)
    with expected_errors(), outside_errors():
        settings = load_settings()
        by = [By.ACCOUNT, By.MODEL, By.HOUR]
        answer = asyncio.run(_ask(settings, from_us, until_us, by))
        rows, used = _converted(settings, answer.rows, currency, from_us, until_us, by)
        costs = asyncio.run(_hours(settings, from_us, until_us))
    try:
        text = page(rows, costs, from_us, until_us, used)
        with out.open("x", encoding="utf-8") as file:
            file.write(text)
    except PlotlyAbsent as error:
        fail(str(error), WRONG_INPUT)
    except OSError as error:
        fail(f"{out}: {error.strerror}", FAILED)
    typer.echo(f"{out}: {(until_us - from_us) // HOUR_US} hours")


async def _hours(settings: Settings, from_us: int, until_us: int) -> "list[CostSum]":
    from actors.assembly import cost_store

    store = cost_store(settings)
    await store.start()
    try:
        return await store.sums(from_us, until_us, by=["hour"])
    finally:
        await store.stop()


def _converted(
    settings: Settings, rows: Rows, currency: str | None, from_us: int, until_us: int, by: list[By]
) -> tuple[Rows, list[Used]]:
    if currency is None:
        return rows, []
    if CURRENCY.fullmatch(currency) is None:
        fail(f"--currency: {currency!r} is no currency, nor a unit of the catalogue", WRONG_INPUT)
    rates = asyncio.run(_rates(settings, currency, from_us, until_us))
    try:
        return in_currency(rows, currency, rates, by)
    except NoRate as error:
        fail(f"{date_of(error.day)}: {error}; record it with `tallygate margin rates set`", WRONG_INPUT)


async def _rates(settings: Settings, target: str, from_us: int, until_us: int) -> Rates:
    from actors.assembly import margin_rates

    store = margin_rates(settings)
    await store.start()
    try:
        return await store.into(target, max(0, from_us) // DAY_US, max(0, until_us) // DAY_US)
    finally:
        await store.stop()


async def _ask(settings: Settings, from_us: int, until_us: int, by: list[By]) -> "Answer":
    from actors.assembly import topic_reader
    from actors.margin import find_margins

    reader = topic_reader(settings)
    await reader.start()
    try:
        return await find_margins(reader, settings.kafka.topic_rated, settings.kafka.topic_costs, from_us, until_us, by)
    finally:
        await reader.stop()


async def _ask_live(settings: Settings, from_us: int, until_us: int, by: list[By]) -> "Answer":
    from actors.assembly import cost_store, margin_store
    from actors.margin import Answer
    from engine.cost.window import Bucket

    store, costs = margin_store(settings), cost_store(settings)
    await store.start()
    try:
        await costs.start()
        try:
            rows = await store.sums(from_us, until_us, by)
            buckets = await costs.sums(from_us, until_us, by=())
        finally:
            await costs.stop()
    finally:
        await store.stop()
    known = {(each.currency, Bucket(each.bucket)): each.amount for each in buckets}
    return Answer(rows, known, sum(each.unknown for each in buckets), 0)


def _tell(answer: "Answer", used: list[Used], by: list[By], as_json: bool) -> None:
    rows = [_row(key, sums) for key, sums in answer.rows]
    rest = [
        {"currency": currency, "bucket": bucket.value, "cost": amount_text(amount)}
        for (currency, bucket), amount in sorted(answer.buckets.items())
    ]
    converted = [
        {"day": str(date_of(each.day)), "source": each.rate.source, "target": each.rate.target}
        | {"rate": amount_text(each.rate.pico), "of": str(date_of(each.rate.day))}
        for each in used
    ]
    if as_json:
        said = {"rates": converted} if used else {}
        print_json_rows([*rows, {"gpus": rest, "windows_without_cost": answer.windows_without_cost} | said])
    else:
        print_rows("Margin of direct cost", rows, [*(each.value for each in by), "currency", *_NUMBERS], right=_NUMBERS)
        print_rows("GPUs", rest, ("currency", "bucket", "cost"), right=("cost",))
        if used:
            print_rows("Converted at", converted, ("day", "source", "target", "rate", "of"), right=("rate",))
    foreign = sum(sums.foreign_cost for _, sums in answer.rows)
    if foreign and not as_json:
        typer.echo(f"of {foreign} requests the cost is in another currency: --currency has it beside", err=True)
    if answer.windows_without_cost and not as_json:
        typer.echo(
            f"of {answer.windows_without_cost} windows the cost is not known: publish rates of their GPUs", err=True
        )
    if answer.unreadable:
        typer.echo(f"{answer.unreadable} lines could not be read", err=True)


def _row(key: Key, sums: Margin) -> Mapping[str, Any]:
    hour = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=key.hour_us)
    permille = sums.permille
    return {
        "account": key.account,
        "model": key.model,
        "feature": key.feature,
        "plan": key.plan,
        "request": key.request,
        "run": key.run,
        "hour": hour.isoformat().replace("+00:00", "Z") if key.hour_us else "",
        "currency": key.currency,
        "requests": sums.requests,
        "revenue": amount_text(sums.revenue),
        "cost": None if sums.cost is None else amount_text(sums.cost),
        "margin": None if sums.margin is None else amount_text(sums.margin),
        "percent": None if permille is None else f"{permille / 10:.1f}",
        "without cost": sums.without_cost,
        "foreign cost": sums.foreign_cost,
        "without revenue": sums.without_revenue,
        "provisional": sums.provisional,
    }
