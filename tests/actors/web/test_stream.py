import asyncio
from collections import Counter
from typing import Any

import orjson
import pytest

from actors.door_client import DoorUnavailable
from actors.door_wire import AlertsView, Answer, Balance, BalanceView, RecentAlerts, WalletView
from actors.web.stream import AWAY_MAX_S, HEARTBEAT_S, KEY_STREAMS_MAX
from tests.actors.web.asgi_client import Client
from tests.actors.web.fakes import AS_OF, WALLET, Stage


def parts(piece: bytes | None) -> tuple[str, object]:
    assert piece is not None
    name, data = piece.removesuffix(b"\n\n").split(b"\n")
    return name.removeprefix(b"event: ").decode(), orjson.loads(data.removeprefix(b"data: "))


def alert(sequence: int) -> bytes:
    return orjson.dumps({"id": f"alert_{sequence}", "type": "alert.crossed", "data": {"sequence": sequence}})


async def next_piece(pieces: "asyncio.Queue[bytes | None]") -> bytes | None:
    return await asyncio.wait_for(pieces.get(), 10)


async def test_the_balance_comes_at_once_and_at_every_change(stage: Stage, client: Client) -> None:
    async with client.stream("/v1/customers/acme/stream") as pieces:
        name, told = parts(await next_piece(pieces))
        assert name == "balance" and isinstance(told, dict)
        assert told["balance"]["available"] == "12.47" and told["as_of"]["offset"] == 18250
        stage.doors.answers[Balance] = BalanceView(WalletView("USD", "-1", "0", "-1", "0"), AS_OF)
        name, told = parts(await next_piece(pieces))
        assert name == "balance" and isinstance(told, dict) and told["balance"]["booked"] == "-1"


async def test_an_unchanged_balance_is_not_told_again_but_the_line_is_kept_alive(stage: Stage, client: Client) -> None:
    async with client.stream("/v1/customers/acme/stream") as pieces:
        await next_piece(pieces)
        began_s = stage.clock.now_s
        assert await next_piece(pieces) == b": still here\n\n"
        assert stage.clock.now_s - began_s >= HEARTBEAT_S - 1


async def test_alerts_are_told_once_from_the_present_on(stage: Stage, client: Client) -> None:
    memory = [alert(1), alert(2)]

    def remembered(question: RecentAlerts) -> AlertsView:
        return AlertsView(
            tuple(body for body in memory if orjson.loads(body)["data"]["sequence"] > question.after_sequence), AS_OF
        )

    stage.doors.answers[RecentAlerts] = remembered
    async with client.stream("/v1/customers/acme/stream") as pieces:
        assert parts(await next_piece(pieces))[0] == "balance"
        memory.append(alert(3))
        name, told = parts(await next_piece(pieces))
        assert name == "alert" and told == orjson.loads(alert(3))
        memory.append(alert(4))
        assert parts(await next_piece(pieces))[1] == orjson.loads(alert(4))


async def test_a_revoked_key_ends_its_streams(stage: Stage, client: Client) -> None:
    async with client.stream("/v1/customers/acme/stream") as pieces:
        await next_piece(pieces)
        stage.keys.by_text.clear()
        while await next_piece(pieces) is not None:
            pass


async def test_an_owner_that_is_away_is_waited_for_but_not_for_ever(stage: Stage, client: Client) -> None:
    async with client.stream("/v1/customers/acme/stream") as pieces:
        await next_piece(pieces)
        began_s = stage.clock.now_s
        stage.doors.answers[Balance] = DoorUnavailable("away", 0.5)
        while await next_piece(pieces) is not None:
            pass
        assert stage.clock.now_s - began_s > AWAY_MAX_S - 1


async def test_streams_that_are_opened_at_once_are_counted_too(
    stage: Stage, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answering = asyncio.Event()
    usual = stage.doors.ask

    async def ask(*asked: Any) -> Answer:
        await answering.wait()
        return await usual(*asked)

    monkeypatch.setattr(stage.doors, "ask", ask)
    opening = [asyncio.create_task(client.get("/v1/customers/acme/stream")) for _ in range(KEY_STREAMS_MAX + 5)]
    for _ in range(50):
        await asyncio.sleep(0)
    answering.set()
    statuses = Counter([(await each).status for each in opening])
    assert statuses == {200: KEY_STREAMS_MAX, 503: 5}
    assert (await client.get("/v1/customers/acme/stream")).status == 200, "and they have their places back"


async def test_one_key_has_so_many_streams_and_gets_them_back(stage: Stage, client: Client) -> None:
    opened = [client.stream("/v1/customers/acme/stream") for _ in range(KEY_STREAMS_MAX)]
    for stream in opened:
        await next_piece(await stream.__aenter__())
    assert (await client.get("/v1/customers/acme/stream")).status == 503
    for stream in opened:
        await stream.__aexit__(None, None, None)
    async with client.stream("/v1/customers/acme/stream") as pieces:
        assert parts(await next_piece(pieces))[0] == "balance"


async def test_an_account_that_is_not_there_has_no_stream(client: Client, bound: Client) -> None:
    absent = await client.get("/v1/customers/nobody/stream")
    assert absent.status == 404
    assert absent.without_request_id == (await bound.get("/v1/customers/globex/stream")).without_request_id


async def test_the_wallet_shown_is_the_owners(client: Client) -> None:
    async with client.stream("/v1/customers/acme/stream") as pieces:
        told = parts(await next_piece(pieces))[1]
    assert isinstance(told, dict) and told["balance"]["booked"] == WALLET.booked
