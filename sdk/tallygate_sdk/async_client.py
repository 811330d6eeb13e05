"""The client for asyncio. It belongs to one event loop."""

import asyncio
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self, TypeVar

import httpx2
from tenacity import AsyncRetrying

from tallygate_sdk import calls
from tallygate_sdk.answers import (
    AccountBalance,
    Captured,
    Decision,
    Hold,
    LeaseClosed,
    LeaseDecision,
    Outcome,
    Released,
    Reported,
    Running,
)
from tallygate_sdk.calls import Call
from tallygate_sdk.errors import Unavailable
from tallygate_sdk.policy import CLOSED, FailurePolicy, carried_on_by, decided_by
from tallygate_sdk.questions import HOLD_S, Bound, Check, Usage
from tallygate_sdk.retrying import Recovering, settled, until

T = TypeVar("T")

CHECK_DEADLINE_S: Final = 2.0  # a takeover takes a second or two
DEADLINE_S: Final = 15.0


class AsyncClient:
    """Calls one service with one key.

    What was not answered is put again until the call's deadline. All of it is safe to repeat: usage by its id, a
    release by its token; a check whose answer was lost may leave a hold behind, which expires by itself. Then the call
    raises Unavailable, but for checks, which `on_away` decides. What the service refuses raises Refused at once."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        check_deadline_s: float = CHECK_DEADLINE_S,
        deadline_s: float = DEADLINE_S,
        on_away: FailurePolicy = CLOSED,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        """`transport`: another way to the service than the network."""
        self._check_deadline_s = check_deadline_s
        self._deadline_s = deadline_s
        self._on_away = on_away
        headers = {"authorization": f"Bearer {key}"}
        self._http = httpx2.AsyncClient(base_url=url, headers=headers, transport=transport, follow_redirects=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        await self._http.aclose()

    async def check(
        self, check: Check, *, deadline_s: float | None = None, on_away: FailurePolicy | None = None
    ) -> Decision:
        """May the request run? Never raises Unavailable: `on_away` decides where the service does not."""
        try:
            return await self._call(calls.check_call(check), self._check_deadline(deadline_s), settles=True)
        except Unavailable as error:
            last = error.decision if isinstance(error, Recovering) else None
            return decided_by(self._on_away if on_away is None else on_away, check, last)

    async def checks(self, checks: Sequence[Check], *, deadline_s: float | None = None) -> list[Outcome]:
        """An outcome for each of up to 100 checks, in their order. Put again only as a whole: see `Outcome.problem`."""
        return (await self._call(calls.checks_call(checks), self._check_deadline(deadline_s))).outcomes

    async def extend(
        self,
        hold: Hold | str,
        *,
        hold_s: float = HOLD_S,
        bounds: Sequence[Bound] = (),
        deadline_s: float | None = None,
    ) -> Decision:
        """Reserve more, or for longer, in a hold or by its token. The answer's hold replaces it."""
        call = calls.extend_call(_token(hold), hold_s, bounds)
        return await self._call(call, self._check_deadline(deadline_s), settles=True)

    async def carry_on(
        self,
        usage: Usage,
        ahead: Sequence[Bound],
        *,
        cheaper: Sequence[Mapping[str, str]] = (),
        hold_s: float = HOLD_S,
        deadline_s: float | None = None,
        on_away: FailurePolicy | None = None,
    ) -> Running:
        """May a stream that runs on a hold go on, and use what is `ahead`? `usage`: all that it has used by now, with its
        hold and `final=False`; with a `seq` it is rated too, as far as it is. `cheaper`: dimensions of requests that cost
        less, to be told which would still run. Never raises Unavailable: `on_away` decides where the service does not."""
        try:
            call = calls.carry_on_call(usage, ahead, cheaper, hold_s)
            return await self._call(call, self._check_deadline(deadline_s))
        except Unavailable:
            return carried_on_by(self._on_away if on_away is None else on_away, usage, ahead)

    async def capture(self, usage: Usage, *, deadline_s: float | None = None) -> Captured:
        """Settle the hold that the usage names. Returns once it is durable."""
        return await self._call(calls.capture_call(usage), self._deadline(deadline_s))

    async def release(self, hold: Hold | str, *, deadline_s: float | None = None) -> Released:
        """Nothing (more) was used: what is reserved is free at once."""
        return await self._call(calls.release_call(_token(hold)), self._deadline(deadline_s))

    async def report(self, usage: Sequence[Usage], *, deadline_s: float | None = None) -> Reported:
        """Send up to 1,000 usage events. Returns once they are durable; look at `refused`."""
        return await self.report_encoded([each.cloud_event() for each in usage], deadline_s=deadline_s)

    async def report_encoded(self, events: Sequence[bytes], *, deadline_s: float | None = None) -> Reported:
        """The same of events that were encoded before (`Usage.cloud_event`)."""
        return await self._call(calls.EventsCall(events), self._deadline(deadline_s))

    async def take_lease(
        self, check: Check, requests: int, *, least: int = 1, ttl_s: float = HOLD_S, deadline_s: float | None = None
    ) -> LeaseDecision:
        """So many requests, each at most as `check` says, to decide alone: see `LeaseHolder`, which does all of it.

        Not put again, as one whose answer was lost holds what it holds until it ends. Raises Unavailable, Refused."""
        call = calls.take_lease_call(check, requests, least, ttl_s)
        return await self._once(call, asyncio.get_running_loop().time() + self._check_deadline(deadline_s))

    async def close_lease(self, token: str, events: int, *, deadline_s: float | None = None) -> LeaseClosed:
        """No more is decided by it, and so many usage events name it, sent or still in the spool."""
        return await self._call(calls.close_lease_call(token, events), self._deadline(deadline_s))

    async def balance(self, account: str, *, deadline_s: float | None = None) -> AccountBalance:
        """What the account has."""
        return await self._call(calls.balance_call(account), self._deadline(deadline_s))

    def _check_deadline(self, deadline_s: float | None) -> float:
        return self._check_deadline_s if deadline_s is None else deadline_s

    def _deadline(self, deadline_s: float | None) -> float:
        return self._deadline_s if deadline_s is None else deadline_s

    async def _call(self, call: Call[T], deadline_s: float, *, settles: bool = False) -> T:
        until_s = asyncio.get_running_loop().time() + deadline_s
        async for attempt in AsyncRetrying(**until(deadline_s)):
            with attempt:
                answer = await self._once(call, until_s)
                if settles and isinstance(answer, Decision):
                    settled(answer)
                return answer
        raise AssertionError("the loop ends by an answer or an error")

    async def _once(self, call: Call[T], until_s: float) -> T:
        try:
            async with asyncio.timeout_at(until_s):
                answer = await self._http.request(
                    call.method, call.path, content=call.body, headers=call.headers, timeout=None
                )
        except (httpx2.TransportError, TimeoutError) as error:
            raise Unavailable(f"{self._http.base_url}: nobody answered ({type(error).__name__})") from error
        return call.read(answer.status_code, answer.headers, answer.content)


def _token(hold: Hold | str) -> str:
    return hold if isinstance(hold, str) else hold.token
