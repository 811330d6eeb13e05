"""Deciding many small requests of one account in this process, within what a lease reserves (the service's docs/leases.md).

The service has taken the most that the leased requests can use from the wallet and from every cap before it answers, so
no sum of holders can overspend. What a lease cannot decide is asked of the service, one request at a time.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from decimal import Decimal
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from tallygate_sdk.answers import Decision, Hold, Lease
from tallygate_sdk.async_client import AsyncClient
from tallygate_sdk.errors import Refused, Unavailable
from tallygate_sdk.policy import FailurePolicy
from tallygate_sdk.questions import HOLD_S, Check, Usage

_log = logging.getLogger(__name__)

NANO: Final = 10**9  # quantities are whole nano-units
RENEW_BELOW: Final = 0.5  # of a lease's requests, or of its time: then another one is taken ahead
ASK_AGAIN_S: Final = 1.0  # for a lease, where the service does not say when
DRAIN_S: Final = 60.0
_BOOT_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)

_ALLOWED: Final = Decision(True)


def _boot_s() -> float:
    """Seconds by a clock that cannot be set, and that runs on while the machine is suspended, where there is one: the service
    does not wait for whoever sleeps, and a lease that looks young to him may be long over."""
    return time.clock_gettime(_BOOT_CLOCK) if _BOOT_CLOCK is not None else time.monotonic()


class Admission:
    """A request that was decided. If it is `allowed`: settle it with what it has used, or release it. Once it is settled, to
    release it as well (in a `finally`, say) changes nothing."""

    __slots__ = ("_ended", "_under", "data", "decision", "scope")

    def __init__(
        self, decision: Decision, under: "_Held | None", data: Mapping[str, str] | None, scope: str | None
    ) -> None:
        self.decision = decision
        self.data = data
        self.scope = scope
        self._under = under
        self._ended = False

    def _end(self) -> bool:
        """Whether it runs no more only now."""
        ended, self._ended = self._ended, True
        return not ended

    @property
    def allowed(self) -> bool:
        return self.decision.allowed

    @property
    def by_lease(self) -> bool:
        """Whether nobody had to be asked."""
        return self._under is not None

    @property
    def hold(self) -> Hold | None:
        """Of a request that the service decided."""
        return self.decision.hold

    @property
    def at_most(self) -> Decimal | None:
        """What it can cost, by the ceiling prices of its lease; None: a price comes in steps, or the service decided and did
        not say."""
        if self._under is None:
            return None if self.decision.price is None else self.decision.price.amount
        return self._under.ceiling()


class _Held:
    """A lease, and what of it is promised or used: of each bound, granted - used - running × up_to is left."""

    def __init__(self, lease: Lease, scope: str, valid_until_s: float) -> None:
        self.lease = lease
        self.valid_until_s = valid_until_s
        self.aging_s = valid_until_s - lease.valid_for_s * RENEW_BELOW
        self.running = 0
        self.events = 0
        self.retired = False
        self.closing = False
        self._scope = scope
        self._fields = [bound.fields for bound in lease.bounds]
        self._up_to = [_nano(bound.up_to) for bound in lease.bounds]
        self._unused = [_nano(bound.granted) for bound in lease.bounds]
        self._decides_not = frozenset(lease.owner_decides)
        self.slots = self._slots()  # how many more requests may be promised all that one may use
        self.low_at = int(self.slots * RENEW_BELOW)

    def settle(self, data: Mapping[str, Any] | None, *, ended: bool = True) -> None:
        """A running request has ended, or one that has ended has used more. What it used takes the place of what it was
        promised; `data` None: nothing. A bound of what the event does not name by itself (an expression, a bucket of tokens)
        stays taken whole."""
        self.running -= ended
        if data is not None:
            self.events += 1
            unused = self._unused
            for place, up_to in enumerate(self._up_to):
                unused[place] -= _used(self._fields[place], data, up_to)
        self.slots = self._slots()

    def covers(self, scope: str) -> bool:
        """Whether requests of that scope are the lease's to decide."""
        own = self._scope
        if scope == own:
            return True
        if own and not scope.startswith(own + "/"):
            return False
        if not self._decides_not:
            return True
        parts = scope.split("/")
        depth = len(own.split("/")) if own else 0
        return not any("/".join(parts[:end]) in self._decides_not for end in range(depth + 1, len(parts) + 1))

    def _slots(self) -> int:
        found = self.lease.requests
        for up_to, unused in zip(self._up_to, self._unused, strict=True):
            left = unused - self.running * up_to
            if left < 0:
                return 0
            if up_to:
                found = min(found, left // up_to)
        return found

    def ceiling(self) -> Decimal | None:
        """The most that one request can cost."""
        total = Decimal(0)
        for price in self.lease.prices:
            if price.unit is None:
                return None
            for fields, up_to in zip(self._fields, self._up_to, strict=True):
                if fields == price.fields or not set(fields).isdisjoint(price.fields):
                    total += price.unit * up_to / NANO
        return total


class LeaseHolder:
    """Decides requests like one example, `check`: its account, type and data, its scope and those below, at most its bounds.

    `admit` answers within microseconds while there is a lease; another one is taken ahead, when half of the requests or of
    the time is gone, and one that is used up is closed when its last request has ended, with the number of its events.
    Where there is no lease to be had (near a limit, in a scope with limits of its own, when nobody answers) each request
    is checked by itself. It belongs to one event loop, and admits nothing once `close` was called (RuntimeError)."""

    def __init__(
        self,
        client: AsyncClient,
        check: Check,
        *,
        requests: int,
        least: int = 1,
        ttl_s: float = HOLD_S,
        source: str,
        on_away: FailurePolicy | None = None,
        drain_s: float = DRAIN_S,
        clock: Callable[[], float] = _boot_s,
    ) -> None:
        """`requests` are wanted in each lease, fewer than `least` are of no use. `check.reach` names the values that
        `data` of a request may have beside `check.data`. `source` is that of the usage events. `drain_s`: how long
        closing waits for requests that still run."""
        if check.type is None or check.hold_s is not None or check.n != 1:
            raise ValueError("check: name a type, and neither hold_s nor n; it is one of the leased requests")
        self.leased = 0  # decided by a lease
        self.asked = 0  # decided by the service, or by the policy
        self._client = client
        self._check = check
        self._requests = requests
        self._least = least
        self._ttl_s = ttl_s
        self._source = source
        self._on_away = on_away
        self._drain_s = drain_s
        self._clock = clock
        self._now: _Held | None = None
        self._next: _Held | None = None
        self._taking: asyncio.Task[None] | None = None
        self._ask_again_s = float("-inf")
        self._old: list[_Held] = []
        self._closing: set[asyncio.Task[None]] = set()
        self._ended = asyncio.Event()  # a request has
        self._open = True

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    # -------------------------------------------------------------------------------------------------------- deciding

    def try_admit(self, *, data: Mapping[str, str] | None = None, scope: str | None = None) -> Admission | None:
        """An admission by the lease at hand; None: it cannot be decided without waiting. `data`: dimensions that differ from
        request to request (None: any of the leased ones); `scope`: at or below the one leased, which is the default."""
        if not self._open:
            # A lease that is taken now would be closed by nobody, and stay reserved until it expires.
            raise RuntimeError(
                f"the leases of {self._check.account} were closed: admit before close, or make another holder"
            )
        if data is not None and not self._fits(data):
            return None
        now_s = self._clock()
        held = self._now
        while held is None or held.slots <= 0 or now_s >= held.valid_until_s:
            if held is not None:
                self._retire(held)
            held = self._now = self._next
            self._next = None
            if held is None:
                return None
        if scope is not None and not held.covers(scope):
            return None
        held.slots -= 1
        held.running += 1
        if (held.slots <= held.low_at or now_s >= held.aging_s) and self._next is None and self._taking is None:
            self._take_ahead(now_s)
        self.leased += 1
        return Admission(_ALLOWED, held, data, scope)

    async def admit(self, *, data: Mapping[str, str] | None = None, scope: str | None = None) -> Admission:
        """The same, and where no lease decides: take one, or ask the service about this request, with a hold."""
        admission = self.try_admit(data=data, scope=scope)
        if admission is not None:
            return admission
        if self._now is None and (data is None or self._fits(data)):
            if self._taking is None:
                self._take_ahead(self._clock())
            if self._taking is not None:
                await asyncio.shield(self._taking)
                admission = self.try_admit(data=data, scope=scope)
                if admission is not None:
                    return admission
        whole = self._check.data if data is None else {**self._check.data, **data}
        reach = {name: values for name, values in self._check.reach.items() if name not in whole}
        check = msgspec.structs.replace(
            self._check,
            data=whole,
            reach=reach,
            scope=self._check.scope if scope is None else scope,
            hold_s=self._ttl_s,
        )
        self.asked += 1
        return Admission(await self._client.check(check, on_away=self._on_away), None, data, scope)

    def settle(self, admission: Admission, data: Mapping[str, Any], **more: Any) -> Usage:
        """The usage event of an admitted request, to be given to the reporter. `more`: other fields of Usage."""
        held = admission._under
        if held is not None:
            held.settle(data, ended=admission._end())
            token: str | None = held.lease.token
            self._look_at(held)
        else:
            admission._end()
            token = None if admission.hold is None else admission.hold.token
        return Usage(
            account=self._check.account,
            type=self._check.type or "",
            data=data,
            source=self._source,
            scope=self._check.scope if admission.scope is None else admission.scope,
            hold=token,
            **more,
        )

    async def release(self, admission: Admission) -> None:
        """Nothing was used. What was settled, or released before, stays as it is."""
        held = admission._under
        if not admission._end():
            return
        if held is not None:
            held.settle(None)
            self._look_at(held)
        elif admission.hold is not None:
            await self._client.release(admission.hold)

    @property
    def running(self) -> int:
        """Requests that a lease decided and that have not ended."""
        held = [each for each in (self._now, self._next, *self._old) if each is not None]
        return sum(each.running for each in held)

    # --------------------------------------------------------------------------------------------------------- renewing

    def _fits(self, data: Mapping[str, str]) -> bool:
        stated, reach = self._check.data, self._check.reach
        met = 0
        for name, value in data.items():
            if name in reach:
                if value not in reach[name]:
                    return False
                met += 1
            elif stated.get(name) != value:
                return False
        return met == len(reach)

    def _take_ahead(self, now_s: float) -> None:
        if now_s >= self._ask_again_s:
            self._taking = asyncio.create_task(self._take())

    async def _take(self) -> None:
        asked_s = self._clock()
        try:
            decision = await self._client.take_lease(self._check, self._requests, least=self._least, ttl_s=self._ttl_s)
        except (Unavailable, Refused) as error:
            _log.warning("no lease for %s: %s", self._check.account, error)
            self._ask_again_s = self._clock() + ASK_AGAIN_S
        else:
            if decision.lease is None:
                wait_s = ASK_AGAIN_S if decision.retry_after_s is None else decision.retry_after_s
                self._ask_again_s = self._clock() + max(ASK_AGAIN_S, wait_s)
            else:
                self._next = _Held(decision.lease, self._check.scope, asked_s + decision.lease.valid_for_s)
        finally:
            self._taking = None

    # ---------------------------------------------------------------------------------------------------------- closing

    def _retire(self, held: _Held) -> None:
        """It decides no more. Its last request may still run."""
        held.retired = True
        self._old.append(held)
        self._look_at(held)

    def _look_at(self, held: _Held) -> None:
        """Close a lease that is not used any more, once its last request has ended."""
        self._ended.set()
        if not held.retired or held.running or held.closing:
            return
        held.closing = True
        task = asyncio.create_task(self._close_lease(held))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _close_lease(self, held: _Held) -> None:
        try:
            await self._client.close_lease(held.lease.token, held.events)
        except (Unavailable, Refused) as error:
            _log.warning("lease %s was not closed, and ends by itself: %s", held.lease.id, error)
        if held in self._old:
            self._old.remove(held)

    async def _drained(self) -> None:
        """No request runs any more."""
        while any(held.running for held in self._old):
            self._ended.clear()
            await self._ended.wait()

    async def close(self) -> bool:
        """Admit nothing more, and give the leases back once the requests under them have ended; whether all of them have."""
        self._open = False
        if self._taking is not None:
            await asyncio.gather(self._taking, return_exceptions=True)
        for held in (self._now, self._next):
            if held is not None:
                self._retire(held)
        self._now = self._next = None
        with suppress(TimeoutError):
            # Not `asyncio.timeout`: in a task that was cancelled before, as by a group of tasks that failed, Python 3.11 ends
            # that by CancelledError, which would hide why the caller is closing.
            await asyncio.wait_for(self._drained(), self._drain_s)
        await asyncio.gather(*self._closing, return_exceptions=True)
        return not any(held.running for held in self._old)


def _nano(quantity: Decimal) -> int:
    return int(quantity * NANO)


def _used(fields: tuple[str, ...], data: Mapping[str, Any], promised: int) -> int:
    if not fields or any(name not in data for name in fields):
        return promised
    try:
        return sum(_nano(Decimal(str(data[name]))) for name in fields)
    except (ArithmeticError, ValueError):  # no number, or NaN: nothing is given back for it
        return promised
