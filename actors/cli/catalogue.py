"""`tallygate catalogue`: meters and plans, from a YAML file."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import orjson
import typer
from msgspec import UnsetType
from rich.console import Console
from rich.table import Table

from actors.cli import drafts, dryrun, shadow
from actors.cli.terminal import (
    FAILED,
    WRONG_INPUT,
    AsJson,
    console,
    expected_errors,
    fail,
    instant_of,
    new_table,
    outside_errors,
)
from config.catalogue import load_file
from config.catalogue_diff import Difference, difference
from config.catalogue_diff import as_json as diff_json
from config.settings import Settings, load_settings
from engine.catalog import (
    AllowanceDefinition,
    BadCatalogue,
    CatalogueDocument,
    MeterDefinition,
    Plan,
    PlanDefinition,
    PriceDefinition,
    SharedTiersDefinition,
    TierDefinition,
    compile_catalogue,
    read_document,
)
from engine.money import NANO, parse_quantity, quantity_text

if TYPE_CHECKING:
    from actors.publication import Published
    from actors.subscribers import Subscribers

app = typer.Typer(help="Meters and plans, from a YAML file.", no_args_is_help=True)
app.add_typer(drafts.app, name="drafts")
app.add_typer(shadow.app, name="shadow")
app.command("dryrun")(dryrun.dry_run)

CatalogueFile = Annotated[Path, typer.Argument(help="A catalogue in YAML, such as config/catalogue.example.yaml.")]


@app.command("check")
def check_catalogue(file: CatalogueFile) -> None:
    """Find every mistake in a catalogue file, each with its line."""
    with expected_errors():
        document = load_file(file)
    prices = sum(len(plan.prices) for plan in document.plans.values())
    typer.echo(f"{file}: {len(document.meters)} meters, {len(document.plans)} plans, {prices} prices; no faults")


@app.command("show")
def show_catalogue(file: CatalogueFile) -> None:
    """Show what a catalogue file means: its meters, and every tier of every price."""
    with expected_errors():
        document = load_file(file)
    screen = console()
    screen.print(_meters_table(document.meters))
    for name, plan in compile_catalogue(1, document).plans.items():
        screen.print(_plan_table(plan, document.plans[name]))


@app.command("publish")
def publish_catalogue(
    file: CatalogueFile,
    effective: Annotated[
        str | None,
        typer.Option(help="From which event time on it is in force, RFC 3339; default: about six minutes from now."),
    ] = None,
) -> None:
    """Publish a catalogue as the next version, effective from an instant on, without a restart."""
    from actors.web.times import instant

    effective_us = None if effective is None else instant_of("--effective", effective)
    with expected_errors(), outside_errors():
        document = load_file(file)
        settings = load_settings()
        with Console(stderr=True).status("Publishing"):
            published = asyncio.run(_publish(settings, document, effective_us))
    when = (
        f"for event times from {instant(published.effective_us)} on"
        if published.effective_us
        else "for all event times"
    )
    typer.echo(f"{file}: version {published.version}, in force {when}")


async def _publish(settings: Settings, document: CatalogueDocument, effective_us: int | None) -> "Published":
    from actors.assembly import kafka_log, postgres_store
    from actors.cli.trail import trailed
    from actors.clock import SystemClock
    from actors.ports import CatalogueTaken
    from actors.publication import publish
    from actors.web.acts import Entry
    from actors.web.operations import PublishedAnswer
    from actors.web.times import instant

    store, log, entry = postgres_store(settings), kafka_log(settings), Entry("catalogue.publish")
    await store.start()
    try:
        await log.start()
        try:
            async with trailed(settings, entry, BadCatalogue, CatalogueTaken):
                published = await publish(
                    document,
                    store=store,
                    log=log,
                    clock=SystemClock(),
                    topic=settings.kafka.topic_usage,
                    control_key=settings.control_key_bytes(),
                    effective_us=effective_us,
                )
                entry.subject = str(published.version)
                entry.after = PublishedAnswer(published.version, instant(published.effective_us))
            return published
        finally:
            await log.stop()
    finally:
        await store.stop()


@app.command("diff")
def diff_catalogues(
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="[OLD] NEW", help="Two files; or one, against what is published: then the accounts are counted too."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show what a catalogue changes: for each plan its prices, and how many accounts have it.

    Exit status 1 when something changes."""
    if len(files) > 2:
        fail("give one file, or two: the old and the new one", WRONG_INPUT)
    with expected_errors(), outside_errors():
        documents = [load_file(file) for file in files]
        subscribers = None
        if len(documents) == 1:
            with Console(stderr=True).status("Counting accounts"):
                published, subscribers = asyncio.run(_published(load_settings()))
            documents.insert(0, published)
    found = difference(*documents)
    if as_json:
        typer.echo(orjson.dumps(diff_json(found, subscribers), option=orjson.OPT_INDENT_2).decode())
    else:
        _tell_difference(found, subscribers)
    if found:
        raise typer.Exit(FAILED)


async def _published(settings: Settings) -> "tuple[CatalogueDocument, dict[str, Subscribers]]":
    """The newest published version, and who has which plan."""
    from actors.assembly import stored_checkpoints
    from actors.subscribers import by_plan

    checkpoints = stored_checkpoints(settings)
    await checkpoints.start()
    try:
        version = await checkpoints.latest_catalogue_version()
        body = None if version is None else await checkpoints.catalogue(version)
        if body is None:
            fail("no catalogue is published yet: see `tallygate catalogue publish`", WRONG_INPUT)
        return read_document(body), await by_plan(checkpoints)
    finally:
        await checkpoints.stop()


