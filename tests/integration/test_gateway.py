"""The SDK as a gateway uses it, on a real deployment: an OpenAI-compatible endpoint behind the middleware."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import uvicorn

from actors.deployment import until
from actors.door_wire import door_token
from tallygate_sdk import AsyncClient, Bound, Check, Client, HttpSink, LeaseHolder, Reporter, SmartClient, Spool
from tallygate_sdk.middleware import Payer, TallygateMiddleware
from tests.integration.front import Front, front
from tests.sdk.endpoint import Endpoint

WALLET = Decimal(1)
INPUT, OUTPUT = Decimal("0.0000025"), Decimal("0.00001")  # USD for a token of atlas-large
CHAT = {"model": "atlas-large", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 100}
STREAM = CHAT | {"stream": True}


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    """The application behind a real socket, and a caller of it."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", lifespan="off", interface="asgi3"))
    task = asyncio.create_task(server.serve([listener]))
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=60) as caller:
            yield caller
    finally:
        server.should_exit = True
        await task


async def opened(at: Front, account: str, wallet: Decimal = WALLET) -> None:
    operator = await at.operator()
    await operator.done("POST", "/v1/customers", {"account": account, "plan": "starter"})
    grant = {"amount": str(wallet), "currency": "USD", "lot": "paid"}
    await operator.done("POST", f"/v1/customers/{account}/grants", grant, idempotency_key=f"{account}-1")


async def booked_with_nothing_held(client: AsyncClient, account: str, below: Decimal) -> Decimal:
    """Once all holds are settled, and something below `below` is left."""
    found = WALLET

    async def there() -> bool:
        nonlocal found
        balance = (await client.balance(account)).balance
        assert balance.booked is not None
        found = balance.booked
        return balance.held == 0 and found < below

    await until(there, f"the usage of {account} to be rated, and its holds to be settled")
    return found


async def a_lease_decides(client: AsyncClient, reporter: Reporter, check: Check) -> None:
    """Twenty requests of one token each, and two that use nothing; then all of the rest is free."""
    before = (await client.balance("acme")).balance
    one = msgspec.structs.replace(check, bounds=(Bound(("input_tokens",), 5), Bound(("output_tokens",), 5)))
    async with LeaseHolder(client, one, requests=100, source="gateway", ttl_s=30) as holder:
        admissions = [await holder.admit() for _ in range(22)]
        assert all(each.by_lease for each in admissions) and (holder.leased, holder.asked) == (22, 0)
        assert admissions[0].at_most == 5 * (INPUT + OUTPUT)
        held = (await client.balance("acme")).balance.held
        assert held == 100 * 5 * (INPUT + OUTPUT), "the lease is taken from the wallet as a whole"
        for each in admissions[:20]:
            reporter.report(holder.settle(each, {"model": "atlas-large", "input_tokens": 1, "output_tokens": 0}))
        for each in admissions[20:]:
            await holder.release(each)
    assert before.booked is not None
    after = await booked_with_nothing_held(client, "acme", before.booked)
    assert after == before.booked - 20 * INPUT


