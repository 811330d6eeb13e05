from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallygate_sdk.openai_protocol import (
    BadRequest,
    EventReader,
    LimitName,
    Observed,
    Request,
    TokenFields,
    UsageObject,
    Used,
    event_data,
    read_request,
)

CHAT = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}


def read(document: Any, *, answers: bool = True, **more: Any) -> Request:
    body = document if isinstance(document, bytes) else msgspec.json.encode(document)
    return read_request(body, answers=answers, output_default=4096, **more)


# ---------------------------------------------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("change", "output_max"),
    [
        ({}, 100),
        ({"n": 3}, 300),
        ({"max_completion_tokens": 250}, 250),
        ({"max_completion_tokens": 50}, 100),
        ({"max_tokens": None}, 4096),
        ({"max_tokens": None, "n": 2}, 8192),
        ({"prompt": ["a", "b", "c"]}, 300),
        ({"prompt": [1, 2, 3]}, 100),
        ({"prompt": [[1, 2], [3]], "best_of": 4}, 800),
        ({"prompt": [1, [2, 3], "b"]}, 300),
        ({"prompt": "a", "prompt_embeds": ["x", "y"]}, 300),
    ],
)
def test_the_most_that_can_be_written(change: dict[str, Any], output_max: int) -> None:
    assert read(CHAT | change).output_max == output_max


def test_a_request_without_a_limit_is_given_one_and_else_left_as_it_came() -> None:
    body = b'{ "model":"small", "temperature":1e-05, "messages":[{"role":"user","content":"h\\u00e9"}] }'
    limited = msgspec.json.decode(read(body).body, type=dict[str, msgspec.Raw])
    assert bytes(limited["max_tokens"]) == b"4096" and bytes(limited["temperature"]) == b"1e-05"
    assert bytes(limited["messages"]) == b'[{"role":"user","content":"h\\u00e9"}]'
    same = body.replace(b"{ ", b'{ "max_tokens":7,', 1)
    assert read(same).body == same


@pytest.mark.parametrize(
    "change",
    [
        {"n_predict": 100_000},
        {"max_new_tokens": 100_000},
        {"maxTokens": 100_000},
        {"n_cmpl": 8},
        {"MAX_TOKENS": 100_000},
        {"Max_Tokens": None},
        {"MODEL": "large"},
        {"Prompt": ["a", "b"]},
        {"extra_body": {"max_tokens": 100_000}},
        {"options": {"num_predict": 100_000}},
        {"sampling_params": {"N": 8}},
    ],
)
def test_a_limit_under_another_name_is_no_way_around(change: dict[str, Any]) -> None:
    """It would be forwarded, and a server that reads it, or takes any case, writes more than is held."""
    with pytest.raises(BadRequest, match="is not taken") as refused:
        read(CHAT | {"max_tokens": 1} | change)
    assert refused.value.param.partition(".")[0] == next(iter(change))


@pytest.mark.parametrize(
    ("asked", "limit", "forwarded"),
    [
        ({"max_completion_tokens": 5}, "max_tokens", {"max_tokens": 5}),
        ({"max_completion_tokens": 5, "max_tokens": None}, "max_tokens", {"max_tokens": 5}),
        ({"max_tokens": 5}, "max_completion_tokens", {"max_completion_tokens": 5}),
        ({}, "max_completion_tokens", {"max_completion_tokens": 4096}),
        ({"max_completion_tokens": 5, "max_tokens": 7}, "max_tokens", {"max_completion_tokens": 5, "max_tokens": 7}),
    ],
)
def test_the_limit_stands_under_the_name_that_the_endpoint_reads(
    asked: dict[str, Any], limit: LimitName, forwarded: dict[str, Any]
) -> None:
    request = read({"model": "small", "prompt": "hello", "seed": 1} | asked, limit=limit)
    assert msgspec.json.decode(request.body) == {"model": "small", "prompt": "hello", "seed": 1} | forwarded
    assert request.output_max == max(forwarded.values())


