"""What an OpenAI-compatible endpoint says about tokens: the most a request can use, and what an answer has used."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, Protocol, TypeGuard

import msgspec
from msgspec import Raw, Struct

from tallygate_sdk.questions import Bound

TEMPLATE_TOKENS: Final = 64  # what a chat template adds to a prompt, at most
MESSAGE_TOKENS: Final = 32  # and to each message
TOOLS_WIDER: Final = 4  # templates write tools out with indentation
BYTES_OF_A_TOKEN: Final = 4  # of an estimate: English text has about so many
EVENT_BYTES_MAX: Final = 1 << 20  # of one server-sent event

_PROMPTS: Final = ("messages", "prompt", "input", "functions", "response_format")
# What is never part of a prompt, or is counted by itself.
_NO_PROMPT: Final = frozenset(
    (
        *("model", "tools", "tool_choice", "stop", "logit_bias", "stream_options", "modalities", "audio"),
        *("user", "safety_identifier", "prompt_cache_key", "metadata", "service_tier", "reasoning_effort", "verbosity"),
    )
)
LimitName = Literal["max_tokens", "max_completion_tokens"]
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
# What the bound rests on, and what it is asked for.
_READ: Final = (*_LIMITS, "n", "best_of", "model", "stream", "stream_options", *_PROMPTS, "prompt_embeds", "tools")
# What one server or another reads in place of those, and llama.cpp before them.
_LIMITS_ELSEWHERE: Final = (
    *("n_predict", "num_predict", "max_new_tokens", "max_output_tokens", "max_length", "max_gen_len", "max_gen_toks"),
    *("max_tokens_to_sample", "max_decode_tokens", "max_total_tokens", "max_seq_len", "tokens_to_generate"),
    *("maxTokens", "maxNewTokens", "maxOutputTokens"),
)
_N_ELSEWHERE: Final = (
    "n_cmpl",
    "num_return_sequences",
    "num_generations",
    "num_completions",
    "candidate_count",
    "num_beams",
)
_fields: Final = msgspec.json.Decoder(dict[str, Raw])


class BadRequest(ValueError):
    """The request cannot be bounded. `param` names what is wrong, as the protocol has it."""

    def __init__(self, param: str, message: str) -> None:
        super().__init__(message)
        self.param = param


class Used(Struct, frozen=True):
    """What a request has used. `usage` is the object that the endpoint stated last; None: it stated none. Where that does not
    say what was written, or more came behind it, `output` is `estimated` from what was sent."""

    input: int
    output: int
    usage: Mapping[str, Any] | None

    @property
    def estimated(self) -> bool:
        return self.usage is None or (self.usage.get("completion_tokens") or 0) != self.output


class Meaning(Protocol):
    """How tokens stand in the events that the catalogue counts."""

    type: str

    def bounds(self, input_max: int, output_max: int) -> tuple[Bound, ...]: ...

    def data(self, used: Used) -> dict[str, Any]: ...


class TokenFields:
    """Two numbers in `data`, as the example catalogue's `llm.request` has them."""

    def __init__(self, type: str = "llm.request", input: str = "input_tokens", output: str = "output_tokens") -> None:
        self.type = type
        self._input = input
        self._output = output

    def bounds(self, input_max: int, output_max: int) -> tuple[Bound, ...]:
        return Bound((self._input,), input_max), Bound((self._output,), output_max)

    def data(self, used: Used) -> dict[str, Any]:
        told: dict[str, Any] = {self._input: used.input, self._output: used.output}
        return told | {"usage_basis": "estimated"} if used.estimated else told


