"""What a training run has cost, and what it will have cost when it ends: from the lines that its speed monitor writes.

A run holds whole GPUs from its start on, so its cost is their hourly rate over the time it has run, whatever it did with them.
How well it used them (MFU) stands beside it and changes no amount. Wire format: README.md, "Training runs"."""

import hashlib
import re
from collections.abc import Iterable
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
from msgspec import Struct

from engine.alerts import Level, Phase, Standing, step
from engine.cost.gpu_rates import PPM, GpuRates
from engine.cost.served import GPUS_MAX, TIME_US_MAX, GpuPart
from engine.events import TEXT_MAX, Malformed
from engine.money import amount_text, round_half_even

TRAINING_GPUS_MAX: Final = GPUS_MAX * 100
LINE_CHARACTERS_MAX: Final = 4_096
BATCH_MAX: Final = 10**12
FLOPS_MAX: Final = 10**24
MFU_GAP_PPM: Final = PPM // 100  # further apart, the run and we do not mean the same GPU or precision

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]


class Unit(StrEnum):
    """In what a run states its times."""

    SECONDS = "seconds"
    MINUTES = "minutes"
    HOURS = "hours"
    DAYS = "days"


_UNIT_US: Final = {
    Unit.SECONDS: 1_000_000,
    Unit.MINUTES: 60_000_000,
    Unit.HOURS: 3_600_000_000,
    Unit.DAYS: 86_400_000_000,
}

_HOPPER_SXM: Final = {
    "fp32": 67_000,
    "tf32": 494_500,
    "fp16": 989_500,
    "bf16": 989_500,
    "fp8": 1_979_000,
    "int8": 1_979_000,
}
# What makers state for dense matrices, in 10^9 operations a second, by what speed monitors call the GPU and the precision.
_PEAK: Final = {
    "h200-sxm": _HOPPER_SXM,
    "h100-sxm": _HOPPER_SXM,
    "h100-pcie": {
        "fp32": 51_000,
        "tf32": 378_000,
        "fp16": 756_500,
        "bf16": 756_500,
        "fp8": 1_513_000,
        "int8": 1_513_000,
    },
    "a100": {"fp32": 19_500, "tf32": 156_000, "fp16": 312_000, "bf16": 312_000},
    "a10": {"fp32": 31_200, "tf32": 62_500, "fp16": 125_000, "bf16": 125_000},
    "v100-sxm": {"fp32": 15_700, "fp16": 125_000},
    "v100-pcie": {"fp32": 14_000, "fp16": 112_000},
    "t4": {"fp32": 8_100, "fp16": 65_000, "int8": 130_000},
}
_GIGA: Final = 10**9


def peak_flops(gpu: str, precision: str) -> int | None:
    """Operations a second that a GPU of this kind can do in this precision; None where nobody has told us."""
    giga = _PEAK.get(gpu, {}).get(precision.removeprefix("amp_"))
    return None if giga is None else giga * _GIGA


class TrainingRun(Struct, forbid_unknown_fields=True, frozen=True):
    """A run, as its owner declares it. Amounts are pico-units of the currency of the rates."""

    run: _Name
    gpu: _Name  # the kind that names the rate
    gpus: Annotated[int, msgspec.Meta(ge=1, le=TRAINING_GPUS_MAX)]
    started_us: Annotated[int, msgspec.Meta(ge=0, le=TIME_US_MAX)]
    unit: Unit = Unit.HOURS  # of its times, unless its log says otherwise of the remaining one
    budget: int | None = None  # None: nothing is told
    level: Level = "warning"
    precision: str = "bf16"
    peak: int | None = None  # operations a second of one GPU; None: what is known of the kind


class Progress(Struct, frozen=True):
    """The last of everything that a run's log says. None: it does not say. Times are microseconds, rates a second."""

    batch: int = -1  # the highest seen
    elapsed_us: int | None = None  # running, training and evaluation together
    remaining_us: int | None = None
    flops: int | None = None  # of all GPUs
    device_flops: int | None = None  # of one
    mfu_ppm: int | None = None  # as the run itself works it out
    tokens_milli: int | None = None  # a thousandth of a token a second
    remaining_unit: Unit | None = None  # as its log says it, perhaps once, long before what is read next


