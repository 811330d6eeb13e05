"""A checkpoint of many customers in the store, with an empty log behind it: what a cold start begins from.

The engine folds one customer per partition: opened, with wallet, cap and one event for each of ten models, so that it has
ten counters. The others of the partition are that customer under their own names, and all identities of their events stand
in the duplicate memory. No postings are written: a start reads none.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
import orjson

from actors.assembly import postgres_store
from actors.membership import PostgresMembership, PostgresRoster
from actors.ports import AccountRow, Checkpoint, Claim
from config.settings import Settings
from engine.catalog import PriceBook, load_catalogue
from engine.dedup import Dedup, identity
from engine.events import CatalogueMarker, seal
from engine.partition import Partition
from engine.snapshot import decode_account, encode_account
from loadtest.probes import MODEL, PLAN, Customer
from loadtest.workload import EVENT_TYPE

COUNTERS: Final = 10
MODELS: Final = (MODEL, *(f"model-{number}" for number in range(1, COUNTERS)))
CATALOGUE: Final[bytes] = orjson.dumps(
    {
        "meters": {
            "tokens": {
                "event_type": EVENT_TYPE,
                "aggregation": "sum",
                "field": "input_tokens",
                "group_by": ["model"],
            }
        },
        "plans": {
            PLAN: {
                "currency": "USD",
                "prices": {"token": {"meter": "tokens", "model": "per_unit", "amount": "0.10", "per": "1000000"}},
            }
        },
    }
)
FINGERPRINT: Final = b"cold"
_LOADER: Final = "loader"


async def store_customers(settings: Settings, customers: Sequence[Customer], wall_us: int) -> None:
    """One checkpoint per partition, as an owner commits it. `Customer.sent` is what each has used by then."""
    schema = settings.postgres.schema_name
    dsn = settings.postgres.dsn
    assert dsn is not None
    store, roster = postgres_store(settings), PostgresRoster(dsn.get_secret_value(), schema)
    membership = PostgresMembership(dsn.get_secret_value(), schema)
    for part in (store, roster, membership):
        await part.start()
    try:
        await store.publish_catalogue(1, CATALOGUE)
        term = await roster.take_office(_LOADER, 60.0)
        assert term is not None, "another controller is in office"
        await membership.register(_LOADER, _LOADER, "", "", 0)
        numbers = range(settings.kafka.partitions)
        await roster.assign(term, dict.fromkeys(numbers, _LOADER))
        for number in numbers:
            claim = await store.claim(number, _LOADER)
            await store.commit(
                _checkpoint(settings, claim, [each for each in customers if each.partition == number], wall_us)
            )
            await store.release(number, claim.epoch)
        await membership.leave(_LOADER)
        await roster.resign(term)
    finally:
        for part in (store, roster, membership):
            await part.stop()


def _checkpoint(settings: Settings, claim: Claim, customers: Sequence[Customer], wall_us: int) -> Checkpoint:
    fold = _folded(settings, customers[0], wall_us)
    cut = fold.begin_cut()
    while not cut.encode(1):
        pass
    (pattern,) = cut.accounts
    memory = Dedup()
    for customer in customers:
        for number in range(1, COUNTERS + 1):
            memory.remember(identity(customer.account, "bench", f"e{number}"), FINGERPRINT, number, wall_us)
    return Checkpoint(
        partition=claim.partition,
        epoch=claim.epoch,
        ckpt_seq=claim.ckpt_seq + 1,
        next_offset=claim.next_offset,
        last=None,
        blob=cut.blob,
        accounts=list(_rows(pattern, customers)),
        dedup=memory.take_fresh(),
        dedup_bucket_min=cut.dedup_bucket_min,
        commands=[],
        postings=[],
        alerts=[],
        dead_letters=[],
    )


def _folded(settings: Settings, customer: Customer, wall_us: int) -> Partition:
    key, topic, number = settings.control_key_bytes(), settings.kafka.topic_usage, customer.partition
    library = {1: load_catalogue(1, CATALOGUE)}
    fold = Partition(number, settings.kafka.partitions, topic, key, library)
    bodies: list[bytes] = [msgspec.json.encode(CatalogueMarker(1, 0)), *map(orjson.dumps, customer.commands())]
    values = [seal(key, topic, number, body) for body in bodies]
    values += [customer.use(wall_us, model).value or b"" for model in MODELS]
    for offset, value in enumerate(values):
        fold.apply(offset, wall_us // 1000, customer.account.encode(), value)
    assert fold.counts.get("rated") == COUNTERS, f"the pattern was not rated: {fold.counts}"
    return fold


def _rows(pattern: AccountRow, customers: Sequence[Customer]) -> Iterator[AccountRow]:
    book = PriceBook()
    book.publish(0, load_catalogue(1, CATALOGUE))
    account = decode_account(pattern.blob, book)
    for customer in customers:
        account.account = customer.account
        customer.sent = COUNTERS
        yield msgspec.structs.replace(pattern, account=customer.account, blob=encode_account(account))
