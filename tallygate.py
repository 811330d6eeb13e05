"""The command line. Errors go to stderr, a line each; 0 is success, 1 a failed check, 2 a wrong input."""

import asyncio
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console
from rich.table import Table

from config.catalogue import CatalogueFileError, load_file
from config.settings import SettingRow, Settings, SettingsError, load_settings, setting_rows
from engine.catalog import BadCatalogue, CatalogueDocument, MeterDefinition, Plan, PriceDefinition, compile_catalogue
from engine.money import NANO, parse_quantity, quantity_text

if TYPE_CHECKING:
    from actors.postgres import StoredDeadLetter
    from actors.publication import Published

FAILED = 1
WRONG_INPUT = 2

app = typer.Typer(
    help="tallygate rates AI usage the moment it happens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
catalogue = typer.Typer(help="Meters and plans, from a YAML file.", no_args_is_help=True)
topics = typer.Typer(help="The topics in Kafka.", no_args_is_help=True)
app.add_typer(catalogue, name="catalogue")
app.add_typer(topics, name="topics")

CatalogueFile = Annotated[Path, typer.Argument(help="A catalogue in YAML, such as config/catalogue.example.yaml.")]


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)


@contextmanager
def _expected_errors() -> Iterator[None]:
    """What an operator can mend is told without a traceback."""
    try:
        yield
    except (SettingsError, CatalogueFileError, BadCatalogue) as error:
        _fail(str(error), WRONG_INPUT)


# --------------------------------------------------------------------------------------------------------- catalogue


@catalogue.command("check")
def check_catalogue(file: CatalogueFile) -> None:
    """Find every mistake in a catalogue file, each with its line."""
    with _expected_errors():
        document = load_file(file)
    prices = sum(len(plan.prices) for plan in document.plans.values())
    typer.echo(f"{file}: {len(document.meters)} meters, {len(document.plans)} plans, {prices} prices; no faults")


@catalogue.command("show")
def show_catalogue(file: CatalogueFile) -> None:
    """Show what a catalogue file means: its meters, and every tier of every price."""
    with _expected_errors():
        document = load_file(file)
    console = Console(markup=False, emoji=False, highlight=False)  # names are theirs, not ours to interpret
    console.print(_meters_table(document.meters))
    for name, plan in compile_catalogue(1, document).plans.items():
        console.print(_plan_table(plan, document.plans[name].prices))


@catalogue.command("publish")
def publish_catalogue(
    file: CatalogueFile,
    effective_us: Annotated[
        int | None,
        typer.Option(
            min=1, help="Event time (microseconds since 1970 UTC) from which it is in force; default: 6 minutes."
        ),
    ] = None,
) -> None:
    """Publish a catalogue as the next version, effective from an instant on, without a restart."""
    with _expected_errors(), _outside_errors():
        document = load_file(file)
        settings = load_settings()
        with Console(stderr=True).status("Publishing"):
            published = asyncio.run(_publish(settings, document, effective_us))
    when = f"for event times from {published.effective_us} on" if published.effective_us else "for all event times"
    typer.echo(f"{file}: version {published.version}, in force {when}")


async def _publish(settings: Settings, document: CatalogueDocument, effective_us: int | None) -> "Published":
    from actors.assembly import kafka_log, postgres_store
    from actors.clock import SystemClock
    from actors.publication import publish

    store, log = postgres_store(settings), kafka_log(settings)
    await store.start()
    try:
        await log.start()
        try:
            return await publish(
                document,
                store=store,
                log=log,
                clock=SystemClock(),
                topic=settings.kafka.topic_usage,
                control_key=settings.control_key_bytes(),
                effective_us=effective_us,
            )
        finally:
            await log.stop()
    finally:
        await store.stop()


def _table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def _meters_table(meters: dict[str, MeterDefinition]) -> Table:
    table = _table("Meters", "meter", "events", "counts", "by")
    for name, meter in meters.items():
        counts = "events" if meter.field is None else f"the sum of {meter.field}"
        table.add_row(name, meter.event_type, counts, ", ".join(meter.group_by))
    return table