class Projection(Struct, frozen=True):
    """What a run comes to. None: not known, for want of a rate or of a line of its log."""

    elapsed_us: int
    remaining_us: int | None
    gpu_us: int  # microseconds of GPUs by now
    spent: int | None  # rate and overhead, of all its GPUs, by now
    projected: int | None  # spent, and what the remaining time costs at the rates that are known for it
    mfu_ppm: int | None  # worked out from its operations a second and the peak of its GPUs
    told_mfu_ppm: int | None

    @property
    def mfu_agrees(self) -> bool | None:
        """Whether the run and we come to the same MFU within a hundredth of it; None where one of both is not known."""
        if not self.told_mfu_ppm or self.mfu_ppm is None:
            return None
        return abs(self.mfu_ppm - self.told_mfu_ppm) * PPM <= MFU_GAP_PPM * self.told_mfu_ppm


# ---------------------------------------------------------------------------------------------------------- its log

_PREFIX: Final = re.compile(r"\[metric\]\[batch=(\d{1,18})\]:\s*|\[hyperparameter\]:\s*")
_PAIR: Final = re.compile(r"([A-Za-z0-9_./-]{1,128})\s*[:=]\s*(\S{1,64})\s*\Z")
_WANTED: Final = {
    "time/total": "elapsed",
    "time/remaining_estimate": "remaining",
    "time/remaining_estimate_unit": "unit",
    "throughput/flops_per_sec": "flops",
    "throughput/device/flops_per_sec": "device_flops",
    "throughput/device/mfu": "mfu",
    "throughput/tokens_per_sec": "tokens",
}
_any_json: Final = msgspec.json.Decoder(float_hook=Decimal)


class ReadLog(Struct, frozen=True):
    """What came of reading a stretch of a log."""

    progress: Progress
    read: int  # lines with a key that is wanted
    faults: tuple[str, ...]  # lines whose value cannot be, with their number


def read_log(lines: Iterable[str], run: TrainingRun, before: Progress = Progress()) -> ReadLog:  # noqa: B008 - frozen
    """What the lines add to what is known of the run. Lines are `[metric][batch=7]: key: value` as a file logger writes them,
    bare `key: value` or `key=value`, or a JSON object of keys; whatever else stands in the log is passed over.

    Of two values the one of the higher batch counts, and of one batch the later: a log that is read twice changes nothing."""
    last: dict[str, tuple[int, Decimal]] = {}
    remaining_unit = before.remaining_unit
    read, batch, faults = 0, before.batch, []
    for number, line in enumerate(lines, start=1):
        for at, key, text in _pairs(line[:LINE_CHARACTERS_MAX]):
            name = _WANTED.get(key)
            if name is None:
                continue
            at = batch if at is None else at
            if at > BATCH_MAX:  # nothing that comes later would count beside it
                faults.append(f"line {number}: batch {str(at)[:40]} is more than {BATCH_MAX:,}")
                continue
            if at < before.batch:
                continue  # of a stretch that was read before
            if name == "unit":
                if text not in list(Unit):
                    faults.append(f"line {number}: {key} is {text[:40]!r}, none of {', '.join(Unit)}")
                    continue
                remaining_unit = Unit(text)
                read += 1
                continue
            value = _value(text)
            if value is None:
                faults.append(f"line {number}: {key} is {text[:40]!r}, no number of 0 or more")
                continue
            if name not in last or at >= last[name][0]:
                last[name] = at, value
            batch = max(batch, at)
            read += 1
    return ReadLog(_progress(before, batch, last, run.unit, remaining_unit), read, tuple(faults))


def _pairs(line: str) -> list[tuple[int | None, str, str]]:
    prefix = _PREFIX.match(line)
    batch = None if prefix is None or prefix[1] is None else int(prefix[1])
    body = line[prefix.end() :] if prefix is not None else line
    if body.lstrip().startswith("{"):
        try:
            found: Any = _any_json.decode(body)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return []
        step_of = found.get("step", found.get("batch"))
        told = found["metrics"] if isinstance(found.get("metrics"), dict) else found
        at = step_of if type(step_of) is int and step_of >= 0 else batch
        return [(at, key, str(value)) for key, value in told.items()]
    pair = _PAIR.match(body.strip())
    return [] if pair is None else [(batch, pair[1], pair[2].strip('",'))]


def _value(text: str) -> Decimal | None:
    try:
        value = Decimal(text)
    except InvalidOperation:
        return None
    # A number of a thousand digits would be multiplied out.
    if not value.is_finite():  # a signalling NaN is compared with nothing
        return None
    return value if (0 <= value <= FLOPS_MAX and value.adjusted() > -30) or value == 0 else None


