"""`tallygate training`: what training runs have cost, and will have cost when they end."""

from pathlib import Path
from typing import Annotated, Any

import typer

from actors.cli.over_http import ApiKey, Url, change, get, path_to
from actors.cli.terminal import FAILED, WRONG_INPUT, AsJson, fail, instant_of, print_rows
from engine.cost.gpu_rates import GpuRate, GpuRates, RateDocument, parse_rates
from engine.cost.training import Projection, TrainingRun, Unit, checked_run, project, read_log
from engine.events import Malformed
from engine.money import NotADecimal, amount_text, parse_amount

app = typer.Typer(help="What training runs have cost, and will have cost.", no_args_is_help=True)

LINES_SENT = 2_000  # with one request
_COLUMNS = (
    "run",
    "gpu",
    "gpus",
    "gpu_hours",
    "spent",
    "projected",
    "budget",
    "over_budget",
    "mfu_percent",
    "mfu_agrees",
)
_RIGHT = ("gpus", "gpu_hours", "spent", "projected", "budget", "mfu_percent")

_Run = Annotated[str, typer.Argument(help="The run's name.")]
_Log = Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The log that the run writes.")]
_Gpu = Annotated[str, typer.Option(help="The kind of its GPUs, as the rates name it.")]
_Gpus = Annotated[int, typer.Option(min=1, help="How many it holds.")]
_Budget = Annotated[str | None, typer.Option(help="The most it may cost, in the currency of the rates.")]
_Unit = Annotated[Unit, typer.Option(help="Of the times in its log.")]
_Precision = Annotated[str, typer.Option(help="Of its numbers, for MFU.")]


@app.command("cost")
def show_cost(
    log: _Log,
    gpu: _Gpu,
    gpus: _Gpus,
    rates: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="A document of rates, as `gpu-rates publish` takes it."),
    ] = None,
    per_hour: Annotated[str | None, typer.Option(help="In place of --rates: what one costs in an hour.")] = None,
    started: Annotated[str, typer.Option(help="RFC 3339; matters where rates change.")] = "2000-01-01T00:00:00Z",
    budget: _Budget = None,
    unit: _Unit = Unit.HOURS,
    precision: _Precision = "bf16",
    peak_flops: Annotated[int | None, typer.Option(help="Of one GPU, where its kind is not known.")] = None,
    as_json: AsJson = False,
) -> None:
    """Work out what a recorded run has cost. Asks nobody. Exit status 1: it will cost more than --budget, or nobody knows."""
    try:
        priced = _rates(rates, gpu, per_hour)
        run = TrainingRun(
            *(log.stem or "run", gpu, gpus, instant_of("--started", started), unit),
            budget=None if budget is None else _amount("--budget", budget),
            precision=precision,
            peak=peak_flops,
        )
        read = read_log(log.read_text(encoding="utf-8", errors="replace").splitlines(), checked_run(run))
    except Malformed as error:
        fail(str(error), WRONG_INPUT)
    if not read.read:
        fail(f"{log}: no line has a key of a speed monitor, such as time/total", FAILED)
    for fault in read.faults:
        typer.echo(f"{log}: {fault}", err=True)
    found = project(run, read.progress, priced)
    rows = [_row(run, found, priced.currency)]
    print_rows(
        f"Training run, {priced.currency}",
        rows,
        [name for name in _COLUMNS if name != "over_budget"],
        _RIGHT,
        as_json=as_json,
    )
    if found.mfu_agrees is False:
        typer.echo("its own MFU is another: check --gpu, --precision and --gpus, or give --peak-flops", err=True)
    if run.budget is not None and found.projected is None:
        fail("what it will have cost is not known: its log has no time/remaining_estimate, or its GPUs no rate", FAILED)
    if run.budget is not None and found.projected is not None and found.projected > run.budget:
        fail(f"what it will have cost exceeds the budget by {amount_text(found.projected - run.budget)}", FAILED)


def _amount(option: str, text: str) -> int:
    try:
        return parse_amount(text)
    except NotADecimal as error:
        fail(f"{option}: {error}", WRONG_INPUT)


