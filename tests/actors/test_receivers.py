"""Delivery to many endpoints on a clock moved by hand: each stands alone, and each is told once."""

import asyncio
import base64
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence

import asyncpg
import pytest
from aiohttp import web
from pydantic import SecretStr
from standardwebhooks import Webhook

import actors.receivers
from actors.egress import EgressRefused
from actors.endpoints import (
    AlertUnknown,
    Changes,
    Endpoint,
    EndpointDelivery,
    EndpointRefused,
    EndpointUnknown,
    Listener,
    PostgresEndpoints,
    new_secret,
)
from actors.ports import AlertRow, Attempt, StoreUnavailable
from actors.receivers import (
    CALLS_PER_ENDPOINT,
    NOBODY_AGAIN_S,
    SETTINGS_ENDPOINT,
    Breaker,
    Courier,
    EndpointDisabled,
    EndpointReceivers,
    rule_of,
    settings_listener,
)
from actors.webhooks import Answer, WebhookCaller
from tests.contracts.benches import RealBench, real_bench
from tests.simulation.hand_clock import HandClock, settle

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
TAKEN = Attempt(delivered=True)
BUSY = Attempt(delivered=False, error="HTTP 503")
GONE = Attempt(delivered=False, error="HTTP 410: the receiver is gone for good", final=True)

Script = Callable[[str, str, int], Attempt]  # url, message, how often it came there


def alert(alert_id: str, account: str = "acme", rule: str = "low") -> AlertRow:
    body = json.dumps({"id": alert_id, "data": {"rule": rule}}).encode()
    return AlertRow(alert_id=alert_id, account=account, offset=1, body=body)


def listener(name: str, account: str | None = None, rules: list[str] | None = None) -> Listener:
    endpoint = Endpoint(
        endpoint_id=f"we_{name}", account=account, url=f"https://{name}.example.com/", rules=rules, created_us=0
    )
    return Listener(endpoint=endpoint, secret=SecretStr(SECRET))


class ScriptedCaller(WebhookCaller):
    """Answers what `script` says; a held endpoint answers once let go."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__(clock)
        self._at = clock
        self.script: Script = lambda url, message, arrival: TAKEN
        self.calls: list[tuple[str, str]] = []  # endpoint, message
        self.signed: list[Sequence[str]] = []
        self.held: dict[str, asyncio.Event] = {}
        self.under_way: dict[str, int] = {}
        self.under_way_max: dict[str, int] = {}
        self.broken: set[str] = set()

    async def call(self, url: str, secrets: Sequence[str], message_id: str, body: bytes) -> Answer:
        name = url.split("//")[1].split(".")[0]
        self.calls.append((name, message_id))
        self.signed.append(secrets)
        arrival = self.calls.count((name, message_id))
        self.under_way[name] = self.under_way.get(name, 0) + 1
        self.under_way_max[name] = max(self.under_way_max.get(name, 0), self.under_way[name])
        try:
            if name in self.held:
                await self.held[name].wait()
            if name in self.broken:
                raise KeyError("a fault of ours")
            attempt = self.script(name, message_id, arrival)
        finally:
            self.under_way[name] -= 1
        status = 204 if attempt.delivered else 503
        return Answer(attempt=attempt, at_us=self._at.wall_us(), duration_ms=3, status=status)

    def at(self, name: str) -> list[str]:
        return [message for called, message in self.calls if called == name]


class HandBook:
    """Endpoints in memory."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = {each.endpoint.endpoint_id: each for each in listeners}
        self.number = 1
        self.unreadable: dict[str, str] = {}
        self.disabled: list[tuple[str, str]] = []
        self.recorded: list[EndpointDelivery] = []
        self.down = False
        self.forgot = 0
        self.running = False

    async def start(self) -> None:
        self.running = True

    async def stop(self) -> None:
        self.running = False

    async def changes(self, after: int) -> Changes:
        self._reach()
        moved = after < self.number
        return Changes(
            number=self.number,
            listeners=list(self.listeners.values()) if moved else [],
            unreadable=self.unreadable if moved else {},
        )

    async def disable(self, endpoint_id: str, account: str | None = None, reason: str = "") -> Endpoint:
        self._reach()
        self.disabled.append((endpoint_id, reason))
        return self.change(endpoint_id, disabled_us=1).endpoint

    async def record(self, deliveries: Sequence[EndpointDelivery]) -> None:
        self._reach()
        self.recorded += deliveries

    async def forget_old(self) -> int:
        self.forgot += 1
        return 0

    def change(self, endpoint_id: str, **changed: object) -> Listener:
        old = self.listeners[endpoint_id]
        fields = {name: getattr(old.endpoint, name) for name in old.endpoint.__struct_fields__} | changed
        new = Listener(endpoint=Endpoint(**fields), secret=old.secret, previous=old.previous)
        self.add(new)
        return new

    def add(self, added: Listener) -> None:
        self.listeners[added.endpoint.endpoint_id] = added
        self.number += 1

    def _reach(self) -> None:
        if self.down:
            raise StoreUnavailable("down")


