"""The wiring: what is missing is said at once, by its name."""

import gc
from pathlib import Path

import pytest
from pydantic import SecretStr

from actors.addresses import NoAddressThere
from actors.assembly import (
    GC_THRESHOLDS,
    ControllerProcess,
    NotConfigured,
    ShardProcess,
    doors,
    issue_key,
    kafka_appender,
    kafka_log,
    key_ring,
    postgres_store,
    settle_garbage_collection,
    topic_names,
)
from actors.clock import SystemClock
from actors.controller import Controller
from actors.keys import KeyScope
from config.settings import KafkaSettings, PostgresSettings, Settings, SettingsError, ShardSettings, WebhookSettings
from tests.contracts.benches import real_bench

KAFKA = KafkaSettings(bootstrap_servers="127.0.0.1:1", topic_usage="u", topic_rated="r", topic_dead_letters="d")
POSTGRES = PostgresSettings(dsn=SecretStr("postgresql://nobody:none@127.0.0.1:1/none"))
CONTROL_KEY = SecretStr("ab" * 32)


def test_without_a_database_nothing_is_wired(tmp_path: Path) -> None:
    settings = Settings(kafka=KAFKA, control_key=CONTROL_KEY)
    for wire in (
        lambda: postgres_store(settings),
        lambda: ShardProcess("shard-0", settings, tmp_path),
        lambda: ControllerProcess("controller", settings),
        lambda: doors(settings),
        lambda: key_ring(settings, SystemClock()),
    ):
        with pytest.raises(NotConfigured, match=r"postgres\.dsn is not set; set DATABASE_URL"):
            wire()


def test_without_brokers_nothing_is_wired(tmp_path: Path) -> None:
    settings = Settings(postgres=POSTGRES, control_key=CONTROL_KEY)
    for wire in (
        lambda: kafka_log(settings),
        lambda: kafka_appender(settings),
        lambda: ShardProcess("shard-0", settings, tmp_path),
    ):
        with pytest.raises(NotConfigured, match=r"kafka\.bootstrap_servers is not set; set KAFKA_BOOTSTRAP_SERVERS"):
            wire()


def test_without_a_control_key_no_shard_is_wired(tmp_path: Path) -> None:
    """A shard without it would take every control record for a forgery."""
    with pytest.raises(SettingsError, match="control_key: is not set"):
        ShardProcess("shard-0", Settings(kafka=KAFKA, postgres=POSTGRES), tmp_path)


def test_without_a_control_key_no_door_is_opened() -> None:
    with pytest.raises(SettingsError, match="control_key: is not set"):
        doors(Settings(kafka=KAFKA, postgres=POSTGRES))


def test_a_shard_whose_door_nobody_could_reach_is_not_wired(tmp_path: Path) -> None:
    elsewhere = ShardSettings(door_network="203.0.113.0/24")
    settings = Settings(kafka=KAFKA, postgres=POSTGRES, control_key=CONTROL_KEY, shard=elsewhere)
    with pytest.raises(NoAddressThere, match=r"no address in 203\.0\.113\.0/24"):
        ShardProcess("shard-0", settings, tmp_path)


def test_topics_go_by_their_roles() -> None:
    assert topic_names(Settings(kafka=KAFKA)) == {"usage": "u", "rated": "r", "dead-letters": "d"}


async def test_a_wired_process_has_a_life_of_its_own_and_holds_no_lock_before_it_starts(tmp_path: Path) -> None:
    webhooks = WebhookSettings(url="https://example.test/hook", secret=SecretStr("whsec_" + "QUFB" * 8))
    for chosen in (WebhookSettings(), webhooks):
        settings = Settings(kafka=KAFKA, postgres=POSTGRES, control_key=CONTROL_KEY, webhooks=chosen)
        process = ShardProcess("shard-0", settings, tmp_path / "locks")
        assert process.incarnation.name.startswith("shard-0.")
        assert not (tmp_path / "locks").exists()
        assert process.shard.partitions() == []
        assert not process.shard.may_speak()


class AwayRoster:
    """Of a controller that never gets to ask it."""

    async def start(self) -> None: ...

    async def stop(self) -> None: ...


async def test_a_controller_that_breaks_is_seen_to(monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: Controller) -> None:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr(Controller, "run", broken)
    process = ControllerProcess("controller", Settings(kafka=KAFKA, postgres=POSTGRES, control_key=CONTROL_KEY))
    monkeypatch.setattr(process, "_roster", AwayRoster())
    await process.start()
    with pytest.raises(RuntimeError, match="a fault of ours"):
        await process.wait()
    await process.stop()


async def test_a_key_that_is_issued_is_known_to_a_replica_that_was_there_before(database: str) -> None:
    async with real_bench(database) as bench:
        postgres = PostgresSettings(dsn=SecretStr(bench.dsn), schema_name=bench.schema)
        settings = Settings(postgres=postgres, control_key=CONTROL_KEY)
        replica = key_ring(settings, SystemClock())
        await replica.start()
        try:
            text = await issue_key(settings, SystemClock(), "gateways", (KeyScope.CHECK,), created_by="a test")
            known = await replica.verify(text)
            assert known is not None
            assert known.scopes == frozenset({KeyScope.CHECK})
        finally:
            await replica.stop()


def test_what_is_loaded_is_looked_at_no_more_and_passes_over_what_is_young_are_short() -> None:
    before = gc.get_threshold()
    loaded = [[number] for number in range(1_000)]
    try:
        settle_garbage_collection()
        assert gc.get_freeze_count() > len(loaded)
        assert gc.get_threshold() == GC_THRESHOLDS
        assert GC_THRESHOLDS[0] <= 5_000 and GC_THRESHOLDS[0] * GC_THRESHOLDS[1] >= 1_000_000
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
