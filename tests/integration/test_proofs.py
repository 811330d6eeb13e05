"""Seal, rebuild and reconcile on a real broker and database, after a run in which a shard was killed.

The deployment goes on running while it is looked at."""

import asyncio
import csv
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import orjson
import pytest
from typer.testing import CliRunner, Result

import tallygate
from actors.assembly import brokers
from actors.cli import proving
from actors.cli.terminal import FAILED, WRONG_INPUT
from actors.cli.whatif import charged_under
from actors.kafka import Brokers, TopicReader
from actors.ports import Outgoing
from loadtest.deployment import Deployment
from tests.integration.test_shard_process import Run, running


@asynccontextmanager
async def driven(database: str, kafka: str, folder: Path) -> AsyncIterator[Run]:
    """Two shards and a controller; one shard was killed in mid-run, the other goes on."""
    async with running(database, kafka, folder) as run:
        killed, living = run.shards

        async def kill() -> None:
            killed.signal(signal.SIGKILL)
            await killed.ended()

        await run.drive(kill)
        assert await run.owned_by(living.incarnation)
        yield run


class Cli:
    """The command line on a deployment's settings; in a thread, since a command runs an event loop of its own."""

    def __init__(self, at: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(proving, "load_settings", lambda: at.settings)
        monkeypatch.setenv("COLUMNS", "200")

    async def call(self, *arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, tallygate.app, arguments)

    async def fine(self, *arguments: str) -> str:
        result = await self.call(*arguments)
        assert result.exit_code == 0, result.output
        return result.stdout

    async def drift(self, *arguments: str) -> str:
        result = await self.call(*arguments)
        assert result.exit_code == FAILED, result.output
        return result.stdout + result.stderr


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "bases"


@pytest.mark.timeout(900)  # on a busy machine
async def test_a_running_deployment_is_sealed_and_rebuilt(
    database: str, kafka: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with driven(database, kafka, tmp_path) as run:
        cli = Cli(run.at, monkeypatch)
        told = await cli.fine("base", "seal", "--to", str(folder))
        files = [line.split(":")[0] for line in told.splitlines()]
        assert len(files) == run.at.settings.kafka.partitions
        assert (await cli.fine("base", "check", *files)).count("the seal holds") == len(files)

        await run.drive(nothing)  # the same accounts and more usage: the log goes on behind the bases
        for start in ([], ["--base", str(folder)]):
            told = await cli.fine("rebuild", "--verify", *start)
            assert told.count("equal to the last byte") == len(files)
            assert ("offsets 0 to" in told) is not bool(start)
        account = (await run.at.store.nearest_depletion(1))[0]
        told = await cli.fine("rebuild", "--account", account.account, "--verify", "--base", str(folder))
        assert f"account {account.account} equal to the last byte" in told
        assert account.account in await cli.fine("rebuild", "--account", account.account)
        assert '"account":"' + account.account in await cli.fine("rebuild", "--account", account.account, "--json")

        await dry_runs(cli, database, run.at, tmp_path, folder)
        await exports(cli, kafka, run.at, tmp_path)

        cut_short = "UPDATE account SET blob = substr(blob, 1, length(blob) - 1) WHERE account = '{}' RETURNING account"
        await Spoiled(database, run.at).change(cut_short.format(account.account))
        told = await cli.drift("rebuild", "--verify", "--account", account.account)
        assert f"account {account.account}: snapshot: expected one that can be read" in told
        cut_off(files[0])
        assert "damaged or cut off" in await cli.drift("base", "check", *files)
        assert "damaged or cut off" in await cli.drift("rebuild", "--base", str(folder))


async def exports(cli: Cli, kafka: str, at: Deployment, tmp_path: Path) -> None:
    """The rows of each partition's committed lines add up to these lines, and are billed in the accounts' own periods."""
    out = tmp_path / "focus.csv"
    told = await cli.fine("export", "focus", "--out", str(out), "--provider", "Example AI")
    newest: dict[tuple[int, int], tuple[int, dict[int, Decimal]]] = {}
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    try:
        for number in range(at.settings.kafka.partitions):
            for block in await reader.read_all(at.settings.kafka.topic_rated, number):
                for line in map(orjson.loads, (block.value or b"").splitlines()):
                    place = line["partition"], line["offset"]
                    epoch, amounts = newest.get(place, (line["epoch"], {}))
                    if line["epoch"] >= epoch:
                        amounts = amounts if line["epoch"] == epoch else {}
                        newest[place] = line["epoch"], {**amounts, line["line"]: Decimal(line["amount"])}
    finally:
        await reader.stop()
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(Decimal(row["BilledCost"]) for row in rows) == sum(
        amount for _, amounts in newest.values() for amount in amounts.values()
    )
    assert f"{sum(len(amounts) for _, amounts in newest.values())} rated lines" in told
    assert all(row["BillingPeriodStart"] <= row["ChargePeriodStart"] < row["BillingPeriodEnd"] for row in rows)


async def dry_runs(cli: Cli, database: str, at: Deployment, tmp_path: Path, bases: Path) -> None:
    """Every price doubled earns twice as much, but for what parts of fees were rounded by; a plan that is gone cannot even
    be tried."""
    (row,) = await Spoiled(database, at)._run("SELECT body FROM catalogue")
    draft = tmp_path / "draft.yaml"
    document = doubled(orjson.loads(row["body"]))
    draft.write_bytes(orjson.dumps(document))
    told = await cli.fine("catalogue", "dryrun", str(draft), "--json")
    *lines, total = [orjson.loads(line) for line in told.splitlines()]
    assert not [line for line in lines if "outcome" in line]
    assert sum("customer" in line for line in lines) > 100
    before, after = Fraction(total["before"]), Fraction(total["after"])
    assert Fraction(total["difference"]) == after - before
    assert abs(after - 2 * before) <= Fraction(len(lines), 10**12)
    assert before > 0
    charged = await asyncio.to_thread(charged_under, draft, None, 0, 1 << 62)
    ((_, revenue),) = charged.sums([])
    assert len(charged) > 100
    assert 0 < Fraction(revenue.revenue, 10**12) <= after, "what `whatif --catalogue` sets beside costs: without fees"
    behind = await cli.fine("catalogue", "dryrun", str(draft), "--base", str(bases))
    assert behind == "Plans: none\n", "from a base on, what counts begins five minutes behind it"
    document["plans"] = {f"{name}-2": plan for name, plan in document["plans"].items()}
    draft.write_bytes(orjson.dumps(document))
    refused = await cli.call("catalogue", "dryrun", str(draft))
    assert (refused.exit_code, "is gone" in refused.stderr) == (WRONG_INPUT, True)


def doubled(value: Any, key: str = "") -> Any:
    """A stored catalogue as a file would have it, every amount twice what it was, but for what credits are worth."""
    if key == "units":
        return value
    if isinstance(value, dict):
        return {name: doubled(each, name) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [doubled(each) for each in value]
    return str(2 * Decimal(value)) if key == "amount" else value


def cut_off(file: str) -> None:
    Path(file).write_bytes(Path(file).read_bytes()[:-1])


@pytest.mark.timeout(900)
async def test_a_run_with_a_killed_shard_reconciles_and_one_wrong_unit_is_named(
    database: str, kafka: str, tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with driven(database, kafka, tmp_path) as run:
        cli = Cli(run.at, monkeypatch)
        await cli.fine("base", "seal", "--to", str(folder))
        await run.drive(nothing)
        for start in ([], ["--base", str(folder)]):
            told = await cli.fine("reconcile", "--all", *start)
            assert "\ndrift 0 (sample 1, seed " in told
        report = orjson.loads(await cli.fine("reconcile", "--sample", "0.1", "--seed", "7", "--json"))
        assert (report["drift"], report["seed"]) == (0, 7)
        assert sum(each["accounts"] for each in report["partitions"]) > 100
        assert sum(each["forwarded"] for each in report["partitions"]) > 0, "and each is in the log where it belongs"
        assert 10 <= sum(len(each["sampled"]) for each in report["partitions"]) <= 20
        await run.end(run.shards[1])

        spoiled = Spoiled(database, run.at)
        async with spoiled.tables("posting", "alert", "dead_letter", "command", "account"):
            named = [text.format(**await spoiled.change(statement)) for statement, text in WRONG]
            named += [await spoiled.one_unit_in_a_snapshot(field) for field in ("lots", "table")]
            told = await cli.drift("reconcile", "--all")
            assert not [text for text in named if text not in told], told
        for change, text in WRONG_OFFSETS:
            async with spoiled.tables("partition"):
                await spoiled.change(f"UPDATE partition SET next_offset = next_offset {change} RETURNING partition")
                told = await cli.drift("reconcile", "--partition", "1")
                assert text in told, told
        async with spoiled.tables("partition"):
            await spoiled.change("DELETE FROM partition WHERE partition = 1 RETURNING partition")
            for command in (("reconcile",), ("rebuild", "--verify"), ("base", "seal", "--to", str(folder))):
                assert "nothing is stored of partition 1 of topic " in await cli.drift(*command)
        assert "drift 0" in await cli.fine("reconcile", "--all"), "all is mended"
        named = await spoiled.rated_lines(run.at)
        told = await cli.drift("reconcile", "--all", "--partition", "0")
        assert not [text for text in named if text not in told], told


WRONG = [
    (
        "UPDATE posting SET amount = amount + 0.000000000001 WHERE (partition, ckpt_seq, line) = "
        "(SELECT partition, ckpt_seq, line FROM posting WHERE kind = 'burn' ORDER BY ckpt_seq, line LIMIT 1) "
        "RETURNING partition, account, lot, usage_period_us",
        "ledger: partition {partition}, account {account}: burn of lot {lot} in the period from {usage_period_us}: expected",
    ),
    (
        "DELETE FROM alert WHERE alert_id = (SELECT min(alert_id) FROM alert) RETURNING partition, account, alert_id",
        "expected {alert_id}, found nothing",
    ),
    (
        "INSERT INTO alert (partition, alert_id, account, log_offset, body) SELECT partition, 'alert_invented', account, "
        "log_offset, body FROM alert LIMIT 1 RETURNING partition, account, log_offset",
        "outbox: partition {partition}, account {account}: alert of offset {log_offset}: expected nothing, "
        "found alert_invented",
    ),
    (
        "DELETE FROM dead_letter WHERE (partition, log_offset) = (SELECT partition, log_offset FROM dead_letter LIMIT 1) "
        "RETURNING partition, log_offset, reason",
        "dead letter of offset {log_offset}: expected {reason}, found nothing",
    ),
    (
        "DELETE FROM command WHERE (partition, log_offset) = (SELECT partition, log_offset FROM command LIMIT 1) "
        "RETURNING partition, log_offset, account, answer",
        "offsets: partition {partition}, account {account}: command of offset {log_offset}: expected {answer}, found nothing",
    ),
    (
        "UPDATE account SET balance = balance - 0.000000000001 WHERE account = (SELECT min(account) FROM account) "
        "RETURNING partition, account",
        "ledger: partition {partition}, account {account}: balance shown: expected",
    ),
]

WRONG_OFFSETS = [
    ("- 1", "offsets: partition 1: next offset, not behind the last record: expected"),
    ("+ 1", "offsets: partition 1: next offset, beyond the end of the log: expected"),
]


class Spoiled:
    """Changes what is stored, as the owner of the tables, and mends it."""

    def __init__(self, database: str, at: Deployment) -> None:
        self._database = database
        self._schema = at.settings.postgres.schema_name

    @asynccontextmanager
    async def tables(self, *names: str) -> AsyncIterator[None]:
        """Whatever is done to these tables meanwhile is undone."""
        for name in names:
            await self._run(f"CREATE TABLE kept_{name} AS TABLE {name}")
        yield
        for name in names:
            await self._run(f"TRUNCATE {name}")
            await self._run(f"INSERT INTO {name} SELECT * FROM kept_{name}")
            await self._run(f"DROP TABLE kept_{name}")

    async def change(self, statement: str) -> dict[str, Any]:
        """The first row that the statement returns."""
        return dict((await self._run(statement))[0])

    async def one_unit_in_a_snapshot(self, field: str) -> str:
        """One pico in the amount of a lot, or one nano-unit in a quantity; what must be named."""
        index = ACCOUNT_FIELDS.index(field)
        for row in await self._run("SELECT partition, account, blob FROM account ORDER BY account"):
            stored = msgspec.msgpack.decode(row["blob"])
            if not stored[index]:
                continue
            rows = stored[index][0][1] if field == "table" else stored[index]
            before = rows[0][2]
            rows[0][2] = str(int(before) + 1)
            blob = msgspec.msgpack.encode(stored)
            await self._run("UPDATE account SET blob = $1 WHERE account = $2", blob, row["account"])
            where = f"partition {row['partition']}, account {row['account']}: "
            if field == "lots":
                return f"state: {where}lots {rows[0][0]}: granted: expected {before}, found"
            return f"rerate: {where}quantity of {rows[0][0]} {'/'.join(rows[0][1])} in the segment"
        raise AssertionError(f"no account has {field}")

    async def rated_lines(self, at: Deployment) -> list[str]:
        """A changed, a missing and an invented line in partition 0, under an epoch above all; what must be named."""
        reader = TopicReader(brokers(at.settings))
        await reader.start()
        blocks = await reader.read_all(at.settings.kafka.topic_rated, 0)
        await reader.stop()
        lines = [orjson.loads(line) for block in blocks for line in (block.value or b"").splitlines()]
        pairs = [line["offset"] for line in lines if line["line"] == 1]
        changed, missing, invented = (
            [line for line in lines if line["offset"] == pairs[place]][:2] for place in (0, 9, 18)
        )
        where = "partition 0, account {account}: rated line {line} of offset {offset}"

        whole, _, fraction = changed[0]["amount"].partition(".")
        spoilt = changed[0] | {"amount": f"{whole}.{int(fraction or 0) + 1:012d}"}
        twice = invented[1] | {"line": 2}
        told = [spoilt, changed[1], missing[0], *invented, twice]
        block = b"\n".join(orjson.dumps(line | {"epoch": 1_000}) for line in told)
        await at.log.append([Outgoing("rated", block, b"spoilt", 0)])
        return [
            f"rerate: {where.format(**spoilt)}: amount: expected {changed[0]['amount'][:1]}",
            f"offsets: {where.format(**missing[1])}: expected {missing[1]['price']} ",
            f"offsets: {where.format(**twice)} (the record was rated): expected nothing",
        ]

    async def _run(self, statement: str, *arguments: Any) -> list[Any]:
        connection = await asyncpg.connect(self._database, server_settings={"search_path": self._schema})
        try:
            return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()


ACCOUNT_FIELDS = (
    *("version", "account", "plan", "currency", "zone", "anchor_day", "woken_us", "newest_event_us", "rated"),
    *("sequence", "table", "lots"),
)


async def nothing() -> None:
    """No disturbance."""