def test_what_is_named_like_a_limit_in_what_is_no_part_of_the_request_is_taken() -> None:
    schema = {"type": "object", "properties": {"n": {"maxLength": 5}}}
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    spared: dict[str, Any] = {"metadata": {"n": "1"}, "tools": [tool]}
    spared["response_format"] = {"type": "json_schema", "json_schema": schema}
    spared["guided_json"] = {"type": "string", "maxLength": 5}
    assert msgspec.json.decode(read(CHAT | spared).body) == CHAT | spared


def test_a_stream_is_asked_for_its_usage() -> None:
    asked = read(CHAT | {"stream": True})
    assert msgspec.json.decode(asked.body)["stream_options"] == {"include_usage": True} and asked.hides_usage
    asked = read(CHAT | {"stream": True, "stream_options": {"continuous_usage_stats": True}})
    assert msgspec.json.decode(asked.body)["stream_options"] == {"continuous_usage_stats": True, "include_usage": True}
    shown = CHAT | {"stream": True, "stream_options": {"include_usage": True}}
    assert not read(shown).hides_usage and read(shown).body == msgspec.json.encode(shown)


@given(st.lists(st.text(max_size=60), min_size=1, max_size=5), st.booleans())
def test_no_prompt_has_more_tokens_than_its_bound(texts: list[str], in_parts: bool) -> None:
    """A tokenizer over bytes cannot make more tokens than there are bytes, beside what the template adds."""
    texts = [text.encode(errors="replace").decode() for text in texts]
    content: list[Any] = [[{"type": "text", "text": text}] if in_parts else text for text in texts]
    asked = read(CHAT | {"messages": [{"role": "user", "content": each} for each in content]})
    assert asked.input_max >= sum(len(text.encode()) for text in texts) + 32 * len(texts) + 64
    assert asked.input_likely <= asked.input_max


def test_tools_count_wider_than_they_are_sent() -> None:
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
    assert read(CHAT | {"tools": tools}).input_max - read(CHAT).input_max == 4 * len(msgspec.json.encode(tools))


@pytest.mark.parametrize("name", ["suffix", "documents", "chat_template", "prediction", "something_new"])
def test_text_that_may_end_up_in_the_prompt_counts_whatever_it_is_called(name: str) -> None:
    for text in ("x" * 500, ["x" * 500], {"content": "x" * 500}):
        asked = read(CHAT | {name: text})
        assert asked.input_max >= read(CHAT).input_max + 500
        assert asked.input_likely == read(CHAT).input_likely
    beside = {"user": "x" * 500, "metadata": {"k": "x" * 500}, "temperature": 0.5, "seed": 10**15}
    assert read(CHAT | beside).input_max == read(CHAT).input_max


def test_an_embedding_writes_nothing() -> None:
    asked = read({"model": "small", "input": "hello"}, answers=False)
    assert asked.output_max == 0 and asked.input_max >= 5 and "max_tokens" not in msgspec.json.decode(asked.body)


def test_images_need_somebody_who_can_count_them() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}
    asked = CHAT | {"messages": [{"role": "user", "content": [image]}]}
    with pytest.raises(BadRequest, match="'image_url' has no bound") as refused:
        read(asked)
    assert refused.value.param == "messages[0].content"

    def count(request: Mapping[str, Any]) -> int:
        return 1_000 * len(request["messages"])

    assert read(asked, count_prompt=count).input_max == 1_000


@pytest.mark.parametrize(
    ("document", "param"),
    [
        (b"{", ""),
        (b"[]", ""),
        (b"\xff", ""),
        ({"messages": []}, "model"),
        (CHAT | {"model": 5}, "model"),
        (CHAT | {"max_tokens": -1}, "max_tokens"),
        (CHAT | {"max_tokens": "5"}, "max_tokens"),
        (CHAT | {"max_tokens": 1.5}, "max_tokens"),
        (CHAT | {"n": 0}, "n"),
        (CHAT | {"n": True}, "n"),
        (CHAT | {"stream": True, "stream_options": 5}, "stream_options"),
        (CHAT | {"stream": 1}, "stream"),
        (CHAT | {"stream": "true"}, "stream"),
    ],
)
def test_what_cannot_be_bounded_is_refused(document: Any, param: str) -> None:
    with pytest.raises(BadRequest) as refused:
        read(document)
    assert refused.value.param == param