def _plan_table(plan: Plan, definitions: dict[str, PriceDefinition]) -> Table:
    table = _table(
        f"Plan {plan.name}, {plan.currency}", "price", "meter", "where", "above", "up to", "amount", "per",
        right=("above", "up to", "amount", "per"),
    )  # fmt: skip
    for name, price in plan.prices.items():
        definition = definitions[name]
        where = ", ".join(f"{dimension} = {value}" for dimension, value in price.where.items())
        rates = [(tier.amount, tier.per) for tier in definition.tiers] or [(definition.amount or "", definition.per)]
        for tier, (amount, per) in zip(price.tiers, rates, strict=True):
            head = (name, price.meter, where) if tier.start == 0 else ("", "", "")
            table.add_row(*head, _quantity(tier.start), _quantity(tier.end), amount, _quantity(parse_quantity(per)))
        table.add_section()
    return table


def _quantity(nano: int | None) -> str:
    if nano is None:
        return ""
    return quantity_text(nano) if nano % NANO else f"{nano // NANO:,}"


# ------------------------------------------------------------------------------------------------------------ topics


@contextmanager
def _outside_errors() -> Iterator[None]:
    from actors.assembly import NotConfigured
    from actors.kafka import ExtensionMissing, TopicsDiffer
    from actors.ports import CatalogueTaken, LogDamaged, LogUnavailable, StoreRefused, StoreUnavailable

    try:
        yield
    except NotConfigured as error:
        _fail(str(error), WRONG_INPUT)
    except (
        CatalogueTaken,
        ExtensionMissing,
        LogDamaged,
        LogUnavailable,
        StoreRefused,
        StoreUnavailable,
        TopicsDiffer,
    ) as error:
        _fail(str(error), FAILED)


def _bootstrap(settings: Settings) -> str:
    if settings.kafka.bootstrap_servers is None:
        raise SettingsError(
            ["kafka.bootstrap_servers: is not set; set KAFKA_BOOTSTRAP_SERVERS to your brokers, as host:port,host:port"]
        )
    return settings.kafka.bootstrap_servers


@topics.command("create")
def create_topics() -> None:
    """Create the topics that are missing. What exists is checked, and never changed."""
    from actors import kafka
    from actors.assembly import topic_settings

    with _expected_errors(), _outside_errors():
        settings = load_settings()
        bootstrap = _bootstrap(settings)
        with Console(stderr=True).status(f"Asking Kafka at {bootstrap}"):
            created = asyncio.run(kafka.create_topics(bootstrap, topic_settings(settings)))
    typer.echo(f"created {', '.join(created)}" if created else "all topics exist")


@topics.command("check")
def check_topics() -> None:
    """Check that the topics are there, and fit the settings."""
    with _expected_errors(), _outside_errors():
        settings = load_settings()
        bootstrap = _bootstrap(settings)
        with Console(stderr=True).status(f"Asking Kafka at {bootstrap}"):
            partitions = asyncio.run(_partitions(settings))
    if partitions != settings.kafka.partitions:
        _fail(
            f"topic {settings.kafka.topic_usage} has {partitions} partitions, kafka.partitions is "
            f"{settings.kafka.partitions}: set {partitions}; the number never changes in the life of a topic",
            FAILED,
        )
    typer.echo(f"topics fit the settings: {partitions} partitions of {settings.kafka.topic_usage}")


async def _partitions(settings: Settings) -> int:
    """Of the topic `usage`, once the log has found all topics in order."""
    from actors.assembly import kafka_log

    log = kafka_log(settings)
    await log.start()
    try:
        return log.partitions
    finally:
        await log.stop()


# ------------------------------------------------------------------------------------------------------------ tables


