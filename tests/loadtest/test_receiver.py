"""The demo's receiver, over real HTTP."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from standardwebhooks import Webhook

import loadtest.receiver
from actors.webhooks import WebhookCaller
from loadtest.receiver import BODY_BYTES_MAX, Receiver

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET = "whsec_" + base64.b64encode(bytes(32)).decode()


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver(SECRET)
    await made.start()
    yield made
    await made.stop()


def signed(alert_id: str, body: str, secret: str = SECRET, age_s: int = 0) -> dict[str, str]:
    signed_at = datetime.now(tz=UTC) - timedelta(seconds=age_s)
    return {
        "webhook-id": alert_id,
        "webhook-timestamp": str(int(signed_at.timestamp())),
        "webhook-signature": Webhook(secret).sign(alert_id, signed_at, body),
    }


async def send(receiver: Receiver, headers: dict[str, str], body: str | bytes) -> int:
    async with aiohttp.ClientSession() as session, session.post(receiver.url, data=body, headers=headers) as response:
        return response.status


async def test_a_signed_alert_is_remembered_with_its_arrival_and_body(receiver: Receiver) -> None:
    before_us = time.time_ns() // 1000
    assert await send(receiver, signed("alert_1", '{"n": 1}'), '{"n": 1}') == 204
    after_us = time.time_ns() // 1000
    assert list(receiver.alerts) == ["alert_1"]
    assert receiver.alerts["alert_1"].body == {"n": 1}
    assert before_us <= receiver.alerts["alert_1"].arrived_us <= after_us
    assert (receiver.repeats, receiver.rejected, receiver.failed) == (0, 0, 0)


async def test_our_own_webhooks_are_accepted(receiver: Receiver) -> None:
    class Now:
        def wall_us(self) -> int:
            return time.time_ns() // 1000

        def boot_s(self) -> float:
            return time.monotonic()

        async def sleep(self, seconds: float) -> None:
            await asyncio.sleep(seconds)

    caller = WebhookCaller(Now(), allow_loopback=True)
    answer = await caller.call(receiver.url, [SECRET], "alert_1", '{"account": "Büro"}'.encode())
    await caller.stop()
    assert answer.attempt.delivered
    assert receiver.alerts["alert_1"].body == {"account": "Büro"}


async def test_a_repeat_keeps_the_first_arrival(receiver: Receiver) -> None:
    await send(receiver, signed("alert_1", '{"n": 1}'), '{"n": 1}')
    arrived_us = receiver.alerts["alert_1"].arrived_us
    assert await send(receiver, signed("alert_1", '{"n": 2}'), '{"n": 2}') == 204
    assert await send(receiver, signed("alert_1", '{"n": 2}'), '{"n": 2}') == 204
    assert receiver.alerts["alert_1"].arrived_us == arrived_us
    assert receiver.alerts["alert_1"].body == {"n": 1}
    assert receiver.alerts["alert_1"].repeats == receiver.repeats == 2


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        (signed("alert_1", "{}", secret=OTHER_SECRET), b"{}"),
        (signed("alert_1", "{}", age_s=3600), b"{}"),
        (signed("alert_1", "{}") | {"webhook-id": "alert_2"}, b"{}"),
        (signed("alert_1", "{}") | {"webhook-signature": "garbage"}, b"{}"),
        (signed("alert_1", "{}") | {"webhook-signature": "v1,%%%"}, b"{}"),
        (signed("alert_1", "{}"), b'{"n": 1}'),
        (signed("alert_1", "{}"), b"\xff\xfe"),
        (signed("alert_1", "not json"), b"not json"),
    ],
)
async def test_what_is_not_signed_for_us_is_rejected(receiver: Receiver, headers: dict[str, str], body: bytes) -> None:
    assert await send(receiver, headers, body) == 400
    assert receiver.rejected == 1
    assert receiver.alerts == {}


async def test_a_large_body_is_refused(receiver: Receiver) -> None:
    body = '"' + "x" * BODY_BYTES_MAX + '"'
    assert await send(receiver, signed("alert_1", body), body) == 413
    assert receiver.alerts == {}


async def test_a_full_receiver_says_so(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loadtest.receiver, "ALERTS_MAX", 1)
    assert await send(receiver, signed("alert_1", "{}"), "{}") == 204
    assert await send(receiver, signed("alert_2", "{}"), "{}") == 503
    assert await send(receiver, signed("alert_1", "{}"), "{}") == 204
    assert list(receiver.alerts) == ["alert_1"]


async def test_the_failing_share_depends_on_seed_id_and_arrival_and_not_on_order() -> None:
    ids = [f"alert_{number}" for number in range(40)]

    async def run(seed: int, order: list[str]) -> dict[str, list[int]]:
        receiver = Receiver(SECRET, fail_share=0.5, seed=seed)
        await receiver.start()
        statuses: dict[str, list[int]] = {}
        for alert_id in order * 2:
            statuses.setdefault(alert_id, []).append(await send(receiver, signed(alert_id, "{}"), "{}"))
        await receiver.stop()
        assert receiver.failed == sum(each.count(503) for each in statuses.values())
        assert receiver.repeats == sum(each == [204, 204] for each in statuses.values())
        assert set(receiver.alerts) == {alert_id for alert_id, each in statuses.items() if 204 in each}
        return statuses

    first = await run(1, ids)
    assert await run(1, ids[::-1]) == first
    assert await run(2, ids) != first
    assert 20 <= sum(each.count(503) for each in first.values()) <= 60
    assert any(each == [503, 204] for each in first.values())


def test_misuse_is_named() -> None:
    with pytest.raises(ValueError, match="fail_share"):
        Receiver(SECRET, fail_share=1.5)
    with pytest.raises(RuntimeError, match="start"):
        _ = Receiver(SECRET).url
