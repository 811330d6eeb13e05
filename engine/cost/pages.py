"""What the lines of exporters' pages mean: dcgm-exporter before and after 4.9.0, vLLM (plain and through Ray), SGLang.

A page comes as `Series`; who reads its text is no matter of this file. Nothing is guessed: what a page does not say, or
says in a way that cannot be, is left out, and the latter is told.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Final

from msgspec import Struct

from engine.cost.served import TIME_US_MAX
from engine.cost.telemetry import RATIOS, VALUE_MAX, Metric, Owner, Sample, SourceKind
from engine.money import round_half_even

_MIB: Final = 1 << 20


class Series(Struct, frozen=True, gc=False):
    """One line of a page. `name` is without a counter's `_total`."""

    name: str
    kind: str  # as # TYPE says: counter, gauge, histogram, summary, unknown
    labels: dict[str, str]
    value: Decimal
    time_us: int | None = None  # if the line has a time of its own


class Page(Struct, frozen=True):
    """What a page says. `faults` are what it says and cannot be, a line each."""

    samples: tuple[Sample, ...]
    faults: tuple[str, ...] = ()


# name: (metric, factor that makes it the metric's unit)
_DCGM: Final = {
    "DCGM_FI_DEV_POWER_USAGE": (Metric.POWER, 1_000),
    "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION": (Metric.ENERGY, 1_000),
    "DCGM_FI_DEV_GPU_UTIL": (Metric.BUSY, 10),
    "DCGM_FI_DEV_FB_USED": (Metric.MEMORY_USED, _MIB),
    "DCGM_FI_DEV_FB_TOTAL": (Metric.MEMORY_TOTAL, _MIB),
    "DCGM_FI_PROF_GR_ENGINE_ACTIVE": (Metric.GRAPHICS_ACTIVE, 1_000),
    "DCGM_FI_PROF_SM_ACTIVE": (Metric.SM_ACTIVE, 1_000),
    "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE": (Metric.TENSOR_ACTIVE, 1_000),
    "DCGM_FI_PROF_DRAM_ACTIVE": (Metric.DRAM_ACTIVE, 1_000),
    # from 4.9.0 on
    "DCGM_FI_DEV_BOARD_POWER_WATTS": (Metric.POWER, 1_000),
    "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": (Metric.ENERGY, 1_000_000),
    "DCGM_FI_DEV_GPU_UTIL_RATIO": (Metric.BUSY, 1_000),
    "DCGM_FI_DEV_FB_USED_BYTES": (Metric.MEMORY_USED, 1),
    "DCGM_FI_DEV_FB_CAPACITY_BYTES": (Metric.MEMORY_TOTAL, 1),
    "DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO": (Metric.GRAPHICS_ACTIVE, 1_000),
    "DCGM_FI_PROF_SM_UTIL_RATIO": (Metric.SM_ACTIVE, 1_000),
    "DCGM_FI_PROF_TENSOR_UTIL_RATIO": (Metric.TENSOR_ACTIVE, 1_000),
    "DCGM_FI_PROF_DRAM_UTIL_RATIO": (Metric.DRAM_ACTIVE, 1_000),
}
# The driver measures these of the board; dcgm-exporter repeats them for each MIG instance on it.
_OF_THE_BOARD: Final = frozenset({Metric.POWER, Metric.ENERGY})
# Under time-slicing these may be of one process, and nothing on the page says so.
_OF_A_PROCESS: Final = frozenset({Metric.BUSY, Metric.MEMORY_USED})

