"""The watch over gateways' keys, on a real Postgres, against a server that speaks their protocol: nothing is lost, and nothing
told twice that was taken."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from itertools import count
from typing import Any

import pytest
from msgspec.structs import replace
from pydantic import SecretStr

from actors import gateway_watch
from actors.clock import SystemClock
from actors.door_client import DoorUnavailable
from actors.door_wire import AccountView, Answer, Describe, NotFound, Question, WalletView
from actors.gateway_calls import GatewayKind
from actors.gateway_watch import GatewayWatch
from actors.gateways import Gateway, GatewayKey, PostgresGateways
from actors.migrations import migrate
from actors.postgres import PostgresStore
from actors.webhooks import WebhookCaller
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn
from tests.actors.gateway_server import TOKEN, GatewayServer
from tests.actors.test_spending import FINE

_numbers = count()


class Owners:
    """The accounts' owners."""

    def __init__(self) -> None:
        self.views: dict[str, AccountView] = {}
        self.away = False
        self.asked = 0

    def credit(self, account: str, booked: str) -> None:
        self.views[account] = replace(FINE, account=account, wallet=WalletView("USD", booked, "0", booked, "0"))

    async def ask(self, account: str, question: Question, within_s: float) -> Answer:
        assert isinstance(question, Describe)
        self.asked += 1
        if self.away:
            raise DoorUnavailable("no shard owns it", 0.5)
        return self.views.get(account, NotFound(FINE.as_of))


class World:
    def __init__(self, database: str, schema: str) -> None:
        dsn = engine_dsn(database)
        self.clock = SystemClock()
        self.server = GatewayServer()
        self.owners = Owners()
        self.keys = PostgresGateways(dsn, schema, 1.2, 5.0, b"k" * 32, loopback=True)
        self.store = PostgresStore(dsn, schema, 1.2, 5.0)
        self.caller = WebhookCaller(self.clock, allow_loopback=True, timeout_s=5.0)

    def watch(self, owner: str) -> GatewayWatch:
        return GatewayWatch(
            owner=owner, clock=self.clock, keys=self.keys, owners=self.owners, alerts=self.store, caller=self.caller
        )

    async def bind(self, kind: GatewayKind, *keys: tuple[str, str, str | None]) -> None:
        await self.keys.put(Gateway("proxy", kind, self.server.url), SecretStr(TOKEN))
        for key, account, budget in keys:
            await self.keys.put_key(GatewayKey("proxy", key, account, "", budget))

    async def until(self, watch: GatewayWatch, reached: Callable[[], bool]) -> None:
        """Looks until it is so. Nothing is measured; it ends a run that would hang."""
        for _ in range(400):
            await watch.look()
            if reached():
                await watch.look()  # what has been told is written down
                return
            await asyncio.sleep(0.02)
        raise AssertionError(self.server.calls)


