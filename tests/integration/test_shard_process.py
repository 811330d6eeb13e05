"""Shards and controller as real processes on a real broker and database: killed, stopped and cut off in mid-stream.

After each, the results equal the oracle's to the last digit."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import asyncpg

from actors.migrations import ENGINE_ROLE
from tests.integration.deployment import DEADLINE_S, Deployment, deployment, until
from tests.integration.process_child import LEFT_BY_ITSELF

ROOT = Path(__file__).resolve().parents[2]
EVENTS = 3_000  # over four seconds, in which a checkpoint is made about every second
DURATION_S = 4.0


class Child:
    """One process; its log goes to a file, which a failed test shows."""

    def __init__(self, role: str, name: str, at: Deployment, folder: Path) -> None:
        self.log_path = folder / f"{name}.log"
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.integration.process_child"],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        given = {"role": role, "name": name, "settings": at.settings.reveal(), "lock_dir": str(folder / "locks")}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(given) + "\n")
        self.process.stdin.flush()
        self.incarnation = ""

    async def joined(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None
        self.incarnation = (await asyncio.to_thread(stdout.readline)).strip()
        assert self.incarnation, self.log_path.read_text()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        return await asyncio.to_thread(self.process.wait, DEADLINE_S)

    async def end(self) -> None:
        """In order: it hands everything over."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert await self.ended() == 0, self.log_path.read_text()

    def close(self) -> None:
        """However the test has gone, nothing is left."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


class Run:
    """A deployment with two shards and a controller."""

    def __init__(self, at: Deployment, shards: list[Child], controller: Child) -> None:
        self.at = at
        self.shards = shards
        self.controller = controller

    async def owned_by(self, *incarnations: str) -> bool:
        """Whether these, each with a part, own every partition."""
        owners = await self.at.owners()
        return len(owners) == self.at.settings.kafka.partitions and set(owners.values()) == set(incarnations)

    async def drive(self, disturb: Callable[[], Awaitable[None]]) -> None:
        """The workload, with the disturbance in the middle; returns when everything is rated and told."""
        workload = self.at.workload(EVENTS, DURATION_S)
        await self.at.open_accounts(workload)
        await until(self.at.rated_to_the_end, "the accounts to be opened")
        driver = self.at.driver()
        driving = asyncio.create_task(driver.run(workload))
        try:
            await until(lambda: sent(driver.sent, EVENTS // 2), "half of the events to be sent")
            await disturb()
            await driving
        finally:
            driving.cancel()
        await until(self.at.rated_to_the_end, "everything to be rated and told")

    async def end(self, *living: Child) -> None:
        """Hand over in order; nobody owns anything then."""
        await asyncio.gather(*(shard.end() for shard in living))
        await self.controller.end()
        assert set((await self.at.owners()).values()) == {None}


async def sent(count: int, wanted: int) -> bool:
    return count >= wanted


@asynccontextmanager
async def running(database: str, kafka: str, folder: Path) -> AsyncIterator[Run]:
    async with deployment(database, kafka) as at:
        with ExitStack() as stack:
            shards = [Child("shard", f"shard-{number}", at, folder) for number in range(2)]
            controller = Child("controller", "controller", at, folder)
            for child in (*shards, controller):
                stack.callback(child.close)
            for shard in shards:
                await shard.joined()
            run = Run(at, shards, controller)
            await until(lambda: run.owned_by(*(shard.incarnation for shard in shards)), "both shards to own partitions")
            yield run


async def test_a_live_shard_takes_over_from_a_killed_one(database: str, kafka: str, tmp_path: Path) -> None:
    async with running(database, kafka, tmp_path) as run:
        killed, living = run.shards

        async def kill() -> None:
            killed.signal(signal.SIGKILL)
            assert await killed.ended() == -signal.SIGKILL
            await until(lambda: run.owned_by(living.incarnation), "the living shard to own everything")

        await run.drive(kill)
        await run.end(living)
        await run.at.check()


async def test_a_shard_that_was_stopped_beyond_its_lease_finds_itself_replaced_and_leaves(
    database: str, kafka: str, tmp_path: Path
) -> None:
    """It wakes up in the middle of what it did, with everything it believed: nothing of it may take effect."""
    async with running(database, kafka, tmp_path) as run:
        zombie, living = run.shards

        async def stop_and_wake() -> None:
            zombie.signal(signal.SIGSTOP)
            await until(lambda: run.owned_by(living.incarnation), "the living shard to own everything")
            assert zombie.process.poll() is None
            zombie.signal(signal.SIGCONT)
            assert await zombie.ended() == LEFT_BY_ITSELF

        await run.drive(stop_and_wake)
        assert await run.owned_by(living.incarnation)
        await run.end(living)
        await run.at.check()


async def test_database_sessions_that_are_cut_off_cost_nothing(database: str, kafka: str, tmp_path: Path) -> None:
    """Renewals, checkpoints in mid-transaction, commits on their way: whatever is cut off is settled and goes on."""
    async with running(database, kafka, tmp_path) as run:

        async def cut_off() -> None:
            admin = await asyncpg.connect(database)
            try:
                for _ in range(5):
                    ended = await admin.fetch(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1 AND datname = $2",
                        ENGINE_ROLE,
                        database.rsplit("/", 1)[1],
                    )
                    assert ended
                    await asyncio.sleep(0.3)
            finally:
                await admin.close()

        await run.drive(cut_off)
        await run.end(*run.shards)
        await run.at.check()