async def test_a_gateway_asks_before_it_spends_and_settles_what_was_used(
    database: str, kafka: str, tmp_path: Path
) -> None:
    """A whole answer, a stream, a stream that is broken off, a request that the wallet cannot pay: to the last digit."""
    async with front(database, kafka, tmp_path) as at:
        await opened(at, "acme")
        key = await at.key()
        url = f"http://127.0.0.1:{at.replicas[0].port}"
        endpoint = Endpoint()
        client = AsyncClient(url, key)
        reporter = Reporter(HttpSink(Client(url, key)), Spool(tmp_path / "spool"))
        middleware = TallygateMiddleware(
            endpoint, client=client, reporter=reporter, payer=lambda scope: Payer("acme"), hold_s=10
        )
        async with serving(middleware) as caller:
            whole = await caller.post("/v1/chat/completions", json=CHAT)
            streamed = await caller.post("/v1/chat/completions", json=STREAM)
            assert whole.json()["usage"] == {"prompt_tokens": 5, "completion_tokens": 5, "total_tokens": 10}
            assert streamed.text.endswith("data: [DONE]\n\n") and '"prompt_tokens"' not in streamed.text
            left = await booked_with_nothing_held(client, "acme", WALLET - 9 * (INPUT + OUTPUT))
            assert left == WALLET - 10 * (INPUT + OUTPUT)

            denied = await caller.post("/v1/chat/completions", json=CHAT | {"max_tokens": 100_000})
            assert (denied.status_code, denied.json()["error"]["code"]) == (402, "credit_depleted")
            assert len(endpoint.seen) == 2

            # It would write for many minutes, if nobody told it that nobody listens any more.
            endpoint.words, endpoint.pause_s = 10_000, 0.05
            async with caller.stream("POST", "/v1/chat/completions", json=STREAM | {"max_tokens": 10_000}) as answer:
                async for _ in answer.aiter_bytes():
                    break
            after = await booked_with_nothing_held(client, "acme", left)
            assert left - 10_000 * OUTPUT - 200 * INPUT < after < left, "what was sent, and no more than was held"

        check = Check(
            "acme",
            type="llm.request",
            data={"model": "atlas-large"},
            bounds=(Bound(("input_tokens",), 1), Bound(("output_tokens",), 0)),
        )
        outcomes = await client.checks([check, Check("nobody"), Check("acme")])
        reasons = [each.answer.reason if each.answer else "no answer" for each in outcomes]
        assert reasons == [None, "unknown_account", None]
        smart = SmartClient(url, key, door_token(at.at.settings.control_key_bytes()))
        held = await smart.check(msgspec.structs.replace(check, hold_s=30))
        assert held.allowed and held.hold is not None and held.as_of is not None
        extended = await smart.extend(held.hold, bounds=[Bound(("input_tokens",), 9)])
        assert extended.hold is not None and (await smart.balance("acme")).balance.held == 10 * INPUT
        assert (await smart.release(extended.hold)).was_open
        assert (await smart.balance("acme")).balance.held == 0
        assert (smart.answered_by_doors, smart.sent_by_http) == (5, 0)
        await smart.close()
        await a_lease_decides(client, reporter, check)
        await middleware.close()
        assert await asyncio.to_thread(reporter.close) and (reporter.sent, reporter.refused) == (23, 0)
        await client.close()
        await at.end()


async def test_a_stream_ends_where_the_wallet_does(database: str, kafka: str, tmp_path: Path) -> None:
    """Reserved forty tokens at a time, of an answer that would cost many times what is there."""
    async with front(database, kafka, tmp_path) as at:
        wallet = 400 * OUTPUT
        await opened(at, "thrifty", wallet)
        key = await at.key()
        url = f"http://127.0.0.1:{at.replicas[0].port}"
        client = AsyncClient(url, key)
        reporter = Reporter(HttpSink(Client(url, key)), Spool(tmp_path / "spool"))
        middleware = TallygateMiddleware(
            Endpoint(words=5_000),
            client=client,
            reporter=reporter,
            payer=lambda scope: Payer("thrifty"),
            count_prompt=lambda whole: 5,
            output_step=40,
        )
        async with serving(middleware) as caller:
            refused = await caller.post("/v1/chat/completions", json=CHAT | {"max_tokens": 5_000})
            assert refused.status_code == 402, "as a whole it could not be paid"
            answer = await caller.post("/v1/chat/completions", json=STREAM | {"max_tokens": 5_000})
            assert answer.status_code == 200 and '"finish_reason":"length"' in answer.text
            assert answer.text.count('"content"') > 150, "nearly all of it was used"
        await middleware.close()
        assert await asyncio.to_thread(reporter.close)
        left = await booked_with_nothing_held(client, "thrifty", wallet / 5)
        assert left >= 0
        await client.close()
        await at.end()