class Stage:
    def __init__(self, *listeners: Listener, settings: Listener | None = None, calls_max: int = 4) -> None:
        self.clock = HandClock()
        self.caller = ScriptedCaller(self.clock)
        self.book = HandBook(*listeners)
        self.lease_valid = True
        self.receivers = EndpointReceivers(
            self.clock,
            self.caller,
            self.book,
            settings=settings,
            settings_calls_max=calls_max,
            permitted=lambda: self.lease_valid,
        )
        self._posts: list[asyncio.Task[Attempt]] = []

    def post(self, row: AlertRow) -> asyncio.Task[Attempt]:
        self._posts.append(asyncio.create_task(self.receivers.post(row)))
        return self._posts[-1]

    async def told(self, row: AlertRow) -> Attempt:
        return await asyncio.wait_for(self.post(row), 5.0)

    async def close(self) -> None:
        for post in self._posts:
            post.cancel()
        await asyncio.gather(*self._posts, return_exceptions=True)
        await self.receivers.stop()


@pytest.fixture
async def opened() -> AsyncIterator[list[Stage]]:
    """Stages put here are closed at the end."""
    stages: list[Stage] = []
    yield stages
    for stage in stages:
        await stage.close()


async def start(opened: list[Stage], *listeners: Listener, **given: object) -> Stage:
    stage = Stage(*listeners, **given)  # type: ignore[arg-type]
    opened.append(stage)
    await stage.receivers.start()
    return stage


# ------------------------------------------------------------------------------------------------------ who is told


async def test_an_alert_goes_to_every_endpoint_that_hears_its_account_and_rule(opened: list[Stage]) -> None:
    stage = await start(
        opened,
        listener("all"),
        listener("mine", account="acme"),
        listener("low", account="acme", rules=["low", "empty"]),
        listener("high", account="acme", rules=["high"]),
        listener("other", account="other"),
        settings=listener("fixed"),
    )
    assert await stage.told(alert("a1")) == TAKEN
    assert sorted(stage.caller.calls) == [("all", "a1"), ("fixed", "a1"), ("low", "a1"), ("mine", "a1")]


async def test_an_alert_that_nobody_hears_waits_and_is_looked_at_again(opened: list[Stage]) -> None:
    stage = await start(opened, listener("other", account="other"))
    attempt = await stage.told(alert("a1"))
    assert (attempt.delivered, attempt.final, attempt.retry_after_s) == (False, False, NOBODY_AGAIN_S)
    assert "webhooks.url" in attempt.error
    stage.book.add(listener("mine", account="acme"))
    await stage.clock.advance(1.0)
    assert await stage.told(alert("a1")) == TAKEN


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"data":{"rule":5}}', b'{"n":1}'])
async def test_an_alert_without_a_rule_goes_to_those_that_hear_all(opened: list[Stage], body: bytes) -> None:
    row = AlertRow(alert_id="a1", account="acme", offset=1, body=body)
    assert rule_of(row) == ""
    stage = await start(opened, listener("all"), listener("low", rules=["low"]))
    assert await stage.told(row) == TAKEN
    assert stage.caller.calls == [("all", "a1")]