class UsageObject:
    """The endpoint's own usage object, in `data.usage`, which the catalogue splits into buckets (`token_shapes`)."""

    _INPUT: Final = ("text", "cached", "cache_write", "audio", "image", "video")
    _OUTPUT: Final = ("text", "reasoning", "audio", "rejected")

    def __init__(self, type: str = "llm.usage", shape: str | None = "openai_chat") -> None:
        """`shape`: what to say in `usage_shape`; None where the catalogue says it."""
        self.type = type
        self._shape = shape

    def bounds(self, input_max: int, output_max: int) -> tuple[Bound, ...]:
        return (
            Bound(("tokens.input",), input_max),
            Bound(tuple(f"tokens.input_{bucket}" for bucket in self._INPUT), input_max),
            Bound(("tokens.output",), output_max),
            Bound(tuple(f"tokens.output_{bucket}" for bucket in self._OUTPUT), output_max),
        )

    def data(self, used: Used) -> dict[str, Any]:
        usage = dict(used.usage or {"prompt_tokens": used.input})
        if used.estimated:
            usage["completion_tokens"] = used.output
            if "total_tokens" in usage:
                usage["total_tokens"] = used.input + used.output
        told: dict[str, Any] = {"usage": usage}
        if self._shape is not None:
            told["usage_shape"] = self._shape
        return told | {"usage_basis": "estimated"} if used.estimated else told


# ------------------------------------------------------------------------------------------------------------ requests


class Request(Struct):
    """A request as it will be forwarded, and the most it can use."""

    body: bytes
    model: str
    stream: bool
    hides_usage: bool  # the caller did not ask for the chunk of usage: it is not shown to him
    input_max: int
    output_max: int
    input_likely: int  # for an estimate
    choices: int = 1  # how many answers are written: some may end before others


def read_request(
    body: bytes,
    *,
    answers: bool,
    output_default: int,
    limit: LimitName = "max_tokens",
    count_prompt: Callable[[Mapping[str, Any]], int] | None = None,
) -> Request:
    """`answers` false: an endpoint that writes no tokens (embeddings). `limit`: the name under which the endpoint surely reads
    it; one that stands under the other name alone is put there, and a request that sets itself none is given
    `output_default`. `count_prompt`: the tokens of the prompt, where more is known than its bytes. Raises BadRequest."""
    try:
        raw = _fields.decode(body)
        whole: dict[str, Any] = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise BadRequest("", f"the body is no JSON object: {error}") from None
    _refuse_other_names(whole)
    model = whole.get("model")
    if not isinstance(model, str) or not 0 < len(model) <= 256:
        raise BadRequest("model", "model must be a text of 1 to 256 characters")
    if not isinstance(
        whole.get("stream"), bool | None
    ):  # an endpoint may take 1 for true, and would not be asked for usage
        raise BadRequest("stream", "stream must be true or false")
    stream = answers and whole.get("stream") is True
    options = whole.get("stream_options") or {}
    if not isinstance(options, dict):
        raise BadRequest("stream_options", "stream_options must be an object")
    changed: dict[str, Any] = {}
    if stream and options.get("include_usage") is not True:
        changed["stream_options"] = options | {"include_usage": True}
    output_max, choices = 0, 1
    if answers:
        limits = {name: _count(whole, name) for name in _LIMITS if whole.get(name) is not None}
        if limit not in limits:  # whoever does not know the other name would write as long as he likes
            changed[limit] = max(limits.values(), default=output_default)
            raw = {name: value for name, value in raw.items() if name not in limits}
        asked, prompts = _count(whole, "n", 1), _prompts(whole)
        choices = asked * prompts
        output_max = max(limits.values(), default=output_default) * max(asked, _count(whole, "best_of", 1)) * prompts
    if changed:
        body = msgspec.json.encode(raw | changed)
    likely = sum(len(raw[name]) for name in (*_PROMPTS, "tools") if name in raw) // BYTES_OF_A_TOKEN
    if count_prompt is not None:
        input_max = likely = count_prompt(whole)
    else:
        input_max = _prompt_max(whole, raw)
    hides = "stream_options" in changed
    return Request(body, model, stream, hides, input_max, output_max, min(likely, input_max), choices)