@pytest.fixture
async def world(database: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    quick = replace(gateway_watch.OUTBOX, attempts_max=100, back_off_s=0.02, back_off_max_s=0.05)
    monkeypatch.setattr(gateway_watch, "OUTBOX", quick)
    monkeypatch.setattr("actors.gateway_watch.LEASE_S", 0.0)  # whoever looks next takes over
    schema = f"gateway_watch_{next(_numbers)}"  # keys keep how they stand
    await migrate(database, schema, ENGINE_PASSWORD)
    made = World(database, schema)
    for part in (made.server, made.keys, made.store):
        await part.start()
    yield made
    await made.caller.stop()
    for part in (made.store, made.keys, made.server):
        await part.stop()


@pytest.mark.parametrize(
    ("kind", "calls"),
    [
        (
            GatewayKind.LITELLM_BUDGET,
            [
                ("POST", "/key/update", {"key": "hash-1", "max_budget": 0}),
                ("POST", "/key/update", {"key": "hash-1", "max_budget": 12.5}),
            ],
        ),
        (
            GatewayKind.LITELLM_BLOCK,
            [("POST", "/key/block", {"key": "hash-1"}), ("POST", "/key/unblock", {"key": "hash-1"})],
        ),
        (
            GatewayKind.OPENROUTER,
            [("PATCH", "/api/v1/keys/hash-1", {"limit": 0}), ("PATCH", "/api/v1/keys/hash-1", {"limit": 12.5})],
        ),
    ],
)
async def test_a_key_is_blocked_when_its_account_may_spend_no_more_and_lifted_when_it_may(
    world: World, kind: GatewayKind, calls: list[Any]
) -> None:
    await world.bind(kind, ("hash-1", "acme", "12.5"), ("hash-2", "zen", None))
    world.owners.credit("acme", "5")
    world.owners.credit("zen", "5")
    watch = world.watch(f"{kind}.a")
    for _ in range(3):
        await watch.look()
    assert world.server.calls == [], "nothing has changed"
    world.owners.credit("acme", "0")
    await world.until(watch, lambda: not world.server.may_spend("hash-1"))
    assert world.server.may_spend("hash-2")
    world.owners.credit("acme", "1")
    await world.until(watch, lambda: world.server.may_spend("hash-1"))
    for _ in range(3):
        await watch.look()
    assert world.server.calls == calls, "each once"
    (key,) = [each for each in await world.keys.keys() if each.key == "hash-1"]
    assert (await world.keys.acts([key.act_id]))[key.act_id].told
    await watch.stop()


async def test_a_gateway_that_is_away_is_told_until_it_has_taken_it_and_only_how_it_stands(world: World) -> None:
    await world.bind(GatewayKind.LITELLM_BLOCK, ("hash-1", "acme", None))
    world.server.failures = [False, True, False]
    world.owners.credit("acme", "0")
    watch = world.watch("away.a")
    await world.until(watch, lambda: not world.server.failures and not world.server.may_spend("hash-1"))
    world.server.failures = [False] * 3
    world.owners.credit("acme", "5")
    await world.until(watch, lambda: len(world.server.failures) < 3)
    world.owners.credit("acme", "0")
    # The unblocking that waits for its turn again is overtaken by a block: it is never carried out behind it.
    await world.until(watch, lambda: not world.server.failures and world.server.calls[-1][1] == "/key/block")
    for _ in range(20):
        await watch.look()
        await asyncio.sleep(0.01)
    assert not world.server.may_spend("hash-1")
    assert world.server.calls[-1][1] == "/key/block"
    await watch.stop()


async def test_what_a_process_had_not_told_when_it_died_the_next_one_tells(world: World) -> None:
    await world.bind(GatewayKind.LITELLM_BUDGET, ("hash-1", "acme", None))
    world.owners.credit("acme", "0")
    world.server.failures = [False] * 1_000
    dead = world.watch("dead.a")
    await world.until(dead, lambda: len(world.server.calls) > 0)
    await dead.stop()
    world.server.failures = []
    heir = world.watch("dead.b")
    await world.until(heir, lambda: not world.server.may_spend("hash-1"))
    calls = len(world.server.calls)
    # The one that comes to again owns nothing any more, and tells nothing.
    await world.keys.claim("dead.b", 60.0)
    world.owners.credit("acme", "9")
    zombie = world.watch("dead.a")
    for _ in range(3):
        await zombie.look()
    assert len(world.server.calls) == calls
    for each in (heir, zombie):
        await each.stop()
    await world.keys.claim("dead.b", 0.0)


async def test_while_an_owner_is_away_a_key_stands_as_it_stands(world: World) -> None:
    await world.bind(GatewayKind.LITELLM_BLOCK, ("hash-1", "acme", None), ("hash-2", "nobody", None))
    world.owners.away = True
    watch = world.watch("owner.a")
    for _ in range(3):
        await watch.look()
    assert world.owners.asked and world.server.calls == []
    world.owners.away = False
    for _ in range(3):
        await watch.look()
    assert world.server.calls == [], "an account that is not there is not judged"
    await watch.stop()


async def test_where_a_gateway_is_is_judged_again_at_every_call(world: World) -> None:
    """A URL that was taken in a deployment that allows loopback is refused in one that does not."""
    await world.bind(GatewayKind.LITELLM_BLOCK, ("hash-1", "acme", None))
    world.owners.credit("acme", "0")
    world.caller = WebhookCaller(world.clock, allow_loopback=False, timeout_s=5.0)
    watch = world.watch("egress.a")
    for _ in range(5):
        await watch.look()
        await asyncio.sleep(0.02)
    assert world.server.calls == []
    await watch.stop()
    (key,) = await world.keys.keys()
    state = (await world.keys.acts([key.act_id]))[key.act_id]
    assert key.blocked and not state.told


async def test_many_keys_are_looked_at_in_turns(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.gateway_watch.TURN_MAX", 1)
    await world.bind(GatewayKind.LITELLM_BLOCK, ("hash-1", "acme", None), ("hash-2", "zen", None))
    world.owners.credit("acme", "0")
    world.owners.credit("zen", "0")
    watch = world.watch("turns.a")
    await watch.look()
    assert world.owners.asked == 1
    await world.until(watch, lambda: world.server.blocked == {"hash-1", "hash-2"})
    await watch.stop()


async def test_a_gateway_that_hangs_delays_no_other(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes calls and answers none; more of its keys than calls at once, or acts begun, are to be blocked first."""
    monkeypatch.setattr(gateway_watch, "OUTBOX", replace(gateway_watch.OUTBOX, account_pending_max=20))
    calls = most = 0

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls, most
        calls += 1
        most = max(most, calls)
        with suppress(asyncio.CancelledError, ConnectionError):
            await reader.read()
        calls -= 1
        writer.close()

    hanging = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{hanging.sockets[0].getsockname()[1]}"
    await world.keys.put(Gateway("hangs", GatewayKind.LITELLM_BLOCK, url), SecretStr(TOKEN))
    for number in range(40):
        await world.keys.put_key(GatewayKey("hangs", f"key-{number}", "dry", "", None))
    await world.bind(GatewayKind.LITELLM_BLOCK, ("hash-1", "later", None))
    world.owners.credit("dry", "0")
    world.owners.credit("later", "5")
    watch = world.watch("one")
    await world.until(watch, lambda: calls >= gateway_watch.CALLS_AT_ONCE)
    world.owners.credit("later", "0")
    await world.until(watch, lambda: bool(world.server.calls))
    await watch.stop()
    assert most == gateway_watch.CALLS_AT_ONCE, "and it has no more of us than that"
    hanging.close()
