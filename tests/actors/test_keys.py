"""Keys on a real database, as the engine's role: what is kept, who is let in, how fast a revocation works."""

import asyncio
import random
import string
from collections.abc import AsyncIterator

import asyncpg
import pytest

from actors.clock import SystemClock
from actors.keys import (
    TRUSTED_FOR_S,
    Key,
    KeyRefused,
    Keys,
    KeyScope,
    KeysUnavailable,
    KeyUnknown,
    new_key_text,
    read_key_text,
)
from actors.ports import StoreUnavailable
from loadtest.chaos.commits import PostgresProxy
from tests.contracts.benches import RealBench, real_bench

DAY_US = 86_400_000_000


class Clock(SystemClock):
    """The machine's, moved on by hand."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def boot_s(self) -> float:
        return super().boot_s() + self.ahead_s

    def wall_us(self) -> int:
        return super().wall_us() + round(self.ahead_s * 1e6)


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with real_bench(database) as opened:
        yield opened


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def keys(bench: RealBench, clock: Clock) -> AsyncIterator[Keys]:
    made = Keys(bench.dsn, bench.schema, clock, environment="test", refresh_every_s=0.02)
    await made.start()
    yield made
    await made.stop()


async def until_verified(keys: Keys, text: str, wanted: bool) -> None:
    async with asyncio.timeout(20):
        while (await keys.verify(text) is not None) is not wanted:
            await asyncio.sleep(0.01)


# ------------------------------------------------------------------------------------------------------------ the text


def test_a_key_is_read_as_it_was_written() -> None:
    text = new_key_text("live", "0123456789ab", "S" * 43)
    read = read_key_text(text)
    assert read is not None and read[0] == "0123456789ab" and len(read[1]) == 32
    assert text.startswith("tg_live_0123456789ab_SSS")


def test_no_change_of_a_key_is_taken_for_one() -> None:
    text = new_key_text("live", "0123456789ab", "".join(random.Random(1).choices(string.ascii_letters, k=43)))
    draw = random.Random(2)
    for _ in range(20_000):
        place = draw.randrange(len(text))
        kind = draw.randrange(4)
        other = draw.choice(string.printable + "é\x00")
        changed = {
            0: text[:place] + other + text[place + 1 :],
            1: text[:place],
            2: text[:place] + other + text[place:],
            3: text[:place] + text[place + 1 :],
        }[kind]
        assert changed == text or read_key_text(changed) is None, changed


@pytest.mark.parametrize(
    "text", ["", "tg", "tg_live_x_y_z", "x" * 100_000, "tg_live_0123456789ab_" + "S" * 43 + "_00000000"]
)
def test_what_is_no_key_is_not_looked_up(text: str) -> None:
    assert read_key_text(text) is None


# -------------------------------------------------------------------------------------------------------------- making


async def test_a_key_works_for_what_it_was_made_for(keys: Keys) -> None:
    key, text = await keys.create("gateway", [KeyScope.CHECK, KeyScope.READ], "acme", created_by="test")
    await until_verified(keys, text, True)
    assert (
        await keys.verify(text)
        == key
        == Key(key.public_id, "gateway", frozenset({KeyScope.CHECK, KeyScope.READ}), "acme")
    )


async def test_the_secret_is_kept_nowhere(bench: RealBench, keys: Keys) -> None:
    _, text = await keys.create("gateway", [KeyScope.READ], created_by="test")
    secret = text.split("_")[3]
    connection = await asyncpg.connect(bench.owner_dsn, server_settings={"search_path": bench.schema})
    rows = await connection.fetch("SELECT api_key::text AS row FROM api_key")
    await connection.close()
    assert rows and all(secret not in row["row"] and secret.encode().hex() not in row["row"] for row in rows)


async def test_another_secret_under_the_same_id_is_refused(keys: Keys) -> None:
    key, text = await keys.create("gateway", [KeyScope.READ], created_by="test")
    await until_verified(keys, text, True)
    assert await keys.verify(new_key_text("test", key.public_id, "x" * 43)) is None
    assert await keys.verify(new_key_text("test", "nobodynobody", text.split("_")[3])) is None


async def test_two_live_keys_are_two_keys(keys: Keys) -> None:
    _, old = await keys.create("gateway", [KeyScope.READ], created_by="test")
    old_key = await keys.page(1)
    _, new = await keys.create("gateway", [KeyScope.READ], created_by="test")
    await until_verified(keys, new, True)
    assert await keys.verify(old) is not None
    await keys.revoke(old_key[0].key.public_id)
    await until_verified(keys, old, False)
    assert await keys.verify(new) is not None


async def test_an_expired_key_is_none(keys: Keys, clock: Clock) -> None:
    _, text = await keys.create("short", [KeyScope.READ], expires_us=clock.wall_us() + DAY_US, created_by="test")
    await until_verified(keys, text, True)
    clock.ahead_s += 86_401
    await until_verified(keys, text, False)


@pytest.mark.parametrize(
    ("name", "scopes", "account", "expires_us", "field"),
    [
        ("", [KeyScope.READ], None, None, "name"),
        ("x" * 129, [KeyScope.READ], None, None, "name"),
        ("a\x00", [KeyScope.READ], None, None, "name"),
        ("a", [], None, None, "scopes"),
        ("a", [KeyScope.READ], "", None, "account"),
        ("a", [KeyScope.READ], "é" * 129, None, "account"),
        ("a", [KeyScope.READ], None, 1, "expires"),
        ("a", [KeyScope.READ], None, 1 << 60, "expires"),
    ],
)
async def test_a_key_that_makes_no_sense_is_not_made(
    keys: Keys, name: str, scopes: list[KeyScope], account: str | None, expires_us: int | None, field: str
) -> None:
    with pytest.raises(KeyRefused) as refused:
        await keys.create(name, scopes, account, expires_us, created_by="test")
    assert refused.value.field == field


async def test_the_list_shows_the_history_in_pages(keys: Keys) -> None:
    made = [(await keys.create(f"n{number}", [KeyScope.READ], created_by="test"))[0] for number in range(3)]
    await keys.revoke(made[1].public_id)
    first = await keys.page(2)
    rest = await keys.page(2, (first[-1].created_us, first[-1].key.public_id))
    assert [record.key for record in (*first, *rest)] == made[::-1]
    assert [record.revoked_us is not None for record in (*first, *rest)] == [False, True, False]


# ------------------------------------------------------------------------------------------------------------ revoking


async def test_a_revocation_reaches_every_replica(bench: RealBench, keys: Keys, clock: Clock) -> None:
    other = Keys(bench.dsn, bench.schema, clock, refresh_every_s=0.02)
    await other.start()
    key, text = await keys.create("gateway", [KeyScope.READ], created_by="test")
    for replica in (keys, other):
        await until_verified(replica, text, True)
        assert await replica.usable(key.public_id)
    await other.revoke(key.public_id)
    await keys.revoke(key.public_id)
    for replica in (keys, other):
        await until_verified(replica, text, False)
        assert not await replica.usable(key.public_id)
    await other.stop()


async def test_a_key_that_never_was_cannot_be_revoked(keys: Keys) -> None:
    with pytest.raises(KeyUnknown):
        await keys.revoke("nobodynobody")


async def test_a_memory_that_is_too_old_is_not_trusted(bench: RealBench, clock: Clock) -> None:
    """The follower hangs: the database is asked instead, and a revocation holds from the second on."""
    replica = Keys(bench.dsn, bench.schema, clock, refresh_every_s=3_600)
    await replica.start()
    key, text = await replica.create("gateway", [KeyScope.READ], created_by="test")
    assert await replica.verify(text) is None, "made after the last look"
    clock.ahead_s += TRUSTED_FOR_S + 0.1
    assert not replica.fresh
    assert await replica.verify(text) == key
    assert await replica.verify(new_key_text("test", key.public_id, "x" * 43)) is None
    await replica.revoke(key.public_id)
    assert await replica.verify(text) is None
    await replica.stop()


async def test_without_the_database_nobody_is_let_in_on_an_old_memory(bench: RealBench, clock: Clock) -> None:
    proxy = PostgresProxy(bench.dsn)
    await proxy.start()
    replica = Keys(proxy.dsn, bench.schema, clock, refresh_every_s=0.02, trusted_for_s=0.5)
    await replica.start()
    _, text = await replica.create("gateway", [KeyScope.READ], created_by="test")
    await until_verified(replica, text, True)
    await proxy.stop()
    async with asyncio.timeout(20):
        while replica.fresh:
            await asyncio.sleep(0.02)
    with pytest.raises(KeysUnavailable):
        await replica.verify(text)
    with pytest.raises(StoreUnavailable):
        await replica.create("n", [KeyScope.READ], created_by="test")
    await replica.stop()


async def test_a_scope_of_a_newer_version_gives_no_right(bench: RealBench, keys: Keys) -> None:
    key, text = await keys.create("gateway", [KeyScope.READ], created_by="test")
    connection = await asyncpg.connect(bench.owner_dsn, server_settings={"search_path": bench.schema})
    await connection.execute("UPDATE api_key SET scopes = '{read,omnipotence}' WHERE public_id = $1", key.public_id)
    await connection.execute("UPDATE api_key_change SET counter = counter + 1")
    await connection.close()
    await until_verified(keys, text, True)
    found = await keys.verify(text)
    assert found is not None and found.scopes == {KeyScope.READ}


def test_an_environment_is_a_word(bench: RealBench, clock: Clock) -> None:
    with pytest.raises(ValueError, match="environment"):
        Keys(bench.dsn, bench.schema, clock, environment="pro_d")
