"""The middleware between a caller and an endpoint that speaks the protocol, asking the real app of the API."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import orjson
import pytest

from actors.door_client import DoorUnavailable
from actors.door_wire import (
    BindingView,
    CarriedOn,
    CarryOn,
    Checked,
    CoveredView,
    Extend,
    FieldLimit,
    HoldView,
    Release,
)
from actors.door_wire import Check as Asked
from tallygate_sdk import CLOSED, OPEN, AsyncClient, Client, HttpSink, NotFound, Reporter, Spool, Unavailable
from tallygate_sdk.answers import Decision, Hold
from tallygate_sdk.errors import TallygateError
from tallygate_sdk.middleware import Admitted, Payer, TallygateMiddleware, _Running
from tallygate_sdk.openai_protocol import UsageObject, read_request
from tests.actors.web.fakes import ALLOWED, AS_OF, token
from tests.sdk.endpoint import Endpoint
from tests.sdk.serving import Served

CHAT = {"model": "small", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
STREAM = CHAT | {"stream": True}
HELD = msgspec.structs.replace(ALLOWED, hold=HoldView("3.7.41", token(), 60_000, 65_000))


class Gateway:
    """A caller of the middleware, in this process."""

    def __init__(self, at: Served, folder: Path) -> None:
        at.stage.doors.answers[Asked] = HELD
        self.at = at
        self.endpoint = Endpoint()
        self.client = AsyncClient(at.url, at.key, check_deadline_s=1.0)
        self.reporter = Reporter(HttpSink(Client(at.url, at.key)), Spool(folder), linger_s=0.0)
        self.made: list[TallygateMiddleware] = []

    def app(self, **options: Any) -> TallygateMiddleware:
        wired: dict[str, Any] = {"client": self.client, "reporter": self.reporter, "payer": who_pays}
        made = TallygateMiddleware(self.endpoint, **(wired | options))
        self.made.append(made)
        return made

    async def post(self, document: Any, path: str = "/v1/chat/completions", **options: Any) -> httpx2.Response:
        body = document if isinstance(document, bytes) else msgspec.json.encode(document)
        transport = httpx2.ASGITransport(self.app(**options), raise_app_exceptions=False)
        async with httpx2.AsyncClient(transport=transport, base_url="http://gateway") as caller:
            headers = {"x-account": "acme", "content-type": "application/json", "accept-encoding": "gzip"}
            return await caller.post(path, content=body, headers=headers)

    async def settled(self) -> list[dict[str, Any]]:
        """The usage that reached the log."""
        for each in self.made:
            await each.close()
        assert await asyncio.to_thread(self.reporter.flush, 20)
        return [orjson.loads(record.value or b"") for record in self.at.stage.appender.records]

    @property
    def asked(self) -> list[Any]:
        return [question for _, question in self.at.stage.doors.asked]


def who_pays(scope: Any) -> Payer | None:
    account = dict(scope["headers"]).get(b"x-account")
    return None if account is None else Payer(account.decode(), "team:red")


@pytest.fixture
async def gateway(at: Served, tmp_path: Path) -> AsyncIterator[Gateway]:
    made = Gateway(at, tmp_path)
    yield made
    await asyncio.to_thread(made.reporter.close)
    await made.client.close()


def texts(answer: httpx2.Response) -> list[Any]:
    """The data of a stream's events."""
    data = [line[6:] for line in answer.text.splitlines() if line.startswith("data: ")]
    return [each if each == "[DONE]" else orjson.loads(each) for each in data]


