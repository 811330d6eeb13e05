"""`tallygate whatif`: what hours cost and earned by model and customer, and what they would have under a change."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from actors.cli.proving import BaseFolder, proving
from actors.cli.terminal import WRONG_INPUT, AsJson, expected_errors, fail, instant_of, outside_errors, print_rows
from config.catalogue import load_file
from config.settings import Settings, load_settings
from engine.cost.whatif import Change, Scenario, parse_change
from engine.events import Malformed

if TYPE_CHECKING:
    from actors.whatif import Found
    from actors.whatif_view import ModelCosts, Side, WhatIfAnswer
    from engine.cost.margin import MarginFold

_HOUR_US = 3_600_000_000
_MONEY = ("direct", "loaded", "revenue", "margin")
_TOKENS = ("tokens", "direct", "loaded", "price floor")


def show_what_if(
    since: Annotated[str | None, typer.Option("--from", help="RFC 3339; default: a day before --to.")] = None,
    until: Annotated[str | None, typer.Option("--to", help="RFC 3339; default: the last full hour.")] = None,
    change: Annotated[
        Path | None, typer.Option(exists=True, dir_okay=False, help="What is otherwise, as JSON; options go before it.")
    ] = None,
    gpu_rate: Annotated[
        list[str] | None, typer.Option(help="KIND=AMOUNT an hour, as in h100-sxm=2.10; may be repeated.")
    ] = None,
    price_factor: Annotated[
        list[str] | None, typer.Option(help="MODEL=FACTOR of what is charged, as in atlas=0.9; may be repeated.")
    ] = None,
    utilisation: Annotated[str | None, typer.Option(help="Of the GPUs, in percent.")] = None,
    no_spread_idle: Annotated[
        bool,
        typer.Option("--no-spread-idle", help="Nobody bears what no request took; else who used the replica does."),
    ] = False,
    idle_payer: Annotated[
        list[str] | None, typer.Option(help="MODEL=ACCOUNT that bears what no request took; may be repeated.")
    ] = None,
    catalogue: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="Prices of the projection: logged usage is rated again under it."
        ),
    ] = None,
    bases: BaseFolder = None,
    target_margin: Annotated[str | None, typer.Option(help="Of the price floors, in percent; default: 50.")] = None,
    as_json: AsJson = False,
) -> None:
    """Work out again what the hours that begin between --from and --to cost, as they were and under a change, and set it
    beside what they earned. Only reads.

    With --catalogue the projection earns what `catalogue dryrun` says, request by request."""
    from actors.clock import SystemClock
    from actors.whatif import whole_hours
    from actors.whatif_view import shown

    options: dict[str, Any] = {
        "gpu_rates": _named("--gpu-rate", gpu_rate),
        "price_factors": _named("--price-factor", price_factor),
        "utilisation_percent": utilisation,
        "spread_idle": False if no_spread_idle else None,
        "idle_payers": _named("--idle-payer", idle_payer),
        "target_margin_percent": target_margin,
    }
    now_us = SystemClock().wall_us()
    try:
        scenario = _scenario(change, {name: value for name, value in options.items() if value not in (None, {})})
    except Malformed as error:
        fail(str(error), WRONG_INPUT)
    until_us = now_us - now_us % _HOUR_US if until is None else instant_of("--to", until)
    begin_us = until_us - 24 * _HOUR_US if since is None else instant_of("--from", since)
    from_us, until_us = whole_hours(begin_us, until_us)
    if from_us >= until_us:
        fail("no hour begins between --from and --to", WRONG_INPUT)
    charged = None if catalogue is None else charged_under(catalogue, bases, from_us, until_us)
    with expected_errors(), outside_errors():
        try:
            found = asyncio.run(_ask(load_settings(), scenario, from_us, until_us, now_us, charged))
        except Malformed as error:
            fail(str(error), WRONG_INPUT)
    answer = shown(found, scenario.margin_ppm)
    if as_json:
        typer.echo(msgspec.json.encode(answer).decode())
    else:
        same = Change(target_margin_percent=scenario.change.target_margin_percent)
        _tell(answer, is_changed=scenario.change != same or charged is not None)


def _named(option: str, texts: list[str] | None) -> dict[str, str]:
    found = {}
    for text in texts or ():
        name, equals, value = text.rpartition("=")
        if not (name and equals and value):
            fail(f"{option} {text[:80]!r}: say NAME=VALUE", WRONG_INPUT)
        found[name] = value
    return found


def _scenario(file: Path | None, options: dict[str, Any]) -> Scenario:
    document = {} if file is None else msgspec.to_builtins(parse_change(file.read_bytes()).change)
    return parse_change(msgspec.json.encode(document | options))


def charged_under(catalogue: Path, bases: Path | None, from_us: int, until_us: int) -> "MarginFold":
    """What requests of the stretch are charged under another catalogue."""
    from actors import proofs
    from actors.dryrun import Draft
    from engine.cost.margin import MarginFold

    fold = MarginFold(None, from_us, until_us)
    with expected_errors():
        draft = Draft(load_file(catalogue), from_us, until_us)

    async def rate(settings: Settings, say: Callable[[str], None]) -> None:
        def hear(partition: int, line: bytes) -> None:
            fold.apply_rated(partition, line, 0)

        async for _ in proofs.dry_run(settings, bases, None, draft, say, hear):
            pass

    with proving("Rating again") as (settings, say):
        asyncio.run(rate(settings, say))
    return fold


async def _ask(
    settings: Settings, scenario: Scenario, from_us: int, until_us: int, now_us: int, charged: "MarginFold | None"
) -> "Found":
    from actors.assembly import WhatIfProcess

    process = WhatIfProcess(settings)
    await process.start()
    try:
        return await process.whatif.ask(
            scenario, from_us, until_us, now_us, charged=charged, say=lambda text: typer.echo(text, err=True)
        )
    finally:
        await process.stop()


def _tell(answer: "WhatIfAnswer", *, is_changed: bool) -> None:
    _tell_side("As it was", answer.actual, answer)
    if is_changed:
        _tell_side("Projection", answer.projection, answer)
    for bucket, amount in answer.differs.items():
        typer.echo(
            f"{bucket} differs by {amount} from what was told: rates were published after hours had closed, records are "
            "gone, or not all has been told yet",
            err=True,
        )
    if answer.other_currencies:
        typer.echo(f"charges in {', '.join(answer.other_currencies)} stand in no figure", err=True)


def _tell_side(title: str, side: "Side", answer: "WhatIfAnswer") -> None:
    currency = answer.currency or "no rates are known"
    customers = [msgspec.to_builtins(each) for each in side.customers]
    print_rows(f"{title}: customers, {currency}", customers, ("model", "account", *_MONEY), right=_MONEY)
    tokens = [row for model in side.models for row in _token_rows(model)]
    print_rows(f"{title}: per 1,000,000 tokens", tokens, ("model", "class", *_TOKENS), right=_TOKENS)
    typer.echo(f"a price at its floor leaves {answer.target_margin_percent} %")
    months = [{"model": each.model} | msgspec.to_builtins(each.projected_month) for each in side.models]
    print_rows(f"{title}: projected month", months, ("model", "cost", "revenue", "margin"), right=_MONEY)
    gpus = [{"bucket": bucket, "cost": cost} for bucket, cost in side.buckets.items()]
    print_rows(f"{title}: GPUs", gpus, ("bucket", "cost"), right=("cost",))
    if side.utilisation_percent is not None:
        typer.echo(f"requests took {side.utilisation_percent} % of what the GPUs cost")
    if side.unspread != "0":
        typer.echo(f"nobody bears {side.unspread} of it")
    if side.unknown:
        typer.echo(
            f"of {side.unknown} executions and windows the cost is not known: publish rates of their GPUs", err=True
        )


def _token_rows(model: "ModelCosts") -> list[dict[str, Any]]:
    return [
        {"model": model.model, "class": each.value, "tokens": cost.tokens}
        | {"direct": cost.direct, "loaded": cost.loaded, "price floor": cost.price_floor}
        for each, cost in model.tokens.items()
        if cost.tokens
    ]
