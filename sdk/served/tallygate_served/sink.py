"""Into Kafka from a thread of its own: whoever puts never waits, and the memory for what waits is bounded."""

import asyncio
import logging
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Protocol

PENDING_MAX = 100_000
_BATCH = 1_000
_BACKOFF_MAX_S = 30.0

_log = logging.getLogger(__name__)


class Sink(Protocol):
    """Takes records."""

    def put(self, key: bytes, value: bytes) -> None:
        """Never waits, never raises."""

    def close(self, timeout_s: float = 5.0) -> None:
        """Sends what is left, for as long as that."""


class KafkaSink:
    """A thread with one idempotent producer. `lost` counts records that did not fit, or that Kafka refused."""

    def __init__(
        self,
        bootstrap: str,
        topic: str = "served",
        pending_max: int = PENDING_MAX,
        producer: Callable[[str], Any] | None = None,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        """`producer` makes the client; None: aiokafka, which the extra `kafka` installs. Raises ImportError without it.
        `security` are its options by which brokers let it in (`security_protocol`, `ssl_context`, `sasl_mechanism` ...)."""
        self._make = producer or _aiokafka(security or {})
        self._bootstrap = bootstrap
        self._topic = topic
        self._pending_max = pending_max
        self._pending: list[tuple[bytes, bytes]] = []
        self._lock = threading.Lock()
        self._wake = asyncio.Event()  # of the thread's loop
        self._loop: asyncio.AbstractEventLoop | None = None  # once it runs
        self._closing = False
        self.lost = 0
        self.sent = 0
        self._thread = threading.Thread(target=self._run, name="tallygate-served", daemon=True)
        self._thread.start()

    def put(self, key: bytes, value: bytes) -> None:
        """Never waits, never raises."""
        with self._lock:
            if self._closing or len(self._pending) >= self._pending_max:
                self.lost += 1
                first = self.lost == 1
            else:
                self._pending.append((key, value))
                first = False
        if first:
            _log.error("served records are being lost: Kafka at %s takes none, or not enough", self._bootstrap)
        self._rouse()

    def close(self, timeout_s: float = 5.0) -> None:
        """Sends what is left, for as long as that."""
        self._closing = True
        self._rouse()
        self._thread.join(timeout_s)
        if self._pending:
            _log.error("%d served records were not sent before the end", len(self._pending))

    def _rouse(self) -> None:
        """There is something to do. Before the loop runs nobody need be told: it begins by looking."""
        if self._loop is not None:
            with suppress(RuntimeError):  # it has ended
                self._loop.call_soon_threadsafe(self._wake.set)

    def _run(self) -> None:
        asyncio.run(self._work())

    async def _work(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._wake.set()
        producer: Any = None
        wait_s = 0.1
        while True:
            # On the loop, and on no other thread: where a process ends, Python gives out none any more, and the last records
            # are written just then.
            await self._wake.wait()
            self._wake.clear()
            with self._lock:
                batch = self._pending[:_BATCH]
            if not batch:
                if self._closing:
                    break
                continue
            try:
                if producer is None:
                    producer = self._make(self._bootstrap)
                    await producer.start()
                sent = [await producer.send(self._topic, value, key=key) for key, value in batch]
                await asyncio.gather(*sent)
            except Exception as error:
                # Whatever it was: sent again, all of it. A record that arrives twice counts once.
                _log.warning("Kafka at %s: %s: %s", self._bootstrap, type(error).__name__, error)
                await _stopped(producer)
                producer = None
                if self._closing:
                    break
                await asyncio.sleep(wait_s)
                wait_s = min(2 * wait_s, _BACKOFF_MAX_S)
                self._wake.set()
                continue
            wait_s = 0.1
            with self._lock:
                del self._pending[: len(batch)]
                self.sent += len(batch)
                if self._pending or self._closing:
                    self._wake.set()
        await _stopped(producer)


async def _stopped(producer: Any) -> None:
    if producer is not None:
        with suppress(Exception):
            await asyncio.wait_for(producer.stop(), 5.0)


def _aiokafka(security: Mapping[str, Any]) -> Callable[[str], Any]:
    from aiokafka import AIOKafkaProducer

    def make(servers: str) -> Any:
        return AIOKafkaProducer(bootstrap_servers=servers, acks="all", enable_idempotence=True, **security)

    return make
