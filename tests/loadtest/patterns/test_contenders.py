"""The ways in of the patterns that live with their caller; the others need servers: tests/integration/test_patterns.py."""

import asyncio
from types import SimpleNamespace
from typing import Any

from loadtest.patterns.bell import Bell
from loadtest.patterns.contenders import ByLease, InProcess, InRedis
from loadtest.patterns.pattern import Terms, Use
from loadtest.patterns.synced_counters import SyncedCounters
from loadtest.probes import COST_PICO, customers
from tests.simulation.hand_clock import HandClock


class FakeRedis:
    def __init__(self) -> None:
        self.settled: list[tuple[Use, int]] = []

    async def check(self, account: str, pico: int) -> bool:
        return account != "poor"

    async def settle(self, use: Use, reserved: int) -> bool:
        self.settled.append((use, reserved))
        return len(self.settled) == 2


async def test_what_a_check_reserved_is_given_back_with_the_usage() -> None:
    clock, counter = HandClock(), FakeRedis()
    bell = Bell(clock)
    given: Any = counter
    contender = InRedis("redis", "", given, bell)
    (customer,) = customers("one", 1, 1)
    assert await contender.check("poor") is None
    token = await contender.check(customer.account)
    assert token
    await contender.spend(customer, token)
    assert not bell.rung
    await contender.spend(customer, "")
    assert [(use.id, reserved) for use, reserved in counter.settled] == [("e1", COST_PICO), ("e2", 0)]
    assert list(bell.rung) == [customer.account]


async def test_requests_are_dealt_out_and_a_balance_is_what_every_process_knows() -> None:
    clock = HandClock()
    processes = [SyncedCounters("", Terms(cap_pico=COST_PICO, alert_pico=COST_PICO)) for _ in range(2)]
    contender = InProcess("in_process", "", processes, Bell(clock))
    (customer,) = customers("one", 1, 1)
    await contender.spend(customer, "")
    assert await contender.booked(customer.account) == 0
    await contender.spend(customer, "")
    assert await contender.booked(customer.account) == COST_PICO
    assert await contender.check(customer.account) is None


async def test_gateways_that_are_asked_at_once_keep_their_requests_apart() -> None:
    class Slow:
        """A holder that has to wait for a lease."""

        def __init__(self) -> None:
            self.settled: list[Any] = []

        async def admit(self) -> Any:
            await asyncio.sleep(0)
            return SimpleNamespace(allowed=True)

        def settle(self, admission: Any, data: Any, id: str) -> Any:
            self.settled.append(admission)
            return SimpleNamespace(cloud_event=lambda: b"{}")

    class Log:
        async def append(self, records: Any) -> None: ...

    holders = [Slow(), Slow()]
    gateways: Any = [SimpleNamespace(of=lambda _, holder=holder: holder) for holder in holders]
    stage: Any = SimpleNamespace(clock=HandClock(), log=Log())
    balance: Any = None
    contender = ByLease("ours by lease", "", gateways, balance, stage)
    (customer,) = customers("one", 1, 1)
    tokens = await asyncio.gather(*(contender.check(customer.account) for _ in range(4)))
    assert len({*tokens}) == 4
    for token in tokens:
        assert token
        await contender.spend(customer, token)
    assert [len({*map(id, holder.settled)}) for holder in holders] == [2, 2]
