"""A stat logger for vLLM, found by the entry point `vllm.stat_logger_plugins`: a served record per finished request.

It reads what vLLM hands to stat loggers: `IterationStats.finished_requests`, in either of its shapes (times in the record
itself, or in its `timing`), and `iteration_timestamp`, which is wall time. Times inside the engine are
monotonic; here they only ever count backwards from that timestamp. It never stops the server.
"""

import atexit
import logging
import os
import socket
import ssl
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from tallygate_served.records import BadRecord, GpuPart, ReplicaUp, Served, Status
from tallygate_served.sink import PENDING_MAX, KafkaSink, Sink
from tallygate_served.who import Who, unmark

_REMEMBERED = 10_000
_SECURITY = ("TLS", "TLS_CA_FILE", "TLS_CERT_FILE", "TLS_KEY_FILE", "SASL_MECHANISM", "SASL_USERNAME", "SASL_PASSWORD")
_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_log = logging.getLogger("vllm.tallygate_served")


class BadSetting(ValueError):
    """A variable of the environment that cannot be read; the message names it."""


class TallygateStatLogger(StatLoggerBase):  # type: ignore[misc,unused-ignore] # vLLM publishes no types here
    """One per engine. What it is told stands in the variables `TALLYGATE_SERVED_...`: README.md."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        self._model, self._replica = "", ""
        self._gpus: tuple[GpuPart, ...] = ()
        self._sink: Sink | None = None
        self._up_us = self._ready_us = _now_us()
        self._attempts: OrderedDict[str, int] = OrderedDict()
        self._told: set[str] = set()
        try:
            self._model = _model(vllm_config)
            self._replica = _replica(os.environ, vllm_config, engine_index)
            self._gpus = _gpus(os.environ)
            self._sink = _sink(os.environ)
        except (BadSetting, ImportError) as error:
            _log.error("tallygate-served does nothing: %s", error)

    def log_engine_initialized(self) -> None:
        """The replica is ready."""
        if self._sink is None:
            return
        if not self._gpus:
            _log.warning("TALLYGATE_SERVED_GPUS is not set: who starts replica %s must say its GPUs", self._replica)
            return
        self._tell_replica(self._sink, ready_us=_now_us(), seq=1)
        atexit.register(self._gone)

    def record(
        self,
        scheduler_stats: Any = None,
        iteration_stats: Any = None,
        mm_cache_stats: Any = None,
        engine_idx: int = 0,
        **later: Any,
    ) -> None:
        """Called by vLLM at each step. Never raises."""
        if self._sink is None or iteration_stats is None:
            return
        for finished in iteration_stats.finished_requests:
            try:
                record = self._served(finished, iteration_stats.iteration_timestamp)
                if record is not None:
                    self._sink.put(*record.encoded())
            except Exception as error:
                # Whatever it is: what a request id holds was sent by somebody, and the engine answers others.
                self._tell_once(f"a finished request has another shape than is known: {type(error).__name__}: {error}")

    def _served(self, finished: Any, timestamp_s: float) -> Served | None:
        request_id = getattr(finished, "request_id", None)
        if not request_id:
            self._tell_once("this vLLM tells stat loggers no request ids: update it, or record answers in the gateway")
            return None
        instants = _instants(finished, timestamp_s)
        if instants is None:
            return None  # it never left the queue: it cost nothing
        scheduled_us, first_us, last_us = instants
        who = unmark(request_id)
        prompt = finished.num_prompt_tokens
        return Served(
            request=who.request,
            replica=self._replica,
            model=self._model,
            scheduled_us=scheduled_us,
            first_us=first_us,
            last_us=last_us,
            prompt=prompt,
            cached=min(getattr(finished, "num_cached_tokens", 0) or 0, prompt),
            output=0 if first_us is None else finished.num_generation_tokens,
            status=_STATUS.get(str(finished.finish_reason), Status.FAILED),
            account=who.account,
            scope=who.scope,
            feature=who.feature,
            run=who.run,
            attempt=self._attempt(who),
        )

    def _attempt(self, who: Who) -> int:
        """Which execution of the request it is here: its other prompts and choices, and its retries, are one each."""
        attempt = self._attempts.pop(who.request, -1) + 1
        self._attempts[who.request] = attempt
        if len(self._attempts) > _REMEMBERED:
            self._attempts.popitem(last=False)
        return attempt

    def _tell_replica(self, sink: Sink, seq: int, ready_us: int, down_us: int | None = None) -> None:
        self._ready_us = ready_us
        try:
            up = ReplicaUp(self._replica, self._model, self._gpus, self._up_us, ready_us, down_us, seq)
            sink.put(*up.encoded())
        except BadRecord as error:
            _log.error("replica %s: %s", self._replica, error)

    def _gone(self) -> None:
        if self._sink is not None:
            self._tell_replica(self._sink, seq=2, ready_us=self._ready_us, down_us=_now_us())
            self._sink.close()

    def _tell_once(self, what: str) -> None:
        if what not in self._told and len(self._told) < 100:
            self._told.add(what)
            _log.error("tallygate-served: %s", what)


# vLLM's FinishReason; it prints as these.
_STATUS = {
    "stop": Status.OK,
    "length": Status.OK,
    "repetition": Status.OK,
    "abort": Status.ABORTED,
    "error": Status.FAILED,
}


def _instants(finished: Any, timestamp_s: float) -> tuple[int, int | None, int] | None:
    """(scheduled, first token, last token) in wall time; None for a request that was never scheduled."""
    timing = getattr(finished, "timing", finished)  # in the other shape the times stand in the record itself
    if timing is None:
        return None
    last_s = timestamp_s
    prefill_s: Any = getattr(timing, "prefill_time", None)
    decode_s: Any = getattr(timing, "decode_time", None)
    timed = prefill_s is not None and decode_s is not None and prefill_s >= 0 and decode_s >= 0
    if timed and finished.num_generation_tokens > 0:
        first_s = last_s - decode_s
        return _us(first_s - prefill_s), _us(first_s), _us(last_s)
    # No token: it was scheduled as long after its arrival as it was queued.
    queued_s = timing.queued_time
    if queued_s < 0:
        return None  # no instant of scheduling: it never left the queue
    return min(_us(timestamp_s - finished.e2e_latency + queued_s), _us(last_s)), None, _us(last_s)


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)


def _now_us() -> int:
    return time.time_ns() // 1_000


def _sink(environment: Mapping[str, str]) -> Sink:
    bootstrap = environment.get("TALLYGATE_SERVED_BOOTSTRAP")
    if not bootstrap:
        raise BadSetting("TALLYGATE_SERVED_BOOTSTRAP is not set: where Kafka is, as host:port")
    pending = environment.get("TALLYGATE_SERVED_PENDING", str(PENDING_MAX))
    if not pending.isdecimal() or not 1 <= int(pending) <= 10_000_000:
        raise BadSetting(f"TALLYGATE_SERVED_PENDING: {pending[:20]!r} is no number of records from 1 to 10,000,000")
    topic = environment.get("TALLYGATE_SERVED_TOPIC", "served")
    return KafkaSink(bootstrap, topic, int(pending), security=_security(environment))


def _security(environment: Mapping[str, str]) -> dict[str, Any]:
    """How the brokers let us in, as options of aiokafka. Raises BadSetting."""
    said = {name: environment.get(f"TALLYGATE_SERVED_{name}") or None for name in _SECURITY}
    tls, ca_file, cert_file, key_file, mechanism, username, password = said.values()
    if tls not in (None, "true", "false"):
        raise BadSetting("TALLYGATE_SERVED_TLS is neither true nor false")
    if tls != "true" and (ca_file or cert_file or key_file):
        raise BadSetting("TALLYGATE_SERVED_TLS is not true, and so its files would be of no use")
    if key_file and not cert_file:
        raise BadSetting("TALLYGATE_SERVED_TLS_KEY_FILE is the key of TALLYGATE_SERVED_TLS_CERT_FILE, which is not set")
    found: dict[str, Any] = {}
    if tls == "true":
        found = {"security_protocol": "SSL", "ssl_context": _tls(ca_file, cert_file, key_file)}
    if mechanism is None and (username or password):
        raise BadSetting("TALLYGATE_SERVED_SASL_MECHANISM must be set beside the name and the password")
    if mechanism is not None:
        if mechanism not in _MECHANISMS:
            raise BadSetting(f"TALLYGATE_SERVED_SASL_MECHANISM is none of {', '.join(_MECHANISMS)}")
        if mechanism == "PLAIN" and not found:
            raise BadSetting(
                "TALLYGATE_SERVED_SASL_MECHANISM PLAIN would show the password: set TALLYGATE_SERVED_TLS too"
            )
        if username is None or password is None:
            raise BadSetting("TALLYGATE_SERVED_SASL_USERNAME and TALLYGATE_SERVED_SASL_PASSWORD must be set too")
        found["security_protocol"] = "SASL_SSL" if found else "SASL_PLAINTEXT"
        found |= {"sasl_mechanism": mechanism, "sasl_plain_username": username, "sasl_plain_password": password}
    return found


def _tls(ca_file: str | None, cert_file: str | None, key_file: str | None) -> ssl.SSLContext:
    name, files = "TLS_CA_FILE", str(ca_file)
    try:
        context = ssl.create_default_context(cafile=ca_file)
        if cert_file:
            name, files = "TLS_CERT_FILE", f"{cert_file}, with the key in {key_file or 'it'}"
            context.load_cert_chain(cert_file, key_file, password=_no_password)
    except OSError as error:
        raise BadSetting(f"TALLYGATE_SERVED_{name}: {files}: {error.strerror or error}") from error
    return context


def _no_password() -> str:
    """Without this, the server would wait for somebody to type one."""
    raise BadSetting("TALLYGATE_SERVED_TLS_KEY_FILE: the key has a password: store it without one")


def _model(vllm_config: Any) -> str:
    """The name under which clients ask for it."""
    name = vllm_config.model_config.served_model_name
    return str(name[0] if isinstance(name, (list, tuple)) else name)


def _replica(environment: Mapping[str, str], vllm_config: Any, engine_index: int) -> str:
    name = environment.get("TALLYGATE_SERVED_REPLICA") or socket.gethostname()
    ranks = getattr(getattr(vllm_config, "parallel_config", None), "data_parallel_size", 1)
    return f"{name}/{engine_index}" if ranks > 1 else name


def _gpus(environment: Mapping[str, str]) -> tuple[GpuPart, ...]:
    found = []
    for text in filter(None, environment.get("TALLYGATE_SERVED_GPUS", "").split(",")):
        kind, equals, gpu = text.partition("=")
        if not (kind and equals and gpu):
            raise BadSetting(f"TALLYGATE_SERVED_GPUS: {text[:80]!r} is no kind=UUID")
        found.append(GpuPart(gpu, kind))
    return tuple(found)
