"""Lists on a real database: complete, in order, whatever is written meanwhile; and read-only."""

from collections.abc import AsyncIterator

import asyncpg
import pytest
from msgspec.structs import replace

from actors import records as records_module
from actors.ports import Claim, StoreRefused, StoreUnavailable
from actors.postgres import PostgresStore
from actors.records import BadCursor, Big, Records, Text, read_cursor, write_cursor
from engine.snapshot import encode_partition
from tests.contracts.benches import RealBench, owned_bench
from tests.contracts.checkpoints import PARTITION, account, alert, command, cut, dead_letter, posting


@pytest.fixture
async def bench(database: str) -> AsyncIterator[RealBench]:
    async with owned_bench(database) as opened:
        yield opened


@pytest.fixture
async def store(bench: RealBench) -> PostgresStore:
    return await bench.store()


@pytest.fixture
async def claim(store: PostgresStore) -> Claim:
    return await store.claim(PARTITION, "a")


@pytest.fixture
async def records(bench: RealBench) -> Records:
    return await bench.started(Records(bench.dsn, bench.schema, 8))


async def test_pages_are_complete_although_rows_come_in_between(
    store: PostgresStore, claim: Claim, records: Records
) -> None:
    await store.commit(cut(claim, postings=[posting(amount) for amount in range(1, 6)]))
    page, cursor = await records.ledger("acme", 2)
    await store.commit(cut(claim, claim.ckpt_seq + 2, postings=[posting(100)]))
    rest, end = await records.ledger("acme", 200, cursor)
    assert [row.line for row in [*page, *rest]] == [4, 3, 2, 1, 0]
    assert [row.amount for row in page] == ["0.000000000005", "0.000000000004"]
    assert end is None
    assert (await records.ledger("other", 10)) == ([], None)


async def test_what_a_checkpoint_wrote_is_read_back(store: PostgresStore, claim: Claim, records: Records) -> None:
    await store.commit(
        cut(
            claim,
            accounts=[account("acme", balance=5 * 10**12), account("b")],
            commands=[command(3, answer="key_reused"), command(2)],
            alerts=[alert("alert_1", 4), alert("alert_2", 5)],
            dead_letters=[dead_letter(6), dead_letter(7, "no_price")],
        )
    )
    customers, _ = await records.customers(10)
    assert (customers[0].account, customers[0].balance, customers[0].spend) == ("acme", "5", "-5")
    commands, cursor = await records.commands("acme", 1)
    assert (commands[0].offset, commands[0].answer, commands[0].body) == (3, "key_reused", b'{"kind":"grant"}')
    assert [row.offset for row in (await records.commands("acme", 1, cursor))[0]] == [2]
    alerts, cursor = await records.alerts("acme", 1)
    assert (alerts[0].alert_id, alerts[0].delivered_us, alerts[0].body) == ("alert_2", None, b'{"id":"alert_2"}')
    assert [row.alert_id for row in (await records.alerts("acme", 1, cursor))[0]] == ["alert_1"]
    letters, cursor = await records.dead_letters(1)
    assert (letters[0].offset, letters[0].reason) == (7, "no_price")
    assert [row.offset for row in (await records.dead_letters(1, cursor))[0]] == [6]
    found = await records.dead_letter(PARTITION, 6)
    assert found is not None and found.value == b"\x00\xff not text"
    assert [row.offset for row in (await records.dead_letters(5, reason="malformed", partition=PARTITION))[0]] == [6]
    assert (await records.dead_letters(5, partition=1))[0] == []
    for place in ((PARTITION, 8), (2**40, 6), (PARTITION, 2**70), (-1, -1)):
        assert await records.dead_letter(*place) is None


async def test_one_account_is_found_in_its_own_partition(bench: RealBench, store: PostgresStore, claim: Claim) -> None:
    await store.commit(cut(claim, accounts=[account(f"a{number}") for number in range(40)]))
    of_eight = await bench.started(Records(bench.dsn, bench.schema, 8))
    found = [await of_eight.customer(f"a{number}") for number in range(40)]
    here = [row for row in found if row is not None]
    assert 0 < len(here) < 40 and {row.partition for row in here} == {PARTITION}


async def test_versions_are_in_force_from_the_instants_of_their_markers(
    store: PostgresStore, claim: Claim, records: Records
) -> None:
    for version in (1, 2, 3):
        await store.publish_catalogue(version, b"{%d}" % version)
    assert await records.catalogue_at(10**18) is None
    blob = encode_partition(5, 1, [(1, 700), (2, 1_000)], {}, (), (), ())
    await store.commit(cut(claim, blob=blob))
    rows, cursor = await records.catalogues(2)
    assert [(row.version, row.effective_us, row.body) for row in rows] == [(3, None, None), (2, 1_000, None)]
    assert [row.version for row in (await records.catalogues(2, cursor))[0]] == [1]
    for instant, version in ((0, 1), (999, 1), (1_000, 2), (10**18, 2)):
        row = await records.catalogue_at(instant)
        assert row is not None and (row.version, row.body) == (version, b"{%d}" % version)
    assert await records.catalogue(9) is None and await records.catalogue(2**70) is None


async def test_nothing_can_be_written_through_it(bench: RealBench, records: Records) -> None:
    async def write(connection: asyncpg.Connection) -> None:
        await connection.execute("UPDATE partition SET epoch = epoch + 1")

    with pytest.raises((StoreRefused, StoreUnavailable), match="read-only"):
        await records._read(write)


async def test_after_stopping_it_says_so(bench: RealBench) -> None:
    records = Records(bench.dsn, bench.schema, 8)
    await records.start()
    await records.stop()
    with pytest.raises(StoreUnavailable):
        await records.customers(1)


def test_a_cursor_is_of_its_list_version_and_types_alone() -> None:
    text = write_cursor("a", 5, "x")
    assert tuple(read_cursor("a", text, tuple[Big, Text], ())) == (5, "x")
    assert read_cursor("a", None, tuple[Big, Text], (1, "")) == (1, "")
    bad = [
        write_cursor("b", 5, "x"),
        write_cursor("a", 5),
        write_cursor("a", "5", "x"),
        write_cursor("a", -1, "x"),
        write_cursor("a", 2**63, "x"),
        write_cursor("a", 5, "x\x00"),
        write_cursor("a", 5, "x" * 300),
        text + "=",
        text[:-1],
        "",
        "é",
        "A" * 600,
        "gA",
    ]
    for wrong in bad:
        with pytest.raises(BadCursor):
            read_cursor("a", wrong, tuple[Big, Text], ())


async def test_dead_letters_are_found_by_what_they_hold_among_the_newest_of_a_partition(
    store: PostgresStore, claim: Claim, records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    letters = [replace(dead_letter(offset), value=b'{"id":"e%d"}' % offset) for offset in range(6, 9)]
    await store.commit(cut(claim, dead_letters=[*letters, replace(dead_letter(9), value=None)]))

    async def found(partition: int, part: bytes) -> list[int]:
        return [row.offset for row in await records.dead_letters_holding(partition, part)]

    assert await found(PARTITION, b'"id":"e') == [8, 7, 6]
    assert await found(PARTITION, b'"e7"') == [7]
    assert await found(PARTITION, b"e%") == []
    assert await found(PARTITION + 1, b"e7") == []
    monkeypatch.setattr(records_module, "VALUE_BYTES_MAX", len(b'{"id":"e7"}') - 1)
    assert await found(PARTITION, b'"id":"e') == []
    monkeypatch.undo()
    monkeypatch.setattr(records_module, "LETTERS_LOOKED_AT", 2)
    assert await found(PARTITION, b'"id":"e') == [8]
