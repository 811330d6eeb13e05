"""Ours by lease: gateways that decide in their own memory, one of them killed between two reports."""

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from actors.assembly import issue_key
from actors.deployment import until
from actors.door_wire import door_token
from loadtest.bench.stage import Stage
from loadtest.patterns.contenders import USED, ByLease, Gateway, one_request, over_http
from loadtest.patterns.ground import Ground
from loadtest.patterns.trial import Cast, Money, measured, money
from loadtest.patterns.try_in_process import COUNT_EVERY_S, COUNTED_EACH, PROCESSES, TIGHT, counted_until_killed
from loadtest.patterns.try_ours import APART_S, SCOPES, with_the_api
from loadtest.probes import COST_PICO, Customer, customers
from tallygate_sdk import AsyncClient, Client, HttpSink, LeaseHolder, Reporter, SmartClient, Spool, Usage

REQUESTS: Final = 20  # in a lease: a tenth of the cap, so that every gateway may have one
AT_ONCE: Final = 100  # admitted in a row where their time is measured
SENT_WITHIN_S: Final = 30.0


async def try_by_lease(ground: Ground) -> dict[str, Any]:
    """Four gateways, which requests are dealt out to in turn; their usage goes to the log."""
    async with ground.laid("ours_lease") as (stage, cast, crowd), AsyncExitStack() as stack:
        await stack.enter_async_context(with_the_api(ground, stage))
        key = await issue_key(stage.settings, stage.clock, "leases", SCOPES, created_by="make bench")
        url = f"http://{stage.settings.api.host}:{stage.settings.api.port}"
        session = await stack.enter_async_context(
            aiohttp.ClientSession(
                url, headers={"authorization": f"Bearer {key}"}, connector=aiohttp.TCPConnector(limit=0)
            )
        )
        token = door_token(stage.settings.control_key_bytes())
        gateways = [Gateway(SmartClient(url, key, token), REQUESTS) for _ in range(PROCESSES)]
        for gateway in gateways:
            stack.push_async_callback(gateway.close)
        note = f"{PROCESSES} gateways, {REQUESTS} requests in a lease"
        contender = ByLease("ours by lease", note, gateways, over_http(session), stage)
        killed = customers("killed-by-lease", 1, stage.settings.kafka.partitions)
        await stage.send([command for customer in killed for command in list(customer.commands())[:2]])
        return await _tried(ground, contender, stage, cast, crowd, killed[0], (url, key))


async def _tried(
    ground: Ground,
    contender: ByLease,
    stage: Stage,
    cast: Cast,
    crowd: Sequence[Customer],
    killed: Customer,
    where: tuple[str, str],
) -> dict[str, Any]:
    contender.knows([*cast.everybody(), *crowd, killed])
    figures = await measured(contender, cast, stage.clock, ground.scale, APART_S)
    async with AsyncClient(*where) as client:
        figures["check_p50_ms"] = await tight_checks(client, crowd[0].account)
    return figures | {"after_kill": msgspec.to_builtins(await _killed(ground, contender, killed, where))}


async def tight_checks(client: AsyncClient, account: str) -> float:
    """The mean of many checks in a row, in milliseconds: one takes less than a timer could tell. Nothing is used."""
    taken_s = 0.0
    async with LeaseHolder(client, one_request(account), requests=2 * AT_ONCE, source="bench") as holder:
        await holder.release(await holder.admit())  # which takes the lease
        for _ in range(TIGHT // AT_ONCE):
            began_s = time.perf_counter()
            admissions = [await holder.admit() for _ in range(AT_ONCE)]
            taken_s += time.perf_counter() - began_s
            for admission in admissions:
                await holder.release(admission)
        if holder.asked:
            raise AssertionError(f"{holder.asked} of {TIGHT} checks were asked of the service")
    return round(taken_s * 1000 / TIGHT, 6)


async def _killed(ground: Ground, contender: ByLease, customer: Customer, where: tuple[str, str]) -> Money:
    """A gateway that tells what it has reported, and what is booked once it was killed and another one has its spool.

    What it was about to tell is reported again by whoever asked it, as a caller does who got no answer: it has the same
    ids."""
    folder = ground.folder / "spool-of-a-killed-gateway"
    counted = await counted_until_killed(_report, where, str(folder), customer.account)
    reporter = Reporter(HttpSink(Client(*where)), Spool(folder))
    for number in range(counted, counted + COUNTED_EACH):
        reporter.report(_usage(customer.account, number))
    if not await asyncio.to_thread(reporter.close, SENT_WITHIN_S):
        raise AssertionError(f"the spool {folder} was not sent within {SENT_WITHIN_S:g} s")
    expected = (counted + COUNTED_EACH) * COST_PICO

    async def booked() -> bool:
        return await contender.booked(customer.account) >= expected

    await until(booked, f"the {counted + COUNTED_EACH} events of a killed gateway to be rated")
    return money({customer.account: expected}, {customer.account: await contender.booked(customer.account)})


def _usage(account: str, number: int) -> Usage:
    return Usage(account=account, type=one_request(account).type or "", data=USED, source="gateway", id=f"k{number}")


def _report(where: tuple[str, str], folder: str, account: str, told: Connection) -> None:
    async def reporting() -> None:
        reporter = Reporter(HttpSink(Client(*where)), Spool(Path(folder)))
        counted = 0
        async with LeaseHolder(AsyncClient(*where), one_request(account), requests=1_000, source="gateway") as holder:
            while True:
                for number in range(counted, counted + COUNTED_EACH):
                    admission = await holder.admit()
                    reporter.report(holder.settle(admission, USED, id=f"k{number}"))
                counted += COUNTED_EACH
                told.send(counted)
                await asyncio.sleep(COUNT_EVERY_S)

    asyncio.run(reporting())