def _times(value: tuple[int, Decimal] | None, factor: int, before: int | None) -> int | None:
    if value is None:
        return before
    numerator, denominator = value[1].as_integer_ratio()
    return round_half_even(numerator * factor, denominator)


def _progress(
    before: Progress, batch: int, last: dict[str, tuple[int, Decimal]], unit: Unit, remaining_unit: Unit | None
) -> Progress:
    return Progress(
        batch,
        _times(last.get("elapsed"), _UNIT_US[unit], before.elapsed_us),
        _times(last.get("remaining"), _UNIT_US[remaining_unit or unit], before.remaining_us),
        _times(last.get("flops"), 1, before.flops),
        _times(last.get("device_flops"), 1, before.device_flops),
        _times(last.get("mfu"), PPM, before.mfu_ppm),
        _times(last.get("tokens"), 1_000, before.tokens_milli),
        remaining_unit,
    )


# ---------------------------------------------------------------------------------------------------------- its cost


def project(run: TrainingRun, progress: Progress, rates: GpuRates | None) -> Projection:
    """What the run has cost and will have cost. Every stretch costs what the rates of its time say, so a rate that is known
    to change before the end changes the projection."""
    elapsed_us, remaining_us = progress.elapsed_us or 0, progress.remaining_us
    end_us = run.started_us + elapsed_us
    spent = _cost(run, rates, run.started_us, end_us)
    projected = None if remaining_us is None else _cost(run, rates, run.started_us, end_us + remaining_us)
    return Projection(
        elapsed_us, remaining_us, elapsed_us * run.gpus, spent, projected, _mfu(run, progress), progress.mfu_ppm
    )


def _cost(run: TrainingRun, rates: GpuRates | None, begin_us: int, end_us: int) -> int | None:
    if rates is None:
        return None
    # Adjoining stretches of one GPU add up exactly, and all its GPUs are alike.
    found = rates.cost([GpuPart("", run.gpu)], begin_us, end_us)
    return None if found is None else (found[0] + found[1]) * run.gpus


def _mfu(run: TrainingRun, progress: Progress) -> int | None:
    peak = run.peak if run.peak is not None else peak_flops(run.gpu, run.precision)
    if not peak:
        return None
    if progress.device_flops is not None:
        return round_half_even(progress.device_flops * PPM, peak)
    return None if progress.flops is None else round_half_even(progress.flops * PPM, peak * run.gpus)


# --------------------------------------------------------------------------------------------------------- its budget


class BudgetAlert(Struct, frozen=True):
    """The projection has come to exceed the budget, or fits it again."""

    alert_id: str
    body: bytes


class _Data(Struct):
    account: str  # "": it is the seller's; no customer's endpoint hears of it
    rule: str  # the run
    ordinal: int
    level: str
    gpu: str
    gpus: int
    spent: str
    projected: str
    budget: str
    currency: str
    batch: int


class _Body(Struct):
    id: str
    type: str
    data: _Data


def judge(
    run: TrainingRun, progress: Progress, found: Projection, currency: str, standing: Standing
) -> tuple[Standing, BudgetAlert | None]:
    """How the budget stands by the projection. What is not known says nothing, and neither does a run without a budget."""
    if run.budget is None or found.projected is None or found.spent is None:
        return standing, None
    over = found.projected > run.budget
    after, phase = step(standing, reached=over, cleared=not over)
    return after, None if phase is None else _alert(run, progress, found, currency, after, phase)


def _alert(
    run: TrainingRun, progress: Progress, found: Projection, currency: str, standing: Standing, phase: Phase
) -> BudgetAlert:
    text = "\x00".join((run.run, str(standing.ordinal), phase))
    alert_id = "training_" + hashlib.sha256(text.encode()).hexdigest()[:32]
    data = _Data(
        *("", run.run, standing.ordinal, run.level, run.gpu, run.gpus),
        *(amount_text(found.spent or 0), amount_text(found.projected or 0), amount_text(run.budget or 0)),
        *(currency, progress.batch),
    )
    return BudgetAlert(alert_id, msgspec.json.encode(_Body(alert_id, f"training.{phase}", data)))


def checked_run(run: TrainingRun) -> TrainingRun:
    """The same. Raises Malformed, naming the field, for what makes no sense."""
    if run.budget is not None and run.budget < 0:
        raise Malformed(f"budget: {amount_text(run.budget)} is below 0")
    if run.peak is not None and not 0 < run.peak <= FLOPS_MAX:
        raise Malformed(f"peak: {run.peak} operations a second is no peak of a GPU")
    return run