# ----------------------------------------------------------------------------------------------------------- answers


def chunk(text: str | None = None, usage: Any = None, choices: int = 1) -> bytes:
    return msgspec.json.encode({"choices": [{"delta": {"content": text}}] * choices, "usage": usage})


def test_what_the_endpoint_states_is_what_was_used() -> None:
    observed = Observed(read(CHAT))
    usage = {"prompt_tokens": 12, "completion_tokens": 7, "completion_tokens_details": {"reasoning_tokens": 3}}
    assert not observed.note(chunk("a"))
    assert observed.note(chunk(usage=usage, choices=0))
    assert observed.used() == Used(12, 7, usage) and not observed.used().estimated


def test_the_last_stated_usage_counts() -> None:
    observed = Observed(read(CHAT))
    for written in (1, 2, 3):
        assert not observed.note(chunk("a", {"prompt_tokens": 5, "completion_tokens": written}))
    assert observed.used().output == 3


def test_usage_stated_early_does_not_hide_what_is_written_after_it() -> None:
    """The caller hangs up, or is asked whether he may go on, between two statements."""
    observed = Observed(read(CHAT | {"max_tokens": 30}))
    stated = {
        "prompt_tokens": 5,
        "completion_tokens": 1,
        "total_tokens": 6,
        "prompt_tokens_details": {"cached_tokens": 4},
    }
    observed.note(chunk("a", stated))
    assert observed.used() == Used(5, 1, stated) and not observed.used().estimated
    for _ in range(9):
        observed.note(chunk("b"))
    used = observed.used()
    assert (used.input, used.output, used.estimated) == (5, 10, True)
    told = UsageObject().data(used)
    assert told["usage"] == stated | {"completion_tokens": 10, "total_tokens": 15}, (
        "what lies in the cache is known still"
    )
    assert told["usage_basis"] == TokenFields().data(used)["usage_basis"] == "estimated"
    observed.note(chunk("c", {"prompt_tokens": 5, "completion_tokens": 20}))
    observed.note(chunk("x" * 999))
    assert observed.used().output == 30, "never above the bound"
    observed.note(chunk(usage={"prompt_tokens": 5, "completion_tokens": 33}, choices=0))
    assert observed.used().output == 33 and not observed.used().estimated and observed.ended
    observed.note(chunk("d"))
    assert not observed.ended, "that was no sum"


@pytest.mark.parametrize("written", [None, "7", -1, True])
def test_usage_that_does_not_say_what_was_written_makes_it_no_nothing(written: Any) -> None:
    observed = Observed(read(CHAT))
    observed.note(chunk("x" * 40, {"prompt_tokens": 5, "completion_tokens": written}), whole=True)
    assert (observed.used().input, observed.used().output, observed.used().estimated) == (5, 10, True)
    assert UsageObject().data(observed.used())["usage"]["completion_tokens"] == 10


def test_the_usage_in_a_piece_of_one_choice_of_several_is_not_that_of_the_answer() -> None:
    """vLLM counts each choice by itself in them: who hung up before the sum would pay for one of eight."""
    observed = Observed(read(CHAT | {"n": 8}))
    for number in range(1, 5):
        for index in range(8):
            piece = {"choices": [{"index": index, "delta": {"content": "a"}}]}
            observed.note(msgspec.json.encode(piece | {"usage": {"prompt_tokens": 5, "completion_tokens": number}}))
    assert observed.used().output == 32 and observed.used().estimated
    observed.note(chunk(usage={"prompt_tokens": 5, "completion_tokens": 33}, choices=0))
    assert observed.used().output == 33 and not observed.used().estimated
    at_once = Observed(read(CHAT | {"n": 8}))
    at_once.note(chunk("a", {"prompt_tokens": 5, "completion_tokens": 7}, choices=3), whole=True)
    assert at_once.used().output == 7, "what came whole says all of it, however many choices there are"


