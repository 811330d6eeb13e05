"""Training runs over HTTP: what they have cost, and will have: for the seller, never for a key that is bound to one account."""

from typing import Annotated, Final

from msgspec import Meta, Struct

from actors.training_runs import RUNS_MAX, KeptRun, TooManyRuns
from actors.web.acts import ACT_DEADLINE_S, ACT_REFUSALS, ACT_TEXT, Entry, administered
from actors.web.times import instant, read_instant
from actors.web.wire import Call, Example, KeyScope, Problem, Reply, Route, absent, invalid
from engine.alerts import Level
from engine.cost.gpu_rates import HOUR_US, PPM
from engine.cost.training import LINE_CHARACTERS_MAX, TRAINING_GPUS_MAX, Projection, TrainingRun, Unit, checked_run
from engine.events import Malformed
from engine.money import NotADecimal, amount_text, parse_amount

LINES_MAX: Final = 5_000
LOG_BYTES_MAX: Final = 1_048_576
_FAULTS_SHOWN: Final = 20

Name = Annotated[str, Meta(min_length=1, max_length=256)]


class TrainingRunRequest(Struct, forbid_unknown_fields=True):
    """A training run: which GPUs it holds, since when, and what it may cost."""

    gpu: Name  # the kind, as the rates name it
    gpus: Annotated[int, Meta(ge=1, le=TRAINING_GPUS_MAX)]
    started: str  # RFC 3339
    budget: Annotated[str, Meta(max_length=32)] | None = None  # in the currency of the rates; absent: nothing is told
    level: Level = "warning"
    unit: Unit = Unit.HOURS  # of the times in its log
    precision: Annotated[str, Meta(min_length=1, max_length=16)] = "bf16"
    peak_flops: Annotated[int, Meta(ge=1)] | None = None  # of one GPU; absent: what is known of the kind


class TrainingLog(Struct, forbid_unknown_fields=True):
    """Lines of the run's log, in their order; those that were sent before may be among them."""

    lines: Annotated[
        list[Annotated[str, Meta(max_length=LINE_CHARACTERS_MAX)]], Meta(min_length=1, max_length=LINES_MAX)
    ]


class TrainingRunItem(Struct):
    """A run. What is not known is null: for want of a rate, or of a line in its log."""

    run: str
    gpu: str
    gpus: int
    started: str
    batch: int | None
    elapsed_s: str
    remaining_s: str | None
    gpu_hours: str
    currency: str | None
    spent: str | None
    projected: str | None
    budget: str | None
    over_budget: bool  # the projection exceeds the budget, and that has been told
    ordinal: int  # how often it has come to exceed it
    mfu_percent: str | None  # worked out from its operations a second
    told_mfu_percent: str | None  # as the run itself says
    mfu_agrees: bool | None  # to a hundredth


class TrainingRunList(Struct):
    items: list[TrainingRunItem]


class TrainingLogRead(Struct):
    """What came of the lines."""

    run: TrainingRunItem | None  # how it stands then, for who may see money: a key with `admin`
    read: int  # lines that say something of it
    faults: list[str]  # lines whose value cannot be: the first of them


async def put_run(call: Call, entry: Entry) -> Reply:
    """PUT /v1/training-runs/{run}."""
    asked: TrainingRunRequest = call.body
    started_us = read_instant("started", asked.started)
    assert started_us is not None
    try:
        budget = None if asked.budget is None else parse_amount(asked.budget)
    except NotADecimal as error:
        raise invalid("budget", str(error)) from None
    name = call.params["run"]
    entry.subject, entry.after = name, asked
    run = TrainingRun(
        *(name, asked.gpu, asked.gpus, started_us, asked.unit, budget, asked.level, asked.precision, asked.peak_flops)
    )
    try:
        await call.services.training.put(checked_run(run))
    except Malformed as error:
        raise invalid(str(error).partition(":")[0], str(error).partition(": ")[2]) from None
    except TooManyRuns:
        raise Problem(
            422,
            "too-many-training-runs",
            "Too many training runs",
            f"There are {RUNS_MAX:,} runs already.",
            next_step="Remove one that has ended.",
            field="run",
        ) from None
    return Reply()


async def remove_run(call: Call, entry: Entry) -> Reply:
    """DELETE /v1/training-runs/{run}."""
    entry.subject = call.params["run"]
    if not await call.services.training.remove(call.params["run"]):
        raise absent("training run")
    return Reply()


async def read_run_log(call: Call) -> Reply:
    """POST /v1/training-runs/{run}/log."""
    sent: TrainingLog = call.body
    moved = await call.services.training.move_on(call.params["run"], sent.lines)
    if moved is None:
        raise absent("training run")
    kept, read = moved
    item = None
    if call.key is not None and KeyScope.ADMIN in call.key.scopes:
        found, currency = await call.services.training.projected([kept])
        item = _item(kept, found[0], currency)
    return Reply(TrainingLogRead(item, read.read, list(read.faults[:_FAULTS_SHOWN])))


