"""`tallygate unbilled`: tokens that engines made and nobody is charged for."""

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from actors.cli.terminal import (
    FAILED,
    WRONG_INPUT,
    AsJson,
    expected_errors,
    fail,
    instant_of,
    outside_errors,
    print_json_rows,
    print_rows,
)
from config.settings import Settings, load_settings

if TYPE_CHECKING:
    from actors.unbilled import Answer, PriceNames

_HOUR_US = 3_600_000_000
_COLUMNS = ("replica", "counted", "rated", "short", "aborted", "failed", "missing", "running", "unseen")
_NUMBERS = _COLUMNS[1:]


def find_unbilled_tokens(
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; default: an hour ago.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339; default: now.")] = None,
    prompt_price: Annotated[
        list[str] | None, typer.Option(help="A price whose quantity is prompt tokens; may be repeated.")
    ] = None,
    output_price: Annotated[
        list[str] | None, typer.Option(help="A price whose quantity is generated tokens; may be repeated.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Hold the token counters of inference engines (gpu-telemetry) against served records and rated lines.

    Without prices named, a request that was rated counts as rated whole. With --json a row per replica, side and
    minute. Exit status 1: tokens are not billed."""
    from actors.clock import SystemClock
    from actors.unbilled import PriceNames

    with expected_errors(), outside_errors():
        settings = load_settings()
        to_us = SystemClock().wall_us() if until is None else instant_of("--to", until)
        from_us = to_us - _HOUR_US if since is None else instant_of("--from", since)
        if from_us >= to_us:
            fail("--to is not behind --from", WRONG_INPUT)
        prices = PriceNames(frozenset(prompt_price or ()), frozenset(output_price or ()))
        answer = asyncio.run(_ask(settings, from_us, to_us, prices))
    _tell(answer, as_json)


async def _ask(settings: Settings, from_us: int, to_us: int, prices: "PriceNames") -> "Answer":
    from actors.assembly import topic_reader
    from actors.unbilled import Topics, find_unbilled

    kafka = settings.kafka
    reader = topic_reader(settings)
    await reader.start()
    try:
        topics = Topics(kafka.topic_gpu_telemetry, kafka.topic_served, kafka.topic_rated)
        return await find_unbilled(reader, topics, from_us, to_us, prices)
    finally:
        await reader.stop()


def _tell(answer: "Answer", as_json: bool) -> None:
    from actors.unbilled import as_rows
    from engine.cost.unbilled import Side

    found = answer.found
    if as_json:
        print_json_rows(as_rows(found))
    else:
        for side in Side:
            replicas = sorted({replica for replica, which, _ in found.minutes if which is side})
            rows = []
            for replica in replicas:
                total = found.total(replica, side)
                rows.append({"replica": replica} | {name: getattr(total, name) for name in _NUMBERS})
            print_rows(f"Tokens, {side}", rows, _COLUMNS, right=_NUMBERS)
    for replica, times in sorted(found.resets.items()):
        typer.echo(
            f"replica {replica}: it began to count anew {times} times: what it counted is a lower bound", err=True
        )
    for replica, requests in sorted(found.uncounted.items()):
        typer.echo(f"replica {replica}: {requests} requests, and no counters: scrape its page", err=True)
    if answer.unreadable:
        typer.echo(f"{answer.unreadable} records could not be read", err=True)
    if any(found.total(side=side).unbilled for side in Side):
        raise typer.Exit(FAILED)