_ENGINES: Final = {
    "vllm:prompt_tokens": (Metric.PROMPT, 1),
    "vllm:prompt_tokens_cached": (Metric.CACHED, 1),
    "vllm:generation_tokens": (Metric.GENERATED, 1),
    "vllm:request_success": (Metric.ENDED, 1),
    "vllm:num_preemptions": (Metric.PREEMPTED, 1),
    "vllm:num_requests_running": (Metric.RUNNING, 1),
    "vllm:num_requests_waiting": (Metric.WAITING, 1),
    "vllm:gpu_cache_usage_perc": (Metric.KV_USED, 1_000),
    "vllm:kv_cache_usage_perc": (Metric.KV_USED, 1_000),
    "vllm:engine_sleep_state": (Metric.AWAKE, 1),
    "sglang:prompt_tokens": (Metric.PROMPT, 1),
    "sglang:cached_tokens": (Metric.CACHED, 1),
    "sglang:generation_tokens": (Metric.GENERATED, 1),
    "sglang:num_requests": (Metric.ENDED, 1),
    "sglang:num_aborted_requests": (Metric.ABORTED, 1),
    "sglang:num_running_reqs": (Metric.RUNNING, 1),
    "sglang:num_queue_reqs": (Metric.WAITING, 1),
    "sglang:token_usage": (Metric.KV_USED, 1_000),
}
_SECOND_US: Final = 1_000_000
# Of a histogram two lines sum up what it has seen; its buckets bound single values, which no sum needs.
_HISTOGRAMS: Final = {
    "vllm:request_prompt_tokens_count": (Metric.FINISHED, 1),
    "vllm:request_prompt_tokens_sum": (Metric.FINISHED_PROMPT, 1),
    "vllm:request_generation_tokens_sum": (Metric.FINISHED_GENERATED, 1),
    "vllm:time_to_first_token_seconds_sum": (Metric.TIME_TO_FIRST, _SECOND_US),
    "vllm:request_queue_time_seconds_sum": (Metric.QUEUE_TIME, _SECOND_US),
    "vllm:request_prefill_time_seconds_sum": (Metric.PREFILL_TIME, _SECOND_US),
    "vllm:request_decode_time_seconds_sum": (Metric.DECODE_TIME, _SECOND_US),
    "vllm:request_inference_time_seconds_sum": (Metric.INFERENCE_TIME, _SECOND_US),
    "vllm:e2e_request_latency_seconds_sum": (Metric.END_TO_END_TIME, _SECOND_US),
    "vllm:request_prefill_kv_computed_tokens_sum": (Metric.FINISHED_COMPUTED, 1),
    "vllm:request_num_preemptions_sum": (Metric.FINISHED_PREEMPTED, 1),
    "vllm:request_params_n_sum": (Metric.ASKED_ANSWERS, 1),
    "vllm:request_params_max_tokens_sum": (Metric.ASKED_TOKENS, 1),
    "vllm:request_max_num_generation_tokens_sum": (Metric.LONGEST_ANSWERS, 1),
    "vllm:inter_token_latency_seconds_count": (Metric.BETWEEN, 1),
    "vllm:inter_token_latency_seconds_sum": (Metric.BETWEEN_TIME, _SECOND_US),
    "vllm:request_time_per_output_token_seconds_sum": (Metric.PER_OUTPUT_TIME, _SECOND_US),
    # Its name ends like a counter's, and it is none.
    "vllm:iteration_tokens_total_count": (Metric.STEPS, 1),
    "vllm:iteration_tokens_total_sum": (Metric.STEP_TOKENS, 1),
    "sglang:time_to_first_token_seconds_sum": (Metric.TIME_TO_FIRST, _SECOND_US),
    "sglang:inter_token_latency_seconds_count": (Metric.BETWEEN, 1),
    "sglang:inter_token_latency_seconds_sum": (Metric.BETWEEN_TIME, _SECOND_US),
    "sglang:e2e_request_latency_seconds_sum": (Metric.END_TO_END_TIME, _SECOND_US),
    "sglang:e2e_request_latency_seconds_count": (Metric.FINISHED, 1),
}


def _spelled(known: dict[str, tuple[Metric, int]]) -> dict[str, tuple[Metric, int]]:
    """Under all names: Ray puts ray_ in front, and newer versions of it take no colon."""
    return {
        spelling: meant
        for name, meant in known.items()
        for spelling in (name, f"ray_{name}", f"ray_{name.replace(':', '_')}")
    }


_SPELLINGS: Final = _spelled(_ENGINES)
_SPELLINGS_OF_HISTOGRAMS: Final = _spelled(_HISTOGRAMS)
_RANK_LABELS: Final = ("engine", "dp_rank")
_ABORT: Final = "abort"


# What DCGM writes for not there, not found, not supported, not permitted: of whole numbers and of fractions.
_BLANKS: Final = frozenset(
    Decimal(first + step) for first in (0x7FFFFFF0, 1 << 47, 0x7FFFFFFFFFFFFFF0) for step in range(16)
)


class _Faults:
    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, series: Series, why: str) -> None:
        self.lines.append(f"{series.name}: {why}")


def _whole(series: Series, metric: Metric, factor: int, faults: _Faults) -> int | None:
    """The value in the metric's unit, half-even; None where there is none."""
    value = series.value
    if not value.is_finite() or value >= VALUE_MAX:
        return None
    numerator, denominator = value.as_integer_ratio()
    found = round_half_even(numerator * factor, denominator)
    if found < 0 or found > VALUE_MAX or (metric in RATIOS and found > 1_000):
        faults.add(series, f"{value} cannot be a {metric}")
        return None
    return found


def _instant(series: Series, scraped_us: int) -> int:
    told = series.time_us
    return scraped_us if told is None or not 0 <= told <= TIME_US_MAX else told


# ------------------------------------------------------------------------------------------------------------- GPUs


class _Gpu:
    def __init__(self) -> None:
        self.found: dict[Metric, set[int]] = {}
        self.owners: set[Owner] = set()
        self.host = ""
        self.model = ""


