"""The contenders: each pattern and ours, asked and told through the way in that its users would take."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, Protocol

import aiohttp
import msgspec
import orjson

from actors.door_client import Doors
from actors.door_wire import Balance, BalanceView
from loadtest.bench.stage import Stage
from loadtest.fronts import Ask, Bound, Front, Unanswered, Usage
from loadtest.patterns.bell import Bell
from loadtest.patterns.pattern import Terms, Use
from loadtest.patterns.redis_counter import RedisCounter
from loadtest.patterns.synced_counters import SyncedCounters
from loadtest.probes import COST_PICO, MODEL, TOKENS, Customer
from loadtest.workload import EVENT_TYPE
from tallygate_sdk import Admission, AsyncClient, Check, LeaseHolder, Unavailable
from tallygate_sdk import Bound as SdkBound

PICO: Final = 10**12
TTL_S: Final = 30.0
POLL_S: Final = 0.002
WITHIN_S: Final = 5.0
USED: Final = {"model": MODEL, "input_tokens": TOKENS, "output_tokens": 0}  # by a request, as `Customer.use` says it
_ROOT: Final = Path(__file__).resolve().parents[2]


class HostFailed(Exception):
    """A pattern's process did not come up; the message is what it said."""


class Hosted:
    """A pattern in a process of its own that reads the log, asked over HTTP."""

    pair = "http"
    failures: tuple[type[Exception], ...] = (aiohttp.ClientError, TimeoutError)

    def __init__(self, name: str, note: str, stage: Stage, terms: Terms, bell: Bell, folder: Path, dsn: str) -> None:
        self.name = name
        self.note = note
        self.stage = stage
        self._given = {
            "pattern": name,
            "settings": stage.settings.reveal(),
            "terms": msgspec.to_builtins(terms),
            "bell": bell.url,
            "folder": str(folder),
            "dsn": dsn,
        }
        self._log_path = folder.with_suffix(".log")
        self._bell = bell
        self._process: subprocess.Popen[str] | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Returns once it answers. Raises HostFailed."""
        self._process = self._spawned()
        assert self._process.stdout is not None
        port = (await asyncio.to_thread(self._process.stdout.readline)).strip()
        if not port:
            await self.kill()
            raise HostFailed(f"{self.name}: {self._log_path.read_text()[-2_000:]}")
        self._session = aiohttp.ClientSession(f"http://127.0.0.1:{port}")

    def _spawned(self) -> "subprocess.Popen[str]":
        with self._log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "loadtest.patterns.host"],
                cwd=_ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdin is not None
        process.stdin.write(json.dumps(self._given) + "\n")
        process.stdin.close()
        return process

    async def kill(self) -> None:
        """SIGKILL, as a crash would come."""
        if self._session is not None:
            await self._session.close()
            self._session = None
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None

    async def places(self) -> dict[int, int]:
        """How far it has read, by partition."""
        async with self._live().get("/places") as answer:
            return {int(number): place for number, place in (await answer.json()).items()}

    async def check(self, account: str) -> str | None:
        body = orjson.dumps({"account": account, "pico": COST_PICO})
        async with self._live().post("/check", data=body) as answer:
            return "" if (await answer.json())["allowed"] else None

    async def spend(self, customer: Customer, token: str) -> None:
        await self.stage.log.append([customer.use(self.stage.clock.wall_us())])

    async def booked(self, account: str) -> int:
        async with self._live().get(f"/spent/{account}") as answer:
            return int(await answer.text())

    async def alerted(self, account: str) -> float:
        return await self._bell.heard(account)

    def _live(self) -> aiohttp.ClientSession:
        assert self._session is not None
        return self._session


class InRedis:
    """Pattern (c): the gateway speaks to Redis itself."""

    pair = "door"
    failures: tuple[type[Exception], ...] = (OSError,)

    def __init__(self, name: str, note: str, counter: RedisCounter, bell: Bell) -> None:
        self.name = name
        self.note = note
        self._counter = counter
        self._bell = bell

    async def check(self, account: str) -> str | None:
        return "reserved" if await self._counter.check(account, COST_PICO) else None

    async def spend(self, customer: Customer, token: str) -> None:
        customer.sent += 1
        use = Use(customer.account, "bench", f"e{customer.sent}", COST_PICO)
        if await self._counter.settle(use, COST_PICO if token else 0):
            await self._bell.ring([use.account])

    async def booked(self, account: str) -> int:
        return await self._counter.spent(account)

    async def alerted(self, account: str) -> float:
        return await self._bell.heard(account)


class InProcess:
    """Pattern (d): gateways that each count for themselves, behind something that deals requests out in turn."""

    pair = "lease"
    failures: tuple[type[Exception], ...] = ()

    def __init__(self, name: str, note: str, processes: Sequence[SyncedCounters], bell: Bell) -> None:
        self.name = name
        self.note = note
        self._processes = processes
        self._bell = bell
        self._dealt = 0

    def _next(self) -> SyncedCounters:
        self._dealt += 1
        return self._processes[self._dealt % len(self._processes)]

    async def check(self, account: str) -> str | None:
        return "" if self._next().check(account, COST_PICO) else None

    async def spend(self, customer: Customer, token: str) -> None:
        customer.sent += 1
        if self._next().record(customer.account, COST_PICO):
            await self._bell.ring([customer.account])

    async def booked(self, account: str) -> int:
        """What every process knows."""
        return min(process.spent(account) for process in self._processes)

    async def alerted(self, account: str) -> float:
        return await self._bell.heard(account)


class BalanceOf(Protocol):
    """What an account has booked, as decimal text."""

    async def __call__(self, account: str) -> str: ...


class _OurBooks:
    """What ours says of a customer: its balance, and the webhook."""

    failures: tuple[type[Exception], ...] = (Unanswered,)

    def __init__(self, name: str, pair: str, note: str, balance: BalanceOf, stage: Stage) -> None:
        self.name = name
        self.pair = pair
        self.note = note
        self.stage = stage
        self._balance = balance
        self._granted: dict[str, int] = {}

    def knows(self, customers: Sequence[Customer]) -> None:
        """What each was granted, which the balance is counted from."""
        self._granted |= {customer.account: customer.granted for customer in customers}

    async def booked(self, account: str) -> int:
        return self._granted[account] - round(Decimal(await self._balance(account)) * PICO)

    async def alerted(self, account: str) -> float:
        while True:
            for alert in list(self.stage.receiver.alerts.values()):
                if alert.body["data"]["account"] == account:
                    clock = self.stage.clock
                    return clock.boot_s() - (clock.wall_us() - alert.arrived_us) / 1_000_000
            await self.stage.clock.sleep(POLL_S)


class Ours(_OurBooks):
    """A check with a hold, and its capture."""

    def __init__(self, name: str, pair: str, front: Front, balance: BalanceOf, stage: Stage) -> None:
        super().__init__(name, pair, "a hold per check", balance, stage)
        self._front = front

    async def check(self, account: str) -> str | None:
        bounds = (Bound(("input_tokens",), TOKENS), Bound(("output_tokens",), 0))
        answer = await self._front.check(Ask(account, EVENT_TYPE, {"model": MODEL}, bounds, TTL_S))
        return answer.token if answer.allowed else None

    async def spend(self, customer: Customer, token: str) -> None:
        record = customer.use(self.stage.clock.wall_us())
        if not token:
            await self.stage.log.append([record])
            return
        event: dict[str, Any] = orjson.loads(record.value or b"")
        await self._front.capture(
            Usage(
                customer.account,
                event["source"],
                event["id"],
                event["type"],
                event["time"],
                event["data"],
                token,
                final=True,
            )
        )


class Gateway:
    """One process that decides by leases of the SDK: a holder for each customer."""

    def __init__(self, client: AsyncClient, requests: int) -> None:
        """`requests` are wanted in a lease."""
        self._client = client
        self._requests = requests
        self._holders: dict[str, LeaseHolder] = {}

    def of(self, account: str) -> LeaseHolder:
        if account not in self._holders:
            self._holders[account] = LeaseHolder(
                self._client, one_request(account), requests=self._requests, ttl_s=TTL_S, source="bench", drain_s=0
            )
        return self._holders[account]

    async def close(self) -> None:
        for holder in self._holders.values():
            await holder.close()
        await self._client.close()


class ByLease(_OurBooks):
    """Gateways that hold leases, behind something that deals requests out in turn."""

    failures: tuple[type[Exception], ...] = (Unavailable,)

    def __init__(self, name: str, note: str, gateways: Sequence[Gateway], balance: BalanceOf, stage: Stage) -> None:
        super().__init__(name, "lease", note, balance, stage)
        self._gateways = gateways
        self._dealt = 0
        self._admitted: dict[str, tuple[LeaseHolder, Admission]] = {}  # by the token that the caller got

    async def check(self, account: str) -> str | None:
        self._dealt += 1
        token = str(self._dealt)  # while this one waits, others are dealt out
        holder = self._gateways[self._dealt % len(self._gateways)].of(account)
        admission = await holder.admit()
        if not admission.allowed:
            return None
        self._admitted[token] = holder, admission
        return token

    async def spend(self, customer: Customer, token: str) -> None:
        record = customer.use(self.stage.clock.wall_us())
        if token:
            holder, admission = self._admitted.pop(token)
            usage = holder.settle(admission, USED, id=f"e{customer.sent}")
            record = msgspec.structs.replace(record, value=usage.cloud_event())
        await self.stage.log.append([record])


def one_request(account: str) -> Check:
    """What `Customer.use` reports, asked before."""
    bounds = (SdkBound(("input_tokens",), TOKENS), SdkBound(("output_tokens",), 0))
    return Check(account, type=EVENT_TYPE, data={"model": MODEL}, bounds=bounds)


def over_http(session: aiohttp.ClientSession) -> BalanceOf:
    """The balance as the API tells it."""

    async def balance(account: str) -> str:
        async with session.get(f"/v1/customers/{account}/balance") as answer:
            answer.raise_for_status()
            told: str = (await answer.json())["balance"]["booked"]
            return told

    return balance


def at_the_door(asking: Doors) -> BalanceOf:
    """The balance as the owner tells it."""

    async def balance(account: str) -> str:
        answer = await asking.ask(account, Balance(account), WITHIN_S)
        if not isinstance(answer, BalanceView):
            raise AssertionError(f"{account}: expected a balance, got {answer}")
        return answer.wallet.booked

    return balance
