"""Shards and controller as real processes on a real broker and database: killed, stopped and cut off in mid-stream.

After each, the results equal the oracle's to the last digit."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import asyncpg
import orjson

from actors.assembly import doors
from actors.deployment import until
from actors.door_client import Doors, DoorUnavailable
from actors.door_wire import Answer, Balance, BalanceView, Check, Checked, FieldLimit, Question
from actors.migrations import ENGINE_ROLE
from actors.ports import Outgoing
from engine.placement import partition_for
from loadtest.deployment import Deployment, deployment
from loadtest.process_child import LEFT_BY_ITSELF
from loadtest.processes import Process
from loadtest.workload import cloud_time

EVENTS = 3_000  # over four seconds, in which a checkpoint is made about every second
DURATION_S = 4.0


class Run:
    """A deployment with two shards and a controller."""

    def __init__(self, at: Deployment, shards: list[Process], controller: Process) -> None:
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

    async def end(self, *living: Process) -> None:
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
            shards = [Process("shard", f"shard-{number}", at.settings, folder) for number in range(2)]
            controller = Process("controller", "controller", at.settings, folder)
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


def request(input_tokens: int, output_tokens: int) -> Check:
    """One with a hold: $2.50 for a million tokens in, $10 for a million out."""
    bounds = FieldLimit(("input_tokens",), str(input_tokens)), FieldLimit(("output_tokens",), str(output_tokens))
    return Check("acme", type="llm.request", data={"model": "atlas-large"}, bounds=bounds, ttl_ms=60_000)


async def told(shards: Doors, question: Question) -> Answer:
    """The answer of the account's owner, as soon as there is one that is ready."""
    answers: list[Answer] = []

    async def answered() -> bool:
        try:
            answer = await shards.ask("acme", question, 1.0)
        except DoorUnavailable:
            return False
        answers.append(answer)
        return isinstance(answer, Checked | BalanceView)

    await until(answered, f"an answer to {question}")
    return answers[-1]


async def test_what_a_killed_shard_approved_is_withheld_until_its_usage_arrives(
    database: str, kafka: str, tmp_path: Path
) -> None:
    async with running(database, kafka, tmp_path) as run:
        at = run.at
        opening = {"kind": "open_account", "account": "acme", "command_key": "open", "plan": "starter"}
        paying = {"kind": "grant", "account": "acme", "command_key": "pay", "lot": "lot", "lot_kind": "paid"}
        await at.set_up([opening, paying | {"amount": "2", "currency": "USD"}])
        await until(at.rated_to_the_end, "the account to be opened")
        shards = doors(at.settings)
        await shards.start()
        try:
            first = await told(shards, request(400_000, 100_000))
            assert isinstance(first, Checked) and first.allowed and first.hold is not None, first
            assert (first.price, first.wallet and first.wallet.available) == ("2", "0")
            second = await told(shards, request(1, 0))
            assert isinstance(second, Checked) and second.reason == "credit_depleted"

            owner = (await at.owners())[partition_for(b"acme", at.settings.kafka.partitions)]
            killed = next(shard for shard in run.shards if shard.incarnation == owner)
            killed.signal(signal.SIGKILL)
            await killed.ended()
            third = await told(shards, request(1, 0))
            assert isinstance(third, Checked) and third.reason == "withheld", third
            assert third.as_of.epoch > first.as_of.epoch

            usage = {"specversion": "1.0", "id": "1", "source": "test", "type": "llm.request", "hold": first.hold.token}
            usage |= {"time": cloud_time(time.time_ns() // 1000), "subject": "acme"}
            used = {"model": "atlas-large", "input_tokens": 400_000, "output_tokens": 0}
            await at.log.append([Outgoing("usage", orjson.dumps(usage | {"data": used}), b"acme")])

            async def settled() -> bool:
                balance = await told(shards, Balance("acme"))
                return isinstance(balance, BalanceView) and (balance.wallet.booked, balance.wallet.held) == ("1", "0")

            await until(settled, "the usage to settle the hold")
            last = await told(shards, request(200_000, 50_000))
            assert isinstance(last, Checked) and last.allowed, last
        finally:
            await shards.stop()
        await run.end(*(shard for shard in run.shards if shard is not killed))
