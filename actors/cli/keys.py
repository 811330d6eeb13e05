"""`tallygate keys`: in Postgres where DATABASE_URL names one, else over the HTTP API."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import WRONG_INPUT, expected_errors, fail, instant_of, opened, outside_errors, print_rows
from config.settings import load_settings

if TYPE_CHECKING:
    from actors.keys import KeyRecord, Keys, KeyScope

app = typer.Typer(
    help="API keys: in Postgres where DATABASE_URL names one, else over the HTTP API.", no_args_is_help=True
)


@app.command("create")
def create_key(
    name: Annotated[str, typer.Argument(help="Who or what will use it; for people.")],
    scope: Annotated[
        list[str],
        typer.Option(
            help="ingest (send usage), check (ask, hold, settle), read (look), credit (grants, payments) or admin (accounts, "
            "limits, prices, keys). None implies another: repeat the option."
        ),
    ],
    account: Annotated[str | None, typer.Option(help="The only account that it may touch; default: all.")] = None,
    expires: Annotated[str | None, typer.Option(help="RFC 3339, such as 2027-01-31T00:00:00Z; default: never.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Make a key and print it: this once, and nowhere else. To rotate, make the new one, then revoke the old one."""
    from actors.keys import KeyRefused, KeyScope

    unknown = sorted(set(scope) - set(KeyScope))
    if unknown:
        fail(f"--scope {unknown[0]}: is one of {', '.join(KeyScope)}", WRONG_INPUT)
    expires_us = None if expires is None else instant_of("--expires", expires)
    with expected_errors(), outside_errors():
        if load_settings().postgres.dsn is None:
            asked = {"name": name, "scopes": scope, "account": account, "expires": expires}
            body = {field: value for field, value in asked.items() if value is not None}
            typer.echo(change(url, key, "POST", "/v1/keys", body)["key"])
            return
        try:
            made = _with_keys(lambda ring: _create(ring, name, [KeyScope(text) for text in scope], account, expires_us))
        except KeyRefused as error:
            fail(str(error), WRONG_INPUT)
        typer.echo(made)


async def _create(
    ring: "Keys", name: str, scopes: "list[KeyScope]", account: str | None, expires_us: int | None
) -> str:
    from actors.cli.trail import actor, trailed
    from actors.keys import KeyRefused
    from actors.web.acts import Entry
    from actors.web.key_routes import KeyRequest
    from actors.web.times import instant_or_none

    entry = Entry("create_key", account)
    entry.after = KeyRequest(name, tuple(scopes), account, instant_or_none(expires_us))
    async with trailed(load_settings(), entry, KeyRefused):
        key, text = await ring.create(name, scopes, account, expires_us, created_by=actor())
        entry.subject = key.public_id
    return text


@app.command("list")
def list_keys(
    newest: Annotated[int, typer.Option(min=1, max=200, help="How many of the newest.")] = 50,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Show keys, without their secrets: id, scopes, account, and whether each may still be used."""
    with expected_errors(), outside_errors():
        if load_settings().postgres.dsn is None:
            rows = get(url, key, "/v1/keys", limit=newest)["items"]
        else:
            rows = [_key_row(record) for record in _with_keys(lambda ring: ring.page(newest))]
    print_rows("Keys", rows, ("id", "name", "scopes", "account", "expires", "revoked"))


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


@app.command("revoke")
def revoke_key(
    public_id: Annotated[str, typer.Argument(help="As `tallygate keys list` shows it.")],
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """End a key for good, everywhere within a second."""
    from actors.keys import KeyUnknown

    with expected_errors(), outside_errors():
        if load_settings().postgres.dsn is None:
            change(url, key, "DELETE", path_to("keys", public_id))
        else:
            try:
                _with_keys(lambda ring: _revoke(ring, public_id))
            except KeyUnknown:
                fail(f"there is no key {public_id}: see `tallygate keys list`", WRONG_INPUT)
    typer.echo(f"{public_id} is revoked")


async def _revoke(ring: "Keys", public_id: str) -> None:
    from actors.cli.trail import trailed
    from actors.keys import KeyUnknown
    from actors.web.acts import Entry

    async with trailed(load_settings(), Entry("revoke_key", subject=public_id), KeyUnknown):
        await ring.revoke(public_id)


@app.command("door")
def show_door_token() -> None:
    """Print the token that opens the shards' doors, for SmartClient inside the deployment: every account, no scopes.

    It follows from the control key, and changes with it; the control key cannot be worked out from it."""
    from actors.door_wire import door_token

    with expected_errors():
        typer.echo(door_token(load_settings().control_key_bytes()))


def _with_keys(work: "Callable[[Keys], Awaitable[Any]]") -> Any:
    """What comes of `work` on the keys in Postgres."""
    from actors.assembly import key_ring
    from actors.clock import SystemClock

    ring = key_ring(load_settings(), SystemClock())
    return asyncio.run(opened(ring, lambda: work(ring)))
