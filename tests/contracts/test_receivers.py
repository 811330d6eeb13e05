"""What the port `Receivers` promises, held against the real webhooks and the simulator's receivers."""

import asyncio
import base64
from collections.abc import AsyncIterator
from random import Random
from typing import Protocol

import pytest
from aiohttp import web

from actors.ports import AlertRow, Attempt, Receivers
from actors.receivers import EndpointReceivers, settings_listener
from actors.webhooks import WebhookCaller
from tests.simulation.hand_clock import HandClock, settle
from tests.simulation.sim_receivers import ReceiverFaults, SimReceivers

MOODS = ("takes", "loses_answer", "hangs", "busy", "gone")
RETRY_AFTER_MAX_S = 60.0


def alert(alert_id: str, body: bytes = b"{}", account: str = "") -> AlertRow:
    return AlertRow(alert_id=alert_id, account=account or f"account of {alert_id}", offset=1, body=body)


class Bench(Protocol):
    receivers: Receivers
    taken: dict[str, list[bytes]]  # alert id -> bodies that the receiver took, in the order in which they came

    def become(self, mood: str) -> None:
        """How the receiver treats attempts from now on."""

    async def post(self, row: AlertRow) -> Attempt:
        """An attempt, with time passing as it must."""

    async def post_together(self, rows: list[AlertRow]) -> None:
        """Attempts begun in this order, none waiting for another."""


class SimulatedBench:
    def __init__(self) -> None:
        self._clock = HandClock()
        self._receivers = SimReceivers(self._clock, Random(1), ReceiverFaults(retry_after_max_s=RETRY_AFTER_MAX_S))
        self.receivers: Receivers = self._receivers
        self.taken = self._receivers.taken

    def become(self, mood: str) -> None:
        share = {"takes": {}, "loses_answer": {"answer_lost": 1.0}, "hangs": {"hang": 1.0}}
        share |= {"busy": {"busy": 1.0}, "gone": {"gone": 1.0}}
        self._receivers.faults = ReceiverFaults(retry_after_max_s=RETRY_AFTER_MAX_S, **share[mood])

    async def post(self, row: AlertRow) -> Attempt:
        attempt = asyncio.ensure_future(self.receivers.post(row))
        await self._clock.until(attempt.done)
        return await attempt

    async def post_together(self, rows: list[AlertRow]) -> None:
        attempts = asyncio.gather(*(self.receivers.post(row) for row in rows))
        await self._clock.until(attempts.done)
        await attempts


class RealBench:
    def __init__(self) -> None:
        self._mood = "takes"
        self.taken: dict[str, list[bytes]] = {}

    async def start(self) -> None:
        app = web.Application()
        app.router.add_post("/", self._take)
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self._clock = HandClock()
        self._webhooks = EndpointReceivers(
            self._clock,
            WebhookCaller(self._clock, allow_loopback=True, timeout_s=0.3, retry_after_max_s=RETRY_AFTER_MAX_S),
            None,
            settings=settings_listener(
                f"http://127.0.0.1:{self._runner.addresses[0][1]}/",
                "whsec_" + base64.b64encode(bytes(32)).decode(),
            ),
        )
        await self._webhooks.start()
        self.receivers: Receivers = self._webhooks

    async def stop(self) -> None:
        await self._webhooks.stop()
        await self._runner.cleanup()

    def become(self, mood: str) -> None:
        self._mood = mood

    async def post(self, row: AlertRow) -> Attempt:
        attempt = await self.receivers.post(row)
        await self._clock.advance(attempt.retry_after_s or 0.0)
        return attempt

    async def post_together(self, rows: list[AlertRow]) -> None:
        await asyncio.gather(*(self.receivers.post(row) for row in rows))

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self._mood == "busy":
            return web.Response(status=503, headers={"Retry-After": "3600"})
        if self._mood == "gone":
            return web.Response(status=410)
        if self._mood == "hangs":
            await asyncio.Event().wait()
        self.taken.setdefault(request.headers["webhook-id"], []).append(body)
        if self._mood == "loses_answer":
            assert request.transport is not None
            request.transport.abort()
        return web.Response()


@pytest.fixture(params=["real", "simulated"])
async def bench(request: pytest.FixtureRequest) -> AsyncIterator[Bench]:
    if request.param == "simulated":
        yield SimulatedBench()
        return
    real = RealBench()
    await real.start()
    yield real
    await real.stop()


