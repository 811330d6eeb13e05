"""What machines say of themselves: one sample type for GPUs and inference engines, and what counters count between two.

Wire format: README.md, "Telemetry". Everything is an integer in one unit per metric, whatever the exporter said it in.
"""

from enum import StrEnum
from typing import Annotated, Final

import msgspec
from msgspec import Struct

from engine.cost.served import TIME_US_MAX
from engine.events import KEY_BYTES_MAX, TEXT_MAX, VALUE_BYTES_MAX, Malformed

OWNERS_MAX: Final = 64
VALUE_MAX: Final = (1 << 63) - 1
_RATIO_MAX: Final = 1_000

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=TEXT_MAX)]
_Text = Annotated[str, msgspec.Meta(max_length=TEXT_MAX)]
_Instant = Annotated[int, msgspec.Meta(ge=0, le=TIME_US_MAX)]
_Value = Annotated[int, msgspec.Meta(ge=0, le=VALUE_MAX)]


class SourceKind(StrEnum):
    """Whose sample it is."""

    GPU = "gpu"
    ENGINE = "engine"


class Metric(StrEnum):
    """What is measured; the name ends in the unit. Wire names are stable."""

    # of a GPU
    POWER = "power_mw"
    ENERGY = "energy_uj"  # counter
    BUSY = "busy_permille"  # of the time, a kernel ran; not known of a MIG instance
    GRAPHICS_ACTIVE = "graphics_active_permille"  # of the time, an engine was busy; the one to trust, MIG too
    SM_ACTIVE = "sm_active_permille"
    TENSOR_ACTIVE = "tensor_active_permille"
    DRAM_ACTIVE = "dram_active_permille"
    MEMORY_USED = "memory_used_bytes"
    MEMORY_TOTAL = "memory_total_bytes"
    # of an inference engine
    PROMPT = "prompt_tokens"  # counter; those of the cache included
    CACHED = "cached_tokens"  # counter; of the prompt
    GENERATED = "generated_tokens"  # counter; those of aborted requests included
    ENDED = "ended_requests"  # counter
    ABORTED = "aborted_requests"  # counter; as far as the engine counts them
    PREEMPTED = "preemptions"  # counter
    RUNNING = "running_requests"
    WAITING = "waiting_requests"
    KV_USED = "kv_used_permille"
    AWAKE = "awake"  # 1, or 0 for an engine that sleeps
    # what its histograms have summed up: of requests that finished, and of the steps of its scheduler
    FINISHED = "finished_requests"  # counter; aborted ones may be missing
    FINISHED_PROMPT = "finished_prompt_tokens"  # counter
    FINISHED_GENERATED = "finished_generated_tokens"  # counter
    TIME_TO_FIRST = "first_token_us"  # counter; likewise all times: they overlap, and are no time of a GPU
    QUEUE_TIME = "queue_us"  # counter
    PREFILL_TIME = "prefill_us"  # counter
    DECODE_TIME = "decode_us"  # counter
    INFERENCE_TIME = "inference_us"  # counter
    END_TO_END_TIME = "end_to_end_us"  # counter
    FINISHED_COMPUTED = "finished_computed_tokens"  # counter; of their prompts, what no cache had
    FINISHED_PREEMPTED = "finished_preemptions"  # counter
    ASKED_ANSWERS = "asked_answers"  # counter; n of those requests
    ASKED_TOKENS = "asked_tokens"  # counter; max_tokens of those that state it
    LONGEST_ANSWERS = "longest_answer_tokens"  # counter; of each request the longest of its answers
    BETWEEN = "between_tokens"  # counter; pairs of tokens that followed each other
    BETWEEN_TIME = "between_tokens_us"  # counter
    PER_OUTPUT_TIME = "per_token_us"  # counter; of each request its mean time for a token
    STEPS = "steps"  # counter
    STEP_TOKENS = "step_tokens"  # counter


