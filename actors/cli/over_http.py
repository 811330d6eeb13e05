"""Commands that ask the HTTP API: which one, with which key, and how its answers end."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from actors.cli.terminal import FAILED, WRONG_INPUT, expected_errors, fail
from config.settings import load_settings

if TYPE_CHECKING:
    from actors.api_client import ApiClient

UP_DIR = Path("build/up")

Url = Annotated[
    str | None,
    typer.Option(help="The API; default: TALLYGATE_URL, else the one that `tallygate up` runs in this folder."),
]
ApiKey = Annotated[
    str | None, typer.Option("--key", help="An API key; default: TALLYGATE_KEY, else the one that `tallygate up` made.")
]
Account = Annotated[str, typer.Argument(help="The account's id.")]
InScope = Annotated[str, typer.Option("--scope", help="A scope inside the account; default: the whole account.")]


def up_access() -> dict[str, str]:
    """What `tallygate up` has written for commands in the same folder; empty without."""
    from actors.up import ACCESS_FILE, read_access

    return read_access(UP_DIR / ACCESS_FILE)


def _client(url: str | None, key: str | None) -> "ApiClient":
    """The API that options, settings or the run folder name. The run folder's key goes to the run folder's URL only."""
    from actors.api_client import ApiClient, BadAddress, checked_url

    client, access = load_settings().client, up_access()
    url = url or client.url or access.get("url")
    key = key or (client.key.get_secret_value() if client.key else None)
    if key is None and url == access.get("url"):
        key = access.get("key")
    if url is None or key is None:
        missing = "TALLYGATE_KEY (or --key)" if url else "TALLYGATE_URL and TALLYGATE_KEY (or --url and --key)"
        fail(f"no API to ask: set {missing}, or run `tallygate up` in this folder first", WRONG_INPUT)
    try:
        return ApiClient(checked_url(url, plain_http=client.plain_http), key, reason=client.reason)
    except BadAddress as error:
        fail(str(error), WRONG_INPUT)


def over_http(url: str | None, key: str | None, work: "Callable[[ApiClient], Awaitable[Any]]") -> Any:
    from actors.api_client import ApiAway, ApiRefused

    async def run() -> Any:
        async with _client(url, key) as api:
            return await work(api)

    with expected_errors():
        try:
            return asyncio.run(run())
        except ApiAway as error:
            fail(str(error), FAILED)
        except ApiRefused as error:
            fail(str(error), WRONG_INPUT)


def get(url: str | None, key: str | None, path: str, **query: str | int | None) -> Any:
    return over_http(url, key, lambda api: api.get(path, **query))


def change(
    url: str | None,
    key: str | None,
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    **query: str | int | None,
) -> Any:
    return over_http(url, key, lambda api: api.change(method, path, body, **query))


def path_to(*parts: str) -> str:
    from actors.api_client import path_of

    return path_of(*parts)


def told(answer: dict[str, Any], what: str) -> None:
    """A command that took effect."""
    typer.echo(f"{answer['account']}: {what} (log {answer['partition']}/{answer['offset']})")
