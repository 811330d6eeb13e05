"""Answers of OpenAI-compatible servers: plain, streamed, cut off, and of the responses API."""

from typing import Any

import pytest

from tallygate_served import Execution, Served, Status, UsageUnknown, Who

WHO = Who("evt-1", "acme", "team:red", "chat", "talk-3")
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60},
}


def execution() -> Execution:
    return Execution(replica="llama-0", who=WHO, sent_us=1_000)


def delta(content: str | None, usage: dict[str, Any] | None = None, finish: str | None = None) -> dict[str, Any]:
    choice = {"index": 0, "delta": {"role": "assistant", "content": content}, "finish_reason": finish}
    return {"object": "chat.completion.chunk", "model": "m", "choices": [choice], "usage": usage}


def record(**changed: Any) -> Served:
    expected: dict[str, Any] = {
        "request": "evt-1",
        "replica": "llama-0",
        "model": "m",
        "scheduled_us": 1_000,
        "first_us": 3_000,
        "last_us": 9_000,
        "prompt": 100,
        "cached": 60,
        "output": 20,
        "account": "acme",
        "scope": "team:red",
        "feature": "chat",
        "run": "talk-3",
    }
    return Served(**expected | changed)


def test_a_stream_with_its_usage_at_the_end() -> None:
    answer = execution()
    answer.chunk(delta(""), 2_000)  # the role alone is no token
    answer.chunk(delta("Hel"), 3_000)
    answer.chunk(delta("lo", finish="stop"), 8_000)
    answer.chunk({"object": "chat.completion.chunk", "model": "m", "choices": [], "usage": USAGE}, 8_500)
    assert answer.end(9_000) == record()


def test_a_stream_that_was_cut_off_counts_what_its_last_chunk_said() -> None:
    answer = execution()
    for number in range(1, 8):
        answer.chunk(delta("x", {"prompt_tokens": 100, "completion_tokens": number}), 2_000 + 1_000 * number)
    assert answer.end(9_000) == record(status=Status.ABORTED, cached=0, output=7)


def test_one_without_any_usage_is_no_guess() -> None:
    answer = execution()
    answer.chunk(delta("Hel"), 3_000)
    with pytest.raises(UsageUnknown, match="evt-1"):
        answer.end(9_000)
    answer.chunk({"choices": [], "usage": {"prompt_tokens": "many"}}, 3_000)
    with pytest.raises(UsageUnknown, match="many"):
        answer.failed(9_000)


def test_one_that_broke() -> None:
    answer = execution()
    answer.chunk(delta("Hel", {"prompt_tokens": 100, "completion_tokens": 1}), 3_000)
    assert answer.failed(9_000) == record(status=Status.FAILED, cached=0, output=1)


def test_a_plain_answer_is_one_stretch() -> None:
    plain = {"object": "chat.completion", "model": "m", "choices": [{"finish_reason": "length"}], "usage": USAGE}
    answer = execution()
    answer.chunk(plain, 9_000)
    assert answer.end(9_000) == record(first_us=1_000)


def test_vllms_own_times_take_the_queue_off() -> None:
    plain = {
        "object": "chat.completion",
        "model": "m",
        "choices": [{"finish_reason": "stop"}],
        "usage": USAGE,
        "metrics": {"queue_time_ms": 1.5, "time_to_first_token_ms": 4.0, "generation_time_ms": 3.0},
    }
    answer = execution()
    answer.chunk(plain, 9_000)
    assert answer.end(9_000) == record(scheduled_us=2_500, first_us=5_000)


def test_the_responses_api_plain_and_streamed() -> None:
    usage = {
        "input_tokens": 100,
        "input_tokens_details": {"cached_tokens": 60},
        "output_tokens": 20,
        "total_tokens": 120,
    }
    done = {"object": "response", "model": "m", "status": "completed", "usage": usage}
    plain = execution()
    plain.chunk(done, 9_000)
    assert plain.end(9_000) == record(first_us=1_000)
    streamed = execution()
    streamed.chunk({"type": "response.created", "response": done | {"status": "in_progress", "usage": None}}, 2_000)
    streamed.chunk({"type": "response.output_text.delta", "delta": "Hel"}, 3_000)
    streamed.chunk({"type": "response.completed", "response": done}, 8_000)
    assert streamed.end(9_000) == record()


def test_an_embedding_has_no_first_token() -> None:
    answer = execution()
    answer.chunk({"object": "list", "model": "m", "usage": {"prompt_tokens": 100, "total_tokens": 100}}, 9_000)
    assert answer.end(9_000).first_us is None
    assert answer.end(9_000).status is Status.OK