SUMMED: Final = frozenset(
    {
        Metric.FINISHED,
        Metric.FINISHED_PROMPT,
        Metric.FINISHED_GENERATED,
        Metric.TIME_TO_FIRST,
        Metric.QUEUE_TIME,
        Metric.PREFILL_TIME,
        Metric.DECODE_TIME,
        Metric.INFERENCE_TIME,
        Metric.END_TO_END_TIME,
        Metric.FINISHED_COMPUTED,
        Metric.FINISHED_PREEMPTED,
        Metric.ASKED_ANSWERS,
        Metric.ASKED_TOKENS,
        Metric.LONGEST_ANSWERS,
        Metric.BETWEEN,
        Metric.BETWEEN_TIME,
        Metric.PER_OUTPUT_TIME,
        Metric.STEPS,
        Metric.STEP_TOKENS,
    }
)  # of histograms
_COUNTED: Final = frozenset(
    {Metric.PROMPT, Metric.CACHED, Metric.GENERATED, Metric.ENDED, Metric.ABORTED, Metric.PREEMPTED}
)
COUNTERS: Final = SUMMED | _COUNTED | {Metric.ENERGY}
RATIOS: Final = frozenset(metric for metric in Metric if metric.endswith("_permille"))
_OF_ENGINES: Final = SUMMED | _COUNTED | {Metric.RUNNING, Metric.WAITING, Metric.KV_USED, Metric.AWAKE}


class Owner(Struct, forbid_unknown_fields=True, frozen=True, gc=False, order=True):
    """Who holds a GPU, as the exporter believes; it may be wrong for a while after a pod has ended."""

    namespace: _Text
    pod: _Name
    container: _Text = ""


class Sample(Struct, forbid_unknown_fields=True, omit_defaults=True, frozen=True, gc=False):
    """All that one GPU, or one rank of an engine, said at one instant. A metric that is missing is not known, not 0.

    `key` is the GPU's UUID, for a MIG instance UUID/instance; of an engine the replica."""

    kind: SourceKind
    key: _Name
    time_us: _Instant  # of the scrape, where the page has no time of its own
    values: Annotated[dict[Metric, _Value], msgspec.Meta(min_length=1)]
    host: _Text = ""
    model: _Text = ""  # of the GPU, or the one that the engine serves
    rank: _Text = ""  # of an engine with several
    owners: Annotated[tuple[Owner, ...], msgspec.Meta(max_length=OWNERS_MAX)] = ()  # none: nobody is known


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Sample)


def encode_sample(sample: Sample) -> tuple[bytes, bytes]:
    """(key, value) for the topic `gpu-telemetry`. Raises Malformed for what `parse_sample` would refuse."""
    key, value = sample.key.encode(), _encoder.encode(sample)
    parse_sample(value, key)
    return key, value


def parse_sample(value: bytes | None, key: bytes | None) -> Sample:
    """The sample of a record of the topic `gpu-telemetry`. Raises Malformed, naming the field."""
    if value is None or len(value) > VALUE_BYTES_MAX:
        raise Malformed(f"a record of {0 if value is None else len(value)} bytes: 1 to {VALUE_BYTES_MAX} are taken")
    try:
        sample = _decoder.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Malformed(str(error)[:200]) from error
    if key is None or key != sample.key.encode() or len(key) > KEY_BYTES_MAX:
        raise Malformed(f"the key is not {sample.key[:40]!r}, of at most {KEY_BYTES_MAX} bytes: send it as the key")
    for metric, found in sample.values.items():
        if (metric in _OF_ENGINES) is not (sample.kind is SourceKind.ENGINE):
            raise Malformed(f"values: {metric} is nothing that a {sample.kind} says")
        if found > _RATIO_MAX and metric in RATIOS:
            raise Malformed(f"values: {metric} is {found}, more than 1,000")
    return sample


# ---------------------------------------------------------------------------------------------------------- counters


class Reading(Struct, frozen=True, gc=False):
    """What a counter stood at."""

    time_us: int
    value: int


class Increase(Struct, frozen=True, gc=False):
    """What a counter counted in (from_us, to_us]. After a reset it is what was counted since, and so a lower bound."""

    from_us: int
    to_us: int
    by: int
    reset: bool = False


def increase(before: Reading | None, after: Reading) -> Increase | None:
    """None where nothing can be said: there is no reading before, or it is no older than `after` (it came twice, or late).

    An exporter that collects less often than it is asked repeats itself: that is an increase of 0, and what was
    counted meanwhile comes with the next one."""
    if before is None or after.time_us <= before.time_us:
        return None
    if after.value < before.value:
        return Increase(before.time_us, after.time_us, after.value, reset=True)
    return Increase(before.time_us, after.time_us, after.value - before.value)