async def test_a_request_is_checked_forwarded_and_settled(gateway: Gateway) -> None:
    answer = await gateway.post(CHAT)
    assert answer.status_code == 200 and answer.json()["usage"]["completion_tokens"] == 5
    assert gateway.endpoint.seen == [CHAT], "forwarded as it came"
    assert b"accept-encoding" not in gateway.endpoint.headers[0]
    check, *_ = gateway.asked
    prompt_max = len(msgspec.json.encode(CHAT["messages"])) + 32 + 64
    assert check == Asked(
        "acme",
        "team:red",
        "llm.request",
        {"model": "small"},
        bounds=(FieldLimit(("input_tokens",), str(prompt_max)), FieldLimit(("output_tokens",), "100")),
        ttl_ms=60_000,
    )
    (event,) = await gateway.settled()
    assert gateway.endpoint.admitted == [Admitted(event["id"], Payer("acme", "team:red"))], "so that it can be named"
    assert event["data"] == {"model": "small", "input_tokens": 5, "output_tokens": 5}
    assert (event["subject"], event["type"], event["scope"]) == ("acme", "llm.request", "team:red")
    assert (event["hold"], event["holdfinal"]) == (token(), True)


@pytest.mark.parametrize("cut", [1 << 20, 7])
async def test_a_stream_is_settled_with_its_usage_which_is_shown_to_who_asked_for_it(
    gateway: Gateway, cut: int
) -> None:
    gateway.endpoint.cut = cut
    plain = texts(await gateway.post(STREAM))
    asking = texts(await gateway.post(STREAM | {"stream_options": {"include_usage": True}}))
    said = [each["choices"][0]["delta"]["content"] for each in plain[:-1]]
    assert said == [f"word{number} " for number in range(5)] and plain[-1] == "[DONE]"
    assert asking[:-2] == plain[:-1] and asking[-2]["usage"]["completion_tokens"] == 5
    events = await gateway.settled()
    assert [event["data"] for event in events] == [{"model": "small", "input_tokens": 5, "output_tokens": 5}] * 2


