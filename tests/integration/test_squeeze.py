"""The proof on real shards, broker and database: nearly empty wallets, 64 callers, owners killed all the time.

Nobody overspends, no hold is left behind, every approval lies within a slice that the log had shown, and every denial
is explained by the oracle's balance at the offset that the denial names.
"""

import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import orjson
import pytest

from actors.clock import SystemClock
from actors.cluster import Cluster
from actors.deployment import until
from actors.door_client import Doors
from actors.door_wire import Answer, Question, Status, door_token
from actors.membership import PostgresDirectory
from config.settings import ShardSettings
from config.stack.ray_local import RayLocal, record_ray
from config.stack.supervisor import Supervisor
from loadtest.deployment import PARTITIONS, Deployment, deployment
from loadtest.fronts import DoorFront
from loadtest.gateways import wallets
from loadtest.squeeze import AT_ONCE_S, WALLET_PERCENTS, Squeeze
from loadtest.verify import verify
from loadtest.workload import Workload

TTL_S = 6.0
REPORT_DELAY_S = 2.0
ASK_WITHIN_S = 3.0
FIGURES = Path(__file__).parents[2] / "build" / "squeeze.json"  # of the last run, whether or not it proved anything


@asynccontextmanager
async def doors_of(at: Deployment) -> AsyncIterator[Doors]:
    postgres = at.settings.postgres
    assert postgres.dsn is not None
    directory = PostgresDirectory(postgres.dsn.get_secret_value(), postgres.schema_name)
    doors = Doors(directory, door_token(at.settings.control_key_bytes()), PARTITIONS)
    await doors.start()
    try:
        yield doors
    finally:
        await doors.stop()


async def open_holds(doors: Doors) -> int | None:
    """Of all partitions; None while somebody does not answer."""
    views = [view for status in await doors.ask_every_shard(Status(), 2.0) for view in status.partitions]
    ready = {view.partition for view in views if view.stage == "ready"}
    return sum(view.open_holds for view in views) if ready == set(range(PARTITIONS)) else None


async def whole(cluster: Cluster) -> bool:
    """Two shards live, and every partition is spoken for."""
    statuses = await cluster.statuses()
    ready = [view.partition for status in statuses for view in status.partitions if view.stage == "ready"]
    return len(statuses) == 2 and sorted(ready) == list(range(PARTITIONS))


async def kill_an_owner(cluster: Cluster) -> None:
    victim = max(await cluster.statuses(), key=lambda status: len(status.partitions))
    os.kill(victim.pid, signal.SIGKILL)

    async def replaced() -> bool:
        alive = {status.incarnation for status in await cluster.statuses()}
        return victim.incarnation not in alive and await whole(cluster)

    await until(replaced, f"{victim.shard} to be back, and its partitions to be spoken for")


async def squeeze(
    database: str,
    kafka: str,
    supervisor: Supervisor,
    lock_dir: Path,
    *,
    checks: int,
    accounts: int,
    slow_share: float,
    kill_every_s: float,
) -> None:
    async with deployment(database, kafka) as at:
        shard = ShardSettings(shards=2, hold_ttl_max_s=TTL_S, report_delay_s=REPORT_DELAY_S)
        at.settings = at.settings.model_copy(update={"shard": shard})
        workload = Workload(
            1,
            checks,
            accounts,
            None,
            AT_ONCE_S,
            catalogue=orjson.loads(at.catalogue),
            partitions=PARTITIONS,
            prefix="sqz",
        )
        cluster = Cluster(at.settings, lock_dir, f"test-{secrets.token_hex(3)}")
        try:
            await cluster.start()
            record_ray(supervisor)
            await until(partial(whole, cluster), "every partition to be ready")
            await at.set_up(wallets(workload, WALLET_PERCENTS))
            await until(at.rated_to_the_end, "the wallets to be filled")
            async with doors_of(at) as doors:

                async def ask(account: str, question: Question) -> Answer:
                    return await doors.ask(account, question, ASK_WITHIN_S)

                front = DoorFront(ask, at.log, at.settings.control_key_bytes())
                run = Squeeze(
                    front, SystemClock(), workload, ttl_s=TTL_S, slow_share=slow_share, kill_every_s=kill_every_s
                )
                await run.run(partial(kill_an_owner, cluster))
                record_ray(supervisor)

                async def none_open() -> bool:
                    return await open_holds(doors) == 0

                await until(none_open, "the holds of crashed callers to expire")
                await until(at.rated_to_the_end, "everything to be rated")
                holds_open = await open_holds(doors)
        finally:
            await cluster.stop()
        verdict = await verify(
            at.settings, at.store, {1: at.catalogue}, {}, processes=2, say=lambda _: None, journal=run.journal
        )
        outcome = run.judge(verdict, holds_open or 0, front.retries)
        FIGURES.parent.mkdir(exist_ok=True)
        FIGURES.write_bytes(orjson.dumps(msgspec.to_builtins(outcome), option=orjson.OPT_INDENT_2))
        assert outcome.sentences == [], "\n".join(outcome.sentences[:20])
        assert (outcome.overspend_pico, outcome.holds_open_at_end) == (0, 0)
        assert (verdict.lost, verdict.double) == (0, 0)
        assert outcome.allowed and outcome.denied and outcome.kills, f"proves nothing: {outcome}"


async def test_nobody_overspends_while_owners_die(
    database: str, kafka: str, ray_local: RayLocal, supervisor: Supervisor, tmp_path: Path
) -> None:
    await squeeze(
        database, kafka, supervisor, tmp_path / "locks", checks=4_000, accounts=60, slow_share=0.1, kill_every_s=1.0
    )


@pytest.mark.long
@pytest.mark.timeout(1_800)
async def test_nobody_overspends_in_a_hundred_thousand_checks(
    database: str, kafka: str, ray_local: RayLocal, supervisor: Supervisor, tmp_path: Path
) -> None:
    await squeeze(
        database,
        kafka,
        supervisor,
        tmp_path / "locks",
        checks=100_000,
        accounts=1_000,
        slow_share=0.02,
        kill_every_s=10.0,
    )
