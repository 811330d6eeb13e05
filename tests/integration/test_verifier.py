"""The verifier on what real shards left behind, one of them killed: all is well, and each tampering is found and named."""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path

import asyncpg
import msgspec

from actors.clock import SystemClock
from actors.deployment import until
from loadtest.chaos.acknowledged import ENTRY, Acknowledged, path_of, read_acknowledged
from loadtest.chaos.verifier import Case, Finding, conclude, judge_partition
from loadtest.deployment import PARTITIONS, Deployment, deployment
from loadtest.drive import Driver
from loadtest.journal import Journal
from loadtest.processes import Process

EVENTS = 2_000
DURATION_S = 3.0


async def run_with_a_kill(at: Deployment, folder: Path, acknowledged: Acknowledged) -> None:
    workload = at.workload(EVENTS, DURATION_S)
    with ExitStack() as stack:
        shards = [Process("shard", f"shard-{number}", at.settings, folder) for number in range(2)]
        controller = Process("controller", "controller", at.settings, folder)
        for process in (*shards, controller):
            stack.callback(process.close)
        for shard in shards:
            await shard.joined()
        await at.open_accounts(workload)
        await until(at.rated_to_the_end, "the accounts to be opened")
        control_key, topic = at.settings.control_key_bytes(), at.settings.kafka.topic_usage
        driver = Driver(at.log, SystemClock(), topic, control_key, acknowledged.write)
        driving = asyncio.create_task(driver.run(workload))
        await asyncio.sleep(DURATION_S / 2)
        shards[0].signal(signal.SIGKILL)
        await driving
        await until(at.rated_to_the_end, "everything to be rated and told")
        await shards[1].end()
        await controller.end()


def case_of(at: Deployment, journal: Path) -> Case:
    kafka, postgres = at.settings.kafka, at.settings.postgres
    assert kafka.bootstrap_servers is not None
    assert postgres.dsn is not None
    return Case(
        kafka.bootstrap_servers,
        kafka.topic_usage,
        kafka.topic_rated,
        kafka.partitions,
        postgres.dsn.get_secret_value(),
        postgres.schema_name,
        at.settings.control_key_bytes(),
        {1: at.catalogue},
        str(journal),
        [],
        [],
    )


async def judged(case: Case) -> list[Finding]:
    return [await asyncio.to_thread(judge_partition, case, number, Journal()) for number in range(PARTITIONS)]


def busiest(findings: list[Finding]) -> int:
    return max(findings, key=lambda finding: len(finding.rated)).partition


async def test_what_a_run_left_is_right_and_what_was_changed_is_found(
    database: str, kafka: str, tmp_path: Path
) -> None:
    async with deployment(database, kafka) as at:
        acknowledged = Acknowledged(tmp_path / "journal", PARTITIONS)
        await run_with_a_kill(at, tmp_path, acknowledged)
        acknowledged.close()
        case = case_of(at, tmp_path / "journal")
        findings = await judged(case)
        verdict = conclude(findings, Journal(), at.receiver.alerts)
        assert verdict.wrong == []
        assert (verdict.lost, verdict.double, verdict.alerts_missing, verdict.alerts_extra) == (0, 0, 0, 0)
        assert verdict.accounts == verdict.accounts_identical > 100
        assert verdict.rated == EVENTS
        assert verdict.acknowledged >= EVENTS

        number = busiest(findings)
        connection = await asyncpg.connect(database, server_settings={"search_path": at.settings.postgres.schema_name})
        try:
            await _change_an_account(connection, number)
            await connection.execute(
                "UPDATE posting SET amount = amount + 0.000000000001 WHERE (partition, ckpt_seq, line) = "
                "(SELECT partition, ckpt_seq, line FROM posting WHERE partition = $1 AND kind = 'burn' LIMIT 1)",
                number,
            )
            gone = await connection.fetchval(
                "DELETE FROM alert WHERE alert_id = (SELECT min(alert_id) FROM alert WHERE partition = $1) "
                "RETURNING alert_id",
                number,
            )
        finally:
            await connection.close()
        entries = read_acknowledged(tmp_path / "journal", number)
        entries["digest"][0] = b"\0" * 16
        path_of(tmp_path / "journal", number).write_bytes(entries.astype(ENTRY).tobytes())
        found = await asyncio.to_thread(judge_partition, case, number, Journal())
        said = "\n".join(found.sentences)
        assert found.accounts_identical == found.accounts - 1
        assert "rated: expected " in said
        assert "postings of burn" in said
        assert f"alert {gone}: expected " in said
        assert f"offset {entries['offset'][0]}: acknowledged by Kafka, found another record there" in said
        assert found.lost == 1


async def _change_an_account(connection: asyncpg.Connection, partition: int) -> None:
    """One event more than there was."""
    row = await connection.fetchrow("SELECT account, blob FROM account WHERE partition = $1 LIMIT 1", partition)
    stored = msgspec.msgpack.decode(row["blob"])
    stored[8] += 1
    await connection.execute(
        "UPDATE account SET blob = $3 WHERE partition = $1 AND account = $2",
        partition,
        row["account"],
        msgspec.msgpack.encode(stored),
    )
