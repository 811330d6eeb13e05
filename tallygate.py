"""The command line. Errors go to stderr, a line each; 0 is success, 1 a failed check, 2 a wrong input."""

import asyncio
import textwrap
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import msgspec
import orjson
import typer
from rich.console import Console
from rich.table import Table

from config.catalogue import CatalogueFileError, load_file
from config.settings import SettingRow, Settings, SettingsError, load_settings, setting_rows
from engine.catalog import BadCatalogue, CatalogueDocument, MeterDefinition, Plan, PriceDefinition, compile_catalogue
from engine.money import NANO, parse_quantity, quantity_text
from engine.placement import partition_for

if TYPE_CHECKING:
    from actors.api_client import ApiClient
    from actors.drift import Drift
    from actors.keys import KeyRecord, Keys
    from actors.membership import PostgresRoster
    from actors.postgres import StoredDeadLetter
    from actors.publication import Published
    from actors.rebuild import Fold
    from actors.reconcile.run import Report

FAILED = 1
WRONG_INPUT = 2
DAY_US = 86_400_000_000
DRIFTS_SHOWN = 20  # of a partition; the first say where to look, the rest how much is wrong

app = typer.Typer(
    help="tallygate rates AI usage the moment it happens.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
keys = typer.Typer(
    help="API keys: in Postgres where DATABASE_URL names one, else over the HTTP API.", no_args_is_help=True
)
customers = typer.Typer(help="Accounts and their scopes, over the HTTP API.", no_args_is_help=True)
grants = typer.Typer(help="Credit, over the HTTP API.", no_args_is_help=True)
caps = typer.Typer(help="Caps on spend, over the HTTP API.", no_args_is_help=True)
catalogue = typer.Typer(help="Meters and plans, from a YAML file.", no_args_is_help=True)
shards = typer.Typer(help="The shards that rate: who owns what, and emptying one.", no_args_is_help=True)
topics = typer.Typer(help="The topics in Kafka.", no_args_is_help=True)
base = typer.Typer(
    help="Sealed bases: checkpoints as files, from which, with the log, all is rebuilt.", no_args_is_help=True
)
app.add_typer(catalogue, name="catalogue")
app.add_typer(keys, name="keys")
app.add_typer(customers, name="customers")
app.add_typer(grants, name="grants")
app.add_typer(caps, name="caps")
app.add_typer(shards, name="shards")
app.add_typer(topics, name="topics")
app.add_typer(base, name="base")

AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]
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


# ------------------------------------------------------------------------------------------------------------ shards

Shards = Annotated[list[str] | None, typer.Argument(help="Shards, by name or by incarnation.", show_default=False)]
Host = Annotated[str | None, typer.Option(help="All shards of this host.", show_default=False)]


@shards.command("list")
def list_shards(as_json: AsJson = False) -> None:
    """Show the living shards: host, lease, partitions, and whether one is being drained."""
    from actors.draining import state_of

    members = _with_roster(lambda roster: roster.members())
    rows = [
        {
            "shard": member.shard,
            "incarnation": member.incarnation,
            "host": member.host,
            "state": state_of(member),
            "lease_left_s": round(member.lease_left_s, 2),
            "partitions": sorted(member.partitions | member.owned),
        }
        for member in members
    ]
    if as_json:
        typer.echo(orjson.dumps(rows, option=orjson.OPT_INDENT_2).decode())
        return
    shown = [{**row, "partitions": " ".join(map(str, row["partitions"]))} for row in rows]
    _rows("Shards", shown, ("shard", "incarnation", "host", "state", "lease_left_s", "partitions"), ("lease_left_s",))