async def list_runs(call: Call) -> Reply:
    """GET /v1/training-runs."""
    kept = await call.services.training.all()
    found, currency = await call.services.training.projected(kept)
    return Reply(TrainingRunList([_item(each, what, currency) for each, what in zip(kept, found, strict=True)]))


def _item(kept: KeptRun, found: Projection, currency: str | None) -> TrainingRunItem:
    run, progress = kept.run, kept.progress
    return TrainingRunItem(
        run=run.run,
        gpu=run.gpu,
        gpus=run.gpus,
        started=instant(run.started_us),
        batch=progress.batch if progress.batch >= 0 else None,
        elapsed_s=_fixed(found.elapsed_us, 1_000_000, 3),
        remaining_s=None if found.remaining_us is None else _fixed(found.remaining_us, 1_000_000, 3),
        gpu_hours=_fixed(found.gpu_us, HOUR_US, 3),
        currency=currency,
        spent=_amount(found.spent),
        projected=_amount(found.projected),
        budget=_amount(run.budget),
        over_budget=kept.standing.active,
        ordinal=kept.standing.ordinal,
        mfu_percent=_percent(found.mfu_ppm),
        told_mfu_percent=_percent(found.told_mfu_ppm),
        mfu_agrees=found.mfu_agrees,
    )


def _amount(pico: int | None) -> str | None:
    return None if pico is None else amount_text(pico)


def _percent(ppm: int | None) -> str | None:
    return None if ppm is None else _fixed(ppm, PPM // 100, 2)


def _fixed(value: int, unit: int, digits: int) -> str:
    whole, rest = divmod(value * 10**digits // unit, 10**digits)
    return f"{whole}.{rest:0{digits}d}"


_RUN: Final = {"run": "atlas-3-pretrain"}
_ITEM: Final = {
    "run": "atlas-3-pretrain",
    "gpu": "h100-sxm",
    "gpus": 64,
    "started": "2026-11-20T10:00:00Z",
    "batch": 5000,
    "elapsed_s": "172800.000",
    "remaining_s": "345600.000",
    "gpu_hours": "3072.000",
    "currency": "USD",
    "spent": "6451.2",
    "projected": "19353.6",
    "budget": "18000",
    "over_budget": True,
    "ordinal": 1,
    "mfu_percent": "41.20",
    "told_mfu_percent": "41.20",
    "mfu_agrees": True,
}

ROUTES: Final = (
    Route(
        method="PUT",
        path="/v1/training-runs/{run}",
        scope=KeyScope.ADMIN,
        handler=administered("training_run.set", put_run, "run"),
        summary="Declare or change a training run",
        description=(
            "What it has cost is the rate of its GPUs over the time that its log says it has run; what it will have cost, that "
            "and the remaining time. When the projection comes to exceed `budget` the webhook endpoints that hear all accounts "
            "are told `training.crossed`, and `training.recovered` when it fits again, with one id each." + ACT_TEXT
        ),
        tags=("margin",),
        example=Example(
            params=_RUN,
            request={
                "gpu": "h100-sxm",
                "gpus": 64,
                "started": "2026-11-20T10:00:00Z",
                "budget": "18000",
                "level": "critical",
            },
        ),
        request=TrainingRunRequest,
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also=ACT_REFUSALS,
    ),
    Route(
        method="DELETE",
        path="/v1/training-runs/{run}",
        scope=KeyScope.ADMIN,
        handler=administered("training_run.remove", remove_run, "run"),
        summary="Remove a training run",
        description="Nothing is told of it any more. Should it come again, its crossings go on with the next ordinal."
        + ACT_TEXT,
        tags=("margin",),
        example=Example(params=_RUN),
        status=204,
        deadline_s=ACT_DEADLINE_S,
        also={404: "There is no such run.", **ACT_REFUSALS},
    ),
    Route(
        method="POST",
        path="/v1/training-runs/{run}/log",
        scope=KeyScope.INGEST,
        handler=read_run_log,
        summary="Send lines of a training run's log",
        description=(
            "As a speed monitor and a runtime estimator write them: `[metric][batch=7]: time/total: 1.5`, bare `key: value`, "
            "or a JSON object of keys a line. Read are `time/total`, `time/remaining_estimate` and its unit, "
            "`throughput/flops_per_sec`, `throughput/device/flops_per_sec`, `throughput/device/mfu` and "
            "`throughput/tokens_per_sec`; all else is passed over. Lines that come twice change nothing."
        ),
        tags=("margin",),
        example=Example(
            params=_RUN,
            request={"lines": ["[metric][batch=5000]: time/total: 48.0", "time/remaining_estimate: 96.0"]},
            response={"run": _ITEM, "read": 2, "faults": []},
        ),
        request=TrainingLog,
        response=TrainingLogRead,
        body_bytes_max=LOG_BYTES_MAX,
        also={404: "There is no such run."},
    ),
    Route(
        method="GET",
        path="/v1/training-runs",
        scope=KeyScope.ADMIN,
        handler=list_runs,
        summary="List training runs",
        description="What each has cost, and will have cost when it ends, under the newest rates.",
        tags=("margin",),
        example=Example(response={"items": [_ITEM]}),
        response=TrainingRunList,
    ),
)
