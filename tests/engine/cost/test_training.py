"""What a training run has cost and will have cost, from the log that its speed monitor writes."""

from decimal import Decimal
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from engine.alerts import Standing
from engine.cost.gpu_rates import HOUR_US, PPM, GpuRate, GpuRates, RateDocument
from engine.cost.training import (
    MFU_GAP_PPM,
    Progress,
    TrainingRun,
    Unit,
    checked_run,
    judge,
    peak_flops,
    project,
    read_log,
)
from engine.events import Malformed
from engine.money import PICO

LOG = (Path(__file__).parents[2] / "pages" / "speed_monitor.txt").read_text().splitlines()
START_US = 490_000 * HOUR_US
RUN = TrainingRun("pretrain", "h100-sxm", 64, START_US, budget=18_000 * PICO)
RATES = GpuRates(RateDocument(1, "USD", (GpuRate("h100-sxm", 0, "2.10"),)))


def rates(*dated: tuple[int, str], overhead_ppm: int = 0) -> GpuRates:
    document = RateDocument(1, "USD", tuple(GpuRate("h100-sxm", at, amount, overhead_ppm) for at, amount in dated))
    return GpuRates(document)


def test_a_recorded_run_costs_its_gpu_hours_times_the_price() -> None:
    read = read_log(LOG, RUN)
    assert read.faults == ()
    found = project(RUN, read.progress, RATES)
    assert found.gpu_us == 64 * 48 * HOUR_US
    assert found.spent == 64 * 48 * 210 * PICO // 100
    assert found.projected == 64 * (48 + 96) * 210 * PICO // 100


def test_mfu_is_worked_out_again_to_a_hundredth_of_what_the_run_says() -> None:
    found = project(RUN, read_log(LOG, RUN).progress, RATES)
    assert found.told_mfu_ppm == 412_000
    assert found.mfu_ppm is not None and abs(found.mfu_ppm - 412_000) * PPM <= MFU_GAP_PPM * 412_000
    assert found.mfu_agrees is True
    # Of all its GPUs it is the same, and on another kind of GPU it is not.
    whole = [line for line in LOG if "throughput/device/flops" not in line]
    assert project(RUN, read_log(whole, RUN).progress, RATES).mfu_ppm == found.mfu_ppm
    pcie = replace(RUN, gpu="h100-pcie")
    assert project(pcie, read_log(LOG, pcie).progress, RATES).mfu_agrees is False
    mine = replace(RUN, gpu="mine", peak=989_500_000_000_000)
    assert project(mine, read_log(LOG, mine).progress, RATES).mfu_agrees is True


@pytest.mark.parametrize("precision", ["amp_bf16", "bf16", "fp8"])
@pytest.mark.parametrize("gpu", ["h200-sxm", "h100-sxm", "h100-pcie", "a100", "a10", "t4"])
def test_what_a_speed_monitor_would_say_is_agreed_with(gpu: str, precision: str) -> None:
    """With the peaks that Composer's divides by."""
    theirs = {
        ("h200-sxm", "bf16"): "1.979e15",
        ("h100-sxm", "bf16"): "1.979e15",
        ("h100-pcie", "bf16"): "1.513e15",
        ("a100", "bf16"): "624e12",
        ("a10", "bf16"): "250e12",
        ("h200-sxm", "fp8"): "3.958e15",
        ("h100-sxm", "fp8"): "3.958e15",
        ("h100-pcie", "fp8"): "3.026e15",
    }.get((gpu, precision.removeprefix("amp_")))
    known = peak_flops(gpu, precision)
    assert (known is None) is (theirs is None)
    if theirs is None:
        return
    run = replace(RUN, gpu=gpu, precision=precision)
    lines = [f"throughput/device/flops_per_sec: {Decimal(theirs) / 8}", "throughput/device/mfu: 0.25"]
    assert project(run, read_log(lines, run).progress, None).mfu_agrees is True


def test_each_stretch_costs_what_the_rates_of_its_time_say() -> None:
    """12 hours at $2, 12 at $3, and 24 that remain at $4, with a tenth of overhead."""
    priced = rates((0, "2"), (START_US + 12 * HOUR_US, "3"), (START_US + 24 * HOUR_US, "4"), overhead_ppm=100_000)
    run = replace(RUN, gpus=10)
    found = project(run, Progress(elapsed_us=24 * HOUR_US, remaining_us=24 * HOUR_US), priced)
    assert found.spent == (24 + 36) * 10 * 11 * PICO // 10
    assert found.projected == (24 + 36 + 96) * 10 * 11 * PICO // 10