@pytest.mark.parametrize("cancelled", [False, True], ids=["noticed at the next piece", "cancelled by the server"])
async def test_an_aborted_stream_is_settled_with_what_was_sent(gateway: Gateway, cancelled: bool) -> None:
    gateway.endpoint.words = 1_000
    gateway.endpoint.pause_s = 0.001
    sent: list[Any] = []
    hung_up = asyncio.Event()
    waiting: list[dict[str, Any]] = [{"type": "http.request", "body": msgspec.json.encode(STREAM), "more_body": False}]

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await hung_up.wait()
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)
        if len(sent) == 8:
            hung_up.set()
            if cancelled:
                task.cancel()
            await asyncio.sleep(0.05)

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [(b"x-account", b"acme")]}
    task = asyncio.create_task(gateway.app()(scope, receive, send))
    (ended,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(ended, asyncio.CancelledError) if cancelled else ended is None
    (event,) = await gateway.settled()
    pieces = sum(b"word" in message.get("body", b"") for message in sent)
    size = sum(len(f"word{number} ") for number in range(pieces))
    assert pieces == 7
    assert event["data"]["output_tokens"] == max(pieces, -(-size // 4)) < 20
    assert event["data"]["usage_basis"] == "estimated" and event["hold"] == token()
    assert 0 < event["data"]["input_tokens"] < 100


async def test_an_endpoint_that_states_no_usage_is_estimated(gateway: Gateway) -> None:
    gateway.endpoint.states_usage = False
    await gateway.post(CHAT)
    await gateway.post(STREAM)
    whole, streamed = await gateway.settled()
    assert whole["data"]["usage_basis"] == streamed["data"]["usage_basis"] == "estimated"
    assert whole["data"]["output_tokens"] == 7, "25 bytes"
    assert streamed["data"]["output_tokens"] == 8, "30 bytes in five pieces"


@pytest.mark.parametrize(("status", "breaks_after"), [(500, None), (429, None), (200, 0)])
async def test_what_the_endpoint_did_not_do_costs_nothing(
    gateway: Gateway, status: int, breaks_after: int | None
) -> None:
    gateway.endpoint.status, gateway.endpoint.breaks_after = status, breaks_after
    for asked in (CHAT, STREAM):
        assert (await gateway.post(asked)).status_code == (500 if breaks_after == 0 else status)
    assert await gateway.settled() == []
    assert [each for each in gateway.asked if isinstance(each, Release)] == [Release(token())] * 2


async def test_an_endpoint_that_breaks_in_the_middle_is_settled_with_what_it_sent(gateway: Gateway) -> None:
    gateway.endpoint.breaks_after = 3
    await gateway.post(STREAM)
    (event,) = await gateway.settled()
    assert event["data"]["output_tokens"] == 5 and event["data"]["usage_basis"] == "estimated", "18 bytes"


@pytest.mark.parametrize(
    ("checked", "status", "kind", "headers"),
    [
        (Checked(False, AS_OF, reason="credit_depleted"), 402, "insufficient_quota", {"x-should-retry": "false"}),
        (Checked(False, AS_OF, reason="model_not_entitled"), 403, "permission_error", {"x-should-retry": "false"}),
        (
            Checked(
                False,
                AS_OF,
                reason="rate_limited",
                transient=True,
                retry_after_ms=2_400,
                binding=BindingView("rate", "team:red", "rpm", "0", 2_400),
            ),
            429,
            "rate_limit_error",
            {"retry-after": "2"},
        ),
        (Checked(False, AS_OF, reason="something_new"), 402, "insufficient_quota", {}),
        (Checked(False, AS_OF, reason="something_new", transient=True), 429, "rate_limit_error", {}),
    ],
)
async def test_a_denial_is_told_as_the_protocol_tells_errors(
    gateway: Gateway, checked: Checked, status: int, kind: str, headers: dict[str, str]
) -> None:
    gateway.at.stage.doors.answers[Asked] = checked
    answer = await gateway.post(CHAT)
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (status, kind, checked.reason)
    assert headers.items() <= dict(answer.headers).items()
    assert ("rpm" in error["message"]) == (checked.binding is not None)
    assert gateway.endpoint.seen == [] and await gateway.settled() == []


async def test_without_an_answer_the_policy_decides(gateway: Gateway) -> None:
    gateway.at.script = [503] * 200
    closed = await gateway.post(CHAT, on_away=CLOSED)
    opened = await gateway.post(CHAT, on_away=OPEN)
    assert (closed.status_code, closed.json()["error"]["code"], opened.status_code) == (503, "unavailable", 200)
    gateway.at.script = []
    (event,) = await gateway.settled()
    assert "hold" not in event and event["scope"] == "team:red" and event["data"]["output_tokens"] == 5


async def test_what_the_service_refuses_is_no_fault_of_the_caller(gateway: Gateway) -> None:
    answer = await gateway.post(CHAT, client=AsyncClient(gateway.at.url, "tg_test_wrong"), on_away=OPEN)
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "check_failed")
    assert gateway.endpoint.seen == []


@pytest.mark.parametrize(
    ("document", "headers", "status", "code"),
    [
        (b"{", True, 400, "invalid_value"),
        (CHAT | {"max_tokens": 0}, True, 400, "invalid_value"),
        (CHAT, False, 401, "unauthenticated"),
        (b"x" * (9 << 20), True, 413, "body_too_large"),
    ],
)
async def test_what_cannot_be_admitted_is_refused_before_it_is_asked(
    gateway: Gateway, document: Any, headers: bool, status: int, code: str
) -> None:
    options: dict[str, Any] = {} if headers else {"payer": lambda scope: None}
    answer = await gateway.post(document, **options)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)
    assert gateway.asked == [] and gateway.endpoint.seen == []


async def test_the_hold_is_kept_open_while_the_answer_runs(gateway: Gateway) -> None:
    later = token(expires_us=1_795_341_700_000_000)
    extended = msgspec.structs.replace(ALLOWED, hold=HoldView("3.7.41", later, 60_000, 65_000))
    gateway.at.stage.doors.answers[Extend] = extended
    gateway.endpoint.words, gateway.endpoint.pause_s = 8, 0.1
    await gateway.post(STREAM, hold_s=0.2)
    (event,) = await gateway.settled()
    first, *more = [each for each in gateway.asked if isinstance(each, Extend)]
    assert (first.token, first.ttl_ms) == (token(), 200) and more and more[0].token == later
    assert event["hold"] == later


async def test_a_hold_that_cannot_be_extended_stops_no_answer(gateway: Gateway) -> None:
    gateway.at.stage.doors.answers[Extend] = Checked(False, AS_OF, reason="boundary_passed")
    gateway.endpoint.pause_s = 0.1
    assert texts(await gateway.post(STREAM, hold_s=0.1))[-1] == "[DONE]"
    (event,) = await gateway.settled()
    assert event["hold"] == token() and event["data"]["output_tokens"] == 5


class Extending:
    """What a running request asks of its middleware, and the answers it gets, one after another."""

    hold_s = 60.0

    def __init__(self, *answers: Decision | TallygateError) -> None:
        self.answers = list(answers)

    async def extended(self, hold: Hold) -> Decision:
        answer = self.answers.pop(0)
        if isinstance(answer, TallygateError):
            raise answer
        return answer


LONGER = Decision(True, hold=Hold("3.7.41", "longer", 60.0, 65.0))
AWAY = Unavailable("nobody answered")
OVER = Decision(False, "hold_not_open")


async def pauses(monkeypatch: pytest.MonkeyPatch, *answers: Decision | TallygateError) -> list[float]:
    """How long a request waits before each of its tries to extend its hold."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    owner: Any = Extending(*answers)
    running = _Running(owner, Payer("acme"), read_request(b'{"model":"m"}', answers=True, output_default=9), LONGER, 9)
    with monkeypatch.context() as patched:
        patched.setattr(asyncio, "sleep", sleep)
        await running.keep_open()
    return slept


async def test_an_extension_that_fails_is_tried_again_before_the_hold_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    recovering = Decision(False, "rate_limited", transient=True)
    asked = Decision(False, "rate_limited", transient=True, retry_after_s=3.0)
    denied = Decision(False, "credit_depleted")
    refused = NotFound(404, "", "no such hold", field=None, next_step="", request_id="")
    assert await pauses(monkeypatch, LONGER, AWAY, recovering, refused, LONGER, OVER) == [30, 30, 1, 1, 1, 30]
    assert await pauses(monkeypatch, denied, asked, LONGER, OVER) == [30, 7.5, 3, 30], (
        "what does not pass by itself, less often"
    )
    tries = await pauses(monkeypatch, *[AWAY] * 40, OVER)
    assert tries == [30, *[1] * 30, *[30] * 10], "as long as the hold's time lasts"


@pytest.mark.parametrize("reason", ["hold_not_open", "boundary_passed"])
async def test_what_no_later_extension_is_granted_for_ends_it(monkeypatch: pytest.MonkeyPatch, reason: str) -> None:
    assert await pauses(monkeypatch, Decision(False, reason), LONGER, OVER) == [30]


async def test_the_limit_of_a_chat_stands_under_the_name_that_the_endpoint_reads(gateway: Gateway) -> None:
    await gateway.post(STREAM | {"stream_options": {"include_usage": True}}, chat_limit="max_completion_tokens")
    await gateway.post(
        {"model": "small", "max_completion_tokens": 3}, "/v1/completions", chat_limit="max_completion_tokens"
    )
    chat, completion = gateway.endpoint.seen
    assert (chat.get("max_tokens"), chat["max_completion_tokens"]) == (None, 100)
    assert completion == {"model": "small", "max_tokens": 3}


def carried(*steps: int) -> Any:
    """What the service says to each question: so many tokens are covered; behind the last one, it says to stop."""
    left = list(steps)

    def answer(asked: CarryOn) -> CarriedOn:
        event = orjson.loads(asked.event)
        if not left:
            denied = Checked(False, AS_OF, reason="credit_depleted")
            return CarriedOn("stop", (CoveredView(("output_tokens",), "2"),), denied)
        longer = token(number=100 + event["data"]["output_tokens"])
        extended = msgspec.structs.replace(ALLOWED, hold=HoldView("3.7.41", longer, 60_000, 65_000))
        return CarriedOn("continue", (CoveredView(("output_tokens",), str(left.pop(0))),), extended)

    return answer


async def test_a_stream_is_reserved_step_by_step(gateway: Gateway) -> None:
    gateway.at.stage.doors.answers[CarryOn] = carried(*[10] * 20)
    gateway.endpoint.words, gateway.endpoint.pause_s = 25, 0.01
    said = texts(await gateway.post(STREAM, output_step=10))
    assert len(said) == 26 and said[-1] == "[DONE]", "it came to its own end"
    check, *_ = gateway.asked
    assert check.bounds[1] == FieldLimit(("output_tokens",), "10"), "and not the 100 that it may come to"
    questions = [each for each in gateway.asked if isinstance(each, CarryOn)]
    assert len(questions) >= 2 and questions[0].ahead[-1] == FieldLimit(("output_tokens",), "10")
    first = orjson.loads(questions[0].event)
    assert 5 <= first["data"]["output_tokens"] < 10 and (first["hold"], first["holdfinal"]) == (token(), False)
    (event,) = await gateway.settled()
    assert event["data"] == {"model": "small", "input_tokens": 5, "output_tokens": 25}
    assert event["hold"] not in (token(), questions[-1].token), "of the last extension"


@pytest.mark.parametrize("asks", [False, True], ids=["", "asks for the usage"])
async def test_a_stream_that_the_account_cannot_bear_any_more_is_ended(gateway: Gateway, asks: bool) -> None:
    gateway.at.stage.doors.answers[CarryOn] = carried(4)
    gateway.endpoint.words, gateway.endpoint.pause_s = 90, 0.01
    options = {"stream_options": {"include_usage": True}} if asks else {}
    *told, done = texts(await gateway.post(STREAM | options, output_step=4))
    usage = told.pop()["usage"] if asks else None
    *pieces, end = told
    assert done == "[DONE]" and end["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert 4 < len(pieces) < 15
    (event,) = await gateway.settled()
    assert event["data"]["usage_basis"] == "estimated" and event["hold"] != token()
    assert len(pieces) <= event["data"]["output_tokens"] < 20
    assert usage is None or usage["completion_tokens"] == event["data"]["output_tokens"]


async def test_a_stream_whose_every_piece_states_the_usage_is_ended_as_well(gateway: Gateway) -> None:
    """A caller may ask for that, and an endpoint be told to do so: that a usage is stated is no sign of the end."""
    stating = STREAM | {"stream_options": {"include_usage": True, "continuous_usage_stats": True}}
    gateway.endpoint.words, gateway.endpoint.pause_s = 90, 0.01
    gateway.at.stage.doors.answers[CarryOn] = carried(4)
    *pieces, end, usage, done = texts(await gateway.post(stating, output_step=4))
    assert done == "[DONE]" and end["choices"][0]["finish_reason"] == "length"
    assert 4 < len(pieces) < 15
    gateway.at.stage.doors.answers[CarryOn] = carried(*[10] * 20)
    gateway.endpoint.words = 25
    assert len(texts(await gateway.post(stating, output_step=10))) == 27, "to its own end, where it can be paid"
    cut, whole = await gateway.settled()
    assert cut["data"] == {"model": "small", "input_tokens": 5, "output_tokens": len(pieces)}, "as stated, no estimate"
    assert usage["usage"]["completion_tokens"] == len(pieces)
    assert whole["data"]["output_tokens"] == 25


@pytest.mark.parametrize("stream", [False, True])
async def test_a_server_that_fails_for_a_caller_who_hung_up_spoils_no_settlement(
    gateway: Gateway, stream: bool
) -> None:
    waiting: list[dict[str, Any]] = [
        {"type": "http.request", "body": msgspec.json.encode(STREAM if stream else CHAT), "more_body": False}
    ]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            return waiting.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: Any) -> None:
        sent.append(message)
        raise OSError("the caller hung up")

    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "headers": [(b"x-account", b"acme")]}
    await gateway.app()(scope, receive, send)
    (event,) = await gateway.settled()
    if stream:
        assert len(sent) == 1 and event["data"]["output_tokens"] == 0, "it is stopped"
    else:
        assert len(sent) == 2, "it comes to its end"
        assert event["data"] == {"model": "small", "input_tokens": 5, "output_tokens": 5}


async def test_a_stream_goes_on_unseen_only_where_the_policy_says_so(gateway: Gateway) -> None:
    gateway.at.stage.doors.answers[CarryOn] = DoorUnavailable("away", 0)
    gateway.endpoint.words = 12
    client = AsyncClient(gateway.at.url, gateway.at.key, check_deadline_s=0.1)
    closed = texts(await gateway.post(STREAM, output_step=4, client=client))
    opened = texts(await gateway.post(STREAM, output_step=4, client=client, on_away=OPEN))
    await client.close()
    assert len(closed) < 12 and closed[-2]["choices"][0]["finish_reason"] == "length"
    assert len(opened) == 13
    assert len(await gateway.settled()) == 2


async def test_the_endpoints_own_usage_object_may_be_what_is_reported(gateway: Gateway) -> None:
    await gateway.post(CHAT, meaning=UsageObject())
    (event,) = await gateway.settled()
    assert event["type"] == "llm.usage" and event["data"]["usage_shape"] == "openai_chat"
    assert event["data"]["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}


async def test_embeddings_use_their_input_only(gateway: Gateway) -> None:
    await gateway.post({"model": "small", "input": "hello"}, "/v1/embeddings")
    (event,) = await gateway.settled()
    assert event["data"] == {"model": "small", "input_tokens": 5, "output_tokens": 0}


@pytest.mark.parametrize("path", ["/v1/chat/completions/", "/v1/completions//", "/v1/embeddings/"])
async def test_a_slash_behind_the_path_is_no_way_around(gateway: Gateway, path: str) -> None:
    gateway.at.stage.doors.answers[Asked] = Checked(False, AS_OF, reason="credit_depleted")
    asked = {"model": "small", "input": "hello"} if "embeddings" in path else CHAT
    assert (await gateway.post(asked, path)).status_code == 402
    assert gateway.endpoint.seen == []


async def test_all_else_passes_untouched(gateway: Gateway) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    middleware = TallygateMiddleware(
        app, client=gateway.client, reporter=gateway.reporter, payer=lambda scope: Payer("acme")
    )

    async def nothing(message: Any = None) -> Any:
        return None

    for scope in (
        {"type": "lifespan"},
        {"type": "http", "method": "GET", "path": "/v1/chat/completions"},
        {"type": "http", "method": "POST", "path": "/v1/models"},
    ):
        await middleware(scope, nothing, nothing)
        assert seen.pop() == (scope, nothing, nothing)


async def test_usage_that_finds_the_spool_full_goes_to_the_service_directly(gateway: Gateway, tmp_path: Path) -> None:
    small = Reporter(HttpSink(Client(gateway.at.url, gateway.at.key)), Spool(tmp_path / "small", bytes_max=10))
    await gateway.post(CHAT, reporter=small)
    (event,) = await gateway.settled()
    assert event["data"]["output_tokens"] == 5
    await asyncio.to_thread(small.close)


async def test_a_caller_that_hangs_up_before_he_is_heard_is_nobody(gateway: Gateway) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError("nobody listens")

    scope = {"type": "http", "method": "POST", "path": "/v1/completions", "headers": [(b"x-account", b"acme")]}
    await gateway.app()(scope, receive, send)
    assert gateway.asked == []
