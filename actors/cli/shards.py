"""`tallygate shards`: who owns what, and emptying one."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer
from rich.console import Console

from actors.cli.terminal import FAILED, WRONG_INPUT, AsJson, expected_errors, fail, opened, outside_errors, print_rows
from config.settings import load_settings

if TYPE_CHECKING:
    from actors.membership import PostgresRoster

app = typer.Typer(help="The shards that rate: who owns what, and emptying one.", no_args_is_help=True)


Shards = Annotated[list[str] | None, typer.Argument(help="Shards, by name or by incarnation.", show_default=False)]
Host = Annotated[str | None, typer.Option(help="All shards of this host.", show_default=False)]


@app.command("list")
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
    print_rows(
        "Shards", shown, ("shard", "incarnation", "host", "state", "lease_left_s", "partitions"), ("lease_left_s",)
    )


@app.command("drain")
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
            fail(str(error), WRONG_INPUT)
        except NotDrained as error:
            fail(str(error), FAILED)
    for name in drained:
        typer.echo(f"{name} owns nothing any more, and gets nothing: its process may be stopped")


@app.command("resume")
def resume_shards(names: Shards = None, host: Host = None) -> None:
    """Let a drained shard own partitions again; it gets its part when all has been quiet for a while."""
    from actors.draining import DrainRefused, resume

    _some(names, host)
    try:
        resumed = _with_roster(lambda roster: resume(roster, names or (), host))
    except DrainRefused as error:
        fail(str(error), WRONG_INPUT)
    for name in resumed:
        typer.echo(f"{name} may own partitions again")


def _some(names: Sequence[str] | None, host: str | None) -> None:
    if not names and host is None:
        fail("which shards? name some, or give --host: see `tallygate shards list`", WRONG_INPUT)


def _with_roster(work: "Callable[[PostgresRoster], Awaitable[Any]]") -> Any:
    """What comes of `work` on the members in Postgres."""
    from actors.assembly import member_roster

    with expected_errors(), outside_errors():
        roster = member_roster(load_settings())
        return asyncio.run(opened(roster, lambda: work(roster)))
