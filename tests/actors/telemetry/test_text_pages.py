"""Pages of exporters, old and new, read to the last digit."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from actors.telemetry.text_pages import BadPage, read_page, read_series
from engine.cost.pages import Page
from engine.cost.telemetry import Metric, Owner, Sample, SourceKind

PAGES = Path(__file__).parents[2] / "pages"
AT_US = 1_764_374_415_000_000
H100 = "GPU-604ac76c-d9cf-fef3-62e9-d92044ab6e52"
OTHER = "GPU-b8a9c1f2-0d3e-4a55-9c77-1f2e3d4c5b6a"
MODEL = "NVIDIA H100 80GB HBM3"
LLAMA = Owner("serve", "llama-0", "vllm")


def page(name: str, replica: str = "r1") -> Page:
    return read_page((PAGES / name).read_text(), "text/plain; version=0.0.4", AT_US, replica)


def test_a_page_of_dcgm_exporter_before_4_9() -> None:
    """Millijoules, percent and MiB; blanks of whole numbers and of fractions are no values; the second GPU has no pod."""
    read = page("dcgm_4_8.txt")
    assert read.faults == ()
    assert read.samples == (
        Sample(
            SourceKind.GPU,
            H100,
            AT_US,
            {
                Metric.POWER: 612_345,
                Metric.ENERGY: 55_491_234_567_000,
                Metric.BUSY: 970,
                Metric.GRAPHICS_ACTIVE: 974,  # 974.5, half-even
                Metric.TENSOR_ACTIVE: 112,
                Metric.MEMORY_USED: 73_211 << 20,
            },
            "n1",
            MODEL,
            owners=(LLAMA,),
        ),
        Sample(SourceKind.GPU, OTHER, AT_US, {Metric.POWER: 71_006, Metric.BUSY: 0}, "n1", MODEL),
    )


def test_a_page_from_4_9_on_with_mig() -> None:
    """Joules, ratios and bytes. Power and energy are the board's, however often they are repeated."""
    read = page("dcgm_4_9_mig.txt")
    assert read.faults == ()
    assert read.samples == (
        Sample(SourceKind.GPU, H100, AT_US, {Metric.POWER: 402_500, Metric.ENERGY: 55_491_000_000_000}, "n2", MODEL),
        Sample(
            SourceKind.GPU,
            f"{H100}/1",
            AT_US,
            {
                Metric.GRAPHICS_ACTIVE: 500,
                Metric.TENSOR_ACTIVE: 250,
                Metric.DRAM_ACTIVE: 750,
                Metric.MEMORY_USED: 31_138_512_896,
                Metric.MEMORY_TOTAL: 42_949_672_960,
            },
            "n2",
            MODEL,
            owners=(Owner("serve", "small-0", "vllm"),),
        ),
        Sample(SourceKind.GPU, f"{H100}/2", AT_US, {Metric.GRAPHICS_ACTIVE: 0}, "n2", MODEL),
    )


def test_old_and_new_names_of_one_gpu_come_to_the_same() -> None:
    old = f"""DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION{{UUID="{H100}"}} 7000
DCGM_FI_DEV_GPU_UTIL{{UUID="{H100}"}} 42
DCGM_FI_DEV_FB_USED{{UUID="{H100}"}} 1
"""
    new = f"""DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL{{uuid="{H100}"}} 7
DCGM_FI_DEV_GPU_UTIL_RATIO{{uuid="{H100}"}} 0.42
DCGM_FI_DEV_FB_USED_BYTES{{uuid="{H100}"}} 1048576
"""
    assert read_page(old, "", AT_US, "") == read_page(new, "", AT_US, "")


def test_through_prometheus_the_owner_is_the_exported_one_and_the_time_the_pages_own() -> None:
    (sample,) = page("dcgm_through_prometheus.txt").samples
    assert sample.owners == (LLAMA,)
    assert sample.time_us == 1_764_374_400_123_000
    assert sample.values == {Metric.ENERGY: 55_491_234_567_000, Metric.GRAPHICS_ACTIVE: 974}


def test_a_time_sliced_gpu_is_one_gpu_and_what_may_be_one_process_alone_is_not_known() -> None:
    (sample,) = page("dcgm_time_sliced.txt").samples
    assert sample.values == {Metric.POWER: 200_000, Metric.GRAPHICS_ACTIVE: 800}
    assert [owner.pod for owner in sample.owners] == ["one-0", "two-0"]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (f'DCGM_FI_DEV_GPU_UTIL_RATIO{{UUID="{H100}"}} 42', "42 cannot be a busy_permille"),
        (f'DCGM_FI_DEV_POWER_USAGE{{UUID="{H100}"}} -3', "-3 cannot be a power_mw"),
        ('DCGM_FI_DEV_POWER_USAGE{gpu="0"} 3', "it has no label UUID"),
        (
            f'DCGM_FI_DEV_POWER_USAGE{{UUID="{H100}"}} 3\nDCGM_FI_DEV_POWER_USAGE{{UUID="{H100}",x="y"}} 4',
            "the page states 2 values of power_mw",
        ),
    ],
)
def test_what_cannot_be_is_left_out_and_told(line: str, fault: str) -> None:
    read = read_page(line + "\n", "", AT_US, "r1")
    assert read.samples == ()
    assert len(read.faults) == 1 and fault in read.faults[0]


