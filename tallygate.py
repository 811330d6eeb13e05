"""The command line. Errors go to stderr, a line each; 0 is success, 1 a failed check, 2 a wrong input."""

import asyncio
import textwrap
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn
from urllib.parse import quote

import orjson
import typer
from rich.console import Console
from rich.table import Table

from config.catalogue import CatalogueFileError, load_file
from config.settings import SettingRow, Settings, SettingsError, load_settings, setting_rows
from engine.catalog import BadCatalogue, CatalogueDocument, MeterDefinition, Plan, PriceDefinition, compile_catalogue
from engine.money import NANO, parse_quantity, quantity_text

if TYPE_CHECKING:
    from actors.keys import KeyRecord, Keys
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
keys = typer.Typer(help="API keys, directly in Postgres.", no_args_is_help=True)
customers = typer.Typer(help="Accounts and their scopes, over the HTTP API.", no_args_is_help=True)
grants = typer.Typer(help="Credit, over the HTTP API.", no_args_is_help=True)
caps = typer.Typer(help="Caps on spend, over the HTTP API.", no_args_is_help=True)
catalogue = typer.Typer(help="Meters and plans, from a YAML file.", no_args_is_help=True)
topics = typer.Typer(help="The topics in Kafka.", no_args_is_help=True)
app.add_typer(catalogue, name="catalogue")
app.add_typer(keys, name="keys")
app.add_typer(customers, name="customers")
app.add_typer(grants, name="grants")
app.add_typer(caps, name="caps")
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


# ---------------------------------------------------------------------------------------------------------------- up

RunDir = Annotated[Path, typer.Option(help="The run folder of `tallygate up`.")]
UP_DIR = Path("build/up")


@app.command("up")
def run_up(run_dir: RunDir = UP_DIR) -> None:
    """Keep a whole deployment running on this machine, with a customer and a key to try it; Ctrl-C stops it in order."""
    from actors import up
    from actors.deployment import NotReady
    from config.stack.kafka import KafkaUnavailable
    from config.stack.postgres import PostgresUnavailable
    from config.stack.supervisor import RunFolderInUse

    with _expected_errors(), _outside_errors():
        try:
            up.run(load_settings(), run_dir, lambda line: typer.echo(line))
        except (KafkaUnavailable, PostgresUnavailable, RunFolderInUse, NotReady) as error:
            _fail(str(error), FAILED)


# -------------------------------------------------------------------------------------------------------------- keys


def _keys_settings() -> Settings:
    """Those of the environment; without a database there, the deployment that `tallygate up` runs here."""
    settings = load_settings()
    if settings.postgres.dsn is None:
        raise SettingsError(["postgres.dsn: is not set; set DATABASE_URL to the deployment's database"])
    return settings


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who holds it, for people.")],
    scope: Annotated[list[str], typer.Option(help="ingest, check, read, credit or admin; give it once per scope.")],
    account: Annotated[str | None, typer.Option(help="The only account that it may touch.")] = None,
    days: Annotated[int | None, typer.Option(min=1, max=3650, help="Days until it expires.")] = None,
) -> None:
    """Make a key. Its text is shown this once; make the second one before the first is revoked, to rotate."""
    from actors.clock import SystemClock
    from actors.keys import KeyRefused, KeyScope

    with _expected_errors(), _outside_errors():
        unknown = sorted(set(scope) - set(KeyScope))
        if unknown:
            _fail(f"--scope {unknown[0]}: is one of {', '.join(KeyScope)}", WRONG_INPUT)
        expires_us = None if days is None else SystemClock().wall_us() + days * 86_400_000_000
        settings = _keys_settings()

        async def create() -> str:
            async with _key_ring(settings) as ring:
                wanted = [KeyScope(text) for text in scope]
                _, text = await ring.create(name, wanted, account, expires_us, created_by="tallygate keys")
                return text

        try:
            typer.echo(asyncio.run(create()))
        except KeyRefused as error:
            _fail(str(error), WRONG_INPUT)