def _tell_difference(found: Difference, subscribers: "Mapping[str, Subscribers] | None") -> None:
    for plan in found.plans:
        typer.echo(f"plan {plan.plan}, {plan.currency}: {plan.kind}{_whom(plan.plan, subscribers)}")
        for change in plan.changes:
            typer.echo(f"  {change}")
    if found.unpriced:
        typer.echo("meters that no plan has a price for")
        for change in found.unpriced:
            typer.echo(f"  {change}")
    for refusal in found.refusals:
        typer.echo(f"publication would refuse it: {refusal}")
    if not found:
        typer.echo("nothing changes")


def _whom(plan: str, subscribers: "Mapping[str, Subscribers] | None") -> str:
    if subscribers is None:
        return ""
    whom = subscribers.get(plan)
    if whom is None:
        return ", for no account"
    more = whom.accounts - len(whom.names)
    named = ", ".join(whom.names) + (f" and {more:,} more" if more else "")
    return f", for {whom.accounts:,} account{'s' if whom.accounts > 1 else ''}: {named}"


def _meters_table(meters: dict[str, MeterDefinition]) -> Table:
    table = new_table("Meters", "meter", "events", "counts", "by", "when")
    for name, meter in meters.items():
        summed = meter.field or meter.expression
        counts = "events" if summed is None else f"the {meter.aggregation.replace('_', ' ')} of {summed}"
        table.add_row(name, meter.event_type, counts, ", ".join(meter.group_by), _conditions(meter))
    return table


def _conditions(meter: MeterDefinition) -> str:
    said = []
    for on, condition in sorted(meter.when.items()):
        for key, value in msgspec.to_builtins(condition).items():
            text = " or ".join(value) if isinstance(value, tuple | list) else str(value).lower()
            said.append(f"{on} {key.replace('_', ' ')} {text}")
    return "; ".join(said)


def _plan_table(plan: Plan, stated: PlanDefinition) -> Table:
    numbers = ("above", "up to", "amount", "per", "flat")
    title = f"Plan {plan.name}, {plan.currency}"
    table = new_table(title, "price", "meter", "where", "model", *numbers, right=numbers)
    for name, price in plan.prices.items():
        definition = stated.prices[name]
        where = ", ".join(f"{dimension} = {value}" for dimension, value in price.where.items())
        head, above = (name, price.meter, where, _model(definition)), "0"
        for tier in definition.tiers or (TierDefinition(*_rate(definition)),):
            flat = tier.flat if isinstance(tier.flat, str) else ""
            up_to = "" if tier.up_to is None else _quantity(tier.up_to)
            table.add_row(*head, above, up_to, tier.amount, _quantity(tier.per), flat)
            head, above = ("", "", "", ""), up_to
        table.add_section()
    for name, fee in stated.fees.items():
        when = ", in advance" if fee.in_advance is True else ""
        table.add_row(name, "", "", f"fee of a month{when}{_shared(fee.prorate)}", "", "", fee.amount, "", "")
    for name, seat in stated.seats.items():
        table.add_row(name, "", "", "a month of each seat, in advance", "", "", seat.amount, "", "")
    for name, commitment in stated.commitments.items():
        of = f"for {', '.join(commitment.prices)}" if commitment.prices else "for all prices"
        of = f"at least {commitment.amount} a month {of}{_shared(commitment.prorate)}"
        table.add_row(name, "", "", of, "", "", "", "", "")
    for name, allowance in stated.allowances.items():
        of = f"{allowance.quantity} a month included for {', '.join(allowance.prices)}, {_order(allowance)}"
        table.add_row(name, "", "", f"{of}{_shared(allowance.prorate)}", "", "", "", "", "")
    for name, tiers in stated.shared_tiers.items():
        how = "by the sum of them" if stated.prices[tiers.prices[0]].model == "volume" else _order(tiers)
        table.add_row(name, "", "", f"tiers shared by {', '.join(tiers.prices)}, {how}", "", "", "", "", "")
    return table


def _order(shared: AllowanceDefinition | SharedTiersDefinition) -> str:
    return "the dearest first" if shared.order == "dearest_first" else "in this order"


def _shared(prorate: bool | UnsetType) -> str:
    return "" if prorate is not False else ", whole in short periods"


def _rate(definition: PriceDefinition) -> tuple[str, str]:
    """(amount, per) of a price without tiers."""
    if isinstance(definition.percent, str):
        return definition.percent, "100"
    return (definition.factor, "1") if isinstance(definition.factor, str) else (definition.amount or "", definition.per)


def _model(definition: PriceDefinition) -> str:
    """The model, and what stands around it."""
    said: list[str] = [definition.model]
    said += [f"and {definition.per_event} an event" if isinstance(definition.per_event, str) else ""]
    said += [f"at least {definition.event_minimum} an event" if isinstance(definition.event_minimum, str) else ""]
    said += [f"at most {definition.event_maximum} an event" if isinstance(definition.event_maximum, str) else ""]
    said += [f"{definition.estimate} where it is missing" if isinstance(definition.estimate, str) else ""]
    said += [f"{definition.included} included"] if isinstance(definition.included, str) else []
    said += [f"at most {definition.maximum}"] if isinstance(definition.maximum, str) else []
    said += [f"less {definition.discount} %"] if isinstance(definition.discount, str) else []
    said += [f"at least {definition.minimum} a month"] if isinstance(definition.minimum, str) else []
    said += [f"at least {definition.commitment} a month"] if isinstance(definition.commitment, str) else []
    said += [f"times {definition.overage} beyond that"] if isinstance(definition.overage, str) else []
    return ", ".join(filter(None, said))


def _quantity(text: str) -> str:
    nano = parse_quantity(text)
    return quantity_text(nano) if nano % NANO else f"{nano // NANO:,}"
