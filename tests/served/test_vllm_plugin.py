"""The stat logger, fed with what vLLM hands to it: either of its two shapes."""

import atexit
from dataclasses import dataclass
from enum import IntEnum
from importlib.metadata import entry_points
from types import SimpleNamespace
from typing import Any

import pytest

from engine.cost import served as service
from tallygate_served import Who, mark

CONFIG = SimpleNamespace(
    model_config=SimpleNamespace(served_model_name=["llama", "alias"]),
    parallel_config=SimpleNamespace(data_parallel_size=1),
)
AT_S = 1_764_374_415.5
AT_US = 1_764_374_415_500_000


class FinishReason(IntEnum):
    """As vLLM's: a number that prints as a word."""

    STOP = 0
    LENGTH = 1
    ABORT = 2
    ERROR = 3

    def __str__(self) -> str:
        return self.name.lower()


@dataclass
class FlatStats:
    """`FinishedRequestStats` with its times in itself."""

    finish_reason: FinishReason
    request_id: str | None = None
    e2e_latency: float = 0.0
    num_prompt_tokens: int = 0
    num_generation_tokens: int = 0
    max_tokens_param: int | None = None
    queued_time: float = 0.0
    prefill_time: float = 0.0
    inference_time: float = 0.0
    decode_time: float = 0.0
    mean_time_per_output_token: float = 0.0
    is_corrupted: bool = False
    num_cached_tokens: int = 0


@dataclass
class ScheduledTiming:
    queued_time: float


@dataclass
class CompletedTiming:
    queued_time: float
    prefill_time: float
    decode_time: float
    inference_time: float
    mean_time_per_output_token: float | None = None


@dataclass
class TimedStats:
    """`FinishedRequestStats` with a `timing` that says how far the request came."""

    finish_reason: FinishReason
    request_id: str | None = None
    e2e_latency: float = 0.0
    num_prompt_tokens: int = 0
    num_generation_tokens: int = 0
    max_tokens_param: int | None = None
    timing: ScheduledTiming | CompletedTiming | None = None
    is_corrupted: bool = False
    num_cached_tokens: int = 0


class Kept:
    """A sink that keeps what is put."""

    def __init__(self) -> None:
        self.records: list[service.Served | service.ReplicaUp] = []
        self.closed = False

    def put(self, key: bytes, value: bytes) -> None:
        self.records.append(service.parse_served(value, key))

    def close(self, timeout_s: float = 5.0) -> None:
        self.closed = True


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> Kept:
    from tallygate_served import vllm_plugin

    monkeypatch.setenv("TALLYGATE_SERVED_REPLICA", "llama-0")
    sink = Kept()
    monkeypatch.setattr(vllm_plugin, "_sink", lambda environment: sink)
    return sink


def logger(config: Any = CONFIG, index: int = 0) -> Any:
    from tallygate_served.vllm_plugin import TallygateStatLogger

    return TallygateStatLogger(config, index)


def step(*finished: Any) -> SimpleNamespace:
    """An `IterationStats`."""
    return SimpleNamespace(iteration_timestamp=AT_S, finished_requests=list(finished))


def test_the_entry_point_is_this_class() -> None:
    (point,) = [point for point in entry_points(group="vllm.stat_logger_plugins") if point.name == "tallygate"]
    assert point.value == "tallygate_served.vllm_plugin:TallygateStatLogger"
    assert point.load().__name__ == "TallygateStatLogger"


@pytest.mark.parametrize("flat", [True, False])
def test_a_finished_request_is_a_record(flat: bool, kept: Kept) -> None:
    """Times count backwards from the wall time of the step."""
    request_id = f"chatcmpl-{mark(Who('evt-1', 'acme', 'team:red', 'chat', 'talk-3'))}"
    counts: dict[str, Any] = {"num_prompt_tokens": 100, "num_generation_tokens": 20, "num_cached_tokens": 60}
    times: dict[str, Any] = {"queued_time": 0.25, "prefill_time": 0.5, "decode_time": 2.0, "inference_time": 2.5}
    finished: Any = (
        FlatStats(FinishReason.LENGTH, request_id, e2e_latency=2.75, **counts, **times)
        if flat
        else TimedStats(FinishReason.LENGTH, request_id, e2e_latency=2.75, **counts, timing=CompletedTiming(**times))
    )
    logger().record(None, step(finished), None, 0)
    assert kept.records == [
        service.Served(
            request="evt-1",
            replica="llama-0",
            model="llama",
            scheduled_us=AT_US - 2_500_000,
            first_us=AT_US - 2_000_000,
            last_us=AT_US,
            prompt=100,
            cached=60,
            output=20,
            account="acme",
            scope="team:red",
            feature="chat",
            run="talk-3",
        )
    ]


@pytest.mark.parametrize("flat", [True, False])
def test_one_that_was_stopped_before_its_first_token(flat: bool, kept: Kept) -> None:
    """The flat shape then has times from the zero of a clock that is somewhere else."""
    finished: Any = (
        FlatStats(FinishReason.ABORT, "a", 3.0, 100, 0, queued_time=1.0, prefill_time=-5e5, decode_time=0.0)
        if flat
        else TimedStats(FinishReason.ABORT, "a", 3.0, 100, 0, timing=ScheduledTiming(1.0))
    )
    logger().record(None, step(finished))
    (record,) = kept.records
    assert isinstance(record, service.Served)
    assert (record.scheduled_us, record.first_us, record.last_us) == (AT_US - 2_000_000, None, AT_US)
    assert (record.status, record.prompt, record.output) == (service.Status.ABORTED, 100, 0)


