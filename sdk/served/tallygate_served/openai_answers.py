"""A served record out of what an OpenAI-compatible server answers: chat completions, completions, responses."""

from collections.abc import Mapping
from typing import Any

from tallygate_served.records import Served, Status
from tallygate_served.who import Who


class UsageUnknown(ValueError):
    """The answer stated no usage, so nobody knows how many tokens it took: ask for it (`stream_options.include_usage`)."""


class Execution:
    """Follows one answer, streamed or not. Feed it every object of the answer as it comes, then end it, once."""

    def __init__(self, *, replica: str, who: Who, sent_us: int, model: str = "", attempt: int = 0) -> None:
        """`model` is what the answer calls it, unless it is said here."""
        self._replica = replica
        self._who = who
        self._sent_us = sent_us
        self._model = model
        self._attempt = attempt
        self._first_us: int | None = None
        self._usage: Mapping[str, Any] | None = None
        self._metrics: Mapping[str, Any] = {}
        self._finished = False

    def chunk(self, answer: Mapping[str, Any], now_us: int) -> None:
        """One object: a plain answer, or the `data:` of an event of a stream. `usage` counts from the start: the last
        one holds."""
        body = answer.get("response")
        body = body if isinstance(body, Mapping) else answer  # an event of the responses API wraps its answer
        usage, metrics = body.get("usage"), body.get("metrics")
        if isinstance(usage, Mapping):
            self._usage = usage
        if isinstance(metrics, Mapping):
            self._metrics = metrics
        self._model = self._model or str(body.get("model") or "")
        if self._first_us is None and _has_token(answer):
            self._first_us = now_us
        self._finished = self._finished or _is_end(answer, body)

    def end(self, now_us: int) -> Served:
        """The record of an answer that is over: `ok`, or `aborted` where it stopped before its end was said.

        Raises UsageUnknown."""
        return self._record(now_us, Status.OK if self._finished else Status.ABORTED)

    def failed(self, now_us: int) -> Served:
        """The record of one that broke. Raises UsageUnknown."""
        return self._record(now_us, Status.FAILED)

    def _record(self, now_us: int, status: Status) -> Served:
        if self._usage is None:
            raise UsageUnknown(f"request {self._who.request}: the answer stated no usage")
        prompt, cached, output = _tokens(self._usage)
        last_us = max(self._sent_us, now_us)
        scheduled_us = min(self._sent_us + _milliseconds(self._metrics, "queue_time_ms"), last_us)
        return Served(
            request=self._who.request,
            replica=self._replica,
            model=self._model,
            scheduled_us=scheduled_us,
            first_us=self._first(scheduled_us, last_us, output),
            last_us=last_us,
            prompt=prompt,
            cached=cached,
            output=output,
            status=status,
            account=self._who.account,
            scope=self._who.scope,
            feature=self._who.feature,
            run=self._who.run,
            attempt=self._attempt,
        )

    def _first(self, scheduled_us: int, last_us: int, output: int) -> int | None:
        if self._first_us is not None:
            return min(max(self._first_us, scheduled_us), last_us)
        if not output:
            return None
        told = _milliseconds(self._metrics, "time_to_first_token_ms")
        # Nobody saw the first token of an answer that came whole: without the engine's word the prompt took no time of
        # its own, and all of it is one stretch.
        return min(max(self._sent_us + told, scheduled_us), last_us)


def _milliseconds(metrics: Mapping[str, Any], name: str) -> int:
    value = metrics.get(name)
    return max(0, round(value * 1_000)) if isinstance(value, (int, float)) and not isinstance(value, bool) else 0


def _has_token(answer: Mapping[str, Any]) -> bool:
    if str(answer.get("type", "")).endswith(".delta"):
        return True
    for choice in _choices(answer):
        delta = choice.get("delta")
        if isinstance(delta, Mapping) and any(value for name, value in delta.items() if name != "role"):
            return True
    return False


def _is_end(answer: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    if answer.get("type") in ("response.completed", "response.incomplete") or answer.get("object") == "list":
        return True
    if body.get("object") == "response" and "type" not in answer:
        return body.get("status") in ("completed", "incomplete")
    return any(choice.get("finish_reason") for choice in _choices(answer))


def _choices(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    choices = answer.get("choices")
    return [choice for choice in choices if isinstance(choice, Mapping)] if isinstance(choices, list) else []


def _tokens(usage: Mapping[str, Any]) -> tuple[int, int, int]:
    """(prompt, of these cached, output), as chat completions or responses state them. Raises UsageUnknown."""
    chat = "prompt_tokens" in usage
    prompt = usage.get("prompt_tokens" if chat else "input_tokens")
    output = usage.get("completion_tokens" if chat else "output_tokens") or 0
    details = usage.get("prompt_tokens_details" if chat else "input_tokens_details") or {}
    cached = details.get("cached_tokens") or 0 if isinstance(details, Mapping) else 0
    if not all(type(count) is int and count >= 0 for count in (prompt, cached, output)):
        raise UsageUnknown(f"usage {dict(usage)}: no whole numbers of tokens")
    return int(prompt or 0), min(int(cached), int(prompt or 0)), int(output)
