"""The port `Receivers` of the simulator: a receiver with seeded faults, on virtual time."""

import asyncio
from collections import Counter
from random import Random

from msgspec import Struct

from actors.ports import AlertRow, Attempt, Clock


class ReceiverFaults(Struct, frozen=True, kw_only=True):
    """How often an attempt meets which fault; the rest is taken and answered 2xx."""

    answer_lost: float = 0.0  # taken, but the 2xx never reaches us
    hang: float = 0.0  # no answer until the time-out; not taken
    busy: float = 0.0  # 503 with Retry-After; not taken
    gone: float = 0.0  # 410; not taken
    moved: float = 0.0  # 3xx, which nobody follows; not taken
    latency_s: float = 0.05
    timeout_s: float = 15.0
    retry_after_max_s: float = 60.0


class SimReceivers:
    """Faults are drawn from `random` in the order of the attempts."""

    def __init__(self, clock: Clock, random: Random, faults: ReceiverFaults) -> None:
        self._clock = clock
        self._random = random
        self.faults = faults  # may be replaced while running
        self.away = False  # nobody listens at all
        self.gone_for: set[str] = set()  # alerts that were answered 410
        self.met: Counter[str] = Counter()  # how often an attempt met which fault
        self.taken: dict[str, list[bytes]] = {}  # alert id -> the body of each arrival the receiver took
        self._orders: dict[str, asyncio.Lock] = {}  # of an account's alerts

    async def post(self, alert: AlertRow) -> Attempt:
        async with self._orders.setdefault(alert.account, asyncio.Lock()):
            return await self._attempt(alert)

    async def _attempt(self, alert: AlertRow) -> Attempt:
        faults = self.faults
        draw = self._random.random()
        wait_s = float(self._random.randint(0, int(faults.retry_after_max_s)))
        if draw < faults.hang:
            self.met["hang"] += 1
            return await self._time_out()
        await self._clock.sleep(faults.latency_s)
        if self.away:
            self.met["away"] += 1
            return Attempt(delivered=False, error="connection refused")
        if (draw := draw - faults.hang) < faults.busy:
            self.met["busy"] += 1
            return Attempt(delivered=False, error="HTTP 503", retry_after_s=wait_s)
        if (draw := draw - faults.busy) < faults.gone:
            self.met["gone"] += 1
            self.gone_for.add(alert.alert_id)
            return Attempt(delivered=False, error="HTTP 410: the receiver is gone for good", final=True)
        if (draw := draw - faults.gone) < faults.moved:
            self.met["moved"] += 1
            return Attempt(delivered=False, error="HTTP 302: redirects are not followed")
        self.taken.setdefault(alert.alert_id, []).append(alert.body)
        if draw - faults.moved < faults.answer_lost:
            self.met["answer_lost"] += 1
            return await self._time_out()
        return Attempt(delivered=True)

    async def _time_out(self) -> Attempt:
        await self._clock.sleep(self.faults.timeout_s)
        return Attempt(delivered=False, error=f"no answer within {self.faults.timeout_s:g} s")