async def test_a_2xx_is_delivered_once_with_the_same_bytes(bench: Bench) -> None:
    assert await bench.post(alert("a1", b'{"n":1}')) == Attempt(delivered=True)
    assert bench.taken == {"a1": [b'{"n":1}']}


@pytest.mark.parametrize("mood", [mood for mood in MOODS if mood != "takes"])
async def test_a_failed_attempt_says_why_and_is_final_only_for_410(bench: Bench, mood: str) -> None:
    bench.become(mood)
    attempt = await bench.post(alert("a1", b"{}"))
    assert not attempt.delivered
    assert attempt.error
    assert attempt.final == (mood == "gone")


async def test_a_busy_receiver_may_ask_for_time_within_the_limit(bench: Bench) -> None:
    bench.become("busy")
    attempt = await bench.post(alert("a1", b"{}"))
    assert attempt.retry_after_s is not None
    assert 0.0 <= attempt.retry_after_s <= RETRY_AFTER_MAX_S


@pytest.mark.parametrize("mood", ["hangs", "busy", "gone"])
async def test_what_failed_cleanly_was_not_taken_and_can_be_tried_again(bench: Bench, mood: str) -> None:
    bench.become(mood)
    await bench.post(alert("a1", b"{}"))
    assert bench.taken == {}
    bench.become("takes")
    assert (await bench.post(alert("a1", b"{}"))).delivered


async def test_a_lost_answer_means_the_same_id_and_bytes_may_arrive_twice(bench: Bench) -> None:
    bench.become("loses_answer")
    assert not (await bench.post(alert("a1", b'{"n":1}'))).delivered
    bench.become("takes")
    assert (await bench.post(alert("a1", b'{"n":1}'))).delivered
    assert bench.taken == {"a1": [b'{"n":1}', b'{"n":1}']}


async def test_an_attempt_can_be_broken_off(bench: Bench) -> None:
    bench.become("hangs")
    attempt = asyncio.ensure_future(bench.receivers.post(alert("a1")))
    await settle()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    bench.become("takes")
    assert (await bench.post(alert("a2", b"{}"))).delivered


async def test_attempts_at_the_same_time_do_not_mix(bench: Bench) -> None:
    bodies = {f"a{number}": b'{"n":%d}' % number for number in range(20)}
    attempts = await asyncio.gather(*(bench.post(alert(alert_id, body)) for alert_id, body in bodies.items()))
    assert all(attempt.delivered for attempt in attempts)
    assert bench.taken == {alert_id: [body] for alert_id, body in bodies.items()}


async def test_alerts_of_one_account_reach_the_receiver_in_the_order_of_the_calls(bench: Bench) -> None:
    rows = [alert(f"a{number}", account="acme") for number in range(20)]
    await bench.post_together(rows)
    assert list(bench.taken) == [row.alert_id for row in rows]


async def test_an_attempt_broken_off_holds_up_no_other_of_its_account(bench: Bench) -> None:
    bench.become("hangs")
    attempt = asyncio.ensure_future(bench.receivers.post(alert("a1", account="acme")))
    await settle()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt
    bench.become("takes")
    assert (await bench.post(alert("a2", account="acme"))).delivered


async def test_simulated_faults_repeat_with_the_seed_and_meet_their_shares() -> None:
    runs = []
    for _ in range(2):
        clock = HandClock()
        faults = ReceiverFaults(answer_lost=0.1, hang=0.1, busy=0.2, gone=0.1)
        receivers = SimReceivers(clock, Random(5), faults)
        attempts = []
        for number in range(200):
            attempt = asyncio.ensure_future(receivers.post(alert(f"a{number}")))
            await clock.until(attempt.done)
            attempts.append(await attempt)
        runs.append((attempts, receivers.taken))
    assert runs[0] == runs[1]
    attempts, taken = runs[0]
    delivered = sum(attempt.delivered for attempt in attempts)
    lost = len(taken) - delivered
    busy = sum(attempt.retry_after_s is not None for attempt in attempts)
    gone = sum(attempt.final for attempt in attempts)
    hung = len(attempts) - delivered - lost - busy - gone
    for seen, share in ((delivered, 0.5), (lost, 0.1), (busy, 0.2), (gone, 0.1), (hung, 0.1)):
        assert abs(seen - share * 200) < 20
