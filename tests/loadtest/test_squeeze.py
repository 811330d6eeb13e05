"""The run's own parts; the run itself, on real shards, is tests/integration/test_squeeze.py."""

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from actors.clock import SystemClock
from config.catalogue import load_file
from engine.catalog import document_json
from loadtest.fronts import Ask, Bound, Usage
from loadtest.journal import CheckAnswer
from loadtest.oracle.accounts import OracleAccount, Rated
from loadtest.squeeze import AT_ONCE_S, Squeeze
from loadtest.verify import Verdict
from loadtest.workload import Workload

CATALOGUE_FILE = Path(__file__).parents[2] / "config" / "catalogue.example.yaml"
CHECKS = 200


class Generous:
    """Allows everything, and rates what is captured."""

    def __init__(self, pause_s: float = 0.0) -> None:
        self.rated: list[Rated] = []
        self._pause_s = pause_s

    async def check(self, ask: Ask) -> CheckAnswer:
        await asyncio.sleep(self._pause_s)
        return CheckAnswer(True, None, False, None, 1, 9, 0, 9, 0, 0, 1, 1, "0.1.1", "token", 5.0)

    async def extend(self, token: str, bounds: tuple[Bound, ...], ttl_s: float) -> CheckAnswer:
        return await self.check(Ask("", "", {}, (), ttl_s))

    async def capture(self, usage: Usage) -> None:
        self.rated.append(Rated(usage.account, usage.source, usage.id, {}))

    async def release(self, token: str) -> None:
        return None


def workload() -> Workload:
    catalogue = orjson.loads(document_json(load_file(CATALOGUE_FILE)))
    return Workload(1, CHECKS, 5, None, AT_ONCE_S, catalogue=catalogue, prefix="sqz")


def verdict(rated: list[Rated], **others: Any) -> Verdict:
    places = {(0, offset): event for offset, event in enumerate(rated)}
    accounts = {"sqz_0001": OracleAccount("starter", "USD", {}, {}, {}, others.pop("debt", 0), 0, {}, {})}
    given: dict[str, Any] = {"differences": [], "answers_backed": CHECKS} | others
    return Verdict(Counter(), 0, 0, 0, 0, given["differences"], accounts, places, given["answers_backed"])


async def squeezed(front: Generous) -> Squeeze:
    made = Squeeze(front, SystemClock(), workload(), ttl_s=0.02, slow_share=0.1, kill_every_s=0.01)

    async def kill() -> None:
        await asyncio.sleep(0)

    await made.run(kill)
    return made


async def test_callers_work_while_owners_die() -> None:
    front = Generous(pause_s=0.01)
    made = await squeezed(front)
    assert made.kills > 0 and made.journal.allowed == CHECKS
    outcome = made.judge(verdict(front.rated), 0, 3)
    assert outcome.sentences == [] and (outcome.overspend_pico, outcome.retries) == (0, 3)


async def test_each_way_to_fail_the_proof_is_a_sentence() -> None:
    front = Generous()
    made = await squeezed(front)
    for found, holds_open, says in (
        (verdict(front.rated, debt=7), 0, "overspend: 7 pico"),
        (verdict(front.rated), 2, "2 holds are open"),
        (verdict(front.rated[1:]), 0, "found 0 times"),
        (verdict(front.rated, differences=["the engine differs"]), 0, "the engine differs"),
        (verdict(front.rated, answers_backed=CHECKS - 1), 0, "only 199 of 200"),
    ):
        (sentence,) = made.judge(found, holds_open, 0).sentences
        assert says in sentence


async def test_a_shard_that_cannot_be_killed_ends_the_run() -> None:
    made = Squeeze(Generous(pause_s=1.0), SystemClock(), workload(), ttl_s=0.02, slow_share=0.1, kill_every_s=0.01)

    async def kill() -> None:
        raise RuntimeError("nobody took over")

    with pytest.raises(RuntimeError, match="nobody took over"):
        await made.run(kill)
