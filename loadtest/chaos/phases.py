"""The phases of a chaos run that need no Ray: pauses, cuts, a full disk; each on a deployment of its own, under load.

Every one of them ends with the same questions (`loadtest/chaos/judgement.py`): what the verifier makes of what is left, what
Postgres itself says was done to the partitions, and whether anything was struck at all.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from enum import StrEnum
from itertools import cycle, islice, product
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any, Final

import msgspec
from msgspec import Struct

from actors.deployment import NotReady
from config.stack.kafka import KafkaBroker, Listener, start_kafka
from config.stack.ports import free_ports
from config.stack.postgres import start_postgres
from config.stack.supervisor import Say, Supervisor
from loadtest.chaos import packets
from loadtest.chaos.commits import CommitFault
from loadtest.chaos.cuts import WAYS, Server, cut, cut_commit, delay, lose, reset
from loadtest.chaos.disk import (
    DiskUnavailable,
    FullDisk,
    database_on_small_disk,
    fill_log,
    fill_tables,
    postgres_with_small_log,
    why_not,
)
from loadtest.chaos.judgement import Judged
from loadtest.chaos.links import LinkedShards, linked_shards
from loadtest.chaos.packets import PacketsFailed
from loadtest.chaos.pauses import Moment, Pause, pause
from loadtest.chaos.report import Report
from loadtest.processes import ProcessFailed

PAUSE_S: Final = (2.0, 40.0)
CUT_S: Final = (1.0, 10.0)
FULL_S: Final = (2.0, 6.0)
ROUND_TRIP_S: Final = (0.1, 0.3)
LOST_SHARE: Final = (0.05, 0.1)
WEATHER_S: Final = 10.0
NONE_ASKED_FOR: Final = "no fault was asked for"
COMMIT_FAULTS: Final = (CommitFault.BEFORE, CommitFault.AFTER, CommitFault.LATE, CommitFault.SILENT)


class Phase(StrEnum):
    """What a run does. The kills need a Ray, and stand in `loadtest/chaos/run.py`."""

    KILLS = "kills"
    PAUSES = "pauses"
    CUTS = "cuts"
    DISK = "disk"
    PACKETS = "packets"


class Counts(Struct, frozen=True):
    """How often each fault strikes."""

    pauses: int = 20
    commits: int = 40  # COMMITs cut
    cuts: int = 12  # of the way to a server, one way and both
    weather: int = 2  # times of delay, and as many of lost connections
    packets: int = 3  # ways in which packets to either server are dropped
    disks: int = 2

    def of(self, phase: Phase) -> int:
        """All faults of a phase; of packets the ways, each of which is tried on two servers."""
        return {
            Phase.PAUSES: self.pauses,
            Phase.CUTS: self.commits + self.cuts + self.weather,
            Phase.DISK: self.disks,
            Phase.PACKETS: self.packets,
        }[phase]


class Servers(Struct, frozen=True):
    """A Postgres and a Kafka of the run's own."""

    supervisor: Supervisor
    superuser_dsn: str
    broker: KafkaBroker


async def run_phases(phases: list[Phase], counts: Counts, seed: int, run_dir: Path, report: Report, say: Say) -> None:
    """Each in turn, into the report. What was started is stopped, however it ends."""
    if not phases:
        return
    with Supervisor(run_dir, say=say) as supervisor:
        ports = free_ports(4)
        listeners = [Listener("FIRST", ports[0], ports[1]), Listener("SECOND", ports[2], ports[3])]
        servers = Servers(
            supervisor,
            await asyncio.to_thread(lambda: start_postgres(supervisor).superuser_dsn),
            await asyncio.to_thread(lambda: start_kafka(supervisor, listeners=listeners)),
        )
        for phase in phases:
            if not counts.of(phase):
                report.leave_out(phase, NONE_ASKED_FOR, say)
                continue
            say(f"{phase}: two shards on ways of their own")
            try:
                await _PHASES[phase](servers, counts, Random(f"{seed}/{phase}"), report, say)
            except (NotReady, ProcessFailed, PacketsFailed, DiskUnavailable, TimeoutError) as failure:
                # What the other phases have found must not go with it.
                _add(report, phase, {}, [f"{type(failure).__name__}: {failure}"])


