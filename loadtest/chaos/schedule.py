"""Which faults strike in which order, and the act of striking: never before the deployment is whole again."""

from collections.abc import Collection, Sequence
from random import Random
from typing import Final

from loadtest.chaos.faults import (
    Kill,
    KillAllShards,
    KillBackend,
    KillBroker,
    KillController,
    KillDriver,
    KillPostmaster,
    KillRaylet,
    KillReplica,
    KillShard,
)
from loadtest.chaos.report import Report
from loadtest.chaos.stage import Stage

# How often each kind strikes, of a hundred; a short run takes the first ones. A raylet or a driver takes many seconds of
# both cores to come back, and a raylet that has to wait for them crashes and is started once more.
SHARES: Final[dict[type[Kill], int]] = {
    KillShard: 30,
    KillBroker: 8,
    KillPostmaster: 8,
    KillController: 12,
    KillBackend: 14,
    KillReplica: 12,
    KillAllShards: 5,
    KillRaylet: 6,
    KillDriver: 5,
}


def plan(kills: int, seed: int, among: Collection[str] = ()) -> list[type[Kill]]:
    """`kills` faults, of as many kinds as there is room for; the same seed gives the same. `among` names the kinds, all
    of them if it is empty."""
    source = Random(seed)
    kinds = [kind for kind in SHARES if not among or kind.kind in among]
    chosen = kinds[:kills] if kills < len(kinds) else list(kinds)
    chosen += source.choices(kinds, [SHARES[kind] for kind in kinds], k=kills - len(chosen))
    source.shuffle(chosen)
    return chosen


async def strike_all(stage: Stage, faults: Sequence[type[Kill]], seed: int, every_s: float, report: Report) -> None:
    """One after the other, `every_s` apart or as soon as the deployment is whole again. Raises StageFailed."""
    source = Random(seed)
    started_s = stage.clock.boot_s()
    for number, make in enumerate(faults):
        await stage.clock.sleep(max(0.0, started_s + number * every_s - stage.clock.boot_s()))
        await _strike(stage, make(stage, source), f"{number + 1}/{len(faults)}", report)


async def _strike(stage: Stage, fault: Kill, count: str, report: Report) -> None:
    struck_s = stage.clock.boot_s()
    whom = await fault.strike()
    stage.say(f"{count} SIGKILL to {whom}")
    await fault.mend()
    # What reached the log before the wound was closed must come into a checkpoint: a voice alone proves too little.
    ends = await _ends(stage)

    async def amiss() -> str | None:
        return await stage.amiss() or await stage.behind(ends)

    await stage.until(amiss, f"the deployment to be whole after SIGKILL to {whom}")
    silence_s = stage.voices.silence_s(struck_s)
    report.struck(fault.kind, silence_s)
    whole_s = stage.clock.boot_s() - struck_s
    stage.say(f"{count} silent for {silence_s:.2f} s, whole after {whole_s:.1f} s")


async def _ends(stage: Stage) -> dict[int, int]:
    ends: dict[int, int] = {}

    async def unknown() -> str | None:
        found = await stage.log_ends()
        ends.update(found or {})
        return None if found else "Kafka does not say where the log ends"

    await stage.until(unknown, "Kafka to answer")
    return ends