def test_an_answer_has_ended_when_it_is_summed_up_or_each_of_its_choices_has_a_reason() -> None:
    usage = {"prompt_tokens": 5, "completion_tokens": 1}
    observed = Observed(read(CHAT))
    observed.note(chunk("a", usage))
    assert not observed.ended, "an endpoint may state it in every piece"
    observed.note(chunk(usage=usage, choices=0))
    assert observed.ended
    observed = Observed(read(CHAT | {"n": 2}))
    for index, reason, ended in (
        (0, "stop", False),
        (0, "stop", False),
        (1, None, False),
        (1, "", False),
        (1, "length", True),
    ):
        piece = {"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": reason}]}
        observed.note(msgspec.json.encode(piece))
        assert observed.ended is ended


@pytest.mark.parametrize(
    ("texts", "output"), [(["a", "b", "c"], 3), (["x" * 400], 100), ([None, ""], 0), (["y" * 9_999], 100)]
)
def test_without_a_statement_it_is_estimated_within_the_bound(texts: list[str | None], output: int) -> None:
    observed = Observed(read(CHAT))
    for text in texts:
        observed.note(chunk(text))
    used = observed.used()
    assert used.estimated and used.output == output and 0 < used.input <= read(CHAT).input_max


def test_tools_reasoning_and_plain_text_count_as_written() -> None:
    observed = Observed(read(CHAT))
    observed.note(b'{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{}"}}]}}]}')
    observed.note(b'{"choices":[{"delta":{"reasoning_content":"hm"}}]}')
    observed.note(b'{"choices":[{"text":"hm"}]}')
    observed.note(b"not JSON")
    assert observed.used().output >= 4


@pytest.mark.parametrize(
    ("delta", "output"),
    [
        ({"reasoning": "x" * 40}, 10),
        ({"reasoning": "x" * 40, "reasoning_content": "x" * 40}, 10),
        ({"refusal": "x" * 40}, 10),
        ({"function_call": {"arguments": "x" * 24}}, 10),
    ],
)
def test_whatever_is_written_counts_under_each_of_its_names(delta: dict[str, Any], output: int) -> None:
    observed = Observed(read(CHAT))
    observed.note(msgspec.json.encode({"choices": [{"delta": delta}]}))
    assert observed.used().output == output


def test_what_is_told_of_it() -> None:
    measured, estimated = Used(3, 4, {"prompt_tokens": 3, "completion_tokens": 4, "x": 1}), Used(3, 4, None)
    assert TokenFields().data(measured) == {"input_tokens": 3, "output_tokens": 4}
    assert TokenFields().data(estimated)["usage_basis"] == "estimated"
    assert UsageObject().data(measured) == {"usage": measured.usage, "usage_shape": "openai_chat"}
    assert UsageObject(shape=None).data(estimated) == {
        "usage": {"prompt_tokens": 3, "completion_tokens": 4},
        "usage_basis": "estimated",
    }
    fields = [field for bound in UsageObject().bounds(1, 2) for field in bound.fields]
    assert len(fields) == len(set(fields)), "a field stands in one bound"


# ------------------------------------------------------------------------------------------------------------ events


@given(
    st.lists(st.sampled_from([b"data: {}\n\n", b"data: x\r\n\r\n", b": ping\n\n", b"event: a\ndata: b\n\n"])), st.data()
)
def test_events_come_out_whole_however_they_are_cut(events: list[bytes], draw: st.DataObject) -> None:
    whole = b"".join(events)
    cuts = sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=5)))
    reader = EventReader()
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        found += reader.feed(whole[start:end])
    assert found == events and reader.rest() == b""


def test_an_event_that_never_ends_is_let_go() -> None:
    reader = EventReader()
    assert reader.feed(b"data: ") == []
    assert sum(len(piece) for piece in reader.feed(b"x" * (2 << 20))) == (2 << 20) + 6


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: {}\n\n", b"{}"),
        (b"data:{}\r\n\r\n", b"{}"),
        (b"event: x\ndata: a\ndata: b\n\n", b"a\nb"),
        (b"data: [DONE]\n\n", b""),
        (b": ping\n\n", b""),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes) -> None:
    assert event_data(event) == data