@pytest.mark.parametrize("value", ["NaN", "+Inf", "9223372036854775794", "2147483632"])
def test_a_blank_is_no_value_and_no_fault(value: str) -> None:
    assert read_page(f'DCGM_FI_DEV_POWER_USAGE{{UUID="{H100}"}} {value}\n', "", AT_US, "r1") == Page(())


# ---------------------------------------------------------------------------------------------------------- engines


def vllm_page(labels: dict[str, str], kv_name: str, counters_end_in_total: bool) -> str:
    """As vLLM registers its metrics with prometheus_client, whose own `_created` lines come along."""
    registry = CollectorRegistry()
    names, ending = list(labels), "_total" if counters_end_in_total else ""

    def counter(name: str, *more: str) -> Counter:
        return Counter(name + ending, "x", [*names, *more], registry=registry)

    counter("vllm:prompt_tokens").labels(*labels.values()).inc(100)
    counter("vllm:generation_tokens").labels(*labels.values()).inc(40)
    ended = counter("vllm:request_success", "finished_reason")
    ended.labels(*labels.values(), "stop").inc(3)
    ended.labels(*labels.values(), "abort").inc(2)
    Gauge("vllm:num_requests_running", "x", names, registry=registry).labels(*labels.values()).set(5)
    Gauge(kv_name, "x", names, registry=registry).labels(*labels.values()).set(0.25)
    # A histogram whose name ends like a counter's.
    per_step = Histogram("vllm:iteration_tokens_total", "x", names, registry=registry)
    for tokens in (1_000_000, 24):
        per_step.labels(*labels.values()).observe(tokens)
    asleep = Gauge("vllm:engine_sleep_state", "x", [*names, "sleep_state"], registry=registry)
    for state, on in (("awake", 0), ("weights_offloaded", 1), ("discard_all", 0)):
        asleep.labels(*labels.values(), state).set(on)
    return generate_latest(registry).decode()


@pytest.mark.parametrize(
    ("labels", "kv_name", "counters_end_in_total", "rank"),
    [
        ({"model_name": "m"}, "vllm:gpu_cache_usage_perc", True, ""),
        ({"model_name": "m", "engine": "0"}, "vllm:gpu_cache_usage_perc", True, "0"),
        ({"model_name": "m", "engine": "1"}, "vllm:kv_cache_usage_perc", False, "1"),
    ],
)
def test_pages_of_vllm_old_and_new(
    labels: dict[str, str], kv_name: str, counters_end_in_total: bool, rank: str
) -> None:
    text = vllm_page(labels, kv_name, counters_end_in_total)
    assert "_created" in text
    read = read_page(text, "text/plain", AT_US, "llama-0")
    assert read == Page(
        (
            Sample(
                SourceKind.ENGINE,
                "llama-0",
                AT_US,
                {
                    Metric.PROMPT: 100,
                    Metric.GENERATED: 40,
                    Metric.ENDED: 5,
                    Metric.ABORTED: 2,
                    Metric.RUNNING: 5,
                    Metric.KV_USED: 250,
                    Metric.AWAKE: 0,
                    Metric.STEPS: 2,
                    Metric.STEP_TOKENS: 1_000_024,
                },
                model="m",
                rank=rank,
            ),
        )
    )


