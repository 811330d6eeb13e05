"""Endpoints on a real database, as the engine's role: what is taken in, what is sealed, who sees what."""

import asyncio
import base64
import logging
import socket
import time
from collections.abc import AsyncIterator

import asyncpg
import pytest
from aiohttp.abc import AbstractResolver, ResolveResult
from pydantic import SecretStr

from actors.endpoints import (
    ACCOUNT_ENDPOINTS_MAX,
    ROTATION_S,
    AlertUnknown,
    EndpointDelivery,
    EndpointRefused,
    EndpointUnknown,
    PostgresEndpoints,
    SecretUnreadable,
    Vault,
    check_secret,
    new_secret,
)
from actors.ports import StoreUnavailable
from tests.contracts.benches import RealBench, real_bench

CONTROL_KEY = bytes(range(32))
PUBLIC = "93.184.215.14"
URL = "https://hooks.example.com/alerts?token=t0ken"


class Names(AbstractResolver):
    """Resolves every name to the same addresses."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)
        self.asked: list[str] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        self.asked.append(host)
        if not self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=6, flags=0)
            for address in self.addresses
        ]

    async def close(self) -> None:
        return None


class Stage:
    """A database and, as a test wants them, several processes on it."""

    def __init__(self, bench: RealBench) -> None:
        self.bench = bench
        self.names = Names(PUBLIC)

    async def endpoints(self, control_key: bytes = CONTROL_KEY, *, allow_loopback: bool = False) -> PostgresEndpoints:
        return await self.bench.started(
            PostgresEndpoints(
                self.bench.dsn,
                self.bench.schema,
                control_key,
                allow_loopback=allow_loopback,
                resolver=self.names,
            )
        )

    async def sql(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        """As the owner of the schema."""
        connection = await asyncpg.connect(self.bench.owner_dsn, server_settings={"search_path": self.bench.schema})
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()


@pytest.fixture
async def stage(database: str) -> AsyncIterator[Stage]:
    async with real_bench(database) as bench:
        yield Stage(bench)


@pytest.fixture
async def endpoints(stage: Stage) -> PostgresEndpoints:
    return await stage.endpoints()


def delivery(number: int, **changed: object) -> EndpointDelivery:
    given: dict[str, object] = {
        "alert_id": f"alert_{number}",
        "endpoint_id": "we_1",
        "account": "acme",
        "cause": "alert",
        "attempt": 1,
        "at_us": time.time_ns() // 1000,
        "delivered": False,
        "status": 503,
        "error": "HTTP 503",
        "duration_ms": number,
    }
    return EndpointDelivery(**(given | changed))  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------------- endpoints


async def test_a_new_endpoint_is_found_again_without_its_secret(endpoints: PostgresEndpoints) -> None:
    made, secret = await endpoints.create(URL, "acme", ["low", "empty", "low"])
    check_secret(secret.get_secret_value())
    assert len(base64.b64decode(secret.get_secret_value()[6:])) == 32
    assert made.endpoint_id.startswith("we_")
    assert (made.account, made.url, made.rules, made.disabled_us) == ("acme", URL, ["empty", "low"], None)
    assert abs(made.created_us - time.time_ns() // 1000) < 60_000_000
    assert await endpoints.get(made.endpoint_id) == made
    assert secret.get_secret_value()[6:] not in repr((made, secret, await endpoints.listener(made.endpoint_id)))


async def test_secrets_are_at_rest_only_sealed_and_open_only_for_their_endpoint_and_key(
    stage: Stage, endpoints: PostgresEndpoints
) -> None:
    first, secret = await endpoints.create(URL, "acme", None)
    second, _ = await endpoints.create(URL, "acme", None)
    await endpoints.rotate_secret(first.endpoint_id)
    for row in await stage.sql("SELECT * FROM webhook_endpoint"):
        stored = b"".join(value for value in row.values() if isinstance(value, bytes))
        assert secret.get_secret_value().encode() not in stored
        assert base64.b64decode(secret.get_secret_value()[6:]) not in stored
    await stage.sql(
        "UPDATE webhook_endpoint SET secret = (SELECT secret FROM webhook_endpoint WHERE endpoint_id = $1) "
        "WHERE endpoint_id = $2",
        first.endpoint_id,
        second.endpoint_id,
    )
    with pytest.raises(SecretUnreadable, match="damaged"):
        await endpoints.listener(second.endpoint_id)


async def test_under_another_control_key_a_secret_says_so_and_a_rotation_mends_it(
    stage: Stage, endpoints: PostgresEndpoints
) -> None:
    made, _ = await endpoints.create(URL, None, None)
    other = await stage.endpoints(bytes(32))
    with pytest.raises(SecretUnreadable, match=rf"{made.endpoint_id}.*rotate") as refusal:
        await other.listener(made.endpoint_id)
    changes = await other.changes(0)
    assert changes.listeners == []
    assert changes.unreadable == {made.endpoint_id: str(refusal.value)}
    _, secret = await other.rotate_secret(made.endpoint_id)
    assert (await other.listener(made.endpoint_id)).signing(0) == [secret.get_secret_value()]


async def test_a_rotated_secret_signs_beside_the_new_one_for_a_day(endpoints: PostgresEndpoints) -> None:
    made, old = await endpoints.create(URL, None, None)
    rotated, new = await endpoints.rotate_secret(made.endpoint_id)
    until_us = rotated.previous_until_us
    assert until_us is not None
    assert abs(until_us - time.time_ns() // 1000 - ROTATION_S * 1_000_000) < 60_000_000
    listener = await endpoints.listener(made.endpoint_id)
    both = [new.get_secret_value(), old.get_secret_value()]
    assert listener.signing(until_us - 1) == both
    assert listener.signing(until_us) == both[:1]
    _, newest = await endpoints.rotate_secret(made.endpoint_id)
    listener = await endpoints.listener(made.endpoint_id)
    assert listener.signing(0) == [newest.get_secret_value(), new.get_secret_value()]


async def test_the_url_is_vetted_with_every_address_of_its_name(stage: Stage, endpoints: PostgresEndpoints) -> None:
    for url in (
        "http://hooks.example.com/",
        "https://127.0.0.1/",
        "https://hooks.example.com:22/",
        "",
        "https://0x7f.1/",
    ):
        with pytest.raises(EndpointRefused) as refusal:
            await endpoints.create(url, None, None)
        assert refusal.value.field == "url"
    assert stage.names.asked == []
    for addresses in ([PUBLIC, "10.0.0.1"], ["169.254.169.254"], ["::1"], []):
        stage.names.addresses = addresses
        with pytest.raises(EndpointRefused) as refusal:
            await endpoints.create(URL, None, None)
        assert refusal.value.field == "url"
        assert "t0ken" not in str(refusal.value)
        assert not any(address in str(refusal.value) for address in addresses)
    assert (await endpoints.endpoints()).endpoints == []


async def test_a_name_whose_servers_do_not_answer_is_refused_in_time(stage: Stage) -> None:
    class Silent(Names):
        async def resolve(
            self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
        ) -> list[ResolveResult]:
            await asyncio.Event().wait()
            raise AssertionError

    endpoints = PostgresEndpoints(stage.bench.dsn, stage.bench.schema, CONTROL_KEY, resolver=Silent(), timeout_s=0.2)
    with pytest.raises(EndpointRefused, match="did not resolve"):
        await endpoints.create(URL, None, None)


async def test_loopback_is_for_development_alone(stage: Stage) -> None:
    endpoints = await stage.endpoints(allow_loopback=True)
    made, _ = await endpoints.create("http://127.0.0.1:8080/", None, None)
    assert made.url == "http://127.0.0.1:8080/"
    with pytest.raises(EndpointRefused):
        await endpoints.create("http://10.0.0.1:8080/", None, None)


@pytest.mark.parametrize(
    ("account", "rules", "field"),
    [
        ("", None, "account"),
        ("a" * 129, None, "account"),
        ("a\x00b", None, "account"),
        (None, [], "rules"),
        (None, [""], "rules"),
        (None, ["r" * 129], "rules"),
        (None, [f"r{number}" for number in range(101)], "rules"),
    ],
)
async def test_limits_name_the_field(
    endpoints: PostgresEndpoints, account: str | None, rules: list[str] | None, field: str
) -> None:
    with pytest.raises(EndpointRefused) as refusal:
        await endpoints.create(URL, account, rules)
    assert refusal.value.field == field
    assert str(refusal.value).startswith(field)


async def test_an_account_has_so_many_enabled_endpoints_and_no_more(endpoints: PostgresEndpoints) -> None:
    made = [(await endpoints.create(URL, "acme", None))[0] for _ in range(ACCOUNT_ENDPOINTS_MAX)]
    with pytest.raises(EndpointRefused, match="disable one first"):
        await endpoints.create(URL, "acme", None)
    await endpoints.create(URL, "other", None)
    await endpoints.disable(made[0].endpoint_id)
    await endpoints.create(URL, "acme", None)
    with pytest.raises(EndpointRefused, match="disable one first"):
        await endpoints.enable(made[0].endpoint_id)


async def test_pages_are_complete_and_confined_to_the_account(endpoints: PostgresEndpoints) -> None:
    made = [(await endpoints.create(URL, account, None))[0] for account in ("acme", "acme", "acme", "other", None)]
    seen: list[str] = []
    cursor = None
    for _ in range(3):
        page = await endpoints.endpoints(cursor=cursor, limit=2)
        seen += [each.endpoint_id for each in page.endpoints]
        cursor = page.cursor
    assert cursor is None
    assert seen == sorted(each.endpoint_id for each in made)
    mine = await endpoints.endpoints("acme", limit=3)
    assert [each.account for each in mine.endpoints] == ["acme"] * 3
    assert mine.cursor is None
    for limit, cursor in ((0, None), (201, None), (1, "we_1'; --"), (1, "x")):
        with pytest.raises(EndpointRefused):
            await endpoints.endpoints(cursor=cursor, limit=limit)


async def test_what_belongs_to_another_account_is_as_if_it_were_not_there(endpoints: PostgresEndpoints) -> None:
    foreign, _ = await endpoints.create(URL, "other", None)
    for_all, _ = await endpoints.create(URL, None, None)
    for endpoint_id in (foreign.endpoint_id, for_all.endpoint_id, "we_absent"):
        for method in (
            endpoints.get,
            endpoints.disable,
            endpoints.enable,
            endpoints.rotate_secret,
            endpoints.listener,
        ):
            with pytest.raises(EndpointUnknown) as refusal:
                await method(endpoint_id, "acme")
            assert str(refusal.value) == f"there is no endpoint {endpoint_id!r}"
    assert await endpoints.get(foreign.endpoint_id) == foreign
    assert [each.endpoint for each in (await endpoints.changes(0)).listeners] == [foreign, for_all]


async def test_a_disabled_endpoint_keeps_its_first_reason_and_can_be_enabled(
    stage: Stage, endpoints: PostgresEndpoints
) -> None:
    made, _ = await endpoints.create(URL, None, None)
    disabled = await endpoints.disable(made.endpoint_id, reason="HTTP 410")
    assert disabled.disabled_us is not None
    assert disabled.disabled_reason == "HTTP 410"
    assert await endpoints.disable(made.endpoint_id, reason="again") == disabled
    stage.names.addresses = ["10.0.0.1"]
    with pytest.raises(EndpointRefused):
        await endpoints.enable(made.endpoint_id)
    stage.names.addresses = [PUBLIC]
    assert await endpoints.enable(made.endpoint_id) == made


async def test_changes_tell_each_process_what_it_has_not_seen(stage: Stage, endpoints: PostgresEndpoints) -> None:
    other = await stage.endpoints()
    first, _ = await endpoints.create(URL, "acme", None)
    second, _ = await endpoints.create(URL, None, None)
    gone, _ = await endpoints.create(URL, None, None)
    await endpoints.disable(gone.endpoint_id)
    start = await other.changes(0)
    assert [each.endpoint for each in start.listeners] == [first, second]
    # The disabled one was the last to change, and whoever starts has no use for it.
    after = await other.changes((await other.changes(start.number)).number)
    assert after.listeners == []
    assert await other.changes(after.number) == after
    await endpoints.rotate_secret(first.endpoint_id)
    await endpoints.disable(second.endpoint_id)
    changed = await other.changes(after.number)
    assert [each.endpoint.endpoint_id for each in changed.listeners] == [first.endpoint_id, second.endpoint_id]
    assert changed.listeners[0].previous is not None
    assert changed.listeners[1].endpoint.disabled_us is not None
    assert (await other.changes(changed.number)).listeners == []


async def test_changes_made_at_once_are_all_seen(stage: Stage) -> None:
    several = [await stage.endpoints() for _ in range(4)]
    reader = await stage.endpoints()
    making = [asyncio.create_task(each.create(URL, f"a{number}", None)) for number in range(10) for each in several]
    seen: set[str] = set()
    number = 0
    while not all(task.done() for task in making):
        changes = await reader.changes(number)
        number = changes.number
        seen |= {each.endpoint.endpoint_id for each in changes.listeners}
    seen |= {each.endpoint.endpoint_id for each in (await reader.changes(number)).listeners}
    assert seen == {(await task)[0].endpoint_id for task in making}


# ---------------------------------------------------------------------------------------------------------- deliveries


async def test_deliveries_come_newest_first_and_narrowed(endpoints: PostgresEndpoints) -> None:
    given = [
        delivery(0),
        delivery(1, endpoint_id="we_2"),
        delivery(2, account="other"),
        delivery(3, account=None, cause="test", delivered=True, status=204, error=""),
        delivery(4, status=None, error="no answer within 15 s", attempt=2),
    ]
    await endpoints.record(given)
    await endpoints.record([])
    page = await endpoints.deliveries()
    assert [each.duration_ms for each in page.deliveries] == [4, 3, 2, 1, 0]
    by_hand = given[4]
    assert page.deliveries[0] == EndpointDelivery(
        **{name: getattr(by_hand, name) for name in by_hand.__struct_fields__ if name != "delivery_id"},
        delivery_id=page.deliveries[0].delivery_id,
    )
    assert [each.duration_ms for each in (await endpoints.deliveries(endpoint_id="we_2")).deliveries] == [1]
    assert [each.duration_ms for each in (await endpoints.deliveries(account="acme")).deliveries] == [4, 1, 0]
    assert [each.duration_ms for each in (await endpoints.deliveries(alert_id="alert_3")).deliveries] == [3]
    seen = []
    cursor = None
    for _ in range(3):
        page = await endpoints.deliveries(cursor=cursor, limit=2)
        seen += [each.duration_ms for each in page.deliveries]
        cursor = page.cursor
    assert (seen, cursor) == ([4, 3, 2, 1, 0], None)
    for wrong in ("-1", "x", "9" * 19, "\u0663"):
        with pytest.raises(EndpointRefused, match="cursor"):
            await endpoints.deliveries(cursor=wrong)


async def test_deliveries_are_kept_for_thirty_days(stage: Stage, endpoints: PostgresEndpoints) -> None:
    now_us = time.time_ns() // 1000
    day_us = 86_400_000_000
    await endpoints.record([delivery(0, at_us=now_us - 31 * day_us), delivery(1, at_us=now_us - 29 * day_us)])
    assert await endpoints.forget_old() == 1
    assert [each.duration_ms for each in (await endpoints.deliveries()).deliveries] == [1]


async def test_the_engine_can_change_no_delivery_and_delete_no_endpoint(stage: Stage) -> None:
    connection = await asyncpg.connect(stage.bench.dsn, server_settings={"search_path": stage.bench.schema})
    for statement in ("UPDATE webhook_delivery SET delivered = true", "DELETE FROM webhook_endpoint"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(statement)
    await connection.close()


async def test_an_alert_is_found_for_its_own_account(stage: Stage, endpoints: PostgresEndpoints) -> None:
    await stage.sql(
        "INSERT INTO alert (alert_id, partition, account, log_offset, body) VALUES ('alert_1', 0, 'acme', 7, '{}')"
    )
    for account in (None, "acme"):
        found = await endpoints.alert("alert_1", account)
        assert (found.alert_id, found.account, found.offset, found.body) == ("alert_1", "acme", 7, b"{}")
    for alert_id, account in (("alert_1", "other"), ("alert_2", None)):
        with pytest.raises(AlertUnknown):
            await endpoints.alert(alert_id, account)


async def test_without_a_database_it_is_said(stage: Stage) -> None:
    endpoints = PostgresEndpoints("postgresql://x:y@127.0.0.1:1/z", "tallygate", CONTROL_KEY)
    with pytest.raises(StoreUnavailable):
        await endpoints.start()


async def test_no_log_and_no_error_holds_a_secret(
    stage: Stage, endpoints: PostgresEndpoints, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made, first = await endpoints.create(URL, "acme", None)
    _, second = await endpoints.rotate_secret(made.endpoint_id)
    other = await stage.endpoints(bytes(32))
    shown = [repr(await other.changes(0)), repr(await endpoints.changes(0))]
    with pytest.raises(SecretUnreadable) as refusal:
        await other.listener(made.endpoint_id)
    shown += [str(refusal.value), caplog.text]
    for secret in (first, second):
        assert not any(secret.get_secret_value()[6:20] in text for text in shown)


# -------------------------------------------------------------------------------------------------------------- secrets


def test_a_sealed_secret_carries_its_keys_name_and_is_never_the_same_twice() -> None:
    vault = Vault(CONTROL_KEY)
    secret = new_secret()
    sealed = vault.seal("we_1", secret)
    assert sealed[1:9] == vault.key_id
    assert sealed != vault.seal("we_1", secret)
    assert vault.open("we_1", sealed) == secret
    assert vault.key_id == Vault(CONTROL_KEY).key_id != Vault(bytes(32)).key_id
    assert CONTROL_KEY.hex() not in repr(vault)


@pytest.mark.parametrize("damage", [0, 1, 8, 9, 20, 21, -1])
def test_a_sealed_secret_with_one_bit_changed_does_not_open(damage: int) -> None:
    vault = Vault(CONTROL_KEY)
    sealed = bytearray(vault.seal("we_1", new_secret()))
    sealed[damage] ^= 1
    with pytest.raises(SecretUnreadable):
        vault.open("we_1", bytes(sealed))


@pytest.mark.parametrize("length", range(0, 40, 3))
def test_a_sealed_secret_cut_short_does_not_open(length: int) -> None:
    vault = Vault(CONTROL_KEY)
    with pytest.raises(SecretUnreadable):
        vault.open("we_1", vault.seal("we_1", SecretStr("whsec_x"))[:length])


@pytest.mark.parametrize(
    "secret",
    [
        "",
        "whsec_",
        base64.b64encode(CONTROL_KEY).decode(),
        "whsec_not base64!",
        "whsec_" + base64.b64encode(CONTROL_KEY[:23]).decode(),
        "whsec_" + base64.b64encode(CONTROL_KEY * 3).decode(),
    ],
)
def test_a_weak_or_malformed_secret_is_refused_without_showing_it(secret: str) -> None:
    with pytest.raises(ValueError) as refusal:
        check_secret(secret)
    assert len(secret) < 8 or secret[6:] not in str(refusal.value)