def _refuse_other_names(whole: Mapping[str, Any]) -> None:
    """What would be forwarded as it is, and could undo the limit that the hold is for: another name of it, or another
    spelling (servers in Go take any case), there or in an object that a proxy puts into the request (`extra_body`)."""
    for name, value in whole.items():
        if name not in _READ and name.casefold() in _FOLDED_NAMES:
            raise BadRequest(name, f"{name} is not taken: say it as {_FOLDED_NAMES[name.casefold()]}")
        for inner in value if isinstance(value, dict) and name not in _NO_PROMPT else ():
            if (meant := _FOLDED_LIMITS.get(inner.casefold())) is not None:
                raise BadRequest(f"{name}.{inner}", f"{inner} is not taken inside {name}: say it as {meant}, beside it")


_FOLDED_LIMITS: Final = {
    **{name.casefold(): "max_tokens" for name in _LIMITS_ELSEWHERE},
    **{name.casefold(): "n" for name in _N_ELSEWHERE},
    **{name.casefold(): name for name in (*_LIMITS, "n", "best_of")},
}
_FOLDED_NAMES: Final = _FOLDED_LIMITS | {name.casefold(): name for name in _READ}


def _count(whole: Mapping[str, Any], name: str, default: int = 0) -> int:
    value = whole.get(name)
    if value is None:
        return default
    if type(value) is not int or not 0 < value <= 10_000_000:
        raise BadRequest(name, f"{name} must be a whole number from 1 to 10000000")
    return value


def _prompts(whole: Mapping[str, Any]) -> int:
    """How many prompts a completion request has: a list of texts, or of lists of tokens, is many."""
    given = [whole[name] for name in ("prompt", "prompt_embeds") if whole.get(name) is not None]
    lists = [isinstance(each, list) and not all(isinstance(part, int) for part in each) for each in given]
    return max(1, sum(len(each) if many else 1 for each, many in zip(given, lists, strict=True)))


def _prompt_max(whole: Mapping[str, Any], raw: Mapping[str, Raw]) -> int:
    """No token is shorter than a byte of what it stands for, and a text in JSON is no shorter than in UTF-8. A field that is
    not known here (a suffix, documents, a chat template) may end up in the prompt."""
    messages = whole.get("messages")
    messages = messages if isinstance(messages, list) else []
    for place, message in enumerate(messages):
        parts = message.get("content") if isinstance(message, dict) else None
        for part in parts if isinstance(parts, list) else ():
            kind = part.get("type") if isinstance(part, dict) else None
            if kind not in ("text", "refusal"):
                raise BadRequest(f"messages[{place}].content", f"a part of type {kind!r} has no bound known here")
    text = sum(len(value) for name, value in raw.items() if name not in _NO_PROMPT and _may_hold_text(value))
    tools = TOOLS_WIDER * len(raw["tools"]) if "tools" in raw else 0
    return text + tools + MESSAGE_TOKENS * len(messages) + TEMPLATE_TOKENS


def _may_hold_text(value: Raw) -> bool:
    return bytes(memoryview(value)[:1]) in (b'"', b"[", b"{")


# ------------------------------------------------------------------------------------------------------------- answers


class _Message(Struct):
    content: Any = None
    reasoning_content: Any = None
    reasoning: Any = None  # the same under vLLM's name of today; some servers say it under both
    tool_calls: Any = None
    function_call: Any = None
    refusal: Any = None

    def parts(self) -> tuple[Any, ...]:
        thought = self.reasoning if self.reasoning_content is None else self.reasoning_content
        return self.content, thought, self.tool_calls, self.function_call, self.refusal


class _Choice(Struct):
    delta: _Message | None = None
    message: _Message | None = None
    text: str | None = None
    index: Any = 0
    finish_reason: Any = None


class _Answer(Struct):
    choices: list[_Choice] | None = None
    usage: dict[str, Any] | None = None


_answer: Final = msgspec.json.Decoder(_Answer)