HISTOGRAMS: dict[str, tuple[tuple[float, ...], dict[Metric, int]]] = {
    "vllm:request_prompt_tokens": ((100, 28), {Metric.FINISHED: 2, Metric.FINISHED_PROMPT: 128}),
    "vllm:request_generation_tokens": ((7, 5), {Metric.FINISHED_GENERATED: 12}),
    "vllm:time_to_first_token_seconds": ((0.25, 0.5), {Metric.TIME_TO_FIRST: 750_000}),
    "vllm:request_queue_time_seconds": ((0.125,), {Metric.QUEUE_TIME: 125_000}),
    "vllm:request_prefill_time_seconds": ((0.5,), {Metric.PREFILL_TIME: 500_000}),
    "vllm:request_decode_time_seconds": ((1.5,), {Metric.DECODE_TIME: 1_500_000}),
    "vllm:request_inference_time_seconds": ((2,), {Metric.INFERENCE_TIME: 2_000_000}),
    "vllm:e2e_request_latency_seconds": ((2.5,), {Metric.END_TO_END_TIME: 2_500_000}),
    "vllm:request_prefill_kv_computed_tokens": ((60, 28), {Metric.FINISHED_COMPUTED: 88}),
    "vllm:request_num_preemptions": ((0, 2), {Metric.FINISHED_PREEMPTED: 2}),
    "vllm:request_params_n": ((1, 4), {Metric.ASKED_ANSWERS: 5}),
    "vllm:request_params_max_tokens": ((512, 64), {Metric.ASKED_TOKENS: 576}),
    "vllm:request_max_num_generation_tokens": ((7, 9), {Metric.LONGEST_ANSWERS: 16}),
    "vllm:inter_token_latency_seconds": ((0.25, 0.125), {Metric.BETWEEN: 2, Metric.BETWEEN_TIME: 375_000}),
    "vllm:request_time_per_output_token_seconds": ((0.0625,), {Metric.PER_OUTPUT_TIME: 62_500}),
    "sglang:inter_token_latency_seconds": ((0.5,), {Metric.BETWEEN: 1, Metric.BETWEEN_TIME: 500_000}),
    "vllm:iteration_tokens_total": ((8, 8, 8), {Metric.STEPS: 3, Metric.STEP_TOKENS: 24}),
}


@pytest.mark.parametrize("name", HISTOGRAMS)
def test_histograms_are_read_by_what_the_page_declares_whatever_they_are_called(name: str) -> None:
    registry = CollectorRegistry()
    seen, values = HISTOGRAMS[name]
    histogram = Histogram(name, "x", ["model_name", "engine"], registry=registry)
    for each in seen:
        histogram.labels("m", "0").observe(each)
    text = generate_latest(registry).decode()
    assert f"{name}_created" in text and f"# TYPE {name} histogram" in text
    (sample,) = read_page(text, "text/plain", AT_US, "r1").samples
    assert sample.values == values
    through_ray = text.replace(name, f"ray_{name.replace(':', '_')}")
    assert read_page(through_ray, "text/plain", AT_US, "r1").samples[0].values == values
    # Declared as anything else it is none of ours: neither a histogram, nor the counter that its name looks like.
    undeclared = "\n".join(line for line in text.splitlines() if not line.startswith("#")) + "\n"
    assert read_page(undeclared, "text/plain", AT_US, "r1").samples == ()


def test_when_a_series_was_made_is_no_value_of_it() -> None:
    """prometheus_client writes a gauge `_created` beside each counter and histogram: an instant, in seconds."""
    text = """# TYPE vllm:prompt_tokens_created gauge
vllm:prompt_tokens_created{model_name="m"} 1.7e9
# TYPE vllm:iteration_tokens_total_created gauge
vllm:iteration_tokens_total_created{model_name="m"} 1.7e9
"""
    assert read_page(text, "text/plain", AT_US, "r1").samples == ()


def test_through_ray_each_replica_speaks_for_itself() -> None:
    first, second = page("vllm_through_ray.txt").samples
    assert (first.key, first.values) == (
        "a1b2",
        {Metric.GENERATED: 1_200, Metric.PROMPT: 9_000, Metric.RUNNING: 7},
    )
    assert (second.key, second.values) == ("c3d4", {Metric.RUNNING: 1})
    colon = 'ray_vllm:generation_tokens_total{model_name="m"} 5\n'
    assert read_page(colon, "", AT_US, "r1").samples[0].values == {Metric.GENERATED: 5}


def test_a_page_of_sglang_adds_up_what_the_engine_splits_and_counts_a_group_of_workers_once() -> None:
    (sample,) = page("sglang_0_5.txt", "llama-1").samples
    assert (sample.key, sample.model) == ("llama-1", "meta-llama/Llama-3.1-8B-Instruct")
    assert sample.values == {
        Metric.PROMPT: 8_129_000,
        Metric.GENERATED: 7_557_572,
        Metric.CACHED: 1_024,
        Metric.KV_USED: 280,
        Metric.RUNNING: 162,
    }


def test_open_metrics_are_read_too() -> None:
    text = '# TYPE vllm:generation_tokens counter\nvllm:generation_tokens_total{model_name="m"} 7\n# EOF\n'
    read = read_page(text, "application/openmetrics-text; version=1.0.0", AT_US, "r1")
    assert read.samples[0].values == {Metric.GENERATED: 7}


@pytest.mark.parametrize("text", ["<html>502 Bad Gateway</html>", 'x{a="1} 2\n', "x y\n"])
def test_what_is_no_page_is_refused(text: str) -> None:
    with pytest.raises(BadPage, match="no metrics page"):
        list(read_series(text))