async def test_changes_of_endpoints_are_followed_within_a_second(opened: list[Stage]) -> None:
    stage = await start(opened, listener("a"))
    stage.book.change("we_a", disabled_us=1)
    rotated = Listener(listener("b").endpoint, new_secret(), SecretStr(SECRET))
    stage.book.add(listener("b"))
    await stage.clock.advance(1.0)
    await stage.told(alert("a1"))
    stage.book.add(rotated)
    await stage.clock.advance(1.0)
    await stage.told(alert("a2"))
    stage.book.change("we_a", disabled_us=None)
    await stage.clock.advance(1.0)
    await stage.told(alert("a3"))
    assert sorted(stage.caller.calls) == [("a", "a3"), ("b", "a1"), ("b", "a2"), ("b", "a3")]
    assert stage.caller.signed[:2] == [[SECRET], [rotated.secret.get_secret_value()]]


async def test_an_endpoint_whose_secret_cannot_be_opened_is_told_of_nothing(
    opened: list[Stage], caplog: pytest.LogCaptureFixture
) -> None:
    stage = await start(opened, listener("a"), listener("b"))
    stage.book.unreadable["we_a"] = "the secret of we_a was sealed under another key"
    del stage.book.listeners["we_a"]
    stage.book.number += 1
    await stage.clock.advance(1.0)
    assert await stage.told(alert("a1")) == TAKEN
    assert stage.caller.calls == [("b", "a1")]
    assert "we_a was sealed" in caplog.text


async def test_a_store_that_is_away_leaves_the_endpoints_as_they_were(opened: list[Stage]) -> None:
    stage = await start(opened, listener("a"))
    stage.book.down = True
    await stage.clock.advance(3.0)
    assert await stage.told(alert("a1")) == TAKEN
    assert stage.book.recorded == []
    stage.book.down = False
    stage.book.add(listener("b"))
    await stage.clock.advance(1.0)
    assert [each.alert_id for each in stage.book.recorded] == ["a1"]
    await stage.told(alert("a2"))
    assert stage.caller.at("b") == ["a2"]


async def test_a_fault_in_the_upkeep_ends_it_not(opened: list[Stage], monkeypatch: pytest.MonkeyPatch) -> None:
    stage = await start(opened)

    async def broken(after: int) -> Changes:
        raise KeyError("fault")

    with monkeypatch.context() as patched:
        patched.setattr(stage.book, "changes", broken)
        await stage.clock.advance(2.0)
    stage.book.add(listener("a"))
    await stage.clock.advance(1.0)
    assert await stage.told(alert("a1")) == TAKEN


# ------------------------------------------------------------------------------------------------ each is told once


async def test_only_where_it_failed_an_alert_is_told_again(opened: list[Stage]) -> None:
    stage = await start(opened, listener("good"), listener("bad"), settings=listener("fixed"))
    stage.caller.script = lambda name, message, arrival: BUSY if name == "bad" and arrival < 3 else TAKEN
    for _ in range(2):
        attempt = await stage.told(alert("a1"))
        assert not attempt.delivered and not attempt.final
        assert attempt.error == "we_bad: HTTP 503"
    assert await stage.told(alert("a1")) == TAKEN
    assert (stage.caller.at("good"), stage.caller.at("fixed"), stage.caller.at("bad")) == (["a1"], ["a1"], ["a1"] * 3)


async def test_many_failures_are_told_shortly(opened: list[Stage]) -> None:
    stage = await start(opened, *(listener(f"e{number}") for number in range(9)))
    stage.caller.script = lambda name, message, arrival: BUSY
    attempt = await stage.told(alert("a1"))
    assert attempt.error.endswith("; and 6 more")
    assert attempt.error.count("HTTP 503") == 3


async def test_an_endpoint_that_is_gone_is_disabled_and_no_longer_waited_for(opened: list[Stage]) -> None:
    stage = await start(opened, listener("gone"), listener("slow"))
    stage.caller.script = lambda name, message, arrival: GONE if name == "gone" else BUSY if arrival == 1 else TAKEN
    stage.book.down = True
    assert not (await stage.told(alert("a1"))).final
    await stage.clock.advance(2.0)
    stage.book.down = False
    assert await stage.told(alert("a1")) == TAKEN
    assert await stage.told(alert("a2")) == BUSY
    await stage.clock.advance(2.0)
    assert stage.book.disabled == [("we_gone", GONE.error)]
    assert stage.caller.at("gone") == ["a1"]