async def _pauses(servers: Servers, counts: Counts, random: Random, report: Report, say: Say) -> None:
    made: list[Pause] = []
    async with _judged(servers, Phase.PAUSES, report, say) as run, run.load():
        for moment in islice(cycle(Moment), counts.pauses):
            # Even over the logarithm: most are short, and some as long as a machine sleeps.
            seconds = PAUSE_S[0] * (PAUSE_S[1] / PAUSE_S[0]) ** random.random()
            made.append(await pause(run, await run.busy(), seconds, moment))
            report.struck(f"pause.{moment}", made[-1].takeover_s)
            say(f"pauses: {len(made)} of {counts.pauses}, {seconds:.1f} s, taken over in {made[-1].takeover_s:.2f} s")
    figures = {
        "pauses": len(made),
        "asleep_s": round(sum(each.seconds for each in made), 1),
        "answered_by_a_sleeper": sum(each.sleeper_answered for each in made),
        "late_commits_accepted": sum(each.late_commit_took_effect for each in made),
    }
    _add(report, Phase.PAUSES, figures, [sentence for each in made for sentence in each.sentences])


async def _cuts(servers: Servers, counts: Counts, random: Random, report: Report, say: Say) -> None:
    outcomes: Counter[str] = Counter()
    effects: Counter[str] = Counter()  # of faults by kind: bytes swallowed, connections broken
    broken = 0
    async with _judged(servers, Phase.CUTS, report, say) as run, run.load():
        for number, fault in enumerate(islice(cycle(COMMIT_FAULTS), counts.commits), start=1):
            made = await cut_commit(run, await run.busy(), fault, random)
            outcomes[f"{fault}: {'took effect' if made.took_effect else 'did not'}"] += 1
            report.struck(f"commit.{fault}")
            say(f"cuts: {number} of {counts.commits} COMMITs, {fault}")
        for server, name in islice(cycle(product(Server, WAYS)), counts.cuts):
            seconds = random.uniform(*CUT_S)
            effects[f"cut.{server}.{name}"] += await cut(run, await run.busy(), server, WAYS[name], seconds)
            report.struck(f"cut.{server}.{name}")
            say(f"cuts: {server}, {name}, {seconds:.1f} s")
        for _ in range(counts.weather):
            await delay(run, await run.busy(), ROUND_TRIP_S, WEATHER_S)
            report.struck("delay")
            broken += await lose(run, await run.busy(), random.uniform(*LOST_SHARE), WEATHER_S)
            report.struck("loss")
            for server in Server:
                effects[f"reset.{server}"] += await reset(run, await run.busy(), server)
                report.struck(f"reset.{server}")
            say("cuts: delay, loss, resets")
        swallowed = sum(link.postgres.swallowed_bytes + link.kafka.swallowed_bytes for link in run.links)
        refused = sum(link.postgres.refused + link.kafka.refused for link in run.links)
    if counts.weather:
        effects["loss"] = broken + refused
    figures = {
        "commits": dict(sorted(outcomes.items())),
        "swallowed_bytes": swallowed,
        "connections_broken": broken,
        "connections_refused": refused,
    }
    _add(report, Phase.CUTS, figures, without_effect(effects))


async def _packets(servers: Servers, counts: Counts, random: Random, report: Report, say: Say) -> None:
    """In a namespace of its own, with servers of its own."""
    if (reason := packets.why_not()) is not None:
        report.leave_out(Phase.PACKETS, reason, say)
        return
    folder = servers.supervisor.run_dir / "packets"
    ways = list(islice(cycle(WAYS), counts.packets))
    made = await packets.cut_packets(folder, random.uniform(*CUT_S), ways)
    for server, way in product(Server, ways):
        report.struck(f"packets.{server}.{way}")
    made.judged.count(report, made.events)
    figures = _figures_of(made.judged) | {"packets_dropped": made.cuts, "declared_dead": made.declared_dead}
    _add(report, Phase.PACKETS, figures, [*made.judged.wrong, *without_effect(made.cuts)])
    say(f"packets: dropped {made.cuts}")


