"""What commands have in common on a terminal: how they fail, their tables, and what they call outside."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import orjson
import typer
from rich.console import Console
from rich.table import Table

from config.catalogue import CatalogueFileError
from config.settings import SettingsError
from engine.catalog import BadCatalogue
from engine.events import Malformed, parse_time

if TYPE_CHECKING:
    from actors.keys import Keys
    from actors.membership import PostgresRoster

FAILED = 1
WRONG_INPUT = 2

AsJson = Annotated[bool, typer.Option("--json", help="JSON, for programs.")]


def console() -> Console:
    """Prints names as they stand: they are theirs, not ours to interpret."""
    return Console(markup=False, emoji=False, highlight=False)


def fail(message: str, code: int) -> NoReturn:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def instant_of(option: str, text: str) -> int:
    """Microseconds since 1970 UTC of what an option states. Anything but RFC 3339 ends the command, and the option is named."""
    try:
        return parse_time(text)
    except Malformed as error:
        fail(f"{option}: {error}, such as 2027-01-31T00:00:00Z", WRONG_INPUT)


@contextmanager
def expected_errors() -> Iterator[None]:
    """What an operator can mend is told without a traceback."""
    try:
        yield
    except (SettingsError, CatalogueFileError, BadCatalogue) as error:
        fail(str(error), WRONG_INPUT)


@contextmanager
def outside_errors() -> Iterator[None]:
    from actors.assembly import NotConfigured
    from actors.kafka import ExtensionMissing, TopicsDiffer
    from actors.ports import CatalogueTaken, LogDamaged, LogUnavailable, StoreRefused, StoreUnavailable

    try:
        yield
    except NotConfigured as error:
        fail(str(error), WRONG_INPUT)
    except (
        CatalogueTaken,
        ExtensionMissing,
        LogDamaged,
        LogUnavailable,
        StoreRefused,
        StoreUnavailable,
        TopicsDiffer,
    ) as error:
        fail(str(error), FAILED)


async def opened(part: "Keys | PostgresRoster", work: "Callable[[], Awaitable[Any]]") -> Any:
    """What comes of `work` while the part is open."""
    await part.start()
    try:
        return await work()
    finally:
        await part.stop()


def new_table(title: str, *columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


def print_json_rows(rows: Sequence[Mapping[str, Any]]) -> None:
    """A JSON object a line."""
    for row in rows:
        typer.echo(orjson.dumps(row).decode())


def print_rows(
    title: str,
    rows: Sequence[Mapping[str, Any]],
    columns: Sequence[str],
    right: tuple[str, ...] = (),
    *,
    as_json: bool = False,
) -> None:
    """These columns as a table, or all of each row as JSON."""
    if as_json:
        print_json_rows(rows)
        return
    if not rows:
        typer.echo(f"{title}: none")
        return
    table = new_table(title, *columns, right=right)
    for row in rows:
        table.add_row(*(_plain(row[name]) for name in columns))
    console().print(table)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return " ".join(map(_plain, value))
    return "" if value is None else str(value)


@contextmanager
def until_ctrl_c() -> Iterator[None]:
    """What has no end of its own ends well when its reader has seen enough."""
    with suppress(KeyboardInterrupt):
        yield
