"""Sixteen gateways that ask before they spend.

Each takes the next request of a stream, checks with a hold, obeys a denial, and settles what it was allowed: in one
event, in several while the answer streams, by a release when nothing was used, or, where a gateway crashes, not at all.
Whatever it was told and whatever it sent goes into the journal.
"""

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

import numpy as np
from msgspec import Struct

from actors.ports import Clock
from engine.cost.served import Status
from loadtest.fronts import Ask, Bound, Front, Refused, Unanswered, Usage
from loadtest.journal import CheckAnswer, Decided, Journal, Sent
from loadtest.workload import EVENT_TYPE, Workload, cloud_time, decimal

GATEWAYS: Final = 16
SLOTS_EACH: Final = 4  # requests that one gateway answers side by side
STREAM_SHARE: Final = 0.10
ABORT_SHARE: Final = 0.03
CRASH_SHARE: Final = 0.01
ASK_AGAIN_MAX_S: Final = 1.0
CHUNKS: Final = 3  # events of a streamed answer
WALLET_PERCENTS: Final = (50, 90, 400)  # two of three run dry
WALLET_MIN_PICO: Final = 10**10
OUTPUT_STEP: Final = 256  # a caller asks for a round number of output tokens, not for what it will get


class Fate(StrEnum):
    """How a request will end, if it is allowed."""

    ANSWERED = "answered"
    STREAMED = "streamed"  # longer than first asked for: captured in parts, extended on the way
    ABORTED = "aborted"  # the caller hung up before the first token: released
    CRASHED = "crashed"  # the gateway died: the hold is left to expire


class Request(Struct, frozen=True):
    """One request of a caller, `at_s` seconds after the start."""

    number: int
    at_s: float
    account: str
    model: str
    input_tokens: int
    output_tokens: int
    output_max: int  # what the caller gave as the most it wants
    fate: Fate
    part_s: float = 0.0  # how long it takes to make one part of the answer


def fates(seed: int, count: int) -> Iterator[Fate]:
    """How `count` requests end; the same seed gives the same."""
    drawn = np.random.default_rng(seed).random(count)
    edges = np.cumsum([CRASH_SHARE, ABORT_SHARE, STREAM_SHARE])
    kinds = (Fate.CRASHED, Fate.ABORTED, Fate.STREAMED, Fate.ANSWERED)
    for position in np.searchsorted(edges, drawn, side="right").tolist():
        yield kinds[position]