@keys.command("list")
def list_keys(newest: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 50) -> None:
    """Show keys by their public ids: scopes, account, and whether they are revoked."""
    with _expected_errors(), _outside_errors():
        settings = _keys_settings()

        async def read() -> "list[KeyRecord]":
            async with _key_ring(settings) as ring:
                return await ring.page(newest)

        records = asyncio.run(read())
    _show_rows(
        [
            {
                "id": record.key.public_id,
                "name": record.key.name,
                "scopes": " ".join(sorted(record.key.scopes)),
                "account": record.key.account or "all",
                "created by": record.created_by,
                "state": "revoked" if record.revoked_us else "live",
            }
            for record in records
        ]
    )


@keys.command("revoke")
def revoke_key(public_id: Annotated[str, typer.Argument(help="As `keys list` shows it.")]) -> None:
    """End a key for good, in every replica within a second."""
    from actors.keys import KeyUnknown

    with _expected_errors(), _outside_errors():
        settings = _keys_settings()

        async def revoke() -> None:
            async with _key_ring(settings) as ring:
                await ring.revoke(public_id)

        try:
            asyncio.run(revoke())
        except KeyUnknown:
            _fail(f"there is no key {public_id}: see `tallygate keys list`", WRONG_INPUT)
    typer.echo(f"{public_id} is revoked")


@asynccontextmanager
async def _key_ring(settings: Settings) -> "AsyncIterator[Keys]":
    from actors.assembly import database_dsn
    from actors.clock import SystemClock
    from actors.keys import Keys

    environment = settings.api.key_environment
    ring = Keys(database_dsn(settings), settings.postgres.schema_name, SystemClock(), environment=environment)
    await ring.start()
    try:
        yield ring
    finally:
        await ring.stop()


# ------------------------------------------------------------------------------------------------- over the HTTP API

Url = Annotated[
    str | None, typer.Option(envvar="API_URL", help="The API; default: what `tallygate up` wrote into its run folder.")
]
Key = Annotated[str | None, typer.Option(envvar="API_KEY", help="An API key; default: the one of `tallygate up`.")]
Account = Annotated[str, typer.Argument(help="The account's id.")]


def _ask(
    url: str | None, key: str | None, method: str, path: str, body: dict[str, Any] | None = None, **query: Any
) -> dict[str, Any]:
    from actors.api_client import ApiRefused, call
    from actors.up import ACCESS_FILE, read_access

    access = read_access(UP_DIR / ACCESS_FILE)
    url, key = url or access.get("url"), key or access.get("key")
    if url is None or key is None:
        _fail(f"no API to ask: set API_URL and API_KEY, or run `tallygate up` here (it writes {UP_DIR})", WRONG_INPUT)
    try:
        return asyncio.run(call(url, key, method, path, body, **query))
    except ApiRefused as error:
        _fail(str(error), FAILED)


def _show_rows(rows: list[dict[str, Any]]) -> None:
    """Rows of plain values, a column per name."""
    if not rows:
        typer.echo("none")
        return
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = _table("", *names)
    for row in rows:
        table.add_row(*(_plain(row.get(name)) for name in names))
    Console(markup=False, emoji=False, highlight=False).print(table)


def _show(answer: dict[str, Any], indent: str = "") -> None:
    """An object as lines, its lists as tables."""
    for name, value in answer.items():
        if isinstance(value, dict):
            typer.echo(f"{indent}{name}:")
            _show(value, indent + "  ")
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            typer.echo(f"{indent}{name}:")
            _show_rows(value)
        else:
            typer.echo(f"{indent}{name}: {_plain(value)}")


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_plain, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    return "" if value is None else str(value)


@customers.command("open")
def open_customer(
    account: Account,
    plan: Annotated[str, typer.Option(help="A plan of the catalogue.")],
    zone: Annotated[str, typer.Option(help="IANA zone of its billing periods.")] = "UTC",
    anchor_day: Annotated[int, typer.Option(min=1, max=31, help="Day of the month that its periods begin on.")] = 1,
    url: Url = None,
    key: Key = None,
) -> None:
    """Open an account."""
    body = {"account": account, "plan": plan, "zone": zone, "anchor_day": anchor_day}
    _show(_ask(url, key, "POST", "/v1/customers", body))