@shards.command("drain")
def drain_shards(
    names: Shards = None,
    host: Host = None,
    within_s: Annotated[float, typer.Option(min=1, max=3600, help="How long to wait for it.")] = 60,
) -> None:
    """Hand everything of a shard over to the others, and wait until it is empty: then its node can be stopped, and no
    caller notices. Exit status 1 when it is not empty in time; the rest goes on being handed over."""
    from actors.clock import SystemClock
    from actors.draining import DrainRefused, NotDrained, drain

    _some(names, host)
    with Console(stderr=True).status("Draining") as status:
        try:
            drained = _with_roster(
                lambda roster: drain(roster, SystemClock(), names or (), host, within_s, status.update)
            )
        except DrainRefused as error:
            _fail(str(error), WRONG_INPUT)
        except NotDrained as error:
            _fail(str(error), FAILED)
    for name in drained:
        typer.echo(f"{name} owns nothing any more, and gets nothing: its process may be stopped")


@shards.command("resume")
def resume_shards(names: Shards = None, host: Host = None) -> None:
    """Let a drained shard own partitions again; it gets its part when all has been quiet for a while."""
    from actors.draining import DrainRefused, resume

    _some(names, host)
    try:
        resumed = _with_roster(lambda roster: resume(roster, names or (), host))
    except DrainRefused as error:
        _fail(str(error), WRONG_INPUT)
    for name in resumed:
        typer.echo(f"{name} may own partitions again")


def _some(names: Sequence[str] | None, host: str | None) -> None:
    if not names and host is None:
        _fail("which shards? name some, or give --host: see `tallygate shards list`", WRONG_INPUT)


def _with_roster(work: "Callable[[PostgresRoster], Awaitable[Any]]") -> Any:
    """What comes of `work` on the members in Postgres."""
    from actors.assembly import member_roster

    with _expected_errors(), _outside_errors():
        roster = member_roster(load_settings())
        return asyncio.run(_opened(roster, lambda: work(roster)))


async def _opened(part: "Keys | PostgresRoster", work: "Callable[[], Awaitable[Any]]") -> Any:
    """What comes of `work` while the part is open."""
    await part.start()
    try:
        return await work()
    finally:
        await part.stop()


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
    from actors.api_client import ApiAway, ApiRefused
    from actors.deployment import NotReady
    from config.stack.kafka import KafkaUnavailable
    from config.stack.postgres import PostgresUnavailable
    from config.stack.supervisor import RunFolderInUse

    with _expected_errors(), _outside_errors():
        try:
            up.run(load_settings(), run_dir, lambda line: typer.echo(line))
        except (ApiAway, ApiRefused, KafkaUnavailable, NotReady, PostgresUnavailable, RunFolderInUse) as error:
            _fail(str(error), FAILED)


# ------------------------------------------------------------------------------------------------- over the HTTP API

Url = Annotated[
    str | None,
    typer.Option(help="The API; default: TALLYGATE_URL, else the one that `tallygate up` runs in this folder."),
]
ApiKey = Annotated[
    str | None, typer.Option("--key", help="An API key; default: TALLYGATE_KEY, else the one that `tallygate up` made.")
]
Account = Annotated[str, typer.Argument(help="The account's id.")]
InScope = Annotated[str, typer.Option("--scope", help="A scope inside the account; default: the whole account.")]


def _access() -> dict[str, str]:
    """What `tallygate up` has written for commands in the same folder; empty without."""
    from actors.up import ACCESS_FILE, read_access

    return read_access(UP_DIR / ACCESS_FILE)


def _client(url: str | None, key: str | None) -> "ApiClient":
    """The API that options, settings or the run folder name. The run folder's key goes to the run folder's URL only."""
    from actors.api_client import ApiClient, BadAddress, checked_url

    client, access = load_settings().client, _access()
    url = url or client.url or access.get("url")
    key = key or (client.key.get_secret_value() if client.key else None)
    if key is None and url == access.get("url"):
        key = access.get("key")
    if url is None or key is None:
        missing = "TALLYGATE_KEY (or --key)" if url else "TALLYGATE_URL and TALLYGATE_KEY (or --url and --key)"
        _fail(f"no API to ask: set {missing}, or run `tallygate up` in this folder first", WRONG_INPUT)
    try:
        return ApiClient(checked_url(url, plain_http=client.plain_http), key)
    except BadAddress as error:
        _fail(str(error), WRONG_INPUT)


