"""Gateways that decide by leases, on virtual time: they take one, decide by it, spool what was used and report it in any
order, as late as may be; they extend, at once or in the last moment, close with events still in the spool, and die with
all of it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from random import Random
from typing import Final

from msgspec import Struct

from actors.door_wire import (
    Answer,
    AsOf,
    Check,
    CloseLease,
    ExtendLease,
    FieldLimit,
    LeaseAnswered,
    Question,
    TakeLease,
)
from engine.holds import Hold, read_token
from engine.leases import Lease
from engine.partition import Partition
from tests.simulation.traffic import CONTROL_KEY
from tests.simulation.world import World

LEASING_GATEWAYS: Final = 2  # for each account
LATE_SHARE: Final = 0.3  # of the leases are extended in the last moment
MODELS: Final = ("atlas-large", "atlas-small")

Ask = Callable[[str, Question, Random], Awaitable[Answer | None]]
Report = Callable[[str, str, int, str], Awaitable[None]]


class GivenLease(Struct):
    """A lease, as it left the shard."""

    account: str
    as_of: AsOf
    lease: Hold


async def hold_leases(world: World, account: str, ask: Ask, report: Report, random: Random) -> None:
    """One gateway, lease after lease, until it is cancelled."""
    while True:
        await world.loop.sleep(random.uniform(0.0, 0.2))
        tokens = random.randint(1, 4) * 1_000
        ttl_ms = int(random.uniform(0.1, 1.0) * world.plan.pace * 1000)
        bounds = FieldLimit(("input_tokens",), str(tokens)), FieldLimit(("output_tokens",), str(tokens))
        one = Check(account, type="llm.request", reach={"model": MODELS}, bounds=bounds, ttl_ms=ttl_ms)
        answer = await ask(account, TakeLease(one, random.choice([1, 6, 40]), 1), random)
        if isinstance(answer, LeaseAnswered) and answer.lease is not None:
            await _decide_by(world, account, answer.lease.token, tokens, ask, report, random)


async def _decide_by(
    world: World, account: str, token: str, tokens: int, ask: Ask, report: Report, random: Random
) -> None:
    lease = read_token(CONTROL_KEY, token)
    fate = random.choice(["close", "close", "leave", "extend", "die"])
    spool: list[tuple[str, int]] = []
    decided = 0
    while decided < lease.requests and random.random() < 0.9:
        used = tokens if random.random() < 0.8 else random.randrange(tokens + 1)
        spool.append((random.choice(MODELS), used))
        decided += 1
        if fate == "extend" and random.random() < 0.3:
            answer = await ask(account, ExtendLease(token, random.choice([0, 3]), 1, 1000), random)
            if isinstance(answer, LeaseAnswered) and answer.lease is not None:
                token = answer.lease.token
                lease = read_token(CONTROL_KEY, token)
        if random.random() < 0.4:
            await report(account, *spool.pop(random.randrange(len(spool))), token)
    # A lottery of its own, so that it moves nothing where it loses.
    late = Random(f"an extension in the last moment {random.getstate()}")
    if late.random() < LATE_SHARE:
        left_s = (lease.expires_us - world.clock.wall_us()) / 1e6 / world.plan.pace
        await world.loop.sleep(max(0.0, left_s - late.uniform(0.0, 0.1)))
        ttl_ms = int(late.uniform(0.5, 1.5) * world.plan.pace * 1000)
        answer = await ask(account, ExtendLease(token, late.choice([0, 3]), 1, ttl_ms), late)
        if isinstance(answer, LeaseAnswered) and answer.lease is not None:
            token = answer.lease.token
            lease = read_token(CONTROL_KEY, token)
    if fate == "die":
        return
    if fate == "close" and random.random() < 0.5:  # with events still in the spool
        await ask(account, CloseLease(token, decided), random)
    if spool and random.random() < 0.6:
        left_s = (lease.report_until_us - world.clock.wall_us()) / 1e6 / world.plan.pace
        await world.loop.sleep(max(0.0, left_s * random.random() if random.random() < 0.5 else left_s - 0.02))
    for model, used in spool:
        await report(account, model, used, token)
    if fate == "close":
        for _ in range(random.randint(1, 2)):
            await ask(account, CloseLease(token, decided), random)
    await asyncio.sleep(0)


class Returns:
    """Follows the leases of a fold, record by record: each comes from a record, and its rest goes back once."""

    def __init__(self) -> None:
        self._known: dict[str, dict[str, Lease]] = {}  # account -> lease
        self._back: set[str] = set()  # leases that have given back what was left

    def follow(self, fold: Partition, account_id: str, used_of: str | None) -> Iterator[str]:
        """Behind a record; `used_of`: the lease that it used, if it is such an event."""
        account = fold.account(account_id)
        now = {} if account is None else dict(account.leases.of)
        before = self._known.get(account_id, {})
        self._known[account_id] = now
        for name, was in before.items():
            lease = now.get(name)
            over = fold.log_time_us > was.hold.report_until_us
            if lease is None and not over:
                yield f"lease {name} of {account_id} was forgotten at {fold.log_time_us}, before it had ended"
            done = lease is not None and lease.sent is not None and lease.rated >= lease.sent
            fell = any(was.left) and (lease is None or not any(lease.left))
            if fell and not (over or done or name == used_of):
                yield f"lease {name} of {account_id} has given back {was.left}, and neither is it closed nor has it ended"
            if fell and name != used_of:
                if name in self._back:
                    yield f"lease {name} of {account_id} has given back its rest twice"
                self._back.add(name)
            if lease is not None and name in self._back and any(lease.left):
                yield f"lease {name} of {account_id} holds {lease.left} again, having given back its rest"
        for name in now.keys() & self._back:
            if name not in before and any(now[name].left):
                yield f"lease {name} of {account_id} came again, having ended"
