"""The sink: nobody waits for Kafka, and nothing is lost that had room."""

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from actors.kafka import Brokers, TopicReader, TopicSettings, create_topics
from engine.cost.served import parse_served
from tallygate_served import KafkaSink, Served


class Producer:
    """Takes records, unless it is told to fail."""

    def __init__(self, failures: int = 0, gate: threading.Event | None = None) -> None:
        self.failures = failures
        self.gate = gate
        self.sent: list[tuple[bytes, bytes]] = []

    async def start(self) -> None:
        if self.gate is not None:
            await asyncio.to_thread(self.gate.wait)

    async def send(self, topic: str, value: bytes, key: bytes) -> Any:
        if self.failures:
            self.failures -= 1
            raise OSError("no broker")
        self.sent.append((key, value))
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def stop(self) -> None:
        return None


@pytest.fixture
def gate() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def test_what_is_left_is_sent_at_the_end() -> None:
    producer = Producer()
    sink = KafkaSink("b", producer=lambda bootstrap: producer)
    for number in range(2_500):
        sink.put(b"k", b"%d" % number)
    sink.close(30)
    assert [int(value) for _, value in producer.sent] == list(range(2_500))
    assert (sink.sent, sink.lost) == (2_500, 0)


ENDING = """
import asyncio, atexit, os
from tallygate_served import KafkaSink

class Producer:
    async def start(self): ...
    async def stop(self): ...
    async def send(self, topic, value, key):
        os.write(1, value + b"\\n")
        done = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

sink = KafkaSink("b", producer=lambda bootstrap: Producer())

def gone():
    sink.put(b"k", b"gone")
    sink.close()

atexit.register(gone)
sink.put(b"k", b"first")
"""


def test_what_is_said_when_the_process_ends_is_sent() -> None:
    """A replica says there that it holds its GPUs no more: unsaid, it would cost for ever."""
    ended = subprocess.run([sys.executable, "-c", ENDING], capture_output=True, text=True, check=True, timeout=60)
    assert (ended.stdout.split(), ended.stderr) == (["first", "gone"], "")


def test_what_was_not_sent_at_the_end_is_told(caplog: pytest.LogCaptureFixture) -> None:
    sink = KafkaSink("b", producer=lambda bootstrap: Producer(failures=1_000))
    for number in range(3):
        sink.put(b"k", b"%d" % number)
    sink.close(30)
    assert "3 served records were not sent before the end" in caplog.text


def test_a_failure_is_tried_again() -> None:
    producer = Producer(failures=2)
    sink = KafkaSink("b", producer=lambda bootstrap: producer)
    sink.put(b"k", b"v")
    for _ in range(300):
        if sink.sent:
            break
        threading.Event().wait(0.1)
    sink.close(30)
    assert producer.sent == [(b"k", b"v")]


def test_what_has_no_room_is_lost_and_counted(gate: threading.Event, caplog: pytest.LogCaptureFixture) -> None:
    producer = Producer(gate=gate)
    sink = KafkaSink("b", pending_max=2, producer=lambda bootstrap: producer)
    for number in range(5):
        sink.put(b"k", b"%d" % number)
    assert sink.lost == 3
    assert "served records are being lost" in caplog.text
    gate.set()
    sink.close(30)
    assert [value for _, value in producer.sent] == [b"0", b"1"]


async def test_records_arrive_on_a_real_broker(kafka: str) -> None:
    settings = TopicSettings("s-usage", "s-rated", "s-dead", 1, 1, 1, measured=("s-served",))
    await create_topics(Brokers(kafka), settings)
    record = Served("evt-1", "llama-0", "m", 10, 20, 30, 100)
    sink = KafkaSink(kafka, "s-served")
    sink.put(*record.encoded())
    await asyncio.to_thread(sink.close, 60)
    reader = TopicReader(Brokers(kafka))
    await reader.start()
    try:
        (arrived,) = await reader.read_all("s-served", 0)
    finally:
        await reader.stop()
    assert parse_served(arrived.value, arrived.key).replica == "llama-0"