def _over_http(url: str | None, key: str | None, work: "Callable[[ApiClient], Awaitable[Any]]") -> Any:
    from actors.api_client import ApiAway, ApiRefused

    async def run() -> Any:
        async with _client(url, key) as api:
            return await work(api)

    with _expected_errors():
        try:
            return asyncio.run(run())
        except ApiAway as error:
            _fail(str(error), FAILED)
        except ApiRefused as error:
            _fail(str(error), WRONG_INPUT)


def _get(url: str | None, key: str | None, path: str, **query: str | int | None) -> Any:
    return _over_http(url, key, lambda api: api.get(path, **query))


def _change(url: str | None, key: str | None, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
    return _over_http(url, key, lambda api: api.change(method, path, body))


def _path(*parts: str) -> str:
    from actors.api_client import path_of

    return path_of(*parts)


def _told(answer: dict[str, Any], what: str) -> None:
    """A command that took effect."""
    typer.echo(f"{answer['account']}: {what} (log {answer['partition']}/{answer['offset']})")


def _rows(title: str, rows: Sequence[Mapping[str, Any]], columns: Sequence[str], right: tuple[str, ...] = ()) -> None:
    if not rows:
        typer.echo(f"{title}: none")
        return
    table = _table(title, *columns, right=right)
    for row in rows:
        table.add_row(*(_plain(row[name]) for name in columns))
    Console(markup=False, emoji=False, highlight=False).print(table)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return "" if value is None else str(value)


# -------------------------------------------------------------------------------------------------------------- keys


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what will use it; for people.")],
    scope: Annotated[list[str], typer.Option(help="ingest, check, read, credit or admin; once per scope.")],
    account: Annotated[str | None, typer.Option(help="The only account that it may touch; default: all.")] = None,
    expires: Annotated[str | None, typer.Option(help="RFC 3339, such as 2027-01-31T00:00:00Z; default: never.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Make a key and print it: this once, and nowhere else. To rotate, make the new one, then revoke the old one."""
    from actors.keys import KeyRefused, KeyScope
    from engine.events import Malformed, parse_time

    unknown = sorted(set(scope) - set(KeyScope))
    if unknown:
        _fail(f"--scope {unknown[0]}: is one of {', '.join(KeyScope)}", WRONG_INPUT)
    try:
        expires_us = None if expires is None else parse_time(expires)
    except Malformed as error:
        _fail(f"--expires {expires}: {error}", WRONG_INPUT)
    with _expected_errors(), _outside_errors():
        if load_settings().postgres.dsn is None:
            asked = {"name": name, "scopes": scope, "account": account, "expires": expires}
            body = {field: value for field, value in asked.items() if value is not None}
            typer.echo(_change(url, key, "POST", "/v1/keys", body)["key"])
            return
        wanted = [KeyScope(text) for text in scope]
        try:
            made = _with_keys(lambda ring: ring.create(name, wanted, account, expires_us, created_by="tallygate keys"))
        except KeyRefused as error:
            _fail(str(error), WRONG_INPUT)
        typer.echo(made[1])


@keys.command("list")
def list_keys(
    newest: Annotated[int, typer.Option(min=1, max=200, help="How many of the newest.")] = 50,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show keys, without their secrets: id, scopes, account, and whether each may still be used."""
    with _expected_errors(), _outside_errors():
        if load_settings().postgres.dsn is None:
            rows = _get(url, key, "/v1/keys", limit=newest)["items"]
        else:
            rows = [_key_row(record) for record in _with_keys(lambda ring: ring.page(newest))]
    _rows("Keys", rows, ("id", "name", "scopes", "account", "expires", "revoked"))


def _key_row(record: "KeyRecord") -> dict[str, Any]:
    from actors.web.times import instant_or_none

    key = record.key
    return {
        "id": key.public_id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "account": key.account,
        "expires": instant_or_none(key.expires_us),
        "revoked": instant_or_none(record.revoked_us),
    }


@keys.command("revoke")
def revoke_key(
    public_id: Annotated[str, typer.Argument(help="As `tallygate keys list` shows it.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """End a key for good, everywhere within a second."""
    from actors.keys import KeyUnknown

    with _expected_errors(), _outside_errors():
        if load_settings().postgres.dsn is None:
            _change(url, key, "DELETE", _path("keys", public_id))
        else:
            try:
                _with_keys(lambda ring: ring.revoke(public_id))
            except KeyUnknown:
                _fail(f"there is no key {public_id}: see `tallygate keys list`", WRONG_INPUT)
    typer.echo(f"{public_id} is revoked")


def _with_keys(work: "Callable[[Keys], Awaitable[Any]]") -> Any:
    """What comes of `work` on the keys in Postgres."""
    from actors.assembly import key_ring
    from actors.clock import SystemClock

    ring = key_ring(load_settings(), SystemClock())
    return asyncio.run(_opened(ring, lambda: work(ring)))


# --------------------------------------------------------------------------------------------------------- customers


@customers.command("open")
def open_customer(
    account: Account,
    plan: Annotated[str, typer.Option(help="A plan of the catalogue; its currency becomes the account's.")],
    zone: Annotated[str, typer.Option(help="IANA zone of its billing periods and months.")] = "UTC",
    anchor_day: Annotated[int, typer.Option(min=1, max=31, help="Day of the month on which its periods begin.")] = 1,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Open an account."""
    body = {"account": account, "plan": plan, "zone": zone, "anchor_day": anchor_day}
    _told(_change(url, key, "POST", "/v1/customers", body), f"opened, with the plan {plan}")


@customers.command("list")
def list_customers(
    limit: Annotated[int, typer.Option(min=1, max=200, help="How many.")] = 50,
    cursor: Annotated[str | None, typer.Option(help="Where the page before ended.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """List accounts as their last checkpoints have them, seconds ago at most."""
    page = _get(url, key, "/v1/customers", limit=limit, cursor=cursor)
    columns = ("account", "balance", "spend", "currency", "partition")
    _rows("Accounts", page["items"], columns, right=("balance", "spend", "partition"))
    if page["next_cursor"]:
        typer.echo(f"more: --cursor {page['next_cursor']}")


@customers.command("show")
def show_customer(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Show an account as its owner has it now: plan, standing, balance, scopes, caps."""

    async def read(api: "ApiClient") -> tuple[Any, Any, Any]:
        return (
            await api.get(_path("customers", account)),
            await api.get(_path("customers", account, "scopes")),
            await api.get(_path("customers", account, "caps")),
        )

    shown, scopes, limits = _over_http(url, key, read)
    for name in ("account", "plan", "currency", "zone", "anchor_day", "standing", "events_rated", "open_holds"):
        typer.echo(f"{name + ':':14}{shown[name]}")
    typer.echo(f"{'balance:':14}{_balance_text(shown['balance'])}")
    _rows("Scopes", scopes["items"], ("scope", "standing", "spent"), right=("spent",))
    _rows("Caps", limits["items"], ("cap", "scope", "hard", "amount", "spent"), right=("amount", "spent"))


@customers.command("scope")
def declare_scope(
    account: Account,
    scope: Annotated[str, typer.Argument(help="Its path, as team:red/user:ann; those above it come first.")],
    standing: Annotated[str, typer.Option(help="active, past_due or suspended.")] = "active",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Declare a scope inside an account, so that it can have a cap and a standing of its own."""
    body = {"scope": scope, "standing": standing}
    _told(_change(url, key, "PUT", _path("customers", account, "scopes"), body), f"scope {scope} is {standing}")


@customers.command("standing")
def set_standing(
    account: Account,
    standing: Annotated[str, typer.Argument(help="active, past_due or suspended; all but active deny checks.")],
    scope: InScope = "",
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Suspend an account or a scope of it, or let it go on. Usage that arrives is rated all the same."""
    body = {"standing": standing, "scope": scope}
    answer = _change(url, key, "PUT", _path("customers", account, "standing"), body)
    _told(answer, f"{scope or 'the account'} is {standing}")


@grants.command("add")
def add_grant(
    account: Account,
    amount: Annotated[str, typer.Argument(help="A decimal, in the account's currency.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    kind: Annotated[str, typer.Option(help="promo, commit, refund or paid.")] = "promo",
    lot: Annotated[str | None, typer.Option(help="A name for the lot; default: one is made.")] = None,
    expires: Annotated[str | None, typer.Option(help="RFC 3339; default: never.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Give an account credit, as a lot of its own. Payments are booked by POST .../top-ups, which settles debt first."""
    asked = {"amount": amount, "currency": currency, "kind": kind, "lot": lot, "expires": expires}
    body = {field: value for field, value in asked.items() if value is not None}
    answer = _change(url, key, "POST", _path("customers", account, "grants"), body)
    _told(answer, f"{amount} {currency} granted, as lot {answer['id']}")


@grants.command("list")
def list_grants(account: Account, url: Url = None, key: ApiKey = None) -> None:
    """Show an account's lots in the order in which they are spent: granted, remaining, expired."""
    lots = _get(url, key, _path("customers", account, "grants"))["items"]
    amounts = ("granted", "remaining", "expired")
    _rows("Lots", lots, ("lot", "kind", *amounts, "expires"), right=amounts)


@caps.command("set")
def set_cap(
    account: Account,
    cap: Annotated[str, typer.Argument(help="The cap's name.")],
    amount: Annotated[str, typer.Argument(help="A decimal: the most that may be spent in a calendar month.")],
    currency: Annotated[str, typer.Option(help="ISO 4217.")] = "USD",
    scope: InScope = "",
    soft: Annotated[bool, typer.Option("--soft", help="Deny nothing; only feed alert rules.")] = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Set or replace a cap on a month's spend, of an account or of a scope in it."""
    body = {"amount": amount, "currency": currency, "scope": scope, "hard": not soft}
    answer = _change(url, key, "PUT", _path("customers", account, "caps", cap), body)
    _told(answer, f"cap {cap} of {scope or 'the account'} is {amount} {currency} a month")


# ------------------------------------------------------------------------------------------------------ seen live


@app.command("balance")
def show_balance(
    account: Account,
    watch: Annotated[bool, typer.Option("--watch", help="Show every change and every alert, until Ctrl-C.")] = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show what an account has: available, booked, held by open requests."""
    if not watch:
        shown = _get(url, key, _path("customers", account, "balance"))
        suffix = "  (its owner is recovering)" if shown["recovering"] else ""
        typer.echo(f"{account}  {_balance_text(shown['balance'])}{suffix}")
        return
    with _until_ctrl_c():
        _over_http(url, key, lambda api: _watch(api, account))


async def _watch(api: "ApiClient", account: str) -> None:
    from actors.api_client import ApiAway

    async def look() -> None:
        async for event in api.follow(_path("customers", account, "stream")):
            if event.name == "balance":
                typer.echo(f"{event.data['as_of']['log_time']}  {_balance_text(event.data['balance'])}")
            else:
                typer.echo(f"{event.name}  {orjson.dumps(event.data).decode()}")

    while True:
        try:
            await look()
        except ApiAway as error:
            typer.echo(str(error), err=True)
        await asyncio.sleep(1.0)


def _balance_text(balance: Mapping[str, Any]) -> str:
    overdraft = "without limit" if balance["overdraft"] is None else balance["overdraft"]
    return (
        f"available {balance['available']} {balance['currency']}  booked {balance['booked']}  held {balance['held']}  "
        f"overdraft {overdraft}"
    )


@app.command("explain")
def explain_event(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="The event's id.")],
    account: Annotated[str, typer.Option(help="The paying account.")],
    source: Annotated[str, typer.Option(help="The event's source.")],
    as_json: AsJson = False,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show each decision and number of what an event was charged: meter, quantity, period, version, tiers, offset.

    Exit status 2: it was not rated, and why."""
    rating = _get(url, key, _path("events", event_id, "rating"), account=account, source=source)
    if as_json:
        typer.echo(orjson.dumps(rating, option=orjson.OPT_INDENT_2).decode())
        return
    typer.echo(f"{rating['id']} from {rating['source']}: {rating['amount']} {rating['currency']}, paid by {account}")
    for name, text in _rating_facts(rating):
        typer.echo(f"{name + ':':10}{text}")
    Console(markup=False, emoji=False, highlight=False).print(_rating_table(rating))


def _rating_facts(rating: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    period, hold = rating["period"], rating["hold"]
    yield "event", f"{rating['event']['type']} {orjson.dumps(rating['event']['data']).decode()}"
    state = "final" if rating["final"] else "provisional: no checkpoint holds it yet"
    yield "log", f"partition {rating['partition']}, offset {rating['offset']}, appended {rating['appended']}; {state}"
    why = "the event's own time" if hold is None else f"hold {hold['id']} was admitted then; {hold['settled']}"
    yield "rated at", f"{rating['rated_at']} ({why})"
    yield "prices", f"plan {rating['plan']}, catalogue version {rating['version']}"
    for alert in rating["alerts"]:
        yield "alert", f"{alert['type']} {orjson.dumps(alert['data']).decode()}"
    yield "period", f"{period['start']} to {period['end']} ({period['zone']}, from day {period['anchor_day']})"


def _rating_table(rating: Mapping[str, Any]) -> Table:
    numbers = ("in tier", "amount", "per", "charged")
    table = _table("Lines", "price", "meter", "cell", "quantity", "tier", *numbers, right=("quantity", *numbers))
    for line in rating["lines"]:
        meter = line["meter"] if line["meter"] == line["counts"] else f"{line['meter']} ({line['counts']})"
        cell = " ".join(f"{name}={value}" for name, value in line["cell"].items())
        rows = [
            (_tier_span(tier), tier["quantity"], tier["amount"], tier["per"], tier["charged"]) for tier in line["tiers"]
        ]
        if line["beyond"] != "0":
            rows.append(("re-pricing, rounding", "", "", "", line["beyond"]))
        if len(rows) != 1:
            used = "" if line["used_before"] is None else f" ({line['used_before']} used before)"
            rows.append((f"all{used}", "", "", "", line["amount"]))
        head = [line["price"], meter, cell, line["quantity"]]
        for number, row in enumerate(rows):
            table.add_row(*(head if number == 0 else [""] * len(head)), *row)
        table.add_section()
    return table


def _tier_span(tier: Mapping[str, Any]) -> str:
    number, above, up_to = tier["tier"], tier["above"], tier["up_to"]
    if up_to is None:
        return f"{number}: above {above}" if above != "0" else f"{number}"
    return f"{number}: {above} to {up_to}"


@app.command("tail")
def tail_rated(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they stand in the topic.")] = False,
) -> None:
    """Print rated lines as they are made, until Ctrl-C; beside `tallygate up`, those of its Kafka.

    A line is provisional until its offset is in a checkpoint: after a takeover the same offset may be told again."""
    with _expected_errors(), _outside_errors(), _until_ctrl_c():
        settings = load_settings()
        bootstrap = settings.kafka.bootstrap_servers or _access().get("kafka") or _bootstrap(settings)
        asyncio.run(_tail(bootstrap, settings.kafka.topic_rated, account, as_json))


async def _tail(bootstrap: str, topic: str, account: str | None, as_json: bool) -> None:
    from actors.kafka import tail
    from actors.web.times import instant

    async for line in tail(bootstrap, topic):
        rated = orjson.loads(line)
        if account is not None and rated["account"] != account:
            continue
        if as_json:
            typer.echo(line.decode())
            continue
        cell = " ".join(rated["cell"].values())
        typer.echo(
            f"{instant(rated['time_us'])}  {rated['account']}  {rated['price']}  {cell}  {rated['quantity']}  "
            f"{rated['amount']} {rated['currency']}"
        )


@contextmanager
def _until_ctrl_c() -> Iterator[None]:
    """What has no end of its own ends well when its reader has seen enough."""
    with suppress(KeyboardInterrupt):
        yield


# ------------------------------------------------------------------------------------------------------------- proofs

OnePartition = Annotated[int | None, typer.Option("--partition", min=0, help="Only this one; default: all.")]
BaseFolder = Annotated[
    Path | None,
    typer.Option(
        "--base", exists=True, file_okay=False, help="Sealed bases to start from; default: the beginning of the log."
    ),
]


@contextmanager
def _proving(doing: str) -> Iterator[tuple[Settings, Callable[[str], None]]]:
    """The settings, and how to tell where the work stands; what may go wrong is told as one line."""
    from actors.proofs import NoSuchPartition
    from actors.rebuild import LogTooShort
    from actors.sealed_base import BadBase
    from actors.takeover import CatalogueLost
    from engine.partition import HalfApplied

    with _expected_errors(), _outside_errors(), Console(stderr=True).status(doing) as status:
        try:
            yield load_settings(), lambda line: status.update(line)
        except NoSuchPartition as error:
            _fail(str(error), WRONG_INPUT)
        except (BadBase, CatalogueLost, HalfApplied, LogTooShort) as error:
            _fail(str(error), FAILED)


@base.command("seal")
def seal_bases(
    to: Annotated[Path, typer.Option("--to", file_okay=False, help="The folder; it is made if need be.")],
    partition: OnePartition = None,
) -> None:
    """Write each partition's newest checkpoint into a folder, whole and sealed, beside the running deployment."""
    from actors import proofs

    async def act(settings: Settings, say: Callable[[str], None]) -> None:
        async for path, head in proofs.seal(settings, to, partition, say):
            typer.echo(f"{path}: partition {head.partition} up to offset {head.next_offset}")

    with _proving("Sealing") as (settings, say):
        asyncio.run(act(settings, say))


@base.command("check")
def check_bases(
    files: Annotated[list[Path], typer.Argument(exists=True, dir_okay=False, help="Files that `base seal` wrote.")],
) -> None:
    """Check the seal of bases, and that they can be read to their end."""
    from actors.sealed_base import check_base

    with _proving("Checking") as (settings, _):
        for file in files:
            head = check_base(file, settings.control_key_bytes())
            typer.echo(
                f"{file}: partition {head.partition} of {head.partitions} of topic {head.topic} up to offset "
                f"{head.next_offset}, as epoch {head.epoch} left it in checkpoint {head.ckpt_seq}; the seal holds"
            )


@app.command("rebuild")
def rebuild_accounts(
    bases: BaseFolder = None,
    partition: OnePartition = None,
    account: Annotated[str | None, typer.Option(help="Only this one; its whole partition is folded.")] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare with the live checkpoint byte for byte, and print no accounts.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fold the log anew, from its beginning or a base, to the end of the newest checkpoint, beside the deployment.

    Exit status 1: with --verify, something differs."""
    from actors import proofs

    async def act(settings: Settings, say: Callable[[str], None]) -> bool:
        chosen = partition
        if account is not None:
            chosen = partition_for(account.encode(), settings.kafka.partitions)
            if partition not in (None, chosen):
                _fail(f"account {account} lives in partition {chosen}", WRONG_INPUT)
        equal = True
        async for fold in proofs.rebuild(settings, bases, chosen, say):
            if account is not None and fold.partition.account(account) is None:
                _fail(f"partition {fold.number} has no account {account} up to offset {fold.end}", WRONG_INPUT)
            if verify:
                equal = _tell_comparison(fold, account) and equal
            elif as_json:
                for view in fold.views(account):
                    typer.echo(msgspec.json.encode(view).decode())
            else:
                _tell_rebuilt(fold, account)
        return equal

    with _proving("Rebuilding") as (settings, say):
        equal = asyncio.run(act(settings, say))
    if not equal:
        raise typer.Exit(FAILED)


@app.command("reconcile")
def reconcile_partitions(
    bases: BaseFolder = None,
    partition: OnePartition = None,
    sample: Annotated[
        float, typer.Option(min=0.0, max=1.0, help="Share of the accounts to rate again by the second arithmetic.")
    ] = 0.01,
    every: Annotated[bool, typer.Option("--all", help="Rate all accounts again.")] = False,
    seed: Annotated[
        int | None, typer.Option(help="Which accounts the sample picks; default: other ones every day.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold ledger, outbox, offsets and a sample of amounts against the log, beside the running deployment.

    Only reads. Exit status 1: something differs, and account and digit are named."""
    from actors import proofs
    from actors.clock import SystemClock

    chosen = SystemClock().wall_us() // DAY_US if seed is None else seed
    share = 1.0 if every else sample

    async def act(settings: Settings, say: Callable[[str], None]) -> int:
        drifts = 0
        reports = []
        async for report in proofs.reconcile(settings, bases, partition, share=share, seed=chosen, say=say):
            drifts += report.drift
            if as_json:
                reports.append(report.as_json())
            else:
                _tell_report(report)
        if as_json:
            typer.echo(orjson.dumps({"drift": drifts, "seed": chosen, "partitions": reports}).decode())
        else:
            typer.echo(f"drift {drifts} (sample {share:g}, seed {chosen})")
        return drifts

    with _proving("Reconciling") as (settings, say):
        drifts = asyncio.run(act(settings, say))
    if drifts:
        raise typer.Exit(FAILED)


def _tell_report(report: "Report") -> None:
    for check, count in report.found.items():
        drifts = [drift for drift in report.drifts if drift.check == check]
        _tell_drifts(drifts, f"{check}: partition {report.partition}", count)
    if report.note and report.drift:
        typer.echo(f"partition {report.partition}: {report.note}: that may be why")
    typer.echo(
        f"partition {report.partition}: offsets {report.start} to {report.end}: {report.records:,} records, "
        f"{report.rated_lines:,} rated lines, {report.accounts:,} accounts, {len(report.sampled):,} of them rated again: "
        f"drift {report.drift}"
    )


def _tell_drifts(drifts: "Sequence[Drift]", where: str, count: int) -> None:
    for drift in drifts[:DRIFTS_SHOWN]:
        typer.echo(str(drift))
    if count > DRIFTS_SHOWN:
        typer.echo(f"{where}: and {count - DRIFTS_SHOWN:,} more differences")


def _tell_comparison(fold: "Fold", account: str | None) -> bool:
    drifts = fold.drifts("rebuild", account)
    _tell_drifts(drifts, f"rebuild: partition {fold.number}", len(drifts))
    if fold.note and drifts:
        typer.echo(f"rebuild: partition {fold.number}: {fold.note}: that may be why")
    if not drifts:
        what = f"{fold.partition.accounts} accounts" if account is None else f"account {account}"
        typer.echo(
            f"partition {fold.number}: offsets {fold.start} to {fold.end} rebuilt; {what} equal to the last byte"
        )
    return not drifts


def _tell_rebuilt(fold: "Fold", account: str | None) -> None:
    title = f"Partition {fold.number}, offsets {fold.start} to {fold.end}"
    table = _table(title, "account", "balance", "rated", "lots", "usage", right=("balance", "rated"))
    for view in fold.views(account):
        lots = [f"{lot.lot} {lot.remaining} of {lot.granted}" for lot in view.lots]
        usage = [f"{use.price} {'/'.join(use.cell)} {use.quantity}" for use in view.usage]
        balance = f"{view.wallet.booked} {view.currency}"
        table.add_row(view.account, balance, f"{view.rated:,}", "\n".join(lots), "\n".join(usage))
    Console(markup=False, emoji=False, highlight=False).print(table)


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
