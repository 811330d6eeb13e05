"""`tallygate topics`: the topics in Kafka."""

import asyncio

import typer
from rich.console import Console

from actors.cli.terminal import FAILED, expected_errors, fail, outside_errors
from config.settings import Settings, load_settings

app = typer.Typer(help="The topics in Kafka.", no_args_is_help=True)


@app.command("create")
def create_topics() -> None:
    """Create the topics that are missing. What exists is checked, and never changed."""
    from actors import kafka
    from actors.assembly import brokers, topic_settings

    with expected_errors(), outside_errors():
        settings = load_settings()
        asked = brokers(settings)
        with Console(stderr=True).status(f"Asking Kafka at {asked}"):
            created = asyncio.run(kafka.create_topics(asked, topic_settings(settings)))
    typer.echo(f"created {', '.join(created)}" if created else "all topics exist")


@app.command("check")
def check_topics() -> None:
    """Check that the topics are there, and fit the settings."""
    from actors.assembly import brokers

    with expected_errors(), outside_errors():
        settings = load_settings()
        with Console(stderr=True).status(f"Asking Kafka at {brokers(settings)}"):
            partitions = asyncio.run(_partitions(settings))
    if partitions != settings.kafka.partitions:
        fail(
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
