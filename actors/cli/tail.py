"""`tallygate tail`: rated lines as they are made."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import orjson
import typer

from actors.cli.over_http import up_access
from actors.cli.terminal import expected_errors, outside_errors, until_ctrl_c
from config.settings import load_settings

if TYPE_CHECKING:
    from actors.kafka import Brokers


def tail_rated(
    account: Annotated[str | None, typer.Option(help="Only this account's.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="The lines as they stand in the topic.")] = False,
) -> None:
    """Print rated lines as they are made, until Ctrl-C; beside `tallygate up`, those of its Kafka.

    A line is provisional until its offset is in a checkpoint: after a takeover the same offset may be told again."""
    from actors.assembly import brokers

    with expected_errors(), outside_errors(), until_ctrl_c():
        settings = load_settings()
        beside = up_access().get("kafka")
        if settings.kafka.bootstrap_servers is None and beside:
            kafka = settings.kafka.model_copy(update={"bootstrap_servers": beside})
            settings = settings.model_copy(update={"kafka": kafka})
        asyncio.run(_tail(brokers(settings), settings.kafka.topic_rated, account, as_json))


async def _tail(brokers: "Brokers", topic: str, account: str | None, as_json: bool) -> None:
    from actors.kafka import tail
    from actors.web.times import instant

    async for line in tail(brokers, topic):
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