def _rates(file: Path | None, gpu: str, per_hour: str | None) -> GpuRates:
    if (file is None) is (per_hour is None):
        raise Malformed("give either --rates or --per-hour")
    if file is not None:
        return parse_rates(file.read_bytes())
    return GpuRates(RateDocument(1, "USD", (GpuRate(gpu, 0, per_hour or ""),)))


def _row(run: TrainingRun, found: Projection, currency: str) -> dict[str, Any]:
    def percent(ppm: int | None) -> str | None:
        return None if ppm is None else f"{ppm // 10_000}.{ppm // 100 % 100:02d}"

    hours = found.gpu_us * 1_000 // 3_600_000_000
    return {
        "run": run.run,
        "gpu": run.gpu,
        "gpus": run.gpus,
        "gpu_hours": f"{hours // 1_000}.{hours % 1_000:03d}",
        "currency": currency,
        "spent": None if found.spent is None else amount_text(found.spent),
        "projected": None if found.projected is None else amount_text(found.projected),
        "budget": None if run.budget is None else amount_text(run.budget),
        "mfu_percent": percent(found.mfu_ppm),
        "told_mfu_percent": percent(found.told_mfu_ppm),
        "mfu_agrees": found.mfu_agrees,
    }


@app.command("set")
def set_run(
    run: _Run,
    gpu: _Gpu,
    gpus: _Gpus,
    started: Annotated[str, typer.Option(help="RFC 3339: since when it holds them.")],
    budget: _Budget = None,
    level: Annotated[str, typer.Option(help="info, warning or critical.")] = "warning",
    unit: _Unit = Unit.HOURS,
    precision: _Precision = "bf16",
    peak_flops: Annotated[int | None, typer.Option(help="Of one GPU, where its kind is not known.")] = None,
    url: Url = None,
    key: ApiKey = None,
) -> None:
    """Declare or change a run. A webhook tells when it will cost more than its budget."""
    asked = {
        "gpu": gpu,
        "gpus": gpus,
        "started": started,
        "budget": budget,
        "level": level,
        "unit": unit.value,
        "precision": precision,
        "peak_flops": peak_flops,
    }
    body = {field: value for field, value in asked.items() if value is not None}
    change(url, key, "PUT", path_to("training-runs", run), body)
    typer.echo(f"{run}: {gpus} {gpu} since {started}" + ("" if budget is None else f", for at most {budget}"))


@app.command("report")
def send_log(run: _Run, log: _Log, url: Url = None, key: ApiKey = None) -> None:
    """Send the run's log as it stands; what was sent before changes nothing."""
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if _said(line)]
    if not lines:
        fail(f"{log}: no line has a key of a speed monitor, such as time/total", FAILED)
    for begin in range(0, len(lines), LINES_SENT):
        body = {"lines": lines[begin : begin + LINES_SENT]}
        answer = change(url, key, "POST", path_to("training-runs", run, "log"), body)
        for fault in answer["faults"]:
            typer.echo(f"{log}: {fault}", err=True)
    if answer["run"] is None:
        typer.echo(f"{run}: {len(lines)} lines sent; how it stands is told to a key with the scope admin")
    else:
        print_rows("Training run", [answer["run"]], _COLUMNS, right=_RIGHT)


def _said(line: str) -> bool:
    return "time/" in line or "throughput/" in line


@app.command("remove")
def remove_run(run: _Run, url: Url = None, key: ApiKey = None) -> None:
    """Remove a run. Nothing is told of it any more."""
    change(url, key, "DELETE", path_to("training-runs", run))
    typer.echo(f"{run}: is gone")


@app.command("list")
def list_runs(as_json: AsJson = False, url: Url = None, key: ApiKey = None) -> None:
    """List the runs, what each has cost, and will have cost."""
    items = get(url, key, path_to("training-runs"))["items"]
    print_rows("Training runs", items, _COLUMNS, right=_RIGHT, as_json=as_json)