async def test_an_alert_whose_only_endpoint_is_gone_is_given_up(opened: list[Stage]) -> None:
    for given in ({"settings": listener("gone")}, {}):
        stage = await start(opened, *([] if given else [listener("gone")]), **given)
        stage.caller.script = lambda name, message, arrival: GONE
        assert await stage.told(alert("a1")) == GONE
    assert stage.book.disabled == []
    await stage.clock.advance(1.0)
    assert stage.book.disabled == [("we_gone", GONE.error)]


async def test_the_endpoint_of_the_settings_cannot_be_disabled_by_its_answer(opened: list[Stage]) -> None:
    stage = await start(opened, listener("good"), settings=listener("fixed"))
    stage.caller.script = lambda name, message, arrival: GONE if name == "fixed" else TAKEN
    assert await stage.told(alert("a1")) == TAKEN
    assert await stage.told(alert("a2")) == TAKEN
    await stage.clock.advance(1.0)
    assert stage.caller.at("fixed") == ["a1", "a2"]
    assert stage.book.disabled == []


async def test_what_was_answered_is_forgotten_when_too_much_is_remembered(
    opened: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.receivers, "PROGRESS_MAX", 2)
    stage = await start(opened, listener("good"), listener("bad"))
    stage.caller.script = lambda name, message, arrival: BUSY if name == "bad" and arrival == 1 else TAKEN
    for number in (1, 2, 3):
        await stage.told(alert(f"a{number}"))
    for number in (1, 2, 3):
        assert await stage.told(alert(f"a{number}")) == TAKEN
    assert stage.caller.at("good") == ["a1", "a2", "a3", "a1", "a2"]


# ---------------------------------------------------------------------------------------------- each stands alone


async def test_an_endpoint_that_hangs_delays_neither_other_endpoints_nor_other_accounts(opened: list[Stage]) -> None:
    stage = await start(opened, listener("hangs", account="acme"), listener("good"))
    stage.caller.held["hangs"] = asyncio.Event()
    posts = [stage.post(alert(f"a{number}")) for number in range(10)]
    others = [stage.post(alert(f"o{number}", account="other")) for number in range(10)]
    await settle()
    assert [post.done() for post in (*posts, *others)] == [False] * 10 + [True] * 10
    assert [each for each in stage.caller.at("good") if each.startswith("a")] == [f"a{number}" for number in range(10)]
    assert stage.caller.at("hangs") == ["a0"]
    stage.caller.held["hangs"].set()
    assert [await post for post in posts] == [TAKEN] * 10
    assert stage.caller.at("hangs") == [f"a{number}" for number in range(10)]


async def test_each_account_has_its_order_at_each_endpoint(opened: list[Stage]) -> None:
    stage = await start(opened, listener("x"), listener("y"))
    stage.caller.held["x"] = asyncio.Event()
    posts = [stage.post(alert(f"{account}{number}", account=account)) for number in range(5) for account in "bac"]
    await settle()
    assert sorted(stage.caller.at("x")) == ["a0", "b0", "c0"]
    assert len(stage.caller.at("y")) == 15
    stage.caller.held["x"].set()
    await asyncio.gather(*posts)
    for name in "xy":
        for account in "abc":
            seen = [message for message in stage.caller.at(name) if message.startswith(account)]
            assert seen == [f"{account}{number}" for number in range(5)]


async def test_an_endpoint_gets_so_many_calls_at_once_and_no_more(opened: list[Stage]) -> None:
    stage = await start(opened, listener("a"), settings=listener("fixed"), calls_max=7)
    stage.caller.held = {"a": asyncio.Event(), "fixed": asyncio.Event()}
    posts = [stage.post(alert(f"a{number}", account=f"c{number}")) for number in range(20)]
    await settle()
    assert stage.caller.under_way == {"a": CALLS_PER_ENDPOINT, "fixed": 7}
    for event in stage.caller.held.values():
        event.set()
    await asyncio.gather(*posts)
    assert stage.caller.under_way_max == {"a": CALLS_PER_ENDPOINT, "fixed": 7}


