"""What a cold start begins from is a checkpoint like any other: the engine loads it, and every customer is as it should be."""

import secrets

from pydantic import SecretStr

from actors.assembly import postgres_store
from actors.migrations import migrate
from config.settings import KafkaSettings, PostgresSettings, Settings
from engine.catalog import load_catalogue
from engine.partition import Partition
from loadtest.cold_state import CATALOGUE, COUNTERS, store_customers
from loadtest.deployment import ENGINE_PASSWORD, engine_dsn
from loadtest.probes import customers

WALL_US = 1_750_000_000_000_000
PARTITIONS = 2


async def test_every_customer_is_loaded_with_its_counters_its_balance_and_its_events(database: str) -> None:
    schema = f"cold_{secrets.token_hex(4)}"
    await migrate(database, schema, ENGINE_PASSWORD)
    settings = Settings(
        control_key=SecretStr(secrets.token_hex(32)),
        postgres=PostgresSettings(dsn=SecretStr(engine_dsn(database)), schema_name=schema),
        kafka=KafkaSettings(partitions=PARTITIONS),
    )
    crowd = customers("cold", 40, PARTITIONS)
    await store_customers(settings, crowd, WALL_US)
    store = postgres_store(settings)
    await store.start()
    try:
        for number in range(PARTITIONS):
            blob, next_offset = await store.checkpoint(number)
            image = await store.load(number, 0)
            library = {1: load_catalogue(1, CATALOGUE)}
            fold = Partition(number, PARTITIONS, "usage", settings.control_key_bytes(), library)
            fold.load(blob, image.accounts, image.dedup, image.commands)
            mine = [customer for customer in crowd if customer.partition == number]
            assert sorted(fold.account_ids()) == [customer.account for customer in mine]
            assert next_offset == 0, "the log behind it is empty"
            for customer in mine:
                account, wallet = fold.account(customer.account), fold.wallet(customer.account, WALL_US)
                assert account is not None and wallet is not None
                assert sum(len(row) for row in account.table.values()) == COUNTERS
                assert wallet.booked == customer.booked
            mine[0].sent = 0
            again = mine[0].use(WALL_US)
            before = dict(fold.counts)
            fold.apply(1_000, WALL_US // 1000, again.key, again.value)
            assert fold.counts["dead_lettered.id_conflict"] == before.get("dead_lettered.id_conflict", 0) + 1
        assert {status.owner for status in await store.partitions()} == {None}
    finally:
        await store.stop()
