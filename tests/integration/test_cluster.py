"""The cluster on a real Ray: actors that start once, die alone, come back as spares and leave nothing behind."""

import asyncio
import os
import secrets
import signal
from pathlib import Path

import psutil
import pytest
import ray

from actors import cluster as cluster_module
from actors.cluster import CONTROLLER, Cluster, ShardStatus
from actors.deployment import until
from config.stack.ray_local import RayLocal, record_ray
from config.stack.supervisor import Supervisor
from loadtest.deployment import PARTITIONS, Deployment, deployment

EVENTS = 3_000
DURATION_S = 4.0


def owned(statuses: list[ShardStatus]) -> dict[str, set[int]]:
    """The partitions that each incarnation speaks for."""
    return {
        status.incarnation: {view.partition for view in status.partitions if view.stage == "ready"}
        for status in statuses
    }


async def all_ready(cluster: Cluster, shards: int = 2) -> bool:
    statuses = await cluster.statuses()
    ready = [number for numbers in owned(statuses).values() for number in numbers]
    return len(statuses) == shards and sorted(ready) == list(range(PARTITIONS))


def actors_left(names: list[str], namespace: str) -> list[str]:
    left = []
    for name in names:
        try:
            ray.get_actor(name, namespace)
        except ValueError:
            continue
        left.append(name)
    return left


async def killed_in_mid_stream(at: Deployment, cluster: Cluster) -> None:
    workload = at.workload(EVENTS, DURATION_S)
    await at.open_accounts(workload)
    await until(at.rated_to_the_end, "the accounts to be opened")
    driver = at.driver()
    driving = asyncio.create_task(driver.run(workload))
    try:
        await asyncio.sleep(DURATION_S / 2)
        victim, living = await cluster.statuses()
        assert len(owned([victim])[victim.incarnation]) == PARTITIONS // 2
        os.kill(victim.pid, signal.SIGKILL)

        async def taken_over_and_back() -> bool:
            now = owned(await cluster.statuses())
            spares = [name for name, numbers in now.items() if name.startswith(f"{victim.shard}.") and not numbers]
            return now.get(living.incarnation) == set(range(PARTITIONS)) and len(spares) == 1

        await until(taken_over_and_back, "a live shard to own everything, and the killed one to be back as a spare")
        (back,) = [status for status in await cluster.statuses() if status.shard == victim.shard]
        assert (back.incarnation, back.pid) != (victim.incarnation, victim.pid)
        assert back.partitions == [], "a spare: nothing moves twice"
        await driving
    finally:
        driving.cancel()
    await until(at.rated_to_the_end, "everything to be rated and told")


async def test_a_cluster_from_start_to_end(
    database: str, kafka: str, ray_local: RayLocal, supervisor: Supervisor, tmp_path: Path
) -> None:
    """Started, started again, a shard killed in mid-stream, drained; then every amount is as the oracle has it."""
    namespace = f"test-{secrets.token_hex(3)}"
    async with deployment(database, kafka) as at:
        cluster = Cluster(at.settings, tmp_path / "locks", namespace)
        assert await all_ready(cluster, shards=0) is False, "no actor, no status, no error"
        try:
            await cluster.start()
            record_ray(supervisor)
            await until(lambda: all_ready(cluster), "every partition to be ready")
            before = {status.incarnation: status.pid for status in await cluster.statuses()}
            await cluster.start()
            assert {status.incarnation: status.pid for status in await cluster.statuses()} == before
            await killed_in_mid_stream(at, cluster)
            record_ray(supervisor)
        finally:
            await cluster.stop()
        assert actors_left(["shard-0", "shard-1", CONTROLLER], namespace) == []
        assert await at.owners() == dict.fromkeys(range(PARTITIONS))
        await cluster.stop()
        await at.check()


async def test_a_shard_that_does_not_hand_over_is_ended_with_the_others(
    database: str,
    kafka: str,
    ray_local: RayLocal,
    supervisor: Supervisor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It stands still: no drain is answered. The stop ends all the same, and the controller has given up its office."""
    monkeypatch.setattr(cluster_module, "DRAIN_TIMEOUT_S", 2.0)
    namespace = f"test-{secrets.token_hex(3)}"
    async with deployment(database, kafka) as at:
        cluster = Cluster(at.settings, tmp_path / "locks", namespace)
        await cluster.start()
        record_ray(supervisor)
        try:
            await until(lambda: all_ready(cluster), "every partition to be ready")
            still, other = await cluster.statuses()
            os.kill(still.pid, signal.SIGSTOP)
        finally:
            await cluster.stop()
        assert actors_left(["shard-0", "shard-1", CONTROLLER], namespace) == []
        owners = await at.owners()
        assert set(owners.values()) == {None, still.incarnation}, "the other one has handed over in order"

        async def gone() -> bool:
            pids = [still.pid, other.pid]
            return not [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]

        await until(gone, "both processes to be ended")