@customers.command("list")
def list_customers(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """List accounts, a page at a time."""
    page = _ask(url, key, "GET", "/v1/customers", None, limit=limit, cursor=cursor)
    _show_rows(page["items"])
    if page.get("next_cursor"):
        typer.echo(f"more: --cursor {page['next_cursor']}")


@customers.command("show")
def show_customer(account: Account, url: Url = None, key: Key = None) -> None:
    """Show everything about an account, as its owner has it now."""
    _show(_ask(url, key, "GET", f"/v1/customers/{_part(account)}"))


@customers.command("standing")
def set_standing(
    account: Account,
    standing: Annotated[str, typer.Argument(help="active, past_due or suspended; all but active deny checks.")],
    scope: Annotated[str, typer.Option(help="A scope inside the account; default: the whole account.")] = "",
    url: Url = None,
    key: Key = None,
) -> None:
    """Set the standing of an account or of a scope in it, which declares the scope if it is new."""
    body = {"scope": scope, "standing": standing}
    _show(_ask(url, key, "PUT", f"/v1/customers/{_part(account)}/standing", body))


@grants.command("add")
def add_grant(
    account: Account,
    amount: Annotated[str, typer.Argument(help="A decimal, in the account's currency.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    kind: Annotated[str, typer.Option(help="paid, promo, commit or refund.")] = "promo",
    lot: Annotated[str | None, typer.Option(help="A name for the lot; default: one is made.")] = None,
    url: Url = None,
    key: Key = None,
) -> None:
    """Give an account credit."""
    body = {"amount": amount, "currency": currency, "kind": kind} | ({} if lot is None else {"lot": lot})
    _show(_ask(url, key, "POST", f"/v1/customers/{_part(account)}/grants", body))


@grants.command("list")
def list_grants(account: Account, url: Url = None, key: Key = None) -> None:
    """Show an account's lots: what was granted, what remains, what expired."""
    _show_rows(_ask(url, key, "GET", f"/v1/customers/{_part(account)}/grants")["items"])


@caps.command("set")
def set_cap(
    account: Account,
    cap: Annotated[str, typer.Argument(help="The cap's name.")],
    amount: Annotated[str, typer.Argument(help="A decimal, per calendar month.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    scope: Annotated[str, typer.Option(help="A scope inside the account; default: the whole account.")] = "",
    soft: Annotated[bool, typer.Option(help="Deny nothing; only feed rules.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Set a cap on a month's spend, of an account or of a scope in it."""
    body = {"amount": amount, "currency": currency, "scope": scope, "hard": not soft}
    _show(_ask(url, key, "PUT", f"/v1/customers/{_part(account)}/caps/{_part(cap)}", body))


@app.command("balance")
def show_balance(
    account: Account,
    watch: Annotated[bool, typer.Option(help="Show it anew every second, until Ctrl-C.")] = False,
    url: Url = None,
    key: Key = None,
) -> None:
    """Show what an account has: booked, held by open requests, and available."""
    path = f"/v1/customers/{_part(account)}/balance"
    while True:
        _show(_ask(url, key, "GET", path))
        if not watch:
            return
        time.sleep(1.0)
        typer.echo()


def _part(text: str) -> str:
    return quote(text, safe="")


# -------------------------------------------------------------------------------------------------------------- tail


@app.command("tail")
def tail_rated(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
) -> None:
    """Print rated lines as they are made, a JSON object each, until Ctrl-C."""
    with _expected_errors(), _outside_errors():
        asyncio.run(_tail(load_settings(), account))


async def _tail(settings: Settings, account: str | None) -> None:
    from actors.kafka import tail

    bootstrap = _bootstrap(settings)
    async for line in tail(bootstrap, settings.kafka.topic_rated):
        if account is None or orjson.loads(line)["account"] == account:
            typer.echo(line.decode())


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