@app.command("migrate")
def migrate_tables(
    engine_password_file: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Its first line becomes the password of the engine's own role."),
    ] = None,
) -> None:
    """Bring the tables up to date, as the owner that postgres.dsn names; the engine's role may not drop or truncate."""
    from actors.assembly import database_dsn
    from actors.migrations import ENGINE_ROLE, MigrationRefused, migrate

    with _expected_errors(), _outside_errors():
        settings = load_settings()
        password = engine_password_file.read_text().partition("\n")[0] if engine_password_file else None
        if password is not None and not 0 < len(password) <= 128:
            _fail(f"{engine_password_file}: the first line must hold 1 to 128 characters", WRONG_INPUT)
        try:
            applied = asyncio.run(migrate(database_dsn(settings), settings.postgres.schema_name, password))
        except MigrationRefused as error:
            _fail(str(error), FAILED)
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo(f"schema {settings.postgres.schema_name} is up to date; run the engine as {ENGINE_ROLE}")


# ------------------------------------------------------------------------------------------------------ dead letters


@app.command("dead-letters")
def show_dead_letters(
    newest: Annotated[int, typer.Option(min=0, max=10_000, help="How many of the newest to show.")] = 20,
) -> None:
    """Show what could not be rated: how many by reason, and the newest, with partition and offset."""
    with _expected_errors(), _outside_errors():
        counts, letters = asyncio.run(_dead_letters(load_settings(), newest))
    console = Console(markup=False, emoji=False, highlight=False)
    by_reason = _table("Dead letters", "reason", "records", right=("records",))
    for reason, count in sorted(counts.items()):
        by_reason.add_row(reason, f"{count:,}")
    console.print(by_reason)
    table = _table("The newest", "partition", "offset", "reason", "detail", right=("partition", "offset"))
    for stored in letters:
        table.add_row(str(stored.partition), str(stored.letter.offset), stored.letter.reason, stored.letter.detail)
    console.print(table)


async def _dead_letters(settings: Settings, newest: int) -> "tuple[dict[str, int], list[StoredDeadLetter]]":
    from actors.assembly import postgres_store

    store = postgres_store(settings)
    await store.start()
    try:
        return await store.dead_letter_counts(), await store.dead_letters(newest)
    finally:
        await store.stop()


# ---------------------------------------------------------------------------------------------------------- settings


@app.command("settings")
def show_settings() -> None:
    """Print every setting with unit, range, default and reason, as a file that can be saved as tallygate.toml."""
    with _expected_errors():
        rows = setting_rows(load_settings())
    group = ""
    for row in rows:
        above, _, name = row.key.rpartition(".")
        if above != group:
            group = above
            typer.echo(f"[{group}]")
        for line in _setting_lines(row, name):
            typer.echo(line)
        typer.echo()


def _setting_lines(row: SettingRow, name: str) -> Iterator[str]:
    yield from textwrap.wrap(row.reason, 100, initial_indent="# ", subsequent_indent="# ")
    facts = [row.unit, f"safe from {row.safe_range}" if row.safe_range else "", row.variable]
    yield f"# {'; '.join(fact for fact in facts if fact)}"
    if row.secret and row.value:
        yield f"# {name} is set, and not shown"
    elif row.value and row.value != row.default:
        yield f"{name} = {row.value}  # default: {row.default or 'not set'}"
    else:
        yield f"# {name} = {row.default}" if row.default else f"# {name} is not set"


# -------------------------------------------------------------------------------------------------------------- demo


@app.command("demo")
def run_demo(
    events: Annotated[int, typer.Option(min=1_000, max=100_000_000, help="Usage events to send.")] = 200_000,
    customers: Annotated[int, typer.Option(min=1, max=1_000_000, help="Accounts that use.")] = 1_000,
    seed: Annotated[int, typer.Option(min=0, help="The same seed offers the same load.")] = 1,
    kill: Annotated[bool, typer.Option(help="Kill a shard in mid-run.")] = True,
    live: Annotated[bool, typer.Option(help="Show a live table.")] = True,
    report: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("build/demo.json"),
) -> None:
    """Run the whole path for about a minute, kill a shard in the middle, and check every amount."""
    from loadtest import demo

    options = demo.DemoOptions(events=events, customers=customers, seed=seed, kill=kill, live=live, report=report)
    with _expected_errors():
        code = demo.run(load_settings(), options)
    raise typer.Exit(code)


def main() -> None:
    """The entry point `tallygate`."""
    app()


if __name__ == "__main__":
    main()
