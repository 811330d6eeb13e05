"""One run from start to end: a stage, load on it, faults while the load goes on, and the verdict."""

import asyncio
import shutil
from pathlib import Path
from typing import Final

import orjson
import uvloop
from msgspec import Struct

from actors.publication import publish
from config.catalogue import load_file
from config.stack.supervisor import Say, Supervisor
from engine.catalog import document_json
from loadtest.chaos.acknowledged import Acknowledged
from loadtest.chaos.faults import Kill
from loadtest.chaos.judgement import judge_run
from loadtest.chaos.report import Report
from loadtest.chaos.schedule import strike_all
from loadtest.chaos.stage import Stage, StageFailed, StageOptions, kafka_dir, open_stage
from loadtest.chaos.traffic import Load, Traffic
from loadtest.deployment import CATALOGUE_FILE
from loadtest.report import percentiles

CATALOGUE_VERSION: Final = 1
SETTLE_S: Final = 300.0  # for the rest of the load to be rated and told, once nothing strikes any more
SHOW_EVERY_S: Final = 10.0
EXPIRY_SLACK_S: Final = 60.0


class Options(Struct, frozen=True):
    """What a run was asked for."""

    events: int  # at least
    seed: int
    per_s: float
    run_dir: Path
    stage: StageOptions = StageOptions()


def run(options: Options, faults: list[type[Kill]], say: Say, report: Report) -> None:
    """Fill the report. Raises StageFailed. Whatever was started is stopped by pid, however it ends."""
    with Supervisor(options.run_dir, say=say) as supervisor:
        # An earlier run's log, met again, would be this one's: with the same seed, even the events have the same names.
        shutil.rmtree(kafka_dir(supervisor), ignore_errors=True)
        shutil.rmtree(_journal_dir(options), ignore_errors=True)
        stage = open_stage(supervisor, options.stage, say)
        uvloop.run(_run(stage, options, faults, report))


async def _run(stage: Stage, options: Options, faults: list[type[Kill]], report: Report) -> None:
    catalogue = document_json(load_file(CATALOGUE_FILE))
    acknowledged = Acknowledged(_journal_dir(options), options.stage.partitions)
    async with stage.running():
        await publish(
            load_file(CATALOGUE_FILE),
            store=stage.store,
            log=stage.log,
            clock=stage.clock,
            topic=stage.settings.kafka.topic_usage,
            control_key=stage.settings.control_key_bytes(),
        )
        load = Load(options.events, options.per_s, options.seed)

        async def folded(ends: dict[int, int]) -> None:
            await stage.until(lambda: stage.folded(ends), "the owners to read what opens the accounts of a round")

        ttl_s = options.stage.hold_ttl_s
        traffic = Traffic(stage.settings, stage.clock, orjson.loads(catalogue), load, ttl_s, acknowledged, folded)
        async with traffic.opened():
            await _under_load(stage, options, faults, traffic, acknowledged, report)
        await _settle(stage)
        holds_open = await _expire(stage, options.stage)
    stage.stop_ray()  # the verifier needs the cores
    await _judge(stage, acknowledged, traffic, catalogue, holds_open, report)


async def _under_load(
    stage: Stage,
    options: Options,
    faults: list[type[Kill]],
    traffic: Traffic,
    acknowledged: Acknowledged,
    report: Report,
) -> None:
    """Strike while the load goes on. Whichever fails first ends the other."""
    struck = asyncio.Event()
    # The kills share the time that the events take, and a little is left before the first and behind the last.
    every_s = options.events / options.per_s / (len(faults) + 1)

    async def strike() -> None:
        await stage.clock.sleep(every_s / 2)
        await strike_all(stage, faults, options.seed, every_s, report)
        struck.set()

    async def show() -> None:
        while True:
            await stage.clock.sleep(SHOW_EVERY_S)
            stage.say(
                f"{acknowledged.events:,} of {options.events:,} events acknowledged, {sum(report.faults.values())} of "
                f"{len(faults)} kills, {len(stage.receiver.alerts):,} alerts told, {traffic.journal.allowed:,} "
                f"requests allowed"
            )

    working = [asyncio.create_task(traffic.run(struck)), asyncio.create_task(strike())]
    showing = asyncio.create_task(show())
    try:
        await asyncio.gather(*working)
    finally:
        for task in (*working, showing):
            task.cancel()
        await asyncio.gather(*working, showing, return_exceptions=True)


async def _settle(stage: Stage) -> None:
    """Everything that is in the log is rated and in a checkpoint, and every alert is told."""
    stage.say("the load has ended; waiting for the rest to be rated and told")
    ends = await stage.log_ends()

    async def amiss() -> str | None:
        if ends is None:
            return "Kafka does not say where the log ends"
        if (reason := await stage.amiss() or await stage.behind(ends)) is not None:
            return reason
        waiting = (await stage.store.outbox_counts()).waiting
        return f"{waiting} alerts are not delivered" if waiting else None

    await stage.until(amiss, "the load to be settled", SETTLE_S)


async def _expire(stage: Stage, options: StageOptions) -> int:
    """How many holds are still open once even those that gateways left behind must have expired."""
    stage.say("waiting for the holds that nobody settled to expire")
    count: int | None = None

    async def open_holds() -> str | None:
        nonlocal count
        count = await stage.open_holds()
        return "not every owner says how many holds are open" if count is None else f"{count} open" if count else None

    try:
        await stage.until(open_holds, "holds to expire", options.hold_ttl_s + options.report_delay_s + EXPIRY_SLACK_S)
    except StageFailed:
        if count is None:
            raise
    return count or 0


async def _judge(
    stage: Stage, acknowledged: Acknowledged, traffic: Traffic, catalogue: bytes, holds_open: int, report: Report
) -> None:
    """The verifier's word, into the report."""
    stage.say("checking: the oracle folds the same log")
    judged = await judge_run(
        stage.settings,
        {CATALOGUE_VERSION: catalogue},
        acknowledged,
        stage.receiver,
        sum(report.faults.values()),
        stage.say,
        journal=traffic.journal,
        sources=traffic.sources,
        held_customers=traffic.held_customers,
    )
    wrong = list(judged.wrong)
    if holds_open:
        wrong.append(f"{holds_open} holds are still open")
    if not (traffic.journal.allowed and traffic.journal.denied):
        wrong.append("no request was allowed, or none denied: such a run proves nothing of them")
    judged.count(report, acknowledged.events)
    figures = judged.figures | {
        "rounds": traffic.rounds,
        "alert_repeats": stage.receiver.repeats,
        "holds_open_at_end": holds_open,
        "requests_allowed": traffic.journal.allowed,
        "requests_denied": traffic.journal.reasons(),
        "requests": dict(traffic.journal.counts),
        "check_ms": percentiles(traffic.journal.check_ms),
        "http_retries": traffic.retries,
        "driver_behind_s": round(traffic.behind_s, 3),
    }
    report.add("kills", figures, wrong)


def _journal_dir(options: Options) -> Path:
    return options.run_dir.resolve() / "acknowledged"
