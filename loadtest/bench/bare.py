"""The least that any consumer of the topic does: aiokafka reads it, msgspec decodes every value, and nothing comes of it.

It runs in a process of its own, on the event loop that the shards use, over the very topic that a shard rates.
"""

import asyncio
import multiprocessing
import statistics
import time
from collections.abc import Mapping
from multiprocessing.connection import Connection
from typing import Any, Final

import aiokafka
import msgspec
import uvloop
from aiokafka.structs import TopicPartition
from msgspec import Struct

from loadtest.engine_bench import BareEvent

RECORDS_AT_ONCE: Final = 2_000
WAIT_MS: Final = 200
ROUNDS: Final = 3
WITHIN_S: Final = 300.0


class Pass(Struct):
    """The topic once, from its beginning to `ends`."""

    records: int
    decoded: int  # of them, usage events; control records and what is malformed are looked at and left
    seconds: float
    cpu_s: float


async def read_through(bootstrap: str, topic: str, ends: Mapping[int, int]) -> Pass:
    """Consume and decode everything before `ends`, by partition."""
    consumer = aiokafka.AIOKafkaConsumer(
        bootstrap_servers=bootstrap, group_id=None, enable_auto_commit=False, fetch_max_wait_ms=20
    )
    await consumer.start()
    try:
        places = [TopicPartition(topic, number) for number in ends]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        decode = msgspec.json.Decoder(BareEvent).decode
        left = {number for number, end in ends.items() if end}
        records = decoded = 0
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        async with asyncio.timeout(WITHIN_S):
            while left:
                found = await consumer.getmany(timeout_ms=WAIT_MS, max_records=RECORDS_AT_ONCE)
                for batch in found.values():
                    records += len(batch)
                    for record in batch:
                        try:
                            decode(record.value)
                        except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
                            continue
                        decoded += 1
                for number in [*left]:
                    if await consumer.position(TopicPartition(topic, number)) >= ends[number]:
                        left.discard(number)
        return Pass(records, decoded, time.perf_counter() - began_s, time.process_time() - began_cpu_s)
    finally:
        await consumer.stop()


def _in_a_process(told: Connection, bootstrap: str, topic: str, ends: dict[int, int], rounds: int) -> None:
    async def all_rounds() -> list[Pass]:
        return [await read_through(bootstrap, topic, ends) for _ in range(rounds)]

    told.send(msgspec.to_builtins(uvloop.run(all_rounds())))


def summary(passes: list[Pass]) -> dict[str, Any]:
    """Records a second, by the wall clock and per core kept busy: medians of the passes."""
    return {
        "records": passes[0].records,
        "decoded": passes[0].decoded,
        "records_per_s": round(statistics.median(each.records / each.seconds for each in passes)),
        "records_per_core_s": round(statistics.median(each.records / each.cpu_s for each in passes)),
        "passes": msgspec.to_builtins(passes),
    }


async def bare_loop(bootstrap: str, topic: str, ends: Mapping[int, int], rounds: int = ROUNDS) -> dict[str, Any]:
    """`summary` of that many passes, in a process of their own. Raises RuntimeError when it broke."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    child = context.Process(target=_in_a_process, args=(theirs, bootstrap, topic, dict(ends), rounds))
    child.start()
    theirs.close()
    try:
        told = await asyncio.to_thread(ours.recv)
    except EOFError:
        raise RuntimeError("the bare loop broke; its error stands above") from None
    finally:
        await asyncio.to_thread(child.join)
    return summary(msgspec.convert(told, list[Pass]))