class Observed:
    """What an answer has said so far. What was written since its usage was last stated is estimated, all of it where that
    never was: a token for each piece that was streamed, or for each four bytes, whichever is more."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._usage: dict[str, Any] | None = None
        self._stated = 0  # tokens written, by the usage stated last
        self._pieces = 0  # written since
        self._bytes = 0  # likewise
        self._summed_up = False
        self._finished: set[str] = set()  # choices that have a finish reason
        self.last = b"{}"  # the last piece

    @property
    def ended(self) -> bool:
        """Whether no more is written. That some usage is stated says nothing of it: an endpoint may do so in every piece."""
        return self._summed_up or len(self._finished) >= self._request.choices

    def note(self, document: bytes, *, whole: bool = False) -> bool:
        """One JSON object of the answer, or the `whole` of it; whether it holds nothing but the usage. What cannot be read
        counts as text. The usage in a piece of one choice tells of that one only: of several it is none of the answer's."""
        try:
            answer = _answer.decode(document)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            self._pieces += 1
            self._bytes += len(document)
            return False
        for choice in answer.choices or ():
            said = choice.delta or choice.message or _Message()
            size = sum(_size(part) for part in (choice.text, *said.parts()))
            self._pieces += size > 0
            self._bytes += size
            self.last = document
            if size:
                self._summed_up = False  # it was none, as more came behind it
            if choice.finish_reason:
                self._finished.add(str(choice.index))
        of_all = whole or not answer.choices or self._request.choices == 1
        if of_all and answer.usage is not None and _is_count(answer.usage.get("prompt_tokens")):
            self._usage = answer.usage
            written = answer.usage.get("completion_tokens")
            if _is_count(written):
                self._stated, self._pieces, self._bytes = written, 0, 0
        only_usage = not answer.choices and answer.usage is not None
        self._summed_up |= only_usage
        return only_usage

    def used(self) -> Used:
        """By now. An estimate never exceeds what the request could use."""
        since = max(self._pieces, -(-self._bytes // BYTES_OF_A_TOKEN))
        written = max(self._stated, min(self._stated + since, self._request.output_max))
        if self._usage is None:
            return Used(self._request.input_likely, written, None)
        return Used(self._usage["prompt_tokens"], written, self._usage)


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def _size(part: Any) -> int:
    if part is None:
        return 0
    return len(part.encode(errors="replace")) if isinstance(part, str) else len(msgspec.json.encode(part))


class EventReader:
    """Cuts a stream of server-sent events into whole ones, each with the bytes it came as."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are whole by now; one that does not end is let go in pieces."""
        self._rest += data
        found = []
        while True:
            ends = [place for mark in (b"\n\n", b"\r\n\r\n") if (place := self._rest.find(mark)) >= 0]
            if not ends:
                break
            end = min(ends) + (2 if self._rest[min(ends)] == 10 else 4)
            found.append(self._rest[:end])
            self._rest = self._rest[end:]
        if len(self._rest) > EVENT_BYTES_MAX:
            found.append(self.rest())
        return found

    def rest(self) -> bytes:
        """What is left, at the end of the stream."""
        rest, self._rest = self._rest, b""
        return rest


def cut_short(piece: bytes, used: Used | None) -> bytes:
    """The events that end a stream where its next token would be one too many, in the shape of its last piece. `used`: what
    the caller is told of the usage, who asked for it."""
    whole: dict[str, Any] = msgspec.json.decode(piece)
    choices: list[dict[str, Any]] = []
    for choice in whole.get("choices", ()):
        said: dict[str, Any] = {"text": ""} if "text" in choice else {"delta": {}}
        choices.append({"index": choice.get("index", 0), **said, "finish_reason": "length"})
    ends = [whole | {"choices": choices}]
    if used is not None:
        counts = {"prompt_tokens": used.input, "completion_tokens": used.output}
        ends.append(whole | {"choices": [], "usage": counts | {"total_tokens": used.input + used.output}})
    return b"".join(b"data: " + msgspec.json.encode(each) + b"\n\n" for each in ends) + b"data: [DONE]\n\n"


def event_data(event: bytes) -> bytes:
    """The data of a server-sent event; b"" for one that has none, or is the last."""
    lines: Sequence[bytes] = [line[5:].removeprefix(b" ") for line in event.splitlines() if line.startswith(b"data:")]
    data = b"\n".join(lines)
    return b"" if data.strip() == b"[DONE]" else data
