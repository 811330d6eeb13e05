"""What lines mean, whatever order they come in."""

from decimal import Decimal

from hypothesis import given
from hypothesis import strategies as st

from engine.cost.pages import Series, read_engines, read_gpus
from engine.cost.telemetry import Metric

LINES = [
    Series("DCGM_FI_DEV_POWER_USAGE", "gauge", {"UUID": "GPU-1", "pod": "a", "namespace": "n"}, Decimal("70.5")),
    Series("DCGM_FI_DEV_POWER_USAGE", "gauge", {"UUID": "GPU-2", "hostname": "h"}, Decimal(80)),
    Series("DCGM_FI_DEV_GPU_UTIL", "gauge", {"UUID": "GPU-1", "pod": "a", "namespace": "n"}, Decimal(3)),
    Series("DCGM_FI_PROF_DRAM_ACTIVE", "gauge", {"UUID": "GPU-2", "GPU_I_ID": "3"}, Decimal("0.25")),
    Series("vllm:prompt_tokens", "counter", {"engine": "1", "model_name": "m"}, Decimal(10)),
    Series("vllm:prompt_tokens", "counter", {"engine": "0", "model_name": "m"}, Decimal(20)),
    Series("vllm:request_success", "counter", {"engine": "0", "finished_reason": "stop"}, Decimal(2)),
    Series("vllm:request_success", "counter", {"engine": "0", "finished_reason": "abort"}, Decimal(1)),
]


@given(st.permutations(LINES))
def test_the_order_of_lines_changes_nothing(lines: list[Series]) -> None:
    assert read_gpus(lines, 5) == read_gpus(LINES, 5)
    assert read_engines(lines, 5, "r") == read_engines(LINES, 5, "r")


def test_the_ranks_of_an_engine_are_samples_of_their_own() -> None:
    first, second = read_engines(LINES, 5, "r").samples
    assert (first.rank, first.values) == ("0", {Metric.PROMPT: 20, Metric.ENDED: 3, Metric.ABORTED: 1})
    assert (second.rank, second.values) == ("1", {Metric.PROMPT: 10})


def test_a_histogram_is_no_counter_of_the_same_name() -> None:
    line = Series("vllm:prompt_tokens", "histogram", {"le": "1"}, Decimal(10))
    assert read_engines([line], 5, "r").samples == ()