async def test_after_failures_in_a_row_an_endpoint_is_spared_and_probed_with_growing_pauses(
    opened: list[Stage],
) -> None:
    stage = await start(opened, listener("bad"), listener("good"))
    stage.caller.script = lambda name, message, arrival: BUSY if name == "bad" else TAKEN
    for number in range(Breaker.FAILURES + 3):
        await stage.told(alert(f"a{number}"))
    assert len(stage.caller.at("bad")) == Breaker.FAILURES
    assert len(stage.caller.at("good")) == Breaker.FAILURES + 3
    attempt = await stage.told(alert("a0"))
    assert attempt.retry_after_s == pytest.approx(30.0)
    assert "spared" in attempt.error
    probes: list[float] = []
    for _ in range(6000):
        await stage.clock.advance(1.0)
        before = len(stage.caller.at("bad"))
        await asyncio.gather(stage.told(alert("a0")), stage.told(alert("a1")))
        if len(stage.caller.at("bad")) > before:
            assert len(stage.caller.at("bad")) == before + 1
            probes.append(stage.clock.boot_s())
        if len(probes) == 8:
            break
    pauses = [later - earlier for earlier, later in zip([0.0, *probes], probes, strict=False)]
    assert pauses == pytest.approx([30, 60, 120, 240, 480, 600, 600, 600])
    stage.caller.script = lambda name, message, arrival: TAKEN
    await stage.clock.advance(600.0)
    assert await stage.told(alert("a0")) == TAKEN
    assert await stage.told(alert("a1")) == TAKEN


async def test_a_success_between_failures_keeps_the_breaker_closed(opened: list[Stage]) -> None:
    stage = await start(opened, listener("bad"))
    stage.caller.script = lambda name, message, arrival: TAKEN if message[-1] in "38" else BUSY
    for number in range(60):
        await stage.told(alert(f"a{number}"))
    assert len(stage.caller.at("bad")) == 60


async def test_a_probe_that_is_broken_off_leaves_room_for_the_next(opened: list[Stage]) -> None:
    stage = await start(opened, listener("bad"))
    stage.caller.script = lambda name, message, arrival: BUSY
    for number in range(Breaker.FAILURES):
        await stage.told(alert(f"a{number}"))
    await stage.clock.advance(30.0)
    stage.caller.held["bad"] = asyncio.Event()
    probe = stage.post(alert("a0"))
    await settle()
    probe.cancel()
    await settle()
    stage.caller.held.clear()
    stage.caller.script = lambda name, message, arrival: TAKEN
    assert await stage.told(alert("a1")) == TAKEN


async def test_an_endpoint_that_asks_for_time_gets_it_and_no_other_waits(opened: list[Stage]) -> None:
    stage = await start(opened, listener("busy"), listener("bad"))
    asked = Attempt(delivered=False, error="HTTP 429", retry_after_s=90.0)
    stage.caller.script = lambda name, message, arrival: asked if name == "busy" and arrival == 1 else BUSY
    first = await stage.told(alert("a1"))
    assert first.retry_after_s == 0.0
    await stage.clock.advance(60.0)
    await stage.told(alert("a1"))
    await stage.told(alert("a2"))
    assert (stage.caller.at("busy"), stage.caller.at("bad")) == (["a1"], ["a1", "a1", "a2"])
    stage.caller.script = lambda name, message, arrival: TAKEN
    assert (await stage.told(alert("a1"))).retry_after_s == pytest.approx(30.0)
    await stage.clock.advance(30.0)
    assert await stage.told(alert("a1")) == TAKEN


async def test_no_call_begins_without_the_lease(opened: list[Stage]) -> None:
    stage = await start(opened, listener("a"))
    stage.lease_valid = False
    post = stage.post(alert("a1"))
    await stage.clock.advance(10.0)
    assert stage.caller.calls == []
    stage.lease_valid = True
    await stage.clock.until(post.done)
    assert await post == TAKEN


async def test_a_fault_of_ours_closes_nothing_behind_it(opened: list[Stage]) -> None:
    stage = await start(opened, listener("a"))
    stage.caller.broken.add("a")
    for number in range(Breaker.FAILURES + 1):
        with pytest.raises(KeyError):
            await stage.told(alert(f"a{number}"))
    stage.caller.broken.clear()
    assert await stage.told(alert("a1")) == TAKEN


# ------------------------------------------------------------------------------------------------ what is written down


