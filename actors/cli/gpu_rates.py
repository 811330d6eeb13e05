"""`tallygate gpu-rates`: what GPUs cost by the hour, for whoever attributes cost."""

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from actors.cli.terminal import WRONG_INPUT, expected_errors, fail, outside_errors
from config.settings import Settings, load_settings
from engine.cost.gpu_rates import GpuRates, parse_rates
from engine.events import Malformed, seal

app = typer.Typer(help="What GPUs cost by the hour, and what tokens take of them.", no_args_is_help=True)

_Document = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The document, as JSON.")]


@app.command()
def check(document: _Document) -> None:
    """Find what is wrong with a document."""
    rates = _read(document)
    kinds = ", ".join(sorted({rate.kind for rate in rates.document.rates})) or "no kind"
    models = ", ".join(sorted(rates.profiles)) or "no model"
    typer.echo(f"version {rates.version} in {rates.currency}: rates of {kinds}; profiles of {models}")


@app.command()
def publish(document: _Document) -> None:
    """Put a document into force, for all that is not closed. Of several the one with the highest version counts."""
    rates = _read(document)
    with expected_errors(), outside_errors():
        settings = load_settings()
        asyncio.run(_publish(settings, rates, document.read_bytes()))
    typer.echo(f"version {rates.version} is in the log of all {settings.kafka.partitions} partitions")


def _read(document: Path) -> GpuRates:
    try:
        return parse_rates(document.read_bytes())
    except Malformed as error:
        fail(f"{document}: {error}", WRONG_INPUT)


async def _publish(settings: Settings, rates: GpuRates, body: bytes) -> None:
    from actors.assembly import served_appender
    from actors.cli.trail import trailed
    from actors.ports import Outgoing
    from actors.web.acts import Entry
    from engine.cost.attribution import TOPIC

    key, partitions = settings.control_key_bytes(), settings.kafka.partitions
    appender = served_appender(settings)
    await appender.start()
    try:
        sealed = [Outgoing("served", seal(key, TOPIC, number, body), b"rates", number) for number in range(partitions)]
        entry = Entry("gpu_rates.publish", subject=str(rates.version), after=rates.document)
        async with trailed(settings, entry):
            await appender.append(sealed)
    finally:
        await appender.stop()