def requests(workload: Workload, part_s: float = 0.0, first: int = 0) -> Iterator[Request]:
    """The workload's calls, each with its fate, numbered from `first`."""
    drawn = fates(workload.seed, workload.events)
    for number, (call, fate) in enumerate(zip(workload.calls(), drawn, strict=True), start=first):
        output = max(CHUNKS, call.output_tokens)
        most = (output // OUTPUT_STEP + 1) * OUTPUT_STEP
        yield Request(number, call.at_s, call.customer, call.model, call.input_tokens, output, most, fate, part_s)


def wallets(workload: Workload, percents: Sequence[int] = WALLET_PERCENTS) -> list[dict[str, Any]]:
    """The commands that open the accounts: prepaid, without overdraft. A wallet holds one of `percents` of what its
    owner would spend if every request were allowed."""
    commands: list[dict[str, Any]] = []
    for number, account in enumerate(workload.customers):
        amount = max(workload.spend_pico[number], WALLET_MIN_PICO) * percents[number % len(percents)] // 100
        steps: list[dict[str, Any]] = [
            {"kind": "open_account", "plan": workload.plans[number]},
            {"kind": "grant", "lot": "prepaid", "lot_kind": "paid", "amount": decimal(amount), "currency": "USD"},
        ]
        commands += [
            step | {"account": account, "command_key": f"setup-{account}-{position}"}
            for position, step in enumerate(steps)
        ]
    return commands


# Told when a model has run: the account, the id of the usage event to come, the model, its tokens in and out, how it ended.
Ran = Callable[[str, str, str, int, int, Status], None]


class Fleet:
    """Takes `requests` in their order; at most `gateways` x `slots_each` are under way at once."""

    def __init__(
        self,
        front: Front,
        clock: Clock,
        journal: Journal,
        *,
        run: str,
        ttl_s: float,
        gateways: int = GATEWAYS,
        slots_each: int = SLOTS_EACH,
        ran: Ran = lambda *_: None,
    ) -> None:
        """`run` makes ids and sources of this fleet's own."""
        self.journal = journal
        self.behind_s = 0.0  # how late the last request began
        self.sources = [f"{run}-gateway-{number}" for number in range(1, gateways + 1)]
        self._front = front
        self._clock = clock
        self._run = run
        self._ttl_s = ttl_s
        self._slots_each = slots_each
        self._ran = ran

    async def run(self, requests: Iterable[Request]) -> None:
        """Returns when the last request has ended."""
        stream = iter(requests)
        start_s = self._clock.boot_s()
        slots = [
            asyncio.create_task(self._work(source, stream, start_s))
            for source in self.sources
            for _ in range(self._slots_each)
        ]
        try:
            await asyncio.gather(*slots)
        finally:
            for slot in slots:
                slot.cancel()
            await asyncio.gather(*slots, return_exceptions=True)

    async def _work(self, source: str, stream: Iterator[Request], start_s: float) -> None:
        for request in stream:
            ahead_s = start_s + request.at_s - self._clock.boot_s()
            self.behind_s = max(0.0, -ahead_s)
            if ahead_s > 0:
                await self._clock.sleep(ahead_s)
            try:
                await self._serve(source, request)
            except Unanswered:
                self.journal.counts["unanswered"] += 1
            except Refused as error:
                self.journal.faults.append(f"account {request.account}, request {request.number}: {error}")

    async def _serve(self, source: str, request: Request) -> None:
        answer = await self._ask(request)
        self.journal.decided.append(Decided(request.number, request.account, answer))
        if not answer.allowed:
            return
        if answer.token is None or answer.hold is None:
            raise Refused("allowed, but no hold came with it")
        self.journal.counts[request.fate] += 1
        await self._make_part(request)
        if request.fate is Fate.CRASHED:
            self._tell(request, 0, request.input_tokens, request.output_tokens, Status.ABORTED)
            return
        if request.fate is Fate.ABORTED:
            self._tell(request, 0, request.input_tokens, 0, Status.ABORTED)
            await self._front.release(answer.token)
        elif request.fate is Fate.STREAMED:
            await self._stream(source, request, answer.hold, answer.token)
        else:
            data = _data(request, request.input_tokens, request.output_tokens)
            await self._capture(source, request, answer.hold, answer.token, 0, data, final=True)

    async def _make_part(self, request: Request) -> None:
        if request.part_s:
            await self._clock.sleep(request.part_s)

    async def _ask(self, request: Request) -> CheckAnswer:
        """Check; a denial that will soon have passed by itself is asked once more."""
        ask = Ask(request.account, EVENT_TYPE, {"model": request.model}, self._bounds(request), self._ttl_s)
        answer = await self._timed(ask)
        pause_s = answer.retry_after_s
        if not answer.allowed and answer.transient and pause_s is not None and pause_s <= ASK_AGAIN_MAX_S:
            self.journal.counts["asked_again"] += 1
            await self._clock.sleep(pause_s)
            answer = await self._timed(ask)
        return answer

    async def _timed(self, ask: Ask) -> CheckAnswer:
        asked_s = self._clock.boot_s()
        answer = await self._front.check(ask)
        self.journal.check_ms.append((self._clock.boot_s() - asked_s) * 1000)
        return answer

    def _bounds(self, request: Request) -> tuple[Bound, ...]:
        output = _first_part(request) if request.fate is Fate.STREAMED else request.output_max
        return (Bound(("input_tokens",), request.input_tokens), Bound(("output_tokens",), output))

    async def _stream(self, source: str, request: Request, hold: str, token: str) -> None:
        """The input and a third of the output first; then more, as far as the extension is granted."""
        first = _first_part(request)
        await self._capture(source, request, hold, token, 0, _data(request, request.input_tokens, first), final=False)
        await self._make_part(request)
        rest = request.output_tokens - first
        longer = await self._front.extend(token, (Bound(("output_tokens",), rest),), self._ttl_s)
        if not longer.allowed:
            self.journal.counts["cut_short"] += 1
            await self._capture(source, request, hold, token, 1, _data(request, 0, 0), final=True)
            return
        token = longer.token or token
        part = rest // (CHUNKS - 1)
        for number in range(1, CHUNKS):
            final = number == CHUNKS - 1
            output = rest - part * (CHUNKS - 2) if final else part
            await self._capture(source, request, hold, token, number, _data(request, 0, output), final=final)
            await self._make_part(request)

    async def _capture(
        self, source: str, request: Request, hold: str, token: str, part: int, data: dict[str, Any], *, final: bool
    ) -> None:
        event_id = self._event_id(request, part)
        self._tell(request, part, data["input_tokens"], data["output_tokens"], Status.OK)
        sent = Sent(request.number, request.account, source, event_id, hold)
        self.journal.sent.append(sent)
        time = cloud_time(self._clock.wall_us())
        await self._front.capture(Usage(request.account, source, event_id, EVENT_TYPE, time, data, token, final))
        sent.acknowledged = True

    def _event_id(self, request: Request, part: int) -> str:
        return f"{self._run}-{request.number}-{part}"

    def _tell(self, request: Request, part: int, input_tokens: int, output_tokens: int, status: Status) -> None:
        event_id = self._event_id(request, part)
        self._ran(request.account, event_id, request.model, input_tokens, output_tokens, status)


def _first_part(request: Request) -> int:
    return max(1, request.output_tokens // CHUNKS)


def _data(request: Request, input_tokens: int, output_tokens: int) -> dict[str, Any]:
    return {"model": request.model, "input_tokens": input_tokens, "output_tokens": output_tokens}