async def test_each_attempt_is_written_down(opened: list[Stage]) -> None:
    stage = await start(opened, listener("a"), settings=Listener(listener("fixed").endpoint, SecretStr(SECRET)))
    stage.caller.script = lambda name, message, arrival: BUSY if name == "a" and arrival == 1 else TAKEN
    await stage.told(alert("a1"))
    await stage.told(alert("a1"))
    await stage.clock.advance(1.0)
    seen = [(each.endpoint_id, each.attempt, each.delivered, each.error) for each in stage.book.recorded]
    assert seen == [("we_fixed", 1, True, ""), ("we_a", 1, False, "HTTP 503"), ("we_a", 2, True, "")]
    first = stage.book.recorded[0]
    assert (first.alert_id, first.account, first.cause, first.status, first.duration_ms) == (
        "a1",
        "acme",
        "alert",
        204,
        3,
    )


async def test_what_is_not_written_when_it_stops_is_written_then(opened: list[Stage]) -> None:
    stage = await start(opened, listener("a"))
    await stage.told(alert("a1"))
    await stage.receivers.stop()
    assert len(stage.book.recorded) == 1
    assert not stage.book.running


async def test_records_that_cannot_be_written_are_bounded_and_the_newest_are_kept(
    opened: list[Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.receivers, "RECORDS_MAX", 5)
    stage = await start(opened, listener("a"))
    stage.book.down = True
    for number in range(4):
        await stage.told(alert(f"a{number}"))
    await stage.clock.advance(1.0)
    for number in range(4, 8):
        await stage.told(alert(f"a{number}"))
    await stage.clock.advance(1.0)
    stage.book.down = False
    await stage.clock.advance(1.0)
    assert [each.alert_id for each in stage.book.recorded] == [f"a{number}" for number in range(3, 8)]


async def test_old_records_are_forgotten_now_and_then(opened: list[Stage]) -> None:
    stage = await start(opened)
    for _ in range(1300):
        await stage.clock.advance(1.0)
    assert stage.book.forgot == 2


async def test_a_store_that_is_away_at_the_start_is_said_and_nothing_is_left_open(opened: list[Stage]) -> None:
    stage = Stage(listener("a"))
    stage.book.down = True
    with pytest.raises(StoreUnavailable):
        await stage.receivers.start()
    assert not stage.book.running


def test_the_endpoint_of_the_settings_is_judged_when_it_is_wired() -> None:
    clock = HandClock()
    with pytest.raises(EgressRefused):
        EndpointReceivers(clock, WebhookCaller(clock), None, settings=settings_listener("https://10.0.0.1/", SECRET))
    with pytest.raises(ValueError, match="whsec_"):
        settings_listener("https://hooks.example.com/", "secret")
    assert settings_listener("https://hooks.example.com/", SECRET).endpoint.endpoint_id == SETTINGS_ENDPOINT


# ------------------------------------------------------------------------------------------------- a real database


class Served:
    """A receiver on loopback."""

    def __init__(self) -> None:
        self.status = 204
        self.seen: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.seen.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status)


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    made = Served()
    app = web.Application()
    app.router.add_post("/", made.take)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield made
    await runner.cleanup()


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with real_bench(database) as opened:
        yield opened


@pytest.fixture
async def endpoints(bench: RealBench) -> PostgresEndpoints:
    return await bench.started(PostgresEndpoints(bench.dsn, bench.schema, bytes(32), allow_loopback=True))


