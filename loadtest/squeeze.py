"""The proof: many callers, many nearly empty wallets, owners that die all the time, and still nobody overspends.

Callers ask as fast as they are answered, and use up what they were allowed. Every few seconds a shard that owns
partitions is killed. When all holds have expired, the run is judged by what the log says and by nothing else.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

import msgspec
import numpy as np
from msgspec import Struct

from actors.ports import Clock
from loadtest.fronts import Front
from loadtest.gateways import Fleet, Request, requests
from loadtest.journal import Journal, judge_denials, judge_usage, overspend
from loadtest.verify import Verdict
from loadtest.workload import Workload

AT_ONCE_S: Final = 0.001  # the whole stream is due at once: what paces it is the callers
# Of what the account would spend if every request were allowed. They run dry one after the other, so that whenever an
# owner dies some wallet is at its end: only there can an approval too many be seen.
WALLET_PERCENTS: Final = tuple(range(4, 84, 4))


class Squeezed(Struct):
    """What a run came to."""

    allowed: int
    denied: int
    reasons: dict[str, int]
    kills: int
    retries: int
    overspend_pico: int
    holds_open_at_end: int
    answers_backed: int
    sentences: list[str]  # none when the proof holds


class Squeeze:
    """One run over `workload`, whose calls are due at once (`AT_ONCE_S`)."""

    def __init__(
        self, front: Front, clock: Clock, workload: Workload, *, ttl_s: float, slow_share: float, kill_every_s: float
    ) -> None:
        """A `slow_share` of the requests keeps its hold open for longer than a takeover takes: what a dead owner
        approved is then still under way while the next one approves."""
        self.journal = Journal()
        self.kills = 0
        self._clock = clock
        self._workload = workload
        self._kill_every_s = kill_every_s
        self._fleet = Fleet(front, clock, self.journal, run="squeeze", ttl_s=ttl_s)
        self._slow_share = slow_share
        self._slow_s = ttl_s / 2

    async def run(self, kill: Callable[[], Awaitable[None]]) -> None:
        """Until the last call has ended. `kill` ends an owner, and returns when another speaks for its partitions."""
        killing = asyncio.create_task(self._kill(kill))
        calling = asyncio.create_task(self._fleet.run(self._requests()))
        try:
            await asyncio.wait({killing, calling}, return_when=asyncio.FIRST_COMPLETED)
            if killing.done():
                await killing  # it ends only by an error, which is the run's
            await calling
        finally:
            for task in (killing, calling):
                task.cancel()
            await asyncio.gather(killing, calling, return_exceptions=True)

    def _requests(self) -> Iterator[Request]:
        """Every answer is as long as it may be, so that one approval too many is seen in the wallet."""
        slow = np.random.default_rng(self._workload.seed).random(self._workload.events) < self._slow_share
        for request, is_slow in zip(requests(self._workload), slow.tolist(), strict=True):
            yield msgspec.structs.replace(
                request, output_max=request.output_tokens, part_s=self._slow_s if is_slow else 0.0
            )

    async def _kill(self, kill: Callable[[], Awaitable[None]]) -> None:
        while True:
            await self._clock.sleep(self._kill_every_s)
            self.kills += 1
            await kill()

    def judge(self, verdict: Verdict, holds_open: int, retries: int) -> Squeezed:
        """The verdict was made with this journal."""
        over = overspend(verdict.accounts, dict.fromkeys(self._workload.customers, 0))
        sentences = [
            *verdict.differences,
            *judge_usage(self.journal, verdict.rated.values(), self._fleet.sources),
            *judge_denials(self.journal),
        ]
        if over:
            sentences.append(f"overspend: {over} pico beyond the wallets of accounts whose whole usage was held")
        if holds_open:
            sentences.append(
                f"{holds_open} holds are open, although every one has been settled, released or has expired"
            )
        placed = sum(decided.answer.offset is not None for decided in self.journal.decided)  # `recovering` has no place
        if verdict.answers_backed < placed:
            sentences.append(f"only {verdict.answers_backed} of {placed} answers could be held against the log")
        return Squeezed(
            self.journal.allowed,
            self.journal.denied,
            self.journal.reasons(),
            self.kills,
            retries,
            over,
            holds_open,
            verdict.answers_backed,
            sentences,
        )