def test_one_that_never_left_the_queue_has_no_record(kept: Kept) -> None:
    old = FlatStats(FinishReason.ABORT, "a", 3.0, 100, 0, queued_time=-5e5)
    new = TimedStats(FinishReason.ABORT, "a", 3.0, 100, 0)
    logger().record(None, step(old, new))
    assert kept.records == []


def test_the_choices_and_retries_of_a_request_are_executions_of_their_own(kept: Kept) -> None:
    here = logger()
    for _ in range(3):
        here.record(None, step(TimedStats(FinishReason.STOP, "a", 1.0, 5, 5, timing=CompletedTiming(0, 0.1, 0.2, 0.3))))
    assert [record.attempt for record in kept.records if isinstance(record, service.Served)] == [0, 1, 2]


def test_an_old_vllm_and_one_that_has_changed_are_told_once_and_stop_nothing(
    kept: Kept, caplog: pytest.LogCaptureFixture
) -> None:
    here = logger()
    here.record(None, None)
    for _ in range(3):
        here.record(None, step(FlatStats(FinishReason.STOP), SimpleNamespace(request_id="a", timing=SimpleNamespace())))
    assert kept.records == []
    assert caplog.text.count("tells stat loggers no request ids") == 1
    assert caplog.text.count("has another shape than is known") == 1


def test_whatever_a_request_brings_in_the_engine_goes_on(kept: Kept, caplog: pytest.LogCaptureFixture) -> None:
    endless = CompletedTiming(0, float("inf"), 0.2, 0.3)
    fine = TimedStats(FinishReason.STOP, "b", 1.0, 5, 5, timing=CompletedTiming(0, 0.1, 0.2, 0.3))
    here = logger()
    here.record(None, step(TimedStats(FinishReason.STOP, "a", 1.0, 5, 5, timing=endless), fine))
    assert [record.request for record in kept.records if isinstance(record, service.Served)] == ["b"]
    assert "OverflowError" in caplog.text


def test_the_replica_says_when_it_is_ready_and_when_it_ends(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    at_exit: list[Any] = []
    monkeypatch.setattr(atexit, "register", at_exit.append)
    monkeypatch.setenv("TALLYGATE_SERVED_GPUS", "h100-sxm=GPU-1,h100-sxm=GPU-2")
    config = SimpleNamespace(
        model_config=SimpleNamespace(served_model_name="llama"), parallel_config=SimpleNamespace(data_parallel_size=2)
    )
    logger(config, 1).log_engine_initialized()
    at_exit[0]()
    ready, gone = kept.records
    assert isinstance(ready, service.ReplicaUp) and isinstance(gone, service.ReplicaUp)
    assert (ready.replica, ready.model) == ("llama-0/1", "llama")
    assert [part.gpu for part in ready.gpus] == ["GPU-1", "GPU-2"]
    assert (ready.seq, ready.down_us, gone.seq) == (1, None, 2)
    assert gone.down_us is not None and (gone.up_us, gone.ready_us) == (ready.up_us, ready.ready_us)
    assert kept.closed


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({}, "TALLYGATE_SERVED_BOOTSTRAP is not set"),
        ({"BOOTSTRAP": "b:1", "PENDING": "0"}, "TALLYGATE_SERVED_PENDING"),
        ({"BOOTSTRAP": "b:1", "TLS": "yes"}, "TALLYGATE_SERVED_TLS is neither true nor false"),
        ({"BOOTSTRAP": "b:1", "TLS_CA_FILE": "ca.pem"}, "TALLYGATE_SERVED_TLS is not true"),
        (
            {"BOOTSTRAP": "b:1", "TLS": "true", "TLS_CA_FILE": "none.pem"},
            "SERVED_TLS_CA_FILE: none.pem: No such file",
        ),
        (
            {"BOOTSTRAP": "b:1", "TLS": "true", "TLS_CERT_FILE": "none.pem"},
            "none.pem, with the key in it: No such file",
        ),
        (
            {"BOOTSTRAP": "b:1", "TLS": "true", "TLS_KEY_FILE": "key.pem"},
            "TALLYGATE_SERVED_TLS_CERT_FILE, which is not set",
        ),
        ({"BOOTSTRAP": "b:1", "SASL_PASSWORD": "p"}, "TALLYGATE_SERVED_SASL_MECHANISM must be set"),
        ({"BOOTSTRAP": "b:1", "SASL_MECHANISM": "GSSAPI"}, "TALLYGATE_SERVED_SASL_MECHANISM is none of PLAIN"),
        ({"BOOTSTRAP": "b:1", "SASL_MECHANISM": "PLAIN"}, "PLAIN would show the password"),
        ({"BOOTSTRAP": "b:1", "TLS": "true", "SASL_MECHANISM": "PLAIN"}, "TALLYGATE_SERVED_SASL_PASSWORD must be set"),
    ],
)
def test_without_its_settings_it_does_nothing_and_says_so(
    variables: dict[str, str], told: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(f"TALLYGATE_SERVED_{name}", value)
    here = logger()
    here.log_engine_initialized()
    here.record(None, step(FlatStats(FinishReason.STOP, "a")))
    assert told in caplog.text


def test_gpus_that_cannot_be_read_are_told(
    kept: Kept, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("TALLYGATE_SERVED_GPUS", "GPU-1")
    logger().log_engine_initialized()
    assert "'GPU-1' is no kind=UUID" in caplog.text and kept.records == []