@pytest.fixture
async def clock() -> HandClock:
    return HandClock(time.time_ns() // 1000)  # receivers compare with the real time


@pytest.fixture
async def courier(endpoints: PostgresEndpoints, clock: HandClock) -> Courier:
    return Courier(clock, endpoints, WebhookCaller(clock, allow_loopback=True))


async def store_alert(bench: RealBench, alert_id: str, account: str, body: str) -> None:
    connection = await asyncpg.connect(bench.owner_dsn, server_settings={"search_path": bench.schema})
    await connection.execute(
        "INSERT INTO alert (alert_id, partition, account, log_offset, body) VALUES ($1, 0, $2, 7, $3)",
        alert_id,
        account,
        body.encode(),
    )
    await connection.close()


async def test_from_the_database_to_the_receiver_and_back(
    bench: RealBench, endpoints: PostgresEndpoints, clock: HandClock, served: Served
) -> None:
    made, secret = await endpoints.create(served.url, "acme", ["low"])
    book = PostgresEndpoints(bench.dsn, bench.schema, bytes(32), allow_loopback=True)
    receivers = EndpointReceivers(clock, WebhookCaller(clock, allow_loopback=True), book)
    await receivers.start()
    assert await receivers.post(alert("alert_1")) == TAKEN
    _, newer = await endpoints.rotate_secret(made.endpoint_id)
    while len(served.seen) < 2 or " " not in served.seen[-1][0]["webhook-signature"]:
        await clock.advance(1.0)
        await asyncio.sleep(0.01)
        assert await receivers.post(alert("alert_2")) == TAKEN
    headers, body = served.seen[-1]
    for each in (secret, newer):
        Webhook(each.get_secret_value()).verify(body, headers)
    served.status = 410
    assert (await receivers.post(alert("alert_3"))).final
    while (await endpoints.get(made.endpoint_id)).disabled_us is None:
        await clock.advance(1.0)
        await asyncio.sleep(0.01)
    await receivers.stop()
    assert (await endpoints.get(made.endpoint_id)).disabled_reason.startswith("HTTP 410")
    newest = (await endpoints.deliveries(account="acme")).deliveries[0]
    assert (newest.alert_id, newest.status, newest.delivered) == ("alert_3", 410, False)


async def test_an_alert_is_sent_again_by_hand(
    bench: RealBench, endpoints: PostgresEndpoints, courier: Courier, served: Served
) -> None:
    made, secret = await endpoints.create(served.url, "acme", ["another rule"])
    await store_alert(bench, "alert_1", "acme", '{"id":"alert_1"}')
    sent = await courier.resend("alert_1", made.endpoint_id, "acme")
    assert (sent.delivered, sent.status, sent.cause, sent.account) == (True, 204, "resend", "acme")
    headers, body = served.seen[0]
    assert headers["webhook-id"] == "alert_1"
    assert Webhook(secret.get_secret_value()).verify(body, headers) == {"id": "alert_1"}
    served.status = 500
    assert (await courier.resend("alert_1", made.endpoint_id)).error == "HTTP 500"
    listed = (await endpoints.deliveries(endpoint_id=made.endpoint_id)).deliveries
    assert [(each.cause, each.delivered, each.status) for each in listed] == [
        ("resend", False, 500),
        ("resend", True, 204),
    ]


async def test_an_alert_is_never_sent_to_an_endpoint_of_another_account(
    bench: RealBench, endpoints: PostgresEndpoints, courier: Courier, served: Served
) -> None:
    made, _ = await endpoints.create(served.url, "acme", None)
    await store_alert(bench, "alert_1", "other", "{}")
    with pytest.raises(AlertUnknown):
        await courier.resend("alert_1", made.endpoint_id, "acme")
    with pytest.raises(EndpointUnknown):
        await courier.resend("alert_1", made.endpoint_id, "other")
    with pytest.raises(EndpointRefused, match="alert_id"):
        await courier.resend("alert_1", made.endpoint_id)
    assert served.seen == []


async def test_a_test_is_signed_and_written_down(
    endpoints: PostgresEndpoints, courier: Courier, served: Served
) -> None:
    made, secret = await endpoints.create(served.url, None, None)
    sent = await courier.test(made.endpoint_id)
    headers, body = served.seen[0]
    event = Webhook(secret.get_secret_value()).verify(body, headers)
    assert event == {"id": sent.alert_id, "type": "webhook.test", "data": {"endpoint": made.endpoint_id}}
    assert headers["webhook-id"] == sent.alert_id
    assert (await endpoints.deliveries(alert_id=sent.alert_id)).deliveries[0].cause == "test"


async def test_a_disabled_endpoint_is_not_called_by_hand_either(
    endpoints: PostgresEndpoints, courier: Courier, served: Served
) -> None:
    made, _ = await endpoints.create(served.url, None, None)
    served.status = 410
    assert (await courier.test(made.endpoint_id)).status == 410
    with pytest.raises(EndpointDisabled, match=r"HTTP 410.*enable it first"):
        await courier.test(made.endpoint_id)
    assert len(served.seen) == 1
