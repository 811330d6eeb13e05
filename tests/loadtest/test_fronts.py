"""Both ways in, against a server and a door that answer as the real ones do, and as dying ones do."""

from collections.abc import AsyncIterator, Sequence
from typing import Any, cast

import aiohttp
import orjson
import pytest
from aiohttp import web

from actors.door_wire import (
    Answer,
    AsOf,
    BadQuestion,
    Check,
    Checked,
    Extend,
    FieldLimit,
    HoldView,
    Question,
    Recovering,
    Release,
    Released,
    WalletView,
    WrongOwner,
)
from actors.ports import Log, LogUnavailable, Outgoing
from engine.holds import Hold, seal_token
from loadtest import fronts
from loadtest.fronts import Ask, Bound, DoorFront, HttpFront, Refused, Unanswered, Usage, until_answered

ASK = Ask("acme", "llm.request", {"model": "atlas-mini"}, (Bound(("input_tokens",), 12),), 5.0)
USAGE = Usage("acme", "gw", "e1", "llm.request", "2026-01-01T00:00:00Z", {"input_tokens": 3}, "tok", False)
CHECKED = {
    "allowed": True,
    "reason": None,
    "transient": False,
    "price": {"amount": "0.000000000012", "currency": "USD", "version": 1},
    "balance": {"booked": "1.5", "held": "0.5", "available": "1", "overdraft": "0", "currency": "USD"},
    "hold": {"id": "0.1.1", "token": "tok", "valid_for_s": 4.5, "expires_in_s": 10},
    "as_of": {"partition": 0, "epoch": 1, "offset": 7},
}


