"""`tallygate telemetry`: what GPUs and inference engines say of themselves, into Kafka."""

import asyncio
import logging
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from actors.cli.terminal import FAILED, WRONG_INPUT, expected_errors, fail, outside_errors, until_ctrl_c
from config.settings import Settings, load_settings

if TYPE_CHECKING:
    from actors.kafka import TopicAppender
    from actors.telemetry.scraper import Target

app = typer.Typer(help="What GPUs and inference engines say of themselves.", no_args_is_help=True)


@app.command("scrape")
def scrape(
    target: Annotated[
        list[str],
        typer.Option(
            help="NAME=URL of a page of dcgm-exporter, vLLM or SGLang; NAME is the replica. Or HOST=nvml: GPUs here."
        ),
    ],
    every: Annotated[float, typer.Option(min=1.0, max=3_600.0, help="Seconds between two passes.")] = 15.0,
    timeout: Annotated[float, typer.Option(min=0.1, max=60.0, help="Seconds that one target may take.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="One pass; exit status 1 if a target did not answer.")] = False,
    show: Annotated[bool, typer.Option("--print", help="Print the samples, a JSON object each, instead.")] = False,
) -> None:
    """Ask targets for their metrics pages and append what they say to the topic gpu-telemetry, until Ctrl-C."""
    from actors.telemetry.scraper import BadTarget, parse_target

    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    with expected_errors(), outside_errors(), until_ctrl_c():
        settings = load_settings()
        try:
            targets = [parse_target(text) for text in target]
            failed = asyncio.run(_scrape(settings, targets, every, timeout, once, show))
        except BadTarget as error:
            fail(str(error), WRONG_INPUT)
    if failed:
        raise typer.Exit(FAILED)


async def _scrape(
    settings: Settings, targets: "list[Target]", every_s: float, timeout_s: float, once: bool, show: bool
) -> bool:
    """Whether the one pass left something out."""
    from actors.assembly import telemetry_appender
    from actors.clock import SystemClock
    from actors.telemetry.scraper import Pass, Scraper, log_pass

    def tell(done: Pass) -> None:
        log_pass(done)
        for sample in done.samples if show else ():
            typer.echo(msgspec.json.encode(sample).decode())

    appender: TopicAppender | None = None if show else telemetry_appender(settings)
    scraper = Scraper(targets, appender, SystemClock(), timeout_s)
    if appender is not None:
        await appender.start()
    try:
        if not once:
            await scraper.run(every_s, tell)
        done = await scraper.once()
        tell(done)
        return bool(done.lost) or any(answer.problem is not None for answer in done.answered)
    finally:
        if appender is not None:
            await appender.stop()