def _owner(labels: dict[str, str]) -> Owner | None:
    """Who holds the GPU. Where Prometheus has put the exporter's own labels in front, theirs are `exported_`."""
    prefix = "exported_" if "exported_pod" in labels else ""
    pod = labels.get(f"{prefix}pod", "")
    if not pod:
        return None
    return Owner(labels.get(f"{prefix}namespace", ""), pod, labels.get(f"{prefix}container", ""))


def read_gpus(page: Iterable[Series], scraped_us: int) -> Page:
    """The samples of a page of dcgm-exporter, one for each GPU and MIG instance, in the order of their keys.

    What a page states twice and differently for one GPU is not known of it."""
    gpus: dict[tuple[str, int], _Gpu] = {}
    faults = _Faults()
    for series in page:
        known = _DCGM.get(series.name)
        if known is None or series.kind in ("histogram", "summary"):
            continue
        metric, factor = known
        labels = series.labels
        uuid = labels.get("UUID") or labels.get("uuid")
        if not uuid:
            faults.add(series, "names no GPU: it has no label UUID or uuid")
            continue
        value = None if series.value in _BLANKS else _whole(series, metric, factor, faults)
        if value is None:
            continue
        instance = labels.get("GPU_I_ID", "")
        whole_board = not instance or metric in _OF_THE_BOARD
        at = gpus.setdefault((uuid if whole_board else f"{uuid}/{instance}", _instant(series, scraped_us)), _Gpu())
        at.found.setdefault(metric, set()).add(value)
        at.host = labels.get("hostname") or labels.get("Hostname") or at.host
        at.model = labels.get("modelName") or at.model
        owner = _owner(labels)
        if owner is not None and not (instance and whole_board):
            at.owners.add(owner)
    samples = [_gpu_sample(key, time_us, gpu, faults) for (key, time_us), gpu in sorted(gpus.items(), key=_by_key)]
    return Page(tuple(sample for sample in samples if sample is not None), tuple(faults.lines))


def _by_key(item: tuple[tuple[str, int], object]) -> tuple[str, int]:
    return item[0]


def _gpu_sample(key: str, time_us: int, gpu: _Gpu, faults: _Faults) -> Sample | None:
    values: dict[Metric, int] = {}
    for metric in Metric:
        found = gpu.found.get(metric, set())
        if len(gpu.owners) > 1 and metric in _OF_A_PROCESS:
            continue
        if len(found) == 1:
            values[metric] = next(iter(found))
        elif found:
            faults.lines.append(f"{key}: the page states {len(found)} values of {metric}")
    if not values:
        return None
    return Sample(SourceKind.GPU, key, time_us, values, gpu.host, gpu.model, "", tuple(sorted(gpu.owners)))


# ---------------------------------------------------------------------------------------------------------- engines


def read_engines(page: Iterable[Series], scraped_us: int, replica: str) -> Page:
    """The samples of a page of vLLM or SGLang, one for each rank. `replica` is whose page it is; Ray's name their own.

    Counters that an engine splits (by the reason a request ended, by where the cache was) are added up."""
    ranks: dict[tuple[str, str, int], dict[Metric, int]] = {}
    models: dict[tuple[str, str, int], set[str]] = {}
    faults = _Faults()
    for series in page:
        # What a line is goes by what the page declares, never by how its name ends.
        known = (_SPELLINGS_OF_HISTOGRAMS if series.kind == "histogram" else _SPELLINGS).get(series.name)
        labels = series.labels
        if known is None or series.kind == "summary" or not _first_worker(labels):
            continue
        metric, factor = known
        if metric is Metric.AWAKE and labels.get("sleep_state") != "awake":
            continue
        value = _whole(series, metric, factor, faults)
        if value is None:
            continue
        rank = next((labels[label] for label in _RANK_LABELS if labels.get(label)), "")
        at = (labels.get("ReplicaId") or replica, rank, _instant(series, scraped_us))
        values = ranks.setdefault(at, {})
        models.setdefault(at, set()).add(labels.get("model_name", ""))
        values[metric] = max(values.get(metric, 0), value) if metric in RATIOS else values.get(metric, 0) + value
        if metric is Metric.ENDED and "finished_reason" in labels:
            aborted = value if labels["finished_reason"] == _ABORT else 0
            values[Metric.ABORTED] = values.get(Metric.ABORTED, 0) + aborted
    samples = []
    for key, rank, time_us in sorted(ranks):
        at = (key, rank, time_us)
        model = models[at].pop() if len(models[at]) == 1 else ""
        samples.append(Sample(SourceKind.ENGINE, key, time_us, ranks[at], model=model, rank=rank))
    return Page(tuple(samples), tuple(faults.lines))


def _first_worker(labels: dict[str, str]) -> bool:
    """Whether it is what a rank says once, and not a repetition by the others that hold parts of the same model."""
    return all(labels.get(label, "0") in ("", "0") for label in ("tp_rank", "pp_rank"))
