"""The real store where connections break: what took effect, what did not, and who is told that nobody knows."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from decimal import Decimal, Inexact
from typing import Any

import asyncpg
import pytest

from actors import postgres
from actors.ports import Claim, CommitUnknown, Delivery, Fenced, Place, StoreRefused, StoreUnavailable
from actors.postgres import Hurried, OutboxCounts, PostgresStore, pico_of, units_of
from actors.queries import QUERIES
from loadtest.chaos.commits import CommitFault, PostgresProxy
from loadtest.chaos.proxy import Direction, Weather
from tests.contracts.benches import RealBench, owned_bench
from tests.contracts.checkpoints import PARTITION, account, alert, command, cut, dead_letter, posting, run, segment
from tests.simulation.hand_clock import settle

LEASE_S = 0.5


@pytest.fixture
def owner_dsn(database: str) -> str:
    return database


@pytest.fixture
async def bench(owner_dsn: str) -> AsyncIterator[RealBench]:
    async with owned_bench(owner_dsn) as opened:
        yield opened


@pytest.fixture
async def proxy(bench: RealBench) -> AsyncIterator[PostgresProxy]:
    opened = PostgresProxy(bench.dsn)
    await opened.start()
    yield opened
    await opened.stop()


@pytest.fixture
async def store(bench: RealBench, proxy: PostgresProxy) -> PostgresStore:
    """A store behind the proxy."""
    return await bench.started(
        PostgresStore(proxy.dsn, bench.schema, LEASE_S, statement_timeout_s=1.0, connect_timeout_s=2.0, hurry_s=30.0)
    )


@pytest.fixture
async def claim(store: PostgresStore) -> Claim:
    return await store.claim(PARTITION, "a")


async def query(bench: RealBench, statement: str, *arguments: Any) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(bench.owner_dsn, server_settings={"search_path": bench.schema})
    try:
        return list(await connection.fetch(statement, *arguments))
    finally:
        await connection.close()


@asynccontextmanager
async def locked(bench: RealBench, statement: str) -> AsyncIterator[None]:
    """Somebody else holds a lock."""
    connection = await asyncpg.connect(bench.owner_dsn, server_settings={"search_path": bench.schema})
    try:
        async with connection.transaction():
            await connection.execute(statement)
            yield
    finally:
        await connection.close()


async def sessions(bench: RealBench, condition: str) -> int:
    here = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND "
    (row,) = await query(bench, here + condition)
    return int(row["count"])


async def until_sessions(bench: RealBench, condition: str) -> None:
    async with asyncio.timeout(20):
        while await sessions(bench, condition) == 0:
            await asyncio.sleep(0.01)


async def stored_seq(bench: RealBench) -> int:
    (row,) = await query(bench, "SELECT ckpt_seq FROM partition WHERE partition = $1", PARTITION)
    return int(row["ckpt_seq"])


# ---------------------------------------------------------------------------------------------------------- one snapshot


async def test_a_checkpoint_that_commits_during_a_load_is_wholly_in_it_or_not_at_all(
    bench: RealBench, claim: Claim, store: PostgresStore
) -> None:
    patient = await bench.started(PostgresStore(bench.dsn, bench.schema, lease_s=30.0))
    async with locked(bench, "LOCK TABLE command IN ACCESS EXCLUSIVE MODE"):
        loading = asyncio.create_task(patient.load(PARTITION, 0))
        await until_sessions(bench, "application_name = 'tallygate read' AND wait_event_type = 'Lock'")
        await store.commit(cut(claim, accounts=[account()], alerts=[alert("alert_a")]))
    image = await loading
    assert (image.ckpt_seq, image.accounts, image.alerts) == (0, [], [])
    image = await patient.load(PARTITION, 0)
    assert (image.ckpt_seq, len(image.accounts), len(image.alerts)) == (1, 1, 1)


# ------------------------------------------------------------------------------------------------------ broken commits


async def test_cut_before_commit_nothing_took_effect(
    bench: RealBench, store: PostgresStore, proxy: PostgresProxy, claim: Claim
) -> None:
    async with locked(bench, "LOCK TABLE account IN EXCLUSIVE MODE"):
        commit = asyncio.create_task(store.commit(cut(claim, accounts=[account()])))
        await until_sessions(bench, "wait_event_type = 'Lock'")
        proxy.reset()
        with pytest.raises(StoreUnavailable):
            await commit
    assert await stored_seq(bench) == 0
    await store.commit(cut(claim, accounts=[account()]))
    assert await stored_seq(bench) == 1


@pytest.mark.parametrize("answered", [True, False])
async def test_cut_at_commit_nobody_knows_until_it_is_settled(
    bench: RealBench, store: PostgresStore, proxy: PostgresProxy, claim: Claim, answered: bool
) -> None:
    proxy.strike(CommitFault.AFTER if answered else CommitFault.BEFORE)
    with pytest.raises(CommitUnknown):
        await store.commit(cut(claim, accounts=[account()]))
    epoch, made = await store.settle_commit(PARTITION, claim.epoch, 1)
    assert made is answered
    assert await stored_seq(bench) == int(answered)
    assert len((await store.load(PARTITION, 0)).accounts) == int(answered)
    await store.commit(cut(claim, 2 if made else 1, epoch=epoch))


async def test_a_lost_settlement_leaves_the_new_session_on_record(
    bench: RealBench, store: PostgresStore, proxy: PostgresProxy, claim: Claim
) -> None:
    """Else a successor would end a session long gone, and wait for the one that is silent."""
    proxy.strike(CommitFault.BEFORE)
    with pytest.raises(CommitUnknown):
        await store.commit(cut(claim))
    proxy.strike(CommitFault.AFTER)
    with pytest.raises(StoreUnavailable):
        await store.settle_commit(PARTITION, claim.epoch, 1)
    assert await store.settle_commit(PARTITION, claim.epoch, 1) == (claim.epoch + 2, False)
    (row,) = await query(bench, "SELECT backend_pid FROM partition WHERE partition = $1", PARTITION)
    living = await query(
        bench,
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'tallygate commit' AND datname = current_database()",
    )
    assert [each["pid"] for each in living] == [row["backend_pid"]]


async def test_silence_at_commit_is_unknown_until_the_server_gives_up(
    bench: RealBench, store: PostgresStore, proxy: PostgresProxy, claim: Claim
) -> None:
    proxy.strike(CommitFault.HELD)
    with pytest.raises(CommitUnknown):
        await store.commit(cut(claim, accounts=[account()]))
    _, made = await store.settle_commit(PARTITION, claim.epoch, 1)
    assert not made
    assert await stored_seq(bench) == 0


async def test_settling_ends_our_own_stuck_session_first(bench: RealBench, proxy: PostgresProxy) -> None:
    patient = PostgresStore(proxy.dsn, bench.schema, lease_s=30.0, statement_timeout_s=0.3)
    store = await bench.started(patient)
    claim = await store.claim(PARTITION, "a")
    proxy.strike(CommitFault.HELD)
    with pytest.raises(CommitUnknown, match="Timeout"):
        await store.commit(cut(claim, accounts=[account()]))
    assert await sessions(bench, "state = 'idle in transaction'") == 1
    assert await store.settle_commit(PARTITION, claim.epoch, 1) == (claim.epoch + 1, False)


async def test_a_session_ended_by_the_server_before_commit_is_no_unknown(
    bench: RealBench, store: PostgresStore, claim: Claim
) -> None:
    async with locked(bench, "LOCK TABLE account IN EXCLUSIVE MODE"):
        commit = asyncio.create_task(store.commit(cut(claim, accounts=[account()])))
        await until_sessions(bench, "wait_event_type = 'Lock'")
        (row,) = await query(bench, "SELECT backend_pid FROM partition WHERE partition = $1", PARTITION)
        await query(bench, "SELECT pg_terminate_backend($1, 1000)", row["backend_pid"])
        with pytest.raises(StoreUnavailable, match="terminating connection"):
            await commit
    await store.commit(cut(claim))


async def test_a_session_ended_while_idle_is_opened_anew(bench: RealBench, store: PostgresStore, claim: Claim) -> None:
    (row,) = await query(bench, "SELECT backend_pid FROM partition WHERE partition = $1", PARTITION)
    await query(bench, "SELECT pg_terminate_backend($1, 1000)", row["backend_pid"])
    await asyncio.sleep(0.05)
    await store.commit(cut(claim))


async def test_a_cancelled_commit_leaves_nothing_behind(bench: RealBench, store: PostgresStore, claim: Claim) -> None:
    async with locked(bench, "LOCK TABLE account IN EXCLUSIVE MODE"):
        commit = asyncio.create_task(store.commit(cut(claim, accounts=[account()])))
        await until_sessions(bench, "wait_event_type = 'Lock'")
        commit.cancel()
        with pytest.raises(asyncio.CancelledError):
            await commit
    await store.commit(cut(claim, accounts=[account()]))
    assert await stored_seq(bench) == 1


async def test_a_lock_held_too_long_is_passing(bench: RealBench, store: PostgresStore, claim: Claim) -> None:
    async with locked(bench, "SELECT 1 FROM partition FOR UPDATE"):
        with pytest.raises(StoreUnavailable, match="LockNotAvailable"):
            await store.commit(cut(claim))
        with pytest.raises(StoreUnavailable, match="LockNotAvailable"):
            await store.settle_commit(PARTITION, claim.epoch, 1)
    await store.commit(cut(claim))


async def test_a_server_that_is_away_is_passing(store: PostgresStore, proxy: PostgresProxy, claim: Claim) -> None:
    proxy.set(Weather(refused_share=1.0))
    proxy.reset()
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.commit(cut(claim))
    with pytest.raises(StoreUnavailable):
        await store.catalogue(1)
    proxy.set(Weather())
    await store.commit(cut(claim))
    assert await store.catalogue(1) is None


# --------------------------------------------------------------------------------------------- reads in a hurry


async def test_the_rating_loop_reads_beside_takeovers_that_load(
    bench: RealBench, store: PostgresStore, claim: Claim
) -> None:
    """They fill the pool for as long as they take, and the lease of all partitions depends on the loop."""
    head, rows = run(2, 0, 1, 2, 3)
    await store.seal(PARTITION, claim.epoch, head, rows)
    async with AsyncExitStack() as loads:
        for _ in range(3):
            await loads.enter_async_context(store._reader())
        with pytest.raises(StoreUnavailable):
            await store.catalogue(1)
        assert await store.run_rows(PARTITION, [Place(2, 0, 1)]) == [rows[16:32]]
        assert await store.catalogue(1, hurried=True) is None


async def test_the_rating_loop_waits_for_no_slow_read_and_has_its_answer_later(bench: RealBench) -> None:
    hasty = await bench.started(PostgresStore(bench.dsn, bench.schema, lease_s=30.0, hurry_s=0.05))
    places = [Place(2, 0, 1)]
    async with locked(bench, "LOCK TABLE dedup_rows, catalogue IN ACCESS EXCLUSIVE MODE"):
        for _ in range(3):
            with pytest.raises(StoreUnavailable, match="it goes on meanwhile"):
                await hasty.run_rows(PARTITION, places)
            with pytest.raises(StoreUnavailable, match="it goes on meanwhile"):
                await hasty.catalogue(1, hurried=True)
    found: list[object] = []
    async with asyncio.timeout(60):
        while len(found) < 2:
            with suppress(StoreUnavailable):
                found.append(await (hasty.catalogue(1, hurried=True) if found else hasty.run_rows(PARTITION, places)))
    assert found == [[None], None]


async def test_a_read_that_the_network_swallows_is_given_up_and_made_on_another_connection(
    bench: RealBench, proxy: PostgresProxy
) -> None:
    """As when the server has ended the session in a short cut, and the client has heard nothing of it."""
    store = await bench.started(PostgresStore(proxy.dsn, bench.schema, lease_s=30.0, hurry_s=30.0))
    store._rating._command_timeout_s = 0.2
    await answered(store)
    proxy.set(Weather(cut=frozenset({Direction.DOWN})))
    with pytest.raises(StoreUnavailable, match="TimeoutError"):
        await store.catalogue(1, hurried=True)
    proxy.set(Weather())
    await answered(store)


async def answered(store: PostgresStore) -> None:
    """However slow the machine is."""
    async with asyncio.timeout(60):
        while True:
            with suppress(StoreUnavailable):
                assert await store.catalogue(1, hurried=True) is None
                return


class Read:
    """A read that goes on until it is told to end."""

    def __init__(self, error: Exception | None = None) -> None:
        self.begun = 0
        self.ended = asyncio.Event()
        self.error = error

    async def __call__(self) -> int:
        self.begun += 1
        await self.ended.wait()
        if self.error is not None:
            raise self.error
        return self.begun


async def test_a_read_that_is_late_is_not_begun_anew_and_its_result_kept() -> None:
    hurried, slow = Hurried(0.01), Read()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="it goes on meanwhile"):
            await hurried.read("slow", slow)
    slow.ended.set()
    await settle()
    assert await hurried.read("slow", slow) == 1
    assert await hurried.read("slow", slow) == 2, "and what is asked for then is as new as ever"


async def test_the_error_of_a_late_read_is_told_to_whoever_asks_again() -> None:
    hurried, slow = Hurried(0.01), Read(StoreRefused("no right"))
    with pytest.raises(StoreUnavailable):
        await hurried.read("slow", slow)
    slow.ended.set()
    await settle()
    with pytest.raises(StoreRefused):
        await hurried.read("slow", slow)


async def test_while_a_read_is_late_no_other_is_waited_for() -> None:
    """Or each partition that asks would hold up the loop anew, and the lease would lapse by their sum."""
    hurried, slow, other = Hurried(0.01), Read(), Read()
    with pytest.raises(StoreUnavailable):
        await hurried.read("slow", slow)
    hurried._within_s = 3_600.0
    async with asyncio.timeout(60):
        with pytest.raises(StoreUnavailable):
            await hurried.read("other", other)
    for read in (slow, other):
        read.ended.set()
    await settle()
    assert (await hurried.read("slow", slow), await hurried.read("other", other)) == (1, 1)


async def test_reads_that_are_late_are_broken_off_at_the_end_and_few_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "LATE_MAX", 2)
    hurried, reads = Hurried(0.01), [Read() for _ in range(4)]
    for number, read in enumerate(reads):
        with pytest.raises(StoreUnavailable):
            await hurried.read(number, read)
    late = list(hurried._late.values())
    assert len(late) == 2
    await hurried.stop()
    assert all(task.cancelled() for task in late)


async def test_what_postgres_cannot_hold_is_refused_for_good(store: PostgresStore, claim: Claim) -> None:
    for row in (account("nul\x00"), account(balance=10**40)):
        with pytest.raises(StoreRefused):
            await store.commit(cut(claim, accounts=[row]))
    await store.commit(cut(claim))


async def test_a_missing_schema_is_refused_for_good(bench: RealBench) -> None:
    elsewhere = await bench.started(PostgresStore(bench.dsn, "nowhere", LEASE_S))
    with pytest.raises(StoreRefused):
        await elsewhere.claim(PARTITION, "a")


async def test_before_start_and_after_stop_it_is_unavailable(bench: RealBench) -> None:
    store = PostgresStore(bench.dsn, bench.schema, LEASE_S)
    for _ in range(2):
        with pytest.raises(StoreUnavailable):
            await store.claim(PARTITION, "a")
        with pytest.raises(StoreUnavailable):
            await store.catalogue(1)
        await store.start()
        await store.stop()


# ---------------------------------------------------------------------------------------------------------- successors


async def test_a_successor_is_not_blocked_by_a_silent_owner(bench: RealBench, proxy: PostgresProxy) -> None:
    # With such a lease nothing but the successor ends the silent session.
    store = await bench.started(PostgresStore(proxy.dsn, bench.schema, lease_s=60.0))
    claim = await store.claim(PARTITION, "a")
    proxy.strike(CommitFault.HELD)
    stuck = asyncio.create_task(store.commit(cut(claim, accounts=[account()])))
    await until_sessions(bench, "state = 'idle in transaction'")
    successor = await bench.started(PostgresStore(bench.dsn, bench.schema, lease_s=60.0))
    taken = await successor.claim(PARTITION, "a")
    assert (taken.epoch, taken.ckpt_seq) == (claim.epoch + 1, 0)
    with pytest.raises(CommitUnknown):
        await stuck
    await successor.commit(cut(taken))
    with pytest.raises(Fenced):
        await store.commit(cut(claim))


async def test_only_the_very_session_of_the_old_owner_is_ended(bench: RealBench, claim: Claim) -> None:
    bystander = await asyncpg.connect(bench.dsn)
    try:
        pid = bystander.get_server_pid()
        await query(bench, "UPDATE partition SET backend_pid = $1 WHERE partition = $2", pid, PARTITION)
        await (await bench.store()).claim(PARTITION, "a")
        assert await bystander.fetchval("SELECT 1") == 1
    finally:
        await bystander.close()


async def test_after_a_reconnect_the_new_session_is_on_record(
    bench: RealBench, store: PostgresStore, proxy: PostgresProxy, claim: Claim
) -> None:
    await store.claim(PARTITION + 1, "a")
    before = await query(bench, "SELECT DISTINCT backend_pid, backend_start FROM partition")
    proxy.reset()
    with pytest.raises(StoreUnavailable):
        await store.commit(cut(claim))
    await store.commit(cut(claim))
    after = await query(bench, "SELECT DISTINCT backend_pid, backend_start FROM partition")
    assert len(before) == len(after) == 1
    assert before != after
    living = await query(bench, "SELECT pid FROM pg_stat_activity WHERE pid = $1", after[0]["backend_pid"])
    assert len(living) == 1


# --------------------------------------------------------------------------------------------------- what is in the rows


async def test_runs_of_identities_are_joined_and_none_is_lost(bench: RealBench) -> None:
    store = await bench.started(PostgresStore(bench.dsn, bench.schema, LEASE_S, dedup_merge_at=3))
    claim = await store.claim(PARTITION, "a")
    for seq in range(1, 31):
        await store.commit(cut(claim, seq, dedup=[segment(seq // 20, seq)]))
    rows = await query(bench, "SELECT bucket, level, seq FROM dedup_segment ORDER BY bucket, seq")
    assert max(row["level"] for row in rows) == 2
    assert len(rows) < 10
    runs = (await store.load(PARTITION, 0)).dedup
    assert [run.bucket for run in runs] == sorted(run.bucket for run in runs)
    entries = b"".join(run.entries for run in runs)
    numbers = [int.from_bytes(entries[start : start + 20], "big") for start in range(0, len(entries), 20)]
    assert numbers == list(range(1, 31))


async def test_a_run_of_many_parts_is_read_part_by_part_and_row_by_row(
    store: PostgresStore, claim: Claim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres, "RUN_PART_ROWS", 2)
    head, rows = run(2, 0, 1, 2, 3, 4, 5)
    await store.commit(cut(claim, dedup=[segment(2, 1, 2, 3, 4, 5)]))
    await store.seal(PARTITION, claim.epoch, head, rows)
    parts = [await store.run_part(PARTITION, 2, 0, part) for part in range(4)]
    assert parts == [rows[:32], rows[32:64], rows[64:], None]
    places = [Place(2, 0, row) for row in (4, 0, 3, 1, 2, 6)]
    wanted = [rows[place.row * 16 : place.row * 16 + 16] or None for place in places]
    assert await store.run_rows(PARTITION, places) == wanted


async def test_dead_letters_are_written_some_at_a_time() -> None:
    """A statement takes a gigabyte at most; a flood of long ones has more."""
    written: list[list[int]] = []

    class Connection:
        async def execute(self, statement: str, partition: int, offsets: list[int], *columns: list[Any]) -> None:
            assert statement == QUERIES["commit_dead_letters"] and {len(each) for each in columns} == {len(offsets)}
            written.append(offsets)

    letters = [dead_letter(number) for number in range(450)]
    store: Any = PostgresStore("postgresql://nowhere")
    await store._write_history(Connection(), cut(Claim(PARTITION, 1, 0, 0, None, None, []), dead_letters=letters))
    assert [len(offsets) for offsets in written] == [200, 200, 50]
    assert [offset for offsets in written for offset in offsets] == list(range(450))


async def test_postings_are_numbered_and_exact(bench: RealBench, store: PostgresStore, claim: Claim) -> None:
    pico = -123_456_789_012_345_678_901_234_567
    await store.commit(cut(claim, postings=[posting(pico), posting(1)]))
    await store.commit(cut(claim, 2, postings=[posting(2)]))
    rows = await query(bench, "SELECT ckpt_seq, line, amount FROM posting ORDER BY ckpt_seq, line")
    assert [tuple(row) for row in rows] == [
        (1, 0, Decimal("-123456789012345.678901234567")),
        (1, 1, Decimal("0.000000000001")),
        (2, 0, Decimal("0.000000000002")),
    ]


async def test_sessions_let_go_within_a_lease(bench: RealBench, store: PostgresStore) -> None:
    assert await sessions(bench, "application_name = 'tallygate commit'") == 1
    connection = store._commits._connection
    assert connection is not None
    for setting in ("idle_in_transaction_session_timeout", "lock_timeout"):
        assert await connection.fetchval(f"SHOW {setting}") == "500ms"
    assert await connection.fetchval("SHOW statement_timeout") == "1s"
    assert await connection.fetchval("SHOW tcp_user_timeout") == "500"
    assert await connection.fetchval("SHOW search_path") == bench.schema


async def test_people_see_what_is_there(store: PostgresStore, claim: Claim) -> None:
    await store.commit(
        cut(
            claim,
            accounts=[account("rich", balance=7), account("poor", balance=5), account("in debt", balance=-7)],
            commands=[command(1)],
            alerts=[alert(f"alert_{name}") for name in "abc"],
            dead_letters=[dead_letter(1), dead_letter(2, "no_price"), dead_letter(3)],
        )
    )
    told = [Delivery("alert_a", 1, True, False, ""), Delivery("alert_b", 1, False, True, "gone")]
    await store.record_deliveries(told)
    await store.publish_catalogue(1, b"{}")
    await store.publish_catalogue(2, b"{}")
    (status,) = await store.partitions()
    assert (status.partition, status.epoch, status.ckpt_seq, status.owner) == (PARTITION, claim.epoch, 1, "a")
    balances = [(row.account, row.balance, row.spend) for row in await store.nearest_depletion(10)]
    assert balances == [("poor", 5, -5), ("rich", 7, -7)]
    assert await store.depleted() == 1
    assert len(await store.nearest_depletion(1)) == 1
    assert await store.dead_letter_counts() == {"malformed": 2, "no_price": 1}
    assert [stored.letter for stored in await store.dead_letters(2)] == [dead_letter(3), dead_letter(2, "no_price")]
    assert await store.outbox_counts() == OutboxCounts(waiting=1, delivered=1, given_up=1)
    assert await store.latest_catalogue_version() == 2


def test_money_crosses_exactly_or_not_at_all() -> None:
    for pico in (0, 1, -1, 10**12, 10**38 - 1, -(10**38) + 1):
        assert pico_of(units_of(pico)) == pico
    assert units_of(150_000) == Decimal("0.00000015")
    with pytest.raises(Inexact):
        units_of(10**70 + 1)