async def _disk(servers: Servers, counts: Counts, random: Random, report: Report, say: Say) -> None:
    if (reason := why_not()) is not None:
        report.leave_out(Phase.DISK, reason, say)
        return
    full: list[FullDisk] = []
    for number in range(counts.disks):
        seconds = random.uniform(*FULL_S)
        if number % 2 == 0:
            async with database_on_small_disk(servers.superuser_dsn) as (database, disk):
                here = msgspec.structs.replace(servers, superuser_dsn=database)
                async with _judged(here, Phase.DISK, report, say) as run, run.load():
                    full.append(await fill_tables(run, disk, database, seconds))
                    report.struck("disk_full.tables")
        else:
            with (
                Supervisor(servers.supervisor.run_dir / "small-log", say=say) as own,
                postgres_with_small_log(own) as (server, disk),
            ):
                here = msgspec.structs.replace(servers, superuser_dsn=server.superuser_dsn)
                async with _judged(here, Phase.DISK, report, say) as run, run.load():
                    full.append(await fill_log(run, own, server, disk, seconds))
                    report.struck("disk_full.log")
        say(f"disk: full for {full[-1].seconds:.1f} s; {full[-1].refused}; checks: {full[-1].answers}")
    asked = {f"disk {number}: checks while it was full": len(each.answers) for number, each in enumerate(full, start=1)}
    _add(report, Phase.DISK, {"full": [msgspec.to_builtins(each) for each in full]}, without_effect(asked))


_PHASES: Final[dict[Phase, Callable[[Servers, Counts, Random, Report, Say], Awaitable[None]]]] = {
    Phase.PAUSES: _pauses,
    Phase.CUTS: _cuts,
    Phase.DISK: _disk,
    Phase.PACKETS: _packets,
}


@asynccontextmanager
async def _judged(servers: Servers, phase: Phase, report: Report, say: Say) -> AsyncIterator[LinkedShards]:
    """A deployment of the phase's own; behind the block everything has stopped, and stands in the report."""
    folder = Path(mkdtemp(prefix=f"{phase}-", dir=servers.supervisor.run_dir))  # the logs stay, for whoever asks
    struck_before = sum(report.faults.values())
    async with linked_shards(
        servers.superuser_dsn, servers.broker.bootstrap_servers, servers.broker.listeners, folder
    ) as run:
        yield run
        await run.end()
        judged = await run.judged(sum(report.faults.values()) - struck_before, say)
    judged.count(report, run.acknowledged.events)
    _add(report, phase, _figures_of(judged) | {"declared_dead": run.left}, judged.wrong)


def _figures_of(judged: Judged) -> dict[str, Any]:
    """Without what only gateways that ask before they spend could show: there are none here, so 0 would say nothing."""
    figures = {name: figure for name, figure in judged.figures.items() if name not in ("overspend", "answers_backed")}
    return figures | {"epochs": judged.history.claims, "stale_commits_accepted": judged.history.stale}


def without_effect(effects: Mapping[str, int]) -> list[str]:
    """The faults, by what each of them came to, that came to nothing; as sentences."""
    return [f"{kind}: 0, so that it proves nothing" for kind, effect in sorted(effects.items()) if not effect]


def _add(report: Report, phase: Phase, figures: Mapping[str, Any], wrong: Iterable[str]) -> None:
    """To what the phase has said before; numbers under the same name are summed."""
    known = dict(report.phases.get(phase, {}))
    for name, figure in figures.items():
        known[name] = _sum(known[name], figure) if name in known else figure
    report.add(phase, known, wrong)


def _sum(known: Any, figure: Any) -> Any:
    """Of numbers, and of those of a table under the same name; of anything else the last."""
    if isinstance(known, int):
        return known + figure
    if isinstance(known, dict):
        return known | {name: _sum(known[name], count) if name in known else count for name, count in figure.items()}
    return figure
