"""Gateways and their keys in a real Postgres: what is decided, by whom, and that an act is in the outbox with its decision."""

from collections.abc import AsyncIterator

import asyncpg
import msgspec
import pytest
from pydantic import SecretStr

from actors.endpoints import SecretUnreadable
from actors.gateway_calls import GatewayKind
from actors.gateways import ACTS_PARTITION, Act, Gateway, GatewayKey, GatewayRefused, PostgresGateways
from actors.migrations import migrate
from actors.ports import Delivery, Fenced
from actors.postgres import PostgresStore
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn

SCHEMA = "gateways"
PROXY = Gateway("proxy", GatewayKind.LITELLM_BUDGET, "https://llm.example.com")
KEY = GatewayKey("proxy", "hash-1", "acme", "team", "100")
TOKEN = SecretStr("sk-admin-1234567890")


def made(database: str, control_key: bytes = b"k" * 32) -> PostgresGateways:
    return PostgresGateways(engine_dsn(database), SCHEMA, 1.2, 5.0, control_key)


@pytest.fixture
async def gateways(database: str) -> AsyncIterator[PostgresGateways]:
    await migrate(database, SCHEMA, ENGINE_PASSWORD)
    found = made(database)
    await found.start()
    await found.put(PROXY, TOKEN)
    await found.put_key(KEY)
    yield found
    for key in await found.keys():
        await found.remove_key(key.gateway, key.key)
    await found.stop()


async def owned(gateways: PostgresGateways, owner: str) -> int:
    """Whoever had it has let it run out."""
    epoch = await gateways.claim(owner, 0.0)
    assert epoch is not None
    return epoch


async def test_a_decision_and_its_act_are_one_and_only_the_last_is_carried_out(
    gateways: PostgresGateways, database: str
) -> None:
    epoch = await owned(gateways, "a")
    (key,) = await gateways.keys("proxy")
    assert (key.account, key.scope, key.budget, key.blocked) == ("acme", "team", "100", False)
    first = await gateways.decide(key, "credit_depleted", epoch)
    assert first is not None
    act = msgspec.json.decode(first.body, type=Act)
    assert (act.type, act.id, act.data.account, act.data.reason) == (
        "gateway.blocked",
        first.alert_id,
        "acme",
        "credit_depleted",
    )
    assert await gateways.decide(key, "credit_depleted", epoch) is None, "it stands so already"
    (key,) = await gateways.keys()
    assert (key.blocked, key.reason, key.act_id) == (True, "credit_depleted", first.alert_id)
    carried = await gateways.to_carry_out(act.data, epoch)
    assert carried is not None
    assert (carried.kind, carried.url, carried.budget, carried.blocked) == (PROXY.kind, PROXY.url, "100", True)
    assert carried.token.get_secret_value() == TOKEN.get_secret_value()
    second = await gateways.decide(key, None, epoch)
    assert second is not None and second.alert_id != first.alert_id
    assert await gateways.to_carry_out(act.data, epoch) is None, "another has taken its place"
    store = PostgresStore(engine_dsn(database), SCHEMA, 1.2, 5.0)
    await store.start()
    try:
        assert await store.waiting_alerts(ACTS_PARTITION) == [first, second]
        await store.record_deliveries([Delivery(second.alert_id, 3, True, False, "")])
        acts = await gateways.acts([first.alert_id, second.alert_id, "never"])
        assert {name: (state.told, state.attempts) for name, state in acts.items()} == {
            first.alert_id: (False, 0),
            second.alert_id: (True, 3),
        }
    finally:
        await store.stop()


async def test_one_process_at_a_time_decides_and_carries_out(gateways: PostgresGateways) -> None:
    epoch = await gateways.claim("b", 60.0)
    assert epoch is not None
    assert await gateways.claim("b", 60.0) == epoch, "it goes on"
    assert await gateways.claim("c", 60.0) is None
    assert await gateways.claim("b", 0.0) == epoch
    assert await gateways.claim("c", 0.0) == epoch + 1
    (key,) = await gateways.keys()
    with pytest.raises(Fenced):
        await gateways.decide(key, "paused", epoch)
    row = await gateways.decide(key, "paused", epoch + 1)
    assert row is not None
    with pytest.raises(Fenced):
        await gateways.to_carry_out(msgspec.json.decode(row.body, type=Act).data, epoch)


async def test_what_was_removed_is_told_nothing_and_counts_on_when_it_comes_again(gateways: PostgresGateways) -> None:
    epoch = await owned(gateways, "d")
    (key,) = await gateways.keys()
    row = await gateways.decide(key, "paused", epoch) or await gateways.decide(key, None, epoch)
    assert row is not None
    act = msgspec.json.decode(row.body, type=Act).data
    assert await gateways.remove_key("proxy", "hash-1")
    assert not await gateways.remove_key("proxy", "hash-1")
    assert (await gateways.keys(), await gateways.to_carry_out(act, epoch)) == ([], None)
    await gateways.put_key(KEY)
    (again,) = await gateways.keys()
    assert again.ordinal == act.ordinal
    assert await gateways.remove("proxy")
    assert not await gateways.remove("proxy")
    assert (await gateways.all(), await gateways.keys()) == ([], [])
    with pytest.raises(GatewayRefused):
        await gateways.put_key(KEY)


async def test_where_it_may_be_is_judged_as_of_webhooks(gateways: PostgresGateways) -> None:
    for url in ("http://llm.example.com", "https://127.0.0.1", "https://10.0.0.7", "https://llm.example.com:4000"):
        with pytest.raises(GatewayRefused) as refused:
            await gateways.put(Gateway("inside", PROXY.kind, url), TOKEN)
        assert refused.value.field == "url"
    assert [each.gateway for each in await gateways.all()] == ["proxy"]


async def test_a_token_is_sealed_and_opened_under_the_same_key_only(gateways: PostgresGateways, database: str) -> None:
    connection = await asyncpg.connect(database)
    try:
        kept = await connection.fetchval(f"SELECT token FROM {SCHEMA}.gateway WHERE gateway = 'proxy'")
    finally:
        await connection.close()
    assert TOKEN.get_secret_value().encode() not in kept
    epoch = await owned(gateways, "e")
    (key,) = await gateways.keys()
    row = await gateways.decide(key, "paused", epoch) or await gateways.decide(key, None, epoch)
    assert row is not None
    other = made(database, b"o" * 32)
    await other.start()
    try:
        with pytest.raises(SecretUnreadable):
            await other.to_carry_out(msgspec.json.decode(row.body, type=Act).data, epoch)
    finally:
        await other.stop()


async def test_there_may_be_so_many(gateways: PostgresGateways, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.gateways.GATEWAYS_MAX", 1)
    monkeypatch.setattr("actors.gateways.GATEWAY_KEYS_MAX", 1)
    await gateways.put(PROXY, TOKEN)
    await gateways.put_key(KEY)
    with pytest.raises(GatewayRefused):
        await gateways.put(Gateway("second", PROXY.kind, PROXY.url), TOKEN)
    with pytest.raises(GatewayRefused):
        await gateways.put_key(msgspec.structs.replace(KEY, key="hash-2"))