class Api:
    """Answers what it was told to, in turn, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self.answers: list[tuple[int, Any]] = []

    async def take(self, request: web.Request) -> web.Response:
        self.asked.append((request.path, request.headers["authorization"], await request.json()))
        status, body = self.answers.pop(0)
        if status == 0:
            assert request.transport is not None
            request.transport.close()
        return web.json_response(body, status=status or 200)


@pytest.fixture
async def api() -> AsyncIterator[tuple[Api, HttpFront]]:
    made = Api()
    app = web.Application()
    app.router.add_post("/{path:.*}", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    async with aiohttp.ClientSession() as session:
        yield made, HttpFront(session, f"http://127.0.0.1:{runner.addresses[0][1]}/", "key")
    await runner.cleanup()


async def test_the_four_calls_are_the_contract(api: tuple[Api, HttpFront]) -> None:
    server, front = api
    server.answers = [(200, CHECKED), (200, CHECKED), (202, {}), (200, {})]
    answer = await front.check(ASK)
    await front.extend("tok", (), 3.0)
    await front.capture(USAGE)
    await front.release("tok")
    bounds = [{"fields": ["input_tokens"], "up_to": 12}]
    event = {"id": "e1", "source": "gw", "type": "llm.request", "time": USAGE.time, "data": {"input_tokens": 3}}
    assert server.asked == [
        ("/v1/check", "Bearer key", {"account": "acme", "type": "llm.request", "data": {"model": "atlas-mini"},
                                     "bounds": bounds, "hold": {"ttl_s": 5.0}}),
        ("/v1/holds/extend", "Bearer key", {"token": "tok", "bounds": [], "ttl_s": 3.0}),
        ("/v1/holds/capture", "Bearer key", {"token": "tok", "event": event, "final": False}),
        ("/v1/holds/release", "Bearer key", {"token": "tok"}),
    ]  # fmt: skip
    assert (answer.allowed, answer.price, answer.booked, answer.held, answer.available) == (
        True, 12, 15 * 10**11, 5 * 10**11, 10**12,
    )  # fmt: skip
    assert (answer.overdraft, answer.hold, answer.token, answer.offset) == (0, "0.1.1", "tok", 7)


async def test_a_denial_has_no_hold_and_may_have_no_figures(api: tuple[Api, HttpFront]) -> None:
    server, front = api
    server.answers = [(200, {"allowed": False, "reason": "unknown_account", "transient": False, "hold": None})]
    answer = await front.check(ASK)
    assert (answer.allowed, answer.reason, answer.token, answer.booked) == (False, "unknown_account", None, None)


async def test_what_is_lost_is_asked_again_unchanged_and_what_is_wrong_is_not(api: tuple[Api, HttpFront]) -> None:
    server, front = api
    server.answers = [(503, {}), (0, {}), (500, {}), (202, {})]
    await front.capture(USAGE)
    assert len(server.asked) == 4 and all(asked == server.asked[0] for asked in server.asked)
    assert front.retries == 3
    server.answers = [(422, {"detail": "no such field"})]
    with pytest.raises(Refused, match="no such field"):
        await front.check(ASK)


async def test_nobody_waits_for_ever() -> None:
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        raise Unanswered("away")

    with pytest.raises(Unanswered, match="away"):
        await until_answered(attempt, give_up_s=0.2)
    assert tries > 1
    assert fronts.GIVE_UP_S > fronts.ATTEMPT_TIMEOUT_S


KEY = b"a control key of thirty-two bytes"
TOKEN = seal_token(KEY, Hold("acme", "", 3, 1, 1, 0, 1, 0, 0, 0, ()))
AS_OF = AsOf(3, 1, 7, 0, 0)


class Door:
    """Answers in turn; an exception is raised. Also the log, which fails as often as it is told to."""

    def __init__(self, *answers: Answer | Exception, log_away: int = 0) -> None:
        self.asked: list[tuple[str, Question]] = []
        self.written: list[Outgoing] = []
        self._answers = list(answers)
        self._log_away = log_away
        self.front = DoorFront(self.ask, cast(Log, self), KEY)

    async def ask(self, account: str, question: Question) -> Answer:
        self.asked.append((account, question))
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def append(self, records: Sequence[Outgoing]) -> None:
        if self._log_away:
            self._log_away -= 1
            raise LogUnavailable("away")
        self.written += records


async def test_a_door_is_asked_until_its_owner_answers() -> None:
    wallet = WalletView("USD", "1.5", "0.5", "1", None)
    checked = Checked(True, AS_OF, wallet=wallet, price="0.25", hold=HoldView("3.1.1", TOKEN, 4500, 9500))
    door = Door(WrongOwner(3), ConnectionResetError("gone"), Recovering(3, 100), checked)
    answer = await door.front.check(ASK)
    limits = (FieldLimit(("input_tokens",), "12"),)
    question = Check("acme", type="llm.request", data={"model": "atlas-mini"}, bounds=limits, ttl_ms=5000)
    assert door.asked == [("acme", question)] * 4 and door.front.retries == 3
    assert (answer.price, answer.available, answer.overdraft) == (10**12 // 4, 10**12, None)
    assert (answer.hold, answer.token, answer.valid_for_s, answer.offset) == ("3.1.1", TOKEN, 4.5, 7)


async def test_a_token_says_whose_door_it_is() -> None:
    door = Door(Checked(False, AS_OF, "withheld", True, 250), Released(True, AS_OF), BadQuestion("token", "is closed"))
    answer = await door.front.extend(TOKEN, (), 2.0)
    assert (answer.allowed, answer.transient, answer.retry_after_s) == (False, True, 0.25)
    await door.front.release(TOKEN)
    assert door.asked == [("acme", Extend(TOKEN, 2000)), ("acme", Release(TOKEN))]
    with pytest.raises(Refused, match="token: is closed"):
        await door.front.release(TOKEN)


async def test_usage_goes_into_the_log_under_its_account_with_its_token() -> None:
    door = Door(log_away=2)
    await door.front.capture(USAGE)
    (record,) = door.written
    assert (record.topic, record.key, record.partition) == ("usage", b"acme", None)
    assert orjson.loads(record.value or b"") == {
        "specversion": "1.0", "id": "e1", "source": "gw", "type": "llm.request", "subject": "acme",
        "time": "2026-01-01T00:00:00Z", "data": {"input_tokens": 3}, "hold": "tok", "holdfinal": False,
    }  # fmt: skip