@pytest.mark.parametrize(
    ("lines", "elapsed_us", "remaining_us"),
    [
        (["time/total: 1.5", "time/remaining_estimate: 0.5"], 3 * HOUR_US // 2, HOUR_US // 2),
        (["time/total=1.5"], 3 * HOUR_US // 2, None),
        (['{"step": 3, "metrics": {"time/total": 2, "time/remaining_estimate": 1e-3}}'], 2 * HOUR_US, HOUR_US // 1_000),
        (['[metric][batch=7]: {"time/total": 0.25, "loss": null}'], HOUR_US // 4, None),
        (["time/remaining_estimate_unit: seconds", "time/remaining_estimate: 90"], None, 90_000_000),
        (
            ["time/remaining_estimate: 90", "[hyperparameter]: time/remaining_estimate_unit: minutes"],
            None,
            5_400_000_000,
        ),
    ],
)
def test_every_form_of_a_line_is_read(lines: list[str], elapsed_us: int | None, remaining_us: int | None) -> None:
    progress = read_log(lines, RUN).progress
    assert (progress.elapsed_us, progress.remaining_us) == (elapsed_us, remaining_us)


def test_the_unit_that_a_log_says_once_is_that_of_all_that_it_says_later() -> None:
    """A log is sent in parts, and says at its very beginning that it remains in minutes."""
    first = read_log(
        ["[hyperparameter]: time/remaining_estimate_unit: minutes", "[metric][batch=1]: time/remaining_estimate: 90"],
        RUN,
    ).progress
    later = read_log(["[metric][batch=2]: time/remaining_estimate: 60"], RUN, first).progress
    assert (first.remaining_us, later.remaining_us) == (3 * HOUR_US // 2, HOUR_US)
    assert msgspec.json.decode(msgspec.json.encode(later), type=Progress) == later
    lines = ["time/remaining_estimate_unit: hours", "[metric][batch=3]: time/remaining_estimate: 2"]
    assert read_log(lines, RUN, later).progress.remaining_us == 2 * HOUR_US


def test_times_are_in_the_unit_of_the_run() -> None:
    days = replace(RUN, unit=Unit.DAYS)
    assert read_log(["time/total: 2"], days).progress.elapsed_us == 48 * HOUR_US


def test_what_cannot_be_is_told_and_changes_nothing() -> None:
    lines = [
        "time/total: nan",
        "time/total: -1",
        "time/remaining_estimate_unit: fortnights",
        "time/total: 1e999999",
        "time/total: snan",
        "{not",
    ]
    read = read_log(lines, RUN)
    assert (read.progress, read.read, len(read.faults)) == (Progress(), 0, 5)
    assert "line 2: time/total is '-1'" in read.faults[1] and "fortnights" in read.faults[2]


@given(st.integers(0, 1 << 32).map(Random), st.integers(0, len(LOG)))
def test_a_log_that_is_read_in_parts_and_twice_says_what_it_says_at_once(random: Random, cut: int) -> None:
    whole = read_log(LOG, RUN).progress
    first = read_log(LOG[:cut], RUN).progress
    assert read_log(LOG[random.randint(0, cut) :], RUN, first).progress == whole
    assert read_log(LOG, RUN, whole).progress == whole
    assert read_log(LOG[: len(LOG) // 2], RUN, whole).progress == whole, "an old part of it takes nothing back"


def test_what_is_not_known_is_null_and_never_0() -> None:
    progress = read_log(LOG, RUN).progress
    for unknown in (None, rates((START_US + HOUR_US, "2"))):
        found = project(RUN, progress, unknown)
        assert (found.spent, found.projected) == (None, None)
        assert judge(RUN, progress, found, "USD", Standing()) == (Standing(), None)
    started = project(RUN, Progress(), RATES)
    assert (started.spent, started.projected, started.mfu_ppm, started.mfu_agrees) == (0, None, None, None)


def test_a_projection_beyond_the_budget_is_told_once_and_when_it_fits_again() -> None:
    told, standing = [], Standing()
    for remaining_h in (50, 96, 120, 80, 96):
        progress = Progress(5, 48 * HOUR_US, remaining_h * HOUR_US)
        standing, alert = judge(RUN, progress, project(RUN, progress, RATES), "USD", standing)
        told.append(None if alert is None else msgspec.json.decode(alert.body))
    assert [each and (each["type"], each["data"]["ordinal"]) for each in told] == [
        None,
        ("training.crossed", 1),
        None,
        ("training.recovered", 1),
        ("training.crossed", 2),
    ]
    assert told[1] is not None
    data = told[1]["data"]
    assert (data["account"], data["rule"], data["spent"], data["budget"]) == (
        "",
        "pretrain",
        "6451.200000000000",
        "18000",
    )
    assert data["projected"] == "19353.600000000000"
    assert len({each["id"] for each in told if each}) == 3
    exactly = replace(RUN, budget=project(RUN, progress, RATES).projected)
    assert judge(exactly, progress, project(exactly, progress, RATES), "USD", Standing())[1] is None
    free = replace(RUN, budget=None)
    assert judge(free, progress, project(free, progress, RATES), "USD", Standing()) == (Standing(), None)


@pytest.mark.parametrize(
    ("change", "told"), [({"budget": -1}, "budget"), ({"peak": 0}, "peak"), ({"peak": 10**25}, "peak")]
)
def test_a_run_that_makes_no_sense_is_refused_by_its_field(change: dict[str, int], told: str) -> None:
    with pytest.raises(Malformed, match=f"^{told}: "):
        checked_run(replace(RUN, **change))


@pytest.mark.parametrize(
    "line", ["[metric][batch=999999999999999999]: time/total: 0", '{"step": 10000000000000, "time/total": 0}']
)
def test_a_batch_beyond_reason_is_a_fault_and_freezes_nothing(line: str) -> None:
    read = read_log([line], RUN)
    assert read.progress == Progress()
    assert len(read.faults) == 1 and "is more than" in read.faults[0]
    assert read_log(LOG, RUN, read.progress).progress == read_log(LOG, RUN).progress
